/**
 * Lab 8: GFP flags, a mempool and deferred frees, with a stack and two lists.
 */

import {
  __GFP_DIRECT_RECLAIM,
  __GFP_HIGH,
  __GFP_IO,
  __GFP_KSWAPD_RECLAIM,
  __GFP_MEMALLOC,
  __GFP_NOFAIL,
  __GFP_NOMEMALLOC,
  __GFP_NORETRY,
  __GFP_NOWARN,
  EBUSY,
  EINVAL,
  ENOMEM,
  GFP_KERNEL,
  type Gfp,
  type Machine,
  NO_PAGE,
  type Sleeping,
} from "../given/api.ts";

export function createGfp(machine: Machine): Gfp {
  /** Pages in reserve, and how many there are to be. */
  const reserve: number[] = [];
  let minNr = 0;
  /** Pages that poolAlloc has given. */
  const out = new Set<number>();
  /** Objects that wait for their end. */
  let deferred: number[] = [];

  function mayBlock(gfp: number): boolean {
    // BLANK BEGIN one flag says it (GFP-1)
    return (gfp & __GFP_DIRECT_RECLAIM) !== 0;
    // BLANK END
  }

  function keeps(gfp: number): number {
    // BLANK BEGIN min, half of it, three eighths, nothing (GFP-4)
    if ((gfp & __GFP_MEMALLOC) !== 0 && (gfp & __GFP_NOMEMALLOC) === 0) return 0;
    let mark = machine.min;
    if ((gfp & __GFP_HIGH) === 0) return mark;
    mark -= Math.floor(mark / 2);
    if (!mayBlock(gfp)) mark -= Math.floor(mark / 4);
    return mark;
    // BLANK END
  }

  function* allocPage(gfp: number): Sleeping<number> {
    // BLANK BEGIN above low at once; else wake, take what the mask may, reclaim if it may sleep (GFP-2 … GFP-7)
    if ((gfp & __GFP_NOFAIL) !== 0 && !mayBlock(gfp)) return NO_PAGE;
    if (mayBlock(gfp)) machine.mightSleep();
    if (machine.freePages() > machine.low) return machine.takePage();
    if ((gfp & __GFP_KSWAPD_RECLAIM) !== 0) machine.wakeKswapd();
    if (machine.freePages() > keeps(gfp)) return machine.takePage();
    while (mayBlock(gfp)) {
      const nr = yield* machine.reclaim(gfp);
      if (machine.freePages() > keeps(gfp)) return machine.takePage();
      if ((gfp & __GFP_NOFAIL) === 0 && (nr === 0 || (gfp & __GFP_NORETRY) !== 0)) break;
    }
    return NO_PAGE;
    // BLANK END
  }

  function* createPool(nr: number): Sleeping<number> {
    // BLANK BEGIN nr pages of GFP_KERNEL for the reserve; if one is missing, give the others back (MPL-1)
    while (reserve.length < nr) {
      const page = yield* allocPage(GFP_KERNEL);
      if (page !== NO_PAGE) {
        reserve.push(page);
        continue;
      }
      for (const other of reserve.splice(0)) machine.givePage(other);
      return -ENOMEM;
    }
    minNr = nr;
    return 0;
    // BLANK END
  }

  // BLANK CUT
  /** A page of the reserve, or NO_PAGE. */
  function takeReserve(): number {
    machine.lockIrq();
    const page = reserve.pop() ?? NO_PAGE;
    if (page !== NO_PAGE) out.add(page);
    machine.unlockIrq();
    return page;
  }

  function noteOut(page: number): number {
    machine.lockIrq();
    out.add(page);
    machine.unlockIrq();
    return page;
  }

  // BLANK END
  function* poolAlloc(gfp: number): Sleeping<number> {
    // BLANK BEGIN the allocator without sleeping; the reserve; the allocator with the mask; sleep (MPL-2 … MPL-4)
    const mask = gfp | __GFP_NOMEMALLOC | __GFP_NORETRY | __GFP_NOWARN;
    if (mayBlock(gfp)) machine.mightSleep();
    let page = yield* allocPage(mask & ~(__GFP_DIRECT_RECLAIM | __GFP_IO));
    if (page !== NO_PAGE) return noteOut(page);
    page = takeReserve();
    if (page !== NO_PAGE || !mayBlock(gfp)) return page;
    for (;;) {
      page = yield* allocPage(mask);
      if (page !== NO_PAGE) return noteOut(page);
      // On the queue first, then the look: a free in between wakes us.
      machine.prepareToWait();
      page = takeReserve();
      if (page === NO_PAGE) yield* machine.schedule();
      machine.finishWait();
      if (page === NO_PAGE) page = takeReserve();
      if (page !== NO_PAGE) return page;
    }
    // BLANK END
  }

  function poolFree(page: number): number {
    // BLANK BEGIN to the reserve while that is short, and wake; else to the machine (MPL-5, MPL-6)
    machine.lockIrq();
    const isOut = out.delete(page);
    const isShort = reserve.length < minNr;
    if (isOut && isShort) reserve.push(page);
    machine.unlockIrq();
    if (!isOut) return -EINVAL;
    if (isShort) machine.wakeOne();
    else machine.givePage(page);
    return 0;
    // BLANK END
  }

  function destroyPool(): number {
    // BLANK BEGIN not while pages are out; the reserve goes back (MPL-7)
    if (out.size > 0) return -EBUSY;
    for (const page of reserve.splice(0)) machine.givePage(page);
    minNr = 0;
    return 0;
    // BLANK END
  }

  function deferFree(object: number): void {
    // BLANK BEGIN note the object; the first one of a list asks for a run (DEF-1, DEF-2)
    machine.lockIrq();
    deferred.push(object);
    const isFirst = deferred.length === 1;
    machine.unlockIrq();
    if (isFirst) machine.scheduleWork();
    // BLANK END
  }

  function* runDeferred(): Sleeping<void> {
    // BLANK BEGIN take the whole list, then end its objects without the lock (DEF-2, DEF-3)
    machine.lockIrq();
    const list = deferred;
    deferred = [];
    machine.unlockIrq();
    for (const object of list) yield* machine.release(object);
    // BLANK END
  }

  return {
    mayBlock,
    keeps,
    allocPage,
    createPool,
    poolAlloc,
    poolFree,
    destroyPool,
    deferFree,
    runDeferred,
  };
}
