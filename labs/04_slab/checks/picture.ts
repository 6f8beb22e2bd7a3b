/**
 * Frames and slabs before the operation that went wrong.
 *
 *     frame 0       8
 *           AA..BB##          before op 6 (letters: caches; # others)
 *     A at frame 0: BC.       objects: letter: out, . free
 */

import type { Violation } from "../../kit/lab_code.ts";
import { namesOf } from "../../kit/names.ts";
import type { Observation, Program } from "../../kit/program.ts";
import { hasName, Walk } from "./judge.ts";
import { baseOf, type Slab } from "./model.ts";

const WIDTH = 64;
const MAX_SLABS = 5;

/** At most 7 lines. */
export function picture(program: Program, observation: Observation, violation: Violation): readonly string[] {
  const name = namesOf(program, hasName);
  const walk = new Walk(program, observation);
  for (let op = 0; op < violation.op; op++) walk.step(op);
  const { machine } = walk;
  const nrFrames = Math.min(WIDTH, machine.nrFrames);
  let row = "";
  const slabs: Slab[] = [];
  for (let frame = 0; frame < nrFrames; frame++) {
    const slab = machine.slabAtFrame(frame);
    if (slab !== undefined) row += name(slab.cache.op).charAt(0);
    else row += machine.isOthers(frame) ? "#" : ".";
    if (slab?.frame === frame) slabs.push(slab);
  }
  let ruler = "";
  for (let frame = 0; frame < nrFrames; frame += 8) ruler = `${ruler.padEnd(frame)}${frame}`;
  const lines = [`frame ${ruler}`, `      ${row}  before op ${violation.op + 1}`];
  for (const slab of slabs.slice(-MAX_SLABS)) {
    const { nrObjects, stride, op } = slab.cache;
    let objects = "";
    for (let index = 0; index < Math.min(WIDTH, nrObjects); index++) {
      const owner = slab.out.get(index);
      objects += owner === undefined ? "." : name(owner).charAt(0);
    }
    lines.push(`slab of ${name(op)} at frame ${slab.frame}: ${objects}  (from ${baseOf(slab)}, every ${stride} bytes)`);
  }
  return lines;
}
