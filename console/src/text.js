// Texts for people.
export function ago(time, now = Date.now()) {
  if (!time) return 'never';
  return `${length((now - Date.parse(time)) / 1000)} ago`;
}

export function length(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.floor(whole / 60)} min`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h`;
  return `${Math.floor(whole / 86400)} d`;
}

export const clock = (time) => (time ? time.replace('T', ' ').replace(/\.\d+Z$|Z$/, '') : '');

export const contains = (text, part) => !part || text.toLowerCase().includes(part.toLowerCase());
