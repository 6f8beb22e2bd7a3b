/**
 * Programs as text, and random ones.
 *
 *   "ppUU | pU"      CPU 0: take, take, give, give; CPU 1: take, give
 *
 * Random programs look for what nobody thought of: many operations per CPU, each drawn from the scenario's, another
 * draw for every run. Deep orderings (ABA over several operations) come by themselves in a long program, while a search
 * through the schedules of one short program would need a large bound.
 */

import type { Prng } from "../kernel/lib/prng.ts";

export function formatPrograms(programs: readonly string[]): string {
  return programs.map((program) => (program === "" ? "-" : program)).join(" | ");
}

/** One program per CPU, or what is wrong with the text, as a sentence. */
export function parsePrograms(
  text: string,
  operations: ReadonlyMap<string, string>,
  maxCpus: number,
): readonly string[] | string {
  const programs = text.split("|").map((part) => part.replace(/[\s-]+/g, ""));
  if (programs.length > maxCpus) return `programs for ${programs.length} CPUs: this scenario has at most ${maxCpus}`;
  const known = [...operations.keys()].join("");
  for (const program of programs) {
    const letter = [...program].find((l) => !operations.has(l));
    if (letter !== undefined) return `"${letter}" is no operation of this scenario, which has: ${known}`;
    if (program.length > 1000) return `a program of ${program.length} operations: at most 1000`;
  }
  return programs;
}

/** Programs of `length` operations each for `nrCpus` CPUs. */
export function randomPrograms(prng: Prng, letters: readonly string[], nrCpus: number, length: number): string[] {
  return Array.from({ length: nrCpus }, () =>
    Array.from({ length }, () => letters[prng.below(letters.length)] as string).join(""),
  );
}
