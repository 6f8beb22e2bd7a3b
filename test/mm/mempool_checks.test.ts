/**
 * Mempools at their edges: check() can fail, what is an element and what only looks like one, the largest parameters.
 *
 * Goal: MPL-1, MPL-5, MPL-6. Method: one word of a struct mempool (mm/mempool_elements.ts) or of an element's mark is
 * overwritten, check() read, the word put back.
 */

import { describe, expect, it } from "vitest";
import { asPhys, type PhysAddr } from "../../kernel/types.ts";
import { EINVAL, ENOMEM } from "../../kernel/uapi/errno.ts";
import { __GFP_DMA, __GFP_DMA32, __GFP_NOWARN, GFP_ATOMIC, GFP_KERNEL, gfpWith } from "../../mm/gfp.ts";
import { KMALLOC_MAX_CACHE_SIZE, KMALLOC_MAX_SIZE } from "../../mm/kmalloc.ts";
import { MEMPOOL_MAX_NR, type MempoolSpec } from "../../mm/mempool.ts";
import {
  type Mempool,
  P_CURR,
  P_ELEMENTS,
  P_KIND,
  P_LOCK,
  P_MAGIC,
  P_MIN,
  POOL_KMALLOC,
  POOL_PAGES,
} from "../../mm/mempool_elements.ts";
import { finish } from "../support/finish.ts";
import { bootMempoolWorld, type MempoolWorld } from "../support/mempool_world.ts";

const SMALL = { ramBytes: 16 * 1024 * 1024, nrCpus: 1 };
const create = (m: MempoolWorld, spec: MempoolSpec): Mempool =>
  finish(m.mempools.create(m.ctx, spec) as never) as unknown as Mempool;
const elementsOf = (m: MempoolWorld, pool: Mempool): number => m.machine.port.ld32(pool + P_ELEMENTS) * 8;

/** What check() says with another value in a word; then the old one is put back. */
function withWord(m: MempoolWorld, addr: number, value: number): string | null {
  const { port } = m.machine;
  const before = port.ld32(addr);
  port.st32(addr, value);
  const fault = m.mempools.check();
  port.st32(addr, before);
  expect(m.mempools.check()).toBeNull();
  return fault;
}

describe("check()", () => {
  it("MPL-1 each violation by its name, in the first pool and in the last", () => {
    const m = bootMempoolWorld(SMALL);
    expect(m.mempools.check()).toBeNull();
    const pools = [300, 3 * 4096, 64].map((bytes) => create(m, { minNr: 3, bytes }));
    const seen: Mempool[] = [];
    m.mempools.forEach((pool) => {
      seen.push(pool);
    });
    expect(seen).toEqual([...pools].reverse());
    for (const pool of pools) {
      const { port } = m.machine;
      const elements = elementsOf(m, pool);
      expect(withWord(m, pool + P_MIN, 2)).toBe("MPL-1: more elements in reserve than min_nr");
      expect(withWord(m, pool + P_MIN, 4)).toBeNull();
      for (const [i, j] of [
        [0, 1],
        [2, 0],
      ] as const) {
        const twice = withWord(m, elements + i * 4, port.ld32(elements + j * 4));
        expect(twice).toBe("MPL-1: an element is in the reserve twice");
      }
      expect(withWord(m, pool + P_LOCK, 1)).toBe("mempool: the lock is taken");
      // An element that is out is no longer marked.
      port.st32(pool + P_CURR, 2);
      const last = port.ld32(elements + 2 * 4) * 8;
      expect(m.mempools.check()).toBeNull();
      const other = finish(m.mempools.allocAny(m.ctx, pool, GFP_KERNEL) as never) as unknown as PhysAddr;
      expect(withWord(m, elements + 4, other / 8)).toBe("MPL-1: an element in the reserve is not marked");
      port.st32(pool + P_CURR, 3);
      expect(port.ld32(elements + 2 * 4) * 8).toBe(last);
      expect(m.mempools.free(m.ctx, pool, other)).toBe(0);
    }
    for (const pool of pools) expect(m.mempools.destroy(m.ctx, pool)).toBe(0);
    expect(m.mempools.check()).toBeNull();
    m.expectNoObjectLeak();
  });

  it("MPL-5 a record whose magic is gone, and memory that never was one, are no pool; both are told", () => {
    const m = bootMempoolWorld(SMALL);
    const pool = create(m, { minNr: 1, bytes: 64 });
    const plain = m.slab.kmalloc.kmalloc(m.ctx, 80, GFP_ATOMIC);
    m.machine.port.st32(pool + P_MAGIC, 0x6d70_6f6d);
    for (const bad of [pool, plain, asPhys(pool + 8), asPhys(0x10_0000)]) {
      expect(m.mempools.destroy(m.ctx, bad as Mempool)).toBe(-EINVAL);
    }
    expect(m.log().match(/BUG: mempool_destroy of what is no mempool/g)).toHaveLength(4);
    m.machine.port.st32(pool + P_MAGIC, 0x6d70_6f6c);
    expect(m.mempools.destroy(m.ctx, pool)).toBe(0);
    m.slab.kmalloc.kfree(m.ctx, plain);
    m.expectNoObjectLeak();
  });
});

describe("when memory is short", () => {
  /** Takes every object of these sizes that slabs and magazines still have; later ones fail. */
  const exhaust = (m: MempoolWorld, sizes: readonly number[]): PhysAddr[] => {
    m.failPageAllocation(1, true);
    const held: PhysAddr[] = [];
    for (const bytes of sizes) {
      for (;;) {
        const got = m.slab.kmalloc.kmalloc(m.ctx, bytes, gfpWith(GFP_ATOMIC, __GFP_NOWARN));
        if (got === 0) break;
        held.push(got);
      }
    }
    return held;
  };
  const giveBack = (m: MempoolWorld, held: readonly PhysAddr[]): void => {
    m.failPageAllocation(0);
    for (const object of held) m.slab.kmalloc.kfree(m.ctx, object);
  };

  it("no record, no array, or not all elements: no pool, nothing kept, and address 0 is not touched", () => {
    for (const missing of [80, 256, 512]) {
      const m = bootMempoolWorld(SMALL);
      m.machine.port.fill(asPhys(0), 0xa5, 256);
      // Of the others a few can be had, so that nothing but this is missing.
      const spares = [80, 256, 512].map((bytes) => ({
        bytes,
        objects: Array.from({ length: 4 }, () => m.slab.kmalloc.kmalloc(m.ctx, bytes, GFP_ATOMIC)),
      }));
      const held = exhaust(m, [missing]);
      for (const { bytes, objects } of spares) {
        if (bytes === missing) held.push(...objects);
        else for (const object of objects) m.slab.kmalloc.kfree(m.ctx, object);
      }
      expect(create(m, { minNr: 64, bytes: 512 })).toBe(0);
      for (let addr = 0; addr < 256; addr += 4) expect(m.machine.port.ld32(addr)).toBe(0xa5a5_a5a5);
      const seen: Mempool[] = [];
      m.mempools.forEach((pool) => {
        seen.push(pool);
      });
      expect(seen).toEqual([]);
      giveBack(m, held);
      m.expectNoObjectLeak();
    }
  });

  it("resize without memory for the larger array: −ENOMEM, and the pool is as it was", () => {
    const m = bootMempoolWorld(SMALL);
    const pool = create(m, { minNr: 4, bytes: 64 });
    const before = [m.mempools.info(pool), elementsOf(m, pool)];
    const held = exhaust(m, [256]);
    expect(finish(m.mempools.resize(m.ctx, pool, 64) as never)).toBe(-ENOMEM);
    expect([m.mempools.info(pool), elementsOf(m, pool), m.mempools.check()]).toEqual([...before, null]);
    giveBack(m, held);
    expect(m.mempools.destroy(m.ctx, pool)).toBe(0);
    m.expectNoObjectLeak();
  });

  it("resize to the largest reserve there can be: the array is had, its elements come as memory does", () => {
    const m = bootMempoolWorld({ ...SMALL, ramBytes: 32 * 1024 * 1024 });
    const pool = create(m, { minNr: 4, bytes: 64 });
    m.failPageAllocation(2, true);
    expect(finish(m.mempools.resize(m.ctx, pool, MEMPOOL_MAX_NR) as never)).toBe(0);
    m.failPageAllocation(0);
    expect(m.mempools.info(pool).minNr).toBe(MEMPOOL_MAX_NR);
    expect(m.mempools.check()).toBeNull();
    expect(m.mempools.destroy(m.ctx, pool)).toBe(0);
    m.expectNoObjectLeak();
  });

  it("D6 a mask that may sleep, without a task that could: a kernel bug, not a wait for ever", () => {
    const m = bootMempoolWorld(SMALL);
    const pool = create(m, { minNr: 1, bytes: 3 * 4096 });
    m.failPageAllocation(1, true);
    const only = m.mempools.alloc(m.ctx, pool, GFP_ATOMIC);
    const rest = m.mempools.alloc(m.ctx, pool, GFP_KERNEL);
    expect(() => finish(rest)).toThrow("mempool: the idle task has to sleep for an element");
    m.mempools.free(m.ctx, pool, only);
  });

  it("D6 an element that an interrupt frees at the last moment is taken without sleeping", () => {
    const m = bootMempoolWorld(SMALL);
    const pool = create(m, { minNr: 1, bytes: 3 * 4096 });
    m.failPageAllocation(1, true);
    const only = m.mempools.alloc(m.ctx, pool, GFP_ATOMIC);
    const rest = m.mempools.alloc(m.ctx, pool, GFP_KERNEL);
    const { port } = m.machine;
    const { stAtomic } = port;
    let nrUnlocks = 0;
    port.stAtomic = (addr, value) => {
      stAtomic.call(port, addr, value);
      if (addr === pool && value === 0 && nrUnlocks++ === 0) m.mempools.free(m.contexts.irqContext(0), pool, only);
    };
    const got = finish(rest);
    port.stAtomic = stAtomic;
    expect([got, m.mempools.info(pool).sleeps]).toEqual([only, 0]);
    m.mempools.free(m.ctx, pool, got);
    m.failPageAllocation(0);
    expect(m.mempools.destroy(m.ctx, pool)).toBe(0);
    m.expectNoObjectLeak();
  });

  it("MPL-1 two frees for one place in the reserve: the second goes to the allocator", () => {
    const m = bootMempoolWorld(SMALL);
    const pool = create(m, { minNr: 1, bytes: 3 * 4096 });
    const first = m.mempools.alloc(m.ctx, pool, GFP_ATOMIC);
    m.failPageAllocation(1, true);
    const second = m.mempools.alloc(m.ctx, pool, GFP_ATOMIC);
    m.failPageAllocation(0);
    expect(m.mempools.info(pool)).toMatchObject({ currNr: 0, nrOut: 2 });
    const { port } = m.machine;
    const { cas } = port;
    let hasRun = false;
    port.cas = (addr, expected, desired) => {
      // Another CPU was faster with the lock.
      if (addr === pool && !hasRun) {
        hasRun = true;
        m.mempools.free(m.ctx, pool, second);
      }
      return cas.call(port, addr, expected, desired);
    };
    expect(m.mempools.free(m.ctx, pool, first)).toBe(0);
    port.cas = cas;
    expect(m.mempools.info(pool)).toMatchObject({ currNr: 1, nrOut: 0 });
    expect(m.mempools.check()).toBeNull();
    expect(m.mempools.destroy(m.ctx, pool)).toBe(0);
    m.expectNoObjectLeak();
  });
});

describe("contexts", () => {
  it("MPL-4 a free while the reserve is full needs no lock", () => {
    const m = bootMempoolWorld({ ...SMALL, nrCpus: 2 });
    const pool = create(m, { minNr: 2, bytes: 64 });
    const element = m.mempools.alloc(m.ctx, pool, GFP_ATOMIC);
    const onCpu1 = m.contexts.taskContext(1);
    m.spinlocks.spinLock(onCpu1, pool);
    expect(m.mempools.free(m.ctx, pool, element)).toBe(0);
    m.spinlocks.spinUnlock(onCpu1, pool);
    expect(m.mempools.info(pool)).toMatchObject({ currNr: 2, nrOut: 0 });
  });

  it("G2 an atomic mask is not reported under a lock; a bad free taints the kernel", () => {
    const m = bootMempoolWorld(SMALL);
    const pool = create(m, { minNr: 1, bytes: 64 });
    const before = m.log();
    m.contexts.preemptDisable(m.ctx);
    const element = m.mempools.alloc(m.ctx, pool, GFP_ATOMIC);
    m.contexts.preemptEnable(m.ctx);
    expect([m.log(), m.contexts.taintText()]).toEqual([before, "Not tainted"]);
    m.mempools.free(m.ctx, pool, asPhys(element + 8));
    expect(m.contexts.taintText()).toBe("Tainted: B");
  });

  it("MPL-5 memory that was a pool is none, even if it is somebody's again", () => {
    const m = bootMempoolWorld(SMALL);
    const pool = create(m, { minNr: 1, bytes: 64 });
    expect(m.mempools.destroy(m.ctx, pool)).toBe(0);
    const objects = Array.from({ length: 40 }, () => m.slab.kmalloc.kmalloc(m.ctx, 80, GFP_ATOMIC));
    expect(objects).toContain(pool);
    expect(m.mempools.destroy(m.ctx, pool)).toBe(-EINVAL);
    for (const object of objects) m.slab.kmalloc.kfree(m.ctx, object);
    m.expectNoObjectLeak();
  });
});

describe("what is an element", () => {
  it("MPL-6 objects of another size, pages of another order or with a second holder, and pages beyond RAM are not", () => {
    const m = bootMempoolWorld(SMALL);
    const refused = (pool: Mempool, element: number): void => {
      const before = m.mempools.info(pool);
      expect(m.mempools.free(m.ctx, pool, asPhys(element))).toBe(-EINVAL);
      expect(m.mempools.info(pool)).toEqual(before);
    };
    const { kmalloc } = m.slab;
    const cache = m.slab.kmemCacheCreate(m.ctx, { name: "size_300", size: 512, align: 8, flags: 0 });
    const object = m.slab.layer.kmemCacheAllocAny(m.ctx, cache, GFP_ATOMIC) as PhysAddr;
    const small = create(m, { minNr: 1, bytes: 300 });
    const [same, larger] = [kmalloc.kmalloc(m.ctx, 512, GFP_ATOMIC), kmalloc.kmalloc(m.ctx, 513, GFP_ATOMIC)];
    // As large as kmalloc-512, but not of kmalloc; of kmalloc, but of the next size.
    for (const bad of [object, larger]) refused(small, bad);
    // What is in no slab has no state byte, whatever lies at address 0.
    m.machine.port.fill(asPhys(0), 1, 64);
    for (const bad of [0x10_0000, 2 ** 31, 2 ** 40, -8, 0.5, Number.NaN]) refused(small, bad);
    // An object that is as the pool's own: nobody could tell it from one.
    m.machine.port.fetchAdd(small + 32, 1);
    expect(m.mempools.free(m.ctx, small, same)).toBe(0);

    const blocks = create(m, { minNr: 1, bytes: 3 * 4096 });
    const [one, two] = [1, 2].map((order) => m.pageAlloc.tryAllocPages(m.ctx, order, GFP_ATOMIC) * 4096) as [
      number,
      number,
    ];
    const pfn = (two / 4096) as never;
    m.pages.setRefcount(pfn, 2);
    for (const bad of [one, two, two + 8, two + 4096, m.machine.port.sizeBytes - 4096]) refused(blocks, bad);
    for (const bad of [m.machine.port.sizeBytes, -4096, 2 ** 32, 4096.5]) refused(blocks, bad);
    m.pages.setRefcount(pfn, 1);
    m.machine.port.fetchAdd(blocks + 32, 1);
    expect(m.mempools.free(m.ctx, blocks, asPhys(two))).toBe(0);
    m.pageAlloc.freePages(m.ctx, (one / 4096) as never, 1);

    for (const pool of [small, blocks]) expect(m.mempools.destroy(m.ctx, pool)).toBe(0);
    m.slab.layer.kmemCacheFree(m.ctx, cache, object);
    kmalloc.kfree(m.ctx, larger);
    expect(m.slab.kmemCacheDestroy(m.ctx, cache)).toBe(0);
    m.expectNoObjectLeak();
  });

  it("elements up to 8 KiB are kmalloc's, larger ones blocks of pages; zones are those that devices need", () => {
    const m = bootMempoolWorld(SMALL);
    for (const [bytes, kind] of [
      [1, POOL_KMALLOC],
      [KMALLOC_MAX_CACHE_SIZE, POOL_KMALLOC],
      [KMALLOC_MAX_CACHE_SIZE + 1, POOL_PAGES],
      [KMALLOC_MAX_SIZE, POOL_PAGES],
    ] as const) {
      for (const zone of [0, __GFP_DMA32]) {
        const pool = create(m, { minNr: 1, bytes, zone });
        expect(m.machine.port.ld32(pool + P_KIND)).toBe(kind);
        expect(m.mempools.destroy(m.ctx, pool)).toBe(0);
      }
    }
    const asked = m.pageMasks.length;
    expect(create(m, { minNr: 1, bytes: KMALLOC_MAX_SIZE + 1 })).toBe(0);
    expect(create(m, { minNr: MEMPOOL_MAX_NR + 1, bytes: 8 })).toBe(0);
    expect(m.pageMasks).toHaveLength(asked);
    m.failPageAllocation(1, true);
    expect(create(m, { minNr: MEMPOOL_MAX_NR, bytes: 8 })).toBe(0);
    m.failPageAllocation(0);
    expect(m.pageMasks.length).toBeGreaterThan(asked);
    m.expectNoObjectLeak();
    const large = bootMempoolWorld({ ...SMALL, ramBytes: 32 * 1024 * 1024 });
    const pools = [0, __GFP_DMA].map((zone) => create(large, { minNr: 2, bytes: 3 * 4096, zone }));
    const areLow = pools.map((pool) =>
      [0, 1].map((i) => large.machine.port.ld32(elementsOf(large, pool) + i * 4) * 8 < 2 ** 24),
    );
    expect(areLow).toEqual([
      [false, false],
      [true, true],
    ]);
  });

  it("MPL-1 resize to what it is moves nothing; to the largest reserve there can be it is possible, to more not", () => {
    const m = bootMempoolWorld(SMALL);
    const pool = create(m, { minNr: 4, bytes: 64 });
    const resize = (minNr: number): number => finish(m.mempools.resize(m.ctx, pool, minNr) as never) as number;
    const before = elementsOf(m, pool);
    expect([resize(4), elementsOf(m, pool)]).toEqual([0, before]);
    expect([resize(MEMPOOL_MAX_NR + 1), m.mempools.info(pool).minNr]).toEqual([-EINVAL, 4]);
    expect([resize(5), elementsOf(m, pool) === before, m.mempools.info(pool).currNr]).toEqual([0, false, 5]);
    expect(m.mempools.destroy(m.ctx, pool)).toBe(0);
    m.expectNoObjectLeak();
  });
});
