// What became of an event, of an object's events, or of a commit.
import { html } from 'htm/preact';
import { useEffect, useState } from 'preact/hooks';
import { get } from '../api.js';
import { link, setFilters } from '../location.js';
import { Facts, Filter, Problem, State, kindOf } from '../parts.js';
import { clock } from '../text.js';

const WANTED = [
  ['event', 'Event id'],
  ['object', 'Object (Kind/namespace/name)'],
  ['commit', 'Commit'],
  ['since', 'Since (default of objects: 1h)'],
];

function useTrace(filters, fail) {
  const [state, setState] = useState({});
  const key = JSON.stringify(WANTED.map(([name]) => filters[name]));
  useEffect(() => {
    const abort = new AbortController();
    const { event, object, commit, since } = filters;
    setState({});
    if (!event && !object && !commit) return () => {};
    setState({ isLoading: true });
    const query = { event, object, commit, since, limit: 20 };
    get('trace', query, { signal: abort.signal })
      .then((trace) => setState({ trace }))
      .catch((error) => {
        if (error.name === 'AbortError') return;
        setState({ error });
        fail(error);
      });
    return () => abort.abort();
  }, [key]);
  return state;
}

const Verdicts = ({ label, of }) => html`<table><caption>${label}</caption>
  <thead><tr><th scope="col">Alert</th><th scope="col">Verdict</th><th scope="col">Why</th></tr>
  </thead>
  <tbody>${of.map(({ alert, verdict, detail, isRecomputed, today }) => html`<tr key=${alert}>
    <th scope="row">${alert}</th>
    <td><${State} kind=${verdict === 'matched' ? 'good' : ''}>${verdict}</${State}></td>
    <td>${detail}${isRecomputed ? ' (with today\u2019s rules)' : ''}${
      today ? ` (today\u2019s rules: ${today})` : ''}</td></tr>`)}</tbody></table>`;

const Delivery = ({ of: delivery }) => html`<li><${State} kind=${kindOf(delivery.state)}>${
    delivery.state}</${State}> ${delivery.alert} → ${delivery.provider} (${delivery.type})
  <${Facts} of=${[
    ['Id', delivery.id],
    ['Waits for', delivery.waitsFor],
    ['Next attempt', clock(delivery.nextAttemptAt)],
    ['Why', [delivery.reason, delivery.detail].filter(Boolean).join(': ')],
    ['Circuit', delivery.circuit],
    ['Replay', delivery.generation || null],
  ]} />
  <ol>${delivery.attempts.map((attempt) => html`<li key=${attempt.number}>
    ${clock(attempt.startedAt)}, ${attempt.durationMs} ms:
    ${' '}<${State} kind=${kindOf(attempt.outcome)}>${attempt.outcome}</${State}>
    ${attempt.status ? `answered ${attempt.status} ` : ''}${
      [attempt.reason, attempt.detail].filter(Boolean).join(': ')}</li>`)}</ol></li>`;

function EventTrace({ of: event }) {
  const object = [event.kind, event.namespace, event.name].filter(Boolean).join('/');
  const others = event.verdicts.filter((one) => one.verdict === 'no-event-source-matches');
  const named = event.verdicts.filter((one) => one.verdict !== 'no-event-source-matches');
  return html`<article aria-label=${`Event ${event.id}`}>
    <h2>${object || 'Event'}</h2>
    <${Facts} of=${[
      ['Id', event.id],
      ['Message', event.message],
      ['Reason', event.reason],
      ['Severity', event.severity],
      ['Cluster', event.cluster],
      ['Reported by', event.source],
      ['Revision', event.revision],
      ['Routing', event.routing],
    ]} />
    ${object && html`<p><a href=${link('trace', { object })}>Events of this object</a>${' · '}
      <a href=${link('tester', { id: event.id })}>Try it with today\u2019s rules</a></p>`}
    <h3>Timeline</h3>
    <ol class="timeline">${event.timeline.map((entry, index) => html`<li key=${index}>
      <time>${clock(entry.at)}</time> ${entry.text}</li>`)}</ol>
    <h3>Deliveries</h3>
    ${event.deliveries.length > 0
      ? html`<ul class="deliveries">${event.deliveries.map((delivery) => html`<${Delivery}
          key=${delivery.id} of=${delivery} />`)}</ul>`
      : html`<p>None.</p>`}
    ${named.length > 0 && html`<${Verdicts} label="Alerts" of=${named} />`}
    ${others.length > 0 && html`<details><summary>Other Alerts (${others.length})</summary>
      <${Verdicts} label="Alerts that do not name the object" of=${others} /></details>`}
  </article>`;
}

const Absence = ({ of: absence, query }) => html`<section aria-label="No event">
  <h2>No event of ${query} found</h2>
  <h3>Last events</h3>
  <ul>${absence.lastEvents.map((event) => html`<li key=${event.id}>
    <a href=${link('trace', { event: event.id })}>${clock(event.receivedAt)}</a> ${event.message}
  </li>`)}</ul>
  ${absence.lastEvents.length === 0 && html`<p>None is stored.</p>`}
  <h3>Clusters</h3>
  <ul>${absence.clusters.map((cluster) => html`<li key=${cluster.name}>${cluster.name}:
    ${cluster.ingests > 0 ? ' connected' : ' not connected'}</li>`)}</ul>
  ${absence.wouldMatch.length > 0 && html`<${Verdicts} label="Alerts that name the object"
    of=${absence.wouldMatch} />`}
  ${absence.problems.length > 0 && html`<h3>Problems</h3><ul>${absence.problems.map((problem) =>
    html`<li key=${problem.message}><${State} kind="bad">${problem.code}</${State}>
      ${problem.message}</li>`)}</ul>`}
</section>`;

export function Trace({ filters, fail }) {
  const [wanted, setWanted] = useState(filters);
  useEffect(() => setWanted(filters), [JSON.stringify(filters)]);
  const { trace, error, isLoading } = useTrace(filters, fail);
  const submit = (event) => {
    event.preventDefault();
    setFilters('trace', wanted);
  };
  const set = (name) => (value) => setWanted({ ...wanted, [name]: value });
  return html`<form class="filters" role="search" onSubmit=${submit}>
      ${WANTED.map(([name, label]) => html`<${Filter} key=${name} name=${name} label=${label}
        value=${wanted[name]} set=${set(name)} />`)}
      <button>Trace</button></form>
    <${Problem} error=${error} />
    ${isLoading && html`<p role="status">Loading…</p>`}
    ${trace && html`<div class="trace">
      ${trace.notes.map(({ code, message }) => html`<p key=${code}>
        <${State} kind="warn">${code}</${State}> ${message}</p>`)}
      ${trace.events.toReversed().map((event) => html`<${EventTrace} key=${event.id}
        of=${event} />`)}
      ${trace.absence && html`<${Absence} of=${trace.absence} query=${trace.query} />`}</div>`}`;
}
