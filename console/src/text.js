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

// Controls of bidirectional text, which change the order of what follows, are written as in JSON.
export const readable = (text) =>
  text.replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (control) =>
    `\\u${control.charCodeAt(0).toString(16).padStart(4, '0')}`);
