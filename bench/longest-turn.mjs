// How long work holds the event loop: the processor time of the main thread from one turn of the loop to the next. On
// a shared machine the time on the clock says more about the neighbours.
import { closeSync, openSync, readSync } from 'node:fs';

/**
 * @param {() => Promise<unknown>} work
 * @returns {Promise<number>} nanoseconds
 */
export async function longestTurnNs(work) {
  const fd = openSync(`/proc/self/task/${process.pid}/schedstat`, 'r');
  const text = Buffer.alloc(128);
  const onProcessorNs = () => {
    process.cpuUsage(); // has the kernel count up to now, rather than to its last tick, which is up to 4 ms ago
    return Number(text.toString('latin1', 0, readSync(fd, text, 0, 128, 0)).split(' ')[0]);
  };
  let longest = 0;
  let last = onProcessorNs();
  const turn = () => {
    const now = onProcessorNs();
    longest = Math.max(longest, now - last);
    last = now;
  };
  const turning = setInterval(turn, 1);
  try {
    await work();
    turn();
  } finally {
    clearInterval(turning);
    closeSync(fd);
  }
  return longest;
}
