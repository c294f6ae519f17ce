/** All that a listing yields, and what it fails with in the end: what cannot be read hides nothing else. */
export async function listed<T>(listing: AsyncIterable<T>): Promise<{ found: T[]; failure?: unknown }> {
  const found: T[] = [];
  try {
    for await (const each of listing) found.push(each);
    return { found };
  } catch (failure) {
    return { found, failure };
  }
}
