// See index.mts.
export { instrument } from './opentelemetry.js';
