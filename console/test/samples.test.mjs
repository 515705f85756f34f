// Tries what the plots show without a browser.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withGaps } from '../src/samples.js';

test('a pause without samples is a gap, and a late sample is none', () => {
  const samples = [0, 10_000, 25_000, 90_000].map((at) => ({ at, ready: 1 }));
  const points = withGaps(samples);
  assert.deepEqual(points.map(({ at }) => at), [0, 10_000, 25_000, 26_000, 90_000]);
  assert.equal(points[3].ready, undefined);
  assert.deepEqual(withGaps([]), []);
});
