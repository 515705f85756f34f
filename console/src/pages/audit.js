// Who did what by hand, on the console or with a tool.
import { html } from 'htm/preact';
import { usePolled } from '../use.js';
import { setFilters } from '../location.js';
import { Filter, Problem } from '../parts.js';
import { Table } from '../table.js';
import { clock, contains } from '../text.js';

const LIMIT = 1000;
const SPANS = [['', '7 days'], ['1d', '1 day'], ['30d', '30 days'], ['365d', 'a year']];

const COLUMNS = [
  { name: 'Time', width: '11.5rem', of: (row) => clock(row.storedAt) },
  { name: 'Who', width: 'minmax(7rem, 16rem)', of: (row) => row.who, title: (row) => row.who },
  { name: 'From', width: '9rem', of: (row) => row.from, title: (row) => row.from },
  { name: 'Via', width: '5rem', of: (row) => row.via },
  { name: 'Action', width: '9rem', of: (row) => row.action },
  { name: 'Count', width: '4.5rem', of: (row) => row.count || '' },
  { name: 'Target', width: 'minmax(8rem, 1fr)', of: (row) => row.target,
    title: (row) => row.target },
  { name: 'Detail', width: 'minmax(8rem, 1fr)', of: (row) => row.detail,
    title: (row) => row.detail },
];

export function Audit({ filters, fail }) {
  const { since, who, text } = filters;
  const { value, error } = usePolled('audit', { since, limit: LIMIT }, 10, fail);
  const rows = (value?.actions ?? []).filter((row) =>
    contains(row.who, who) &&
    contains(`${row.action} ${row.target} ${row.detail} ${row.from} ${row.via}`, text));
  const set = (name) => (text) => setFilters('audit', { ...filters, [name]: text });
  return html`<form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <${Filter} name="since" label="Last" value=${since} set=${set('since')} options=${SPANS} />
      <${Filter} name="who" label="Who" value=${who} set=${set('who')} />
      <${Filter} name="text" label="Text" value=${text} set=${set('text')} /></form>
    <${Problem} error=${error} />
    <p role="status" class="status">${rows.length}${
      value?.hasMore ? `, the newest ${LIMIT} are shown` : ''}</p>
    <${Table} label="Actions" columns=${COLUMNS} rows=${rows} keyOf=${(row) => row.sequence}
      empty=${value ? 'Nobody did anything by hand.' : 'Loading…'} />`;
}
