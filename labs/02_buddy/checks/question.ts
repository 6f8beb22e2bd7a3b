/**
 * Questions of lab 2: what a buddy allocator does next. The rules leave no choice in what is asked.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import type { Question } from "../../kit/lab_code.ts";
import { FreeSpace, type Owner } from "./model.ts";

const MAX_ORDER = 4;

/** A small memory after a few allocations at the lowest address that fits, and frees. */
function situation(random: Prng): { space: FreeSpace; story: string[]; blocks: { name: string; owner: Owner }[] } {
  const space = new FreeSpace({ frames: 1 << MAX_ORDER, maxOrder: MAX_ORDER });
  space.give(0, 1 << MAX_ORDER);
  const story: string[] = [];
  const blocks: { name: string; owner: Owner }[] = [];
  for (let i = 0; i < 5; i++) {
    const order = random.below(3);
    const found = space.smallestFree(order);
    if (found < 0) continue;
    const start = lowestOf(space, found);
    space.take(start, order, i);
    const name = String.fromCharCode(65 + i);
    blocks.push({ name, owner: space.ownerAt(start) as Owner });
    story.push(`${name}=alloc(${order})→${start}`);
  }
  const [gone] = blocks.splice(random.below(blocks.length), 1);
  if (gone !== undefined) {
    space.putBack(gone.owner);
    story.push(`free(${gone.name})`);
  }
  return { space, story, blocks };
}

function lowestOf(space: FreeSpace, order: number): number {
  for (let frame = 0; frame < space.nrFrames; frame += 1 << order) {
    const block = space.freeBlockAround(frame);
    if (block !== null && block[0] === frame && block[1] === order) return frame;
  }
  return 0;
}

/** The free blocks, as `4:2 8:3`: start and order. */
function freeBlocks(space: FreeSpace): string {
  const found: string[] = [];
  for (let frame = 0; frame < space.nrFrames; ) {
    const block = space.freeBlockAround(frame);
    if (block !== null) found.push(`${block[0]}:${block[1]}`);
    frame += block === null ? 1 : 1 << block[1];
  }
  return found.join(" ");
}

const PREAMBLE = "16 frames, orders 0..4, all free; of several blocks, the one with the lowest address is taken.";

/** Three sorts of question in turn. */
export function question(random: Prng): Question {
  const sort = random.below(3);
  if (sort === 0) {
    const [frame, order] = [random.below(64), random.below(4)];
    const start = frame - (frame % (1 << order));
    return {
      text: [`Which frame does the buddy of the block of order ${order} at frame ${start} start at?`],
      answer: String(start ^ (1 << order)),
      explanation: [`The two differ in bit ${order} only: ${start} ^ ${1 << order} = ${start ^ (1 << order)}.`],
    };
  }
  const { space, story, blocks } = situation(random);
  const text = [PREAMBLE, story.join("  ")];
  if (sort === 1) {
    const answer = freeBlocks(space);
    return {
      text: [...text, "Which blocks are free now? Write start:order, as in 4:2 8:3, by address."],
      answer,
      explanation: ["Free buddies of equal order are always one block.", `Free: ${answer}`],
    };
  }
  const block = blocks[random.below(blocks.length)] as { name: string; owner: Owner };
  space.putBack(block.owner);
  const [start, order] = space.freeBlockAround(block.owner.start) as readonly [number, number];
  return {
    text: [...text, `Now free(${block.name}). Of which order is the free block that it ends up in?`],
    answer: String(order),
    explanation: [
      `It merges upwards as long as its buddy is free with the same order: a block of order ${order} at ${start}.`,
    ],
  };
}
