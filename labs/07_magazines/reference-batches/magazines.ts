/**
 * Lab 7 without magazines that move: each CPU has room for twice as many objects as a magazine, and what goes to the
 * depot or comes from there are half of them.
 *
 *      word 0: how many are in the depot; then those       CPU c: how many, then up to 2 · magazineSize objects
 *
 * Locks: 0 for the depot, 1 + c for CPU c. The depot's comes first: whoever finds nothing lets go, and begins there.
 *
 * Source: the per-CPU page lists of Linux (mm/page_alloc.c, rmqueue_bulk) move batches like that.
 */

import type { Layout, Magazines, Memory } from "../given/api.ts";

const DEPOT_LOCK = 0;
const DEPOT = 0;

export function createMagazines(memory: Memory, layout: Layout): Magazines {
  const { load, store, lock, unlock, irqSave, irqRestore, cpu } = memory;
  const { nrCpus, nrObjects, magazineSize: half } = layout;
  const lockOf = (c: number): number => 1 + c;
  const stackOf = (c: number): number => 1 + nrObjects + c * (2 * half + 1);

  /** Stacks: a count, then so many objects. */
  const pop = (stack: number): number => {
    const nr = load(stack);
    if (nr === 0) return 0;
    store(stack, nr - 1);
    return load(stack + nr);
  };
  const push = (stack: number, object: number): void => {
    const nr = load(stack) + 1;
    store(stack + nr, object);
    store(stack, nr);
  };
  const move = (from: number, to: number, nr: number): void => {
    for (let i = 0; i < nr && load(from) > 0; i++) push(to, pop(from));
  };
  /** Runs `work` on this CPU, which nothing interrupts. */
  const here = <T>(work: (me: number) => T): T => {
    const wereOn = irqSave();
    const result = work(cpu());
    irqRestore(wereOn);
    return result;
  };
  const holding = <T>(first: number, last: number, work: () => T): T => {
    for (let i = first; i <= last; i++) lock(i);
    const result = work();
    for (let i = last; i >= first; i--) unlock(i);
    return result;
  };

  return {
    init() {
      for (let object = nrObjects; object >= 1; object--) push(DEPOT, object);
    },
    alloc() {
      return here((me) => {
        const mine = stackOf(me);
        const fast = holding(lockOf(me), lockOf(me), () => pop(mine));
        if (fast !== 0) return fast;
        const fetched = holding(DEPOT_LOCK, DEPOT_LOCK, () =>
          holding(lockOf(me), lockOf(me), () => {
            if (load(mine) === 0) move(DEPOT, mine, half);
            return pop(mine);
          }),
        );
        if (fetched !== 0) return fetched;
        return holding(DEPOT_LOCK, lockOf(nrCpus - 1), () => {
          let object = pop(DEPOT);
          for (let c = 0; c < nrCpus && object === 0; c++) object = pop(stackOf(c));
          return object;
        });
      });
    },
    free(object) {
      here((me) => {
        const mine = stackOf(me);
        const isDone = holding(lockOf(me), lockOf(me), () => {
          if (load(mine) === 2 * half) return false;
          push(mine, object);
          return true;
        });
        if (isDone) return;
        holding(DEPOT_LOCK, DEPOT_LOCK, () =>
          holding(lockOf(me), lockOf(me), () => {
            if (load(mine) === 2 * half) move(mine, DEPOT, half);
            push(mine, object);
          }),
        );
      });
    },
    drain() {
      here((me) =>
        holding(DEPOT_LOCK, DEPOT_LOCK, () =>
          holding(lockOf(me), lockOf(me), () => move(stackOf(me), DEPOT, nrObjects)),
        ),
      );
    },
  };
}
