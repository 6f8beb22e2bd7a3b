/**
 * The memory map: all of RAM as a picture, a character for every few frames.
 *
 *   00000000  ##############KKSSSS..sAAAAAAAA....      one row is 64 cells; cells are as small as 24 rows allow
 *
 * A cell shows what most of its used frames are for; a small letter says that half of the cell or more is free. Shown
 * by /sys/kernel/debug/memory_map, by the program `memmap`, and below a panic. It allocates nothing in the machine.
 *
 *   MAP-1  the counts below the picture are those of the census, and add up to what the zones span
 *   MAP-2  a cell with a used frame is never shown as free
 */

import { PAGE_SIZE } from "../kernel/params.ts";
import {
  forEachBlock,
  KIND_ANON,
  KIND_BALLOON,
  KIND_FILE,
  KIND_FREE_BUDDY,
  KIND_FREE_PCP,
  KIND_LARGE_KMALLOC,
  KIND_OTHER,
  KIND_RESERVED,
  KIND_SLAB,
  KIND_TABLE,
  NR_KINDS,
} from "./frame_kind.ts";
import type { Zones } from "./mmzone.ts";
import type { Pages } from "./page.ts";

/** In the order of the legend. */
const LEGEND: readonly (readonly [letter: string, name: string, kinds: readonly number[]])[] = [
  [".", "free", [KIND_FREE_BUDDY, KIND_FREE_PCP]],
  ["#", "reserved at boot", [KIND_RESERVED]],
  ["S", "slab", [KIND_SLAB]],
  ["L", "large kmalloc", [KIND_LARGE_KMALLOC]],
  ["K", "kernel, other", [KIND_OTHER]],
  ["T", "page tables", [KIND_TABLE]],
  ["A", "anonymous", [KIND_ANON]],
  ["F", "files", [KIND_FILE]],
  ["B", "balloon", [KIND_BALLOON]],
];

const CELLS_PER_ROW = 64;
const MAX_ROWS = 24;

/** The letter of a cell with `counts[first …]` frames of each kind; a blank where no zone has any. */
function letterOf(counts: Uint32Array, first: number): string {
  let [nrFrames, most, letter] = [0, 0, "."];
  for (const [candidate, , kinds] of LEGEND) {
    const nr = kinds.reduce((sum, kind) => sum + (counts[first + kind] as number), 0);
    nrFrames += nr;
    if (candidate !== "." && nr > most) [most, letter] = [nr, candidate];
  }
  const nrFree = (counts[first + KIND_FREE_BUDDY] as number) + (counts[first + KIND_FREE_PCP] as number);
  if (nrFrames === 0) return " ";
  return nrFree * 2 >= nrFrames ? letter.toLowerCase() : letter;
}

/** Frames in a cell: a power of two, so that a picture has at most MAX_ROWS rows. */
function framesPerCell(nrFrames: number): number {
  let size = 1;
  while (size * CELLS_PER_ROW * MAX_ROWS < nrFrames) size *= 2;
  return size;
}

/** The picture with its legend, a line each, the last one closed. O(frames). */
export function formatMemoryMap(pages: Pages, zones: Zones): string {
  const cellFrames = framesPerCell(pages.nrFrames);
  const nrCells = Math.ceil(pages.nrFrames / cellFrames);
  const counts = new Uint32Array(nrCells * NR_KINDS);
  const totals = new Uint32Array(NR_KINDS);
  forEachBlock(pages, zones, (kind, pfn, nrPages) => {
    totals[kind] = (totals[kind] as number) + nrPages;
    for (let at = pfn; at < pfn + nrPages; ) {
      const cell = Math.floor(at / cellFrames);
      const nr = Math.min(pfn + nrPages, (cell + 1) * cellFrames) - at;
      const index = cell * NR_KINDS + kind;
      counts[index] = (counts[index] as number) + nr;
      at += nr;
    }
  });

  const lines = [`Memory map: a character is ${cellFrames} pages, small letters where half or more is free`];
  for (let row = 0; row < nrCells; row += CELLS_PER_ROW) {
    let cells = "";
    for (let cell = row; cell < Math.min(row + CELLS_PER_ROW, nrCells); cell++) {
      cells += letterOf(counts, cell * NR_KINDS);
    }
    const address = (row * cellFrames * PAGE_SIZE).toString(16).padStart(8, "0");
    if (cells.trim() !== "") lines.push(`${address}  ${cells.trimEnd()}`);
  }
  const shown = LEGEND.map(([letter, name, kinds]) => {
    const nr = kinds.reduce((sum, kind) => sum + (totals[kind] as number), 0);
    return nr === 0 ? "" : `${letter} ${name} ${nr}`;
  }).filter((text) => text !== "");
  return `${lines.join("\n")}\n${shown.join("  ")}\n`;
}
