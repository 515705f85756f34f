// Requests to the API. The token is kept by the tab, and sent in a header only.
import { readable } from './text.js';

const KEY = 'tidings-token';

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  clear: () => sessionStorage.removeItem(KEY),
};

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

// Every text of the API passes here, so none can reorder what stands beside it.
const parse = (text) =>
  JSON.parse(text, (_, value) => (typeof value === 'string' ? readable(value) : value));

async function request(path, parameters, options) {
  const query = new URLSearchParams(
    Object.entries(parameters ?? {}).filter(([, value]) => value !== '' && value != null),
  ).toString();
  const headers = token.get() ? { Authorization: `Bearer ${token.get()}` } : {};
  const answer = await fetch(`api/${path}${query ? `?${query}` : ''}`, {
    ...options,
    headers: { ...headers, ...options?.headers },
    credentials: 'omit',
    cache: 'no-store',
    redirect: 'error',
  });
  if (answer.ok) return answer;
  const body = await answer.text().then(parse).catch(() => ({}));
  throw new ApiError(answer.status, body.code ?? 'unknown', body.error ?? answer.statusText);
}

export async function get(path, parameters, options) {
  return parse(await (await request(path, parameters, options)).text());
}

export async function post(path, body, options) {
  const headers = { 'Content-Type': 'application/json' };
  const sent = { ...options, method: 'POST', headers, body: JSON.stringify(body) };
  return parse(await (await request(path, {}, sent)).text());
}

// Calls `handle(name, data, id)` with each server-sent event until the stream ends or is aborted.
// With the last id, the stream goes on where it was. EventSource cannot send a token, so the stream
// is read by hand.
export async function follow(path, parameters, { signal, lastId }, handle) {
  const headers = lastId ? { 'Last-Event-ID': lastId } : {};
  const answer = await request(path, parameters, { signal, headers });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const field = (name) =>
        block
          .split('\n')
          .filter((line) => line.startsWith(`${name}: `))
          .map((line) => line.slice(name.length + 2))
          .join('\n');
      const data = field('data');
      if (data) handle(field('event'), parse(data), field('id'));
    }
  }
}
