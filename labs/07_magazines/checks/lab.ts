/**
 * Lab 7: the checks.
 *
 * Programs of CPUs are words of letters: `p` alloc, `u` free what was got first, `U` what came last, `d` drain.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import { searchText } from "../../kit/history.ts";
import type { Check, Exploration, LabCode } from "../../kit/lab_code.ts";
import type { Json, Op, Program } from "../../kit/program.ts";
import type { MagazinesConfig } from "./history.ts";
import { judge, otherWay } from "./judge.ts";
import { picture } from "./picture.ts";
import { question } from "./question.ts";

/**
 * Virtual steps of a search, which runs a program many times: references take up to 1.5 million. Not more than is
 * needed, for a loop without end takes all of them in each program of a check.
 */
const SEARCH_STEPS = 20_000_000;
const FEW = { quick: 2, full: 5 };
const SOME = { quick: 2, full: 6 };

const nth = <T>(list: readonly T[], nr: number): T => list[nr % list.length] as T;
const asJson = (config: MagazinesConfig): Json => config as unknown as Json;

type Start = readonly [programs: string, before: string, objects: number, size: number];

/** All orders of `programs` with at most `bound` preemptions. */
function explored([programs, before, objects, size]: Start, bound = 2, more: Partial<MagazinesConfig> = {}): Program {
  return { config: asJson({ objects, size, before, ...more }), ops: [["explore", programs, bound]] };
}

/** CPU 1's program, then CPU 0's, and what is looked at; `me`: the second one's number. */
function visited(objects: number, size: number, other: string, program: string, about: string, me = 0): Program {
  return { config: asJson({ objects, size }), ops: [["visits", other, program, about, ...(me === 0 ? [] : [me])]] };
}

/** A word of `length` letters in which nothing is freed that was not got, and at most `limit` are held. */
function word(random: Prng, length: number, limit: number): string {
  let [text, held] = ["", 0];
  while (text.length < length) {
    const isAlloc = held === 0 || (held < limit && random.below(2) === 0);
    text += isAlloc ? "p" : nth(["u", "U"], random.below(2));
    held += isAlloc ? 1 : -1;
  }
  return text;
}

const ALONE: readonly Check[] = [
  {
    id: "one-owner",
    rule: "PCM-1",
    title: "an object is in one place: free once, or with whoever got it",
    cause: "a round that is taken is still counted, a magazine that is put away twice or not at all",
    kinds: ["one-twice", "one-foreign", "one-lost", "one-early", "bad-claim"],
    program(random, nr) {
      // Each CPU has as much at hand as there is room for: does the one end where the other begins?
      if (nr % 8 === 6) return explored(["pppppuuuuud|pppppuuuuud|pppppuuuuupp", "", 12, 2], 0, { nrCpus: 3 });
      if (nr % 8 === 2) return explored(["p|u", "ppppppppuuuuuuuu|pp", 18, 4], 0);
      // Every other one fills and empties both magazines.
      const there = nr % 2 === 0 ? "" : "pppppuuuuu";
      return explored([`${there}${word(random, 4 + (nr % 12), 5)}`, "", 6 + (nr % 4), 1 + (nr % 3)], 0);
    },
  },
  {
    id: "all-used",
    rule: "PCM-2",
    title: "alloc says 0 only if no object is free: all of them can be had by one CPU",
    cause: "a magazine that is not looked into, a remainder that init() forgets",
    kinds: ["one-empty"],
    program(random, nr) {
      const [objects, size] = [5 + (nr % 5), 1 + (nr % 4)];
      return visited(
        objects,
        size,
        "",
        `${"p".repeat(objects + 1)}${"u".repeat(1 + random.below(objects))}ppp`,
        "fast",
      );
    },
  },
  {
    id: "warm",
    rule: "PCM-3",
    title: "an alloc right after a free gives what was freed: it is still in this CPU's cache",
    cause: "objects come out of a magazine at the other end",
    kinds: ["cold"],
    program: (random, nr) => visited(24, 3 + (nr % 3), "pu", `ppp${word(random, 9, 9)}uUp`, "warm"),
  },
  {
    id: "fast-path",
    rule: "PCM-5",
    title: "an alloc or free that the magazines can serve takes no lock that another CPU takes",
    cause: "the depot's lock around everything",
    kinds: ["global"],
    program: (random, nr) => visited(40, 4, "ppuuppuu", `ppuu${word(random, 6 + (nr % 20), 3)}`, "fast"),
  },
  {
    id: "two-magazines",
    rule: "PCM-4",
    title: "between two visits of a CPU to the depot lie as many allocs, or frees, as a magazine holds",
    cause: "the previous magazine is not used, or one object is moved where a magazine should be",
    kinds: ["visits"],
    program(_random, nr) {
      const size = 2 + (nr % 4);
      // To and fro over the edge of a magazine: where everything at hand is empty, and where it is full.
      const isFull = nr % 2 === 1;
      const there = `${"p".repeat(4 * size + 1)}${"u".repeat(isFull ? size + 2 : 0)}`;
      const edge = nth(isFull ? ["ppuu", "pu", "pppuuu"] : ["uupp", "up", "uuuppp"], nr >>> 1);
      return visited(60, size, `${"p".repeat(9)}u`, `${there}${edge.repeat(4)}`, "gap", nr % 8 < 4 ? 0 : 1);
    },
  },
  {
    id: "depot-first",
    rule: "PCM-6",
    title: "what other CPUs have at hand is left to them while the depot has something",
    cause: "the neighbours are asked before the depot",
    kinds: ["steals-early"],
    program(_random, nr) {
      const size = 2 + (nr % 3);
      return visited(12 * size, size, "ppp*uuu", "p".repeat(4 * size), "depot-first");
    },
  },
  {
    id: "steal",
    rule: "PCM-2",
    title: "what other CPUs have at hand is free too: where the depot is empty, alloc gets it there",
    cause: "alloc gives up when the depot is empty, or looks at some CPUs only",
    kinds: ["no-steal"],
    program(_random, nr) {
      const [objects, size] = [4 + (nr % 4), 2 + (nr % 2)];
      const theirs = 2 + (nr % 3);
      return visited(objects, size, `${"p".repeat(theirs)}${"u".repeat(theirs)}`, "p".repeat(objects), "steal");
    },
  },
  {
    id: "drain",
    rule: "PCM-7",
    title: "after drain() nothing is at hand on this CPU, and everything is still somewhere",
    cause: "one of the two magazines is forgotten, or one that is not full is kept",
    kinds: ["not-drained"],
    program(_random, nr) {
      const [objects, size] = [9 + (nr % 4), 2 + (nr % 2)];
      const theirs = nth(["ppp*uuud", "pp*ud", "ppppp*uuuuud", "p*uUd", "pppp*uuud"], nr);
      const held = theirs.split("p").length - 1 - (theirs.split(/[uU]/).length - 1) + (theirs.includes("U") ? 1 : 0);
      return visited(objects, size, theirs, "p".repeat(objects - Math.max(0, held)), "drained");
    },
  },
  {
    id: "cost",
    rule: "PCM-8",
    title: "what nobody disturbs takes at most 60 accesses and 10 more for each object of a magazine",
    cause: "a search through all objects or all magazines",
    kinds: ["slow"],
    program: (random, nr) => visited(nth([120, 240], nr), 2, "ppuu", `ppppppp${word(random, 20, 30)}`, "cost"),
  },
];

const TOGETHER: readonly Check[] = [
  {
    id: "two-cpus",
    rule: "PCM-1",
    title: "whatever two CPUs do at once, each object stays in one place",
    cause: "what was looked at under a lock is used after it was given back",
    kinds: ["twice", "lost", "early", "foreign", "endless"],
    runs: FEW,
    program: (_random, nr) =>
      explored(
        nth<Start>(
          [
            ["u|p", "ppu|", 2, 2],
            ["pu|pu", "", 8, 1],
            ["uu|pp", "pp|", 8, 1],
            ["pd|pp", "", 8, 2],
            ["ppd|pp", "p|p", 10, 2],
          ],
          nr,
        ),
      ),
  },
  {
    id: "races",
    rule: "PCM-9",
    title: "a word of which two CPUs make use is used under one lock",
    cause: "the depot, or what another CPU has at hand, without its lock",
    kinds: ["race"],
    runs: SOME,
    program: (_random, nr) =>
      explored(
        nth<Start>(
          [
            ["pp|pp", "", 8, 1],
            ["p|p", "|pu", 2, 2],
            ["uuu|uuu", "pppp|pppp", 12, 1],
            ["d|pp", "pppuu|", 8, 2],
            ["pp|pu", "|ppuu", 3, 2],
            ["p|uu", "p|pp", 3, 1],
          ],
          nr,
        ),
        1,
      ),
  },
  {
    id: "no-deadlock",
    rule: "PCM-10",
    title: "CPUs that need several locks never wait for each other in a circle",
    cause: "two locks are taken in one order here, and in the other one there",
    kinds: ["deadlock"],
    runs: SOME,
    program: (_random, nr) =>
      explored(
        nth<Start>(
          [
            ["p|p", "p|p", 2, 2],
            ["u|p", "pppuu|", 3, 1],
            ["d|p", "pu|", 6, 1],
            ["d|p", "ppu|pp", 4, 1],
            ["du|pp", "pp|", 4, 1],
            ["d|uu", "pu|pppp", 9, 1],
          ],
          nr,
        ),
      ),
  },
  {
    id: "honest-zero",
    rule: "PCM-2",
    title: "alloc says 0 only if at some moment between its first and its last access nothing was free",
    cause: "places are looked at one after the other, and what was free has moved in between",
    kinds: ["empty"],
    runs: SOME,
    program: (_random, nr) =>
      explored(
        nth<Start>(
          [
            ["p|du", "|pppu", 3, 2],
            ["p|d", "|pu", 2, 2],
            ["p|up", "|pu", 2, 2],
            ["p|pd", "|pppuu", 4, 2],
            ["p|u|p", "|p|pu", 2, 1],
            ["p|ud|p", "|pp|pu", 3, 1],
          ],
          nr,
        ),
        2,
        nr % 6 >= 4 ? { nrCpus: 3 } : {},
      ),
  },
  {
    id: "interrupts",
    rule: "PCM-11",
    title: "an interrupt that allocates and frees may come between any two accesses",
    cause: "interrupts are on while a lock is held, or while this CPU's magazines are half-way between two states",
    kinds: ["interrupt", "self-deadlock"],
    runs: FEW,
    program: (_random, nr) =>
      explored(
        nth<Start>(
          [
            ["pu", "", 6, 2],
            ["pd", "pu", 6, 1],
            ["pppp", "", 3, 1],
            ["uu", "ppp", 6, 1],
            ["p|p", "", 4, 1],
          ],
          nr,
        ),
        2,
        { interrupt: "pu" },
      ),
  },
  {
    id: "cpu-id",
    rule: "PCM-11",
    title: "cpu() is asked with interrupts off",
    cause: "the number is looked up first, and may be that of another CPU when it is used",
    kinds: ["preemptible"],
    runs: FEW,
    program: (_random, nr) => explored([nth(["p", "pu", "d", "ppp", "pdp"], nr), "", 4, 2], 0),
  },
  {
    id: "as-found",
    rule: "PCM-12",
    title: "an operation leaves locks and the interrupt flag as it has found them, also where it finds nothing",
    cause: "a way out of the function past unlock() or irqRestore(); interrupts switched on that were off before",
    kinds: ["flag", "lock-kept", "bad-unlock"],
    runs: SOME,
    program: (_random, nr) =>
      explored(
        nth<Start>(
          [
            ["ppp", "", 2, 1],
            ["pu", "", 4, 1],
            ["uuuu", "pppp", 4, 1],
            ["dpd", "pu", 4, 2],
            ["p", "p|p", 2, 1],
            ["pp", "", 4, 1],
          ],
          nr,
        ),
        1,
        nr % 2 === 1 ? { interrupt: "pu" } : {},
      ),
  },
  {
    id: "own-words",
    rule: "PCM-13",
    title: "all that lasts is in words of the memory, and words are whole numbers from 0 to 2^32 − 1",
    cause: "a variable outside of the function, which all CPUs and all runs share; a word beyond nrWords",
    kinds: ["unsteady", "outside", "bad-word"],
    runs: FEW,
    program: (_random, nr) =>
      explored(
        nth<Start>(
          [
            ["pu|pu", "", 6, 2],
            ["pp|p", "", 4, 1],
            ["pppp", "", 6, 1],
            ["pd|p", "", 6, 2],
            ["uu|p", "pp", 6, 1],
          ],
          nr,
        ),
        1,
      ),
  },
];

const ANY = ["twice", "lost", "early", "foreign", "endless", "empty", "race", "deadlock", "interrupt", "self-deadlock"];

function mixed(random: Prng, nrCpus: number, length: number): string {
  const letter = (): string => "pppuuUd".charAt(random.below(7));
  return Array.from({ length: nrCpus }, () => Array.from({ length }, letter).join("")).join("|");
}

const HIDDEN: readonly Check[] = [
  {
    id: "all-orders",
    rule: "PCM-1",
    title: "every order of two CPUs with up to three preemptions and interrupts keeps all rules",
    cause: "see the checks about two CPUs; this one has programs that you do not know",
    kinds: ANY,
    isSweep: true,
    runs: { quick: 1, full: 2 },
    program: (random, nr) => ({
      config: asJson({ objects: 3 + (nr % 4), size: 1 + (nr % 2), before: "p|p", interrupt: "pu" }),
      ops: [["explore", mixed(random, 2, 2 + (nr % 2)), 3, 1, 2_000]],
    }),
  },
  {
    id: "three-cpus",
    rule: "PCM-1",
    title: "every order of three CPUs with up to two preemptions keeps all rules, with memory exhausted too",
    cause: "see the checks about two CPUs; this one has three, with programs that you do not know",
    kinds: ANY,
    isSweep: true,
    runs: { quick: 1, full: 2 },
    program: (random, nr) => ({
      config: asJson({ objects: 3 + (nr % 3), size: 1 + (nr % 2), before: "p|p|p", nrCpus: 3 }),
      ops: [["explore", mixed(random, 3, 2), 2, 0, 1_000]],
    }),
  },
];

const NAMES: Readonly<Record<string, string>> = { p: "alloc", u: "free(oldest)", U: "free(newest)", d: "drain" };

/** Letters as operations; many equal ones as a number. */
function operations(letters: string): string {
  return letters
    .replaceAll("*", "")
    .replaceAll(/(.)\1*/g, (run, letter: string) => {
      const name = NAMES[letter] ?? letter;
      return run.length > 2 ? `${name}×${run.length} ` : `${name} `.repeat(run.length);
    })
    .trim();
}

const perCpu = (programs: string): string =>
  programs
    .split("|")
    .map((program, cpu) => (program === "" ? "" : `CPU ${cpu}: ${operations(program)}`))
    .filter((text) => text !== "")
    .join(" ‖ ");

function describe(op: Op): string {
  if (op[0] === "explore") return perCpu(String(op[1]));
  const first = String(op[1]) === "" ? "" : `CPU 1: ${operations(String(op[1]))}, then `;
  return otherWay(op, `${first}CPU 0: ${operations(String(op[2]))}`);
}

/** One operation, one object, or the interrupt less. */
function simpler(program: Program): readonly Program[] {
  const [op] = program.ops;
  if (op === undefined) return [];
  const config = program.config as unknown as MagazinesConfig;
  const at = op[0] === "explore" ? 1 : 2;
  const text = String(op[at]);
  const candidates: Program[] = [];
  const shorter = (letters: string): readonly string[] =>
    letters.length > 24
      ? [letters.slice(0, letters.length >>> 1), letters.slice(0, -1)]
      : [...letters].flatMap((letter, i) => (letter === "|" ? [] : [letters.slice(0, i) + letters.slice(i + 1)]));
  for (const piece of shorter(text)) {
    candidates.push({ config: program.config, ops: [[op[0], ...op.slice(1, at), piece, ...op.slice(at + 1)]] });
  }
  if (op[0] === "explore") {
    for (const before of shorter(config.before ?? "")) {
      candidates.push({ config: asJson({ ...config, before }), ops: program.ops });
    }
  }
  return candidates;
}

/** `["explore", programs, bound, irqs]` otherwise. */
const EXPLORATION: Exploration = {
  withBound({ config, ops }, bound) {
    const [op] = ops;
    return op?.[0] === "explore" ? { config, ops: [["explore", op[1] as string, bound]] } : null;
  },
  atRandom: ({ config, ops }, seed) => ({ config, ops: [["stress", ops[0]?.[1] as string, seed, 1]] }),
  executions({ claims }) {
    const [claim] = claims;
    return Array.isArray(claim) ? Number(claim[1]) : 0;
  },
};

const withLimit = (check: Check): Check => ({ ...check, stepLimit: SEARCH_STEPS });

export const lab: LabCode = {
  checks: [...ALONE, ...[...TOGETHER, ...HIDDEN].map(withLimit)],
  judge,
  describe,
  describeClaim: ([kind], claim) =>
    Array.isArray(claim) && (kind === "explore" || kind === "stress")
      ? searchText(claim[1], claim[2], claim.length - 3)
      : null,
  describeConfig(config) {
    const { objects, size, before = "", interrupt, nrCpus } = config as unknown as MagazinesConfig;
    const setUp = before.replaceAll("|", "") === "" ? "" : `, before: ${perCpu(before)}`;
    const irq = interrupt === undefined ? "" : ", interrupts: alloc free";
    return `${objects} objects, magazines of ${size}${nrCpus === undefined ? "" : `, ${nrCpus} CPUs`}${setUp}${irq}`;
  },
  picture,
  simpler,
  exploration: EXPLORATION,
  question,
};
