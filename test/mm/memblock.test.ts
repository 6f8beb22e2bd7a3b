/**
 * Goal: memblock keeps its invariants MB-1 … MB-11 under any sequence of calls.
 * Method: one test per rule; a model test against two arrays of flags, one entry per 256 bytes of a small space, with
 * everything observable compared after each step; and a test with tables of two regions, so that they grow all the
 * time, in which each allocation and each removed range carries a pattern that nobody may touch.
 */
import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import { pcFirmwareMap } from "../../kernel/arch/firmware_map.ts";
import { createMachine } from "../../kernel/arch/machine.ts";
import { KernelBug } from "../../kernel/bug.ts";
import { KERNEL_IMAGE_BASE, PAGE_SIZE } from "../../kernel/params.ts";
import { asPhys, NULL } from "../../kernel/types.ts";
import { ENOMEM } from "../../kernel/uapi/errno.ts";
import { createMemblock, type Memblock, type MemblockOptions, memblockTableBytes } from "../../mm/memblock.ts";
import { MEMBLOCK_NOMAP, MEMBLOCK_NONE, type MemblockRegion } from "../../mm/memblock_regions.ts";

const K = 1024;
const M = 1024 * K;
const GiB4 = 2 ** 32;
const { port } = createMachine({ nrCpus: 1, ramBytes: 8 * M, seed: "1", port: "bounds" });
const TABLE = asPhys(KERNEL_IMAGE_BASE);
/** RAM for the unit tests: 64 KiB of noise. */
const START = 2 * M;
const END = START + 64 * K;

let memblock: Memblock;
const create = (options?: MemblockOptions): Memblock => createMemblock(port, TABLE, options);
const add = (start: number, end: number, flags?: number): number => memblock.add(asPhys(start), end - start, flags);
const remove = (start: number, end: number): number => memblock.remove(asPhys(start), end - start);
const reserve = (start: number, end: number): number => memblock.reserve(asPhys(start), end - start);
const free = (start: number, end: number): number => memblock.free(asPhys(start), end - start);
const ranges = (regions: readonly MemblockRegion[]): number[][] => regions.map(({ start, end }) => [start, end]);
const memory = (): number[][] => ranges(memblock.memoryRegions());
const reserved = (): number[][] => ranges(memblock.reservedRegions());

function freePages(): number[][] {
  const pages: number[][] = [];
  memblock.forEachFreeRange((startPfn, endPfn) => pages.push([startPfn, endPfn]));
  return pages;
}

beforeEach(() => {
  memblock = create();
  port.fill(START, 0xa5, END - START);
});

describe("memblock rules", () => {
  it("MB-1 MB-2 a range over several regions and gaps gives one region", () => {
    for (const i of [3, 1, 5]) add(i * M, i * M + 64 * K);
    expect(memory()).toEqual([1, 3, 5].map((i) => [i * M, i * M + 64 * K]));
    add(1 * M + 4 * K, 6 * M);
    expect(memory()).toEqual([[1 * M, 6 * M]]);
  });

  it("MB-2 neighbours with different flags stay apart, and known memory keeps its flags", () => {
    add(2 * M, 3 * M, MEMBLOCK_NOMAP);
    add(1 * M, 4 * M);
    expect(memblock.memoryRegions()).toEqual([
      { start: 1 * M, end: 2 * M, flags: MEMBLOCK_NONE },
      { start: 2 * M, end: 3 * M, flags: MEMBLOCK_NOMAP },
      { start: 3 * M, end: 4 * M, flags: MEMBLOCK_NONE },
    ]);
    expect(memblock.check()).toBeNull();
  });

  it("MB-3 an allocation is never a hole, reserved, or not to be mapped", () => {
    add(START, START + 8 * K);
    add(START + 8 * K, START + 16 * K, MEMBLOCK_NOMAP);
    add(START + 32 * K, END);
    reserve(START + 40 * K, END);
    expect(memblock.alloc(8 * K, 1)).toBe(START + 32 * K);
    expect(memblock.alloc(8 * K, 1)).toBe(START);
    expect(memblock.alloc(1, 1)).toBe(NULL);
  });

  it("MB-3 allocExact() takes free memory only", () => {
    add(START, END);
    reserve(START + 8 * K, START + 12 * K);
    expect(memblock.allocExact(asPhys(START + 4 * K), 4 * K)).toBe(START + 4 * K);
    expect(memblock.allocExact(asPhys(START + 4 * K), 1)).toBe(NULL);
    expect(memblock.allocExact(asPhys(START), 4 * K + 1)).toBe(NULL);
    expect(memblock.allocExact(asPhys(END - 4 * K), 4 * K + 1)).toBe(NULL);
    expect(reserved()).toEqual([[START + 4 * K, START + 12 * K]]);
  });

  it("MB-4 the upper limit is kept, the lower one given up", () => {
    add(START, END);
    const window = { minAddr: START + 32 * K, maxAddr: START + 36 * K };
    expect(memblock.alloc(4 * K, 4 * K, window)).toBe(START + 32 * K);
    expect(memblock.alloc(4 * K, 4 * K, window)).toBe(START + 28 * K);
    expect(memblock.alloc(4 * K, 4 * K, { maxAddr: START + 4 * K - 1 })).toBe(NULL);
  });

  it("MB-4 results are multiples of large alignments", () => {
    add(1 * M + 4 * K, 7 * M + 12 * K);
    expect(memblock.alloc(64, 2 * M)).toBe(6 * M);
    expect(memblock.alloc(64, 2 * M, { topDown: false })).toBe(2 * M);
    expect(memblock.alloc(64, 2 ** 31)).toBe(NULL);
  });

  it("MB-5 the direction can be chosen for all calls and for one", () => {
    add(START, END);
    expect(memblock.alloc(4 * K, 4 * K)).toBe(END - 4 * K);
    memblock.setBottomUp(true);
    expect(memblock.alloc(4 * K, 4 * K)).toBe(START);
    expect(memblock.alloc(4 * K, 4 * K, { topDown: true })).toBe(END - 8 * K);
  });

  it("MB-7 page 0 is neither allocated nor handed over", () => {
    add(0, 8 * K);
    memblock.setBottomUp(true);
    expect(freePages()).toEqual([[1, 2]]);
    expect(memblock.alloc(4 * K, 1)).toBe(4 * K);
    expect(memblock.alloc(1, 1)).toBe(NULL);
    expect(memblock.allocExact(asPhys(4 * K - 1), 1)).toBe(NULL);
  });

  it("MB-8 ranges end at 4 GiB, to the last byte", () => {
    add(GiB4 - 8 * K, GiB4 + 8 * K);
    reserve(GiB4 - 4 * K, GiB4 * 4);
    expect(memory()).toEqual([[GiB4 - 8 * K, GiB4]]);
    expect(reserved()).toEqual([[GiB4 - 4 * K, GiB4]]);
    expect(memblock.isMemory(asPhys(GiB4 - 1))).toBe(true);
    expect([memblock.endOfDram(), memblock.memorySize()]).toEqual([GiB4, 8 * K]);
    expect(freePages()).toEqual([[GiB4 / PAGE_SIZE - 2, GiB4 / PAGE_SIZE - 1]]);
    remove(0, GiB4 * 2);
    expect([memblock.startOfDram(), memblock.endOfDram(), memblock.memorySize()]).toEqual([0, 0, 0]);
  });

  it("MB-9 a full table refuses before allowResize(), and nothing has changed", () => {
    memblock = create({ nrRegions: 2 });
    add(START, END);
    reserve(START, START + 64);
    reserve(START + 128, START + 192);
    const before = reserved();
    expect(reserve(START + 256, START + 320)).toBe(-ENOMEM);
    expect(free(START + 16, START + 32)).toBe(-ENOMEM);
    expect(memblock.alloc(64, 64)).toBe(NULL);
    expect(reserved()).toEqual(before);
    // What needs no further record still works.
    expect(reserve(START + 16, START + 64)).toBe(0);
    expect(free(START + 16, START + 192)).toBe(0);
    expect(reserved()).toEqual([[START, START + 16]]);
  });

  it("MB-9 a full table refuses when there is no page for the new array", () => {
    const lines: string[] = [];
    memblock = create({ nrRegions: 2, log: (line) => lines.push(line) });
    memblock.allowResize();
    for (const i of [0, 1]) add(START + i * 8 * K, START + i * 8 * K + 2 * K);
    expect(add(START + 32 * K, START + 34 * K)).toBe(-ENOMEM);
    expect(memory()).toHaveLength(2);
    expect(lines.at(-1)).toBe("memblock: Failed to double memory array from 2 to 4 entries !");
  });

  it("MB-9 the new array is not taken from memory that is just being removed", () => {
    memblock = create({ nrRegions: 2 });
    memblock.allowResize();
    add(START, START + 16 * K);
    add(START + 32 * K, END);
    // Splits the upper region: a third record. The highest free page is inside the range that goes.
    remove(START + 36 * K, END - 64);
    expect(memory()).toEqual([
      [START, START + 16 * K],
      [START + 32 * K, START + 36 * K],
      [END - 64, END],
    ]);
    expect(reserved()).toEqual([[START + 32 * K, START + 36 * K]]);
    expect(port.readBytes(START + 36 * K, 24 * K).every((byte) => byte === 0xa5)).toBe(true);
  });

  it("MB-9 outgrown arrays are given back", () => {
    memblock = create({ nrRegions: 2 });
    memblock.allowResize();
    add(START, END);
    // From 2 to 512 records, in eight steps; only the last array, of two pages, is still there.
    for (let i = 0; i < 300; i++) expect(reserve(4 * M + i * 64, 4 * M + i * 64 + 8)).toBe(0);
    expect(memblock.reservedSize()).toBe(300 * 8 + 2 * PAGE_SIZE);
    expect(memblock.check()).toBeNull();
  });

  it("MB-10 whole free pages are handed over, rounded inwards, and those of the grown arrays at the end", () => {
    memblock = create({ nrRegions: 2 });
    memblock.allowResize();
    add(START + 100, END - 100);
    reserve(START + 12 * K + 8, START + 16 * K + 8);
    reserve(START + 20 * K, START + 20 * K + 1);
    reserve(START + 24 * K - 1, START + 24 * K);
    const first = START / PAGE_SIZE;
    // The array went to the highest whole page, 14; pages 0 and 15 are RAM in part only.
    expect(freePages()).toEqual([
      [first + 1, first + 3],
      [first + 6, first + 14],
    ]);
    const late: number[][] = [];
    memblock.discard((startPfn, endPfn) => late.push([startPfn, endPfn]));
    expect(late).toEqual([[first + 14, first + 15]]);
  });

  it("MB-10 after the hand-over each call is a kernel bug", () => {
    add(START, END);
    memblock.discard(() => expect.unreachable("the arrays are static"));
    const base = asPhys(START);
    const calls: (() => unknown)[] = [
      () => memblock.add(base, 1),
      () => memblock.remove(base, 1),
      () => memblock.reserve(base, 1),
      () => memblock.free(base, 1),
      () => memblock.alloc(1, 1),
      () => memblock.allocExact(base, 1),
      () => memblock.isMemory(base),
      () => memblock.isReserved(base),
      () => memblock.overlapsMemory(base, 1),
      () => memblock.isRegionReserved(base, 1),
      () => memblock.setBottomUp(true),
      () => memblock.isBottomUp(),
      () => memblock.allowResize(),
      () => memblock.trim(8),
      () => memblock.memorySize(),
      () => memblock.reservedSize(),
      () => memblock.startOfDram(),
      () => memblock.endOfDram(),
      () => memblock.forEachFreeRange(() => {}),
      () => memblock.discard(() => {}),
      () => memblock.memoryRegions(),
      () => memblock.reservedRegions(),
      () => memblock.dump(),
      () => memblock.check(),
    ];
    expect(calls).toHaveLength(Object.keys(memblock).length);
    for (const call of calls) expect(call, String(call)).toThrow(KernelBug);
  });

  it("MB-11 memory comes zeroed, and no byte beside it", () => {
    add(START, END);
    const addr = memblock.alloc(100, 64);
    expect(port.readBytes(addr, 100).every((byte) => byte === 0)).toBe(true);
    expect(port.ld8(addr - 1)).toBe(0xa5);
    expect(port.ld8(addr + 100)).toBe(0xa5);
  });

  it("MB-11 raw memory is left as it is", () => {
    add(START, END);
    const addr = memblock.alloc(100, 64, { isRaw: true });
    expect(port.readBytes(addr, 100).every((byte) => byte === 0xa5)).toBe(true);
    expect(memblock.isReserved(addr)).toBe(true);
  });

  it("refuses what makes no sense: no bytes, an odd alignment, tables that cannot grow", () => {
    add(START, END);
    expect(() => memblock.alloc(0, 8)).toThrow(KernelBug);
    expect(() => memblock.alloc(8, 24)).toThrow(KernelBug);
    expect(() => memblock.alloc(8, 0)).toThrow(KernelBug);
    expect(() => memblock.trim(3)).toThrow(KernelBug);
    expect(() => memblock.allocExact(asPhys(START), 0)).toThrow(KernelBug);
    expect(() => create({ nrRegions: 1 })).toThrow(KernelBug);
  });

  it("an empty range changes nothing", () => {
    for (const change of [add, remove, reserve, free]) expect(change(START, START)).toBe(0);
    expect([memory(), reserved()]).toEqual([[], []]);
  });

  it("its tables fit what memblockTableBytes() says", () => {
    const end = TABLE + memblockTableBytes(3);
    port.st32(end, 0xdead_beef);
    memblock = create({ nrRegions: 3 });
    for (const i of [0, 1, 2]) add(START + i * 8 * K, START + i * 8 * K + 8);
    for (const i of [0, 1, 2]) reserve(START + i * 8 * K, START + i * 8 * K + 8);
    expect(memory()).toEqual(reserved());
    expect(memory()).toHaveLength(3);
    expect(port.ld32(end)).toBe(0xdead_beef);
  });

  it("takes in the firmware map of a PC", () => {
    for (const { start, end, type } of pcFirmwareMap(8 * M)) if (type === 1) add(start, end);
    reserve(KERNEL_IMAGE_BASE, KERNEL_IMAGE_BASE + 16 * K);
    expect(memory()).toEqual([
      [0, 0x9_fc00],
      [1 * M, 8 * M],
    ]);
    expect(freePages()).toEqual([
      [1, 0x9f],
      [0x104, 0x800],
    ]);
  });
});

describe("memblock output", () => {
  it("dump() prints what Linux prints", () => {
    add(0, 0x9_fc00);
    add(1 * M, 8 * M, MEMBLOCK_NOMAP);
    reserve(1 * M, 1 * M + 4 * K);
    expect(memblock.dump()).toEqual([
      "MEMBLOCK configuration:",
      " memory size = 0x000000000079fc00 reserved size = 0x0000000000001000",
      " memory.cnt  = 0x2",
      " memory[0x0]\t[0x0000000000000000-0x000000000009fbff], 0x000000000009fc00 bytes flags: 0x0",
      " memory[0x1]\t[0x0000000000100000-0x00000000007fffff], 0x0000000000700000 bytes flags: 0x4",
      " reserved.cnt  = 0x1",
      " reserved[0x0]\t[0x0000000000100000-0x0000000000100fff], 0x0000000000001000 bytes flags: 0x0",
    ]);
  });

  it("memblock=debug names each change", () => {
    const lines: string[] = [];
    memblock = create({ nrRegions: 2, log: (line) => lines.push(line) });
    memblock.allowResize();
    add(START, START + 64 * K);
    memblock.alloc(4 * K, 4 * K);
    reserve(START, START + 64);
    free(START, START + 64);
    remove(START, START + 4 * K);
    expect(lines).toEqual([
      "memblock_add: [0x0000000000200000-0x000000000020ffff]",
      "memblock_alloc_try_nid: 4096 bytes align=0x1000 nid=-1 from=0x0000000000000000 max_addr=0x0000000000000000",
      "memblock_reserve: [0x000000000020f000-0x000000000020ffff]",
      "memblock_reserve: [0x0000000000200000-0x000000000020003f]",
      "memblock_phys_free: [0x0000000000200000-0x000000000020003f]",
      "memblock_remove: [0x0000000000200000-0x0000000000200fff]",
    ]);
    lines.length = 0;
    for (const i of [1, 2]) reserve(START + i * 4 * K, START + i * 4 * K + 8);
    expect(lines[2]).toBe("memblock: reserved is doubled to 4 at [0x000000000020e000-0x000000000020efff]");
  });
});

describe("memblock check()", () => {
  const ARRAY = TABLE + 64;
  const [START_AT, END_AT] = [0, 8];

  it("MB-1 MB-2 reports overlap, emptiness and unmerged neighbours", () => {
    add(START, START + 8);
    add(START + 16, START + 24);
    port.stF64(ARRAY + END_AT, START + 17);
    expect(memblock.check()).toMatch(/^MB-1 memory\[1\] overlaps/);
    port.stF64(ARRAY + END_AT, START + 16);
    expect(memblock.check()).toMatch(/^MB-2 memory\[1\]/);
    port.st32(ARRAY + START_AT, START + 16);
    expect(memblock.check()).toMatch(/^MB-1 memory\[0\] is empty/);
  });

  it("MB-9 reports an array that somebody freed", () => {
    memblock = create({ nrRegions: 2 });
    memblock.allowResize();
    add(START, END);
    for (const i of [0, 2, 4]) reserve(START + i * 64, START + i * 64 + 64);
    expect(memblock.check()).toBeNull();
    free(END - 4 * K, END);
    expect(memblock.check()).toBe("MB-9 the reserved array is not reserved");
  });
});

// ── Model ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const UNIT = 256;
const NR_UNITS = 128;
const UNITS_PER_PAGE = PAGE_SIZE / UNIT;

/** The oracle: for each unit of [0, 32 KiB), its memory flags (undefined: no memory), and whether it is reserved. */
interface Model {
  readonly memory: (number | undefined)[];
  readonly reserved: boolean[];
}

const isFree = (model: Model, unit: number): boolean => model.memory[unit] === MEMBLOCK_NONE && !model.reserved[unit];

/** Maximal runs of equal entries that `isIn` accepts, as regions. */
function runs<T>(entries: readonly T[], isIn: (entry: T) => boolean): { start: number; end: number; entry: T }[] {
  const found: { start: number; end: number; entry: T }[] = [];
  entries.forEach((entry, i) => {
    const last = found.at(-1);
    if (!isIn(entry)) return;
    if (last && last.end === i * UNIT && last.entry === entry) last.end += UNIT;
    else found.push({ start: i * UNIT, end: (i + 1) * UNIT, entry });
  });
  return found;
}

function expectSame(model: Model): void {
  expect(memblock.check()).toBeNull();
  const wantedMemory = runs(model.memory, (flags) => flags !== undefined);
  expect(memblock.memoryRegions()).toEqual(wantedMemory.map(({ start, end, entry }) => ({ start, end, flags: entry })));
  const wantedReserved = runs(model.reserved, (taken) => taken).map(({ start, end }) => [start, end]);
  expect(reserved()).toEqual(wantedReserved);
  expect(memblock.memorySize()).toBe(model.memory.filter((flags) => flags !== undefined).length * UNIT);
  expect(memblock.reservedSize()).toBe(model.reserved.filter(Boolean).length * UNIT);
  expect(memblock.startOfDram()).toBe(wantedMemory[0]?.start ?? 0);
  expect(memblock.endOfDram()).toBe(wantedMemory.at(-1)?.end ?? 0);
  const pages = Array.from({ length: NR_UNITS / UNITS_PER_PAGE }, (_, pfn) => pfn).filter(
    (pfn) =>
      pfn > 0 &&
      Array.from({ length: UNITS_PER_PAGE }, (_, i) => pfn * UNITS_PER_PAGE + i).every((u) => isFree(model, u)),
  );
  expect(freePages().flatMap(([from, to]) => range(from as number, to as number))).toEqual(pages);
  for (let unit = 0; unit < NR_UNITS; unit += 7) {
    expect(memblock.isMemory(asPhys(unit * UNIT + 255))).toBe(model.memory[unit] !== undefined);
    expect(memblock.isReserved(asPhys(unit * UNIT))).toBe(model.reserved[unit]);
  }
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

/** By trial: the first candidate in the direction that is free, in the window, aligned and not in page 0. */
function modelAlloc(model: Model, size: number, align: number, min: number, max: number, topDown: boolean): number {
  const fits = (start: number): boolean =>
    start >= Math.max(min, UNITS_PER_PAGE) &&
    start + size <= Math.min(max, NR_UNITS) &&
    range(start, start + size).every((unit) => isFree(model, unit));
  const candidates = range(0, NR_UNITS).filter((unit) => unit % align === 0 && fits(unit));
  return (topDown ? candidates.at(-1) : candidates[0]) ?? 0;
}

type Step = (model: Model) => void;
const unitAt = fc.nat({ max: NR_UNITS });
const nrUnits = fc.nat({ max: 40 });

/** Base and size of a call, and the units that it covers. */
const span = fc
  .tuple(fc.nat({ max: NR_UNITS - 1 }), nrUnits)
  .map(([first, n]) => ({
    base: asPhys(first * UNIT),
    size: n * UNIT,
    units: range(first, Math.min(first + n, NR_UNITS)),
  }))
  // The space ends at unit 128: cut what would leave it.
  .map(({ base, units }) => ({ base, size: units.length * UNIT, units }));

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.tuple(span, fc.constantFrom(MEMBLOCK_NONE, MEMBLOCK_NONE, MEMBLOCK_NOMAP)).map(
    ([{ base, size, units }, flags]): Step =>
      (model) => {
        expect(memblock.add(base, size, flags)).toBe(0);
        for (const unit of units) model.memory[unit] ??= flags;
      },
  ),
  span.map(
    ({ base, size, units }): Step =>
      (model) => {
        expect(memblock.remove(base, size)).toBe(0);
        for (const unit of units) model.memory[unit] = undefined;
      },
  ),
  span.map(
    ({ base, size, units }): Step =>
      (model) => {
        const isAnyTaken = units.some((unit) => model.reserved[unit]);
        expect(size > 0 && memblock.isRegionReserved(base, size)).toBe(isAnyTaken);
        expect(memblock.reserve(base, size)).toBe(0);
        for (const unit of units) model.reserved[unit] = true;
      },
  ),
  span.map(
    ({ base, size, units }): Step =>
      (model) => {
        expect(memblock.free(base, size)).toBe(0);
        for (const unit of units) model.reserved[unit] = false;
      },
  ),
  span.map(
    ({ base, size, units }): Step =>
      (model) => {
        if (size === 0) return;
        const isGranted = base >= PAGE_SIZE && units.every((unit) => isFree(model, unit));
        expect(memblock.allocExact(base, size)).toBe(isGranted ? base : NULL);
        if (isGranted) for (const unit of units) model.reserved[unit] = true;
      },
  ),
  fc.tuple(fc.integer({ min: 1, max: 24 }), fc.constantFrom(1, 2, 4, 16, 32), unitAt, unitAt, fc.boolean()).map(
    ([size, align, min, max, topDown]): Step =>
      (model) => {
        port.fill(0, 0xa5, NR_UNITS * UNIT);
        const strict = modelAlloc(model, size, align, min, max, topDown);
        const wanted = strict === 0 ? modelAlloc(model, size, align, 0, max, topDown) : strict;
        memblock.setBottomUp(!topDown);
        const addr = memblock.alloc(size * UNIT, align * UNIT, { minAddr: min * UNIT, maxAddr: max * UNIT });
        expect(addr).toBe(wanted * UNIT);
        if (addr === NULL) return;
        const cleared = Array.from(port.readBytes(0, NR_UNITS * UNIT), (byte, i) => (byte === 0 ? i : -1));
        expect(cleared.filter((i) => i >= 0)).toEqual(range(addr, addr + size * UNIT));
        for (const unit of range(wanted, wanted + size)) model.reserved[unit] = true;
      },
  ),
  fc.constantFrom(1, 2, 4, 16).map(
    (align): Step =>
      (model) => {
        memblock.trim(align * UNIT);
        for (const { start, end } of runs(model.memory, (flags) => flags !== undefined)) {
          const [first, last] = [start / UNIT, end / UNIT];
          const kept = range(Math.ceil(first / align) * align, Math.floor(last / align) * align);
          for (const unit of range(first, last)) if (!kept.includes(unit)) model.memory[unit] = undefined;
        }
      },
  ),
);

describe("memblock against a model", () => {
  it("MB-1 … MB-8, MB-10, MB-11 hold after each of random operations", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        memblock = create();
        const model: Model = {
          memory: new Array<number | undefined>(NR_UNITS).fill(undefined),
          reserved: new Array<boolean>(NR_UNITS).fill(false),
        };
        for (const run of steps) {
          run(model);
          expectSame(model);
        }
      }),
      { numRuns: 200 },
    );
  });

  it("MB-3 MB-9 tables that start with two regions grow without touching anybody's memory", () => {
    const action = fc.record({
      name: fc.constantFrom("alloc", "alloc", "alloc", "free", "freePart", "remove"),
      size: fc.integer({ min: 1, max: 700 }),
      at: fc.nat(),
      topDown: fc.boolean(),
    });
    fc.assert(fc.property(fc.array(action, { minLength: 20, maxLength: 150 }), growthRun), { numRuns: 100 });
  });
});

interface Action {
  readonly name: string;
  readonly size: number;
  readonly at: number;
  readonly topDown: boolean;
}

/** Everything that has an owner, allocated or removed from memory, holds that owner's byte until the end. */
function growthRun(actions: readonly Action[]): void {
  const owned: { start: number; end: number; byte: number; isAllocated: boolean }[] = [];
  memblock = create({ nrRegions: 2 });
  memblock.allowResize();
  add(START, END);
  actions.forEach(({ name, size, at, topDown }, i) => {
    const byte = 1 + (i % 255);
    const own = (start: number, end: number, isAllocated: boolean): void => {
      port.fill(start, byte, end - start);
      owned.push({ start, end, byte, isAllocated });
    };
    memblock.setBottomUp(!topDown);
    if (name === "alloc") {
      const addr = memblock.alloc(size, 64);
      if (addr !== NULL) own(addr, addr + size, true);
    } else if (name === "remove") {
      const start = START + (at % (END - START - size));
      if (memblock.isRegionReserved(asPhys(start), size)) return;
      if (owned.some((one) => one.start < start + size && start < one.end)) return;
      if (remove(start, start + size) === 0) own(start, start + size, false);
    } else {
      const allocated = owned.filter((one) => one.isAllocated);
      const victim = allocated[at % Math.max(1, allocated.length)];
      if (!victim) return;
      const third = name === "free" ? 0 : Math.floor((victim.end - victim.start) / 3);
      const [from, to] = [victim.start + third, victim.end - third];
      if (free(from, to) !== 0) return;
      owned.splice(owned.indexOf(victim), 1);
      if (victim.start < from) owned.push({ ...victim, end: from }, { ...victim, start: to });
    }
    expectUntouched(owned);
  });
}

function expectUntouched(owned: readonly { start: number; end: number; byte: number; isAllocated: boolean }[]): void {
  expect(memblock.check()).toBeNull();
  for (const { start, end, byte, isAllocated } of owned) {
    expect(port.readBytes(start, end - start).every((b) => b === byte)).toBe(true);
    for (const addr of [start, end - 1]) {
      expect(memblock.isReserved(asPhys(addr))).toBe(isAllocated);
      expect(memblock.isMemory(asPhys(addr))).toBe(isAllocated);
    }
  }
}
