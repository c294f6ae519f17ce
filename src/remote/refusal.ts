// What a registry says when it refuses a request, and what to do about it.

import { redact, withoutQueries } from '../system/redact.js';
import { isSha256Digest } from '../system/sha256.js';
import { type HttpResponse, readAll } from './transport.js';

/** Limit of an error's body. */
const SAID_BYTES_LIMIT = 64 * 1024;

/** What to do where the registry takes no more, or not this. Harbor says 403 and `DENIED`, as for a missing right. */
export function adviceFor(status: number, why: string): string | undefined {
  if (status === 413) return 'the registry or a proxy before it takes no body of this size: raise its limit';
  if (status === 405) return 'the registry does not allow this; it may be read-only or a cache';
  if ([409, 412].includes(status) || (status === 400 && /immutable|already exists/i.test(why)))
    return 'what is there already may not be changed: push to another tag';
  if (status === 400 && /\((MANIFEST|TAG|NAME|BLOB|DIGEST|SIZE)_|UNSUPPORTED/.test(why))
    return 'the registry rejected it; its message says why';
  const isFull = status === 403 && /quota|storage.*exceed|exceed.*storage/i.test(why);
  return isFull ? 'delete there what is not needed, or ask for a larger quota' : undefined;
}

/** In parentheses, if there are any. Secrets of the request are left out, which some registries send back. */
export async function wordsOf(response: HttpResponse): Promise<string> {
  const body = await readAll(response, SAID_BYTES_LIMIT).catch(() => Buffer.alloc(0));
  const said = redact(withoutQueries(wordsIn(body.toString('utf8'))), secretsSent(response));
  // Control characters would reach a terminal.
  const words = said
    .slice(0, 300)
    .replaceAll(/\p{Cc}/gu, ' ')
    .trim();
  return words === '' ? '' : ` (${words})`;
}

function secretsSent({ url, authorization = '' }: HttpResponse): string[] {
  const [scheme, token = ''] = authorization.split(' ');
  const login = scheme === 'Basic' ? Buffer.from(token, 'base64').toString('utf8') : '';
  const signature = [...url.searchParams.values()].filter((value) => !isSha256Digest(value));
  return [authorization, token, login, login.slice(login.indexOf(':') + 1), ...signature];
}

/** Proxies and some registries send text, or JSON of another form. A web page tells nothing. */
function wordsIn(text: string): string {
  try {
    const said = JSON.parse(text);
    const { code, message, detail } = said.errors?.[0] ?? said;
    return [code, message ?? detail].filter((word) => typeof word === 'string').join(': ');
  } catch {
    return /^\s*[<{]/.test(text) ? '' : text;
  }
}
