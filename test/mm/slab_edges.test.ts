/**
 * Slabs at their edges: broken free lists, frees that are none, what is counted, charged and kept.
 *
 * Goal: SLAB-1 … SLAB-10, S5, S9's words, M9, M11 with exact numbers. Method: the slab layer by itself; links of free
 * objects overwritten in every way; each report read.
 */

import { describe, expect, it } from "vitest";
import { CYC_SLAB_OBJECT, CYC_SLAB_SETUP_OBJECT } from "../../kernel/arch/charges.ts";
import type { PhysAddr } from "../../kernel/types.ts";
import { EINVAL } from "../../kernel/uapi/errno.ts";
import {
  __GFP_COMP,
  __GFP_DMA,
  __GFP_DMA32,
  __GFP_HIGHMEM,
  __GFP_MOVABLE,
  __GFP_NOWARN,
  __GFP_RECLAIMABLE,
  __GFP_ZERO,
  GFP_ATOMIC,
} from "../../mm/gfp.ts";
import { slabPageGfp } from "../../mm/slab.ts";
import {
  CACHE_ALIGN,
  CACHE_COLOUR_MAX,
  CACHE_CTOR_CALLS,
  CACHE_FREE_POINTER,
  CACHE_MIN_PARTIAL,
  CACHE_NR_INUSE,
  type KmemCache,
  NO_CACHE,
  SLAB_BASE,
  SLAB_INUSE,
} from "../../mm/slab_descriptor.ts";
import { SLAB_CACHE_DMA, SLAB_RECLAIM_ACCOUNT } from "../../mm/slab_layout.ts";
import { hexAddr } from "../../mm/slab_report.ts";
import { NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE } from "../../mm/vmstat.ts";
import { bootObjectLevel, type ObjectLevelMachine } from "../support/object_level.ts";

const QUIET = GFP_ATOMIC | __GFP_NOWARN;

interface World {
  readonly m: ObjectLevelMachine;
  readonly cache: KmemCache;
  readonly perSlab: number;
  take(): PhysAddr;
  give(object: number): number;
}

function world(
  size: number,
  more: { readonly flags?: number; readonly ctor?: (object: PhysAddr) => void } = {},
): World {
  const m = bootObjectLevel("passthrough");
  const { flags = 0, ctor } = more;
  const cache = m.slab.kmemCacheCreate(m.ctx, { name: "edges", size, align: 8, flags, ...(ctor && { ctor }) });
  const { slabs } = m.slab;
  return {
    m,
    cache,
    perSlab: m.slab.slabInfo(cache).objectsPerSlab,
    take: () => slabs.allocObject(m.ctx, cache, QUIET),
    give: (object) => slabs.freeObject(m.ctx, cache, object as PhysAddr),
  };
}

describe("S9 a free list that somebody has written into", () => {
  const ways: Readonly<Record<string, (w: World, objects: readonly number[], victim: number) => number>> = {
    "leads out of every slab": () => 0x10_0000 / 8,
    "leads to an object that is out": (_w, [live]) => (live as number) / 8,
    "leads into an object": (_w, _objects, victim) => (victim + 8) / 8,
    "ends too early": () => 0,
    "leads behind the last object": (w, objects) => (Math.max(...objects) + w.m.slab.slabInfo(w.cache).size) / 8,
    "leads to a free object of another cache": ({ m }) => {
      const other = m.slab.kmemCacheCreate(m.ctx, { name: "other", size: 128, align: 8, flags: 0 });
      const [first, second] = [0, 0].map(() => m.slab.slabs.allocObject(m.ctx, other, QUIET));
      m.slab.slabs.freeObject(m.ctx, other, second as PhysAddr);
      expect(first).not.toBe(second);
      return (second as number) / 8;
    },
  };
  for (const [name, wordOf] of Object.entries(ways)) {
    it(`${name}: told once, rebuilt, and every object is handed out once`, () => {
      const w = world(128);
      const { m, cache, perSlab } = w;
      const objects = Array.from({ length: perSlab }, () => w.take() as number);
      const freed = objects.slice(-4);
      const live = objects.slice(0, -4);
      for (const object of freed) expect(w.give(object)).toBe(0);
      const victim = freed[3] as number;
      m.machine.port.st32(victim + m.machine.port.ld32(cache + CACHE_FREE_POINTER), wordOf(w, objects, victim));
      const again = freed.map(() => w.take() as number);
      expect(new Set(again)).toEqual(new Set(freed));
      expect(m.log().split("Freechain corrupt").length - 1).toBe(1);
      expect(m.log()).toContain("Free list rebuilt from the object states");
      expect(m.slab.check()).toBeNull();
      for (const object of [...live, ...again]) expect(w.give(object)).toBe(0);
    });
  }

  it("does not end where it must: told, and the last object is handed out all the same", () => {
    const w = world(128);
    const objects = Array.from({ length: w.perSlab }, () => w.take() as number);
    const last = objects[5] as number;
    w.give(last);
    const { port } = w.m.machine;
    port.st32(last + port.ld32(w.cache + CACHE_FREE_POINTER), (objects[6] as number) / 8);
    expect(w.take()).toBe(last);
    expect(w.m.log()).toContain("Freechain corrupt");
    expect(w.m.slab.check()).toBeNull();
  });

  it("a sound one is not told of, down to the last object of a slab and back", () => {
    const w = world(128);
    for (let round = 0; round < 3; round++) {
      const objects = Array.from({ length: 2 * w.perSlab }, () => w.take());
      for (const object of objects) expect(w.give(object)).toBe(0);
    }
    expect(w.m.log()).not.toContain("BUG");
  });

  it("SLAB-3 a slab that says it has room and has none, one that is empty and gets an object: bugs", () => {
    const full = world(128);
    const [object] = Array.from({ length: full.perSlab }, () => full.take());
    const { port } = full.m.machine;
    const slab = full.m.slab.objects.slabOf(object as PhysAddr);
    port.st32(slab + SLAB_INUSE, full.perSlab - 1);
    expect(() => full.m.slab.objects.pop(full.m.ctx, full.cache, slab)).toThrow(
      "SLAB-3: a slab with room has no free object",
    );
    port.st32(slab + SLAB_INUSE, 0);
    expect(() => full.m.slab.objects.push(full.cache, slab, object as PhysAddr)).toThrow(
      "SLAB-3: an object comes back to an empty slab",
    );
  });
});

describe("S9 frees that are none", () => {
  it("each is told in its own words, refused, and changes nothing", () => {
    const w = world(128);
    const { m } = w;
    const objects = Array.from({ length: 6 }, () => w.take() as number);
    const other = m.slab.kmemCacheCreate(m.ctx, { name: "another", size: 64, align: 8, flags: 0 });
    const foreign = m.slab.slabs.allocObject(m.ctx, other, QUIET);
    const [a, b] = objects as [number, number];
    w.give(b);
    const slab = m.slab.objects.slabOf(a);
    const base = m.machine.port.ld32(slab + SLAB_BASE);
    const behind = base + w.perSlab * m.slab.slabInfo(w.cache).size;
    const inUse = m.machine.port.ld32(w.cache + CACHE_NR_INUSE);
    const refused = (bad: number, words: string): void => {
      expect(w.give(bad)).toBe(-EINVAL);
      expect(m.log()).toContain(words);
      expect(m.machine.port.ld32(w.cache + CACHE_NR_INUSE)).toBe(inUse);
      expect(m.slab.check()).toBeNull();
    };
    refused(b, "Object already free");
    expect(m.log()).toContain(`Object at ${hexAddr(b)} not freed`);
    refused(a + 8, `Invalid object pointer ${hexAddr(a + 8)}`);
    if (m.slab.objects.slabOf(behind) === slab) refused(behind, `Invalid object pointer ${hexAddr(behind)}`);
    refused(foreign, "cache_from_obj: Wrong slab cache. edges but object is from another");
    refused(0x10_0000, `Attempt to free object(${hexAddr(0x10_0000)}) outside of slab`);
    refused(2 ** 40, "outside of slab");
    expect(m.slab.objects.slabOf(m.pages.nrFrames * 4096)).toBe(0);
    expect(m.slab.objects.slabOf(a + 0.5)).toBe(0);
    expect(m.slab.slabs.cacheOf(0x10_0000 as PhysAddr)).toBe(NO_CACHE);
    expect(m.slab.slabs.cacheOf(a as PhysAddr)).toBe(w.cache);
  });

  it("a struct slab is nobody's to free", () => {
    const w = world(1024);
    const slab = w.m.slab.objects.slabOf(w.take());
    const owner = w.m.slab.slabs.cacheOf(slab as never);
    expect(owner).not.toBe(NO_CACHE);
    expect(w.m.slab.kmalloc.kfree(w.m.ctx, slab as never)).toBe(-EINVAL);
    expect(w.m.log()).toContain(`Invalid object pointer ${hexAddr(slab)}`);
  });

  it("MAG-2 a round that is no object, or not CACHED, is a bug", () => {
    const w = world(128);
    const flush = (object: number) => () => w.m.slab.slabs.flushObject(w.m.ctx, object as PhysAddr);
    const object = w.take();
    expect(flush(0x10_0000)).toThrow("MAG-2: a round is no object");
    expect(flush(object)).toThrow("MAG-2: a round is not in state CACHED");
    expect(flush(object + 8)).toThrow("MAG-2: a round is not in state CACHED");
  });
});

describe("what a slab is made of", () => {
  it("pages come from where the cache says, as hard as the caller says", () => {
    const { port } = world(64).m.machine;
    for (const [flags, extra] of [
      [0, 0],
      [SLAB_CACHE_DMA, __GFP_DMA],
      [SLAB_RECLAIM_ACCOUNT, __GFP_RECLAIMABLE],
      [SLAB_CACHE_DMA | SLAB_RECLAIM_ACCOUNT, __GFP_DMA | __GFP_RECLAIMABLE],
    ] as const) {
      const w = world(64, { flags });
      const place = __GFP_DMA | __GFP_HIGHMEM | __GFP_DMA32 | __GFP_MOVABLE | __GFP_RECLAIMABLE;
      const mask = slabPageGfp(w.m.machine.port, w.cache, QUIET | place | __GFP_ZERO | __GFP_COMP);
      expect(mask).toBe(QUIET | extra);
    }
    expect(port.sizeBytes).toBeGreaterThan(0);
  });

  it("is counted as reclaimable or not, in pages, and given back whole by shrink", () => {
    for (const [flags, item, otherItem] of [
      [0, NR_SLAB_UNRECLAIMABLE, NR_SLAB_RECLAIMABLE],
      [SLAB_RECLAIM_ACCOUNT, NR_SLAB_RECLAIMABLE, NR_SLAB_UNRECLAIMABLE],
    ] as const) {
      const w = world(700, { flags });
      const { vmstat } = w.m;
      // struct slab is from an internal cache, which has a slab of its own by now.
      const first = w.take();
      const before = [vmstat.item(item), vmstat.item(otherItem)] as const;
      const nrPages = 2 ** w.m.slab.slabInfo(w.cache).order;
      const objects = Array.from({ length: 2 * w.perSlab }, () => w.take());
      expect(vmstat.item(item)).toBe(before[0] + 2 * nrPages);
      expect(vmstat.item(otherItem)).toBe(before[1]);
      for (const object of [first, ...objects]) w.give(object);
      expect(w.m.slab.slabs.shrink(w.m.ctx, w.cache)).toBe(3 * nrPages);
      expect(w.m.slab.slabs.shrink(w.m.ctx, w.cache)).toBe(0);
      expect(vmstat.item(item)).toBe(before[0] - nrPages);
    }
  });

  it("SLAB-7 the constructor is called with each object of a new slab, once, and with nothing else", () => {
    const built: number[] = [];
    const w = world(200, { ctor: (object) => void built.push(object) });
    const objects = Array.from({ length: 2 * w.perSlab }, () => w.take() as number);
    expect([...built].sort((a, b) => a - b)).toEqual([...objects].sort((a, b) => a - b));
    expect(w.m.machine.port.ldF64(w.cache + CACHE_CTOR_CALLS)).toBe(built.length);
  });

  it("costs its objects, once; taking and giving cost the same each time", () => {
    const w = world(128);
    const { clock } = w.m.machine.harts;
    const costOf = (work: () => unknown): number => {
      const before = clock[0] as number;
      work();
      return (clock[0] as number) - before;
    };
    const first = costOf(() => w.take());
    expect(first).toBeGreaterThanOrEqual(CYC_SLAB_OBJECT + CYC_SLAB_SETUP_OBJECT * w.perSlab);
    let object = 0 as PhysAddr;
    expect(
      costOf(() => {
        object = w.take();
      }),
    ).toBe(CYC_SLAB_OBJECT);
    expect(costOf(() => w.give(object))).toBe(CYC_SLAB_OBJECT);
    const rest = Array.from({ length: w.perSlab - 1 }, () => w.take());
    expect(rest).not.toContain(0);
    const grown = costOf(() => w.take());
    expect(grown).toBeGreaterThanOrEqual(CYC_SLAB_OBJECT + CYC_SLAB_SETUP_OBJECT * w.perSlab);
    expect(grown).toBeLessThan(first + CYC_SLAB_SETUP_OBJECT * w.perSlab);
  });

  it("M9 each slab starts one colour further in, as far as there is room, and then at the front again", () => {
    const w = world(1200);
    const { port } = w.m.machine;
    const [step, most] = [port.ld32(w.cache + CACHE_ALIGN), port.ld32(w.cache + CACHE_COLOUR_MAX)];
    expect(most).toBeGreaterThanOrEqual(2 * step);
    const nrColours = Math.floor(most / step) + 1;
    const colours: number[] = [];
    for (let i = 0; i < nrColours + 2; i++) {
      const [object] = Array.from({ length: w.perSlab }, () => w.take());
      const slab = w.m.slab.objects.slabOf(object as PhysAddr);
      colours.push(port.ld32(slab + SLAB_BASE) % 4096);
    }
    expect(colours).toEqual(Array.from({ length: nrColours + 2 }, (_, i) => (i % nrColours) * step));
  });
});

describe("which slab", () => {
  it("S5 an empty slab stays while fewer than min_partial have room, and goes when there are as many", () => {
    const w = world(1024);
    const { port } = w.m.machine;
    const minPartial = port.ld32(w.cache + CACHE_MIN_PARTIAL);
    const groups = Array.from({ length: minPartial + 2 }, () => Array.from({ length: w.perSlab }, () => w.take()));
    const info = () => w.m.slab.slabInfo(w.cache);
    // One object of each slab: all have room now.
    groups.forEach(([first], i) => {
      w.give(first as PhysAddr);
      expect(info().nrPartial).toBe(i + 1);
    });
    expect(info().nrSlabs).toBe(minPartial + 2);
    for (const [, ...rest] of groups) for (const object of rest) w.give(object);
    // Those above the limit went when they became empty.
    expect(info().nrSlabs).toBe(minPartial - 1);
    expect(w.m.slab.check()).toBeNull();
  });

  it("M11 an object comes from the fullest slab that has room", () => {
    const w = world(256);
    const groups = Array.from({ length: 3 }, () => Array.from({ length: w.perSlab }, () => w.take()));
    const [full, half, empty] = groups as [PhysAddr[], PhysAddr[], PhysAddr[]];
    for (const object of empty.slice(1)) w.give(object);
    for (const object of half.slice(w.perSlab / 2)) w.give(object);
    w.give(full[3] as PhysAddr);
    const slabOf = w.m.slab.objects.slabOf;
    const slabs = Array.from({ length: 1 + w.perSlab / 2 + 1 }, () => slabOf(w.take()));
    expect(slabs[0]).toBe(slabOf(full[0] as PhysAddr));
    expect(new Set(slabs.slice(1, -1))).toEqual(new Set([slabOf(half[0] as PhysAddr)]));
    expect(slabs.at(-1)).toBe(slabOf(empty[0] as PhysAddr));
  });
});
