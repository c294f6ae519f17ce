/** What is wrong with the tar, worded to follow its name. */
export class TarDamaged extends Error {}

/** It ends too early. */
export class TarCutOff extends TarDamaged {}

/** The remedy where a program has written what no tar may hold. */
export const CREATE_AGAIN = 'create the tar again with tar --format=posix';
/** The remedy where that program or what came later may be at fault. */
export const MEND = `get it again, or ${CREATE_AGAIN}`;
