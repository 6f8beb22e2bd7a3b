/**
 * What a lab's code hands to the framework: checks, a judge, and how to show what went wrong.
 *
 * `labs/NN_name/checks/lab.ts` exports `lab: LabCode`. All of it runs on the trusted side of the channel and sees
 * observations only. It is pure: same observations, same verdict.
 *
 *      check.program(random, nr) ──▶ child runs it ──▶ lab.judge(program, observation) ──▶ Violation or null
 *
 * A violation has a *kind*. A check is about the kinds that it lists: another kind stops the program too, but then the
 * check is `blocked`, not failed, and says what it waits for. So one bug is reported once, by the check about it.
 */

import type { Prng } from "../../kernel/lib/prng.ts";
import type { Json, Observation, Op, Program } from "./program.ts";

export interface Violation {
  /** One word of the lab's list, as in `overlap`. */
  readonly kind: string;
  /** The operation at which it showed. */
  readonly op: number;
  /** What is wrong, with numbers: one sentence, at most 110 characters. */
  readonly message: string;
  /** The rule that it breaks, where that is not the check's: `BUD-4`. */
  readonly rule?: string;
}

export interface Check {
  /** Lower case with dashes; unique in the lab; what rubric.yaml and `--case` name. */
  readonly id: string;
  /** Id of the rule in the handout. */
  readonly rule: string;
  /** The rule in one sentence. */
  readonly title: string;
  /** The usual mistake behind a failure, without the repair. */
  readonly cause: string;
  /** Kinds of violation that it is about. */
  readonly kinds: readonly string[];
  /** The program of seed `nr`: a pure function of its arguments. Low numbers should be small and telling. */
  program(random: Prng, nr: number): Program;
  /** Programs in a quick check and in a grade; default 4 and 16. */
  readonly runs?: { readonly quick: number; readonly full: number };
  /** True for a check that judges everything at once: long random runs. It needs no wrong solution of its own. */
  readonly isSweep?: boolean;
  /** Virtual steps that one operation may take; default 100,000. */
  readonly stepLimit?: number;
}

/** A question whose answer the student predicts. */
export interface Question {
  readonly text: readonly string[];
  /** As the student types it; compared without case and blanks. */
  readonly answer: string;
  readonly explanation: readonly string[];
}

/** How programs that explore interleavings are run otherwise: to compare the search with random stress. */
export interface Exploration {
  /** The program with another bound on preemptions; null if it does not explore. */
  withBound(program: Program, bound: number): Program | null;
  /** The program in one order of accesses, drawn from `seed`. */
  atRandom(program: Program, seed: number): Program;
  /** Executions that the observation of a search comes from. */
  executions(observation: Observation): number;
}

export interface LabCode {
  readonly checks: readonly Check[];
  /** First violation in the order of operations, or null. Never throws, whatever the claims are. */
  judge(program: Program, observation: Observation): Violation | null;
  /** Operations whose result gets a letter; those that later ones refer to have one anyway. */
  hasName?(op: Op): boolean;
  /** One operation as the student reads it: `A=alloc(2)`. `name` gives the letter of an earlier result. */
  describe(op: Op, index: number, name: (index: number) => string): string;
  /** What an operation returned, where JSON says little to people; null: JSON will do. */
  describeClaim?(op: Op, claim: Json): string | null;
  /** The instance in one line, as in `16 frames, orders 0..4`. */
  describeConfig(config: Json): string;
  /** At most 8 lines that show memory around the violation; none where a picture says nothing. */
  picture(program: Program, observation: Observation, violation: Violation): readonly string[];
  /** Programs that are simpler than this one (smaller memory, smaller numbers), best first. */
  simpler?(program: Program): readonly Program[];
  /** For labs whose programs explore interleavings. */
  readonly exploration?: Exploration;
  /** The question of a seed: drawn from `random`, or number `nr` of a list. */
  question?(random: Prng, nr: number): Question;
}
