/**
 * Goal: the unit map and the bins' arithmetic, at their edges. Method: exhaustive over sizes and positions, against
 * the definition.
 */
import { describe, expect, it } from "vitest";
import { USER_HEAP_BASE } from "../../kernel/params.ts";
import { SYS_brk } from "../../kernel/uapi/syscall.ts";
import { binOf } from "../../userland/umalloc_bins.ts";
import {
  EXACT_BINS,
  firstUnitOf,
  HEADER_UNITS,
  lowestBit,
  MAX_CHUNK_UNITS,
  NR_BINS,
  SEGMENT_BYTES,
  segmentEnd,
  UNITS_PER_SEGMENT,
  unitsFor,
} from "../../userland/umalloc_layout.ts";
import {
  createUnitMap,
  gatherBits,
  isLong,
  spreadBits,
  UNIT_FREE,
  UNIT_INNER,
  UNIT_USED,
} from "../../userland/umalloc_map.ts";
import { createFakeProcess } from "../support/fake_env.ts";

function mapOfTwoSegments() {
  const process = createFakeProcess();
  process.env.syscall(SYS_brk, USER_HEAP_BASE + 2 * SEGMENT_BYTES);
  return createUnitMap(process.env.mem, USER_HEAP_BASE);
}

describe("unit map", () => {
  it("MAP-3 a spread size comes back, and none of its codes is UNIT_USED, its last is UNIT_INNER", () => {
    for (let size = 1; size <= MAX_CHUNK_UNITS; size++) {
      const word = spreadBits(size);
      if (gatherBits(word) !== size || (word & 0x5555_5555) !== 0 || word >>> 30 !== 0) expect.fail(`size ${size}`);
    }
  });

  it("usedUnits() finds every size at every place in a map word", () => {
    const map = mapOfTwoSegments();
    const mem = { wordOf: (u: number) => map.wordAddress(u) };
    expect(mem.wordOf(0)).toBe(USER_HEAP_BASE);
    for (let place = 0; place < 16; place++) {
      for (const units of [1, 2, 14, 15, 16, 17, 18, 30, 31, 32, 33, 47, 48, 49, 100, 1000]) {
        const u = firstUnitOf(1) + 16 + place;
        map.markUsed(u, units);
        map.setCode(u + units, UNIT_FREE);
        expect(sizeAt(u), `${units} units at ${place}`).toBe(units);
        map.clearSize(u, units);
        map.setCode(u, UNIT_INNER);
        map.setCode(u + units, UNIT_INNER);
        expect(map.isLongWord(u)).toBe(false);
        for (let i = u; i <= u + units; i++) expect(map.codeOf(i)).toBe(UNIT_INNER);
      }
    }
    function sizeAt(u: number): number {
      let word = 0;
      const first = u - (u % 16);
      for (let i = 15; i >= 0; i--) word = word * 4 + map.codeOf(first + i);
      return map.usedUnits(u, word);
    }
  });

  it("a chunk may end with its segment, whatever its length", () => {
    const map = mapOfTwoSegments();
    for (const units of [1, 5, 16, 17, 40, MAX_CHUNK_UNITS]) {
      const u = 2 * UNITS_PER_SEGMENT - units;
      map.markUsed(u, units);
      const shift = (u % 16) * 2;
      expect(map.usedUnits(u, (UNIT_USED << shift) >>> 0)).toBe(units);
      map.clearSize(u, units);
      map.setCode(u, UNIT_INNER);
    }
  });

  it("isLong() is: covers the whole word behind its first", () => {
    for (let place = 0; place < 16; place++) {
      for (let units = 1; units < 50; units++) expect(isLong(place, units)).toBe(place + units >= 32);
    }
  });

  it("a map that makes no sense is 0 units, not a number to work with", () => {
    const map = mapOfTwoSegments();
    expect(map.usedUnits(firstUnitOf(1), UNIT_USED)).toBe(0);
  });
});

describe("bins", () => {
  it("BIN-1 larger chunks are in the same bin or a later one; exact below 32 units; 16 bins an octave above", () => {
    let nrInBin = 0;
    for (let units = 1; units <= MAX_CHUNK_UNITS; units++) {
      const bin = binOf(units);
      if (units < EXACT_BINS) expect(bin).toBe(units);
      else if (bin !== binOf(units - 1)) {
        if (bin !== binOf(units - 1) + 1) expect.fail(`a bin is skipped at ${units}`);
        nrInBin = 0;
      }
      if (++nrInBin > units / 16 + 1 && units >= EXACT_BINS) expect.fail(`bin ${bin} is too wide`);
    }
    expect(binOf(MAX_CHUNK_UNITS)).toBeLessThan(NR_BINS);
  });
});

describe("layout", () => {
  it("counts units", () => {
    expect([0, 1, 16, 17, 32, 33, 2 ** 34].map(unitsFor)).toEqual([1, 1, 1, 2, 2, 3, 2 ** 30]);
    expect([1, 2, 3, 4, 0x8000_0000, -0x8000_0000].map(lowestBit)).toEqual([0, 1, 0, 2, 31, 31]);
    expect(segmentEnd(0)).toBe(UNITS_PER_SEGMENT);
    expect(segmentEnd(UNITS_PER_SEGMENT - 1)).toBe(UNITS_PER_SEGMENT);
    expect(segmentEnd(UNITS_PER_SEGMENT)).toBe(2 * UNITS_PER_SEGMENT);
    expect(firstUnitOf(3)).toBe(3 * UNITS_PER_SEGMENT + HEADER_UNITS);
  });
});
