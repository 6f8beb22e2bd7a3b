/**
 * Lab 4, the checks: which programs are run, and which rule each is about. Those of frees and slabs: frees.ts.
 *
 * The first programs have slabs of two or three objects, so that a slab is full, partly used and empty within few
 * operations and a message can be read.
 */

import type { Check, LabCode } from "../../kit/lab_code.ts";
import type { Op, Program } from "../../kit/program.ts";
import { FREEING, SLABS } from "./frees.ts";
import { hasName, judge } from "./judge.ts";
import { picture } from "./picture.ts";
import { anyRequest, Builder, type Request, requestOf } from "./programs.ts";
import { question } from "./question.ts";

const MANY = 256;

const OBJECTS: readonly Check[] = [
  {
    id: "create-args",
    rule: "SLAB-29",
    title: "createCache refuses what makes no sense and gives every cache a number of its own",
    cause: "a bound that is off by one, or a number that is given twice",
    kinds: ["create"],
    program(random, nr) {
      const builder = new Builder(8, 0);
      const bad: readonly Request[] = [
        [0, 8],
        [4097, 8],
        [100, 12],
        [1.5, 8],
        [100, 4],
        [100, 512],
        [-4, 8],
        [100, 0],
      ];
      builder.op("make", ...(bad[nr % bad.length] as Request), false);
      const good: readonly Request[] = [[1, 8], [4096, 256], [4096, 8], requestOf(random.below(11))];
      builder.make(good[nr % good.length] as Request);
      builder.make(requestOf(nr));
      const last = builder.make([64, 8]);
      if (nr % 2 === 1) {
        for (let i = 0; i < 6; i++) builder.make([64, 64]);
        builder.on("end", last);
        for (let i = 0; i < 2; i++) builder.make([64, 64]);
      }
      return builder.build();
    },
  },
  {
    id: "inside",
    rule: "SLAB-1",
    title: "an object lies inside a slab of its cache, at a multiple of the stride from the first object",
    cause: "a slab is thought to have one object more than fits, or the colour is not added everywhere",
    kinds: ["beyond", "outside", "off-grid", "bad-claim"],
    program(_random, nr) {
      const builder = new Builder(MANY, 0);
      const cache = builder.make(requestOf(nr), nr % 4 === 3);
      builder.takeSome(cache, Math.min(90, 2 * builder.perSlab(cache) + 1));
      return builder.build();
    },
  },
  {
    id: "alignment",
    rule: "SLAB-1",
    title: "an object starts at a multiple of its cache's alignment",
    cause: "the size is not rounded up to the alignment, so that only the first object is aligned",
    kinds: ["misaligned"],
    program(random, nr) {
      const builder = new Builder(MANY, 0);
      const align = 16 << (nr % 5);
      // Rounding up to eight bytes is not enough.
      const cache = builder.make([align * (3 + random.below(4)) + 1 + random.below(align - 8), align]);
      builder.takeSome(cache, 6);
      return builder.build();
    },
  },
  {
    id: "one-owner",
    rule: "SLAB-5",
    title: "no object is handed out twice without a free in between",
    cause: "an object stays on the free list when it is handed out, or comes onto it twice",
    kinds: ["twice"],
    program(random, nr) {
      const builder = new Builder(MANY, 1);
      const cache = builder.make(requestOf(nr));
      builder.takeSome(cache, 3);
      if (nr % 2 === 1) builder.walk(random, [cache], 24);
      builder.takeSome(cache, 4);
      return builder.build();
    },
  },
  {
    id: "right-cache",
    rule: "SLAB-2",
    title: "from its address alone an object is known to belong to its cache",
    cause: "only the first frame of a slab says whose it is, or the owner is noted when the cache is made",
    kinds: ["other-cache", "kept"],
    program(random, nr) {
      const builder = new Builder(MANY, nr % 3);
      const caches = [builder.make(requestOf(nr)), builder.make(requestOf(nr + 5), true), builder.make([3000, 8])];
      for (let round = 0; round < 5; round++) {
        for (const cache of caches) {
          const object = builder.take(cache);
          builder.on("whose", object);
          if (random.below(3) === 0) builder.putRef(object);
        }
      }
      const object = builder.take(caches[nr % 3] as number);
      builder.on("whose", object, 8);
      builder.putRef(object);
      builder.on("whose", object);
      builder.on("put", object);
      for (const cache of caches) builder.take(cache);
      return builder.build();
    },
  },
  {
    id: "capacity",
    rule: "SLAB-23",
    title: "frames are asked for only when every object of the cache is out",
    cause: "a slab is thought to have one object less than fits, or only one slab is looked at",
    kinds: ["early"],
    program(random, nr) {
      const builder = new Builder(MANY, 1);
      const cache = builder.make(requestOf(nr));
      const nrObjects = Math.min(40, builder.perSlab(cache));
      const objects = builder.takeSome(cache, nrObjects);
      if (nr % 2 === 1) {
        builder.takeSome(cache, 1 + random.below(nrObjects));
        builder.putRef(objects[random.below(objects.length)] as number);
        if (nr % 4 === 1) builder.putRef(builder.live[0]?.ref ?? 0);
        builder.takeSome(cache, 2);
      }
      return builder.build();
    },
  },
  {
    id: "refusal",
    rule: "SLAB-28",
    title: "a request is refused only for no cache, or if all objects are out and there are no frames",
    cause: "a slab that is full or a machine without frames is not told from one with room",
    kinds: ["refused"],
    program(random, nr) {
      const builder = new Builder(2, 1);
      const cache = builder.make(requestOf(nr % 3));
      if (nr % 2 === 1) builder.op("others", 0);
      builder.op("take", [99, -1, 1, 1.5, 8][nr % 5] as number);
      for (let i = 0; i < 3; i++) builder.takeSome(cache, nr % 2 === 1 ? 3 : 6);
      for (let i = 0; i < 3; i++) builder.put(random.below(builder.live.length));
      builder.takeSome(cache, 4);
      return builder.build();
    },
  },
  {
    id: "partial-first",
    rule: "SLAB-22",
    title: "an object is taken from a slab that is partly used before an empty one is begun",
    cause: "the slab that became empty last, or was made first, is taken, whatever its use",
    kinds: ["not-partial"],
    program(random, nr) {
      const builder = new Builder(MANY, 2);
      const cache = builder.make(requestOf(nr % 3));
      const n = builder.perSlab(cache);
      const [a, b] = [builder.takeSome(cache, n), builder.takeSome(cache, n)];
      if (nr % 2 === 0) builder.putRef(b[0] as number);
      for (const ref of a) builder.putRef(ref);
      if (nr % 2 === 1) builder.putRef(b[random.below(n)] as number);
      builder.takeSome(cache, n);
      return builder.build();
    },
  },
  {
    id: "constructor-all",
    rule: "SLAB-7",
    title: "every object of a new slab is constructed before the first one is handed out",
    cause:
      "only the object that is handed out is constructed, or a slab on frames used before is taken for constructed",
    kinds: ["unconstructed"],
    program(random, nr) {
      const builder = new Builder(MANY, 0);
      const cache = builder.make(requestOf(nr), true);
      const object = builder.take(cache);
      builder.putRef(object);
      builder.take(cache);
      if (nr % 2 === 1) builder.make(requestOf(random.below(5)), false);
      builder.takeSome(cache, 3);
      return builder.build();
    },
  },
  {
    id: "constructor-once",
    rule: "SLAB-7",
    title: "an object is constructed once, when its slab is made, and not for a cache without constructor",
    cause: "the constructor runs at each allocation or at each free: then keeping constructed objects saves nothing",
    kinds: ["reconstructed"],
    program(random, nr) {
      const builder = new Builder(MANY, 1);
      const cache = builder.make(requestOf(nr), nr % 3 !== 2);
      const n = builder.perSlab(cache);
      for (let i = 0; i < 3; i++) builder.putRef(builder.take(cache));
      builder.takeSome(cache, Math.min(40, n));
      builder.walk(random, [cache], 8);
      return builder.build();
    },
  },
  {
    id: "colour",
    rule: "SLAB-20",
    title: "slabs of a cache begin at offsets 0, align, 2·align, … as far as bytes are left over, then at 0 again",
    cause: "all slabs begin at 0, or the count of colours forgets 0 or the last one",
    kinds: ["colour"],
    program(_random, nr) {
      const builder = new Builder(MANY, 0);
      const requests: readonly Request[] = [[4000, 32], [1300, 64], [4000, 32], [2048, 8], requestOf(nr)];
      const cache = builder.make(requests[nr % requests.length] as Request, nr % 4 === 3);
      const n = builder.perSlab(cache);
      for (let i = 0; i < 6 && n < 40; i++) {
        const objects = builder.takeSome(cache, n);
        if (nr % 2 === 1) for (const ref of objects) builder.putRef(ref);
      }
      return builder.build();
    },
  },
  {
    id: "order",
    rule: "SLAB-21",
    title: "a slab has the smallest order that leaves at most an eighth of it over",
    cause: "every slab gets one frame, or the largest order; or the share is compared the wrong way round",
    kinds: ["order"],
    program(random, nr) {
      const builder = new Builder(MANY, 0);
      const requests: readonly Request[] = [[2048, 8], [700, 64], [3000, 8], [3500, 8], anyRequest(random)];
      builder.take(builder.make(requests[nr % requests.length] as Request));
      builder.take(builder.make(anyRequest(random)));
      // At the bound itself: 512 of 4096 bytes are left over.
      builder.take(builder.make([nr % 2 === 0 ? 3584 : 3592, 8]));
      return builder.build();
    },
  },
];

const ALL_KINDS = [...new Set([...OBJECTS, ...FREEING, ...SLABS].flatMap(({ kinds }) => kinds))];

const HIDDEN: readonly Check[] = [
  {
    id: "long-run",
    rule: "SLAB-1 to SLAB-30",
    title: "all rules hold in long runs over several caches",
    cause: "one of the rules above, in a state that the visible programs do not reach",
    kinds: ALL_KINDS,
    isSweep: true,
    runs: { quick: 1, full: 12 },
    program(random, nr) {
      const builder = new Builder(MANY, nr % 3);
      const caches = [0, 1, 2].map((i) => builder.make(anyRequest(random), (nr + i) % 2 === 0));
      for (let round = 0; round < 4; round++) {
        builder.walk(random, caches, 50);
        for (const cache of caches) builder.on("used", cache);
        if (builder.live.length > 0) builder.on("whose", builder.live[0]?.ref ?? 0);
        if (round === 2) builder.putAll(random);
        builder.on("trim", caches[round % 3] as number);
      }
      builder.putAll(random);
      for (const cache of caches) builder.on("end", cache);
      builder.takeSome(builder.make(anyRequest(random), true), 5);
      return builder.build();
    },
  },
  {
    id: "exhaustion",
    rule: "SLAB-1 to SLAB-30",
    title: "all rules hold when frames run out again and again, and others take them",
    cause: "a refused request has changed something, or frames that were given back are still written to",
    kinds: ALL_KINDS,
    isSweep: true,
    runs: { quick: 1, full: 12 },
    program(random, nr) {
      const builder = new Builder(8 + random.below(8), nr % 2);
      const caches = [
        builder.make(requestOf(nr), true),
        builder.make(requestOf(nr + 1)),
        builder.make(requestOf(nr + 4)),
      ];
      for (let round = 0; round < 3; round++) {
        for (let i = 0; i < 30; i++) builder.take(caches[random.below(3)] as number);
        if (round === 1) for (let i = 0; i < 12; i++) builder.put(random.below(builder.live.length));
        else builder.putAll(random);
        builder.op("others", random.below(2));
        for (const cache of caches) builder.on("used", cache);
      }
      builder.putAll(random);
      for (const cache of caches) builder.on("trim", cache);
      return builder.build();
    },
  },
];

function describe(op: Op, index: number, name: (index: number) => string): string {
  const [kind, a, b, c] = op;
  const it = typeof a === "object" && a !== null ? name(a.ref) : String(a);
  const at = (delta: unknown): string => (Number(delta ?? 0) === 0 ? "" : `${Number(delta) > 0 ? "+" : ""}${delta}`);
  const result = name(index) === "" ? "" : `${name(index)}=`;
  switch (kind) {
    case "make":
      return `${result}createCache(${a},${b}${c === true ? ",constructor" : ""})`;
    case "take":
      return `${result}alloc(${it})`;
    case "takeMany":
      return `${result}${b}×alloc(${it})`;
    case "put":
      return `free(${it}${at(b)})`;
    case "putMany":
      return `free(${it}: ${b}, then every ${c}.)`;
    case "whose":
      return `cacheOf(${it}${at(b)})`;
    case "used":
      return `inUse(${it})`;
    case "trim":
      return `shrink(${it})`;
    case "end":
      return `destroyCache(${it})`;
    default:
      return `${kind}(${it})`;
  }
}

/** Caches with two objects in a slab, and fewer of many. */
function simpler(program: Program): readonly Program[] {
  const candidates: Program[] = [];
  program.ops.forEach((op, i) => {
    const replace = (other: Op): void => {
      candidates.push({ config: program.config, ops: program.ops.map((old, at) => (at === i ? other : old)) });
    };
    if (op[0] === "make" && op[1] !== 2048) replace(["make", 2048, 8, op[3] ?? false]);
    if (op[0] === "takeMany" && Number(op[2]) > 1) {
      replace(["takeMany", op[1] as number, Number(op[2]) >>> 1]);
      replace(["takeMany", op[1] as number, Number(op[2]) - 1]);
    }
  });
  return candidates;
}

export const lab: LabCode = {
  checks: [...OBJECTS, ...FREEING, ...SLABS, ...HIDDEN],
  judge,
  hasName,
  describe,
  describeConfig(config) {
    const { frames, keepEmpty } = config as { frames: number; keepEmpty: number };
    return `${frames} frames, keepEmpty ${keepEmpty}`;
  },
  picture,
  simpler,
  question,
};
