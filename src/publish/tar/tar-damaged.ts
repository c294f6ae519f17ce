/** What is wrong with the tar, worded to follow its name. */
export class TarDamaged extends Error {}

/** It ends too early. */
export class TarCutOff extends TarDamaged {}

/** The remedy where a program has written what no tar may hold. */
export const CREATE_AGAIN = 'create the tar again with tar --format=posix';
/** The remedy where that program or what came later may be at fault. */
export const MEND = `get it again, or ${CREATE_AGAIN}`;
export const JOIN_VOLUMES =
  'join them with tar --extract --multi-volume --file FIRST --file SECOND, and so on, and publish the folder';
export const WAS_CUT_OFF = `it was cut off, so get it again; if it is one volume of several, ${JOIN_VOLUMES}`;
