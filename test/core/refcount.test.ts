/**
 * Goal: REF-1 … REF-4. Method: each text of a misuse once; then random operations against a model in plain numbers.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { REFCOUNT_SATURATED } from "../../kernel/refcount.ts";
import { bootTaskWorld, type TaskWorld } from "../support/task_world.ts";

const bench = (value: number) => {
  const w = bootTaskWorld({ nrCpus: 1 });
  const count = w.memory(8);
  w.refcounts.set(count, value);
  return { w, count, r: w.refcounts };
};

const warnings = (w: TaskWorld): string[] => w.log().match(/refcount_t: [^\n]*/g) ?? [];

describe("refcounts", () => {
  it("REF-3 the last user is told once", () => {
    const { w, count, r } = bench(1);
    r.inc(w.ctx, count);
    r.add(w.ctx, count, 3);
    expect(r.subAndTest(w.ctx, count, 3)).toBe(false);
    expect(r.decAndTest(w.ctx, count)).toBe(false);
    expect(r.decNotOne(w.ctx, count)).toBe(false);
    expect(r.decAndTest(w.ctx, count)).toBe(true);
    expect([r.read(count), r.nrMisuses()]).toEqual([0, 0]);
    expect(r.incNotZero(w.ctx, count)).toBe(false);
    expect(r.read(count)).toBe(0);
    expect(warnings(w)).toEqual([]);
  });

  it.each([
    ["refcount_t: addition on 0; use-after-free.", 0, "inc"],
    ["refcount_t: saturated; leaking memory.", 0x7fff_ffff, "inc"],
    ["refcount_t: saturated; leaking memory.", 0x7fff_ffff, "incNotZero"],
    ["refcount_t: underflow; use-after-free.", 0, "decAndTest"],
    ["refcount_t: underflow; use-after-free.", 0, "decNotOne"],
    ["refcount_t: decrement hit 0; leaking memory.", 1, "dec"],
  ] as const)("REF-1 REF-2 %s", (text, start, operation) => {
    const { w, count, r } = bench(start);
    r[operation](w.ctx, count);
    expect(warnings(w)).toEqual([text]);
    expect(w.log()).toContain("WARNING: CPU: 0 PID: 0 at kernel/refcount.ts:misuse");
    expect(r.read(count)).toBe(REFCOUNT_SATURATED);
  });

  it("REF-2 saturated, a count stays so whatever is done: the object is never freed", () => {
    const { w, count, r } = bench(0x7fff_ffff);
    r.inc(w.ctx, count);
    for (let i = 0; i < 100; i++) {
      expect(r.decAndTest(w.ctx, count)).toBe(false);
      r.inc(w.ctx, count);
      expect(r.incNotZero(w.ctx, count)).toBe(true);
      r.dec(w.ctx, count);
      expect(r.decNotOne(w.ctx, count)).toBe(true);
      expect(r.read(count)).toBe(REFCOUNT_SATURATED);
    }
  });

  it("REF-4 each kind is printed once and counted always", () => {
    const { w, count, r } = bench(0);
    for (let i = 0; i < 3; i++) {
      r.set(count, 0);
      r.inc(w.ctx, count);
    }
    expect(warnings(w)).toHaveLength(1);
    expect([r.nrMisuses(), w.contexts.nrWarnings()]).toEqual([3, 1]);
  });

  it("REF-1 REF-2 REF-3 random operations agree with a model", () => {
    const operation = fc.constantFrom("inc", "incNotZero", "decAndTest", "dec", "decNotOne", "add", "sub");
    const start = fc.oneof(fc.integer({ min: 0, max: 4 }), fc.integer({ min: 0x7fff_fff8, max: 0x7fff_ffff }));
    const amount = fc.integer({ min: 1, max: 6 });
    const { w, count, r } = bench(0);
    fc.assert(
      fc.property(start, fc.array(fc.tuple(operation, amount), { maxLength: 30 }), (from, ops) => {
        let model = from;
        r.set(count, from);
        const isWrong = (): boolean => model === REFCOUNT_SATURATED;
        const change = (by: number, needsUser: boolean): boolean => {
          if (isWrong()) return false;
          const next = model + by;
          const isMisuse = next < 0 || next > 0x7fff_ffff || (needsUser && model === 0);
          model = isMisuse ? REFCOUNT_SATURATED : next;
          return model === 0;
        };
        for (const [kind, nr] of ops) {
          if (kind === "inc") {
            r.inc(w.ctx, count);
            change(1, true);
          } else if (kind === "add") {
            r.add(w.ctx, count, nr);
            change(nr, true);
          } else if (kind === "incNotZero") {
            const wasUsed = model !== 0;
            expect(r.incNotZero(w.ctx, count)).toBe(wasUsed);
            if (wasUsed) change(1, true);
          } else if (kind === "decAndTest") expect(r.decAndTest(w.ctx, count)).toBe(change(-1, true));
          else if (kind === "sub") expect(r.subAndTest(w.ctx, count, nr)).toBe(change(-nr, true));
          else if (kind === "dec") {
            r.dec(w.ctx, count);
            if (change(-1, true)) model = REFCOUNT_SATURATED;
          } else {
            const wasOne = model === 1;
            expect(r.decNotOne(w.ctx, count)).toBe(!wasOne);
            if (!wasOne) change(-1, true);
          }
          expect(r.read(count)).toBe(model);
        }
      }),
      { numRuns: 400 },
    );
  });
});
