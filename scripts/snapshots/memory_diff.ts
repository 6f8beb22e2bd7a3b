/**
 * What changed in memory between two moments: pages by owner, gained, given away, rewritten.
 *
 * The owners are those of marks, so the two moments may be of one run, of two runs, or of two files.
 */

import type { Paint } from "../paint.ts";
import { grouped, titled } from "../summary.ts";
import { isSamePage, type Mark, ownerOf } from "./mark.ts";

export interface OwnerDiff {
  readonly owner: string;
  readonly before: number;
  readonly after: number;
  /** Pages that came to this owner and that left it. */
  readonly got: number;
  readonly gave: number;
  /** Pages that it has kept, with other bytes in them. */
  readonly rewritten: number;
}

/** One row for each owner that has, or had, pages; those without a change last. Both marks are of the same RAM size. */
export function memoryDiff(before: Mark, after: Mark): readonly OwnerDiff[] {
  const rows = new Map<string, { -readonly [K in keyof OwnerDiff]: OwnerDiff[K] }>();
  const rowOf = (owner: string) => {
    const known = rows.get(owner);
    if (known !== undefined) return known;
    const row = { owner, before: 0, after: 0, got: 0, gave: 0, rewritten: 0 };
    rows.set(owner, row);
    return row;
  };
  for (let pfn = 0; pfn < after.owners.owner.length; pfn++) {
    const then = rowOf(ownerOf(before.owners, pfn));
    const now = rowOf(ownerOf(after.owners, pfn));
    then.before++;
    now.after++;
    if (then !== now) {
      then.gave++;
      now.got++;
    } else if (!isSamePage(before.sums, after.sums, pfn)) now.rewritten++;
  }
  const weight = ({ got, gave, rewritten }: OwnerDiff): number => got + gave + rewritten;
  return [...rows.values()].sort((a, b) => weight(b) - weight(a) || (a.owner < b.owner ? -1 : 1));
}

/** The rows with a change, as a table. */
export function diffLines(rows: readonly OwnerDiff[], paint: Paint): string[] {
  const changed = rows.filter(({ got, gave, rewritten }) => got + gave + rewritten > 0);
  if (changed.length === 0) return ["  nothing changed"];
  const zero = (value: number): string => (value === 0 ? "" : grouped(value));
  const cells = changed.map((row) => [
    row.owner,
    ...[grouped(row.before), grouped(row.after), zero(row.got), zero(row.gave), zero(row.rewritten)],
  ]);
  const head = ["pages of", "before", "after", "got", "gave", "rewritten"];
  return titled(head, cells, [false, true, true, true, true, true], paint);
}

/** Pages by owner, most first. */
export function pagesByOwner({ owners }: Mark): readonly (readonly [owner: string, pages: number])[] {
  const counts = new Array<number>(owners.names.length).fill(0);
  for (const index of owners.owner) counts[index] = (counts[index] ?? 0) + 1;
  return owners.names
    .map((name, i) => [name, counts[i] ?? 0] as const)
    .filter(([, pages]) => pages > 0)
    .sort(([, a], [, b]) => b - a);
}
