// A table that draws the visible rows only, so that it is as fast with 10,000 rows as with ten.
// Arrow keys, Page Up, Page Down, Home and End move the current row; Enter opens it.
import { html } from 'htm/preact';
import { useEffect, useRef, useState } from 'preact/hooks';

const HEIGHT = 32;
const MARGIN = 8;

function moved(key, current, page, last) {
  switch (key) {
    case 'ArrowDown': return current + 1;
    case 'ArrowUp': return current - 1;
    case 'PageDown': return current + page;
    case 'PageUp': return current - page;
    case 'Home': return 0;
    case 'End': return last;
    default: return null;
  }
}

// `columns`: { name, width, of(row) }. `keyOf(row)` identifies a row while others are added.
export function Table({ label, columns, rows, keyOf, open, empty }) {
  const box = useRef(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(480);
  const [current, setCurrent] = useState(null);
  useEffect(() => {
    const element = box.current;
    const observer = new ResizeObserver(() => setHeight(element.clientHeight));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const index = current === null ? -1 : rows.findIndex((row) => keyOf(row) === current);
  const page = Math.max(1, Math.floor(height / HEIGHT) - 2);
  const first = Math.max(0, Math.floor(top / HEIGHT) - MARGIN);
  const visible = rows.slice(first, first + page + 2 * MARGIN + 2);
  const move = (event) => {
    if (event.key === 'Enter' && index >= 0 && open) {
      event.preventDefault();
      return open(rows[index]);
    }
    const to = moved(event.key, index, page, rows.length - 1);
    if (to === null || rows.length === 0) return;
    event.preventDefault();
    const next = Math.min(rows.length - 1, Math.max(0, to));
    setCurrent(keyOf(rows[next]));
    const element = box.current;
    // The head sticks to the top and covers one row.
    if (next * HEIGHT < element.scrollTop) element.scrollTop = next * HEIGHT;
    const bottom = (next + 2) * HEIGHT - element.clientHeight;
    if (bottom > element.scrollTop) element.scrollTop = bottom;
  };
  const template = columns.map((column) => column.width ?? '1fr').join(' ');
  const id = (row) => `row-${keyOf(row)}`;
  const active = index >= first && index < first + visible.length ? id(rows[index]) : undefined;
  return html`<div class="table" role="grid" aria-label=${label} aria-rowcount=${rows.length + 1}
      aria-colcount=${columns.length} aria-activedescendant=${active} tabindex="0" ref=${box}
      onScroll=${(event) => setTop(event.currentTarget.scrollTop)} onKeyDown=${move}>
    <div class="head" role="row" aria-rowindex="1" style=${{ gridTemplateColumns: template }}>
      ${columns.map(({ name }) => html`<div role="columnheader" key=${name}>${name}</div>`)}
    </div>
    <div class="body" role="rowgroup" style=${{ height: `${rows.length * HEIGHT}px` }}>
      ${visible.map((row, offset) => html`<div class="row" role="row" key=${keyOf(row)}
          id=${id(row)} aria-rowindex=${first + offset + 2} aria-selected=${keyOf(row) === current}
          style=${{ gridTemplateColumns: template, top: `${(first + offset) * HEIGHT}px` }}
          onClick=${() => { setCurrent(keyOf(row)); open?.(row); }}>
        ${columns.map((column) => html`<div role="gridcell" key=${column.name}
            title=${column.title?.(row)}>${column.of(row)}</div>`)}
      </div>`)}
    </div>
    ${rows.length === 0 && html`<div role="row" class="empty" aria-rowindex="2">
      <div role="gridcell">${empty}</div></div>`}
  </div>`;
}
