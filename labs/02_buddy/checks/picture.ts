/**
 * Memory before and after the operation that went wrong, one letter per frame.
 *
 *     frame 0   4   8   12
 *           ....AAAACCCCCCCC      before op 5 free(C,3)
 *           BBBBBBBB........      after  op 6 B=alloc(3)
 *
 * `.` is free, `#` was never given. Memory larger than a line is shown around the place of interest.
 */

import type { Violation } from "../../kit/lab_code.ts";
import { namesOf } from "../../kit/names.ts";
import type { Observation, Op, Program } from "../../kit/program.ts";
import { hasName, Walk } from "./judge.ts";

const WIDTH = 64;

/** At most 4 lines. */
export function picture(program: Program, observation: Observation, violation: Violation): readonly string[] {
  const name = namesOf(program, hasName);
  const walk = new Walk(program, observation);
  for (let op = 0; op < violation.op; op++) walk.step(op);
  const { space } = walk;
  const before = Array.from({ length: space.nrFrames }, (_, frame) => {
    const owner = space.ownerOf(frame);
    if (owner !== undefined) return name(owner.op).charAt(0);
    return space.isGiven(frame) ? "." : "#";
  });
  const op = program.ops[violation.op] as Op;
  const claim = observation.claims[violation.op];
  const after = [...before];
  let focus = 0;
  if (op[0] === "alloc" && typeof claim === "number" && claim < space.nrFrames) {
    focus = claim;
    const end = Math.min(space.nrFrames, claim + 2 ** Math.min(20, Math.max(0, Number(op[1]))));
    for (let frame = claim; frame < end; frame++) after[frame] = name(violation.op).charAt(0);
  }
  const from = Math.max(0, Math.min(space.nrFrames - WIDTH, focus - (WIDTH >>> 1)));
  const cut = (row: readonly string[]): string => row.slice(from, from + WIDTH).join("");
  const lines = [
    `frame ${ruler(from, Math.min(space.nrFrames, from + WIDTH))}`,
    `      ${cut(before)}  before op ${violation.op + 1}`,
  ];
  if (after.some((letter, frame) => letter !== before[frame]))
    lines.push(`      ${cut(after)}  after op ${violation.op + 1}`);
  return lines;
}

function ruler(from: number, end: number): string {
  let line = "";
  for (let frame = from; frame < end; frame += 8) line = `${line.padEnd(frame - from)}${frame}`;
  return line;
}
