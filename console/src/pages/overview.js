// What `tidings status` shows, and plots of the last hour.
import { html } from 'htm/preact';
import { usePolled } from '../use.js';
import { Problem, State } from '../parts.js';
import { Plot } from '../plot.js';
import { length } from '../text.js';
import { link } from '../location.js';

const INTERVAL_SECONDS = 10;

const PLOTS = [
  {
    title: 'Events and deliveries',
    unit: '/s',
    series: [
      { name: 'events', stroke: '--blue', of: (sample) => sample.eventsPerSecond },
      { name: 'delivered', stroke: '--green', of: (sample) => sample.delivered / INTERVAL_SECONDS },
      {
        name: 'failed attempts',
        stroke: '--red',
        dash: [6, 4],
        of: (sample) => (sample.retrying + sample.dead) / INTERVAL_SECONDS,
      },
    ],
  },
  {
    title: 'Time from plan to delivery',
    unit: ' ms',
    series: [
      { name: 'median', stroke: '--blue', of: (sample) => sample.latencyMedianMs },
      { name: '95 %', stroke: '--red', dash: [6, 4], of: (sample) => sample.latencyHighMs },
    ],
  },
  {
    title: 'Waiting',
    unit: '',
    series: [
      { name: 'events', stroke: '--blue', of: (sample) => sample.unrouted },
      { name: 'ready deliveries', stroke: '--green', of: (sample) => sample.ready },
      { name: 'parked deliveries', stroke: '--red', dash: [6, 4], of: (sample) => sample.parked },
    ],
  },
];

function Problems({ status }) {
  if (status.problems.length === 0) {
    return html`<p class="well"><${State} kind="good">well</${State}> Nothing needs attention.</p>`;
  }
  return html`<ul class="problems">${status.problems.map((problem) => html`<li
    key=${problem.code + problem.message}><${State} kind="bad">${problem.code}</${State}>
    ${problem.message}</li>`)}</ul>`;
}

function Processes({ processes }) {
  return html`<table><caption>Processes</caption>
    <thead><tr><th scope="col">Role</th><th scope="col">Host</th><th scope="col">State</th>
      <th scope="col">Version</th><th scope="col">Last report</th></tr></thead>
    <tbody>${processes.map((process) => html`<tr key=${process.process}>
      <th scope="row">${process.role}</th><td>${process.host}</td>
      <td>${!process.isAlive
        ? html`<${State} kind="bad">gone</${State}>`
        : process.isReady
          ? html`<${State} kind="good">ready</${State}>`
          : html`<${State} kind="bad">not ready</${State}>`} ${process.reason}</td>
      <td>${process.version}</td><td>${length(process.reportedSecondsAgo)} ago</td></tr>`)}
    </tbody></table>`;
}

function Clusters({ clusters }) {
  return html`<table><caption>Clusters</caption>
    <thead><tr><th scope="col">Name</th><th scope="col">State</th>
      <th scope="col">Last event</th></tr></thead>
    <tbody>${clusters.map((cluster) => html`<tr key=${cluster.name}>
      <th scope="row"><a href=${link('live', { cluster: cluster.name })}>${cluster.name}</a></th>
      <td>${cluster.ingests > 0
        ? html`<${State} kind="good">connected</${State}>`
        : html`<${State} kind="bad">not connected</${State}>`}</td>
      <td>${cluster.silentSeconds == null ? 'none' : `${length(cluster.silentSeconds)} ago`}</td>
    </tr>`)}</tbody></table>`;
}

// For users who see some namespaces only.
function Limited({ status }) {
  return html`<section aria-label="Needs attention"><h2>Needs attention</h2>
      <${Problems} status=${status} /></section>
    <section aria-label="Numbers" class="numbers">
      <a href=${link('providers')}><strong>${status.circuits.length}</strong> open circuits</a>
    </section>
    <p>This is about the namespaces that you may see. Plots and counts are about all of them, and
      shown to those who may see all.</p>
    <section aria-label="What runs" class="tables">
      <${Processes} processes=${status.processes} /></section>`;
}

export function Overview({ fail }) {
  const { value, error } = usePolled('overview', {}, 5, fail);
  if (!value) return html`<${Problem} error=${error} />`;
  const { status, samples, isLimited } = value;
  if (isLimited) return html`<${Problem} error=${error} /><${Limited} status=${status} />`;
  return html`<${Problem} error=${error} />
    <section aria-label="Needs attention"><h2>Needs attention</h2>
      <${Problems} status=${status} /></section>
    <section aria-label="Numbers" class="numbers">
      <a href=${link('parked')}><strong>${status.backlog.parked ?? 0}</strong> parked</a>
      <a href=${link('dead')}><strong>${status.deadLetters.count}</strong> dead letters</a>
      <a href=${link('providers')}><strong>${status.circuits.length}</strong> open circuits</a>
    </section>
    <section aria-label="Last hour"><h2>Last hour</h2><div class="plots">
      ${PLOTS.map((plot) => html`<${Plot} key=${plot.title} ...${plot} samples=${samples} />`)}
    </div></section>
    <section aria-label="What runs" class="tables">
      <${Processes} processes=${status.processes} /><${Clusters} clusters=${status.clusters} />
    </section>`;
}
