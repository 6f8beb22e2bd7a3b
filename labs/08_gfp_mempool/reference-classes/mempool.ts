/**
 * Lab 8: GFP flags, a mempool and deferred frees, with classes: a mask that knows what it allows, a reserve that keeps
 * its own lock, a chain of deferred objects.
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

class Mask {
  readonly bits: number;

  constructor(bits: number) {
    this.bits = bits;
  }

  has(flag: number): boolean {
    return (this.bits & flag) === flag;
  }

  get blocks(): boolean {
    return this.has(__GFP_DIRECT_RECLAIM);
  }

  keeps(min: number): number {
    if (this.has(__GFP_MEMALLOC) && !this.has(__GFP_NOMEMALLOC)) return 0;
    if (!this.has(__GFP_HIGH)) return min;
    const half = Math.ceil(min / 2);
    return this.blocks ? half : Math.ceil((half * 3) / 4);
  }
}

type Where = "out" | "reserve";

/** Pages of the pool and where they are; each method takes the lock. */
class Pages {
  readonly #machine: Machine;
  readonly #where = new Map<number, Where>();
  readonly #spare: number[] = [];
  #nrOut = 0;
  wanted = 0;

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  #locked<T>(work: () => T): T {
    this.#machine.lockIrq();
    const result = work();
    this.#machine.unlockIrq();
    return result;
  }

  get nrOut(): number {
    return this.#nrOut;
  }

  give(page: number): number {
    return this.#locked(() => {
      this.#where.set(page, "out");
      this.#nrOut++;
      return page;
    });
  }

  fill(page: number): void {
    this.#where.set(page, "reserve");
    this.#spare.push(page);
  }

  take(): number {
    return this.#locked(() => {
      const page = this.#spare.pop();
      if (page === undefined) return NO_PAGE;
      this.#where.set(page, "out");
      this.#nrOut++;
      return page;
    });
  }

  /** Takes a page back: "reserve" if it is kept, "out" if the machine gets it, undefined if it was not out. */
  back(page: number): Where | undefined {
    return this.#locked(() => {
      if (this.#where.get(page) !== "out") return undefined;
      this.#nrOut--;
      if (this.#spare.length >= this.wanted) {
        this.#where.delete(page);
        return "out";
      }
      this.fill(page);
      return "reserve";
    });
  }

  empty(): void {
    this.wanted = 0;
    for (let page = this.#spare.pop(); page !== undefined; page = this.#spare.pop()) {
      this.#where.delete(page);
      this.#machine.givePage(page);
    }
  }
}

interface Link {
  readonly object: number;
  readonly next: Link | null;
}

export function createGfp(machine: Machine): Gfp {
  const pages = new Pages(machine);
  let chain: Link | null = null;

  function take(mark: number): number {
    return machine.freePages() > mark ? machine.takePage() : NO_PAGE;
  }

  function* alloc(mask: Mask): Sleeping<number> {
    if (mask.has(__GFP_NOFAIL) && !mask.blocks) return NO_PAGE;
    if (mask.blocks) machine.mightSleep();
    let page = take(machine.low);
    if (page !== NO_PAGE) return page;
    if (mask.has(__GFP_KSWAPD_RECLAIM)) machine.wakeKswapd();
    page = take(mask.keeps(machine.min));
    if (page !== NO_PAGE || !mask.blocks) return page;
    let nr: number;
    do {
      nr = yield* machine.reclaim(mask.bits);
      page = take(mask.keeps(machine.min));
      if (page !== NO_PAGE) return page;
    } while (mask.has(__GFP_NOFAIL) || (nr > 0 && !mask.has(__GFP_NORETRY)));
    return NO_PAGE;
  }

  function* sleepForPage(): Sleeping<number> {
    for (;;) {
      machine.prepareToWait();
      const page = pages.take();
      if (page !== NO_PAGE) {
        machine.finishWait();
        return page;
      }
      yield* machine.schedule();
    }
  }

  return {
    mayBlock: (gfp) => new Mask(gfp).blocks,
    keeps: (gfp) => new Mask(gfp).keeps(machine.min),
    allocPage: (gfp) => alloc(new Mask(gfp)),
    *createPool(minNr) {
      for (let nr = 0; nr < minNr; nr++) {
        const page = yield* alloc(new Mask(GFP_KERNEL));
        if (page === NO_PAGE) {
          pages.empty();
          return -ENOMEM;
        }
        pages.fill(page);
      }
      pages.wanted = minNr;
      return 0;
    },
    *poolAlloc(gfp) {
      const { blocks } = new Mask(gfp);
      if (blocks) machine.mightSleep();
      const bits = gfp | __GFP_NOMEMALLOC | __GFP_NORETRY | __GFP_NOWARN;
      for (const mask of [new Mask(bits & ~(__GFP_DIRECT_RECLAIM | __GFP_IO)), new Mask(bits)]) {
        const fresh = yield* alloc(mask);
        if (fresh !== NO_PAGE) return pages.give(fresh);
        const kept = pages.take();
        if (kept !== NO_PAGE || !blocks) return kept;
      }
      return yield* sleepForPage();
    },
    poolFree(page) {
      const went = pages.back(page);
      if (went === undefined) return -EINVAL;
      if (went === "out") machine.givePage(page);
      else machine.wakeOne();
      return 0;
    },
    destroyPool() {
      if (pages.nrOut > 0) return -EBUSY;
      pages.empty();
      return 0;
    },
    deferFree(object) {
      machine.lockIrq();
      const wasEmpty = chain === null;
      chain = { object, next: chain };
      if (wasEmpty) machine.scheduleWork();
      machine.unlockIrq();
    },
    *runDeferred() {
      for (;;) {
        machine.lockIrq();
        const first = chain;
        chain = first === null ? null : first.next;
        machine.unlockIrq();
        if (first === null) return;
        yield* machine.release(first.object);
      }
    },
  };
}
