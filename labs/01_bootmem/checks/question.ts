/**
 * Questions of lab 1: where a request lands, what is handed over, what the books say.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import type { Question } from "../../kit/lab_code.ts";
import { PAGE_SIZE, RAM } from "../given/api.ts";
import { hex } from "./judge.ts";
import { type BootConfig, BootSpace } from "./model.ts";

/** A small machine: two rows of memory, two reserved ranges. */
function machine(random: Prng): BootConfig {
  const start = 0x1000 + 0x400 * random.below(4);
  const end = 0x8000 + 0x400 * random.below(4);
  const taken = start + 0x400 * (1 + random.below(4));
  return {
    map: [
      [start, end, RAM],
      [0xa000, 0xf000 + 0x400 * random.below(4), RAM],
    ],
    reserved: [
      [taken, taken + 0x1400],
      [taken + 0x800, taken + 0x1000 + 0x400 * random.below(6)],
    ],
  };
}

function textOf({ map, reserved }: BootConfig): string[] {
  const show = (rows: readonly (readonly [number, number, ...number[]])[]): string =>
    rows.map(([start, end]) => `[${hex(start)}, ${hex(end)})`).join(" ");
  return [`RAM ${show(map)}; reserved ${show(reserved)}.`];
}

/** Three sorts of question in turn. */
export function question(random: Prng): Question {
  const sort = random.below(3);
  const space = new BootSpace(machine(random));
  const text = textOf(space.config);
  if (sort === 0) {
    return {
      text: [...text, "What does reservedBytes() say? Write it in hex, as in 0x1400."],
      answer: hex(space.reservedBytes),
      explanation: ["Only bytes of RAM count, and each once, however many ranges it lies in."],
    };
  }
  const size = 0x100 * (1 + random.below(8));
  const first = space.lowest(size, 0x10);
  space.take(0, first, size);
  text.push(`alloc(${hex(size)}, 0x10) has returned ${hex(first)}.`);
  if (sort === 1) {
    const [wanted, align] = [0x400 * (4 + random.below(8)), 0x400 << random.below(4)];
    const answer = space.lowest(wanted, align);
    return {
      text: [...text, `What does alloc(${hex(wanted)}, ${hex(align)}) return? Write it in hex.`],
      answer: hex(answer),
      explanation: [
        `The lowest multiple of ${hex(align)} from ${hex(space.cursor)} on with ${hex(wanted)} free bytes behind it.`,
      ],
    };
  }
  const rows = space.wholePages().map(([from, to]) => `${from}..${to}`);
  return {
    text: [...text, "Which rows does handOver() write? Page frames as first..end, as in 1..4 6..8."],
    answer: rows.join(" "),
    explanation: [`A frame has ${PAGE_SIZE} bytes; one that is not free as a whole stays behind.`],
  };
}
