/**
 * Marks: what is kept of a moment of a run, to recognise it when the run is done again.
 *
 * A suspended program is a JavaScript generator, which nothing can copy: a moment is reached again by running again
 * from power-on (docs/adr/0009-time-travel.md). A mark holds the checksums of every page, of the registers and of the
 * random streams, and whose each page is. So a run that goes another way is found at the next mark, and the page in
 * which it shows is named.
 *
 *   MRK-1  taking a mark changes nothing in the machine
 *   MRK-2  a mark names its moment by the number of scheduler steps since power-on: the same step, the same moment
 */

import { type MachineSums, ramSum, sumHex } from "../../kernel/arch/machine_sums.ts";
import type { Kernel } from "../../kernel/entry/kernel.ts";
import { PAGE_SIZE } from "../../kernel/params.ts";
import type { PageOwners } from "../../mm/index.ts";

export interface Mark {
  readonly number: number;
  /** Given by the user; may be empty. */
  readonly name: string;
  /** Virtual time since power-on, and steps of the scheduler. */
  readonly cycle: number;
  readonly steps: number;
  readonly freePages: number;
  readonly sums: MachineSums;
  readonly owners: PageOwners;
}

export interface MarkName {
  readonly number: number;
  readonly name: string;
}

/** The mark of this moment. O(RAM). */
export function takeMark(kernel: Kernel, { number, name }: MarkName): Mark {
  const { freeBuddy, freePcp } = kernel.census();
  return {
    number,
    name,
    cycle: kernel.now(),
    steps: kernel.steps(),
    freePages: freeBuddy + freePcp,
    sums: kernel.machine.sums(),
    owners: kernel.owners(),
  };
}

/** `3` or `3 "before"`, for messages. */
export const markLabel = ({ number, name }: MarkName): string => (name === "" ? `${number}` : `${number} "${name}"`);

/** 16 hexadecimal digits: a checksum of all of RAM. */
export const ramHex = (mark: Mark): string => sumHex(ramSum(mark.sums));

/** Name of a frame's owner. */
export function ownerOf({ owner, names }: PageOwners, pfn: number): string {
  return names[owner[pfn] ?? -1] ?? "nobody";
}

/** True if page `pfn` has the same bytes in both. */
export function isSamePage(a: MachineSums, b: MachineSums, pfn: number): boolean {
  return a.pages[2 * pfn] === b.pages[2 * pfn] && a.pages[2 * pfn + 1] === b.pages[2 * pfn + 1];
}

/** How `now` differs from what `mark` says, in one line each; empty if in nothing. */
export function differences(mark: Mark, now: Mark): readonly string[] {
  const lines: string[] = [];
  if (now.steps !== mark.steps) lines.push(`step ${now.steps} instead of ${mark.steps}`);
  if (now.cycle !== mark.cycle) lines.push(`cycle ${now.cycle} instead of ${mark.cycle}`);
  const nrFrames = Math.max(mark.sums.pages.length, now.sums.pages.length) / 2;
  let first = -1;
  let nrPages = 0;
  for (let pfn = 0; pfn < nrFrames; pfn++) {
    if (isSamePage(mark.sums, now.sums, pfn)) continue;
    if (nrPages++ === 0) first = pfn;
  }
  if (nrPages > 0) {
    const [then, here] = [ownerOf(mark.owners, first), ownerOf(now.owners, first)];
    const owner = then === here ? here : `${here}; it was: ${then}`;
    const address = `0x${(first * PAGE_SIZE).toString(16)}`;
    lines.push(
      `${nrPages} page${nrPages === 1 ? "" : "s"} of RAM, the first is frame ${first} at ${address} (${owner})`,
    );
  }
  const files = mark.sums.registers.filter(({ name, sum }, i) => {
    const other = now.sums.registers[i];
    return other?.name !== name || sumHex(other.sum) !== sumHex(sum);
  });
  if (files.length > 0) lines.push(`registers: ${[...new Set(files.map(({ name }) => name))].join(", ")}`);
  if (sumHex(mark.sums.random) !== sumHex(now.sums.random)) lines.push("the state of the random streams");
  return lines;
}
