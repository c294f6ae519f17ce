// Work done in a second: bars from zero.
import { colourOf, renderSvg } from './render.mjs';

/**
 * @param {{ name: string, rate: number }[]} bars
 * @param {{ title: string, machine: string, unit: string, format: (rate: number) => string }} texts
 */
export function ratesChart(bars, { title, machine, unit, format }) {
  const upwards = [...bars].reverse();
  return renderSvg(
    {
      title: { text: title, subtext: machine, left: 10, textStyle: { fontSize: 15 } },
      grid: { left: 170, right: 70, top: 60, bottom: 45 },
      xAxis: { type: 'value', name: `${unit}, higher is better`, nameLocation: 'middle', nameGap: 26 },
      yAxis: { type: 'category', data: upwards.map(({ name }) => name), axisTick: { show: false } },
      series: [
        {
          type: 'bar',
          barWidth: 16,
          label: {
            show: true,
            position: 'right',
            formatter: ({ dataIndex }) => format(upwards[dataIndex]?.rate ?? 0),
          },
          data: upwards.map(({ name, rate }) => ({ value: rate, itemStyle: { color: colourOf(name) } })),
        },
      ],
    },
    { width: 760, height: 110 + 32 * bars.length },
  );
}
