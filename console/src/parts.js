// Small parts that several pages use.
import { html } from 'htm/preact';
import { useEffect, useRef } from 'preact/hooks';

// A state is always a word, too: many readers see no difference between colors.
export const State = ({ kind, children }) => html`<span class="state ${kind}">${children}</span>`;

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
