/**
 * The SlabLayer and ObjectCacheLayer seams: one suite over every implementation, a naive oracle, and mutants.
 *
 * Goal: the layers are interchangeable, and the suite can tell a right one from a wrong one.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { asPhys } from "../../kernel/types.ts";
import { __GFP_NOWARN, GFP_ATOMIC } from "../../mm/gfp.ts";
import type { ObjectCacheKind } from "../../mm/slab_subsystem.ts";
import { type ObjectOp, type ObjectSource, objectSourceViolation } from "../conformance/object_layers.ts";
import { bootObjectLevel } from "../support/object_level.ts";

const SIZE = 192;
const QUIET = GFP_ATOMIC | __GFP_NOWARN;
const ops: fc.Arbitrary<ObjectOp[]> = fc.array(fc.tuple(fc.nat(2), fc.nat(9)), { minLength: 1, maxLength: 150 });

/** Objects through a per-CPU layer. */
function layerSource(kind: ObjectCacheKind): { source: ObjectSource; done: () => void } {
  const m = bootObjectLevel(kind);
  const cache = m.slab.kmemCacheCreate(m.ctx, { name: "conformance", size: SIZE, align: 64, flags: 0 });
  const { port } = m.machine;
  return {
    source: {
      sizeBytes: SIZE,
      align: 64,
      alloc: (cpu) => m.slab.layer.kmemCacheAllocAny(m.contexts.taskContext(cpu), cache, QUIET) as number,
      free: (cpu, addr) => m.slab.layer.kmemCacheFree(m.contexts.taskContext(cpu), cache, asPhys(addr)),
      check: () => m.slab.check(),
      store: (addr, value) => port.st32(addr, value),
      load: (addr) => port.ld32(addr),
    },
    done() {
      expect(m.slab.kmemCacheDestroy(m.ctx, cache)).toBe(0);
      m.expectNoObjectLeak();
    },
  };
}

/** Objects straight from the slabs, below any per-CPU layer. */
function slabSource(): { source: ObjectSource; done: () => void } {
  const m = bootObjectLevel("passthrough");
  const { slabs } = m.slab;
  const cache = slabs.createCache(m.ctx, { name: "conformance", size: SIZE, align: 64, flags: 0 });
  const { port } = m.machine;
  const grow = (cpu: number): boolean => {
    const ctx = m.contexts.taskContext(cpu);
    const order = m.slab.slabInfo(cache).order;
    const pfn = m.pageAlloc.tryAllocPages(ctx, order, QUIET);
    return pfn !== 0 && slabs.growWith(ctx, cache, pfn, QUIET);
  };
  return {
    source: {
      sizeBytes: SIZE,
      align: 64,
      alloc(cpu) {
        const ctx = m.contexts.taskContext(cpu);
        const object = slabs.allocObject(ctx, cache, QUIET);
        return object !== 0 || !grow(cpu) ? object : slabs.allocObject(ctx, cache, QUIET);
      },
      free: (cpu, addr) => slabs.freeObject(m.contexts.taskContext(cpu), cache, asPhys(addr)),
      check: () => slabs.check(cache),
      store: (addr, value) => port.st32(addr, value),
      load: (addr) => port.ld32(addr),
    },
    done() {
      slabs.shrink(m.ctx, cache);
      expect(slabs.destroyCache(m.ctx, cache)).toBe(0);
      m.expectNoObjectLeak();
    },
  };
}

/** The naive oracle: a counter and a set. */
function oracleSource(): { source: ObjectSource; done: () => void } {
  const out = new Set<number>();
  const spare: number[] = [];
  const content = new Map<number, number>();
  let next = 4096;
  const source: ObjectSource = {
    sizeBytes: SIZE,
    align: 64,
    alloc() {
      const addr = spare.pop() ?? next;
      if (addr === next) next += SIZE;
      out.add(addr);
      return addr;
    },
    free(_cpu, addr) {
      if (!out.delete(addr)) return -22;
      spare.push(addr);
      return 0;
    },
    check: () => null,
    store: (addr, value) => void content.set(addr, value),
    load: (addr) => content.get(addr) ?? 0,
  };
  return { source, done: () => {} };
}

const RIGHT = {
  "magazine layer": () => layerSource("magazine"),
  "passthrough layer": () => layerSource("passthrough"),
  "slab layer": slabSource,
  "naive oracle": oracleSource,
} as const;

describe("every implementation conforms", () => {
  for (const [name, make] of Object.entries(RIGHT)) {
    it(`${name}: OBJ-C1 … OBJ-C5`, () => {
      fc.assert(
        fc.property(ops, (steps) => {
          const { source, done } = make();
          expect(objectSourceViolation(source, steps)).toBeNull();
          done();
        }),
        { numRuns: 8 },
      );
    });
  }
});

describe("the suite kills wrong sources", () => {
  const mutants: Readonly<Record<string, (right: ObjectSource) => ObjectSource>> = {
    "one that hands out an object twice": (right) => {
      let last = 0;
      return {
        ...right,
        alloc(cpu) {
          last = last !== 0 && cpu === 1 ? last : right.alloc(cpu);
          return last;
        },
      };
    },
    "one that accepts every free": (right) => ({ ...right, free: (cpu, addr) => right.free(cpu, addr) * 0 }),
    "one that writes into live objects": (right) => ({
      ...right,
      alloc(cpu) {
        const addr = right.alloc(cpu);
        if (addr >= 4096 + SIZE) right.store(addr - SIZE, 0xdead);
        return addr;
      },
    }),
    "one that loses what is freed on CPU 0": (right) => {
      const lost = new Set<number>();
      let nrOut = 0;
      return {
        ...right,
        alloc: (cpu) => (lost.size > 0 && nrOut > 60 ? 0 : right.alloc(cpu + 0 * nrOut++)),
        free(cpu, addr) {
          if (lost.has(addr)) return -22;
          if (cpu !== 0) return right.free(cpu, addr);
          lost.add(addr);
          return 0;
        },
      };
    },
    "one that ignores the alignment": (right) => ({ ...right, alloc: (cpu) => right.alloc(cpu) + 8 }),
  };
  for (const [name, mutate] of Object.entries(mutants)) {
    it(name, () => {
      const found = fc
        .sample(ops, { numRuns: 200, seed: 11 })
        .some((steps) => objectSourceViolation(mutate(oracleSource().source), steps) !== null);
      expect(found).toBe(true);
    });
  }
});
