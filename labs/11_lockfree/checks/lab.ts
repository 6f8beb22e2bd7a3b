/**
 * Lab 11: the checks.
 *
 * Programs of CPUs are words of letters: `p` pop, `u` push what was taken first, `U` what came last, `r` refill(2),
 * `R` refill(3), `z` refill(0). Before them: how many nodes are free, and how many each CPU holds.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import { searchText } from "../../kit/history.ts";
import type { Check, Exploration, LabCode } from "../../kit/lab_code.ts";
import type { Json, Op, Program } from "../../kit/program.ts";
import type { LockfreeConfig } from "./history.ts";
import { judge } from "./judge.ts";
import { picture } from "./picture.ts";
import { question } from "./question.ts";

/** Virtual steps of a search: it runs a program many times. */
const SEARCH_STEPS = 50_000_000;
const FEW = { quick: 3, full: 5 };

type Start = readonly [programs: string, free: number, hold?: readonly number[]];

function explored([programs, free, hold = []]: Start, bound = 2, more: Partial<LockfreeConfig> = {}): Program {
  return { config: { free, hold, ...more }, ops: [["explore", programs, bound]] };
}

const nth = <T>(list: readonly T[], nr: number): T => list[nr % list.length] as T;

/** A word of `length` letters; never a pop where there is nothing, if `free` says how much there is. */
function word(random: Prng, letters: string, length: number, free = Number.POSITIVE_INFINITY): string {
  let [text, left, held] = ["", free, 0];
  while (text.length < length) {
    const letter = letters.charAt(random.below(letters.length));
    if (letter === "p" ? left === 0 : held === 0) {
      if (left === 0 && held === 0) break;
      continue;
    }
    left += letter === "p" ? -1 : 1;
    held += letter === "p" ? 1 : -1;
    text += letter;
  }
  return text;
}

const ALONE: readonly Check[] = [
  {
    id: "one-owner",
    rule: "LFS-1",
    title: "each node that was pushed is popped once",
    cause: "the head does not become the node that was behind the first one, or a node's link is not written",
    kinds: ["one-twice", "one-lost", "one-foreign", "foreign"],
    program(random, nr) {
      const free = nth([1, 2, 3, 8, 60, 200, 12, 30], nr);
      const program = nr % 2 === 0 ? "p".repeat(free) : word(random, "ppuU", 2 * free + 2, free);
      return explored([program, free], 0, { nrNodes: nth([8, 255], nr) > free ? nth([8, 255], nr) : 255 });
    },
  },
  {
    id: "nothing",
    rule: "LFS-2",
    title: "pop says 0 when nothing is free, and the list works afterwards",
    cause: "0 as a node, or another value than 0; or a pop of the empty list changes the head",
    kinds: ["one-empty", "bad-zero", "one-foreign", "one-twice", "one-lost"],
    program(_random, nr) {
      return explored(
        nth<Start>(
          [
            ["p", 0],
            ["pp", 1],
            ["ppuup", 2],
            ["pup", 0, [1]],
            ["pupp", 0, [2]],
          ],
          nr,
        ),
        0,
      );
    },
  },
  {
    id: "refill-size",
    rule: "LFS-6",
    title: "refill(nr) gives nr nodes, or all that are free",
    cause: "the walk ends one node too early or too late, or forgets that the list may end",
    kinds: ["one-short", "one-long", "one-empty", "one-twice", "one-lost", "one-foreign", "bad-claim"],
    program(_random, nr) {
      const starts: readonly Start[] = [
        ["r", 3],
        ["R", 3],
        ["R", 2],
        ["r", 0],
        ["z", 2],
        ["rr", 5],
        ["rupR", 6],
        ["RRR", 7],
      ];
      return explored(nth(starts, nr), 0);
    },
  },
  {
    id: "tag-wrap",
    rule: "LFS-5",
    title: "the tag runs over, and words stay whole numbers from 0 to 2^32 − 1",
    cause: "bit operations give negative numbers (>>> 0 makes them positive), or a tag grows beyond its bits",
    kinds: ["bad-word", "one-twice", "one-lost", "one-foreign", "one-empty", "endless"],
    program(random, nr) {
      const firstTag = nth([0xffff_ffff, 0x007f_ffff, 0x7fff, 0x00ff_ffff, 0x7fff_ffff, 0xfffe], nr);
      return explored([`ppuupu${word(random, "ppu", 6, 3)}r`, 3], 0, { firstTag });
    },
  },
  {
    id: "tag-width",
    rule: "LFS-5",
    title: "a tag does not come back for 4,000 pops",
    cause: "the tag has few bits, or does not change with every pop",
    kinds: ["narrow"],
    runs: { quick: 1, full: 2 },
    program: (_random, nr) => ({
      config: { free: 2 + (nr % 3), hold: [] },
      ops: [
        ["churn", 4_000],
        ["explore", "p", 0],
      ],
    }),
  },
  {
    id: "overtaken",
    rule: "LFS-5",
    title: "a CPU that rests while the list changes many times, and is the same again, does no harm",
    cause:
      "the tag does not change with what the list becomes: when it is empty, when a node comes, or in too few bits",
    kinds: ["overtaken"],
    program(_random, nr) {
      const [first, other, free, hold] = nth(
        [
          ["uu", "up", 0, [2, 1]],
          ["p", "pu", 1, []],
          ["uuu", "uupp", 0, [3, 2]],
          ["r", "rUu", 4, []],
          ["pu", "pupu", 2, [0, 1]],
        ] as const,
        nr,
      );
      return { config: { free, hold: [...hold] }, ops: [["overtake", first, other, nr < 5 ? 256 : 64]] };
    },
  },
  {
    id: "cost",
    rule: "LFS-8",
    title: "an operation that nobody disturbs takes at most 8 accesses, and 2 more for each node of a refill",
    cause: "a walk along the list, or a search for a free node",
    kinds: ["slow"],
    program(random, nr) {
      const free = nth([40, 80, 160], nr);
      return explored([`prRpu${word(random, "pu", 12, free - 6)}`, free], 0, { nrNodes: 200 });
    },
  },
];

const TOGETHER: readonly Check[] = [
  {
    id: "push-pop",
    rule: "LFS-3",
    title: "what is pushed or popped by two CPUs at once ends in one place each",
    cause: "a store instead of a swap, a refused swap is taken for done, or a retry uses what was loaded before",
    kinds: ["twice", "lost", "early", "endless", "foreign"],
    runs: FEW,
    program: (_random, nr) =>
      explored(
        nth<Start>(
          [
            ["u|u", 1, [1, 1]],
            ["p|p", 2],
            ["u|p", 1, [1, 0]],
            ["pu|p", 2],
            ["uu|up", 0, [2, 1]],
          ],
          nr,
        ),
      ),
  },
  {
    id: "aba",
    rule: "LFS-4",
    title: "a pop that was overtaken fails, even if the same node is first again",
    cause: "the head that is compared does not tell that the list has changed (ABA): what tag, loaded when?",
    kinds: ["twice", "lost", "foreign"],
    runs: FEW,
    program: (_random, nr) =>
      explored(
        nth<Start>(
          [
            ["p|ppu", 3],
            ["p|ppu", 2],
            ["pp|ppu", 4],
            ["p|pppu", 4],
            ["p|ppUu", 3],
          ],
          nr,
        ),
      ),
  },
  {
    id: "refill-aba",
    rule: "LFS-6",
    title: "a refill that was overtaken fails, whatever is first now",
    cause: "refill swaps a head that it did not load before its walk, or leaves the tag as it is",
    kinds: ["twice", "lost", "foreign", "endless"],
    runs: FEW,
    program: (_random, nr) =>
      explored(
        nth<Start>(
          [
            ["r|ppu", 3],
            ["r|ru", 3],
            ["r|pu", 3],
            ["r|r", 4],
            ["R|RuU", 4],
          ],
          nr,
        ),
      ),
  },
  {
    id: "honest-zero",
    rule: "LFS-2",
    title: "pop says 0 only if at some moment nothing was free",
    cause: "a refused compare-and-swap is taken for an empty list, or one CPU empties the list for a moment",
    kinds: ["empty"],
    runs: FEW,
    program: (_random, nr) =>
      explored(
        nth<Start>(
          [
            ["p|p", 2],
            ["pu|p", 2],
            ["pu|pu", 3],
            ["p|u", 1, [0, 1]],
            ["pup|p", 3],
          ],
          nr,
        ),
      ),
  },
  {
    id: "refill-at-once",
    rule: "LFS-6",
    title: "a refill happens at one moment: others see all of it or nothing",
    cause: "refill takes node after node, and others come in between",
    kinds: ["short", "empty", "early"],
    runs: FEW,
    program: (_random, nr) =>
      explored(
        nth<Start>(
          [
            ["r|pu", 1, [0, 1]],
            ["r|pu", 3],
            ["R|pu", 2, [0, 1]],
            ["r|r", 4],
            ["r|uu", 2, [0, 2]],
          ],
          nr,
        ),
      ),
  },
  {
    id: "no-lock",
    rule: "LFS-7",
    title: "a CPU that rests, wherever it is, keeps nobody from getting on",
    cause: 'a lock, a flag, or a head that says "busy"',
    kinds: ["stuck"],
    runs: FEW,
    program(_random, nr) {
      const [first, second] = nth(
        [
          ["p", "p"],
          ["pu", "pu"],
          ["r", "pu"],
          ["pu", "R"],
          ["rur", "pru"],
        ] as const,
        nr,
      );
      return {
        config: { free: 6, hold: [] },
        ops: [
          ["rest", first, second],
          ["explore", "p", 0],
        ],
      };
    },
  },
  {
    id: "own-words",
    rule: "LFS-9",
    title: "what CPUs share is in the words of the memory, and no other word is touched",
    cause: "a variable outside of createFreelist, which all CPUs and all runs share; or a word beyond nrWords",
    kinds: ["outside", "unsteady"],
    runs: FEW,
    program: (_random, nr) =>
      explored(
        nth<Start>(
          [
            ["pu|pu", 3],
            ["pp|p", 3],
            ["r|p", 3],
            ["ppp", 3],
            ["u|p", 1, [1]],
          ],
          nr,
        ),
      ),
  },
];

const ANY = ["twice", "lost", "early", "foreign", "endless", "empty", "short", "long"];

/** Programs of several CPUs in which about as much is given as taken. */
function mixed(random: Prng, nrCpus: number, length: number): string {
  const parts = Array.from({ length: nrCpus }, () =>
    Array.from({ length }, () => "pppuuUr".charAt(random.below(7))).join(""),
  );
  return parts.join("|");
}

const HIDDEN: readonly Check[] = [
  {
    id: "all-orders",
    rule: "LFS-1",
    title: "every order of accesses of two CPUs with three operations each can be explained",
    cause: "see the checks about two CPUs; this one tries orders with any number of changes",
    kinds: ANY,
    isSweep: true,
    runs: { quick: 1, full: 2 },
    program: (random, nr) => ({
      config: { free: 2 + (nr % 3), hold: [1, 1] },
      ops: [["explore", mixed(random, 2, 3), -1, 1_500]],
    }),
  },
  {
    id: "three-cpus",
    rule: "LFS-1",
    title: "every order with up to two preemptions of three CPUs can be explained",
    cause: "see the checks about two CPUs; this one has three, with programs that you do not know",
    kinds: ANY,
    isSweep: true,
    runs: { quick: 1, full: 2 },
    program: (random, nr) => ({
      config: { free: 2 + (nr % 3), hold: [1, 0, 1] },
      ops: [["explore", mixed(random, 3, 2 + (nr % 2)), 2, 3_000]],
    }),
  },
];

const NAMES: Readonly<Record<string, string>> = {
  p: "pop",
  u: "push(oldest)",
  U: "push(newest)",
  r: "refill(2)",
  R: "refill(3)",
  z: "refill(0)",
};

/** Letters as operations; many equal ones as a number. */
function operations(letters: string): string {
  return letters.replaceAll(/(.)\1*/g, (run, letter: string) => {
    const name = NAMES[letter] ?? letter;
    return run.length > 2 ? `${name}×${run.length} ` : `${name} `.repeat(run.length);
  });
}

function describe(op: Op): string {
  if (op[0] === "churn") return `${op[1]} times: pop, push`;
  if (op[0] === "overtake")
    return (
      `CPU 0 rests in: ${operations(String(op[1]))}while CPU 1, after one time, ${op[3]} times: ` +
      operations(String(op[2])).trim()
    );
  if (op[0] === "rest") return `CPU 0 rests in: ${operations(String(op[1]))}while CPU 1: ${operations(String(op[2]))}`;
  const programs = String(op[1]).split("|");
  return programs.map((program, cpu) => `CPU ${cpu}: ${operations(program).trim()}`).join(" ‖ ");
}

/** One operation less. */
function simpler(program: Program): readonly Program[] {
  const [op] = program.ops;
  if (op === undefined || op[0] !== "explore") return [];
  const text = String(op[1]);
  const candidates: Program[] = [];
  const pieces = text.length > 16 ? [text.slice(0, text.length >>> 1), text.slice(0, -1)] : [];
  for (let i = 0; i < text.length && text.length <= 16; i++)
    if (text[i] !== "|") pieces.push(text.slice(0, i) + text.slice(i + 1));
  for (const piece of pieces) candidates.push({ config: program.config, ops: [["explore", piece, ...op.slice(2)]] });
  const config = program.config as unknown as LockfreeConfig;
  if (config.free > 0)
    candidates.push({ config: { ...config, free: config.free - 1 } as unknown as Json, ops: program.ops });
  return candidates;
}

/** `["explore", programs, bound]` otherwise. */
const EXPLORATION: Exploration = {
  withBound({ config, ops }, bound) {
    const [op] = ops;
    return op?.[0] === "explore" ? { config, ops: [["explore", op[1] as string, bound]] } : null;
  },
  atRandom: ({ config, ops }, seed) => ({ config, ops: [["stress", ops[0]?.[1] as string, seed]] }),
  executions({ claims }) {
    const [claim] = claims;
    return Array.isArray(claim) ? Number(claim[0]) : 0;
  },
};

const withLimit = (check: Check): Check => ({ ...check, stepLimit: SEARCH_STEPS });

export const lab: LabCode = {
  checks: [...ALONE, ...TOGETHER, ...HIDDEN].map(withLimit),
  judge,
  describe,
  describeClaim: ([kind], claim) =>
    Array.isArray(claim) && (kind === "explore" || kind === "stress")
      ? searchText(claim[0], claim[1], claim.length - 2)
      : null,
  describeConfig(config) {
    const { free, hold = [] } = config as unknown as LockfreeConfig;
    const held = hold.some((nr) => nr > 0) ? `, CPUs hold ${hold.join(", ")}` : "";
    return `${free} free${held}`;
  },
  picture,
  simpler,
  exploration: EXPLORATION,
  question,
};
