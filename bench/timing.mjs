/**
 * @param {() => Promise<unknown>} work
 * @returns {Promise<number>} nanoseconds
 */
export async function timeNs(work) {
  const start = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - start);
}

/**
 * @param {() => unknown} work
 * @returns {Promise<number>} nanoseconds
 */
export async function timeSyncNs(work) {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start);
}
