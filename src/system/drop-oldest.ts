/** Removes the oldest entries of a map that has more than `limit`. */
export function dropOldest<K, V>(map: Map<K, V>, limit: number, drop?: (value: V) => void): void {
  if (map.size <= limit) return;
  for (const [key, value] of map) {
    if (map.size <= limit) return;
    map.delete(key);
    drop?.(value);
  }
}
