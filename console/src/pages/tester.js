// What the rules decide about an event, and the messages. Nothing is sent.
import { html } from 'htm/preact';
import { useState } from 'preact/hooks';
import { post } from '../api.js';
import { setFilters } from '../location.js';
import { Message } from '../message.js';
import { Done, Filter, State } from '../parts.js';
import { useAction } from '../use.js';

const EXAMPLE = JSON.stringify({
  involvedObject: {
    apiVersion: 'kustomize.toolkit.fluxcd.io/v1',
    kind: 'Kustomization',
    namespace: 'apps',
    name: 'shop',
  },
  severity: 'error',
  timestamp: new Date().toISOString(),
  reason: 'HealthCheckFailed',
  message: 'Health check failed after 30s: Deployment/apps/shop is not ready',
  reportingController: 'kustomize-controller',
  metadata: { 'kustomize.toolkit.fluxcd.io/revision':
    'main@sha1:8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291' },
}, null, 2);

class InvalidJson extends Error {
  code = 'invalid-json';
}

function wantedOf(text, id, cluster) {
  if (id) return { id };
  try {
    return { event: JSON.parse(text), cluster: cluster || undefined };
  } catch (error) {
    throw new InvalidJson(`The event is no JSON: ${error.message}`);
  }
}

const Result = ({ of: { event, alerts, otherAlerts, deliveries } }) => html`<section
    aria-label="Result">
  <h2>${event.object} of cluster ${event.cluster}</h2>
  <table><caption>Alerts</caption>
    <thead><tr><th scope="col">Alert</th><th scope="col">Verdict</th><th scope="col">Why</th></tr>
    </thead>
    <tbody>${alerts.map(({ alert, verdict, detail }) => html`<tr key=${alert}>
      <th scope="row">${alert}</th>
      <td><${State} kind=${verdict === 'matched' ? 'good' : ''}>${verdict}</${State}></td>
      <td>${detail}</td></tr>`)}</tbody></table>
  <p>${otherAlerts} other Alerts do not name the object.</p>
  <h2>Messages</h2>
  ${deliveries.length === 0 && html`<p>None.</p>`}
  ${deliveries.map((delivery) => html`<${Message} key=${delivery.alert} of=${delivery} />`)}
</section>`;

export function Tester({ filters, fail }) {
  const [text, setText] = useState(EXAMPLE);
  const [result, setResult] = useState(null);
  const action = useAction(fail);
  const { id, cluster } = filters;
  const set = (name) => (value) => setFilters('tester', { ...filters, [name]: value });
  const submit = (event) => {
    event.preventDefault();
    setResult(null);
    action.run(() => post('tester', wantedOf(text, id, cluster)), (answer) => {
      setResult(answer);
      return `${answer.deliveries.length} messages; nothing was sent`;
    });
  };
  return html`<form onSubmit=${submit}>
      <div class="filters">
        <${Filter} name="id" label="Id of a stored event" value=${id} set=${set('id')} />
        <${Filter} name="cluster" label="Cluster" value=${cluster} set=${set('cluster')} /></div>
      ${!id && html`<p><label for="event">Event, as Flux\u2019s controllers post it</label>
        <textarea id="event" rows="14" spellcheck=${false} value=${text}
          onInput=${(event) => setText(event.currentTarget.value)}></textarea></p>`}
      <button disabled=${action.isRunning}>Try</button></form>
    <${Done} of=${action} />
    ${result && html`<${Result} of=${result} />`}`;
}
