// Dead letters, newest first, with the event and attempts of the opened one.
import { html } from 'htm/preact';
import { useEffect, useState } from 'preact/hooks';
import { get } from '../api.js';
import { link, setFilters } from '../location.js';
import { Details, Facts, Filter, Problem, State } from '../parts.js';
import { ChangeMany, ReplayDrop } from '../operate.js';
import { Table } from '../table.js';
import { clock, contains } from '../text.js';

const MOST_ROWS = 10_000;
// A page can have few rows, or none, if most dead letters are of other namespaces.
const MOST_PAGES = 20;
const PAGE = 1000;

const reasonOf = (row) => html`<${State} kind="bad">${row.reason}</${State}>`;
const objectOf = (row) => row.object;

const COLUMNS = [
  { name: 'Died', width: '11.5rem', of: (row) => clock(row.diedAt) },
  { name: 'Reason', width: '9rem', of: reasonOf },
  { name: 'Provider', width: 'minmax(8rem, 16rem)', of: (row) => row.provider },
  { name: 'Alert', width: 'minmax(8rem, 14rem)', of: (row) => row.alert },
  { name: 'About', width: 'minmax(8rem, 18rem)', of: objectOf, title: objectOf },
  { name: 'Detail', of: (row) => row.detail, title: (row) => row.detail },
];

// Reads page after page, the newest first, until there are as many rows as may be shown.
function useDeadLetters(fail, version) {
  const [state, setState] = useState({ rows: [], stored: null, isComplete: false });
  const [error, setError] = useState(null);
  useEffect(() => {
    const abort = new AbortController();
    (async () => {
      let rows = [];
      let after;
      let pages = 0;
      do {
        const parameters = { order: 'newest', after, limit: PAGE };
        const page = await get('dead', parameters, { signal: abort.signal });
        rows = rows.concat(page.deadLetters);
        after = page.next;
        pages += 1;
        const isComplete = after == null;
        // Who sees some namespaces only does not get the number of all.
        setState({ rows, stored: page.stored ?? rows.length, isComplete });
      } while (after != null && rows.length < MOST_ROWS && pages < MOST_PAGES);
    })().catch((problem) => {
      if (problem.name === 'AbortError') return;
      setError(problem);
      fail(problem);
    });
    return () => abort.abort();
  }, [version]);
  return { ...state, error };
}

function Opened({ sequence, close, fail, canOperate, changed }) {
  const [letter, setLetter] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    const abort = new AbortController();
    setLetter(null);
    get(`dead/${sequence}`, {}, { signal: abort.signal })
      .then(setLetter)
      .catch((problem) => {
        if (problem.name === 'AbortError') return;
        setError(problem);
        fail(problem);
      });
    return () => abort.abort();
  }, [sequence]);
  return html`<${Details} title="Dead letter" close=${close}>
    <${Problem} error=${error} />
    ${letter && html`<${Facts} of=${[
        ['Id', letter.id],
        ['Reason', letter.reason],
        ['Detail', letter.detail],
        ['Alert', letter.alert],
        ['Provider', letter.provider],
        ['Cluster', letter.cluster],
        ['Planned', clock(letter.plannedAt)],
        ['Died', clock(letter.diedAt)],
      ]} />
      ${canOperate && html`<${ReplayDrop} key=${sequence} sequence=${sequence} fail=${fail}
        changed=${changed} />`}
      ${letter.eventId && html`<p>
        <a href=${link('trace', { event: letter.eventId })}>Trace of the event</a></p>`}
      <h3>Attempts</h3>
      <ol>${letter.attempts.map((attempt) => html`<li key=${attempt.number}>
        ${clock(attempt.startedAt)}, ${attempt.durationMs} ms:
        ${' '}<${State} kind="bad">${attempt.outcome}</${State}> ${attempt.detail}</li>`)}</ol>
      <h3>Event${letter.isExcerpt ? ' (excerpt)' : ''}</h3>
      <pre tabindex="0">${JSON.stringify(letter.event, null, 2)}</pre>`}
  </${Details}>`;
}

export function DeadLetters({ filters, fail, canOperate }) {
  const [version, setVersion] = useState(0);
  const { rows: all, stored, isComplete, error } = useDeadLetters(fail, version);
  const [opened, setOpened] = useState(null);
  const [changes, setChanges] = useState('');
  const changed = (text) => {
    setOpened(null);
    setChanges(text);
    setVersion((before) => before + 1);
    return text;
  };
  const rows = all.filter((row) =>
    contains(row.provider, filters.provider) &&
    contains(row.reason, filters.reason) &&
    contains(`${row.alert} ${row.object} ${row.cluster} ${row.detail}`, filters.text));
  const set = (name) => (text) => setFilters('dead', { ...filters, [name]: text });
  const more = !isComplete && all.length >= MOST_ROWS ? `, the newest ${MOST_ROWS} are shown` : '';
  return html`<form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <${Filter} name="provider" label="Provider" value=${filters.provider}
        set=${set('provider')} />
      <${Filter} name="reason" label="Reason" value=${filters.reason} set=${set('reason')} />
      <${Filter} name="text" label="Text" value=${filters.text} set=${set('text')} /></form>
    ${canOperate && html`<${ChangeMany} changed=${changed} fail=${fail} />`}
    <${Problem} error=${error} />
    <p role="status" class="status">${changes && `${changes} `}${rows.length} of ${
      stored ?? '…'}${more}</p>
    <div class="split">
      <${Table} label="Dead letters" columns=${COLUMNS} rows=${rows} keyOf=${(row) => row.sequence}
        open=${(row) => setOpened(row.sequence)}
        empty=${stored === null ? 'Loading…' : 'No dead letter.'} />
      ${opened !== null && html`<${Opened} sequence=${opened} close=${() => setOpened(null)}
        fail=${fail} canOperate=${canOperate} changed=${changed} />`}
    </div>`;
}
