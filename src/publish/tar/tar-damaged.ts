/** What is wrong with the tar, worded to follow its name. */
export class TarDamaged extends Error {}

/** It ends too early. */
export class TarCutOff extends TarDamaged {}
