// A message as its receiver shows it. Only text is set, never markup.
import { html } from 'htm/preact';
import { Facts, State, kindOf } from './parts.js';

const factsOf = (facts, name, value) => facts?.map((fact) => [fact[name], fact[value]]) ?? [];

// Slack, Rocket.Chat, and Discord with Slack's form.
const Attachment = ({ of: { color, author_name: author, text, fields } }) => html`<div
    class="attachment ${color === 'danger' ? 'bad' : 'good'}">
  <strong>${author}</strong><p class="text">${text}</p>
  <${Facts} of=${factsOf(fields, 'title', 'value')} /></div>`;

// The elements of an adaptive card of Teams.
function Element({ of: element }) {
  if (element.type === 'TextBlock') {
    const isTitle = element.weight === 'bolder';
    const text = html`<p class="text ${element.color === 'attention' ? 'bad' : ''}">${
      element.text}</p>`;
    return isTitle ? html`<strong>${text}</strong>` : text;
  }
  if (element.type === 'FactSet') {
    return html`<${Facts} of=${factsOf(element.facts, 'title', 'value')} />`;
  }
  const inner = element.items ?? element.columns ?? element.body ?? [];
  return inner.map((one, index) => html`<${Element} key=${index} of=${one} />`);
}

// The cards of Teams' connectors.
const Section = ({ of: section }) => html`<div class="attachment">
  <strong>${section.activitySubtitle}</strong><p class="text">${section.activityTitle}</p>
  <${Facts} of=${factsOf(section.facts, 'name', 'value')} /></div>`;

const FAILED = ['failure', 'failed', 'error', 'FAILED'];
const PENDING = ['pending', 'running', 'INPROGRESS'];

// A line in the list of checks of a commit.
function CommitStatus({ of: { state, context, key, name, description } }) {
  const kind = FAILED.includes(state) ? 'bad' : PENDING.includes(state) ? 'warn' : 'good';
  return html`<div class="attachment ${kind}"><${State} kind=${kind}>${state}</${State}>
    <strong>${typeof context === 'object' ? context.name : context ?? name ?? key}</strong>
    ${' '}${description}</div>`;
}

function Body({ text }) {
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    return html`<pre tabindex="0">${text}</pre>`;
  }
  const cards = Array.isArray(body?.attachments) ? body.attachments : [];
  const adaptive = cards.filter((card) => card.content?.type === 'AdaptiveCard');
  const slack = cards.filter((card) => typeof card.text === 'string');
  const json = html`<details><summary>As JSON</summary>
    <pre tabindex="0">${JSON.stringify(body, null, 2)}</pre></details>`;
  const shown = [
    ...slack.map((card, index) => html`<${Attachment} key=${`s${index}`} of=${card} />`),
    ...adaptive.map((card, index) => html`<div class="attachment" key=${`a${index}`}>
      <${Element} of=${card.content} /></div>`),
    ...(body?.['@type'] === 'MessageCard' && Array.isArray(body.sections)
      ? body.sections.map((one, index) => html`<${Section} key=${`m${index}`} of=${one} />`)
      : []),
  ];
  if (typeof body?.state === 'string') shown.push(html`<${CommitStatus} of=${body} />`);
  if (shown.length === 0) {
    return html`<pre tabindex="0">${JSON.stringify(body, null, 2)}</pre>`;
  }
  return html`${shown}${json}`;
}

// What a delivery would send.
export const Message = ({ of: delivery }) => html`<article class="message"
    aria-label=${`Message of ${delivery.alert} to ${delivery.provider}`}>
  <h3>${delivery.provider} (${delivery.type})</h3>
  <p><${State} kind=${kindOf(delivery.outcome)}>${delivery.outcome}</${State}>
    ${delivery.detail}</p>
  ${delivery.templateError && html`<p><${State} kind="warn">template</${State}>
    The template failed, and the standard text is used: ${delivery.templateError}</p>`}
  ${delivery.requests.filter(({ body }) => body).map(({ body }, index) => html`<${Body}
    key=${index} text=${body} />`)}
</article>`;
