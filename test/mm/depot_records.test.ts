/**
 * The depots' records and checks: what a depot says about itself, what walk() finds in a depot that is broken, what a
 * visit costs, and what happens to the slots' tables when memory is short, dirty or contended for.
 *
 * Goal: DEP-2, DEP-3, DEP-4, M6. Method: a depot's words in RAM are written by hand, and read back.
 */

import { describe, expect, it } from "vitest";
import { CYC_DEPOT } from "../../kernel/arch/charges.ts";
import { asPhys, NULL, type PhysAddr } from "../../kernel/types.ts";
import {
  DEPOT_CONTENTION,
  DEPOT_EMPTY,
  DEPOT_FREE_SLOT,
  DEPOT_FULL,
  DEPOT_LOCK,
  DEPOT_SLOTS,
  EMPTY,
  FULL,
  LIST_MIN,
  LIST_NR,
} from "../../mm/depot.ts";
import { MAX_SLOTS } from "../../mm/depot_lockfree.ts";
import { GFP_NOWAIT } from "../../mm/gfp.ts";
import { CACHE_DEPOT, CACHE_NAME, CACHE_SLAB_ALLOCS } from "../../mm/slab_descriptor.ts";
import { bootDepot, contents, type DepotWorld } from "../support/depot_world.ts";

const addEmpty = (w: DepotWorld, nr: number): PhysAddr[] =>
  Array.from({ length: nr }, () => {
    const magazine = w.magazine();
    w.depot.addEmpty(w.m.ctx, w.cache, magazine);
    return magazine;
  });

/** Two full magazines and three empty ones. */
function stock(w: DepotWorld): void {
  addEmpty(w, 4);
  const full = [w.magazine(), w.depot.takeEmpty(w.m.ctx, w.cache, NULL)];
  for (const magazine of full) {
    const empty = w.depot.takeEmpty(w.m.ctx, w.cache, magazine);
    w.depot.addEmpty(w.m.ctx, w.cache, empty);
  }
}

const walk = (w: DepotWorld): { fault: string | null; nrVisits: number } => {
  let nrVisits = 0;
  const fault = w.depot.walk(w.cache, () => nrVisits++);
  return { fault, nrVisits };
};

for (const kind of ["locked", "lockfree"] as const) {
  describe(`the record of a ${kind} depot`, () => {
    it("DEP-2 is what init() was given, with empty lists, whatever was there; its neighbours stay", () => {
      const w = bootDepot(kind);
      const { depot, cache, m } = w;
      const { port } = m.machine;
      port.fill(asPhys(cache + CACHE_DEPOT - 8), 0xa5, CACHE_NAME - CACHE_DEPOT + 16);
      depot.init(cache, 2, 15, w.slotTables());
      expect([depot.type(cache), depot.magsize(cache), depot.magazines(cache)]).toEqual([2, 15, w.slotTables()]);
      expect([depot.nrFull(cache), depot.nrEmpty(cache), depot.contention(cache)]).toEqual([0, 0, 0]);
      expect(walk(w)).toEqual({ fault: null, nrVisits: 0 });
      const beside = [CACHE_DEPOT - 8, CACHE_DEPOT - 4, CACHE_NAME, CACHE_NAME + 4];
      expect(beside.map((offset) => port.ld32(cache + offset))).toEqual(beside.map(() => 0xa5a5_a5a5));
    });

    it("DEP-2 the lengths are the counters, and 0 when a taker was counted before the giver", () => {
      const w = bootDepot(kind);
      stock(w);
      expect([w.depot.nrFull(w.cache), w.depot.nrEmpty(w.cache)]).toEqual([2, 3]);
      for (const list of [DEPOT_FULL, DEPOT_EMPTY]) w.m.machine.port.st32(w.cache + list + LIST_NR, 0xffff_ffff);
      expect([w.depot.nrFull(w.cache), w.depot.nrEmpty(w.cache)]).toEqual([0, 0]);
    });

    it("DEP-3 the least length stays when the list is longer than it was", () => {
      const w = bootDepot(kind);
      const least = (): number => w.m.machine.port.ld32(w.cache + DEPOT_EMPTY + LIST_MIN);
      addEmpty(w, 3);
      w.depot.takeEmpty(w.m.ctx, w.cache, NULL);
      expect(least()).toBe(0);
      w.depot.updateWorkingSet(w.cache, false);
      expect(least()).toBe(2);
      addEmpty(w, 3);
      w.depot.takeEmpty(w.m.ctx, w.cache, NULL);
      expect(least()).toBe(2);
      for (let i = 0; i < 3; i++) w.depot.takeEmpty(w.m.ctx, w.cache, NULL);
      expect(least()).toBe(1);
    });

    it("M7 what may go is what was not needed in two intervals, list by list", () => {
      const w = bootDepot(kind);
      const { depot, cache, m } = w;
      const reapable = (): number[] => [depot.nrReapable(cache, FULL), depot.nrReapable(cache, EMPTY)];
      const endInterval = (everything = false): number[] => {
        depot.updateWorkingSet(cache, everything);
        return reapable();
      };
      addEmpty(w, 5);
      // Added in this interval, so the list was empty in it.
      expect([reapable(), endInterval(), endInterval()]).toEqual([
        [0, 0],
        [0, 0],
        [0, 5],
      ]);
      const [a, b] = [0, 0].map(() => depot.takeEmpty(m.ctx, cache, NULL)) as [PhysAddr, PhysAddr];
      expect([reapable(), endInterval()]).toEqual([
        [0, 3],
        [0, 3],
      ]);
      for (const full of [a, b]) depot.addEmpty(m.ctx, cache, depot.takeEmpty(m.ctx, cache, full));
      expect(depot.nrFull(cache)).toBe(2);
      expect([reapable(), endInterval(true)]).toEqual([
        [0, 2],
        [2, 3],
      ]);
      depot.takeFull(m.ctx, cache, NULL);
      expect([reapable(), endInterval(), endInterval()]).toEqual([
        [1, 3],
        [1, 3],
        [1, 3],
      ]);
    });

    it("M6 takeContention() is what came since the last call, contention() all there was", () => {
      const w = bootDepot(kind);
      const { depot, cache } = w;
      expect([depot.takeContention(cache), depot.contention(cache)]).toEqual([0, 0]);
      w.m.machine.port.st32(cache + DEPOT_CONTENTION, 5);
      expect([depot.takeContention(cache), depot.contention(cache)]).toEqual([5, 5]);
      w.m.machine.port.st32(cache + DEPOT_CONTENTION, 12);
      expect([depot.takeContention(cache), depot.takeContention(cache), depot.contention(cache)]).toEqual([7, 0, 12]);
    });

    it("M6 a visit costs CYC_DEPOT, a look at an empty list nothing; neither is contention, nor keeps the lock", () => {
      const w = bootDepot(kind);
      const { depot, cache, m } = w;
      const cost = (visit: () => void): number => {
        const before = m.machine.harts.clock[0] as number;
        visit();
        return (m.machine.harts.clock[0] as number) - before;
      };
      expect(cost(() => depot.takeFull(m.ctx, cache, NULL))).toBe(0);
      expect(cost(() => depot.takeEmpty(m.ctx, cache, NULL))).toBe(0);
      stock(w);
      expect(cost(() => depot.takeFull(m.ctx, cache, NULL))).toBe(CYC_DEPOT);
      expect(cost(() => depot.takeEmpty(m.ctx, cache, NULL))).toBe(CYC_DEPOT);
      expect(depot.contention(cache)).toBe(0);
      expect(m.spinlocks.isLocked(asPhys(cache + DEPOT_LOCK))).toBe(false);
    });

    it("DEP-5 a list that another CPU empties after the look: nothing taken, nothing left there", () => {
      const w = bootDepot(kind);
      const { depot, cache, m } = w;
      const other = w.magazine();
      const [only] = addEmpty(w, 1);
      const point = w.interrupt(1, () => expect(depot.takeEmpty(m.ctx, cache, NULL)).toBe(only));
      expect(depot.takeEmpty(m.ctx, cache, other)).toBe(NULL);
      point.end();
      expect(point.hasFired()).toBe(true);
      expect(contents(w)).toEqual({ full: [], empty: [] });
    });
  });

  describe(`walk() of a ${kind} depot that is broken`, () => {
    const SHORTER = "DEP-2: a list is shorter than its counter";
    const LONGER = "DEP-2: a list is longer than its counter";
    for (const [name, list, length] of [
      ["full", DEPOT_FULL, 2],
      ["empty", DEPOT_EMPTY, 3],
    ] as const) {
      /** Magazines that are visited before the list's own. */
      const nrBefore = list === DEPOT_FULL ? 0 : 2;
      const broken = (spoil: (w: DepotWorld) => void): ReturnType<typeof walk> => {
        const w = bootDepot(kind);
        stock(w);
        expect(walk(w)).toEqual({ fault: null, nrVisits: 5 });
        spoil(w);
        return walk(w);
      };
      const setNr = (nr: number) => (w: DepotWorld) => {
        w.m.machine.port.st32(w.cache + list + LIST_MIN, 0);
        w.m.machine.port.st32(w.cache + list + LIST_NR, nr);
      };

      it(`DEP-2 the ${name} list: a counter that is too high, too low, by one or by more`, () => {
        expect(broken(setNr(length + 1))).toEqual({ fault: SHORTER, nrVisits: nrBefore + length });
        for (let nr = 0; nr < length; nr++) {
          expect(broken(setNr(nr))).toEqual({ fault: LONGER, nrVisits: nrBefore + nr });
        }
      });

      it(`DEP-2 the ${name} list: an empty list that counts, and a ring`, () => {
        expect(broken((w) => w.m.machine.port.st32(w.cache + list, 0))).toEqual({
          fault: SHORTER,
          nrVisits: nrBefore,
        });
        const ring = broken((w) => {
          const all: PhysAddr[] = [];
          w.depot.walk(w.cache, (magazine, isFull) => isFull === (list === DEPOT_FULL) && all.push(magazine));
          const { port } = w.m.machine;
          port.st32(all.at(-1) as PhysAddr, port.ld32(w.cache + list));
        });
        expect(ring).toEqual({ fault: LONGER, nrVisits: nrBefore + length });
      });

      it(`DEP-3 the ${name} list: a least length above the length`, () => {
        const fault = "DEP-3: the least length is above the length";
        const setMin = (least: number) => (w: DepotWorld) => w.m.machine.port.st32(w.cache + list + LIST_MIN, least);
        expect(broken(setMin(length + 1)).fault).toBe(fault);
        expect(broken(setMin(length)).fault).toBeNull();
      });
    }
  });
}

it("M6 the locked depot counts each lock that is not free at the first try, and takes it at the second", () => {
  const w = bootDepot("locked");
  const [first, second] = addEmpty(w, 2);
  const { port } = w.m.machine;
  const { cas } = port;
  let nrTries = 0;
  port.cas = (addr, expected, desired) => {
    const isHeld = addr === w.cache + DEPOT_LOCK && nrTries++ % 2 === 0;
    return isHeld ? 2 : cas.call(port, addr, expected, desired);
  };
  expect(w.depot.takeEmpty(w.m.ctx, w.cache, NULL)).toBe(second);
  expect([nrTries, w.depot.contention(w.cache)]).toEqual([2, 1]);
  expect(w.depot.takeEmpty(w.m.ctx, w.cache, NULL)).toBe(first);
  port.cas = cas;
  expect([nrTries, w.depot.contention(w.cache), w.depot.takeContention(w.cache)]).toEqual([4, 2, 2]);
});

describe("DEP-4 the slots of a lock-free depot", () => {
  const slotOf = (w: DepotWorld, magazine: PhysAddr): number => w.m.machine.port.ld32(magazine + 4);
  /** Address of a slot's entry. */
  const entryOf = (w: DepotWorld, slot: number): number => {
    const { port } = w.m.machine;
    const table = port.ld32(w.cache + DEPOT_SLOTS) * 8;
    return port.ld32(table + Math.floor(slot / 64) * 4) * 8 + (slot % 64) * 4;
  };
  const nrTables = (w: DepotWorld): number => w.m.slab.slabInfo(w.slotTables()).activeObjects;
  const nrTablesAsked = (w: DepotWorld): number => w.m.machine.port.ldF64(w.slotTables() + CACHE_SLAB_ALLOCS);

  it("every pop counts in the tag above the slot, a push does not", () => {
    const w = bootDepot("lockfree");
    const tag = (): number => w.m.machine.port.ld32(w.cache + DEPOT_EMPTY) >>> 10;
    addEmpty(w, 3);
    expect(tag()).toBe(0);
    for (let nr = 1; nr <= 3; nr++) {
      w.depot.takeEmpty(w.m.ctx, w.cache, NULL);
      expect(tag()).toBe(nr);
    }
    w.m.machine.port.st32(w.cache + DEPOT_EMPTY, 0xffff_fc00);
    addEmpty(w, 1);
    expect(tag()).toBe(0x3f_ffff);
    w.depot.takeEmpty(w.m.ctx, w.cache, NULL);
    expect(w.m.machine.port.ld32(w.cache + DEPOT_EMPTY)).toBe(0);
  });

  it("before prepare() there is no room; without memory there is none, and the first page of RAM is not touched", () => {
    expect(((w) => w.depot.hasRoom(w.m.ctx, w.cache))(bootDepot("lockfree", false))).toBe(false);
    const w = bootDepot("lockfree");
    const { port } = w.m.machine;
    port.fill(asPhys(0), 0xa5, 256);
    w.m.slab.shrinkAll(w.m.ctx);
    w.m.failPageAllocation(1, true);
    expect(w.depot.hasRoom(w.m.ctx, w.cache)).toBe(false);
    for (let addr = 0; addr < 256; addr += 4) expect(port.ld32(addr)).toBe(0xa5a5_a5a5);
  });

  it("prepare() once more changes nothing", () => {
    const w = bootDepot("lockfree");
    const tables = w.slotTables();
    w.depot.prepare(w.m.ctx);
    expect(w.slotTables()).toBe(tables);
  });

  it("tables are cleared: memory that was used before is no slot", () => {
    const w = bootDepot("lockfree");
    const { slabs } = w.m.slab;
    const dirty = Array.from({ length: 16 }, () => slabs.allocObject(w.m.ctx, w.slotTables(), GFP_NOWAIT));
    for (const object of dirty) w.m.machine.port.fill(object, 0xff, 256);
    for (const object of dirty) slabs.freeObject(w.m.ctx, w.slotTables(), object);
    const all = addEmpty(w, 70);
    expect(contents(w).empty).toEqual(all.reverse());
    expect(nrTables(w)).toBe(3);
  });

  it("a cache without slots has room, and nothing to release, whatever lies at address 0", () => {
    const w = bootDepot("lockfree");
    w.m.machine.port.fill(asPhys(0), 0xff, 256);
    const log = w.m.log();
    w.depot.release(w.m.ctx, w.cache);
    expect(w.depot.hasRoom(w.m.ctx, w.cache)).toBe(true);
    w.depot.release(w.m.ctx, w.cache);
    expect(nrTables(w)).toBe(0);
    expect(w.m.log()).toBe(log);
  });

  it("released tables are forgotten: the next magazine gets new ones", () => {
    const w = bootDepot("lockfree");
    const log = w.m.log();
    for (let round = 0; round < 2; round++) {
      const magazine = w.magazine();
      expect(nrTables(w)).toBe(2);
      w.depot.disown(w.m.ctx, w.cache, magazine);
      w.depot.release(w.m.ctx, w.cache);
      expect(nrTables(w)).toBe(0);
      const words = [DEPOT_SLOTS, DEPOT_FREE_SLOT].map((offset) => w.m.machine.port.ld32(w.cache + offset));
      expect(words).toEqual([0, 0]);
    }
    expect(w.m.log()).toBe(log);
  });

  it("one magazine keeps the tables, whichever slot it has", () => {
    const w = bootDepot("lockfree");
    const all = Array.from({ length: 64 + 63 }, () => w.magazine());
    expect(new Set(all.map((magazine) => slotOf(w, magazine)))).toEqual(new Set(all.map((_, i) => i + 1)));
    for (const magazine of all) w.depot.disown(w.m.ctx, w.cache, magazine);
    for (const slot of [1, 63, 64, 65, 127]) {
      const held = Array.from({ length: all.length }, () => w.magazine());
      const keeper = held.find((magazine) => slotOf(w, magazine) === slot) as PhysAddr;
      for (const magazine of held) if (magazine !== keeper) w.depot.disown(w.m.ctx, w.cache, magazine);
      w.depot.release(w.m.ctx, w.cache);
      expect(nrTables(w)).toBe(3);
      w.depot.disown(w.m.ctx, w.cache, keeper);
    }
    w.depot.release(w.m.ctx, w.cache);
    expect(nrTables(w)).toBe(0);
  });

  it("with all slots taken no memory is asked for", () => {
    const w = bootDepot("lockfree");
    for (let i = 0; i < MAX_SLOTS; i++) w.magazine();
    const before = nrTablesAsked(w);
    expect(before).toBe(17);
    expect(w.depot.hasRoom(w.m.ctx, w.cache)).toBe(false);
    expect(nrTablesAsked(w)).toBe(before);
  });

  it("another CPU takes the last slots before any step of hasRoom(): the answer is right, and no table is lost", () => {
    const w = bootDepot("lockfree");
    const { ctx, slab } = w.m;
    const all = Array.from({ length: MAX_SLOTS - 64 }, () => w.magazine());
    const spares = Array.from({ length: 64 }, () =>
      slab.slabs.allocObject(ctx, w.depot.magazines(w.cache), GFP_NOWAIT),
    );
    // Where interrupts are off another CPU would wait for a lock.
    const isOpen = (): boolean => w.m.machine.harts.irqOn[0] === 1;
    let n = 0;
    for (; ; n++) {
      const takeAll = (): void => {
        for (const spare of spares) {
          expect(w.depot.hasRoom(ctx, w.cache)).toBe(true);
          expect(w.depot.adopt(ctx, w.cache, spare)).toBe(true);
        }
      };
      const point = w.interrupt(n, takeAll, isOpen);
      const hasRoom = w.depot.hasRoom(ctx, w.cache);
      point.end();
      if (!point.hasFired()) break;
      expect(nrTables(w)).toBe(17);
      // Late in the call "yes" was right when it was found; adopt() then says that it is too late.
      if (!hasRoom) expect(w.m.machine.port.ld32(w.cache + DEPOT_FREE_SLOT)).toBe(0);
      expect(w.depot.adopt(ctx, w.cache, all[0] as PhysAddr)).toBe(false);
      for (const magazine of [...spares, ...all]) w.depot.disown(ctx, w.cache, magazine);
      w.depot.release(ctx, w.cache);
      expect(nrTables(w)).toBe(0);
      for (const magazine of all) {
        expect(w.depot.hasRoom(ctx, w.cache)).toBe(true);
        expect(w.depot.adopt(ctx, w.cache, magazine)).toBe(true);
      }
    }
    expect(n).toBeGreaterThan(8);
  });

  it("a magazine that says another slot is not disowned, and walk() finds it", () => {
    const w = bootDepot("lockfree");
    const [first, second] = addEmpty(w, 2) as [PhysAddr, PhysAddr];
    w.m.machine.port.st32(first + 4, slotOf(w, second));
    expect(() => w.depot.disown(w.m.ctx, w.cache, first)).toThrow("DEP-4: a magazine is not in its slot");
    expect(walk(w).fault).toBe("DEP-4: a magazine is in another slot than it says");
  });

  it("a free slot on a list is found by the pop that comes to it", () => {
    const w = bootDepot("lockfree");
    const [magazine] = addEmpty(w, 1) as [PhysAddr];
    w.m.machine.port.st32(entryOf(w, slotOf(w, magazine)), 0x8000_0000);
    expect(() => w.depot.takeEmpty(w.m.ctx, w.cache, NULL)).toThrow("DEP-4: a free slot is on a list");
  });

  it("DEP-5 a magazine that is popped and disowned after a pop has read the head: the next one is taken", () => {
    // 63 magazines: no free slot is left, so that the entry says "free, and the last".
    for (const nr of [63, 2]) {
      // look, head, then: table, chunk, entry, link, swap
      for (let n = 2; n < 7; n++) {
        const w = bootDepot("lockfree");
        const all = addEmpty(w, nr);
        const point = w.interrupt(n, () => {
          const top = w.depot.takeEmpty(w.m.ctx, w.cache, NULL);
          expect(top).toBe(all.at(-1));
          w.depot.disown(w.m.ctx, w.cache, top);
        });
        expect(w.depot.takeEmpty(w.m.ctx, w.cache, NULL)).toBe(all.at(-2));
        point.end();
        expect(point.hasFired()).toBe(true);
        expect(contents(w).empty).toEqual(all.slice(0, -2).reverse());
      }
    }
  });
});
