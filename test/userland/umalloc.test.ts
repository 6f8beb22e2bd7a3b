/**
 * Goal: umalloc keeps its contract and its invariants under any sequence of calls.
 * Method: sequences from fast-check against a naive list of blocks (heap_model.ts), `check()` after every step; then
 * the corners by hand: sizes, alignment, huge sizes, growing in place, threads, memory given back. No kernel: a fake
 * environment whose memory refuses what the machine would refuse.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PAGE_SIZE, TASK_SIZE, USER_HEAP_BASE } from "../../kernel/params.ts";
import { SYS_brk } from "../../kernel/uapi/syscall.ts";
import { createUmalloc, type Umalloc } from "../../userland/umalloc.ts";
import { createFakeProcess, type FakeProcess } from "../support/fake_env.ts";
import { runs } from "../support/runs.ts";
import { HeapModel } from "./heap_model.ts";

function freshHeap(limitBytes = 32 * 1024 * 1024): { process: FakeProcess; heap: Umalloc; model: HeapModel } {
  const process = createFakeProcess({ limitBytes });
  const heap = createUmalloc(process.env);
  return { process, heap, model: new HeapModel(process, heap) };
}

const bytesArb = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0, max: 160 }) },
  { weight: 3, arbitrary: fc.integer({ min: 100, max: 3000 }) },
  { weight: 1, arbitrary: fc.integer({ min: 3000, max: 60_000 }) },
  { weight: 1, arbitrary: fc.constantFrom(15, 16, 17, 128, 129, 256, 496, 512, 513, 49_152, 49_153, 98_304, 200_000) },
);

type Step = readonly ["malloc" | "calloc" | "free" | "realloc" | "memalign" | "trim", number, number];

const stepArb: fc.Arbitrary<Step> = fc.tuple(
  fc.constantFrom(
    "malloc",
    "malloc",
    "malloc",
    "calloc",
    "free",
    "free",
    "free",
    "realloc",
    "realloc",
    "memalign",
    "trim",
  ),
  bytesArb,
  fc.nat(1_000_000),
);

function perform(model: HeapModel, [kind, bytes, pick]: Step): void {
  const nr = model.blocks.length;
  if (kind === "malloc") model.malloc(bytes);
  else if (kind === "calloc") model.calloc(1 + (pick % 4), bytes);
  else if (kind === "memalign") model.memalign(2 ** (pick % 14), bytes);
  else if (kind === "trim") {
    if (pick % 4 === 0) model.heap.trim();
  } else if (nr > 0) {
    if (kind === "free") model.free(pick % nr);
    else model.realloc(pick % nr, bytes);
  }
}

describe("umalloc against the oracle", () => {
  it("MAP-1…4 BIN-1…3 TC-1 ARN-1 ARN-2 MAPD-1 hold after every step, and no block is damaged", () => {
    fc.assert(
      fc.property(fc.array(stepArb, { minLength: 1, maxLength: 150 }), (steps) => {
        const { heap, model } = freshHeap();
        for (const step of steps) {
          perform(model, step);
          const broken = heap.check();
          if (broken !== null) throw new Error(`after ${step.join(" ")}: ${broken}`);
        }
        model.verifyAll();
        model.freeAll();
        model.verifyAll();
      }),
      { numRuns: runs(80, 200) },
    );
  });

  it("long runs over several segments keep every byte", () => {
    const { heap, model } = freshHeap();
    let seed = 12_345;
    const random = (n: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return Math.floor((seed / 2 ** 32) * n);
    };
    for (let i = 0; i < 12_000; i++) {
      const size = random(20) === 0 ? random(90_000) : random(1200);
      if (random(100) < 52 || model.blocks.length === 0) model.malloc(size);
      else if (random(4) === 0) model.realloc(random(model.blocks.length), size);
      else model.free(random(model.blocks.length));
      if (i % 1000 === 0) model.verifyAll();
    }
    expect(heap.stats().heapBytes).toBeGreaterThan(1024 * 1024);
    model.freeAll();
    heap.trim();
    model.verifyAll();
    const stats = heap.stats();
    // What is left is the first segment's head and state, and the table of mapped blocks.
    expect(stats.usedBytes).toBeLessThanOrEqual(8192);
    expect(stats.heapBytes).toBeLessThanOrEqual(stats.metaBytes + stats.usedBytes + stats.freeBytes + PAGE_SIZE);
    expect(stats.mappedBytes).toBe(0);
  });
});

describe("umalloc's contract", () => {
  it("asks the kernel for nothing before the first allocation", () => {
    const { process, heap } = freshHeap();
    const nrPages = process.nrMappedPages();
    expect(heap.stats().heapBytes).toBe(0);
    expect(heap.check()).toBeNull();
    heap.free(0);
    heap.trim();
    expect(process.nrMappedPages()).toBe(nrPages);
  });

  it("malloc(0) and realloc(p, 0) return pointers of their own", () => {
    const { heap } = freshHeap();
    const a = heap.malloc(0);
    const b = heap.malloc(0);
    expect(a).not.toBe(0);
    expect(b).not.toBe(0);
    expect(a).not.toBe(b);
    const c = heap.realloc(heap.malloc(1000), 0);
    expect(c).not.toBe(0);
    for (const p of [a, b, c]) heap.free(p);
    expect(heap.stats().nrMisuses).toBe(0);
    expect(heap.check()).toBeNull();
  });

  it("refuses sizes that are none, whole address spaces and overflowing products", () => {
    const { heap } = freshHeap();
    for (const bytes of [
      -1,
      -0.5,
      0.5,
      1.5,
      Number.NaN,
      Infinity,
      -Infinity,
      TASK_SIZE,
      2 ** 53,
      2 ** 31,
      2 ** 32 + 8,
    ]) {
      expect(heap.malloc(bytes), `malloc(${bytes})`).toBe(0);
      expect(heap.calloc(1, bytes), `calloc(1, ${bytes})`).toBe(0);
      expect(heap.memalign(64, bytes), `memalign(64, ${bytes})`).toBe(0);
    }
    expect(heap.calloc(2 ** 20, 2 ** 20)).toBe(0);
    expect(heap.calloc(2 ** 33, 2 ** 33)).toBe(0);
    expect(heap.calloc(-2, -3)).toBe(0);
    expect(heap.calloc(0.5, 32)).toBe(0);
    for (const align of [0, 3, -16, 24, 1.5, Number.NaN, 2 ** 40]) expect(heap.memalign(align, 100)).toBe(0);
    const p = heap.malloc(100);
    for (const bytes of [-1, 0.5, Number.NaN, TASK_SIZE]) expect(heap.realloc(p, bytes)).toBe(0);
    expect(heap.usableSize(p)).toBe(112);
    heap.free(p);
    expect(heap.check()).toBeNull();
  });

  it("serves a size before and after it was refused as unaligned text of numbers would be", () => {
    const { heap } = freshHeap();
    const p = heap.malloc(48);
    heap.free(p);
    // A fractional size must not take the cached chunk out of its list.
    expect(heap.malloc(47.5)).toBe(0);
    expect(heap.malloc(48)).toBe(p);
    expect(heap.check()).toBeNull();
  });

  it("aligns by 16, and memalign by what is asked up to 64 KiB", () => {
    const { model } = freshHeap();
    for (const bytes of [1, 8, 24, 100, 5000, 70_000]) model.malloc(bytes);
    for (let shift = 0; shift <= 16; shift++) for (const bytes of [0, 1, 100, 5000]) model.memalign(2 ** shift, bytes);
    model.verifyAll();
    model.freeAll();
    model.verifyAll();
  });

  it("LIFO: a small block comes back at the next malloc of its size", () => {
    const { heap } = freshHeap();
    const p = heap.malloc(40);
    heap.malloc(40);
    heap.free(p);
    expect(heap.malloc(33)).toBe(p);
  });

  it("spends no byte on headers: blocks of 16 n bytes lie side by side", () => {
    const { heap } = freshHeap();
    const blocks = Array.from({ length: 100 }, () => heap.malloc(32));
    const sorted = blocks.toSorted((a, b) => a - b);
    expect((sorted.at(-1) as number) - (sorted[0] as number)).toBe(99 * 32);
  });

  it("realloc grows in place into the top and into a free neighbour, and shrinks in place", () => {
    const { heap } = freshHeap();
    const p = heap.malloc(1000);
    expect(heap.realloc(p, 20_000)).toBe(p);
    const next = heap.malloc(1000);
    const guard = heap.malloc(1000);
    heap.free(next);
    expect(heap.realloc(p, 20_600)).toBe(p);
    expect(heap.realloc(p, 500)).toBe(p);
    expect(heap.usableSize(p)).toBe(512);
    heap.free(guard);
    heap.free(p);
    expect(heap.check()).toBeNull();
  });

  it("realloc moves down into a free chunk before the block rather than to new memory", () => {
    const { heap, model } = freshHeap();
    const low = model.malloc(3000);
    model.malloc(3000);
    model.malloc(3000);
    const lowAddress = low?.p as number;
    model.free(0);
    model.realloc(0, 5000);
    expect(model.blocks.map((block) => block.p)).toContain(lowAddress);
    model.verifyAll();
    expect(heap.stats().nrFree).toBe(1);
  });

  it("a large block is mapped, grows without a second copy at the peak, and is unmapped when freed", () => {
    const { process, heap, model } = freshHeap();
    model.malloc(500_000);
    expect(heap.stats().mappedBytes).toBe(Math.ceil(500_000 / PAGE_SIZE) * PAGE_SIZE);
    model.realloc(0, 1_040_000);
    const stats = heap.stats();
    expect(stats.peakBytes).toBeLessThan(stats.heapBytes + 1_040_000 + PAGE_SIZE + 1);
    model.realloc(0, 600_000);
    model.realloc(0, 100);
    expect(heap.stats().mappedBytes).toBe(0);
    model.verifyAll();
    model.freeAll();
    expect(process.nrMappedPages() * PAGE_SIZE).toBeLessThan(100_000);
  });

  it("empties the thread caches before it asks the kernel for more", () => {
    const { heap } = freshHeap();
    const blocks = Array.from({ length: 3000 }, () => heap.malloc(64));
    const { heapBytes } = heap.stats();
    for (const p of blocks) heap.free(p);
    expect(heap.stats().nrCached).toBe(3000);
    const p = heap.malloc(40_000);
    const stats = heap.stats();
    expect(stats.heapBytes).toBe(heapBytes);
    expect(stats.nrFlushed).toBe(1);
    heap.free(p);
    expect(heap.check()).toBeNull();
  });

  it("MAP-4 segments given back and got again start clean", () => {
    const { heap, model } = freshHeap();
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 60; i++) model.malloc(40_000);
      expect(heap.stats().heapBytes).toBeGreaterThan(3 * 512 * 1024);
      model.freeAll();
      heap.trim();
      expect(heap.check()).toBeNull();
      expect(heap.stats().heapBytes).toBeLessThan(64 * 1024);
    }
  });

  it("stops growing by brk when somebody else has moved the break, and maps instead", () => {
    const { process, heap } = freshHeap();
    heap.malloc(100);
    const brk = process.env.syscall(SYS_brk, 0) as number;
    process.env.syscall(SYS_brk, brk + PAGE_SIZE);
    const blocks = [heap.malloc(20_000), heap.malloc(20_000)];
    for (const p of blocks) expect(p).toBeGreaterThan(brk + PAGE_SIZE);
    let nrServed = 0;
    while (heap.malloc(500) !== 0) nrServed++;
    expect(nrServed).toBeLessThan(10);
    expect(process.env.syscall(SYS_brk, 0)).toBe(brk + PAGE_SIZE);
    for (const p of blocks) heap.free(p);
    expect(heap.check()).toBeNull();
  });

  it("works above 2 GiB and with a break that is not at a page", () => {
    const process = createFakeProcess({ heapBase: 0x1_2345_6788 });
    const heap = createUmalloc(process.env);
    const model = new HeapModel(process, heap);
    for (let i = 0; i < 300; i++) model.malloc(i * 13);
    for (let i = 0; i < 100; i++) model.free(i);
    for (let i = 0; i < 100; i++) model.realloc(i, i * 40);
    model.verifyAll();
    expect(heap.base).toBe(0x1_2345_7000);
    model.freeAll();
    model.verifyAll();
  });
});

describe("umalloc and threads", () => {
  it("TC-1 a thread attaches, frees what others allocated, and leaves nothing cached", () => {
    const { process, heap, model } = freshHeap();
    for (let i = 0; i < 200; i++) model.malloc(i);
    const second = createUmalloc(process.threadEnv(), { attach: heap.base });
    expect(second.stats().nrThreads).toBe(2);
    for (let i = 0; i < 100; i++) model.free(i, second);
    expect(heap.check()).toBeNull();
    const p = second.malloc(1);
    expect(second.check()).toBeNull();
    heap.free(p);
    second.detach();
    expect(heap.stats().nrThreads).toBe(1);
    model.verifyAll();
    model.freeAll();
    heap.trim();
    expect(heap.stats().nrUsed).toBe(0);
  });

  it("all state is in the process's memory: a second view sees every block", () => {
    const { process, heap } = freshHeap();
    const blocks = [10, 1000, 100_000].map((bytes) => heap.malloc(bytes));
    const view = createUmalloc(process.threadEnv(), { attach: USER_HEAP_BASE });
    for (const p of blocks) expect(view.usableSize(p)).toBe(heap.usableSize(p));
    for (const p of blocks) view.free(p);
    for (const p of blocks) expect(heap.usableSize(p)).toBe(0);
    expect(() => createUmalloc(process.env, { attach: USER_HEAP_BASE + 16 })).toThrow("no heap");
  });
});
