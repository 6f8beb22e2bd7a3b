/**
 * Lab 1, the checks: which programs are run, and which rule each is about.
 *
 * Each machine has what its check is about and nothing else: holes, or reserved ranges, or a map out of order. All
 * at once is for the hidden checks.
 */

import type { Check, LabCode } from "../../kit/lab_code.ts";
import type { Op, Program } from "../../kit/program.ts";
import { RAM } from "../given/api.ts";
import { HAND_OVER } from "./hand_over.ts";
import { hasName, hex, judge, sizeText } from "./judge.ts";
import type { BootConfig } from "./model.ts";
import { picture } from "./picture.ts";
import { anyMap, Builder, GRAIN, oneRow, reserveAny, rowsOf } from "./programs.ts";
import { question } from "./question.ts";

const PLACES: readonly Check[] = [
  {
    id: "ram-only",
    rule: "BOOT-1",
    title: "only bytes of RAM are allocated: never a hole, never another type of row, nothing behind the end",
    cause: "only the first byte is looked at and not the last, or a row of another type is taken for memory",
    kinds: ["hole"],
    program(random, nr) {
      const pages = 1 + (nr % 4);
      const builder =
        nr % 2 === 0
          ? rowsOf(3, pages * 0x1000, 0x1000)
          : new Builder([
              [0x1000, 0x3000, RAM],
              [0x3000, 0x5000, 2 + random.below(3)],
              [0x6000, 0x8000, 3],
              [0x9000, 0xb000, RAM],
            ]);
      for (let i = 0; i < 8; i++) builder.alloc(0x800 * (1 + random.below(3)), 0x800);
      return builder.build();
    },
  },
  {
    id: "reserved",
    rule: "BOOT-2",
    title: "no reserved byte is allocated",
    cause: "only one end of the block is compared with the reserved range, or a range in its middle is missed",
    kinds: ["reserved"],
    program(random, nr) {
      const builder = oneRow(0x1000, 0x8000 + 0x1000 * (nr % 3));
      let at = 0x1000 + random.below(4) * GRAIN;
      for (let i = 0; i < 3; i++) {
        const end = at + (1 + random.below(3)) * GRAIN;
        builder.reserve(at, end);
        at = end + (2 + random.below(4)) * GRAIN;
      }
      for (let i = 0; i < 6; i++) builder.alloc(GRAIN * (1 + random.below(4)), nr % 2 === 0 ? GRAIN : 1);
      return builder.build();
    },
  },
  {
    id: "overlapping",
    rule: "BOOT-2",
    title: "reserved ranges come in any order, overlap, lie inside each other and over holes",
    cause: "the end of the last range is taken for the end of all, or ranges are expected in order",
    kinds: ["reserved", "refused", "skips"],
    program(random, nr) {
      const builder = oneRow(0x1000, 0xc000);
      const start = 0x1000 + random.below(4) * GRAIN;
      builder.reserve(start, start + 0x2000).reserve(start + GRAIN, start + 2 * GRAIN);
      const other = start + 0x3000 + random.below(4) * GRAIN;
      builder.reserve(other, other + 0x1000).reserve(other + 0x800, other + 0x1800);
      if (nr % 2 === 1) builder.reserve(0, 0x1000 + GRAIN).shuffle(random);
      for (let i = 0; i < 8; i++) builder.alloc(GRAIN * (1 + random.below(3)), GRAIN);
      return builder.build();
    },
  },
  {
    id: "alignment",
    rule: "BOOT-3",
    title: "an address is a multiple of the alignment",
    cause: "the size is rounded up and not the address, or the offset in its row",
    kinds: ["misaligned", "bad-claim"],
    program(random, nr) {
      const builder = oneRow(0x1000 + (nr % 2 === 0 ? 0 : 1 + random.below(0x800)), 0x8000);
      // What is in the way ends at an odd address.
      if (nr % 3 === 1) builder.reserve(0x1000, 0x2001 + random.below(0x800));
      for (let i = 0; i < 6; i++) builder.alloc(1 + random.below(0x180), 1 << random.below(12));
      return builder.build();
    },
  },
  {
    id: "one-owner",
    rule: "BOOT-4",
    title: "no byte is allocated twice, and addresses rise",
    cause: "the cursor is not moved, or not far enough, or moves back with the next row",
    kinds: ["twice", "backwards"],
    program(random, nr) {
      const builder = rowsOf(2, 0x1000 + GRAIN * (nr % 4), 0x1000);
      // A large one leaves room in the first row that small ones must not go back to.
      for (let i = 0; i < 4; i++) builder.alloc(GRAIN + random.below(GRAIN));
      for (let i = 0; i < 8; i++) builder.alloc(1 + random.below(0x300), 1 << random.below(9));
      return builder.build();
    },
  },
];

const FITS: readonly Check[] = [
  {
    id: "lowest",
    rule: "BOOT-5",
    title: "an allocation lands at the lowest address that fits behind the last one",
    cause: "more is skipped than alignment and size ask for, or the search goes on behind the first place that fits",
    kinds: ["skips"],
    program(random, nr) {
      const builder = rowsOf(3, 0x2000 + GRAIN * (nr % 3), 0x800, 0x1000 + (nr % 2) * 0x123);
      for (let i = 0; i < 10; i++) builder.alloc(1 + random.below(0x900), 1 << random.below(11));
      return builder.build();
    },
  },
  {
    id: "exact-fit",
    rule: "BOOT-6",
    title: "a request is refused only if nothing fits: the last byte and address 0 count too",
    cause: "a comparison that wants one byte more than is needed, or an address 0 that is taken for nothing",
    kinds: ["refused"],
    program(random, nr) {
      const bytes = GRAIN * (1 + random.below(8));
      const builder = oneRow(nr % 2 === 0 ? 0x1000 : 0, bytes + 0x100);
      if (nr % 3 === 0) builder.reserve(0x1000 + bytes + 0x100, 0x1000 + bytes + 0x800);
      // The smallest size is one too.
      if (nr % 2 === 1) builder.alloc(1).alloc(0x3f).alloc(0xc0, 0x40);
      else builder.alloc(1).alloc(0xff);
      return builder.alloc(bytes).alloc(1).build();
    },
  },
  {
    id: "touching",
    rule: "BOOT-5",
    title: "rows of memory that touch are one memory",
    cause: "each row of the map is looked at alone",
    kinds: ["seam"],
    program(random, nr) {
      const first = GRAIN * (2 + random.below(6));
      const map = [
        [0x1000, 0x1000 + first, RAM],
        [0x1000 + first, 0x4000, RAM],
        [0x5000, 0x6000, RAM],
      ] as [number, number, number][];
      const builder = new Builder(map);
      if (nr % 2 === 1) builder.alloc(GRAIN);
      return builder
        .alloc(first + GRAIN)
        .alloc(1 + random.below(0x200))
        .build();
    },
  },
  {
    id: "map-order",
    rule: "BOOT-5",
    title: "rows of the map come in any order",
    cause: "the next row of the table is taken for the next row of memory",
    kinds: ["skips", "refused"],
    program(random, nr) {
      const builder = rowsOf(3 + (nr % 3), 0x1000, 0x1000).shuffle(random);
      for (let i = 0; i < 10; i++) builder.alloc(GRAIN * (1 + random.below(3)), 0x100);
      return builder.build();
    },
  },
  {
    id: "refusal",
    rule: "BOOT-6",
    title: "a refused request changes nothing",
    cause: "the cursor is moved, or a row given up, before it is known whether the request can be met",
    kinds: ["after-refusal"],
    program(random, nr) {
      const builder = rowsOf(1 + (nr % 3), 0x2000, 0x1000);
      builder.alloc(GRAIN).alloc(0x3000 + random.below(0x1000), 1 << random.below(12));
      return builder.alloc(GRAIN, 0x100).alloc(0x10_0000).alloc(0x100, 0x100).build();
    },
  },
  {
    id: "impossible",
    rule: "BOOT-7",
    title: "a size that is no whole number above 0 or an alignment that is no power of two is refused",
    cause: "arguments are used before they are looked at",
    kinds: ["impossible"],
    program(random, nr) {
      const bad = [
        [0, 16],
        [64, 0],
        [64, 3],
        [-64, 16],
        [64, -16],
        [1.5, 1],
        [64, 24],
        [64, 0.5],
      ] as const;
      const [size, align] = bad[nr % bad.length] as (typeof bad)[number];
      const [otherSize, otherAlign] = bad[random.below(bad.length)] as (typeof bad)[number];
      const builder = oneRow(0x1000, 0x4000).alloc(0x100, 0x10).alloc(size, align).alloc(0x100, 0x10);
      return builder.alloc(otherSize, otherAlign).alloc(0x100, 0x10).build();
    },
  },
  {
    id: "high",
    rule: "BOOT-3",
    title: "addresses of 2 GiB and more, up to 2^32, are addresses like others",
    cause: "bit operators make 32-bit numbers with a sign: 0x80000000 & ~15 is negative, 0x100000000 | 0 is 0",
    kinds: ["high"],
    program(random, nr) {
      const start = [0x8000_0000, 0x7fff_f000, 0xffff_8000, 0xfec0_0000][nr % 4] as number;
      const builder = new Builder([
        [0x1000, 0x5000, RAM],
        [start, start + 0x8000, RAM],
      ]);
      if (nr % 4 === 1) builder.reserve(start, start + 0x1000).reserve(0x1000, 0x2000);
      const [size, align] = [0x10 + random.below(0x100), 1 << random.below(9)];
      const few = (): Builder => builder.alloc(size, 0x10).alloc(0x100, align).alloc(0x200, 0x40).alloc(0x100, 0x100);
      // The same in low memory first: what goes wrong there is not about high addresses.
      few().alloc(0x4001, 0x10);
      return few().op("handOver").build();
    },
  },
];

const ALL_KINDS = [
  "bad-claim hole reserved misaligned twice backwards skips seam refused after-refusal impossible high",
  "page-hole page-reserved page-used page-lost form closed count slow changed",
]
  .join(" ")
  .split(" ");

const HIDDEN: readonly Check[] = [
  {
    id: "long-run",
    rule: "BOOT-1 … BOOT-13",
    title: "all rules hold on machines of any kind",
    cause: "a mixture that short traces do not have: look at the rule that is named",
    kinds: ALL_KINDS,
    isSweep: true,
    runs: { quick: 1, full: 12 },
    program(random, nr) {
      const grain = [0x400, 0x1000, 0x3f0, 0x10_0000][nr % 4] as number;
      const map = anyMap(random, 3 + random.below(8), grain, true);
      const builder = reserveAny(new Builder(map), random, map, random.below(8), grain).shuffle(random);
      for (let i = 0; i < 4; i++)
        builder
          .some(random, 6, 2 * grain)
          .op("usedBytes")
          .op("reservedBytes");
      return builder.end().alloc(16).op("handOver").build();
    },
  },
  {
    id: "exhaustion",
    rule: "BOOT-5, BOOT-6, BOOT-8",
    title: "all rules hold when memory is filled to the last byte",
    cause: "the last piece of a row, and the request after it, take a path that is taken nowhere else",
    kinds: ALL_KINDS,
    isSweep: true,
    runs: { quick: 1, full: 12 },
    program(random, nr) {
      const map = anyMap(random, 2 + (nr % 4), GRAIN, nr % 2 === 1);
      const builder = reserveAny(new Builder(map), random, map, nr % 3, GRAIN);
      for (let most = 0x4000; most >= 0x200; most /= 2) builder.some(random, 4, most).alloc(most, 0x100);
      for (let i = 0; i < 8; i++) builder.alloc(GRAIN, GRAIN);
      return builder.op("usedBytes").end().build();
    },
  },
];

function describe(op: Op, index: number, name: (index: number) => string): string {
  const [kind, size, align] = op;
  if (kind !== "alloc") return `${kind}()`;
  const letter = name(index);
  return `${letter === "" ? "" : `${letter}=`}alloc(${sizeText(Number(size))},${sizeText(Number(align))})`;
}

function describeConfig(config: BootConfig): string {
  const range = ([start, end]: readonly [number, number, ...number[]]): string => `${hex(start)}..${hex(end)}`;
  const ram = config.map.filter(([, , type]) => type === RAM).map(range);
  const other = config.map.filter(([, , type]) => type !== RAM).map((row) => `${range(row)}:${row[2]}`);
  const parts = [`RAM ${ram.join(" ")}`];
  if (other.length > 0) parts.push(`other types ${other.join(" ")}`);
  if (config.reserved.length > 0) parts.push(`reserved ${config.reserved.map(range).join(" ")}`);
  return parts.join("; ");
}

/** Machines with a row less; smaller and rounder requests. */
function simpler(program: Program): readonly Program[] {
  const { map, reserved } = program.config as unknown as BootConfig;
  const without = <T>(rows: readonly T[], at: number): T[] => rows.filter((_, i) => i !== at);
  const candidates: Program[] = [];
  reserved.forEach((_, i) => {
    candidates.push({ ...program, config: { map, reserved: without(reserved, i) } });
  });
  if (map.length > 1) {
    map.forEach((_, i) => {
      candidates.push({ ...program, config: { map: without(map, i), reserved } });
    });
  }
  program.ops.forEach((op, i) => {
    if (op[0] !== "alloc") return;
    const [size, align] = [Number(op[1]), Number(op[2])];
    for (const smaller of [Math.floor(size / 256) * 256, align] as const) {
      if (smaller <= 0 || smaller >= size) continue;
      const ops = program.ops.map((other, at) => (at === i ? (["alloc", smaller, align] as const) : other));
      candidates.push({ ...program, ops });
    }
    if (align > 1 && size > 0) {
      const ops = program.ops.map((other, at) => (at === i ? (["alloc", size, 1] as const) : other));
      candidates.push({ ...program, ops });
    }
  });
  return candidates;
}

export const lab: LabCode = {
  checks: [...PLACES, ...FITS, ...HAND_OVER, ...HIDDEN],
  judge,
  hasName,
  describe,
  describeConfig: (config) => describeConfig(config as unknown as BootConfig),
  picture,
  simpler,
  question,
};
