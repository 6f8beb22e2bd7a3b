/**
 * Lab 2, the checks: which programs are run, and which rule each is about.
 *
 * A check that is about freeing makes its bad frees from good blocks, so that nothing else is at stake; checks about
 * merging free in every order that matters. The memory is small in the first programs, so that they can be read.
 */

import type { Check, LabCode } from "../../kit/lab_code.ts";
import type { Op, Program } from "../../kit/program.ts";
import { FREEING } from "./free_checks.ts";
import { hasName, judge } from "./judge.ts";
import { picture } from "./picture.ts";
import { Builder, rangesWithHoles, sizeOf, whole } from "./programs.ts";
import { question } from "./question.ts";

const BLOCKS: readonly Check[] = [
  {
    id: "alignment",
    rule: "BUD-1",
    title: "a block of order k starts at a multiple of 2^k",
    cause: "addFreeRange makes blocks larger than the alignment of their start allows",
    kinds: ["misaligned", "bad-claim"],
    program(random, nr) {
      const top = sizeOf(nr);
      const start = 1 + random.below((1 << top) - 1);
      const builder = new Builder(2 << top, top, [[start, 2 << top]]);
      for (let order = top; order >= 0; order--) for (let i = 0; i < 2; i++) builder.alloc(order);
      return builder.build();
    },
  },
  {
    id: "inside",
    rule: "BUD-2",
    title: "only frames that were given are handed out",
    cause: "the end of the range is not looked at when it is cut into blocks",
    kinds: ["outside"],
    program(random, nr) {
      const frames = (1 << sizeOf(nr)) + random.below(1 << sizeOf(nr));
      const builder = new Builder(frames, sizeOf(nr), nr % 2 === 0 ? [[0, frames]] : rangesWithHoles(random, frames));
      const order = nr % 3;
      for (let i = 0; i <= frames >>> order; i++) builder.alloc(order);
      return builder.build();
    },
  },
  {
    id: "one-owner",
    rule: "BUD-3",
    title: "no frame belongs to two blocks that are out",
    cause: "a block stays on its list when it is handed out, or its halves are put on a list twice",
    kinds: ["overlap"],
    program(random, nr) {
      const builder = whole(sizeOf(nr));
      // No frees at all: whoever hands out twice without them does so here.
      for (let i = 0; i < 1 << sizeOf(nr); i++) builder.alloc(nr === 0 ? 0 : random.below(3));
      return builder.build();
    },
  },
  {
    id: "smallest-fit",
    rule: "BUD-5",
    title: "a request is met from the smallest free block that is large enough",
    cause: "the search starts at the largest order, or does not stop at the first list that has a block",
    kinds: ["not-smallest"],
    program(random, nr) {
      const top = sizeOf(nr) + 1;
      const builder = whole(top);
      for (let order = top - 1; order > 0; order--) builder.alloc(order - 1);
      for (let i = 0; i < top; i++) builder.alloc(random.below(top - 1));
      return builder.build();
    },
  },
  {
    id: "exact-fit",
    rule: "BUD-7",
    title: "a request is refused only if no free block is large enough",
    cause: "the search begins one order too high, or ends before the last one: the exact fit or the last block is lost",
    kinds: ["refused"],
    program(random, nr) {
      const top = sizeOf(nr);
      const builder = whole(top);
      const order = nr % (top + 1);
      for (let i = 0; i < 1 << (top - order); i++) builder.alloc(order);
      builder.alloc(random.below(top));
      return builder.build();
    },
  },
];

const MERGING: readonly Check[] = [
  {
    id: "merge-order",
    rule: "BUD-4",
    title: "two blocks merge only if they are buddies of the same order",
    cause: "free() asks whether the buddy is free and not which order it has",
    kinds: ["merged-overlap"],
    program(random, nr) {
      // Halves whose buddy is split: part of it free, part of it out.
      const top = sizeOf(nr) + 1;
      const builder = whole(top);
      for (let order = top - 1; order > 0; order--) {
        const large = builder.alloc(order);
        const small = builder.alloc(order - 1);
        const other = builder.alloc(order - 1);
        builder.freeRef(random.below(2) === 0 ? small : other);
        builder.freeRef(large);
        builder.alloc(order);
        builder.alloc(order - 1);
      }
      if (nr % 2 === 1) {
        // Two quarters that look alike: one half of each is out.
        const refs = [0, 1, 2, 3].map(() => builder.alloc(0));
        builder.freeRef(refs[1] as number);
        builder.freeRef(refs[3] as number);
        builder.alloc(2);
        builder.alloc(1);
      }
      builder.walk(random, 10);
      return builder.build();
    },
  },
  {
    id: "merge-all",
    rule: "BUD-4",
    title: "free buddies of the same order become one block, again and again up to the largest order",
    cause: "free() merges once and stops, or looks for the next buddy of the old block instead of the merged one",
    kinds: ["unmerged"],
    program(random, nr) {
      const top = sizeOf(nr);
      const builder = whole(top);
      for (let i = 0; i < 1 << top; i++) builder.alloc(0);
      // Forwards, backwards, or in any order.
      while (builder.live.length > 0) {
        const last = builder.live.length - 1;
        builder.free(nr % 3 === 0 ? 0 : nr % 3 === 1 ? last : random.below(last + 1));
      }
      builder.alloc(top);
      return builder.build();
    },
  },
  {
    id: "merge-edges",
    rule: "BUD-4",
    title: "merging ends at the largest order and at the end of memory, and does not reach over a hole",
    cause: "the loop does not end at maxOrder, or the buddy's row is read although it is no frame, or was never given",
    kinds: ["merged-outside", "lost", "kept"],
    program(random, nr) {
      const top = sizeOf(nr);
      // Memory ends in the middle of a block of order k + 1; the other half is a neighbour's, and free.
      const k = nr % top;
      const frames = (3 + 2 * random.below(3)) << k;
      const hole = 1 + random.below(frames - 2);
      const isWhole = nr % 3 !== 2;
      const builder = new Builder(
        frames,
        top,
        isWhole
          ? [[0, frames]]
          : [
              [0, hole],
              [hole + 1, frames],
            ],
        k,
      );
      for (let i = 0; i < frames; i++) builder.alloc(0);
      builder.op("neighbour");
      while (builder.live.length > 0) builder.free(builder.live.length - 1);
      for (let i = 0; i <= frames >>> (k + 1); i++) builder.alloc(k + 1);
      for (let i = 0; i < frames; i++) builder.alloc(0);
      return builder.build();
    },
  },
  {
    id: "recovery",
    rule: "BUD-8",
    title: "when everything is free again, memory is as whole as it was at the start",
    cause: "some free leaves a block unmerged, or on no list, or on the list of another order",
    kinds: ["unmerged", "lost", "merged-overlap"],
    runs: { quick: 4, full: 24 },
    program(random, nr) {
      const top = sizeOf(nr);
      const frames = 3 << top;
      const builder = new Builder(frames, top, nr % 2 === 0 ? [[0, frames]] : rangesWithHoles(random, frames));
      builder.walk(random, 30 + 10 * top);
      builder.freeAll(random);
      for (let i = 0; i < 3; i++) builder.alloc(top);
      for (let order = top - 1; order >= 0; order--) builder.alloc(order);
      return builder.build();
    },
  },
  {
    id: "ranges",
    rule: "BUD-8",
    title: "a range becomes the largest aligned blocks that fit in it, and merges with what is free beside it",
    cause: "addFreeRange gives single frames, stops before the rest, or puts blocks on lists without merging them",
    kinds: ["unmerged", "refused", "count"],
    program(random, nr) {
      const top = sizeOf(nr) + 1;
      const frames = 1 << top;
      const cut = 1 + random.below(frames - 1);
      const isTwo = nr % 2 === 1;
      const ranges = isTwo
        ? ([
            [cut, frames],
            [0, cut],
          ] as const)
        : ([[cut, frames]] as const);
      const builder = new Builder(frames, top, ranges);
      builder.op("nrFree");
      // Largest first: every block that the range consists of has to be there.
      for (let order = top; order >= 0; order--)
        if (isTwo || ((frames - cut) >>> order) % 2 === 1) builder.alloc(order);
      return builder.build();
    },
  },
];

const BOOKS: readonly Check[] = [
  {
    id: "impossible",
    rule: "BUD-7",
    title: "a request for an order that does not exist, or for more than there is, is refused and changes nothing",
    cause: "the order is used as an index before it is compared with 0 and maxOrder",
    kinds: ["impossible"],
    program(random, nr) {
      const top = sizeOf(nr);
      const builder = whole(top);
      const orders = [top + 1, -1, top + 2, 31, 1.5, 32];
      builder.op("alloc", orders[nr % orders.length] as number);
      builder.op("nrFree");
      builder.alloc(top);
      for (let order = 0; order <= top; order++) builder.op("alloc", order);
      builder.op("nrFree");
      builder.free(0);
      builder.op("alloc", orders[random.below(orders.length)] as number);
      builder.alloc(top);
      return builder.build();
    },
  },
  {
    id: "count",
    rule: "BUD-9",
    title: "nrFree() is the number of frames that are free, after every operation",
    cause: "blocks are counted instead of frames, or merging and splitting change the count",
    kinds: ["count"],
    program(random, nr) {
      const builder = whole(sizeOf(nr));
      for (let i = 0; i < 12; i++) {
        builder.walk(random, 1 + random.below(3));
        builder.op("nrFree");
      }
      const block = builder.live[0];
      builder.freeAll(random);
      if (block !== undefined) builder.op("free", { ref: block.ref }, block.order);
      builder.op("nrFree");
      return builder.build();
    },
  },
  {
    id: "steps",
    rule: "BUD-10",
    title: "an allocation and a free take steps in proportion to the number of orders, not of frames",
    cause: "a search over frames, or along a list, where one look at a row is enough",
    kinds: ["slow"],
    runs: { quick: 1, full: 4 },
    stepLimit: 5_000_000,
    program(random, nr) {
      const builder = new Builder(1024, 8);
      // Every second frame free: long lists, no merging; then one after the other merges.
      const all = builder.op("allocMany", 0, 1024);
      builder.op("freeMany", { ref: all }, 0, nr % 2, 2);
      for (let i = 0; i < 20; i++) builder.op("free", { ref: all }, 0, 0, 2 * random.below(512) + 1 - (nr % 2));
      for (let i = 0; i < 8; i++) builder.op("alloc", random.below(3));
      return builder.build();
    },
  },
  {
    id: "own-rows",
    rule: "BUD-11",
    title: "rows behind the last frame and around the heads belong to others and stay as they are",
    cause: "a link or a mark is written for a buddy behind the end of memory, or for a head that does not exist",
    kinds: ["stray"],
    program(random, nr) {
      const top = sizeOf(nr);
      const frames = (1 << top) + random.below(1 << top);
      const builder = new Builder(frames, top);
      for (let i = 0; i < frames; i++) builder.alloc(0);
      builder.freeAll(random);
      builder.op("alloc", top + 1);
      builder.walk(random, 20);
      builder.op("free", frames, 0);
      builder.op("strayRow");
      return builder.build();
    },
  },
];

const ALL_KINDS = [
  "misaligned bad-claim outside overlap merged-outside merged-overlap not-smallest refused lost unmerged kept",
  "double foreign interior wrong-order wrong-errno impossible count slow stray",
]
  .join(" ")
  .split(" ");

const HIDDEN: readonly Check[] = [
  {
    id: "long-run",
    rule: "BUD-1 … BUD-11",
    title: "all rules hold in long random runs",
    cause: "a state that short traces do not reach: look at the rule that is named",
    kinds: ALL_KINDS,
    isSweep: true,
    runs: { quick: 1, full: 12 },
    program(random, nr) {
      const top = 3 + (nr % 6);
      const frames = (1 << top) + random.below(2 << top);
      const builder = new Builder(frames, top, rangesWithHoles(random, frames));
      for (let round = 0; round < 4; round++) {
        builder.walk(random, 60);
        builder.op("nrFree");
        const block = builder.live[0];
        if (round % 2 === 1) builder.freeAll(random);
        if (block !== undefined && round % 2 === 1) builder.op("free", { ref: block.ref }, block.order);
      }
      builder.op("strayRow");
      return builder.build();
    },
  },
  {
    id: "exhaustion",
    rule: "BUD-7, BUD-8",
    title: "all rules hold when memory runs out and comes back",
    cause: "the last block, or the first free after running out, takes a path that is taken nowhere else",
    kinds: ALL_KINDS,
    isSweep: true,
    runs: { quick: 1, full: 12 },
    program(random, nr) {
      const top = 2 + (nr % 5);
      const builder = whole(top);
      for (let round = 0; round < 3; round++) {
        for (let i = 0; i < 2 << top; i++) builder.alloc(random.below(nr % 3 === 0 ? 1 : 3));
        builder.op("nrFree");
        if (round === 1) for (let i = 0; i < 6; i++) builder.free(random.below(builder.live.length));
        else builder.freeAll(random);
      }
      builder.alloc(top);
      return builder.build();
    },
  },
];

function describe(op: Op, index: number, name: (index: number) => string): string {
  const [kind, a, b, delta, at] = op;
  if (kind === "give") return `addFreeRange(${a},${b})`;
  if (kind === "allocMany") return `${name(index)}=${b}×alloc(${a})`;
  if (kind === "alloc") return `${name(index) === "" ? "" : `${name(index)}=`}alloc(${a})`;
  if (kind === "neighbour") return "(a neighbour frees what lies behind the end)";
  if (kind === "freeMany")
    return `free(${typeof a === "object" && a !== null ? name(a.ref) : ""}[${delta}, every ${at}nd])`;
  if (kind !== "free") return `${kind}()`;
  const frame = typeof a === "object" && a !== null ? `${name(a.ref)}${at === undefined ? "" : `[${at}]`}` : String(a);
  return `free(${frame}${delta === undefined || delta === 0 ? "" : `+${delta}`},${b})`;
}

/** Smaller memories, smaller orders, one at a time. */
function simpler(program: Program): readonly Program[] {
  const { frames, maxOrder } = program.config as { frames: number; maxOrder: number };
  const candidates: Program[] = [];
  if (maxOrder > 1) {
    const half = frames >>> 1;
    const ops = program.ops.map((op) =>
      op[0] === "give" ? (["give", Number(op[1]) >>> 1, Number(op[2]) >>> 1] as const) : op,
    );
    const lower = (op: Op): Op => (op[0] === "alloc" && Number(op[1]) > 0 ? ["alloc", Number(op[1]) - 1] : op);
    if (half > 0) candidates.push({ config: { frames: half, maxOrder: maxOrder - 1 }, ops });
    if (half > 0)
      candidates.push({ config: { frames: half, maxOrder: maxOrder - 1 }, ops: withOrders(ops.map(lower)) });
  }
  program.ops.forEach((op, i) => {
    if (op[0] !== "alloc" || Number(op[1]) <= 0) return;
    const ops = program.ops.map((other, at) => (at === i ? (["alloc", Number(op[1]) - 1] as const) : other));
    candidates.push({ config: program.config, ops: withOrders(ops) });
  });
  return candidates;
}

/** Frees follow the order of what they free, as far as they did. */
function withOrders(ops: readonly Op[]): readonly Op[] {
  return ops.map((op) => {
    const target = op[1];
    if (op[0] !== "free" || typeof target !== "object" || target === null || op[3] !== undefined) return op;
    const from = ops[target.ref];
    return from?.[0] === "alloc" ? ["free", target, from[1] as number] : op;
  });
}

export const lab: LabCode = {
  checks: [...BLOCKS, ...MERGING, ...FREEING, ...BOOKS, ...HIDDEN],
  judge,
  hasName,
  describe,
  describeConfig(config) {
    const { frames, maxOrder } = config as { frames: number; maxOrder: number };
    return `${frames} frames, orders 0..${maxOrder}`;
  },
  picture,
  simpler,
  question,
};
