/**
 * A peer under suspicion: every block it hands out is compared with all others that live. For tests of the drivers.
 */

import type { Block, Subject } from "./replay.ts";

export interface CheckedSubject {
  readonly subject: Subject;
  /** The first thing that was wrong, or null. */
  check(): string | null;
}

/** `subject` with every allocation checked: aligned to 4, and no byte of it part of another live block. */
export function checkedSubject({ alloc, free }: Subject): CheckedSubject {
  // Word address → the block that covers it.
  const owners = new Map<number, number>();
  const objects = new Set<object>();
  let fault: string | null = null;
  const claim = (addr: number, size: number): void => {
    if (addr % 4 !== 0) fault ??= `${size} bytes at ${addr}: not aligned`;
    for (let word = addr; word < addr + size; word += 4) {
      const owner = owners.get(word);
      if (owner !== undefined) fault ??= `${size} bytes at ${addr} overlap the block at ${owner}`;
      owners.set(word, addr);
    }
  };
  return {
    check: () => fault,
    subject: {
      alloc(size) {
        const block = alloc(size);
        if (typeof block === "object") {
          if (objects.has(block)) fault ??= "an object was handed out twice";
          objects.add(block);
        } else if (block !== 0) claim(block, size);
        return block;
      },
      free(block: Block, size: number) {
        if (typeof block === "object") objects.delete(block);
        else for (let word = block; word < block + size; word += 4) owners.delete(word);
        free(block, size);
      },
    },
  };
}
