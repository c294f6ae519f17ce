import { setMaxListeners } from 'node:events';

/** Aborted when either is. Any number of jobs may wait for it. */
export function eitherSignal(own: AbortSignal, given: AbortSignal | undefined): AbortSignal {
  const either = AbortSignal.any(given === undefined ? [own] : [own, given]);
  setMaxListeners(0, either);
  return either;
}
