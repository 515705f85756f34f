// Tries the console as people use it: with eyes, by keyboard, and with a screen reader.
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { assertAccessible, launch, open } from './browser.mjs';
import { OPERATE, TOKEN, eventually, start } from './tidings.mjs';

const PAGES = ['overview', 'live', 'providers', 'alerts', 'parked', 'dead', 'audit'];
const DOCS = resolve(import.meta.dirname, '../../docs/console');
let tidings;
let browser;

before(async () => {
  tidings = await start();
  browser = await launch();
  await tidings.post('Reconciliation finished in 3 s', { name: 'podinfo' });
  await tidings.post('Helm upgrade failed: timed out', { kind: 'HelmRelease', severity: 'error' });
  await eventually('both deliveries to the wrong address are dead letters', async () =>
    (await tidings.api('dead')).stored === 2);
});

after(async () => {
  await browser?.close();
  await tidings?.stop();
});

const at = (fragment) => `${tidings.url}#/${fragment}`;
const viewer = (fragment, options) =>
  open(browser, at(fragment), { token: TOKEN, ...options });

async function screenshot(page, name) {
  if (!process.env.SCREENSHOTS) return;
  mkdirSync(DOCS, { recursive: true });
  writeFileSync(join(DOCS, `${name}.png`), await page.screenshot());
}

test('nothing is visible without a valid token', async () => {
  const { page, check, close } = await open(browser, at('dead'), { expected: ['401'] });
  await page.getByLabel('Token').waitFor();
  const visible = await page.locator('body').innerText();
  assert.ok(!visible.includes('apps/') && !visible.includes('Dead letters'), visible);
  await assertAccessible(page, 'the form for the token');
  await page.getByLabel('Token').fill('another-token-0123456789');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').waitFor();
  await page.getByLabel('Token').fill(TOKEN);
  await page.keyboard.press('Enter');
  await page.getByRole('grid', { name: 'Dead letters' }).waitFor();
  await page.getByText('ann (view)').waitFor();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByLabel('Token').waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length + document.cookie.length), 0);
  check();
  await close();
});

test('every page is accessible and quiet, in light and dark', async () => {
  const backgrounds = new Set();
  for (const dark of [false, true]) {
    for (const name of PAGES) {
      const { page, check, close } = await viewer(name, { dark });
      await page.locator('main h1').waitFor();
      await page.locator('canvas, [role=row][aria-rowindex="2"]').first().waitFor();
      await assertAccessible(page, `${name}, ${dark ? 'dark' : 'light'}`);
      if (name === (dark ? 'live' : 'overview')) await screenshot(page, name);
      backgrounds.add(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
      check();
      await close();
    }
  }
  assert.equal(backgrounds.size, 2, [...backgrounds].join());
});

test('the overview says what needs attention', async () => {
  const { page, check, close } = await viewer('overview');
  const section = page.getByRole('region', { name: 'Needs attention' });
  await section.getByText('dead-letters').waitFor();
  await page.getByRole('rowheader', { name: 'up' }).waitFor();
  assert.equal(await page.locator('canvas').count(), 3);
  // Lines are drawn with the colors of the plots, and their last values are texts.
  await eventually('two samples are drawn', () => page.evaluate(() => {
    const canvases = [...document.querySelectorAll('canvas')];
    const colors = canvases.map((canvas) => {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      const pixels = data.length / 4;
      for (let pixel = 0; pixel < pixels; pixel += 1) {
        const [red, green, blue, alpha] = data.subarray(4 * pixel, 4 * pixel + 4);
        const most = Math.max(red, green, blue);
        if (alpha > 200 && most - Math.min(red, green, blue) > 100) return true;
      }
      return false;
    });
    return colors.filter(Boolean).length >= 2;
  }));
  await page.getByText(/parked deliveries: \d/).waitFor();
  await page.getByRole('link', { name: /dead letters/ }).last().click();
  await page.getByRole('grid', { name: 'Dead letters' }).waitFor();
  check();
  await close();
});

test('the live page shows new events and outcomes, and its filters are in the URL', async () => {
  const { page, check, close } = await viewer('live');
  const grid = page.getByRole('grid', { name: 'Events and outcomes' });
  await grid.getByText('Helm upgrade failed').first().waitFor();
  await tidings.post('a new event <img src=x onerror=alert(1)>');
  // Markup in an event is text.
  await grid.getByText('a new event <img src=x onerror=alert(1)>').waitFor();
  assert.equal(await page.locator('img').count(), 0);
  await grid.getByText('delivered').first().waitFor();
  await page.getByLabel('Kind').fill('HelmRelease');
  await page.getByLabel('Show').selectOption('events');
  await page.waitForURL(/kind=HelmRelease/);
  await eventually('only the HelmRelease is left', async () =>
    (await grid.getAttribute('aria-rowcount')) === '2');
  const shared = page.url();
  check();
  await close();

  const other = await open(browser, shared, { token: TOKEN });
  assert.equal(await other.page.getByLabel('Kind').inputValue(), 'HelmRelease');
  await other.page.getByText('Helm upgrade failed').first().waitFor();
  const rows = other.page.getByRole('grid').getByRole('row');
  await eventually('one row', async () => (await rows.count()) === 2);
  other.check();
  await other.close();
});

test('a list is used by keyboard only', async () => {
  const { page, check, close } = await viewer('dead');
  const grid = page.getByRole('grid', { name: 'Dead letters' });
  await grid.getByText('not-found').first().waitFor();
  for (let presses = 0; presses < 30; presses += 1) {
    await page.keyboard.press('Tab');
    if (await grid.evaluate((element) => element === document.activeElement)) break;
  }
  assert.ok(await grid.evaluate((element) => element === document.activeElement));
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('ArrowDown');
  assert.equal(await grid.locator('[aria-selected=true]').getAttribute('aria-rowindex'), '3');
  const active = await grid.getAttribute('aria-activedescendant');
  assert.equal(await page.locator(`#${active}`).getAttribute('aria-selected'), 'true');
  await page.keyboard.press('Enter');
  const details = page.getByRole('region', { name: 'Dead letter' });
  await details.getByText('Attempts').waitFor();
  await details.getByText('"reason": "Progressing"').waitFor();
  await assertAccessible(page, 'an opened dead letter');
  await screenshot(page, 'dead-letter');
  await page.keyboard.press('Escape');
  await details.waitFor({ state: 'detached' });
  check();
  await close();
});

test('the state of rules is shown', async () => {
  const { page, check, close } = await viewer('providers');
  await page.getByRole('row', { name: /apps\/gone/ }).click();
  const details = page.getByRole('region', { name: 'apps/gone' });
  await details.getByText('not-found').waitFor();
  await page.getByRole('link', { name: 'Alerts' }).click();
  await page.getByRole('row', { name: /without-a-provider.*no provider/ }).waitFor();
  check();
  await close();
});

test('10,000 rows are drawn as fast as ten', async () => {
  const { page, check, close } = await viewer('overview');
  await page.route('**/api/dead?*', (route) => {
    const after = Number(new URL(route.request().url()).searchParams.get('after') ?? 0);
    const deadLetters = Array.from({ length: 1000 }, (_, index) => ({
      sequence: 10_000 - after - index,
      id: `id-${after + index}`,
      reason: 'exhausted',
      detail: `detail ${after + index}`,
      diedAt: '2026-01-02T03:04:05.000Z',
      alert: 'apps/a',
      provider: 'apps/p',
      object: 'Kustomization apps/x',
      cluster: 'default',
    }));
    const next = after + 1000 < 10_000 ? after + 1000 : null;
    return route.fulfill({ json: { deadLetters, next, stored: 10_000 } });
  });
  await page.goto(at('dead'));
  await page.getByText('10000 of 10000').waitFor();
  assert.ok((await page.locator('.row').count()) < 100);
  await page.getByRole('grid').focus();
  const took = await page.evaluate(async () => {
    const grid = document.activeElement;
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    const begin = performance.now();
    for (const key of ['End', 'Home', 'End', 'PageUp', 'ArrowUp', 'Home', 'End']) {
      grid.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
      await frame();
      await frame();
    }
    return performance.now() - begin;
  });
  await page.getByText('detail 9999', { exact: true }).waitFor();
  // Far above what it takes: 20 ms a key here. Drawing all rows takes seconds.
  assert.ok(took < 3000, `${took} ms`);
  await page.getByLabel('Text').fill('detail 9999');
  await page.getByText('1 of 10000').waitFor();
  check();
  await close();
});

test('an event has a page that says what became of it', async () => {
  const { page, check, close } = await viewer('live?kind=HelmRelease&shown=events');
  await page.getByRole('row', { name: /Helm upgrade failed/ }).click();
  await page.getByRole('link', { name: 'Trace', exact: true }).last().click();
  const article = page.getByRole('article', { name: /^Event / });
  await article.getByText('Alert apps/to-a-wrong-address matched').waitFor();
  await article.getByText('not-found').first().waitFor();
  await article.getByRole('table', { name: 'Alerts' }).waitFor();
  await assertAccessible(page, 'a trace');
  await screenshot(page, 'trace');
  await page.getByRole('link', { name: 'Events of this object' }).click();
  await page.waitForURL(/object=HelmRelease/);
  await article.getByText('Helm upgrade failed').first().waitFor();
  await page.getByLabel('Object (Kind/namespace/name)').fill('Kustomization/apps/nothing');
  await page.keyboard.press('Enter');
  await page.getByRole('region', { name: 'No event' }).waitFor();
  check();
  await close();
});

test('the tester shows verdicts and messages, and sends nothing', async () => {
  const { page, check, close } = await viewer('tester');
  const before = tidings.received.length;
  await page.getByRole('button', { name: 'Try' }).click();
  const chat = page.getByRole('article', { name: 'Message of apps/everything to apps/chat' });
  await chat.getByText('kustomization/shop.apps').first().waitFor();
  await chat.getByText('Health check failed after 30s').first().waitFor();
  for (const name of ['apps/teams', 'apps/discord']) {
    const message = page.getByRole('article', { name: new RegExp(`to ${name}`) });
    await message.getByText('Health check failed after 30s').first().waitFor();
  }
  await page.getByRole('row', { name: /apps\/everything matched/ }).waitFor();
  await assertAccessible(page, 'the tester');
  await screenshot(page, 'tester');
  await page.getByLabel('Event, as Flux').fill('{');
  await page.getByRole('button', { name: 'Try' }).click();
  await page.getByRole('alert').getByText('no JSON').waitFor();
  assert.equal(tidings.received.length, before);
  check();
  await close();
});

test('a viewer has no actions, and the API refuses them', async () => {
  const { page, check, close } = await viewer('dead', { expected: ['403'] });
  await page.getByRole('grid', { name: 'Dead letters' }).getByText('not-found').first().waitFor();
  assert.equal(await page.getByText('Replay or drop many').count(), 0);
  const status = await page.evaluate(async () => {
    const token = sessionStorage.getItem('tidings-token');
    const answer = await fetch('api/actions/dead/drop', {
      method: 'POST',
      headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
      body: '{"filter":{}}',
    });
    return answer.status;
  });
  assert.equal(status, 403);
  check();
  await close();
});

test('an operator pauses, resumes, sends a test message, replays and drops', async () => {
  const { page, check, close } = await viewer('providers', { token: OPERATE });
  await page.getByRole('row', { name: /apps\/chat/ }).click();
  const details = page.getByRole('region', { name: 'apps/chat' });
  await details.getByLabel('Reason').fill('an upgrade');
  await details.getByRole('button', { name: 'Pause' }).click();
  await details.getByText('bob: an upgrade').waitFor();
  await details.getByRole('button', { name: 'Resume' }).click();
  await details.getByText('Resumed', { exact: false }).waitFor();
  await details.getByLabel('Text').fill('hello from the console');
  const before = tidings.received.length;
  await details.getByRole('button', { name: 'Preview' }).click();
  await details.getByText('hello from the console').first().waitFor();
  await assertAccessible(page, 'a test message');
  await screenshot(page, 'operate');
  assert.equal(tidings.received.length, before);
  await details.getByRole('button', { name: 'Send it' }).click();
  await eventually('it is sent', async () =>
    tidings.received.some((body) => body.includes('hello from the console')));
  await details.getByRole('link', { name: 'What became of it' }).waitFor();

  await page.getByRole('link', { name: 'Dead letters' }).first().click();
  const grid = page.getByRole('grid', { name: 'Dead letters' });
  await grid.getByText('not-found').first().waitFor();
  const { stored } = await tidings.api('dead');
  await page.getByRole('row', { name: /not-found/ }).first().click();
  await page.getByRole('button', { name: 'Drop', exact: true }).click();
  await page.getByRole('button', { name: 'Yes, drop' }).click();
  await page.getByText('Dropped.').first().waitFor();
  assert.equal((await tidings.api('dead')).stored, stored - 1);
  await page.getByText('Replay or drop many').click();
  await page.getByLabel('Provider (namespace/name)').fill('apps/gone');
  await page.getByRole('button', { name: 'Count' }).click();
  await page.getByText(`${stored - 1} dead letters are selected.`).waitFor();
  await page.getByRole('button', { name: 'Drop', exact: true }).click();
  await page.getByRole('button', { name: 'Yes, drop' }).click();
  await page.getByText(`${stored - 1} dropped.`).first().waitFor();
  assert.equal((await tidings.api('dead')).stored, 0);

  await page.getByRole('link', { name: 'Audit' }).click();
  const actions = page.getByRole('grid', { name: 'Actions' });
  await actions.getByRole('row', { name: /bob .*provider-pause .*an upgrade/ }).waitFor();
  await page.getByLabel('Text').fill('dead-drop');
  await eventually('both drops are left', async () =>
    (await actions.getAttribute('aria-rowcount')) === '3');
  await assertAccessible(page, 'the audit page');
  check();
  await close();
});

test('a token that is removed ends what is shown', async () => {
  const { page, close } = await viewer('providers', { expected: ['401'] });
  await page.getByRole('row', { name: /apps\/chat/ }).waitFor();
  writeFileSync(tidings.tokens, '');
  await page.getByLabel('Token').waitFor({ timeout: 60_000 });
  assert.equal(await page.getByText('apps/chat').count(), 0);
  await close();
});
