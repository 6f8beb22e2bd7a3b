/**
 * The two depots: the same stock of magazines, one behind a lock, one by compare-and-swap.
 *
 * Goal: DEP-1 … DEP-5, and that the lock-free one survives whatever other CPUs do between any two of its port
 * operations. Method: a model of two stacks; every short program of another CPU inserted before every port operation of
 * a pop, a push and an exchange, exhaustively; the ABA case by hand, once with the tag and once with a tag that came
 * round.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { NULL, type PhysAddr } from "../../kernel/types.ts";
import { DEPOT_FULL, EMPTY, FULL } from "../../mm/depot.ts";
import { MAX_SLOTS } from "../../mm/depot_lockfree.ts";
import { GFP_NOWAIT } from "../../mm/gfp.ts";
import { bootDepot, contents, type DepotWorld } from "../support/depot_world.ts";

/** 0-1 add an empty magazine, 2-7 exchange, 8-9 end an interval. */
const step = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 0, max: 1 }) },
  { weight: 5, arbitrary: fc.integer({ min: 2, max: 7 }) },
  { weight: 2, arbitrary: fc.integer({ min: 8, max: 9 }) },
);

for (const kind of ["locked", "lockfree"] as const) {
  describe(`the ${kind} depot`, () => {
    it("DEP-2 DEP-3 M7 two stacks, their lengths and their least lengths, against a model", () => {
      fc.assert(
        fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
          const w = bootDepot(kind);
          const { depot, cache } = w;
          const { ctx } = w.m;
          const model = {
            full: [] as PhysAddr[],
            empty: [] as PhysAddr[],
            least: { full: 0, empty: 0 },
            limit: { full: 0, empty: 0 },
          };
          const held: PhysAddr[] = [];
          const pop = (list: "full" | "empty"): PhysAddr => {
            const taken = model[list].pop() ?? NULL;
            model.least[list] = Math.min(model.least[list], model[list].length);
            return taken;
          };
          for (const step of steps) {
            if (step < 2) {
              const magazine = w.magazine();
              depot.addEmpty(ctx, cache, magazine);
              model.empty.push(magazine);
            } else if (step < 8) {
              const isFull = step % 2 === 0;
              const other = step < 5 ? NULL : (held.pop() ?? NULL);
              const expected = pop(isFull ? "full" : "empty");
              const got = isFull ? depot.takeFull(ctx, cache, other) : depot.takeEmpty(ctx, cache, other);
              expect(got).toBe(expected);
              if (got !== NULL && other !== NULL) model[isFull ? "empty" : "full"].push(other);
              if (got !== NULL) held.push(got);
              else if (other !== NULL) held.push(other);
            } else {
              const everything = step === 9;
              depot.updateWorkingSet(cache, everything);
              for (const list of ["full", "empty"] as const) {
                model.limit[list] = everything ? model[list].length : model.least[list];
                model.least[list] = model[list].length;
              }
            }
            expect(contents(w)).toEqual({ full: [...model.full].reverse(), empty: [...model.empty].reverse() });
            expect(depot.nrReapable(cache, FULL)).toBe(Math.min(model.limit.full, model.least.full));
            expect(depot.nrReapable(cache, EMPTY)).toBe(Math.min(model.limit.empty, model.least.empty));
          }
        }),
        { numRuns: 12 },
      );
    });
  });
}

describe("DEP-5 the lock-free depot with another CPU in between", () => {
  type Op = (w: DepotWorld, held: PhysAddr[]) => void;
  const keep = (held: PhysAddr[], magazine: PhysAddr): void => {
    if (magazine !== NULL) held.push(magazine);
  };
  /** What a CPU may do; `held` are its magazines. */
  const OPS: Readonly<Record<string, Op>> = {
    "pop full": (w, held) => keep(held, w.depot.takeFull(w.m.ctx, w.cache, NULL)),
    "pop empty": (w, held) => keep(held, w.depot.takeEmpty(w.m.ctx, w.cache, NULL)),
    "swap for full": (w, held) => {
      const mine = held.shift() ?? NULL;
      const got = w.depot.takeFull(w.m.ctx, w.cache, mine);
      keep(held, got === NULL ? mine : got);
    },
    "swap for empty": (w, held) => {
      const mine = held.shift() ?? NULL;
      const got = w.depot.takeEmpty(w.m.ctx, w.cache, mine);
      keep(held, got === NULL ? mine : got);
    },
  };
  const names = Object.keys(OPS);
  const programs: string[][] = names.flatMap((a) => [
    [a],
    ...names.flatMap((b) => [[a, b], ...names.map((c) => [a, b, c])]),
  ]);

  it("every program of up to three steps before every port operation: no magazine lost or in two places", () => {
    const w = bootDepot("lockfree");
    const all = Array.from({ length: 6 }, () => w.magazine());
    /** Two full ones, two empty ones in the depot, one with each CPU. */
    const setUp = (): [PhysAddr[], PhysAddr[]] => {
      while (w.depot.takeFull(w.m.ctx, w.cache, NULL) !== NULL);
      while (w.depot.takeEmpty(w.m.ctx, w.cache, NULL) !== NULL);
      for (const magazine of all.slice(0, 4)) w.depot.addEmpty(w.m.ctx, w.cache, magazine);
      const spare = w.depot.takeEmpty(w.m.ctx, w.cache, all[4] as PhysAddr);
      const second = w.depot.takeEmpty(w.m.ctx, w.cache, spare);
      w.depot.addEmpty(w.m.ctx, w.cache, second);
      return [[all[5] as PhysAddr], []];
    };
    let nrPoints = 0;
    for (const name of names) {
      for (const program of programs) {
        for (let n = 0; ; n++) {
          const [mine, theirs] = setUp();
          const point = w.interrupt(n, () => {
            for (const step of program) (OPS[step] as Op)(w, theirs);
          });
          (OPS[name] as Op)(w, mine);
          point.end();
          if (!point.hasFired()) break;
          nrPoints++;
          const { full, empty } = contents(w);
          const seen = [...full, ...empty, ...mine, ...theirs].sort((a, b) => a - b);
          expect(seen).toEqual([...all].sort((a, b) => a - b));
        }
      }
    }
    expect(nrPoints).toBeGreaterThan(3000);
  });

  /** CPU 0 pops; before its swap CPU 1 pops A, pops B and pushes A back. `spoil` may turn the tag back. */
  const aba = (spoil: (w: DepotWorld, headBefore: number) => void): { w: DepotWorld; places: PhysAddr[] } => {
    const w = bootDepot("lockfree");
    const { depot, cache, m } = w;
    const [a, b, c] = [w.magazine(), w.magazine(), w.magazine()];
    for (const magazine of [c, b, a]) depot.addEmpty(m.ctx, cache, magazine);
    const head = (): number => m.machine.port.ld32(cache + DEPOT_FULL + 16);
    const before = head();
    const others: PhysAddr[] = [];
    // look, head, table, chunk, entry, link, swap
    const point = w.interrupt(6, () => {
      expect(depot.takeEmpty(m.ctx, cache, NULL)).toBe(a);
      others.push(depot.takeEmpty(m.ctx, cache, NULL));
      depot.addEmpty(m.ctx, cache, a);
      spoil(w, before);
    });
    const mine = [depot.takeEmpty(m.ctx, cache, NULL)];
    point.end();
    expect(point.hasFired()).toBe(true);
    const next = depot.takeEmpty(m.ctx, cache, NULL);
    return { w, places: [...mine, ...others, next] };
  };

  it("ABA: the tag makes the swap fail, and it is counted as contention", () => {
    const { w, places } = aba((during, before) => {
      expect(during.m.machine.port.ld32(during.cache + DEPOT_FULL + 16) % 1024).toBe(before % 1024);
      expect(during.depot.contention(during.cache)).toBe(0);
    });
    expect(new Set(places).size).toBe(3);
    expect(w.depot.contention(w.cache)).toBe(1);
  });

  it("ABA: with a tag that has come round the same program hands one magazine out twice (the test can fail)", () => {
    const { places } = aba((w, before) => w.m.machine.port.st32(w.cache + DEPOT_FULL + 16, before));
    expect(new Set(places).size).toBe(2);
  });
});

describe("DEP-4 slots of the lock-free depot", () => {
  it("end at 1023 magazines, are used again, and their tables go back", () => {
    const w = bootDepot("lockfree");
    const { depot, cache, m } = w;
    const all = Array.from({ length: MAX_SLOTS }, () => w.magazine());
    expect(depot.hasRoom(m.ctx, cache)).toBe(false);
    for (const magazine of all.slice(0, 100)) depot.disown(m.ctx, cache, magazine);
    for (const magazine of all.slice(0, 100)) expect(depot.adopt(m.ctx, cache, magazine)).toBe(true);
    expect(depot.adopt(m.ctx, cache, all[0] as PhysAddr)).toBe(false);
    for (const magazine of all) depot.addEmpty(m.ctx, cache, magazine);
    expect(contents(w).empty).toHaveLength(MAX_SLOTS);
    const tables = (): number => {
      let nr = 0;
      m.slab.forEachCache((known) => {
        const info = m.slab.slabInfo(known);
        if (info.name === "depot-slots") nr = info.activeObjects;
      });
      return nr;
    };
    expect(tables()).toBe(17);
    while (depot.takeEmpty(m.ctx, cache, NULL) !== NULL);
    for (const magazine of all.slice(1)) depot.disown(m.ctx, cache, magazine);
    depot.release(m.ctx, cache);
    expect(tables()).toBe(17);
    depot.disown(m.ctx, cache, all[0] as PhysAddr);
    depot.release(m.ctx, cache);
    expect(tables()).toBe(0);
  });

  it("every N-th page allocation failing: no room, and nothing is lost", () => {
    for (let n = 1; n <= 4; n++) {
      const w = bootDepot("lockfree");
      w.m.slab.shrinkAll(w.m.ctx);
      w.m.failPageAllocation(n, true);
      let nrAdopted = 0;
      while (nrAdopted < MAX_SLOTS && w.depot.hasRoom(w.m.ctx, w.cache)) {
        const magazine = w.m.slab.slabs.allocObject(w.m.ctx, w.depot.magazines(w.cache), GFP_NOWAIT);
        if (magazine === NULL) break;
        expect(w.depot.adopt(w.m.ctx, w.cache, magazine)).toBe(true);
        w.depot.disown(w.m.ctx, w.cache, magazine);
        nrAdopted++;
      }
      w.depot.release(w.m.ctx, w.cache);
      w.m.failPageAllocation(0);
      expect(w.m.slab.slabs.check(w.cache)).toBeNull();
    }
  });
});
