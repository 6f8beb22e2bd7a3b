/**
 * Frames, pools and the bounce area before the operation that went wrong.
 *
 *     frame 0       8       16
 *           -bbNNNNNNmmmm      zones: D DMA, M DMA32, N NORMAL
 *           ......AA....PP          before op 6 (letters: owners; P a pool's frame)
 *     slots A A . .                 letters: mappings
 */

import type { Violation } from "../../kit/lab_code.ts";
import { namesOf } from "../../kit/names.ts";
import type { Observation, Program } from "../../kit/program.ts";
import { hasName, Walk } from "./judge.ts";

const WIDTH = 80;
const ZONE_LETTERS = "dmn";

/** At most 6 lines. */
export function picture(program: Program, observation: Observation, violation: Violation): readonly string[] {
  const name = namesOf(program, hasName);
  const walk = new Walk(program, observation);
  for (let op = 0; op < violation.op; op++) walk.step(op);
  const { frames, pools, blocks, mappings } = walk;
  const nrFrames = Math.min(WIDTH, frames.nrFrames);
  const zoneRow: string[] = [];
  const ownerRow: string[] = [];
  for (let frame = 0; frame < nrFrames; frame++) {
    const zone = frames.zones.findIndex(({ start, end }) => frame >= start && frame < end);
    zoneRow.push(zone < 0 ? "-" : (ZONE_LETTERS[zone] as string));
    ownerRow.push(zone < 0 ? " " : frames.isOut(frame) ? "P" : ".");
  }
  for (const [first, { order, op }] of blocks) {
    for (let frame = first; frame < Math.min(nrFrames, first + (1 << order)); frame++)
      ownerRow[frame] = name(op).charAt(0) || "?";
  }
  let ruler = "";
  for (let frame = 0; frame < nrFrames; frame += 8) ruler = `${ruler.padEnd(frame)}${frame}`;
  const lines = [
    `frame ${ruler}`,
    `      ${zoneRow.join("")}  zones: d DMA, m DMA32, n NORMAL`,
    `      ${ownerRow.join("")}  before op ${violation.op + 1}; P: a pool's frame`,
  ];
  const slots = Array.from({ length: mappings.nrSlots }, (_, slot) => {
    const mapping = mappings.atSlot(slot);
    return mapping === undefined ? "." : name(mapping.op).charAt(0) || "?";
  });
  if (mappings.byBus.size > 0) lines.push(`slots ${slots.join(" ")}  from 4096, every 2048 bytes`);
  const outs = [...pools.byId.values()].filter(({ out }) => out.size > 0).slice(0, 2);
  for (const { id, out, size } of outs) {
    const shown = [...out].slice(0, 6).map(([address, op]) => `${name(op) || "?"} ${address}`);
    lines.push(`pool ${id}: ${out.size} out, ${size} bytes each: ${shown.join(", ")}${out.size > 6 ? " …" : ""}`);
  }
  return lines;
}
