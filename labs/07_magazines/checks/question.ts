/**
 * Questions of lab 7: what two magazines and a depot do, and which orders of locks can stop everybody.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import type { Question } from "../../kit/lab_code.ts";

/** Visits to the depot of one CPU with `nrMagazines` magazines of `size`, from empty ones on. */
function visitsOf(letters: string, size: number, nrMagazines: number): readonly number[] {
  let [loaded, previous] = [0, nrMagazines === 2 ? 0 : -1];
  const visits: number[] = [];
  [...letters].forEach((letter, i) => {
    const wanted = letter === "p" ? 0 : size;
    if (loaded === wanted && previous >= 0 && previous !== wanted) [loaded, previous] = [previous, loaded];
    if (loaded === wanted) {
      visits.push(i + 1);
      if (previous >= 0) previous = loaded;
      loaded = size - wanted;
    }
    loaded += letter === "p" ? -1 : 1;
  });
  return visits;
}

const NAMES: Readonly<Record<string, string>> = { p: "alloc", u: "free" };
const spelled = (letters: string): string => [...letters].map((letter) => NAMES[letter]).join(" ");

/** Three sorts of question. */
export function question(random: Prng, nr: number): Question {
  const sort = nr % 3;
  if (sort === 2) return lockQuestion(random);
  const size = 2 + random.below(3);
  // Up to where the loaded magazine ends, then back and forth over the edge.
  let letters = "p".repeat(size + random.below(2));
  while (letters.length < size + 6) letters += "upuupp".charAt(random.below(6));
  while (balance(letters) < 0) letters = `p${letters}`;
  const nrMagazines = sort === 0 ? 2 : 1;
  const visits = visitsOf(letters, size, nrMagazines);
  const which =
    nrMagazines === 2
      ? `two magazines, loaded and previous, for ${size} objects each, both empty`
      : `only one magazine, for ${size} objects, and it is empty`;
  return {
    text: [
      `A CPU has ${which}; the depot has full and empty ones.`,
      `It does: ${spelled(letters)}.`,
      "How many of these operations visit the depot?",
    ],
    answer: String(visits.length),
    explanation: [`Operations ${visits.join(", ")}: nothing at hand can give, or nothing can take, at that moment.`],
  };
}

/** The least number of objects held on the way; negative if something is freed that nobody has. */
function balance(letters: string): number {
  let [now, least] = [0, 0];
  for (const letter of letters) {
    now += letter === "p" ? 1 : -1;
    least = Math.min(least, now);
  }
  return least;
}

const ORDERS: readonly (readonly [first: string, second: string, canStop: boolean])[] = [
  ["0, then 1", "1, then 0", true],
  ["0, then the depot's", "1, then the depot's", false],
  ["0, then 1", "0, then 1", false],
  ["the depot's, then 0", "0, then the depot's", true],
  ["0, gives it back, then 1", "1, gives it back, then 0", false],
  ["0, then the depot's", "the depot's, gives it back, then 0", false],
];

function lockQuestion(random: Prng): Question {
  const [first, second, canStop] = ORDERS[random.below(ORDERS.length)] as (typeof ORDERS)[number];
  return {
    text: [
      `CPU 0 takes locks: ${first}. CPU 1: ${second}. Unless they say so, they keep each until they have all.`,
      "Can it happen that neither gets on? (yes or no)",
    ],
    answer: canStop ? "yes" : "no",
    explanation: [
      canStop
        ? "Each can have its first lock and wait for the other's."
        : "Nobody waits for a lock while having one that the other waits for.",
    ],
  };
}
