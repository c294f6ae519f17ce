import fc from 'fast-check';
import { expect, test } from 'vitest';
import { LargeSet } from '../../src/system/large-set.js';

test('it has what was added, and nothing else', () => {
  fc.assert(
    fc.property(fc.array(fc.string()), fc.array(fc.string()), (added, others) => {
      const [large, plain] = [new LargeSet(), new Set(added)];
      for (const value of added) large.add(value);
      for (const value of [...added, ...others, '']) expect(large.has(value)).toBe(plain.has(value));
    }),
  );
});

// A set doubles by hashing all of it anew: that held the event loop for 20 ms at 262,144 strings.
test('many strings are spread over many small sets', () => {
  const sets = new Map<Set<string>, number>();
  const add = Set.prototype.add;
  Set.prototype.add = function (this: Set<string>, value) {
    sets.set(this, (sets.get(this) ?? 0) + 1);
    return add.call(this, value);
  };
  try {
    const large = new LargeSet();
    for (let i = 0; i < 300_000; i++) large.add(`vm-${i}`);
  } finally {
    Set.prototype.add = add;
  }
  expect(Math.max(...sets.values())).toBeLessThan(1000);
});
