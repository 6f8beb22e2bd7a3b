/**
 * Questions of lab 11: what a compare-and-swap does after others have been there.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import type { Question } from "../../kit/lab_code.ts";

interface Meanwhile {
  readonly story: string;
  readonly list: readonly string[];
  readonly nrPops: number;
}

const MEANWHILE: readonly Meanwhile[] = [
  { story: "pop, pop, and pushes A back", list: ["A", "C", "D"], nrPops: 2 },
  { story: "pop, and pushes A back", list: ["A", "B", "C", "D"], nrPops: 1 },
  { story: "pushes X", list: ["X", "A", "B", "C", "D"], nrPops: 0 },
  { story: "pushes X, and pop", list: ["A", "B", "C", "D"], nrPops: 1 },
  { story: "pop, pop", list: ["C", "D"], nrPops: 2 },
  { story: "pop, pop, pop, and pushes A back", list: ["A", "D"], nrPops: 3 },
];

/** Three sorts of question. */
export function question(random: Prng): Question {
  const sort = random.below(3);
  const { story, list, nrPops } = MEANWHILE[random.below(MEANWHILE.length)] as Meanwhile;
  const text = [
    "The list is A → B → C → D. CPU 0 is in pop: it has loaded the head (A) and A's link (B), and rests.",
    `CPU 1: ${story}. The list is now ${list.join(" → ")}. CPU 0 goes on with its compare-and-swap.`,
  ];
  const isSame = list[0] === "A";
  if (sort === 0) {
    return {
      text: [...text, "The head has no tag. Does the compare-and-swap succeed? (yes or no)"],
      answer: isSame ? "yes" : "no",
      explanation: [`The head is ${list[0]}, and A is what is expected: nothing else is compared.`],
    };
  }
  if (sort === 1) {
    return {
      text: [
        ...text,
        "The tag, which each pop makes larger by 1, was 7. What is the tag when CPU 0's pop has returned?",
      ],
      answer: String(7 + nrPops + 1),
      explanation: [`${nrPops} pops of CPU 1 and, sooner or later, the one of CPU 0.`],
    };
  }
  const [bits, tag, nr] = [2 + random.below(5), random.below(4), 1 + random.below(99)];
  return {
    text: [`A tag of ${bits} bits is ${tag}. What is it after ${nr} pops?`],
    answer: String((tag + nr) % 2 ** bits),
    explanation: [`It counts modulo 2^${bits} = ${2 ** bits}: after so many pops it is the same again.`],
  };
}
