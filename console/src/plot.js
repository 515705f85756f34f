// A plot over time. uPlot draws on a canvas; a table of the last values is there for readers.
import { html } from 'htm/preact';
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import { withGaps } from './samples.js';

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function options(series, width) {
  const grid = { stroke: color('--line') };
  const axis = { stroke: color('--text'), grid, ticks: { show: false } };
  return {
    width,
    height: 160,
    legend: { show: false },
    cursor: { show: false },
    scales: { y: { range: (_, __, most) => [0, Math.max(1, most * 1.1)] } },
    axes: [axis, { ...axis, size: 56 }],
    series: [
      {},
      ...series.map(({ name, stroke, dash }) => ({
        label: name,
        stroke: color(stroke),
        width: 2,
        dash,
        points: { show: false },
      })),
    ],
  };
}

// `series`: { name, stroke, dash, of(sample) }
export function Plot({ title, unit, samples, series }) {
  const box = useRef(null);
  useEffect(() => {
    const points = withGaps(samples);
    const number = (value) => (Number.isFinite(value) ? value : null);
    const data = [
      points.map((sample) => sample.at / 1000),
      ...series.map(({ of }) => points.map((sample) => number(of(sample)))),
    ];
    const element = box.current;
    const plot = new uPlot(options(series, element.clientWidth || 320), data, element);
    const colors = matchMedia('(prefers-color-scheme: dark)');
    const redraw = () => {
      plot.setSize({ width: element.clientWidth, height: 160 });
    };
    addEventListener('resize', redraw);
    colors.addEventListener('change', redraw);
    return () => {
      removeEventListener('resize', redraw);
      colors.removeEventListener('change', redraw);
      plot.destroy();
    };
  }, [samples]);
  const last = samples.at(-1);
  const shown = (value) => (value == null ? '–' : `${Math.round(value * 100) / 100}${unit}`);
  return html`<figure class="plot">
    <figcaption><h3>${title}</h3>
      <ul>${series.map(({ name, stroke, of }) => html`<li key=${name}>
        <svg viewBox="0 0 12 4" aria-hidden="true" class="key ${stroke.slice(2)}">
          <path d="M0 2h12" /></svg>
        ${name}: ${last ? shown(of(last)) : '–'}</li>`)}</ul>
    </figcaption>
    <div ref=${box} class="canvas" aria-hidden="true"></div>
  </figure>`;
}
