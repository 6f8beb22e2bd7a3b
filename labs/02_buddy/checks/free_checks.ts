/**
 * Lab 2, the checks about freeing: what has to be refused, and that a refusal changes nothing.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import type { Check } from "../../kit/lab_code.ts";
import { Builder, sizeOf, whole } from "./programs.ts";

/** A few blocks of several orders; the bad free is made from one of them. */
function withBlocks(random: Prng, nr: number): { builder: Builder; block: { ref: number; order: number } } {
  const builder = whole(sizeOf(nr) + 1);
  for (let i = 0; i < 4; i++) builder.alloc(random.below(sizeOf(nr) - 1));
  builder.alloc(1 + random.below(sizeOf(nr) - 1));
  return { builder, block: builder.live[nr % 5] as { ref: number; order: number } };
}

export const FREEING: readonly Check[] = [
  {
    id: "double-free",
    rule: "BUD-6",
    title: "a block that is free already is refused with −EINVAL",
    cause: "free() does not look whether the block is out, or forgets the mark when the block merges",
    kinds: ["double", "wrong-errno"],
    program(random, nr) {
      const { builder, block } = withBlocks(random, nr);
      builder.freeRef(block.ref);
      if (nr % 2 === 1) builder.free(random.below(4));
      builder.op("free", { ref: block.ref }, block.order);
      builder.freeAll(random);
      builder.op("free", { ref: block.ref }, block.order);
      return builder.build();
    },
  },
  {
    id: "foreign-free",
    rule: "BUD-6",
    title: "a frame that is not the allocator's is refused with −EINVAL",
    cause: "the number is used as an index before it is compared with the ends of memory",
    kinds: ["foreign", "wrong-errno"],
    program(random, nr) {
      const frames = 16 << (nr % 3);
      const builder = new Builder(frames, 4, [[4, frames - 4]]);
      builder.walk(random, 6, 2);
      const strangers = [frames, frames + 1, -1, 0, 3, frames - 1, 0xffff_ffff, 1.5];
      builder.op("free", strangers[nr % strangers.length] as number, nr % 3);
      builder.op("free", strangers[random.below(strangers.length)] as number, 0);
      return builder.build();
    },
  },
  {
    id: "interior-free",
    rule: "BUD-6",
    title: "a frame in the middle of a block is refused with −EINVAL",
    cause: "every frame of a block carries the mark that only the first one should, or an old mark is left inside",
    kinds: ["interior", "wrong-errno"],
    program(random, nr) {
      const top = nr === 0 ? 1 : sizeOf(nr);
      const builder = whole(top);
      // Old marks: every frame was a block of its own once.
      for (let i = 0; i < 1 << top; i++) builder.alloc(0);
      if (nr % 2 === 1) builder.freeAll(random);
      else while (builder.live.length > 0) builder.free(0);
      const order = 1 + random.below(top);
      const ref = builder.op("alloc", order);
      const delta = 1 + random.below((1 << order) - 1);
      builder.op("free", { ref }, 0, delta);
      builder.op("free", { ref }, order - 1, 1 << (order - 1));
      return builder.build();
    },
  },
  {
    id: "wrong-order-free",
    rule: "BUD-6",
    title: "a block is taken back only with the order that it was handed out with",
    cause: "the order of a block that is out is not kept, or not compared",
    kinds: ["wrong-order", "wrong-errno"],
    program(random, nr) {
      const { builder, block } = withBlocks(random, nr);
      builder.op("free", { ref: block.ref }, nr % 2 === 0 ? block.order + 1 : block.order === 0 ? 2 : block.order - 1);
      builder.op("free", { ref: block.ref }, 1 + builder.maxOrder);
      return builder.build();
    },
  },
  {
    id: "good-free",
    rule: "BUD-6",
    title: "a block that is out is taken back, whatever was refused before",
    cause: "a refused free, or the free of a neighbour, has changed the books of this block",
    kinds: ["kept"],
    program(random, nr) {
      const { builder, block } = withBlocks(random, nr);
      builder.op("free", { ref: block.ref }, block.order + 1);
      builder.op("free", { ref: block.ref }, 0, 1);
      builder.walk(random, 10);
      builder.freeAll(random);
      return builder.build();
    },
  },
];
