/**
 * Goal: memblock answers as Linux's does, case by case.
 * Method: the cases of Linux's memblock simulator (tools/testing/memblock, tests basic_api, alloc_api,
 * alloc_helpers_api, the range part of alloc_nid_api and alloc_exact_nid_api), each under its own name: the same ranges
 * in, the same ranges expected, written for our interface. A case that Linux runs in both directions is run in both
 * here, and what it runs for a zeroing and for a raw function is run for both: 181 cases, all that Linux runs on a
 * machine with one node.
 *
 * Left out: NUMA nodes and hotplug, which we do not have. The array that grows holds
 * 16-byte regions here (24 bytes in Linux), so it is one page. The end of the world is 4 GiB, not 2^64 − 1.
 */
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createMachine } from "../../kernel/arch/machine.ts";
import { KERNEL_IMAGE_BASE, PAGE_SIZE } from "../../kernel/params.ts";
import { asPhys, NULL } from "../../kernel/types.ts";
import { createMemblock, INIT_MEMBLOCK_REGIONS, type Memblock, type MemblockWindow } from "../../mm/memblock.ts";
import { MEMBLOCK_NOMAP, MEMBLOCK_NONE } from "../../mm/memblock_regions.ts";

const K = 1024;
const M = 1024 * K;
const G = 1024 * M;
const END_OF_WORLD = 4 * G;
/** The cache line of Linux's harness, in which its cases count. */
const LINE = 32;
const { port } = createMachine({ nrCpus: 1, ramBytes: 16 * M, seed: "1", port: "bounds" });

/** The memory of the allocation cases; what Linux's harness gets from malloc. */
const START = 12 * M;
const MEM_SIZE = 16 * K;
const END = START + MEM_SIZE;

/** A range as [base, size]. */
type Range = readonly [base: number, size: number];
/** Several ranges: base, size, base, size … */
const pairs = (...numbers: readonly number[]): Range[] =>
  numbers.flatMap((base, i) => (i % 2 === 0 ? [[base, numbers[i + 1] as number] as const] : []));

let memblock: Memblock;
const reset = (): void => {
  memblock = createMemblock(port, asPhys(KERNEL_IMAGE_BASE));
};
const add = ([base, size]: Range, flags?: number) => memblock.add(asPhys(base), size, flags);
const remove = ([base, size]: Range) => memblock.remove(asPhys(base), size);
const reserve = (base: number, size: number) => memblock.reserve(asPhys(base), size);
const reserveRange = ([base, size]: Range) => reserve(base, size);
const freeRange = ([base, size]: Range) => memblock.free(asPhys(base), size);
const total = (ranges: readonly Range[]): number => ranges.reduce((sum, [, size]) => sum + size, 0);

function expectMemory(...ranges: readonly Range[]): void {
  expect(memblock.memoryRegions().map(({ start, end }) => [start, end - start])).toEqual(ranges);
  expect(memblock.memorySize()).toBe(total(ranges));
  expect(memblock.check()).toBeNull();
}

function expectReserved(...ranges: readonly Range[]): void {
  expect(memblock.reservedRegions().map(({ start, end }) => [start, end - start])).toEqual(ranges);
  expect(memblock.reservedSize()).toBe(total(ranges));
  expect(memblock.check()).toBeNull();
}

/** A byte of the noise that the memory of the allocation cases holds at first. */
const NOISE = 0xa5;
/** Do the cases that are being run ask for memory as it is? */
let isRaw = false;

/** Memory full of noise, as far as the allocation cases see. */
function setupMemory(isBottomUp: boolean): void {
  reset();
  port.fill(START, NOISE, MEM_SIZE);
  add([START, MEM_SIZE]);
  memblock.setBottomUp(isBottomUp);
}

/** Allocates, and looks whether the memory is cleared, or left as it was. */
function alloc(size: number, align: number = LINE, window?: MemblockWindow): number {
  const addr = memblock.alloc(size, align, { ...window, isRaw });
  const expected = new Uint8Array(size).fill(isRaw ? NOISE : 0);
  if (addr !== NULL) expect(port.readBytes(addr, size)).toEqual(expected);
  return addr;
}

const DIRECTIONS = [
  ["top-down", false],
  ["bottom-up", true],
] as const;

/** The cases in `names`, once in each direction. */
function inBothDirections(cases: Readonly<Record<string, () => void>>): void {
  for (const [direction, isBottomUp] of DIRECTIONS) {
    for (const [name, run] of Object.entries(cases)) {
      it(`${name} (${direction})`, () => {
        setupMemory(isBottomUp);
        run();
      });
    }
  }
}

function inOneDirection(isBottomUp: boolean, cases: Readonly<Record<string, () => void>>): void {
  for (const [name, run] of Object.entries(cases)) {
    it(name, () => {
      setupMemory(isBottomUp);
      run();
    });
  }
}

beforeEach(reset);

describe("memblock_initialization", () => {
  it("memblock_initialization_check", () => {
    expectMemory();
    expectReserved();
    expect(memblock.isBottomUp()).toBe(false);
    expect(INIT_MEMBLOCK_REGIONS).toBe(128);
  });
});

/** Cases that are the same for adding memory and for reserving: `put` a few ranges, look at the table. */
function additionCases(what: string, put: (range: Range) => void, expectTable: (...ranges: Range[]) => void): void {
  const cases: Readonly<Record<string, readonly [put: readonly Range[], expected: readonly Range[]]>> = {
    simple: [[[1 * G, 4 * M]], [[1 * G, 4 * M]]],
    disjoint: [pairs(1 * G, 8 * K, 1 * G + 16 * K, 8 * K), pairs(1 * G, 8 * K, 1 * G + 16 * K, 8 * K)],
    overlap_top: [pairs(512 * M, 1 * G, 256 * M, 512 * M), [[256 * M, 1280 * M]]],
    overlap_bottom: [pairs(128 * M, 512 * M, 256 * M, 1 * G), [[128 * M, 1152 * M]]],
    within: [pairs(8 * M, 32 * M, 16 * M, 1 * M), [[8 * M, 32 * M]]],
    twice: [pairs(16 * K, 2 * M, 16 * K, 2 * M), [[16 * K, 2 * M]]],
    between: [pairs(1 * G, 8 * K, 1 * G + 16 * K, 8 * K, 1 * G + 8 * K, 8 * K), [[1 * G, 24 * K]]],
    near_max: [[[END_OF_WORLD - 1 * M, 2 * M]], [[END_OF_WORLD - 1 * M, 1 * M]]],
  };
  for (const [name, [ranges, expected]] of Object.entries(cases)) {
    it(`memblock_${what}_${name}_check`, () => {
      for (const range of ranges) put(range);
      expectTable(...expected);
    });
  }
}

/** Cases that are the same for removing memory and for freeing: `put` some ranges, `take` one, look at the table. */
function removalCases(
  what: string,
  put: (range: Range) => void,
  take: (range: Range) => void,
  expectTable: (...ranges: Range[]) => void,
): void {
  const cases: Readonly<Record<string, readonly [put: readonly Range[], take: Range, expected: readonly Range[]]>> = {
    simple: [pairs(2 * K, 4 * K, 128 * K, 4 * M), [2 * K, 4 * K], [[128 * K, 4 * M]]],
    absent: [[[512 * K, 4 * M]], [64 * M, 1 * G], [[512 * K, 4 * M]]],
    overlap_top: [[[32 * M, 32 * M]], [16 * M, 32 * M], [[48 * M, 16 * M]]],
    overlap_bottom: [[[2 * M, 64 * M]], [32 * M, 256 * M], [[2 * M, 30 * M]]],
    within: [[[1 * M, 32 * M]], [16 * M, 1 * M], pairs(1 * M, 15 * M, 17 * M, 16 * M)],
    only_region: [[[2 * K, 4 * K]], [2 * K, 4 * K], []],
    near_max: [[[END_OF_WORLD - 2 * M, 2 * M]], [END_OF_WORLD - 1 * M, 2 * M], [[END_OF_WORLD - 2 * M, 1 * M]]],
    overlap_two: [pairs(16 * M, 32 * M, 64 * M, 64 * M), [32 * M, 64 * M], pairs(16 * M, 16 * M, 96 * M, 32 * M)],
  };
  for (const [name, [ranges, gone, expected]] of Object.entries(cases)) {
    it(`memblock_${what}_${name}_check`, () => {
      for (const range of ranges) put(range);
      take(gone);
      expectTable(...expected);
    });
  }
}

describe("memblock_add", () => {
  additionCases("add", add, expectMemory);

  it("memblock_add_node_simple_check", () => {
    add([1 * M, 16 * M], MEMBLOCK_NOMAP);
    expectMemory([1 * M, 16 * M]);
    expect(memblock.memoryRegions()[0]?.flags).toBe(MEMBLOCK_NOMAP);
  });

  it("memblock_add_many_check", () => {
    const gap = 64;
    const size = 64;
    memblock.allowResize();
    // Room for the new array and nothing else, then regions that are too small for it.
    add([START, PAGE_SIZE]);
    let base = START + PAGE_SIZE + gap;
    for (let i = 0; i < INIT_MEMBLOCK_REGIONS; i++) {
      expect(add([base, size])).toBe(0);
      base += size + gap;
      expect(memblock.memoryRegions()).toHaveLength(i + 2);
      expect(memblock.memorySize()).toBe(PAGE_SIZE + (i + 1) * size);
    }
    expectReserved([START, PAGE_SIZE]);
    add([16 * K, 16 * K]);
    expect(memblock.memoryRegions()[0]).toEqual({ start: 16 * K, end: 32 * K, flags: MEMBLOCK_NONE });
    expect(memblock.memoryRegions()).toHaveLength(INIT_MEMBLOCK_REGIONS + 2);
    expect(memblock.memorySize()).toBe(PAGE_SIZE + INIT_MEMBLOCK_REGIONS * size + 16 * K);
    expectReserved([START, PAGE_SIZE]);
  });
});

/** After the 129th reservation: the array has grown, and a further range goes to the front. */
function expectGrown(): void {
  const bytes = (INIT_MEMBLOCK_REGIONS + 1) * MEM_SIZE + PAGE_SIZE;
  expect(memblock.reservedRegions()).toHaveLength(INIT_MEMBLOCK_REGIONS + 2);
  expect(memblock.reservedSize()).toBe(bytes);
  reserve(16 * K, 16 * K);
  expect(memblock.reservedRegions()[0]).toEqual({ start: 16 * K, end: 32 * K, flags: MEMBLOCK_NONE });
  expect(memblock.reservedRegions()).toHaveLength(INIT_MEMBLOCK_REGIONS + 3);
  expect(memblock.reservedSize()).toBe(bytes + 16 * K);
  expect(memblock.check()).toBeNull();
}

describe("memblock_reserve", () => {
  additionCases("reserve", reserveRange, expectReserved);

  it("memblock_reserve_many_check", () => {
    memblock.allowResize();
    add([START, MEM_SIZE]);
    for (let i = 0; i <= INIT_MEMBLOCK_REGIONS; i++) {
      expect(reserve(128 * K + i * 2 * MEM_SIZE, MEM_SIZE)).toBe(0);
      if (i < INIT_MEMBLOCK_REGIONS) expect(memblock.reservedRegions()).toHaveLength(i + 1);
    }
    expectGrown();
  });

  it("memblock_reserve_all_locations_check", () => {
    for (let skip = 0; skip <= INIT_MEMBLOCK_REGIONS; skip++) {
      reset();
      memblock.allowResize();
      add([START, MEM_SIZE]);
      for (let i = 0; i <= INIT_MEMBLOCK_REGIONS; i++) {
        if (i !== skip) reserve(128 * K + i * 2 * MEM_SIZE, MEM_SIZE);
      }
      expect(memblock.reservedRegions()).toHaveLength(INIT_MEMBLOCK_REGIONS);
      expect(reserve(128 * K + skip * 2 * MEM_SIZE, MEM_SIZE)).toBe(0);
      expectGrown();
    }
  });

  it("memblock_reserve_many_may_conflict_check", () => {
    const slot = (i: number): Range => [4 * M + i * 2 * MEM_SIZE, MEM_SIZE];
    for (let skip = 1; skip <= INIT_MEMBLOCK_REGIONS + 1; skip++) {
      reset();
      memblock.allowResize();
      // Free memory in two places; one of them is about to be reserved, when there is no room for its record.
      add(slot(0));
      add(slot(skip));
      for (let i = 1; i <= INIT_MEMBLOCK_REGIONS + 1; i++) if (i !== skip) reserveRange(slot(i));
      expect(reserveRange(slot(skip))).toBe(0);
      expect(memblock.reservedRegions()[0]).toMatchObject({
        start: slot(0)[0] + MEM_SIZE - PAGE_SIZE,
        end: slot(0)[0] + MEM_SIZE,
      });
      expectGrown();
    }
  });
});

describe("memblock_remove", () => {
  removalCases("remove", add, remove, expectMemory);
});

describe("memblock_free", () => {
  removalCases("free", reserveRange, freeRange, expectReserved);
});

describe("memblock_bottom_up", () => {
  it("memblock_set_bottom_up_check", () => {
    for (const isOn of [false, true]) {
      memblock.setBottomUp(isOn);
      expect(memblock.isBottomUp()).toBe(isOn);
    }
    reset();
    expect(memblock.isBottomUp()).toBe(false);
  });

  it("memblock_bottom_up_check", () => {
    for (const isOn of [false, false, true, true, false]) {
      memblock.setBottomUp(isOn);
      expect(memblock.isBottomUp()).toBe(isOn);
    }
  });
});

describe("memblock_trim_memory", () => {
  const ALIGN = LINE;
  const cases: Readonly<Record<string, readonly [added: readonly Range[], expected: readonly Range[]]>> = {
    aligned: [[[ALIGN, ALIGN * 4]], [[ALIGN, ALIGN * 4]]],
    too_small: [pairs(ALIGN, ALIGN * 2, ALIGN * 4, ALIGN - 2), [[ALIGN, ALIGN * 2]]],
    unaligned_base: [pairs(ALIGN, ALIGN * 2, ALIGN * 4 + 2, ALIGN * 2 - 2), pairs(ALIGN, ALIGN * 2, ALIGN * 5, ALIGN)],
    unaligned_end: [pairs(ALIGN, ALIGN * 2, ALIGN * 4, ALIGN * 2 - 2), pairs(ALIGN, ALIGN * 2, ALIGN * 4, ALIGN)],
  };
  for (const [name, [added, expected]] of Object.entries(cases)) {
    it(`memblock_trim_memory_${name}_check`, () => {
      for (const range of added) add(range);
      memblock.trim(ALIGN);
      expectMemory(...expected);
    });
  }
});

describe("memblock_overlaps_region", () => {
  it("memblock_overlaps_region_check", () => {
    const far: Range[] = pairs(1 * M, 1 * M, 2 * G, 1 * M);
    const neighbours: Range[] = pairs(1 * G - 1 * M, 1 * M, 1 * G + 4 * M, 1 * M);
    const partial: Range[] = pairs(1 * G - 1 * M, 2 * M, 1 * G + 2 * M, 2 * M);
    const whole: Range[] = pairs(1 * G, 4 * M, 1 * G - 2 * M, 8 * M, 1 * G + 1 * M, 1 * M);
    add([1 * G, 4 * M]);
    reserve(1 * G, 4 * M);
    for (const [base, size] of [...far, ...neighbours]) {
      expect(memblock.overlapsMemory(asPhys(base), size)).toBe(false);
      expect(memblock.isRegionReserved(asPhys(base), size)).toBe(false);
    }
    for (const [base, size] of [...partial, ...whole]) {
      expect(memblock.overlapsMemory(asPhys(base), size)).toBe(true);
      expect(memblock.isRegionReserved(asPhys(base), size)).toBe(true);
    }
  });
});

describe.each([
  ["memblock_alloc", false],
  ["memblock_alloc_raw", true],
] as const)("%s", (_name, raw) => {
  beforeAll(() => {
    isRaw = raw;
  });

  inOneDirection(false, {
    alloc_top_down_simple_check: () => {
      expect(alloc(2)).toBe(END - LINE);
      expectReserved([END - LINE, 2]);
    },
    alloc_top_down_disjoint_check: () => {
      reserve(END - 2, 2);
      alloc(16, LINE * 2);
      expectReserved([END - LINE * 2, 16], [END - 2, 2]);
    },
    alloc_top_down_before_check: () => {
      reserve(END - 512 - LINE, LINE);
      alloc(512);
      expectReserved([END - 512 - LINE, 512 + LINE]);
    },
    alloc_top_down_after_check: () => {
      reserve(END - LINE, 8);
      alloc(512);
      expectReserved([END - LINE - 512, 520]);
    },
    alloc_top_down_second_fit_check: () => {
      reserve(END - 512, 512);
      reserve(END - 1024, 256);
      alloc(1 * K);
      expectReserved([END - 2048, 1280], [END - 512, 512]);
    },
  });

  inOneDirection(true, {
    alloc_bottom_up_simple_check: () => {
      expect(alloc(2)).toBe(START);
      expectReserved([START, 2]);
    },
    alloc_bottom_up_disjoint_check: () => {
      reserve(START + 2, 2);
      alloc(16, LINE * 2);
      expectReserved([START + 2, 2], [START + LINE * 2, 16]);
    },
    alloc_bottom_up_before_check: () => {
      reserve(START + 512, 128);
      alloc(512);
      expectReserved([START, 640]);
    },
    alloc_bottom_up_after_check: () => {
      reserve(START + LINE, 64);
      alloc(512);
      expectReserved([START + LINE, 576]);
    },
    alloc_bottom_up_second_fit_check: () => {
      reserve(START, 512);
      reserve(START + 1024, 256);
      alloc(1 * K);
      expectReserved([START, 512], [START + 1024, 1280]);
    },
  });

  inBothDirections({
    alloc_in_between_generic_check: () => {
      const size = (MEM_SIZE - (2 * LINE + 64)) / 2;
      reserve(END - LINE - size, size);
      reserve(START + LINE, size);
      alloc(64);
      expectReserved([START + LINE, 2 * size + 64]);
    },
    alloc_small_gaps_generic_check: () => {
      for (let base = START; base < END; base += 256 + 1 * K) reserve(base + 256, 1 * K);
      expect(alloc(1 * K)).toBe(NULL);
    },
    alloc_all_reserved_generic_check: () => {
      reserve(START, MEM_SIZE);
      expect(alloc(256)).toBe(NULL);
    },
    alloc_no_space_generic_check: () => {
      reserve(START, MEM_SIZE - 256);
      expect(alloc(1 * K)).toBe(NULL);
    },
    alloc_limited_space_generic_check: () => {
      reserve(START, MEM_SIZE - 256);
      expect(alloc(256)).toBe(END - 256);
      expectReserved([START, MEM_SIZE]);
    },
    alloc_no_memory_generic_check: () => {
      remove([START, MEM_SIZE]);
      expect(alloc(1 * K)).toBe(NULL);
      expectReserved();
    },
    alloc_too_large_generic_check: () => {
      expect(alloc(MEM_SIZE + 2)).toBe(NULL);
      expectReserved();
    },
  });
});

describe("memblock_alloc_from", () => {
  const allocFrom = (size: number, minAddr: number): number => alloc(size, LINE, { minAddr });

  inBothDirections({
    alloc_from_simple_generic_check: () => {
      allocFrom(16, END - LINE);
      expectReserved([END - LINE, 16]);
    },
    alloc_from_misaligned_generic_check: () => {
      allocFrom(32, END - (LINE * 2 - 1));
      expectReserved([END - LINE, 32]);
    },
  });

  inOneDirection(false, {
    alloc_from_top_down_high_addr_check: () => {
      allocFrom(32, END - 16);
      expectReserved([END - LINE, 32]);
    },
    alloc_from_top_down_no_space_above_check: () => {
      const minAddr = END - LINE * 2;
      reserve(minAddr, 2);
      allocFrom(64, minAddr);
      expectReserved([minAddr - 64, 64 + 2]);
    },
    alloc_from_top_down_min_addr_cap_check: () => {
      reserve(START + 64, MEM_SIZE - 64);
      allocFrom(64, START - LINE * 3);
      expectReserved([START, MEM_SIZE]);
    },
  });

  inOneDirection(true, {
    alloc_from_bottom_up_high_addr_check: () => {
      allocFrom(32, END - 8);
      expectReserved([START, 32]);
    },
    alloc_from_bottom_up_no_space_above_check: () => {
      const minAddr = START + 128;
      reserve(minAddr - LINE, END - minAddr);
      allocFrom(64, minAddr);
      expectReserved([START, 64], [minAddr - LINE, END - minAddr]);
    },
    alloc_from_bottom_up_min_addr_cap_check: () => {
      allocFrom(64, START - LINE * 3);
      expectReserved([START, 64]);
    },
  });
});

describe.each([
  ["memblock_alloc_try_nid", false],
  ["memblock_alloc_try_nid_raw", true],
  // With one node, just that node and any node are the same.
  ["memblock_alloc_exact_nid_raw", true],
] as const)("%s, range", (_name, raw) => {
  beforeAll(() => {
    isRaw = raw;
  });

  const allocIn = (size: number, minAddr: number, maxAddr: number): number => alloc(size, LINE, { minAddr, maxAddr });
  /** r1 one line below the last line; r2 of 128 bytes ends `gap` bytes below r1. */
  const R1 = END - LINE * 2;
  const reserveBorders = (gap: number): number => {
    reserve(R1, LINE);
    reserve(R1 - gap - 128, 128);
    return R1 - gap - 128;
  };

  inOneDirection(false, {
    alloc_nid_top_down_simple_check: () => {
      const minAddr = START + LINE * 2;
      allocIn(128, minAddr, minAddr + 512);
      expectReserved([minAddr + 512 - 128, 128]);
    },
    alloc_nid_top_down_end_misaligned_check: () => {
      const minAddr = START + LINE * 2;
      allocIn(128, minAddr, minAddr + 512 + 2);
      expectReserved([minAddr + 512 - 128, 128]);
    },
    alloc_nid_top_down_narrow_range_check: () => {
      const maxAddr = START + 512 + LINE;
      allocIn(256, START + 512, maxAddr);
      expectReserved([maxAddr - 256, 256]);
    },
    alloc_nid_top_down_reserved_with_space_check: () => {
      const r2 = reserveBorders(64 + LINE);
      allocIn(64, r2 + 128, R1);
      expectReserved([r2, 128], [R1 - 64, 64 + LINE]);
    },
    alloc_nid_top_down_reserved_no_space_check: () => {
      const r2 = reserveBorders(LINE);
      allocIn(256, r2 + 128, R1);
      expectReserved([r2 - 256, 384], [R1, LINE]);
    },
    alloc_nid_top_down_cap_max_check: () => {
      allocIn(256, END - 1 * K, END + 256);
      expectReserved([END - 256, 256]);
    },
    alloc_nid_top_down_cap_min_check: () => {
      allocIn(1 * K, START - 256, END);
      expectReserved([END - 1 * K, 1 * K]);
    },
  });

  inOneDirection(true, {
    alloc_nid_bottom_up_simple_check: () => {
      const minAddr = START + LINE * 2;
      allocIn(128, minAddr, minAddr + 512);
      expectReserved([minAddr, 128]);
    },
    alloc_nid_bottom_up_start_misaligned_check: () => {
      allocIn(128, START + 2, START + 2 + 512);
      expectReserved([START + LINE, 128]);
    },
    alloc_nid_bottom_up_narrow_range_check: () => {
      allocIn(256, START + 512, START + 512 + LINE);
      expectReserved([START, 256]);
    },
    alloc_nid_bottom_up_reserved_with_space_check: () => {
      const r2 = reserveBorders(64 + LINE);
      allocIn(64, r2 + 128, R1);
      expectReserved([r2, 128 + 64], [R1, LINE]);
    },
    alloc_nid_bottom_up_reserved_no_space_check: () => {
      const r2 = reserveBorders(LINE);
      allocIn(256, r2 + 128, R1);
      expectReserved([START, 256], [r2, 128], [R1, LINE]);
    },
    alloc_nid_bottom_up_cap_max_check: () => {
      allocIn(256, START + 1 * K, END + 256);
      expectReserved([START + 1 * K, 256]);
    },
    alloc_nid_bottom_up_cap_min_check: () => {
      allocIn(1 * K, START, END - 256);
      expectReserved([START, 1 * K]);
    },
  });

  inBothDirections({
    alloc_nid_exact_address_generic_check: () => {
      allocIn(1 * K, START + LINE, START + LINE + 1 * K);
      expectReserved([START + LINE, 1 * K]);
    },
    alloc_nid_low_max_generic_check: () => {
      expect(allocIn(1 * K, START, START + LINE)).toBe(NULL);
    },
    alloc_nid_min_reserved_generic_check: () => {
      reserve(END - 64 - 128, 128);
      allocIn(64, END - 64, END);
      expectReserved([END - 64 - 128, 192]);
    },
    alloc_nid_max_reserved_generic_check: () => {
      reserve(END - 64, 64);
      allocIn(128, END - 64 - 128, END - 64);
      expectReserved([END - 64 - 128, 192]);
    },
    alloc_nid_reserved_full_merge_generic_check: () => {
      const r2 = reserveBorders(64);
      allocIn(64, r2 + 128, R1);
      expectReserved([r2, 128 + 64 + LINE]);
    },
    alloc_nid_reserved_all_generic_check: () => {
      reserve(END - LINE, LINE);
      reserve(START, MEM_SIZE - 2 * LINE);
      expect(allocIn(256, END - 2 * LINE, END - LINE)).toBe(NULL);
    },
  });
});
