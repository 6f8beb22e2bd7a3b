/**
 * Lab 1, the checks about the hand-over, the books and the cost.
 */

import type { Check } from "../../kit/lab_code.ts";
import { RAM } from "../given/api.ts";
import { Builder, GRAIN, oneRow, rowsOf } from "./programs.ts";

const LIST: readonly Check[] = [
  {
    id: "only-free",
    rule: "BOOT-8",
    title: "a page is handed over only if all of it is free memory",
    cause: "the ends of a free range are rounded outwards, or something that is taken is not taken out of the list",
    kinds: ["page-hole", "page-reserved", "page-used"],
    program(random, nr) {
      const odd = (): number => 1 + random.below(0xfff);
      const builder = rowsOf(2, 0xa000 + odd(), 0x2000, 0x1000 + odd());
      if (nr % 2 === 0) builder.reserve(0x6000 + odd(), 0x8000 + odd());
      // Every second time the second block leaves some pages below it.
      return builder
        .alloc(odd(), 0x10)
        .alloc(odd(), nr % 2 === 0 ? 0x400 : 0x4000)
        .op("handOver")
        .build();
    },
  },
  {
    id: "no-page-lost",
    rule: "BOOT-8",
    title: "every page that is free as a whole is handed over, also those that allocations have skipped",
    cause: "what lies below the cursor is forgotten: gaps of alignment, rests of rows; or the last page of a range is",
    kinds: ["page-lost"],
    program(random, nr) {
      // The page at address 0 is one like any other.
      if (nr % 4 === 3) return rowsOf(3, 0x5000, 0x1000, 0).op("handOver").build();
      const builder = rowsOf(3, 0x5000 + GRAIN * (nr % 4), 0x1000);
      if (nr % 4 === 1) builder.reserve(0x2000, 0x3000);
      // A gap of alignment of some pages, or a rest that was too small.
      if (nr % 3 === 0) builder.alloc(0x100).alloc(0x100, 0x4000);
      else if (nr % 3 === 1) builder.alloc(0x100).alloc(0x5000, 0x100);
      else builder.alloc(1 + random.below(0x2000), 0x10);
      return builder.op("handOver").build();
    },
  },
  {
    id: "list-form",
    rule: "BOOT-9",
    title: "the rows of the list rise, none is empty, none touches the next, none has a page of another",
    cause: "rows are written in the order in which they were found, page by page, or for ranges without a whole page",
    kinds: ["form", "bad-claim"],
    program(random, nr) {
      const first = GRAIN * (5 + random.below(6));
      const builder = new Builder([
        [0x1000, 0x1000 + first, RAM],
        [0x1000 + first, 0x7000, RAM],
        [0x8000, 0x8000 + GRAIN * (1 + random.below(3)), RAM],
        [0xa000, 0xe000, RAM],
      ]);
      if (nr % 2 === 0) builder.reserve(0xb000, 0xb800).reserve(0xbc00, 0xc000);
      // Small requests: gaps without a page of their own, and one gap with.
      builder.alloc(0x20, 0x10).alloc(0x20, 0x100);
      if (nr % 3 !== 0) builder.alloc(0x20, 0x2000).alloc(0x5000 - 0x2000, 0x100);
      return builder.op("handOver").build();
    },
  },
  {
    id: "closed",
    rule: "BOOT-10",
    title: "after the hand-over nothing is given any more",
    cause: "the memory that was handed over is still on the allocator's own list",
    kinds: ["closed"],
    program(random, nr) {
      const builder = oneRow(0x1000, 0x6000)
        .alloc(1 + random.below(0x1000), 0x10)
        .op("handOver");
      if (nr % 2 === 0) builder.alloc(0x100, 0x10);
      return builder.op("handOver").alloc(0x1000, 0x1000).build();
    },
  },
];

const BOOKS: readonly Check[] = [
  {
    id: "books",
    rule: "BOOT-11",
    title: "used + handed over + reserved = RAM, and no byte is counted twice",
    cause:
      "reserved bytes that are no RAM are counted, overlaps twice; or gaps are counted as used too early, or never",
    kinds: ["count"],
    program(random, nr) {
      const builder = rowsOf(2, 0x4000 + GRAIN * random.below(4), 0x2000, 0x1000 + GRAIN * (nr % 3));
      if (nr % 3 > 0) builder.reserve(0x2000, 0x2800 + GRAIN * random.below(6));
      if (nr % 3 > 1) builder.reserve(0x2400, 0x3000).reserve(0x4800, 0x7800);
      builder.op("reservedBytes").op("usedBytes");
      builder
        .alloc(0x123, 0x10)
        .op("usedBytes")
        .alloc(1 + random.below(0x800), 0x800)
        .op("usedBytes");
      builder.alloc(0x10_0000).op("usedBytes");
      return builder.op("handOver").op("usedBytes").op("reservedBytes").build();
    },
  },
  {
    id: "tables",
    rule: "BOOT-13",
    title: "the firmware's tables stay as they are",
    cause: "the tables are sorted or shortened in place, and the next one who reads them finds something else",
    kinds: ["changed"],
    program(random, nr) {
      const builder = rowsOf(3, 0x2000, 0x1000).reserve(0x1800, 0x2400).reserve(0x1400, 0x2000);
      if (nr % 2 === 1) builder.shuffle(random);
      builder.alloc(nr % 3 === 0 ? 0x400 : 1 + random.below(0x400), 0x10).alloc(0x1000, 0x100);
      return builder.op("handOver").op("changedRow").build();
    },
  },
  {
    id: "steps",
    rule: "BOOT-12",
    title: "the cost depends on the number of rows and not on the number of bytes",
    cause: "a search that goes from page to page, or from one multiple of the alignment to the next",
    kinds: ["slow", "steps"],
    runs: { quick: 1, full: 4 },
    stepLimit: 400_000,
    program(random, nr) {
      const large = 0x400_0000 << (nr % 3);
      const builder = rowsOf(2, large, large);
      builder
        .reserve(0x2000, large - 0x1000 * random.below(16))
        .alloc(0x1000, 0x10)
        .alloc(0x4000, 0x10);
      builder.alloc(large / 2, 0x1000);
      return builder.op("handOver").build();
    },
  },
];

export const HAND_OVER: readonly Check[] = [...LIST, ...BOOKS];
