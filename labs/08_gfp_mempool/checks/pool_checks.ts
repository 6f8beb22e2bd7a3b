/**
 * Lab 8, the checks about the mempool and deferred frees.
 */

import type { Check } from "../../kit/lab_code.ts";
import { GFP_ATOMIC, GFP_KERNEL, GFP_NOIO, GFP_NOWAIT } from "../given/api.ts";
import { atomic, Builder, blocking } from "./programs.ts";

/** A pool of `minNr` pages on a machine that has nothing else. */
function starved(minNr: number, reclaim: readonly number[] = []): Builder {
  const builder = new Builder(minNr + 2, 1, 2, reclaim);
  builder.op("pool", minNr);
  builder.exhaust(2);
  return builder;
}

/** An interrupt at each call of the machine in turn. */
const EVERYWHERE = { quick: 8, full: 24 };

export const POOLS: readonly Check[] = [
  {
    id: "pool-create",
    rule: "MPL-1",
    title: "createPool has its whole reserve or nothing",
    cause: "one page more or less, or a failure that keeps what it had",
    kinds: ["pool-create"],
    program(_random, nr) {
      const builder = new Builder(4 + (nr % 3), 1, 2, nr % 2 === 1 ? [1] : []);
      builder.op("pool", 1 + (nr % 6));
      builder.page(GFP_ATOMIC);
      return builder.build();
    },
  },
  {
    id: "pool-order",
    rule: "MPL-2",
    title: "asked in order: the allocator without sleeping, the reserve, the allocator with all of the mask, sleep",
    cause: "the reserve is used first, memory is reclaimed before it is used, or a flag of the attempts is missing",
    kinds: ["pool-order"],
    program(_random, nr) {
      const builder = new Builder(7, 2, 3, nr % 2 === 0 ? [1, 1, 1] : [0, 2, 2]);
      builder.op("pool", 1 + (nr % 3));
      if (nr % 3 === 2) builder.exhaust(7);
      for (let i = 0; i < 8; i++) builder.take(i % 3 === 2 ? atomic(nr + i) : blocking(nr + i));
      return builder.build();
    },
  },
  {
    id: "guarantee",
    rule: "MPL-3",
    title: "when nothing else can be had the whole reserve can, and who may sleep never gets a refusal",
    cause: "the last page of the reserve is kept, or a task that finds nothing gives up",
    kinds: ["reserve-unused", "gives-up"],
    program(_random, nr) {
      const minNr = 1 + (nr % 3);
      const builder = starved(minNr, nr % 4 === 3 ? [0, 1] : []);
      for (let i = 0; i < minNr; i++) builder.take(nr % 2 === 0 ? GFP_NOWAIT : GFP_NOIO);
      builder.take(nr % 4 < 2 ? GFP_KERNEL : GFP_NOIO);
      builder.put(0);
      builder.take(GFP_ATOMIC, true);
      return builder.build();
    },
  },
  {
    id: "wakeup",
    rule: "MPL-4",
    title: "no task sleeps while a page is in reserve, wherever an interrupt frees it",
    cause: "the task looks at the reserve first and goes onto the wait queue then: a free in between wakes nobody",
    kinds: ["lost-wakeup"],
    runs: EVERYWHERE,
    program(random, nr) {
      const minNr = 1 + ((nr >>> 1) % 2);
      const builder = starved(minNr);
      const pages = Array.from({ length: minNr }, () => builder.take(GFP_NOWAIT));
      builder.armFree(1 + nr + (nr % 8 === 7 ? random.below(3) : 0), pages[0] as number);
      builder.taken.shift();
      builder.take(nr % 3 === 2 ? GFP_KERNEL : GFP_NOIO);
      builder.take(GFP_NOIO);
      builder.put(0);
      builder.put(0, true);
      return builder.build();
    },
  },
  {
    id: "refill",
    rule: "MPL-5",
    title: "a freed page goes to the reserve while that is short, else back to the machine",
    cause: "the reserve is never filled up, or grows without end",
    kinds: ["refill", "overfull", "leak"],
    program(random, nr) {
      const builder = new Builder(8, 1, 2);
      builder.op("pool", 1 + (nr % 3));
      for (let i = 0; i < 8; i++) builder.take(GFP_NOWAIT);
      for (let i = 0; i < 8; i++) builder.put(random.below(builder.taken.length), i % 2 === 1);
      return builder.build();
    },
  },
  {
    id: "pool-free",
    rule: "MPL-6",
    title: "a page is out once, and freed once; a page that is not out is refused",
    cause: "the pool does not know which pages are out",
    kinds: ["bad-free", "free-kept", "twice"],
    program(random, nr) {
      // Pages that go to the reserve when they are freed, and pages that go back to the machine.
      const builder = new Builder(nr % 4 < 2 ? 6 : 12, 1, 2);
      builder.op("pool", 1 + (nr % 2));
      const other = builder.page(GFP_ATOMIC);
      const pages = [0, 1, 2, 3].map(() => builder.take(GFP_NOWAIT));
      const ref = pages[random.below(4)] as number;
      builder.op("put", { ref }, false);
      if (nr % 3 === 0) builder.op("put", { ref }, false);
      if (nr % 3 === 1) builder.op("put", { ref: other }, false);
      builder.op("put", { ref }, true, nr % 2 === 0 ? 1000 : -0.5);
      for (const at of pages) if (at !== ref) builder.op("put", { ref: at }, false);
      for (let i = 0; i < 3; i++) builder.take(GFP_NOWAIT);
      return builder.build();
    },
  },
  {
    id: "sleep-with-lock",
    rule: "CTX-2",
    title: "nobody sleeps with the spinlock",
    cause: "the lock is kept over schedule(), reclaim() or release(), so that whoever would end the wait cannot get it",
    kinds: ["sleep-lock"],
    program(_random, nr) {
      const builder = starved(1 + (nr % 2), nr % 3 === 1 ? [1] : []);
      for (let i = 0; i < 3 + (nr % 2); i++) builder.take(nr % 2 === 0 ? GFP_NOIO : GFP_KERNEL);
      builder.put(0);
      builder.defer();
      builder.defer(true);
      builder.op("runWork");
      return builder.build();
    },
  },
  {
    id: "interrupts",
    rule: "CTX-3",
    title: "the lock is taken with interrupts off, around every change of the books, and always given back",
    cause: "an interrupt wants the lock that the interrupted code holds; or a return in between keeps it",
    kinds: ["deadlock", "lock-left", "unlock", "no-lock"],
    runs: EVERYWHERE,
    program(_random, nr) {
      const builder = starved(2);
      builder.take(GFP_NOWAIT);
      const page = builder.take(GFP_NOWAIT);
      const at = 1 + (nr >>> 2);
      if (nr % 4 === 0) {
        builder.armFree(at, page);
        builder.put(0);
      } else if (nr % 4 === 1) {
        builder.armFree(at, page);
        builder.take(GFP_NOWAIT);
      } else {
        builder.defer();
        builder.armDefer(at);
        if (nr % 4 === 2) builder.op("runWork");
        else builder.defer();
      }
      builder.op("put", 5000, false);
      builder.take(GFP_NOWAIT, true);
      return builder.build();
    },
  },
];

export const BOOKS: readonly Check[] = [
  {
    id: "off-queue",
    rule: "CTX-4",
    title: "nobody leaves poolAlloc on the wait queue",
    cause: "the page was there after all, and finishWait() is only called behind the sleep",
    kinds: ["queue-left"],
    runs: EVERYWHERE,
    program(_random, nr) {
      const builder = starved(1, nr % 3 === 2 ? [0] : []);
      const page = builder.take(GFP_NOWAIT);
      builder.armFree(1 + (nr >>> 1), page);
      builder.taken.shift();
      const got = builder.take(nr % 2 === 0 ? GFP_NOIO : GFP_KERNEL);
      builder.op("put", { ref: got }, true);
      return builder.build();
    },
  },
  {
    id: "destroy",
    rule: "MPL-7",
    title: "a pool with pages out stays; another gives its whole reserve back",
    cause: "only pages in reserve are counted, or one of them is kept",
    kinds: ["destroy"],
    program(_random, nr) {
      const builder = new Builder(7, 1, 2);
      builder.op("pool", 1 + (nr % 3));
      if (nr % 2 === 1) builder.exhaust(6);
      for (let i = 0; i < 2 + (nr % 4); i++) builder.take(GFP_NOWAIT);
      builder.op("end");
      while (builder.taken.length > 0) builder.put(0);
      builder.op("end");
      return builder.build();
    },
  },
  {
    id: "deferred",
    rule: "DEF-1",
    title: "deferFree notes the object and asks for a run if it is the first on the list; it releases nothing itself",
    cause: "a run is asked for each time, or only once for ever, or the object is released where that may sleep",
    kinds: ["no-work", "early-release"],
    program(_random, nr) {
      const builder = new Builder(4, 1, 2);
      for (let round = 0; round < 2; round++) {
        for (let i = 0; i < 1 + ((nr + round) % 3); i++) builder.defer(i % 2 === nr % 2);
        builder.op("runWork");
      }
      builder.defer(true);
      return builder.build();
    },
  },
  {
    id: "deferred-all",
    rule: "DEF-2",
    title: "every object is released once, also one that an interrupt adds in the midst of a run",
    cause: "the list is emptied after the run and not before it, or the last object is left behind",
    kinds: ["lost-object", "release-twice"],
    runs: EVERYWHERE,
    program(_random, nr) {
      const builder = new Builder(4, 1, 2);
      for (let i = 0; i < 1 + (nr % 3); i++) builder.defer();
      builder.armDefer(1 + Math.floor(nr / 3));
      builder.op("runWork");
      builder.op("runWork");
      builder.defer();
      builder.op("runWork");
      return builder.build();
    },
  },
];
