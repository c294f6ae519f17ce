// One chart to SVG, without a browser.
import * as echarts from 'echarts';
import { formatNs } from '../format.mjs';

/**
 * @param {echarts.EChartsOption} option
 * @param {{ width: number, height: number }} size
 * @returns {string}
 */
export function renderSvg(option, { width, height }) {
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width, height });
  chart.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    textStyle: { fontFamily: 'sans-serif' },
    ...option,
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}

/** The library stands out, the floor is faint, the others are alike. @param {string} way */
export function colourOf(way) {
  if (way.startsWith('library')) return '#0b6e4f';
  if (way.startsWith('C floor')) return '#9aa0a6';
  return '#c1571b';
}

/** For the round numbers of an axis. @param {number} ns */
export function shortNs(ns) {
  return formatNs(ns).replace('.0 ', ' ');
}
