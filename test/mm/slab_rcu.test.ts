/**
 * Goal: SLAB-12 and S7 for SLAB_TYPESAFE_BY_RCU caches. Method: a machine with tasks and RCU; a reader keeps a pointer
 * to an object that is freed, and looks what its memory is.
 */

import { describe, expect, it } from "vitest";
import { asPfn, type Context, NULL, type PhysAddr } from "../../kernel/types.ts";
import { GFP_ATOMIC } from "../../mm/gfp.ts";
import { PG_SLAB } from "../../mm/page.ts";
import { CACHE_FREE_POINTER, type KmemCache, NO_CACHE } from "../../mm/slab_descriptor.ts";
import { SLAB_TYPESAFE_BY_RCU } from "../../mm/slab_layout.ts";
import { bootTaskWorld, type TaskWorld } from "../support/task_world.ts";

const TYPE = 0x7e57_0bec;

const createCache = (w: TaskWorld, flags = SLAB_TYPESAFE_BY_RCU, hasCtor = true): KmemCache => {
  const ctor = (obj: PhysAddr): void => w.machine.port.st32(obj, TYPE);
  const cache = w.slab.kmemCacheCreate(w.ctx, { name: "conn", size: 96, flags, ...(hasCtor ? { ctor } : {}) });
  expect(cache).not.toBe(NO_CACHE);
  return cache;
};

const fill = (w: TaskWorld, ctx: Context, cache: KmemCache, nr: number): PhysAddr[] =>
  Array.from({ length: nr }, () => w.slab.layer.kmemCacheAlloc(ctx, cache, GFP_ATOMIC));

const freeAll = (w: TaskWorld, cache: KmemCache, objects: readonly PhysAddr[]): void => {
  for (const obj of objects) expect(w.slab.layer.kmemCacheFree(w.ctx, cache, obj)).toBe(0);
};

const isSlabPage = (w: TaskWorld, addr: PhysAddr): boolean =>
  (w.pages.flags(asPfn(Math.floor(addr / 4096))) & PG_SLAB) !== 0;

describe("SLAB_TYPESAFE_BY_RCU", () => {
  it("S7 the free pointer is outside the object: what a reader looks at survives the free", () => {
    const w = bootTaskWorld();
    const cache = createCache(w, SLAB_TYPESAFE_BY_RCU, false);
    expect(w.machine.port.ld32(cache + CACHE_FREE_POINTER)).toBe(96);
    const objects = fill(w, w.ctx, cache, 200);
    for (const obj of objects) for (let at = 0; at < 96; at += 4) w.machine.port.st32(obj + at, TYPE);
    w.rcu.rcuReadLock(w.ctx);
    freeAll(w, cache, objects);
    w.slab.shrinkAll(w.ctx);
    for (const obj of objects) {
      for (let at = 0; at < 96; at += 4) expect(w.machine.port.ld32(obj + at)).toBe(TYPE);
    }
    w.rcu.rcuReadUnlock(w.ctx);
  });

  it("SLAB-12 pages go back after a grace period only; the twin without the flag gives them back at once", () => {
    for (const flags of [SLAB_TYPESAFE_BY_RCU, 0]) {
      const w = bootTaskWorld();
      const cache = createCache(w, flags);
      const objects = fill(w, w.idle(1), cache, 400);
      w.rcu.rcuReadLock(w.idle(1));
      freeAll(w, cache, objects);
      w.slab.shrinkAll(w.ctx);
      w.spawn("pass", function* () {});
      for (let i = 0; i < 40; i++) w.step();
      const isTypesafe = flags !== 0;
      expect(objects.every((obj) => isSlabPage(w, obj))).toBe(isTypesafe);
      if (isTypesafe) for (const obj of objects) expect(w.machine.port.ld32(obj)).toBe(TYPE);
      expect(w.slab.slabs.nrWaitingPages() > 0).toBe(isTypesafe);
      expect(w.slab.check()).toBeNull();
      w.rcu.rcuReadUnlock(w.idle(1));
      w.spawn("pass", function* () {}, 1);
      w.runAll();
      expect(objects.some((obj) => isSlabPage(w, obj))).toBe(false);
      expect(w.slab.slabs.nrWaitingPages()).toBe(0);
      expect(w.slab.kmemCacheDestroy(w.ctx, cache)).toBe(0);
      w.expectNoObjectLeak();
    }
  });

  it("SLAB-12 an object may be reused at once, for the same type", () => {
    const w = bootTaskWorld();
    const cache = createCache(w);
    const [obj] = fill(w, w.ctx, cache, 1) as [PhysAddr];
    w.rcu.rcuReadLock(w.ctx);
    freeAll(w, cache, [obj]);
    expect(fill(w, w.ctx, cache, 1)).toEqual([obj]);
    w.rcu.rcuReadUnlock(w.ctx);
    freeAll(w, cache, [obj]);
    w.runAll();
    expect(w.slab.kmemCacheDestroy(w.ctx, cache)).toBe(0);
    w.runAll();
    w.expectNoObjectLeak();
  });

  it("SLAB-12 the cache may be destroyed while its pages wait", () => {
    const w = bootTaskWorld();
    const cache = createCache(w);
    const objects = fill(w, w.ctx, cache, 300);
    freeAll(w, cache, objects);
    expect(w.slab.kmemCacheDestroy(w.ctx, cache)).toBe(0);
    expect(w.slab.check()).toBeNull();
    expect(isSlabPage(w, objects[0] as PhysAddr)).toBe(true);
    // The memory of the descriptor is somebody else's now.
    const other = w.slab.kmemCacheCreate(w.ctx, { name: "other", size: 40 });
    w.runAll();
    expect(w.slab.kmemCacheDestroy(w.ctx, other)).toBe(0);
    w.runAll();
    w.expectNoObjectLeak();
  });

  it("SLAB-11 the n-th page allocation fails: nothing leaks", () => {
    for (let nth = 1; nth <= 6; nth++) {
      const w = bootTaskWorld();
      const cache = createCache(w);
      w.failPageAllocation(nth);
      const objects: PhysAddr[] = [];
      for (let i = 0; i < 200; i++) {
        const obj = w.slab.layer.kmemCacheAlloc(w.ctx, cache, GFP_ATOMIC);
        if (obj !== NULL) objects.push(obj);
      }
      freeAll(w, cache, objects);
      expect(w.slab.kmemCacheDestroy(w.ctx, cache)).toBe(0);
      w.runAll();
      w.expectNoObjectLeak();
    }
  });

  it("a size that leaves no room for the link is refused", () => {
    const w = bootTaskWorld();
    const size = 4 * 1024 * 1024;
    expect(w.slab.kmemCacheCreate(w.ctx, { name: "big", size, flags: SLAB_TYPESAFE_BY_RCU })).toBe(NO_CACHE);
  });
});
