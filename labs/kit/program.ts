/**
 * Programs: what a check asks a student's code to do, and what was seen when it did.
 *
 * A program is a list of operations over one fresh instance. It is made before anything runs, so a whole batch crosses
 * the channel at once; an operation refers to what an earlier one returned by that one's index:
 *
 *      0  ["alloc", 2]              → 8        claims[0]
 *      1  ["alloc", 2]              → 12       claims[1]
 *      2  ["free", {"ref": 0}, 2]   → 0        the child puts 8 in place of {"ref": 0}
 *
 * An observation holds claims and counters, never verdicts: a judge on this side of the channel says what they mean.
 */

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** The value that operation `ref` of the same program returned. */
export interface Ref {
  readonly ref: number;
}
export type Arg = number | string | boolean | null | Ref;
export type Op = readonly [name: string, ...args: Arg[]];

export interface Program {
  /** What the instance is made from: meaning is the lab's. */
  readonly config: Json;
  readonly ops: readonly Op[];
}

/** Why a program ended before its last operation. */
export interface Stop {
  /**
   * `load`: the module could not be evaluated · `throw`: the student's code threw · `steps`: the limit of virtual
   * steps · `died`: the process ended · `forged`: the reply was none
   */
  readonly kind: "load" | "throw" | "steps" | "died" | "forged";
  /** Index of the operation; −1 before the first. */
  readonly op: number;
  readonly message: string;
  /** `buddy.ts:12` where it is known. */
  readonly where: string;
}

export interface Observation {
  /** One per operation that ended; what is no JSON is `{"not": "what it was"}`. */
  readonly claims: readonly Json[];
  /** Virtual steps of each operation. */
  readonly steps: readonly number[];
  readonly stop: Stop | null;
  /** What the code printed, cut short. */
  readonly log: readonly string[];
}

export function isRef(arg: Arg | undefined): arg is Ref {
  return typeof arg === "object" && arg !== null;
}

/** The value that `arg` had when the operation ran. */
export function valueOfArg(arg: Arg | undefined, observation: Observation): Json | undefined {
  return isRef(arg) ? observation.claims[arg.ref] : arg;
}

/** The program with only the operations at `kept` (ascending); those that refer to a dropped one go too. */
export function keepOps(program: Program, kept: readonly number[]): Program {
  const newIndex = new Map<number, number>();
  const ops: Op[] = [];
  for (const index of kept) {
    const op = program.ops[index] as Op;
    const args = op.slice(1) as Arg[];
    if (args.some((arg) => isRef(arg) && !newIndex.has(arg.ref))) continue;
    newIndex.set(index, ops.length);
    ops.push([op[0], ...args.map((arg) => (isRef(arg) ? { ref: newIndex.get(arg.ref) as number } : arg))]);
  }
  return { config: program.config, ops };
}
