// Small parts that several pages use.
import { html } from 'htm/preact';
import { useEffect, useRef, useState } from 'preact/hooks';

// A state is always a word, too: many readers see no difference between colors.
export const State = ({ kind, children }) => html`<span class="state ${kind}">${children}</span>`;

const KINDS = {
  error: 'bad', dead: 'bad', warn: 'warn', retrying: 'warn', parked: 'warn', delivered: 'good',
};

// The color of a severity, outcome or state.
export const kindOf = (word) => KINDS[word] ?? '';

export const Problem = ({ error }) =>
  error &&
  html`<p class="problem" role="alert">${error.message} <small>(${error.code})</small></p>`;

export function Filter({ name, label, value, set, options }) {
  const id = `filter-${name}`;
  const change = (event) => set(event.currentTarget.value);
  return html`<div class="filter"><label for=${id}>${label}</label>
    ${options
      ? html`<select id=${id} value=${value ?? ''} onChange=${change}>
          ${options.map(([key, text]) => html`<option value=${key} key=${key}>${text}</option>`)}
        </select>`
      : html`<input id=${id} value=${value ?? ''} onInput=${change} autocomplete="off"
          spellcheck=${false} maxlength="200" />`}</div>`;
}

// A button that asks once more before it does what cannot be undone.
export function Confirmed({ label, question, act, disabled }) {
  const [asks, setAsks] = useState(false);
  const yes = useRef(null);
  useEffect(() => asks && yes.current.focus(), [asks]);
  if (!asks) {
    return html`<button type="button" disabled=${disabled} onClick=${() => setAsks(true)}>
      ${label}</button>`;
  }
  const answer = (isYes) => () => {
    setAsks(false);
    if (isYes) act();
  };
  return html`<span class="confirm" role="group" aria-label=${question}>${question}
    ${' '}<button type="button" ref=${yes} class="danger" onClick=${answer(true)}>Yes, ${
      label.toLowerCase()}</button>
    ${' '}<button type="button" onClick=${answer(false)}>No</button></span>`;
}

// What became of an action.
export const Done = ({ of: { isRunning, progress, text, error } }) => html`<div class="done">
  <${Problem} error=${error} />
  <p role="status">${isRunning ? progress ?? 'Working…' : text}</p></div>`;

// Details beside a list. It takes the focus when it opens, and Escape closes it.
export function Details({ title, close, children }) {
  const box = useRef(null);
  useEffect(() => box.current.focus(), [title]);
  return html`<section class="details" aria-label=${title} tabindex="-1" ref=${box}
      onKeyDown=${(event) => event.key === 'Escape' && close()}>
    <h2>${title}</h2>
    <button type="button" onClick=${close}>Close</button>
    ${children}
  </section>`;
}

export const Facts = ({ of }) => html`<dl>${of
  .filter(([, value]) => value !== null && value !== undefined && value !== '')
  .map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
