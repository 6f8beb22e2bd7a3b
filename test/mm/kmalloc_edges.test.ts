/**
 * kmalloc at its edges: each border of a size, each kind of pointer that is none, each step that can fail.
 *
 * Goal: S1, KMA-1 … KMA-6 to the byte and the word of the report. Method: one machine per case, exact results; a page
 * allocator that sleeps where the real one would only under pressure.
 */

import { describe, expect, it } from "vitest";
import { CYC_PER_LINE } from "../../kernel/arch/charges.ts";
import { type Context, NULL, type PhysAddr, type Sleeping } from "../../kernel/types.ts";
import { EINVAL } from "../../kernel/uapi/errno.ts";
import {
  __GFP_COMP,
  __GFP_HIGHMEM,
  __GFP_MOVABLE,
  __GFP_NOWARN,
  GFP_ATOMIC,
  GFP_KERNEL,
  type Gfp,
} from "../../mm/gfp.ts";
import { KMALLOC_SIZES, kmallocBucket } from "../../mm/kmalloc.ts";
import { hexAddr } from "../../mm/slab_report.ts";
import { KMALLOC_LARGE, NR_SLAB_UNRECLAIMABLE } from "../../mm/vmstat.ts";
import { finish } from "../support/finish.ts";
import { bootObjectLevel, type ObjectLevelMachine } from "../support/object_level.ts";

const QUIET = GFP_ATOMIC | __GFP_NOWARN;
const LARGEST = 4 * 1024 * 1024;
const ZERO_SIZE = 16;

const boot = (): ObjectLevelMachine => bootObjectLevel("passthrough");
const alloc = (m: ObjectLevelMachine, bytes: number, gfp: Gfp = QUIET): PhysAddr =>
  m.slab.kmalloc.kmallocAny(m.ctx, bytes, gfp) as PhysAddr;
const free = (m: ObjectLevelMachine, addr: number): number => m.slab.kmalloc.kfree(m.ctx, addr as PhysAddr);
const ksize = (m: ObjectLevelMachine, addr: number): number => m.slab.kmalloc.ksize(m.ctx, addr as PhysAddr);
const grow = (m: ObjectLevelMachine, addr: number, bytes: number, gfp: Gfp = QUIET): PhysAddr =>
  m.slab.kmalloc.krealloc(m.ctx, addr as PhysAddr, bytes, gfp) as PhysAddr;

describe("S1 sizes", () => {
  it("kmallocBucket says what a request gets, and 0 for what is none", () => {
    for (const size of [0, -1, 0.5, 1.5, Number.NaN, LARGEST + 1, 2 ** 40]) expect(kmallocBucket(size)).toBe(0);
    for (let size = 1; size <= 8192; size++) {
      expect(kmallocBucket(size)).toBe(Math.min(...KMALLOC_SIZES.filter((bucket) => bucket >= size)));
    }
    expect([8193, 16_384, 16_385, LARGEST].map(kmallocBucket)).toEqual([16_384, 16_384, 32_768, LARGEST]);
  });

  it("a block has the size of its class, at every border", () => {
    const m = boot();
    for (const size of KMALLOC_SIZES.flatMap((n) => [n - 1, n, n + 1]).concat([1, LARGEST - 1, LARGEST])) {
      const addr = alloc(m, size);
      expect(addr).not.toBe(NULL);
      expect(ksize(m, addr)).toBe(kmallocBucket(size));
      expect(free(m, addr)).toBe(0);
    }
    m.expectNoObjectLeak();
  });

  it("the caches are called as Linux calls them", () => {
    const m = boot();
    const names: string[] = [];
    m.slab.forEachCache((cache) => names.push(m.slab.slabInfo(cache).name));
    const classes = ["8", "16", "32", "64", "96", "128", "192", "256", "512", "1k", "2k", "4k", "8k"];
    for (const prefix of ["kmalloc-", "kmalloc-rcl-", "dma-kmalloc-"]) {
      for (const name of classes) expect(names).toContain(prefix + name);
    }
  });
});

describe("blocks above 8 KiB", () => {
  it("are counted in pages, up and down, and asked for without what only the page allocator's callers may say", () => {
    const m = boot();
    const before = [m.vmstat.item(NR_SLAB_UNRECLAIMABLE), m.vmstat.event(KMALLOC_LARGE)] as const;
    m.pageMasks.length = 0;
    const addr = alloc(m, 20_000, QUIET | __GFP_COMP | __GFP_HIGHMEM | __GFP_MOVABLE);
    expect(m.pageMasks).toEqual([QUIET]);
    expect(m.slab.kmalloc.nrLargePages()).toBe(8);
    expect(m.vmstat.item(NR_SLAB_UNRECLAIMABLE)).toBe(before[0] + 8);
    expect(m.vmstat.event(KMALLOC_LARGE)).toBe(before[1] + 1);
    expect(free(m, addr)).toBe(0);
    expect(m.slab.kmalloc.nrLargePages()).toBe(0);
    expect(m.vmstat.item(NR_SLAB_UNRECLAIMABLE)).toBe(before[0]);
    expect(free(m, addr)).toBe(-EINVAL);
    m.expectNoObjectLeak();
  });

  it("without pages there is none, and nothing is counted", () => {
    const m = boot();
    m.failPageAllocation(1);
    expect(alloc(m, 20_000)).toBe(NULL);
    expect(m.slab.kmalloc.nrLargePages()).toBe(0);
    m.expectNoObjectLeak();
  });

  it("a caller that may sleep does where the page allocator does, and gets the same", () => {
    const m = boot();
    let nrSlept = 0;
    const pages = m.failingPages as { allocPagesAny: (ctx: Context, order: number, gfp: Gfp) => unknown };
    const real = pages.allocPagesAny;
    pages.allocPagesAny = function* (ctx, order, gfp): Sleeping<unknown> {
      nrSlept++;
      return real(ctx, order, gfp);
    };
    const addr = finish(m.slab.kmalloc.kmallocAny(m.ctx, 9000, GFP_KERNEL));
    m.machine.port.fill(addr, 0x77, 16_384);
    const moved = finish(m.slab.kmalloc.krealloc(m.ctx, addr, 17_000, GFP_KERNEL));
    expect(nrSlept).toBe(2);
    expect(ksize(m, moved)).toBe(32_768);
    expect(m.machine.port.readBytes(moved, 16_384).every((byte) => byte === 0x77)).toBe(true);
    expect(free(m, addr)).toBe(-EINVAL);
    expect(free(m, moved)).toBe(0);
    m.expectNoObjectLeak();
  });
});

describe("KMA-4 kmallocArray", () => {
  it("multiplies what can be multiplied", () => {
    const m = boot();
    const array = (n: number, size: number): PhysAddr => m.slab.kmalloc.kmallocArray(m.ctx, n, size, QUIET) as PhysAddr;
    for (const [n, size] of [
      [-2, -50],
      [-1, 0],
      [0, -1],
      [0.5, 128],
      [128, 0.5],
      [0.5, 2],
      [Number.NaN, 1],
      [1, Number.NaN],
      [2 ** 30, 2 ** 30],
    ] as const) {
      expect(array(n, size)).toBe(NULL);
    }
    expect(array(0, 5)).toBe(ZERO_SIZE);
    expect(array(5, 0)).toBe(ZERO_SIZE);
    const addr = array(3, 100);
    expect(ksize(m, addr)).toBe(512);
    expect(free(m, addr)).toBe(0);
    m.expectNoObjectLeak();
  });
});

describe("KMA-5 pointers that are none", () => {
  it("ksize is 0 and says why", () => {
    const m = boot();
    expect([NULL, ZERO_SIZE].map((addr) => ksize(m, addr))).toEqual([0, 0]);
    expect(m.log()).not.toContain("BUG");
    const addr = alloc(m, 100);
    const large = alloc(m, 10_000);
    const said = (bad: number, words: string): void => {
      const seq = m.printk.nextSeq();
      expect(ksize(m, bad)).toBe(0);
      expect(m.printk.nextSeq()).toBeGreaterThan(seq);
      expect(m.log()).toContain(words);
    };
    said(addr + 8, `Invalid object pointer ${hexAddr(addr + 8)}`);
    expect(m.log()).toContain("ksize() is 0");
    said(large + 4096, `ksize of invalid pointer ${hexAddr(large + 4096)}`);
    said(large + 8, `ksize of invalid pointer ${hexAddr(large + 8)}`);
    free(m, addr);
    said(addr, `Invalid object pointer ${hexAddr(addr)}`);
    free(m, large);
    said(large, `ksize of invalid pointer ${hexAddr(large)}`);
    m.expectNoObjectLeak();
  });

  it("kfree says which pointer it was, at every border of RAM and of a large block", () => {
    const m = boot();
    const large = alloc(m, 10_000);
    const end = m.pages.nrFrames * 4096;
    for (const bad of [large + 8, large + 4096, end, end + 4096, end - 4096, 8, 24]) {
      expect(free(m, bad)).toBe(-EINVAL);
      expect(m.log()).toContain(`kfree of invalid pointer ${hexAddr(bad)}`);
    }
    for (const nothing of [NULL, ZERO_SIZE]) expect(free(m, nothing)).toBe(0);
    expect(free(m, large)).toBe(0);
    m.expectNoObjectLeak();
  });
});

describe("KMA-6 krealloc", () => {
  it("of nothing allocates, to nothing frees, and stays while there is room", () => {
    const m = boot();
    const a = grow(m, NULL, 100);
    const b = grow(m, ZERO_SIZE, 100);
    expect([ksize(m, a), ksize(m, b)]).toEqual([128, 128]);
    expect([1, 100, 127, 128].map((bytes) => grow(m, a, bytes))).toEqual([a, a, a, a]);
    const moved = grow(m, a, 129);
    expect(moved).not.toBe(a);
    expect(free(m, a)).toBe(-EINVAL);
    expect(grow(m, moved, 0)).toBe(ZERO_SIZE);
    expect(free(m, moved)).toBe(-EINVAL);
    expect(free(m, b)).toBe(0);
    m.expectNoObjectLeak();
  });

  it("that cannot be served leaves the block and its content alone", () => {
    const m = boot();
    const addr = alloc(m, 64);
    m.machine.port.fill(addr, 0x33, 64);
    for (const bad of [-1, 0.5, Number.NaN, LARGEST + 1, 2 ** 40]) expect(grow(m, addr, bad)).toBe(NULL);
    m.failPageAllocation(1);
    expect(grow(m, addr, 20_000)).toBe(NULL);
    expect(m.machine.port.readBytes(addr, 64).every((byte) => byte === 0x33)).toBe(true);
    expect(grow(m, addr + 8, 100)).toBe(NULL);
    expect(free(m, addr)).toBe(0);
    m.expectNoObjectLeak();
  });

  it("costs what copying the old block's lines costs, besides the allocation and the free", () => {
    const m = boot();
    const { clock } = m.machine.harts;
    const costOf = (work: () => void): number => {
      const before = clock[0] as number;
      work();
      return (clock[0] as number) - before;
    };
    // Both classes have a slab already.
    const keep = [alloc(m, 512), alloc(m, 1024)];
    let addr = alloc(m, 512);
    const alone = costOf(() => free(m, alloc(m, 1024)));
    const moved = costOf(() => {
      addr = grow(m, addr, 600);
    });
    expect(moved).toBe(alone + CYC_PER_LINE * 8);
    for (const block of [...keep, addr]) free(m, block);
    m.expectNoObjectLeak();
  });
});
