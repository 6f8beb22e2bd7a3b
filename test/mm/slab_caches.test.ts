/**
 * Creating and destroying caches: what is accepted, what a descriptor then says, what is refused and leaves nothing.
 *
 * Goal: S7, M9 and the refusals of kmem_cache_create and kmem_cache_destroy. Method: a machine up to its object
 * allocators; each parameter at its border and just beyond; the log of a cache that is destroyed with objects out.
 */

import { describe, expect, it } from "vitest";
import { KernelBug } from "../../kernel/bug.ts";
import { NULL, type PhysAddr } from "../../kernel/types.ts";
import { EBUSY, EINVAL } from "../../kernel/uapi/errno.ts";
import { __GFP_NOWARN, GFP_KERNEL } from "../../mm/gfp.ts";
import {
  asCache,
  CACHE_COLOUR_MAX,
  CACHE_CPU_PARTIAL,
  CACHE_ID,
  CACHE_OBJECTS,
  type CacheParams,
  type KmemCache,
  MAX_CACHE_NAME,
  NO_CACHE,
} from "../../mm/slab_descriptor.ts";
import { SLAB_HWCACHE_ALIGN, SLAB_PANIC, SLAB_TYPESAFE_BY_RCU } from "../../mm/slab_layout.ts";
import { finish } from "../support/finish.ts";
import { bootObjectLevel, type ObjectLevelMachine } from "../support/object_level.ts";

const MAX_BYTES = 4 * 2 ** 20;
const MAX_ALIGN = 32 * 1024;
const QUIET = GFP_KERNEL | __GFP_NOWARN;

const create = (m: ObjectLevelMachine, params: Partial<CacheParams> = {}): KmemCache =>
  m.slab.kmemCacheCreate(m.ctx, { name: "watched", size: 64, ...params });

/** Names of all caches, newest first. */
function names(m: ObjectLevelMachine): string[] {
  const found: string[] = [];
  m.slab.forEachCache((cache) => found.push(m.slab.slabInfo(cache).name));
  return found;
}

const ctor = (): void => {};

describe("kmem_cache_create", () => {
  it.each<[string, Partial<CacheParams>]>([
    ["the longest name", { name: "n".repeat(MAX_CACHE_NAME) }],
    ["every printable character", { name: "!a~" }],
    ["one byte", { size: 1 }],
    ["the largest object", { size: MAX_BYTES }],
    ["the largest object with a link behind it", { size: MAX_BYTES - 4096, ctor }],
    ["the same for readers under RCU", { size: MAX_BYTES - 4096, flags: SLAB_TYPESAFE_BY_RCU }],
    ["the largest alignment", { align: MAX_ALIGN }],
    ["no alignment", { align: 0 }],
    ["cache lines", { flags: SLAB_HWCACHE_ALIGN | SLAB_PANIC }],
  ])("accepts %s", (_, params) => {
    const m = bootObjectLevel();
    const cache = create(m, params);
    expect(cache).not.toBe(NO_CACHE);
    expect(m.slab.slabInfo(cache)).toMatchObject({ name: params.name ?? "watched", objectSize: params.size ?? 64 });
    expect(m.slab.check()).toBeNull();
    expect(m.slab.kmemCacheDestroy(m.ctx, cache)).toBe(0);
    m.expectNoObjectLeak();
  });

  it.each<[string, Partial<CacheParams>]>([
    ["no name", { name: "" }],
    ["a name of one byte too many", { name: "n".repeat(MAX_CACHE_NAME + 1) }],
    ["a blank at the start", { name: " a" }],
    ["a blank at the end", { name: "a " }],
    ["a blank inside, in a name that is too long", { name: `a ${"n".repeat(MAX_CACHE_NAME)}` }],
    ["no bytes", { size: 0 }],
    ["fewer", { size: -8 }],
    ["half a byte", { size: 8.5 }],
    ["a byte too many", { size: MAX_BYTES + 1 }],
    ["what is no number", { size: Number.NaN }],
    ["an alignment that is none", { align: 24 }],
    ["a fraction of one", { align: 0.5 }],
    ["a negative one", { align: -8 }],
    ["a negative power of two", { align: -(2 ** 31) }],
    ["one too large", { align: 2 * MAX_ALIGN }],
    ["a flag that nobody knows", { flags: 1 << 30 }],
    ["a link that would not fit", { size: MAX_BYTES - 4095, ctor }],
    ["the same for readers under RCU", { size: MAX_BYTES - 4095, flags: SLAB_TYPESAFE_BY_RCU }],
  ])("refuses %s: EINVAL, nothing is made", (_, params) => {
    const m = bootObjectLevel();
    const before = names(m);
    expect(create(m, params)).toBe(NO_CACHE);
    expect(m.log()).toContain(`kmem_cache_create(${params.name ?? "watched"}) failed with error -22`);
    expect(names(m)).toEqual(before);
    m.expectNoObjectLeak();
  });

  it("refuses a name that is taken: EEXIST, and the first one stays as it is", () => {
    const m = bootObjectLevel();
    const first = create(m);
    const before = names(m);
    expect(create(m, { size: 128 })).toBe(NO_CACHE);
    expect(m.log()).toContain("kmem_cache_create(watched) failed with error -17");
    expect(names(m)).toEqual(before);
    expect(m.slab.slabInfo(first).objectSize).toBe(64);
    expect(m.slab.kmemCacheDestroy(m.ctx, first)).toBe(0);
    expect(create(m, { size: 128 })).not.toBe(NO_CACHE);
  });

  it("with SLAB_PANIC a refusal is the end of the machine", () => {
    const refused = (): unknown => create(bootObjectLevel(), { size: 0, flags: SLAB_PANIC });
    expect(refused).toThrow(KernelBug);
    expect(refused).toThrow("a cache that must be created was not");
  });

  it("without memory: ENOMEM, and nothing is kept", () => {
    const m = bootObjectLevel();
    const made: KmemCache[] = [];
    m.failPageAllocation(1, true);
    let cache = create(m, { name: "c0" });
    for (let i = 1; cache !== NO_CACHE; i++) {
      made.push(cache);
      cache = create(m, { name: `c${i}` });
    }
    expect(m.log()).toContain(`kmem_cache_create(c${made.length}) failed with error -12`);
    m.failPageAllocation(0);
    for (const one of made) expect(m.slab.kmemCacheDestroy(m.ctx, one)).toBe(0);
    m.expectNoObjectLeak();
  });

  it("S7 the descriptor says what the layout computed; numbers are given once", () => {
    const m = bootObjectLevel();
    const { port } = m.machine;
    const caches = [24, 700, 3000].map((size) => create(m, { name: `size-${size}`, size }));
    for (const cache of caches) {
      const { size, order, objectsPerSlab, cpuPartial, hasCtor } = m.slab.slabInfo(cache);
      expect(port.ld32(cache + CACHE_OBJECTS)).toBe(objectsPerSlab);
      expect(port.ld32(cache + CACHE_CPU_PARTIAL)).toBe(cpuPartial);
      expect(cpuPartial).toBeGreaterThan(0);
      // M9: slabs of one cache begin at different lines of the cache, as far as there is room.
      expect(port.ld32(cache + CACHE_COLOUR_MAX)).toBe(Math.min(4096 * 2 ** order - objectsPerSlab * size, 4095));
      expect(hasCtor).toBe(false);
    }
    const huge = create(m, { name: "huge", size: 2 ** 20 + 8192 });
    expect(port.ld32(huge + CACHE_COLOUR_MAX)).toBe(4095);
    const ids = new Set<number>();
    m.slab.forEachCache((cache) => ids.add(port.ld32(cache + CACHE_ID)));
    expect(ids.size).toBe(names(m).length);
    // A number is not given again: what was registered for it is gone, and stays gone.
    const last = port.ld32(huge + CACHE_ID);
    expect(m.slab.kmemCacheDestroy(m.ctx, huge)).toBe(0);
    expect(port.ld32(create(m, { name: "next" }) + CACHE_ID)).toBe(last + 1);
    expect(m.slab.check()).toBeNull();
  });

  it("a constructor is called for the cache it was given to, and not for one that comes after it", () => {
    const m = bootObjectLevel();
    let nrBuilt = 0;
    const built = create(m, {
      name: "built",
      ctor: () => {
        nrBuilt++;
      },
    });
    const plain = create(m, { name: "plain" });
    expect(m.slab.slabInfo(built).hasCtor).toBe(true);
    const take = (cache: KmemCache): PhysAddr => finish(m.slab.layer.kmemCacheAllocAny(m.ctx, cache, GFP_KERNEL));
    m.slab.layer.kmemCacheFree(m.ctx, plain, take(plain));
    expect(nrBuilt).toBe(0);
    const obj = take(built);
    expect(nrBuilt).toBe(m.slab.slabInfo(built).objectsPerSlab);
    m.slab.layer.kmemCacheFree(m.ctx, built, obj);
    for (const cache of [built, plain]) expect(m.slab.kmemCacheDestroy(m.ctx, cache)).toBe(0);
    const before = nrBuilt;
    const after = create(m, { name: "after" });
    m.slab.layer.kmemCacheFree(m.ctx, after, take(after));
    expect(nrBuilt).toBe(before);
    expect(m.slab.kmemCacheDestroy(m.ctx, after)).toBe(0);
    m.expectNoObjectLeak();
  });
});

describe("the allocator's own caches", () => {
  it("are there from the start, under their names, and slabs of descriptors use their page to the last line", () => {
    const m = bootObjectLevel();
    const own = names(m).filter((name) => /^(kmem_cache|slab-\d+)$/.test(name));
    expect(own[own.length - 1]).toBe("kmem_cache");
    const sizes = own.slice(0, -1).map((name) => Number(name.slice(5)));
    expect(sizes.length).toBeGreaterThan(2);
    expect([...sizes].sort((a, b) => b - a)).toEqual(sizes);
    m.slab.forEachCache((cache) => {
      const { name, size, objectsPerSlab, order, hasCtor } = m.slab.slabInfo(cache);
      if (!name.startsWith("slab-")) return;
      expect([order, hasCtor, m.machine.port.ld32(cache + CACHE_COLOUR_MAX)]).toEqual([0, false, 0]);
      // One more would not fit beside the descriptor of the slab itself.
      expect((objectsPerSlab + 1) * size).toBeGreaterThan(4096 - 192 - objectsPerSlab - 64);
      expect(objectsPerSlab * size).toBeLessThan(4096);
    });
  });
});

describe("kmem_cache_destroy", () => {
  const live = (m: ObjectLevelMachine, cache: KmemCache, nr: number): PhysAddr[] =>
    Array.from({ length: nr }, () => finish(m.slab.layer.kmemCacheAllocAny(m.ctx, cache, QUIET)));

  it("with objects out: EBUSY, each of them named with its slab, free ones not; afterwards the cache works on", () => {
    const m = bootObjectLevel();
    const cache = create(m, { size: 200 });
    const objects = live(m, cache, 45);
    const kept = [objects[0], objects[7], objects[44]] as PhysAddr[];
    for (const obj of objects) if (!kept.includes(obj)) expect(m.slab.layer.kmemCacheFree(m.ctx, cache, obj)).toBe(0);
    expect(m.slab.kmemCacheDestroy(m.ctx, cache)).toBe(-EBUSY);
    const log = m.log();
    expect(log).toContain("Objects remaining in watched on __kmem_cache_shutdown()");
    const told = [...log.matchAll(/^Object (0x[0-9a-f]+) @offset=(\d+)$/gm)].map(([, at, offset]) => [
      Number(at),
      Number(offset),
    ]);
    expect(told.map(([at]) => at).sort()).toEqual([...kept].sort());
    for (const [at = 0, offset = 0] of told) expect((at - offset) % 4096).toBe(0);
    expect(log.match(/^Slab 0x/gm)?.length).toBeGreaterThan(1);
    const more = live(m, cache, 3);
    for (const obj of [...kept, ...more]) expect(m.slab.layer.kmemCacheFree(m.ctx, cache, obj)).toBe(0);
    expect(m.slab.kmemCacheDestroy(m.ctx, cache)).toBe(0);
    m.expectNoObjectLeak();
  });

  it("full slabs are looked at as well", () => {
    const m = bootObjectLevel();
    const cache = create(m, { size: 1000 });
    const { objectsPerSlab } = m.slab.slabInfo(cache);
    const objects = live(m, cache, objectsPerSlab);
    expect(m.slab.kmemCacheDestroy(m.ctx, cache)).toBe(-EBUSY);
    expect(m.log().match(/^Object 0x/gm)).toHaveLength(objectsPerSlab);
    for (const obj of objects) m.slab.layer.kmemCacheFree(m.ctx, cache, obj);
    expect(m.slab.kmemCacheDestroy(m.ctx, cache)).toBe(0);
    m.expectNoObjectLeak();
  });

  it("what is no cache, or one of the allocator's own, is refused: EINVAL", () => {
    const m = bootObjectLevel();
    const cache = create(m);
    const own: KmemCache[] = [];
    m.slab.forEachCache((known) => {
      if (/^(kmem_cache|slab-|magazine-)/.test(m.slab.slabInfo(known).name)) own.push(known);
    });
    const [obj] = live(m, cache, 1) as [PhysAddr];
    const before = names(m);
    const bad = [...own, asCache(NULL), asCache(obj), asCache(cache + 64), asCache(cache + 4096)];
    expect(own.length).toBeGreaterThan(3);
    bad.forEach((one, i) => {
      expect(m.slab.slabs.destroyCache(m.ctx, one)).toBe(-EINVAL);
      expect(m.log().split("kmem_cache_destroy: not a cache that can be destroyed")).toHaveLength(i + 2);
    });
    expect(names(m)).toEqual(before);
    m.slab.layer.kmemCacheFree(m.ctx, cache, obj);
    expect(m.slab.kmemCacheDestroy(m.ctx, cache)).toBe(0);
    // Destroyed already: its descriptor is a free object now.
    expect(m.slab.slabs.destroyCache(m.ctx, cache)).toBe(-EINVAL);
    m.expectNoObjectLeak();
  });
});
