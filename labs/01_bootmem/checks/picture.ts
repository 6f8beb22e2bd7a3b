/**
 * The address space around the place of interest, one character for some bytes.
 *
 *     each character is 0x400 bytes
 *     0x8000     ....AAAABB......rrrr####
 *     op 3           ^^^^
 *
 * `.` is free, `r` reserved, `#` no RAM, a letter is an allocation; the most important one of a mixed cell is shown.
 */

import type { Violation } from "../../kit/lab_code.ts";
import { namesOf } from "../../kit/names.ts";
import type { Json, Observation, Op, Program } from "../../kit/program.ts";
import { PAGE_SIZE } from "../given/api.ts";
import { hasName, hex, Walk } from "./judge.ts";
import type { BootSpace, Range } from "./model.ts";

const WIDTH = 64;
const LIMIT = 2 ** 32;

/** At most 4 lines. */
export function picture(program: Program, observation: Observation, violation: Violation): readonly string[] {
  const walk = new Walk(program, observation);
  for (let op = 0; op < violation.op; op++) walk.step(op);
  const name = namesOf(program, hasName);
  const op = program.ops[violation.op] as Op;
  const claimed = claimedRanges(op, observation.claims[violation.op] as Json);
  const [from, unit] = frameOf(walk.space, claimed);
  let cells = "";
  let marks = "";
  for (let i = 0; i < WIDTH; i++) {
    const start = from + i * unit;
    cells += cellOf(walk.space, start, start + unit, name);
    marks += claimed.some(([first, end]) => first < start + unit && start < end) ? "^" : " ";
  }
  const lines = [`each character is ${hex(unit)} bytes`, `${hex(from).padEnd(11)}${cells}`];
  if (claimed.length > 0) lines.push(`${`op ${violation.op + 1}`.padEnd(11)}${marks.trimEnd()}`);
  return lines;
}

/** What the operation claims to hand out, in bytes. */
function claimedRanges(op: Op, claim: Json): Range[] {
  if (op[0] === "alloc" && typeof claim === "number" && claim >= 0) {
    const start = Math.min(LIMIT, claim);
    return [[start, Math.min(LIMIT, start + Math.max(1, Number(op[1])))]];
  }
  if (op[0] !== "handOver" || !Array.isArray(claim)) return [];
  return claim.map((row) => [Number(row[0]) * PAGE_SIZE, Number(row[1]) * PAGE_SIZE] as const);
}

/** Where the picture begins and how many bytes a character is: what the tables are about, and the claim. */
function frameOf(space: BootSpace, claimed: readonly Range[]): readonly [from: number, unit: number] {
  const all: Range[] = [...space.config.map.map(([start, end]) => [start, end] as const), ...claimed];
  const low = Math.min(...all.map(([start]) => start));
  const high = Math.max(...all.map(([, end]) => end));
  let unit = 0x100;
  // One cell to spare on both sides.
  while (Math.floor(low / unit) * unit + (WIDTH - 1) * unit < high) unit *= 2;
  return [Math.floor(low / unit) * unit, unit];
}

function cellOf(space: BootSpace, start: number, end: number, name: (index: number) => string): string {
  const pieces = space.pieces(start, end);
  const owner = pieces.find((piece) => piece.owner !== undefined)?.owner;
  if (owner !== undefined) return name(owner.op).charAt(0);
  if (pieces.some(({ isReserved, isRam }) => isReserved && isRam)) return "r";
  return pieces.some(({ isRam }) => !isRam) ? "#" : ".";
}
