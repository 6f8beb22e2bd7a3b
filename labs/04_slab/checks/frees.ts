/**
 * Lab 4, the checks about frees, and about slabs that come and go.
 */

import type { Check } from "../../kit/lab_code.ts";
import { FRAME_BYTES } from "../given/api.ts";
import { Builder, type Request, requestOf } from "./programs.ts";

const MANY = 256;
/** One, two or three objects in a slab; the last one in slabs of four frames. */
const FEW: readonly Request[] = [
  [4000, 32],
  [2048, 8],
  [1300, 8],
  [3000, 8],
];
const few = (nr: number): Request => FEW[nr % FEW.length] as Request;

export const FREEING: readonly Check[] = [
  {
    id: "double-free",
    rule: "SLAB-27",
    title: "an object that is free is not freed again",
    cause: "the address is checked, but not whether that object is out",
    kinds: ["double"],
    program(random, nr) {
      const builder = new Builder(MANY, 1);
      const cache = builder.make(requestOf(nr));
      const objects = builder.takeSome(cache, 1 + (nr % 3));
      const object = objects[random.below(objects.length)] as number;
      builder.putRef(object);
      if (nr % 4 === 3) for (const { ref } of [...builder.live]) builder.putRef(ref);
      builder.on("put", object);
      return builder.build();
    },
  },
  {
    id: "foreign-free",
    rule: "SLAB-27",
    title: "an address in no slab is refused: of others, of a slab that was given back, behind the end of memory",
    cause: "the books of a frame are not cleared when it is given back, or the bounds are not checked",
    kinds: ["foreign"],
    program(_random, nr) {
      const builder = new Builder(16, 0);
      const cache = builder.make(few(nr));
      if (nr % 2 === 0) {
        const object = builder.take(cache);
        builder.putRef(object);
        if (nr % 4 === 2) builder.op("others", 0);
        builder.on("put", object);
        builder.on("put", object, FRAME_BYTES);
        builder.on("put", builder.take(cache), 2 ** 32);
      } else {
        builder.on("put", builder.op("others", 1), nr % 3 === 0 ? 0 : FRAME_BYTES);
        builder.take(cache);
        builder.op("put", [-FRAME_BYTES, 16 * FRAME_BYTES, -1, 2 ** 40, 2 ** 32 + 4 * FRAME_BYTES][nr % 5] as number);
      }
      return builder.build();
    },
  },
  {
    id: "interior-free",
    rule: "SLAB-27",
    title: "an address at which no object starts is refused",
    cause: "the address is rounded down to an object, or only its alignment is checked",
    kinds: ["interior"],
    program(random, nr) {
      const builder = new Builder(MANY, 1);
      const cache = builder.make(requestOf(nr));
      const objects = builder.takeSome(cache, Math.min(6, builder.perSlab(cache) + 1));
      const object = objects[nr % objects.length] as number;
      builder.on("put", object, [8, 1, 24, 0.5, -8, 16][nr % 6] as number);
      builder.on("put", object, 8 * (1 + random.below(3)));
      return builder.build();
    },
  },
  {
    id: "good-free",
    rule: "SLAB-27",
    title: "an object that is out can be freed, and −EINVAL is the answer for one that is not",
    cause: "the test for bad frees refuses good ones too, as those of the last object or of another frame of the slab",
    kinds: ["kept", "wrong-errno"],
    program(random, nr) {
      const builder = new Builder(MANY, nr % 2);
      const cache = builder.make(requestOf(nr));
      const objects = builder.takeSome(cache, Math.min(44, builder.perSlab(cache) + 1));
      if (nr % 2 === 0) for (const ref of objects) builder.putRef(ref);
      else builder.putAll(random);
      builder.op("put", 5 * FRAME_BYTES + 3);
      return builder.build();
    },
  },
];

export const SLABS: readonly Check[] = [
  {
    id: "live-slabs",
    rule: "SLAB-11",
    title: "only empty slabs are given back, whole and once",
    cause: "the count of objects of a slab is wrong, or the frames are given back with another order",
    kinds: ["put-live", "put-wrong"],
    program(random, nr) {
      const builder = new Builder(MANY, nr % 2);
      const cache = builder.make(nr % 2 === 0 ? (FEW[3 - ((nr >>> 1) % 3)] as Request) : few(nr));
      const objects = builder.takeSome(cache, 2 * builder.perSlab(cache));
      builder.putRef(objects[0] as number);
      builder.on("trim", cache);
      for (let i = 0; i < 3; i++) builder.put(random.below(builder.live.length));
      builder.on("trim", cache);
      builder.on("end", cache);
      builder.putAll(random);
      return builder.build();
    },
  },
  {
    id: "empty-returned",
    rule: "SLAB-24",
    title: "a free gives a slab back that becomes empty when keepEmpty slabs are empty already",
    cause: "slabs are never given back, or one more is kept than may be",
    kinds: ["hoards"],
    program(random, nr) {
      const builder = new Builder(MANY, nr % 3);
      const cache = builder.make(few(nr), nr % 4 === 2);
      builder.takeSome(cache, (1 + (nr % 3)) * builder.perSlab(cache));
      builder.putAll(random);
      return builder.build();
    },
  },
  {
    id: "empty-kept",
    rule: "SLAB-24",
    title: "keepEmpty slabs stay when they become empty, so that the next request needs no frames",
    cause: "a slab is given back as soon as its last object is free",
    kinds: ["eager"],
    program(random, nr) {
      const builder = new Builder(MANY, 1 + (nr % 2));
      const cache = builder.make(few(nr));
      builder.takeSome(cache, (2 + (nr % 2)) * builder.perSlab(cache));
      builder.putAll(random);
      builder.take(cache);
      builder.putAll(random);
      return builder.build();
    },
  },
  {
    id: "shrink",
    rule: "SLAB-25",
    title: "shrink gives back every empty slab and says how many frames those were",
    cause: "only one slab is given back, or slabs are counted instead of frames",
    kinds: ["unshrunk"],
    program(random, nr) {
      const builder = new Builder(MANY, 2);
      const cache = builder.make(few(nr));
      builder.on("trim", cache);
      builder.takeSome(cache, 2 * builder.perSlab(cache));
      builder.putAll(random);
      builder.take(cache);
      if (nr % 2 === 0) builder.putAll(random);
      builder.on("trim", cache);
      builder.on("trim", cache);
      builder.op("trim", [77, 7, -1][nr % 3] as number);
      return builder.build();
    },
  },
  {
    id: "destroy",
    rule: "SLAB-26",
    title: "a cache with objects out stays; another goes, with all its slabs and its number",
    cause: "the empty slabs are left behind, or the objects that are out are not counted",
    kinds: ["destroy"],
    program(random, nr) {
      const builder = new Builder(MANY, nr % 3);
      const cache = builder.make(few(nr));
      builder.takeSome(cache, builder.perSlab(cache) + (nr % 2));
      builder.on("end", cache);
      builder.putAll(random);
      builder.on("end", cache);
      builder.on("end", cache);
      const other = builder.make(few(nr + 1), true);
      builder.take(other);
      builder.on("end", other);
      return builder.build();
    },
  },
  {
    id: "in-use",
    rule: "SLAB-3",
    title: "inUse() is the number of objects that are out",
    cause: "refused requests are counted, slabs are counted, or frees are not",
    kinds: ["count"],
    program(random, nr) {
      const builder = new Builder(nr % 2 === 1 ? 2 : 4, 1);
      const caches = [builder.make(requestOf(nr % 3)), builder.make(requestOf((nr + 1) % 3))];
      for (let round = 0; round < 3; round++) {
        builder.walk(random, caches, 8);
        for (const cache of caches) builder.on("used", cache);
      }
      if (nr % 2 === 1) {
        builder.takeSome(caches[0] as number, 14);
        builder.on("used", caches[0] as number);
      } else {
        builder.op("put", FRAME_BYTES + 5);
        builder.on("used", caches[0] as number);
      }
      builder.putAll(random);
      builder.on("used", caches[1] as number);
      builder.op("used", [8, -1, 55][nr % 3] as number);
      return builder.build();
    },
  },
  {
    id: "steps",
    rule: "SLAB-30",
    title: "alloc and free take a constant number of steps, however many slabs and objects there are",
    cause: "a walk over slabs, over the objects of a slab, or along a list",
    kinds: ["slow"],
    runs: { quick: 2, full: 6 },
    program(random, nr) {
      const builder = new Builder(MANY, 1);
      const [size, nrTaken] = nr % 2 === 0 ? [2048, 240] : [32, 400];
      const cache = builder.make([size, 8]);
      const objects = builder.on("takeMany", cache, nrTaken);
      builder.on("putMany", objects, 1, 2);
      const more = builder.on("takeMany", cache, nrTaken / 2);
      builder.on("put", objects, 0, 2 * random.below(nrTaken / 2));
      builder.take(cache);
      builder.on("putMany", more, nr % 3, 3);
      builder.on("takeMany", cache, 20);
      return builder.build();
    },
  },
];
