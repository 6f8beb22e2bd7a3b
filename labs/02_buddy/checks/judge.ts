/**
 * The judge of lab 2: walks through claims in order and says which rule the first wrong one breaks.
 *
 * | kind         | the claim                                                                    |
 * |--------------|------------------------------------------------------------------------------|
 * | bad-claim    | is no whole number                                                           |
 * | misaligned   | a block that does not start at a multiple of its size               (BUD-1)  |
 * | outside      | a block with a frame that was never given; merged-outside after a free (BUD-2) |
 * | overlap      | a block with a frame that is out; merged-overlap after a free       (BUD-3)  |
 * | not-smallest | cut out of a larger block than necessary                            (BUD-5)  |
 * | refused      | no block, where one lies ready; lost after a free                   (BUD-7)  |
 * | unmerged     | no block, where one lies ready if halves are merged                 (BUD-4)  |
 * | kept         | a good free is refused                                              (BUD-6)  |
 * | double, foreign, interior, wrong-order   a bad free is accepted            (BUD-6)  |
 * | wrong-errno  | a bad free is refused with another value than −EINVAL               (BUD-6)  |
 * | impossible   | a block for an order that does not exist                            (BUD-7)  |
 * | count        | nrFree() is wrong                                                   (BUD-9)  |
 * | slow         | more steps than the number of orders explains                       (BUD-10) |
 * | stray        | a row of others was changed                                         (BUD-11) |
 */

import type { Violation } from "../../kit/lab_code.ts";
import { namesOf } from "../../kit/names.ts";
import { type Json, type Observation, type Op, type Program, valueOfArg } from "../../kit/program.ts";
import { EINVAL, NO_FRAME } from "../given/api.ts";
import { type BuddyConfig, FreeSpace, type Owner } from "./model.ts";

/** Every allocation has a letter. */
export const hasName = (op: Op): boolean => op[0] === "alloc" || op[0] === "allocMany";

/** Steps that an allocation or a free may take. */
export const stepsAllowed = (maxOrder: number): number => 8 * (maxOrder + 1) + 24;

type Verdict = { readonly kind: string; readonly message: string } | null;

/** One walk through a program: the model as far as the claims were right. */
export class Walk {
  readonly space: FreeSpace;
  readonly #program: Program;
  readonly #observation: Observation;
  readonly #name: (index: number) => string;
  /** Something was given back: from here on a wrong block may come from merging. */
  #hasFreed = false;

  constructor(program: Program, observation: Observation) {
    this.space = new FreeSpace(program.config as unknown as BuddyConfig);
    this.#program = program;
    this.#observation = observation;
    this.#name = namesOf(program, hasName);
  }

  /** Judges operation `index`, and moves the model on if its claim is right. */
  step(index: number): Verdict {
    const op = this.#program.ops[index] as Op;
    const claim = this.#observation.claims[index] as Json;
    const verdict = this.#judge(op, index, claim);
    if (verdict !== null || !["alloc", "allocMany", "free", "freeMany"].includes(op[0])) return verdict;
    const steps = this.#observation.steps[index] as number;
    const nrCalls = Array.isArray(claim) ? Math.max(1, claim.length) : 1;
    const allowed = stepsAllowed(this.space.maxOrder) * nrCalls;
    if (steps <= allowed) return null;
    const what = op[0].startsWith("alloc") ? "allocBlock" : "freeBlock";
    return {
      kind: "slow",
      message: `${what} takes ${steps} steps; ${this.space.maxOrder + 1} orders allow ${allowed}`,
    };
  }

  #judge(op: Op, index: number, claim: Json): Verdict {
    const { space } = this;
    switch (op[0]) {
      case "give":
        space.give(op[1] as number, op[2] as number);
        return null;
      case "alloc":
        return this.#judgeAlloc(op[1] as number, index, claim);
      case "allocMany":
        return this.#judgeMany(claim, Number(op[2]), (part) => this.#judgeAlloc(op[1] as number, index, part));
      case "free": {
        const from = this.#valueOf(op);
        if (claim === null && (typeof from !== "number" || from === NO_FRAME)) return null;
        return this.#judgeFree(Number(from) + Number(op[3] ?? 0), op[2] as number, claim);
      }
      case "freeMany": {
        const frames = valueOfArg(op[1], this.#observation);
        const picked = Array.isArray(frames) ? everyNth(frames, Number(op[3]), Number(op[4])) : [];
        let at = 0;
        return this.#judgeMany(claim, picked.length, (part) =>
          this.#judgeFree(Number(picked[at++]), op[2] as number, part),
        );
      }
      case "nrFree":
        return claim === space.nrFree
          ? null
          : { kind: "count", message: `nrFree() says ${show(claim)}, but ${space.nrFree} frames are free` };
      case "strayRow":
        return claim === -1
          ? null
          : { kind: "stray", message: `row ${show(claim)} of a column was changed, and it is not the allocator's` };
      default:
        return null;
    }
  }

  /** What a free is about: a frame, or an element of what allocMany returned. */
  #valueOf(op: Op): Json | undefined {
    const value = valueOfArg(op[1], this.#observation);
    return Array.isArray(value) ? value[Number(op[4] ?? 0)] : value;
  }

  #judgeMany(claim: Json, nr: number, judgeOne: (part: Json) => Verdict): Verdict {
    if (!Array.isArray(claim) || claim.length !== nr)
      return { kind: "bad-claim", message: `${show(claim)} is no list` };
    for (const part of claim) {
      const verdict = judgeOne(part as Json);
      if (verdict !== null) return verdict;
    }
    return null;
  }

  #judgeAlloc(order: number, index: number, claim: Json): Verdict {
    const { space } = this;
    if (typeof claim !== "number" || !Number.isInteger(claim) || claim < 0) {
      return { kind: "bad-claim", message: `alloc(${order}) returns ${show(claim)}, which is no frame` };
    }
    const isOrder = Number.isInteger(order) && order >= 0 && order <= space.maxOrder;
    if (!isOrder) {
      if (claim === NO_FRAME) return null;
      return { kind: "impossible", message: `alloc(${order}) returns ${claim}, but orders are 0..${space.maxOrder}` };
    }
    if (claim === NO_FRAME) return this.#judgeRefusal(order);
    const end = claim + (1 << order);
    const range = order === 0 ? `frame ${claim}` : `frames ${claim}..${end - 1}`;
    if (claim % (1 << order) !== 0) {
      return { kind: "misaligned", message: `${range} were handed out, but ${claim} is no multiple of ${1 << order}` };
    }
    for (let frame = claim; frame < end; frame++) {
      if (frame >= space.nrFrames) {
        return {
          kind: this.#after("outside"),
          message: `${range} were handed out, but memory ends at ${space.nrFrames}`,
        };
      }
      if (!space.isGiven(frame))
        return { kind: this.#after("outside"), message: `${range} were handed out, but ${frame} was never given` };
      const owner = space.ownerOf(frame);
      if (owner !== undefined) return this.#overlap(owner, { op: index, start: claim, order });
    }
    const [, blockOrder] = space.freeBlockAround(claim) as readonly [number, number];
    const smallest = space.smallestFree(order);
    if (blockOrder > smallest) {
      const message = `alloc(${order}) cuts a block of order ${blockOrder} although one of order ${smallest} is free`;
      return { kind: "not-smallest", message };
    }
    space.take(claim, order, index);
    return null;
  }

  #after(kind: "outside" | "overlap"): string {
    return this.#hasFreed ? `merged-${kind}` : kind;
  }

  #judgeRefusal(order: number): Verdict {
    const lying = this.space.smallestFree(order, true);
    if (lying >= 0)
      return {
        kind: this.#hasFreed ? "lost" : "refused",
        message: `alloc(${order}) finds nothing although a block of order ${lying} is free`,
      };
    const merged = this.space.smallestFree(order);
    if (merged < 0) return null;
    const message = `alloc(${order}) finds nothing although free halves make a block of order ${merged}`;
    return { kind: "unmerged", message };
  }

  #overlap(a: Owner, b: Owner): Verdict {
    const from = Math.max(a.start, b.start);
    const to = Math.min(a.start + (1 << a.order), b.start + (1 << b.order)) - 1;
    const range = from === to ? `frame ${from} belongs` : `frames ${from}..${to} belong`;
    const owner = ({ op, order }: Owner): string => `${this.#name(op)} (op ${op + 1}, order ${order})`;
    return { kind: this.#after("overlap"), message: `${range} to two owners: ${owner(a)} and ${owner(b)}` };
  }

  #judgeFree(frame: number, order: number, claim: Json): Verdict {
    const { space } = this;
    const owner = space.ownerAt(frame);
    if (owner !== undefined && owner.order === order) {
      if (claim === 0) {
        this.#hasFreed = true;
        space.putBack(owner);
        return null;
      }
      return { kind: "kept", message: `freeBlock(${frame}, ${order}) returns ${show(claim)}, but that block is out` };
    }
    if (claim === -EINVAL) return null;
    const [kind, what] = this.#badFree(frame, owner);
    if (typeof claim === "number" && (claim < 0 || claim === EINVAL)) {
      return {
        kind: "wrong-errno",
        message: `freeBlock(${frame}, ${order}) returns ${claim} instead of −EINVAL (−22)`,
      };
    }
    return { kind, message: `freeBlock(${frame}, ${order}) returns ${show(claim)}, but ${what}` };
  }

  #badFree(frame: number, owner: Owner | undefined): readonly [kind: string, what: string] {
    if (owner !== undefined) return ["wrong-order", `the block at ${frame} is out with order ${owner.order}`];
    const around = this.space.ownerOf(frame);
    if (around !== undefined)
      return ["interior", `${frame} lies inside the block ${this.#name(around.op)}, from ${around.start}`];
    if (this.space.isGiven(frame)) return ["double", `no block that starts at ${frame} is out: the frame is free`];
    return ["foreign", `${frame} was never given to the allocator`];
  }
}

/** Elements `from`, from + stride, … */
export function everyNth<T>(list: readonly T[], from: number, stride: number): T[] {
  const picked: T[] = [];
  for (let i = from; i < list.length; i += stride) picked.push(list[i] as T);
  return picked;
}

function show(claim: Json | undefined): string {
  if (typeof claim === "object" && claim !== null && "not" in claim) return String(claim.not);
  return JSON.stringify(claim) ?? "nothing";
}

/** The first violation of a program, or null. */
export function judge(program: Program, observation: Observation): Violation | null {
  const walk = new Walk(program, observation);
  for (let op = 0; op < observation.claims.length; op++) {
    const verdict = walk.step(op);
    if (verdict !== null) return { ...verdict, op };
  }
  return null;
}
