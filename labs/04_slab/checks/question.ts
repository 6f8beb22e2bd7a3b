/**
 * Questions of lab 4: layout, colour, from an address to its object, and what the machine is asked for.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import type { Question } from "../../kit/lab_code.ts";
import { FRAME_BYTES } from "../given/api.ts";
import { colourOf, type Layout, layoutOf } from "./model.ts";
import { anyRequest } from "./programs.ts";

function layoutLine({ stride, order, bytes, nrObjects, nrColours }: Layout): string {
  const rest = bytes - nrObjects * stride;
  const objects = `${nrObjects} objects in ${bytes} bytes`;
  return `Stride ${stride}, order ${order}: ${objects}, ${rest} left over, ${nrColours} colours.`;
}

function orderQuestion(size: number, align: number): Question {
  const layout = layoutOf(size, align);
  return {
    text: [
      `createCache(${size}, ${align}): how many frames has a slab, and how many objects? Write 2 frames 5 objects.`,
    ],
    answer: `${1 << layout.order} frames ${layout.nrObjects} objects`,
    explanation: ["The smallest order that leaves at most an eighth over.", layoutLine(layout)],
  };
}

function colourQuestion(random: Prng, size: number, align: number): Question {
  const layout = layoutOf(size, align);
  const nr = 1 + random.below(6);
  return {
    text: [
      `createCache(${size}, ${align}). Slabs count from 0. At which offset does the first object of slab ${nr} begin?`,
    ],
    answer: String(colourOf(layout, nr)),
    explanation: [layoutLine(layout), `(${nr} mod ${layout.nrColours}) · ${align}`],
  };
}

function addressQuestion(random: Prng, size: number, align: number): Question {
  const layout = layoutOf(size, align);
  const frame = 8 * (1 + random.below(6));
  const index = layout.nrObjects > 1 ? 1 + random.below(layout.nrObjects - 1) : 0;
  const delta = random.below(2) === 0 ? 0 : align;
  const isObject = delta % layout.stride === 0;
  const start = frame * FRAME_BYTES;
  const address = start + index * layout.stride + delta;
  return {
    text: [
      `createCache(${size}, ${align}); its first slab is at frame ${frame}, address ${start}. All objects are out.`,
      `free(${address}): the index of the object that it frees, or "refused"?`,
    ],
    answer: isObject ? String(index) : "refused",
    explanation: [layoutLine(layout), `The offset is ${address - start}: object ${index}, byte ${delta}.`],
  };
}

function framesQuestion(random: Prng): Question {
  const [nr, keepEmpty] = [3 + random.below(8), random.below(3)];
  const nrSlabs = Math.ceil(nr / 2);
  return {
    text: [
      `createCache(2048, 8), keepEmpty = ${keepEmpty}. ${nr} times alloc, then all of these are freed.`,
      "How many frames does the cache have now?",
    ],
    answer: String(Math.min(nrSlabs, keepEmpty)),
    explanation: [`${nrSlabs} slabs of one frame were made; a free gives back what is empty beyond ${keepEmpty}.`],
  };
}

/** Four sorts of question. */
export function question(random: Prng): Question {
  const sort = random.below(4);
  const [size, align] = anyRequest(random);
  // With stride = align every aligned address is an object: no question.
  if (sort === 0) return addressQuestion(random, Math.max(size, align + 1), align);
  if (sort === 1) return colourQuestion(random, size, align);
  return sort === 2 ? orderQuestion(size, align) : framesQuestion(random);
}
