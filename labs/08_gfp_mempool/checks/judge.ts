/**
 * The judge of lab 8: walks through claims and events in order and says which rule the first wrong one breaks.
 *
 * | kind         | the claim, or what the machine was asked for                                   |
 * |--------------|--------------------------------------------------------------------------------|
 * | bad-claim    | is no page, or none that was taken                                             |
 * | sleep-irq, sleep-lock, deadlock, lock-left, unlock   | bugs that the machine saw (CTX-1 … CTX-3) |
 * | queue-left   | a call ends on the wait queue                                          (CTX-4) |
 * | no-lock      | books are changed without the lock                                     (CTX-3) |
 * | may-block, keeps   | wrong answers about a mask                              (GFP-1, GFP-4) |
 * | might        | mightSleep missing, late, or called by who does not sleep              (GFP-2) |
 * | early-work, kswapd   | reclaim or a wake without need; no wake               (GFP-3, GFP-5) |
 * | takes-reserve, refused   | pages below the mark; none although there are   (GFP-4, GFP-6) |
 * | reclaim, nofail   | none, too much, or with another mask; NOFAIL without sleep        (GFP-7) |
 * | pool-create, pool-order   | see pool.ts, as all that follow                        (MPL) |
 */

import type { Violation } from "../../kit/lab_code.ts";
import { namesOf } from "../../kit/names.ts";
import { type Json, type Observation, type Op, type Program, valueOfArg } from "../../kit/program.ts";
import { __GFP_NOFAIL, NO_PAGE } from "../given/api.ts";
import type { GfpConfig } from "./machine.ts";
import { judgeMight } from "./might.ts";
import { allocate, type Call, keepsOf, type Memory, maskName, mayBlock } from "./model.ts";
import { Pool } from "./pool.ts";
import { callsOf, fail, hadInterrupt, type Seen, seenOf, show, type Verdict } from "./verdict.ts";

/** Pages have letters. */
export const hasName = (op: Op): boolean => ["page", "take"].includes(op[0]);

/** One walk through a program: the model as far as the claims were right. */
export class Walk {
  readonly memory: Memory;
  readonly pool: Pool;
  /** Pages that allocPage gave. */
  readonly outside = new Set<number>();
  readonly #program: Program;
  readonly #observation: Observation;
  /** A shrunk program has an interrupt where none is judged: the rest is not judged either. */
  #isMuddled = false;

  constructor(program: Program, observation: Observation) {
    this.memory = { config: program.config as unknown as GfpConfig, free: 0, nrReclaims: 0 };
    this.memory.free = this.memory.config.pages;
    this.#program = program;
    this.#observation = observation;
    const name = namesOf(program, hasName);
    this.pool = new Pool(this.memory, (op) => `${name(op) || "?"} (op ${op + 1})`);
  }

  /** Judges operation `index`, and moves the model on if its claim is right. */
  step(index: number): Verdict {
    const op = this.#program.ops[index] as Op;
    const seen = seenOf(this.#observation.claims[index]);
    const bug = seen.events.find(([what]) => what === "bug");
    if (bug !== undefined) return fail(String(bug[1]), String(bug[2]).slice(0, 100));
    const [kind, a, , c] = op;
    const handlers = seen.events.filter(([what]) => what === "handler").map(([, what]) => what);
    const isPool = kind === "take" || kind === "put";
    const isJudged = isPool || kind === "defer" || kind === "runWork";
    const isOdd = hadInterrupt(seen) && (!isJudged || handlers.some((what) => !isPool && what !== "defer"));
    this.#isMuddled ||= isOdd;
    if (this.#isMuddled) return null;
    const page = pageOf(valueOfArg(a, this.#observation));
    switch (kind) {
      case "may":
        return seen.value === mayBlock(Number(a))
          ? null
          : fail("may-block", `mayBlock(${maskName(Number(a))}) returns ${show(seen.value)}`);
      case "leaves":
        return this.#judgeKeeps(Number(a), seen);
      case "page":
        return this.#judgePage(Number(a), seen);
      case "back":
        if (page !== null && this.outside.delete(page)) this.memory.free++;
        return null;
      case "pool":
        return this.pool.create(Number(a), seen);
      case "take":
        return this.pool.take(Number(a), index, seen);
      case "put":
        return page === null ? null : this.pool.put(page + Number(c ?? 0), seen);
      case "end":
        return this.pool.end(seen);
      case "defer":
        return this.pool.deferred.defer(Number(a), seen);
      case "runWork":
        return this.pool.deferred.run(seen);
      default:
        return null;
    }
  }

  #judgeKeeps(gfp: number, { value }: Seen): Verdict {
    const { min } = this.memory.config;
    const expected = keepsOf(gfp, min);
    if (value === expected) return null;
    return fail("keeps", `keeps(${maskName(gfp)}) returns ${show(value)}; with min ${min} it is ${expected}`);
  }

  #judgePage(gfp: number, seen: Seen): Verdict {
    const { memory } = this;
    const verdict = judgeMight("allocPage", gfp, seen);
    if (verdict !== null) return verdict;
    if ((gfp & __GFP_NOFAIL) !== 0 && !mayBlock(gfp) && callsOf(seen).length > 0)
      return fail("nofail", `allocPage(${maskName(gfp)}) cannot keep that promise and must be refused at once`);
    const before = { ...memory };
    const expected: Call[] = [];
    const gets = allocate(memory, gfp, expected);
    const different = compare(gfp, before, expected, seen);
    if (different !== null) return different;
    const [, page] = seen.events.find(([what]) => what === "take") ?? [null, NO_PAGE];
    if (seen.value !== page)
      return fail("bad-claim", `allocPage took page ${show(page)} and returns ${show(seen.value)}`);
    if (gets) this.outside.add(Number(page));
    return null;
  }
}

/** Compares what allocPage asked of the machine with what it should. */
function compare(gfp: number, before: Memory, expected: readonly Call[], seen: Seen): Verdict {
  const actual = callsOf(seen);
  const { min, low } = before.config;
  const call = `allocPage(${maskName(gfp)})`;
  let { free } = before;
  for (let i = 0; i < Math.max(expected.length, actual.length); i++) {
    const [want] = expected[i] ?? ["end"];
    const [what, mask, nr] = actual[i] ?? ["end"];
    const state = `${free} pages free, min ${min}, low ${low}`;
    if (want === what && (want !== "reclaim" || mask === gfp)) {
      if (want === "reclaim") free += Number(nr);
      continue;
    }
    if (what === "reclaim" && want === "reclaim")
      return fail("reclaim", `${call} reclaims with the mask ${maskName(Number(mask))}`);
    if (want === "take" && what !== "end" && before.free > low)
      return fail("early-work", `${call} calls ${show(what)} although there are ${state}`);
    if (want === "kswapd") return fail("kswapd", `${call} does not wake kswapd with ${state}`);
    if (what === "kswapd") return fail("kswapd", `${call} wakes kswapd with ${state}`);
    if (what === "take") {
      const keeps = keepsOf(gfp, min);
      return fail("takes-reserve", `${call} takes a page with ${state}; it must leave ${keeps}`);
    }
    if (want === "reclaim") return fail("reclaim", `${call} gives up after ${i} calls and does not reclaim: ${state}`);
    if (what === "reclaim") return fail("reclaim", `${call} reclaims although it must ${want} now: ${state}`);
    if (want === "take")
      return fail("refused", `${call} gets no page with ${state}; it must leave ${keepsOf(gfp, min)}`);
    return fail("bad-claim", `${call} calls ${show(what)} of the machine`);
  }
  return null;
}

/** The page that a claim names, or null. */
function pageOf(given: Json | undefined): number | null {
  const value = Array.isArray(given) ? given[0] : given;
  return typeof value === "number" && value !== NO_PAGE ? value : null;
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
