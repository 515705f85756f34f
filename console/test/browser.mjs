// Chromium, and pages that fail a test when anything is wrong in them.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

export const launch = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });

// Opens a page. `check` fails if it logged an error, or asked another host for something.
export async function open(browser, url, { token, dark = false, expected = [] } = {}) {
  const context = await browser.newContext({
    colorScheme: dark ? 'dark' : 'light',
    viewport: { width: 1280, height: 800 },
  });
  if (token) {
    await context.addInitScript((value) => sessionStorage.setItem('tidings-token', value), token);
  }
  const page = await context.newPage();
  const wrong = [];
  page.on('console', (message) => {
    const text = message.text();
    if (message.type() === 'error' && !expected.some((part) => text.includes(part))) {
      wrong.push(text);
    }
  });
  page.on('pageerror', (error) => wrong.push(String(error)));
  page.on('request', (request) => {
    if (!request.url().startsWith(new URL(url).origin)) wrong.push(`request: ${request.url()}`);
  });
  await page.goto(url);
  return {
    page,
    check: () => assert.deepEqual(wrong, []),
    close: () => context.close(),
  };
}

// Fails if axe-core finds a problem. It runs in a world of its own, which the policy of the page
// does not concern.
export async function assertAccessible(page, what) {
  const session = await page.context().newCDPSession(page);
  const { frameTree } = await session.send('Page.getFrameTree');
  const { executionContextId } = await session.send('Page.createIsolatedWorld', {
    frameId: frameTree.frame.id,
  });
  const expression = `${AXE}; axe.run(document, { resultTypes: ['violations'] })
    .then(({ violations }) => violations.map((one) =>
      one.id + ': ' + one.nodes.map((node) => node.target + ' ' + node.failureSummary).join()))`;
  const { result, exceptionDetails } = await session.send('Runtime.evaluate', {
    expression,
    contextId: executionContextId,
    awaitPromise: true,
    returnByValue: true,
  });
  assert.equal(exceptionDetails, undefined, what);
  assert.deepEqual(result.value, [], what);
}
