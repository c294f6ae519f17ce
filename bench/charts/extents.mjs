// Time of a clone by the number of the template's extents: both axes logarithmic.
import { colourOf, renderSvg, shortNs } from './render.mjs';

/** @typedef {import('../report.mjs').Result} Result */

const SYMBOLS = ['circle', 'rect', 'triangle', 'diamond', 'roundRect'];

/**
 * @param {Result[]} results of the measures extents-N on one file system
 * @param {{ title: string, machine: string }} texts
 */
export function extentsChart(results, { title, machine }) {
  const names = results[0]?.rows.map(({ name }) => name) ?? [];
  return renderSvg(
    {
      title: {
        text: title,
        subtext: `p50 of a clone, lower is better · ${machine}`,
        left: 10,
        textStyle: { fontSize: 15 },
      },
      grid: { left: 80, right: 150, top: 70, bottom: 45 },
      xAxis: { type: 'log', name: 'extents of the template', nameLocation: 'middle', nameGap: 26 },
      yAxis: { type: 'log', axisLabel: { formatter: shortNs } },
      series: names.map((name, i) => ({
        name,
        type: 'line',
        symbol: SYMBOLS[i % SYMBOLS.length] ?? 'circle',
        symbolSize: 8,
        lineStyle: { width: name.startsWith('library') ? 3 : 1.5 },
        color: colourOf(name),
        endLabel: { show: true, formatter: name, color: colourOf(name) },
        labelLayout: { moveOverlap: 'shiftY' },
        data: results.flatMap(({ measure, rows }) => {
          const p50 = rows.find((row) => row.name === name)?.summary?.p50;
          return p50 === undefined ? [] : [[Number(measure.replace('extents-', '')), p50]];
        }),
      })),
    },
    { width: 760, height: 420 },
  );
}
