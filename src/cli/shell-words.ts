/** A word as a shell takes it, quoted where it must be. */
export function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** A command for people to copy. */
export function asCommand(...words: readonly string[]): string {
  return words.map(shellWord).join(' ');
}

/** A command for people to copy; for those who are not root, with sudo where it needs root. */
export function asRoot(...words: readonly string[]): string {
  const command = asCommand(...words);
  return process.geteuid?.() === 0 ? command : `sudo ${command}`;
}

/** A command for people to copy, to run as another user. */
export function asUser(uid: number, ...words: readonly string[]): string {
  const command = asCommand(...words);
  return uid === 0 ? `sudo ${command}` : `sudo -u '#${uid}' ${command}`;
}
