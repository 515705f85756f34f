// Deliveries that wait: parked until their next attempt, or ready for a worker.
import { html } from 'htm/preact';
import { usePolled } from '../use.js';
import { link, setFilters } from '../location.js';
import { Filter, Problem, State } from '../parts.js';
import { Table } from '../table.js';
import { clock } from '../text.js';

const LIMIT = 500;
const STATES = [['', 'parked'], ['ready', 'ready']];

const waitsFor = (row) => html`<${State} kind="warn">${row.waitsFor}</${State}>`;

const traceOf = (row) => row.eventId && html`<a href=${link('trace', { event: row.eventId })}
  >Trace</a>`;

const COLUMNS = [
  { name: 'Next attempt', width: '11.5rem', of: (row) => clock(row.nextAttemptAt) || 'now' },
  { name: 'Waits for', width: '8rem', of: waitsFor },
  { name: 'Provider', width: 'minmax(8rem, 16rem)', of: (row) => row.provider },
  { name: 'Alert', width: 'minmax(8rem, 16rem)', of: (row) => row.alert },
  { name: 'Event', width: '5rem', of: traceOf },
  { name: 'Attempts', width: '5.5rem', of: (row) => row.attempts },
  {
    name: 'Last attempt',
    of: (row) => row.reason && `${row.reason}: ${row.detail}`,
    title: (row) => row.detail,
  },
];

export function Parked({ filters, fail }) {
  const { state, provider } = filters;
  const { value, error } = usePolled('deliveries', { state, provider, limit: LIMIT }, 5, fail);
  const rows = value?.deliveries ?? [];
  const set = (name) => (text) => setFilters('parked', { ...filters, [name]: text });
  return html`<form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <${Filter} name="state" label="State" value=${state} set=${set('state')} options=${STATES} />
      <${Filter} name="provider" label="Provider (namespace/name)" value=${provider}
        set=${set('provider')} /></form>
    <${Problem} error=${error} />
    <p role="status" class="status">${rows.length}${value?.hasMore ? ', and more' : ''}</p>
    <${Table} label="Waiting deliveries" columns=${COLUMNS} rows=${rows} keyOf=${(row) => row.id}
      empty=${value ? 'Nothing waits.' : 'Loading…'} />`;
}
