// Tries the console as people use it: with eyes, by keyboard, and with a screen reader.
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { assertAccessible, launch, open } from './browser.mjs';
import { TOKEN, eventually, start } from './tidings.mjs';

const PAGES = ['overview', 'live', 'providers', 'alerts', 'parked', 'dead'];
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
      sequence: after + index + 1,
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
  await page.getByText('detail 0', { exact: true }).waitFor();
  // Far above what it takes: 20 ms a key here. Drawing all rows takes seconds.
  assert.ok(took < 3000, `${took} ms`);
  await page.getByLabel('Text').fill('detail 9999');
  await page.getByText('1 of 10000').waitFor();
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
