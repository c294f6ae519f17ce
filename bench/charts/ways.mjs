// One row for each way: p50 as a dot, p99 as a ring, on a logarithmic axis of time.
import { formatNs } from '../format.mjs';
import { colourOf, renderSvg, shortNs } from './render.mjs';

/** @typedef {import('../report.mjs').Result} Result */

const ROW_HEIGHT = 30;
const FRAME_HEIGHT = 120;

/**
 * @param {Result} result
 * @param {{ title: string, machine: string }} texts
 */
export function waysChart({ rows, about }, { title, machine }) {
  const measured = rows
    .flatMap(({ name, summary }) => (summary === undefined ? [] : [{ name, ...summary }]))
    .reverse();
  const points = measured.map(({ name, p50 }) => ({
    value: [p50, name],
    itemStyle: { color: colourOf(name) },
    label: { formatter: formatNs(p50) },
  }));
  const tails = measured.flatMap(({ name, p99 }) =>
    p99 === undefined
      ? []
      : [{ value: [p99, name], itemStyle: { color: '#ffffff', borderColor: colourOf(name) } }],
  );
  return renderSvg(
    {
      title: { text: title, subtext: `${about} · ${machine}`, left: 10, textStyle: { fontSize: 15 } },
      grid: { left: 170, right: 40, top: 70, bottom: 45 },
      xAxis: {
        type: 'log',
        name: 'time: p50 ●, p99 ○; lower is better',
        nameLocation: 'middle',
        nameGap: 26,
        axisLabel: { formatter: shortNs },
      },
      yAxis: { type: 'category', data: measured.map(({ name }) => name), axisTick: { show: false } },
      series: [
        {
          name: 'p50',
          type: 'scatter',
          symbolSize: 12,
          data: points,
          label: { show: true, position: 'top', distance: 2, fontSize: 10 },
        },
        {
          name: 'p99',
          type: 'scatter',
          symbolSize: 9,
          itemStyle: { color: '#ffffff', borderWidth: 1.5, borderColor: '#5f6368' },
          data: tails,
        },
      ],
    },
    { width: 760, height: FRAME_HEIGHT + ROW_HEIGHT * measured.length },
  );
}
