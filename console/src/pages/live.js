// Events and outcomes as they happen. The filters are in the URL.
import { html } from 'htm/preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { follow } from '../api.js';
import { link, setFilters } from '../location.js';
import { Details, Facts, Filter, State, kindOf } from '../parts.js';
import { Table } from '../table.js';
import { clock } from '../text.js';

const MOST_ROWS = 10_000;
const PAUSE_MS = 2000;
const PAST = 500;
const FILTERS = [
  ['cluster', 'Cluster'],
  ['namespace', 'Namespace'],
  ['kind', 'Kind'],
  ['name', 'Name'],
  ['text', 'Text'],
];
const SEVERITIES = ['', 'trace', 'info', 'warn', 'error'].map((value) => [value, value || 'all']);
const SHOWN = [['', 'events and outcomes'], ['events', 'events']];

const whatOf = (row) => html`<${State} kind=${row.kind}>${row.what}</${State}>`;
const aboutOf = (row) => row.about;

const COLUMNS = [
  { name: 'Time', width: '11.5rem', of: (row) => clock(row.time) },
  { name: 'What', width: '7rem', of: whatOf },
  { name: 'Cluster', width: '8rem', of: (row) => row.cluster },
  { name: 'About', width: 'minmax(10rem, 22rem)', of: aboutOf, title: aboutOf },
  { name: 'Text', of: (row) => row.text, title: (row) => row.text },
];

function eventRow(event, key) {
  const about = `${event.kind} ${event.namespace}/${event.name}`;
  const text = `${event.reason}: ${event.message}`;
  const { cluster, receivedAt: time, severity: what } = event;
  return { key, time, what, kind: kindOf(what), cluster, about, text, raw: event };
}

function outcomeRow(outcome, key) {
  const { cluster, at: time, outcome: what } = outcome;
  const about = `${outcome.alert} → ${outcome.provider}`;
  const text = [outcome.reason, outcome.detail].filter(Boolean).join(': ');
  return { key, time, what, kind: kindOf(what), cluster, about, text, raw: outcome };
}

// Collects what arrives, and draws it once in a frame.
function useStream(filters, isPaused, fail) {
  const [rows, setRows] = useState([]);
  const [state, setState] = useState('connecting');
  const [missed, setMissed] = useState(0);
  const waiting = useRef([]);
  const paused = useRef(isPaused);
  paused.current = isPaused;
  const key = JSON.stringify(filters);
  useEffect(() => {
    const abort = new AbortController();
    let number = 0;
    let frame = 0;
    waiting.current = [];
    setRows([]);
    setMissed(0);
    const draw = () => {
      frame = requestAnimationFrame(draw);
      if (paused.current || waiting.current.length === 0) return;
      const added = waiting.current.splice(0).reverse();
      setRows((before) => added.concat(before).slice(0, MOST_ROWS));
    };
    draw();
    let lastId = null;
    const handle = (name, data, id) => {
      lastId = id || lastId;
      if (name === 'missed') {
        const more = (data.events ?? 0) + (data.outcomes ?? 0);
        setMissed((before) => before + more);
      }
      if (name !== 'event' && name !== 'outcome') return;
      waiting.current.push((name === 'event' ? eventRow : outcomeRow)(data, (number += 1)));
      if (waiting.current.length > MOST_ROWS) waiting.current.shift();
    };
    const { shown, ...parameters } = filters;
    const outcomes = shown !== 'events';
    const query = { ...parameters, outcomes, past: PAST };
    (async () => {
      while (!abort.signal.aborted) {
        try {
          setState('live');
          await follow('events', query, { signal: abort.signal, lastId }, handle);
        } catch (error) {
          if (abort.signal.aborted) return;
          fail(error);
          setState(`interrupted: ${error.message}`);
        }
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      }
    })();
    return () => {
      cancelAnimationFrame(frame);
      abort.abort();
    };
  }, [key]);
  return { rows, state, missed };
}

// A filter takes effect when typing pauses, so that each letter opens no stream.
function useSettled(value) {
  const [settled, setSettled] = useState(value);
  const key = JSON.stringify(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(JSON.parse(key)), 300);
    return () => clearTimeout(timer);
  }, [key]);
  return settled;
}

const factsOf = (raw) => Object.entries(raw).map(([name, value]) => [name, String(value ?? '')]);

export function Live({ filters, fail }) {
  const [isPaused, setPaused] = useState(false);
  const [opened, setOpened] = useState(null);
  const settled = useSettled(filters);
  const { rows, state, missed } = useStream(settled, isPaused, fail);
  const set = (name) => (value) => setFilters('live', { ...filters, [name]: value });
  const outcomes = opened ? rows.filter((row) => row.raw.eventId === opened.raw.id) : [];
  return html`<form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      ${FILTERS.map(([name, label]) => html`<${Filter} key=${name} name=${name} label=${label}
        value=${filters[name]} set=${set(name)} />`)}
      <${Filter} name="severity" label="Severity" value=${filters.severity} set=${set('severity')}
        options=${SEVERITIES} />
      <${Filter} name="shown" label="Show" value=${filters.shown} set=${set('shown')}
        options=${SHOWN} />
      <button type="button" aria-pressed=${isPaused} onClick=${() => setPaused(!isPaused)}>
        Pause</button>
    </form>
    <p role="status" class="status">${isPaused ? 'paused' : state}, ${rows.length} rows${
      missed > 0 ? `, ${missed} missed` : ''}</p>
    <div class="split">
      <${Table} label="Events and outcomes" columns=${COLUMNS} rows=${rows}
        keyOf=${(row) => row.key} open=${setOpened} empty="Nothing yet." />
      ${opened && html`<${Details} title=${opened.about} close=${() => setOpened(null)}>
        <${Facts} of=${factsOf(opened.raw)} />
        <p><a href=${link('trace', { event: opened.raw.eventId ?? opened.raw.id })}>Trace</a></p>
        ${outcomes.length > 0 && html`<h3>Outcomes</h3><ul>${outcomes.map((row) => html`<li
          key=${row.key}>${whatOf(row)} ${row.about} ${row.text}</li>`)}</ul>`}
      </${Details}>`}
    </div>`;
}
