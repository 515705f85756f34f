// What the role operate may do.
import { html } from 'htm/preact';
import { useState } from 'preact/hooks';
import { get, post } from './api.js';
import { link } from './location.js';
import { Message } from './message.js';
import { Confirmed, Done, Filter } from './parts.js';
import { useAction } from './use.js';

// Pause and resume a Provider.
export function PauseResume({ provider, isPaused, changed, fail }) {
  const [reason, setReason] = useState('');
  const action = useAction(fail);
  const pause = () => action.run(() => post('actions/providers/pause', { provider, reason }),
    () => changed('Paused.'));
  const resume = () => action.run(() => post('actions/providers/resume', { provider }),
    ({ woken, left }) => changed(`Resumed, ${woken} deliveries woken${
      left > 0 ? `, ${left} wait for their send time` : ''}.`));
  return html`<h3>Pause</h3>
    ${isPaused
      ? html`<button type="button" disabled=${action.isRunning} onClick=${resume}>Resume</button>`
      : html`<div class="filters"><${Filter} name="reason" label="Reason" value=${reason}
          set=${setReason} />
          <button type="button" disabled=${action.isRunning} onClick=${pause}>Pause</button>
          <button type="button" disabled=${action.isRunning} onClick=${resume}>
            Retry now</button></div>`}
    <${Done} of=${action} />`;
}

// Shows a test message, and then sends it.
export function TestMessage({ provider, fail }) {
  const [message, setMessage] = useState('');
  const [preview, setPreview] = useState(null);
  const [sent, setSent] = useState(null);
  const action = useAction(fail);
  const ask = (send) => () => post('actions/providers/test', { provider, message, send });
  const show = () => action.run(ask(false), (answer) => {
    setSent(null);
    setPreview(answer);
  });
  const send = () => action.run(ask(true), (answer) => {
    setPreview(null);
    setSent(answer.eventId);
    return 'Sent to a worker.';
  });
  return html`<h3>Test message</h3>
    <div class="filters"><${Filter} name="message" label="Text" value=${message}
        set=${setMessage} />
      <button type="button" disabled=${action.isRunning} onClick=${show}>Preview</button></div>
    <${Done} of=${action} />
    ${preview && html`<${Message} of=${preview} />
      <button type="button" disabled=${action.isRunning} onClick=${send}>Send it</button>`}
    ${sent && html`<p><a href=${link('trace', { event: sent })}>What became of it</a></p>`}`;
}

// Replays and drops one dead letter.
export function ReplayDrop({ sequence, changed, fail }) {
  const action = useAction(fail);
  const act = (name, text) => () => action.run(
    () => post(`actions/dead/${name}`, { sequences: [sequence] }), () => changed(text));
  return html`<p class="actions">
    <button type="button" disabled=${action.isRunning} onClick=${act('replay', 'Replayed.')}>
      Replay</button>
    ${' '}<${Confirmed} label="Drop" question="Delete it for good?" disabled=${action.isRunning}
      act=${act('drop', 'Dropped.')} /></p>
    <${Done} of=${action} />`;
}

const FIELDS = [
  ['provider', 'Provider (namespace/name)'],
  ['alert', 'Alert (namespace/name)'],
  ['cluster', 'Cluster'],
  ['reason', 'Reason'],
];

async function count(filter, progress) {
  let [total, upTo, after] = [0, null, 0];
  do {
    const page = await get('dead/count', { ...filter, after });
    total += page.count;
    upTo = page.upTo ?? upTo;
    after = page.next;
    progress(`${total} counted`);
  } while (after != null);
  return { filter, total, upTo };
}

async function changeAll(name, { filter, upTo, total }, progress) {
  let [done, after] = [0, 0];
  do {
    const page = await post(`actions/dead/${name}`, { filter, after, upTo });
    done += page.done;
    after = page.next;
    progress(`${done} of ${total}`);
  } while (after != null);
  return done;
}

// Replays and drops all dead letters that a filter selects, after they were counted.
export function ChangeMany({ changed, fail }) {
  const [filter, setFilter] = useState({});
  const [counted, setCounted] = useState(null);
  const action = useAction(fail);
  const set = (name) => (value) => {
    setCounted(null);
    setFilter({ ...filter, [name]: value || undefined });
  };
  const preview = () => action.run((progress) => count(filter, progress), (answer) => {
    setCounted(answer);
    return `${answer.total} dead letters are selected.`;
  });
  const all = (name, word) => () => action.run(
    (progress) => changeAll(name, counted, progress), (done) => {
      setCounted(null);
      return changed(`${done} ${word}.`);
    });
  const isReady = counted?.total > 0 && !action.isRunning;
  return html`<details class="many"><summary>Replay or drop many</summary>
    <div class="filters">${FIELDS.map(([name, label]) => html`<${Filter} key=${name}
        name=${`many-${name}`} label=${label} value=${filter[name]} set=${set(name)} />`)}
      <button type="button" disabled=${action.isRunning} onClick=${preview}>Count</button></div>
    ${isReady && html`<p class="actions">
      <${Confirmed} label="Replay" question=${`Replay ${counted.total} dead letters?`}
        act=${all('replay', 'replayed')} />
      ${' '}<${Confirmed} label="Drop" question=${`Delete ${counted.total} dead letters for good?`}
        act=${all('drop', 'dropped')} /></p>`}
    <${Done} of=${action} /></details>`;
}
