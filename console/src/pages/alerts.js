// Alerts with their state and last match, and the problems of all rules.
import { html } from 'htm/preact';
import { useState } from 'preact/hooks';
import { usePolled } from '../use.js';
import { setFilters } from '../location.js';
import { Details, Facts, Filter, Problem, State } from '../parts.js';
import { Table } from '../table.js';
import { ago, contains } from '../text.js';

function stateOf(alert) {
  if (alert.rejection) return ['bad', alert.inEffect ? 'old version' : 'rejected'];
  if (alert.spec && !alert.spec.hasProvider) return ['bad', 'no provider'];
  if (alert.spec?.suspended) return ['warn', 'suspended'];
  if (alert.problems.length > 0) return ['warn', 'problems'];
  return ['good', 'ok'];
}

const nameOf = (alert) => `${alert.namespace}/${alert.name}`;
const sourcesOf = (alert) => alert.spec?.sources.join(', ');

const COLUMNS = [
  { name: 'Alert', width: 'minmax(10rem, 18rem)', of: nameOf, title: nameOf },
  {
    name: 'State',
    width: '8rem',
    of: (alert) => {
      const [kind, text] = stateOf(alert);
      return html`<${State} kind=${kind}>${text}</${State}>`;
    },
  },
  { name: 'Last match', width: '8rem', of: (alert) => ago(alert.seen?.lastMatchAt) },
  { name: 'Provider', width: 'minmax(8rem, 16rem)', of: (alert) => alert.spec?.provider },
  { name: 'Sources', of: sourcesOf, title: sourcesOf },
];

function Opened({ alert, close }) {
  const { spec, seen } = alert;
  return html`<${Details} title=${nameOf(alert)} close=${close}>
    <${Facts} of=${[
      ['State', stateOf(alert)[1]],
      ['Sources', sourcesOf(alert)],
      ['Severities', spec?.severities.join(', ')],
      ['Provider', spec?.provider],
      ['Summary', spec?.summary],
      ['Last match', ago(seen?.lastMatchAt)],
      ['Last delivery', ago(seen?.lastDeliveryAt)],
      ['Last error', seen?.lastError && `${seen.lastError.reason}: ${seen.lastError.detail}`],
      ['Rejected', alert.rejection],
    ]} />
    ${alert.problems.map((problem) => html`<p key=${problem.message}>
      <${State} kind="warn">${problem.severity}</${State}> ${problem.message}</p>`)}
  </${Details}>`;
}

export function Alerts({ filters, fail }) {
  const { value, error } = usePolled('alerts', {}, 5, fail);
  const [opened, setOpened] = useState(null);
  const all = value?.alerts ?? [];
  const problems = value?.problems ?? [];
  const rows = all.filter((alert) =>
    contains(`${nameOf(alert)} ${alert.spec?.provider} ${stateOf(alert)[1]}`, filters.text));
  const alert = all.find((one) => nameOf(one) === opened);
  return html`<${Problem} error=${error} />
    ${value?.sourceProblem && html`<p class="problem" role="alert">${value.sourceProblem}</p>`}
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <${Filter} name="text" label="Text" value=${filters.text}
        set=${(text) => setFilters('alerts', { text })} /></form>
    <p role="status" class="status">${rows.length} of ${all.length}</p>
    <div class="split">
      <${Table} label="Alerts" columns=${COLUMNS} rows=${rows} keyOf=${nameOf}
        open=${(row) => setOpened(nameOf(row))} empty=${value ? 'No Alert.' : 'Loading…'} />
      ${alert && html`<${Opened} alert=${alert} close=${() => setOpened(null)} />`}
    </div>
    ${problems.length > 0 && html`<section aria-label="Problems in rules">
      <h2>Problems in rules</h2>
      <ul class="problems">${problems.map(({ severity, message }) => html`<li key=${message}>
        <${State} kind=${severity === 'error' ? 'bad' : 'warn'}>${severity}</${State}>
        ${message}</li>`)}</ul></section>`}`;
}
