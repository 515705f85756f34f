// Providers: circuit, limits, what waits, what is dead, and the last error.
import { html } from 'htm/preact';
import { useState } from 'preact/hooks';
import { usePolled } from '../use.js';
import { link, setFilters } from '../location.js';
import { Details, Facts, Filter, Problem, State } from '../parts.js';
import { PauseResume, TestMessage } from '../operate.js';
import { Table } from '../table.js';
import { ago, contains } from '../text.js';

function stateOf(provider) {
  const circuit = provider.circuits[0];
  if (provider.rejection) return ['bad', 'rejected'];
  if (circuit) return ['bad', `circuit ${circuit.state}`];
  if (provider.spec?.suspended) return ['warn', 'suspended'];
  if (provider.problems.length > 0) return ['warn', 'problems'];
  return ['good', 'ok'];
}

const nameOf = (provider) => `${provider.namespace}/${provider.name}`;

const COLUMNS = [
  { name: 'Provider', width: 'minmax(10rem, 20rem)', of: nameOf, title: nameOf },
  { name: 'Type', width: '9rem', of: (provider) => provider.spec?.type },
  {
    name: 'State',
    width: '9rem',
    of: (provider) => {
      const [kind, text] = stateOf(provider);
      return html`<${State} kind=${kind}>${text}</${State}>`;
    },
  },
  { name: 'Ready', width: '5rem', of: (provider) => provider.ready },
  { name: 'Dead', width: '5rem', of: (provider) => provider.dead },
  { name: 'Last delivery', width: '8rem', of: (provider) => ago(provider.seen?.lastDeliveryAt) },
  {
    name: 'Last error',
    of: ({ seen }) => seen?.lastError && `${ago(seen.lastError.at)}: ${seen.lastError.detail}`,
    title: ({ seen }) => seen?.lastError?.detail,
  },
];

function Opened({ provider, close, canOperate, changed, fail }) {
  const name = nameOf(provider);
  const { spec, seen } = provider;
  const limit = spec?.rateLimit;
  return html`<${Details} title=${name} close=${close}>
    <${Facts} of=${[
      ['State', stateOf(provider)[1]],
      ['Type', spec?.type],
      ['Pool', spec?.pool],
      ['Rate limit', limit && `${limit.count} per ${limit.perSeconds} s`],
      ['In flight at most', spec?.maxInFlight],
      ['Last delivery', ago(seen?.lastDeliveryAt)],
      ['Last error', seen?.lastError && `${seen.lastError.reason}: ${seen.lastError.detail}`],
      ['Rejected', provider.rejection],
    ]} />
    ${provider.circuits.map(({ channel, state, since, reason }) => html`<p key=${channel}>
      <${State} kind="bad">${state}</${State}> since ${since}: ${reason}</p>`)}
    ${provider.problems.map((problem) => html`<p key=${problem.message}>
      <${State} kind="warn">${problem.severity}</${State}> ${problem.message}</p>`)}
    <p><a href=${link('parked', { provider: name })}>Waiting deliveries</a></p>
    <p><a href=${link('dead', { provider: name })}>Dead letters</a></p>
    ${canOperate && html`<${PauseResume} key=${`p${name}`} provider=${name} changed=${changed}
        isPaused=${provider.circuits.some((one) => one.state === 'paused')} fail=${fail} />
      ${spec && html`<${TestMessage} key=${`t${name}`} provider=${name} fail=${fail} />`}`}
  </${Details}>`;
}

export function Providers({ filters, fail, canOperate }) {
  const { value, error, reload } = usePolled('providers', {}, 5, fail);
  const [opened, setOpened] = useState(null);
  const all = value?.providers ?? [];
  const rows = all.filter((provider) =>
    contains(`${nameOf(provider)} ${provider.spec?.type} ${stateOf(provider)[1]}`, filters.text));
  const changed = async (text) => {
    await reload();
    return text;
  };
  const provider = all.find((one) => nameOf(one) === opened);
  return html`<${Problem} error=${error} />
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <${Filter} name="text" label="Text" value=${filters.text}
        set=${(text) => setFilters('providers', { text })} /></form>
    <p role="status" class="status">${rows.length} of ${all.length}</p>
    <div class="split">
      <${Table} label="Providers" columns=${COLUMNS} rows=${rows} keyOf=${nameOf}
        open=${(row) => setOpened(nameOf(row))} empty=${value ? 'No Provider.' : 'Loading…'} />
      ${provider && html`<${Opened} provider=${provider} canOperate=${canOperate} fail=${fail}
        changed=${changed} close=${() => setOpened(null)} />`}
    </div>`;
}
