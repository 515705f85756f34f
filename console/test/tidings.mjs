// Runs `tidings up` with a console, a receiver that accepts, and one that rejects.
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createSocket } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export const TOKEN = 'the-view-token-0123456789';
export const OPERATE = 'the-operate-token-0123456789';
const ROOT = resolve(import.meta.dirname, '../..');
const TIDINGS = process.env.TIDINGS ?? join(ROOT, 'target/debug/tidings');
const PATIENCE_MS = 60_000;

const rule = (kind, name, spec) => ({
  apiVersion: 'notification.toolkit.fluxcd.io/v1beta3',
  kind,
  metadata: { name, namespace: 'apps' },
  spec,
});

async function freePort() {
  const socket = createSocket().listen(0, '127.0.0.1');
  await new Promise((done) => socket.once('listening', done));
  const { port } = socket.address();
  await new Promise((done) => socket.close(done));
  return port;
}

export async function eventually(what, find) {
  const end = Date.now() + PATIENCE_MS;
  while (Date.now() < end) {
    const found = await find().catch(() => undefined);
    if (found) return found;
    await sleep(100);
  }
  throw new Error(`not within ${PATIENCE_MS} ms: ${what}`);
}

export async function start() {
  const folder = mkdtempSync(join(tmpdir(), 'tidings-console-'));
  const received = [];
  const receiver = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    received.push(body);
    response.writeHead(request.url.includes('bad') ? 404 : 200).end('{}');
  }).listen(0, '127.0.0.1');
  await new Promise((done) => receiver.once('listening', done));
  const hook = (path) => `http://127.0.0.1:${receiver.address().port}/${path}`;
  const alert = (name, provider) => rule('Alert', name, {
    providerRef: { name: provider },
    eventSources: [{ kind: 'Kustomization', name: '*' }, { kind: 'HelmRelease', name: '*' }],
  });
  const rules = [
    rule('Provider', 'chat', { type: 'slack', address: hook('good') }),
    rule('Provider', 'teams', { type: 'msteams', address: hook('good') }),
    rule('Provider', 'discord', { type: 'discord', address: hook('good') }),
    rule('Provider', 'gone', { type: 'generic', address: hook('bad') }),
    alert('everything', 'chat'),
    alert('to-discord', 'discord'),
    alert('to-teams', 'teams'),
    alert('to-a-wrong-address', 'gone'),
    alert('without-a-provider', 'nobody'),
  ];
  mkdirSync(join(folder, 'rules'));
  for (const object of rules) {
    const name = `${object.kind}-${object.metadata.name}.json`.toLowerCase();
    writeFileSync(join(folder, 'rules', name), JSON.stringify(object));
  }
  const tokens = join(folder, 'tokens');
  writeFileSync(tokens, `ann ${TOKEN}\n`);
  const operators = join(folder, 'operators');
  writeFileSync(operators, `bob ${OPERATE}\n`);
  const [listen, admin, console] = [await freePort(), await freePort(), await freePort()];
  const child = spawn(
    TIDINGS,
    ['up', '--data', join(folder, 'data'), '--rules', join(folder, 'rules'),
      '--listen', `127.0.0.1:${listen}`, '--admin', `127.0.0.1:${admin}`,
      '--console', `127.0.0.1:${console}`],
    {
      env: {
        ...process.env,
        TIDINGS_CONSOLE__TOKENS__VIEW: tokens,
        TIDINGS_CONSOLE__TOKENS__OPERATE: operators,
      },
      stdio: ['ignore', 'ignore', 'inherit'],
    },
  );
  const ended = new Promise((done) => child.once('exit', done));
  await eventually('tidings is ready', async () =>
    (await fetch(`http://127.0.0.1:${admin}/readyz`)).ok);
  return {
    url: `http://127.0.0.1:${console}/`,
    tokens,
    received,
    async post(message, { kind = 'Kustomization', name = 'apps', severity = 'info' } = {}) {
      const answer = await fetch(`http://127.0.0.1:${listen}/`, {
        method: 'POST',
        body: JSON.stringify({
          involvedObject: { apiVersion: 'x/v1', kind, namespace: 'apps', name },
          severity,
          timestamp: '2026-01-02T03:04:05Z',
          message,
          reason: 'Progressing',
          reportingController: 'kustomize-controller',
        }),
      });
      if (answer.status !== 202) throw new Error(`ingest answered ${answer.status}`);
    },
    async api(path) {
      const headers = { Authorization: `Bearer ${TOKEN}` };
      return (await fetch(`http://127.0.0.1:${console}/api/${path}`, { headers })).json();
    },
    async stop() {
      child.kill('SIGTERM');
      await ended;
      receiver.closeAllConnections();
      receiver.close();
      rmSync(folder, { recursive: true });
    },
  };
}
