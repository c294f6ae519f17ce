// A password in a reference would end up in messages, events and the arguments of programs.

/** The text without what stands before `@` and may be a user's password; undefined if there is none. */
export function userInfoHidden(text: string): string | undefined {
  const [scheme = ''] = /^[a-z][a-z0-9+.-]*:\/\//i.exec(text) ?? [];
  // What follows the last of them may be a digest.
  const end = text.replace(/@sha\d+:[^@/]*$/i, '').lastIndexOf('@');
  return end < 0 ? undefined : `${scheme}…${text.slice(end)}`;
}

export const NO_USER_INFO =
  'the part before the @ is hidden because it may be a password. References cannot hold credentials: log in with ' +
  'docker, podman, skopeo or oras';
