/**
 * Goal: memory that was asked for zeroed is zero, and memory that must keep its content keeps it, whatever was there
 * before: KMA-6, OBJ-3, SLAB-7, S7.
 * Method: the cases of Linux's lib/test_meminit.c under their names, written for our interface: an allocation is filled
 * with garbage and freed, then allocated again. Ours zeroes on request (__GFP_ZERO); the cases of plain caches are of a
 * machine with init_on_alloc=1.
 */

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { asVirt, NO_PFN, NULL, type PhysAddr, pfnToPhys } from "../../kernel/types.ts";
import { __GFP_ZERO, GFP_KERNEL } from "../../mm/gfp.ts";
import { type KmemCache, NO_CACHE } from "../../mm/slab_descriptor.ts";
import { SLAB_TYPESAFE_BY_RCU } from "../../mm/slab_layout.ts";
import { finish } from "../support/finish.ts";
import { bootTaskWorld, type TaskWorld } from "../support/task_world.ts";
import { bootVmalloc } from "../support/vmalloc_world.ts";

const GARBAGE = 0x9e;
const CTOR_WORD = 0xc0c0_c0c0;
/** The order of our largest block, plus one. */
const NR_ORDERS = 11;
const CACHE_SIZES = Array.from({ length: 10 }, (_, i) => 8 << i);
const BLOCK_SIZES = Array.from({ length: 20 }, (_, i) => 1 << i);

let w: TaskWorld;
beforeEach(() => {
  w = bootTaskWorld({ ramBytes: 32 * 2 ** 20 });
});
afterEach(() => {
  expect(w.slab.check()).toBeNull();
  expect(w.pageAlloc.check()).toBeNull();
});

const fill = (addr: PhysAddr, bytes: number): void => w.machine.port.fill(addr, GARBAGE, bytes);
const nrNonZero = (addr: PhysAddr, bytes: number): number =>
  w.machine.port.readBytes(addr, bytes).filter((byte) => byte !== 0).length;

describe("test_pages", () => {
  it.each(Array.from({ length: NR_ORDERS }, (_, order) => order))("do_alloc_pages_order %i", (order) => {
    const bytes = 4096 << order;
    const first = w.pageAlloc.tryAllocPages(w.ctx, order, GFP_KERNEL);
    expect(first).not.toBe(NO_PFN);
    fill(pfnToPhys(first), bytes);
    expect(w.pageAlloc.freePages(w.ctx, first, order)).toBe(0);
    const again = w.pageAlloc.tryAllocPages(w.ctx, order, GFP_KERNEL | __GFP_ZERO);
    expect(again).not.toBe(NO_PFN);
    expect(nrNonZero(pfnToPhys(again), bytes)).toBe(0);
    expect(w.pageAlloc.freePages(w.ctx, again, order)).toBe(0);
  });
});

describe("test_kvmalloc", () => {
  it.each(BLOCK_SIZES)("do_kmalloc_size %i", (size) => {
    const { kmallocAny, kfree, ksize } = w.slab.kmalloc;
    const first = finish(kmallocAny(w.ctx, size, GFP_KERNEL));
    expect(first).not.toBe(NULL);
    fill(first, ksize(w.ctx, first));
    expect(kfree(w.ctx, first)).toBe(0);
    const again = finish(kmallocAny(w.ctx, size, GFP_KERNEL | __GFP_ZERO));
    expect(again).not.toBe(NULL);
    expect(nrNonZero(again, ksize(w.ctx, again))).toBe(0);
    expect(kfree(w.ctx, again)).toBe(0);
  });

  it.each(BLOCK_SIZES)("do_vmalloc_size %i", (size) => {
    const { vm, virtual, ctx, expectAllBack } = bootVmalloc();
    const first = vm.vmalloc(ctx, size, GFP_KERNEL, "meminit");
    expect(first).not.toBe(0);
    virtual.fill(ctx, asVirt(first), GARBAGE, size);
    expect(vm.vfree(ctx, first)).toBe(0);
    const again = vm.vmalloc(ctx, size, GFP_KERNEL | __GFP_ZERO, "meminit");
    expect(again).not.toBe(0);
    expect(virtual.read(ctx, asVirt(again), size).every((byte) => byte === 0)).toBe(true);
    expect(vm.vfree(ctx, again)).toBe(0);
    expectAllBack();
  });
});

/** Which of the three properties a cache has; a constructor and zeroed objects exclude each other. */
interface Kind {
  readonly ctor: boolean;
  readonly rcu: boolean;
  readonly zero: boolean;
}

const KINDS: readonly Kind[] = [false, true].flatMap((ctor) =>
  [false, true].flatMap((rcu) => [false, true].map((zero) => ({ ctor, rcu, zero }))),
);
const kindName = ({ ctor, rcu, zero }: Kind): string => `ctor: ${ctor}, rcu: ${rcu}, zero: ${zero}`;

let nrCaches = 0;
function createCache(size: number, { ctor, rcu }: Kind): KmemCache {
  const construct = (object: PhysAddr): void => {
    for (let at = 0; at < size; at += 4) w.machine.port.st32(object + at, CTOR_WORD);
  };
  const flags = rcu ? SLAB_TYPESAFE_BY_RCU : 0;
  const name = `test_cache_${nrCaches++}`;
  const cache = w.slab.kmemCacheCreate(w.ctx, { name, size, flags, ...(ctor ? { ctor: construct } : {}) });
  expect(cache).not.toBe(NO_CACHE);
  return cache;
}

/** Ten rounds of alloc, check, dirty, free. What is freed under RCU is still readable as it was. */
function doKmemCacheSize(size: number, kind: Kind, isZeroed = kind.zero): void {
  const { port } = w.machine;
  const { layer } = w.slab;
  const cache = createCache(size, kind);
  for (let round = 0; round < 10; round++) {
    const object = finish(layer.kmemCacheAllocAny(w.ctx, cache, GFP_KERNEL | (kind.zero ? __GFP_ZERO : 0)));
    expect(object).not.toBe(NULL);
    if (kind.ctor) expect(port.ld32(object)).toBe(CTOR_WORD);
    if (isZeroed) expect(nrNonZero(object, size)).toBe(0);
    // A constructed object goes back as the constructor left it.
    if (!kind.ctor) fill(object, size);
    const before = port.readBytes(object, size);
    if (kind.rcu) w.rcu.rcuReadLock(w.ctx);
    expect(layer.kmemCacheFree(w.ctx, cache, object)).toBe(0);
    if (kind.rcu) {
      expect(port.readBytes(object, size)).toEqual(before);
      w.rcu.rcuReadUnlock(w.ctx);
    }
  }
}

describe("test_kmemcache", () => {
  const wanted = KINDS.filter(({ ctor, zero }) => !(ctor && zero));
  for (const kind of wanted) {
    const name = `do_kmem_cache_size %i (${kindName(kind)})`;
    if (kind.ctor || kind.rcu || kind.zero) it.each(CACHE_SIZES)(name, (size) => doKmemCacheSize(size, kind));
  }

  it.each(CACHE_SIZES)("do_kmem_cache_size %i, plain, init_on_alloc=1", (size) => {
    w = bootTaskWorld({ ramBytes: 32 * 2 ** 20, autoInit: { onAlloc: true, onFree: false } });
    doKmemCacheSize(size, { ctor: false, rcu: false, zero: false }, true);
  });

  it("a cache with a constructor refuses zeroed objects", () => {
    const cache = createCache(64, { ctor: true, rcu: false, zero: false });
    expect(finish(w.slab.layer.kmemCacheAllocAny(w.ctx, cache, GFP_KERNEL | __GFP_ZERO))).toBe(NULL);
    expect(w.log()).toContain("which has a constructor: refused");
  });
});

describe("test_kmem_cache_bulk", () => {
  it.each(CACHE_SIZES)("do_kmem_cache_size_bulk %i", (size) => {
    w = bootTaskWorld({ ramBytes: 32 * 2 ** 20, autoInit: { onAlloc: true, onFree: false } });
    const { layer } = w.slab;
    const cache = createCache(size, { ctor: false, rcu: false, zero: false });
    const objects: PhysAddr[] = [];
    for (let round = 0; round < 10; round++) {
      const nr = finish(layer.kmemCacheAllocBulkAny(w.ctx, cache, GFP_KERNEL, 100, objects));
      expect(nr).toBe(100);
      for (const object of objects) {
        expect(nrNonZero(object, size)).toBe(0);
        fill(object, size);
      }
      expect(layer.kmemCacheFreeBulk(w.ctx, cache, objects)).toBe(0);
    }
  });
});

describe("test_rcu_persistent", () => {
  it.each(CACHE_SIZES)("do_kmem_cache_rcu_persistent %i", (size) => {
    const { port } = w.machine;
    const { layer } = w.slab;
    const cache = createCache(size, { ctor: true, rcu: true, zero: false });
    const alloc = (): PhysAddr => finish(layer.kmemCacheAllocAny(w.ctx, cache, GFP_KERNEL));
    const used = alloc();
    fill(used, size);
    const before = port.readBytes(used, size);
    expect(layer.kmemCacheFree(w.ctx, cache, used)).toBe(0);
    // Allocated again, sooner or later, the object is what its last user left.
    const others: PhysAddr[] = [];
    for (let object = alloc(); object !== used; object = alloc()) {
      others.push(object);
      expect(others.length).toBeLessThan(10_000);
    }
    expect(port.readBytes(used, size)).toEqual(before);
    for (const object of [...others, used]) expect(layer.kmemCacheFree(w.ctx, cache, object)).toBe(0);
  });
});
