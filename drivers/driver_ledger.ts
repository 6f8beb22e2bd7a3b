/**
 * A module's ledger: what it holds, so that lsmod can tell its size and unloading can tell what it leaked.
 *
 * Everything a driver takes (memory, caches, interrupt lines, mappings) is a step. Steps are counted over all modules,
 * and the N-th from now can be made to fail (`failStep`): so a test walks through every failing step of probe and of
 * traffic. The view of the kernel that a module is given does the counting: module_view.ts.
 *
 *   LED-1  held things = taken and not given back; a module that is unloaded holds nothing
 *
 * Host state: an observer. The memory itself is where the allocators put it.
 */

/** Counts steps of all modules; makes one fail. */
export interface StepCounter {
  /** True when the step that is about to happen has to fail. Counts it. */
  fails(): boolean;
  /** The `nth` step from now fails, 1 being the next; 0: none. */
  failStep(nth: number): void;
  /** Steps since the last failStep. */
  nrSteps(): number;
}

export function createStepCounter(): StepCounter {
  let nrSteps = 0;
  let failing = 0;
  return {
    fails: () => ++nrSteps === failing,
    failStep(nth) {
      nrSteps = 0;
      failing = nth;
    },
    nrSteps: () => nrSteps,
  };
}

export interface DriverLedger {
  readonly steps: StepCounter;
  /** Notes that `key` (an address, a number, an object) is held. */
  take(kind: string, key: unknown, bytes: number): void;
  /** Notes that it was given back; nothing for what was never taken. */
  give(kind: string, key: unknown): void;
  bytesHeld(): number;
  /** `2 kmalloc (96 bytes), 1 irq`; null when nothing is held. */
  leftovers(): string | null;
}

export function createDriverLedger(steps: StepCounter): DriverLedger {
  const held = new Map<string, Map<unknown, number>>();
  const kindOf = (kind: string): Map<unknown, number> => {
    const known = held.get(kind) ?? new Map<unknown, number>();
    held.set(kind, known);
    return known;
  };
  const sum = (sizes: Iterable<number>): number => [...sizes].reduce((all, bytes) => all + bytes, 0);
  return {
    steps,
    take: (kind, key, bytes) => {
      kindOf(kind).set(key, bytes);
    },
    give: (kind, key) => {
      kindOf(kind).delete(key);
    },
    bytesHeld: () => sum([...held.values()].map((things) => sum(things.values()))),
    leftovers() {
      const parts = [...held].flatMap(([kind, things]) => {
        if (things.size === 0) return [];
        const bytes = sum(things.values());
        return [`${things.size} ${kind}${bytes > 0 ? ` (${bytes} bytes)` : ""}`];
      });
      return parts.length === 0 ? null : parts.join(", ");
    },
  };
}
