/**
 * What happened in the operation that went wrong, in order, and where pages were before it.
 *
 *     before op 6: 2 pages free, reserve 1 of 2, out: A B, asleep: C
 *     calls:  poolAlloc ─ might ─ lock ─ unlock ─┤irq handler free 3 → 0├─ asleep
 */

import type { Violation } from "../../kit/lab_code.ts";
import { namesOf } from "../../kit/names.ts";
import type { Observation, Program } from "../../kit/program.ts";
import { hasName, Walk } from "./judge.ts";
import { maskName } from "./model.ts";
import { type Event, seenOf, show } from "./verdict.ts";

const WIDTH = 100;
const MAX_LINES = 4;

function textOf([what, a, b, c]: Event): string {
  switch (what) {
    case "irq":
      return "┤irq:";
    case "iret":
      return "├";
    case "handler":
      return `${a === "free" ? "poolFree" : "deferFree"}(${show(b)}) → ${show(c)}`;
    case "reclaim":
      return `reclaim(${maskName(Number(a))}) → ${show(b)}`;
    case "bug":
      return "✗";
    case "resume":
      return "· then the woken task:";
    case "might":
      return "mightSleep";
    default:
      return a === undefined ? String(what) : `${String(what)} ${show(a)}`;
  }
}

/** At most 6 lines. */
export function picture(program: Program, observation: Observation, violation: Violation): readonly string[] {
  const name = namesOf(program, hasName);
  const walk = new Walk(program, observation);
  for (let op = 0; op < violation.op; op++) walk.step(op);
  const { memory, pool } = walk;
  const letters = (ops: Iterable<number>): string => [...ops].map((op) => name(op) || "?").join(" ") || "none";
  const state = `${memory.free} pages free, reserve ${pool.reserve.size} of ${pool.minNr}`;
  const who = `out: ${letters(pool.out.values())}, asleep: ${letters(pool.asleep)}`;
  const lines = [`before op ${violation.op + 1}: ${state}, ${who}`.slice(0, WIDTH)];
  let line = "in it:";
  for (const event of seenOf(observation.claims[violation.op]).events.slice(0, 40)) {
    const text = ` ${textOf(event)}`.slice(0, 60);
    if (line.length + text.length > WIDTH) {
      lines.push(line);
      line = "     ";
    }
    line += text;
  }
  lines.push(line);
  return lines.length <= MAX_LINES + 1 ? lines : [...lines.slice(0, MAX_LINES), "      …"];
}
