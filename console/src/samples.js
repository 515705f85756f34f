// Without an answer of the bus there is no sample. What was then is not known, so the line breaks.
const LONGEST_PAUSE_MS = 30_000;

export function withGaps(samples) {
  return samples.flatMap((sample, index) => {
    const before = samples[index - 1];
    const isGap = before && sample.at - before.at > LONGEST_PAUSE_MS;
    return isGap ? [{ at: before.at + 1000 }, sample] : [sample];
  });
}
