/**
 * The history of a student's folder: what every grade looked at, under `.lab/history`, so that no work is ever lost.
 *
 *   .lab/history/0007/buddy.ts …       the files
 *   .lab/history/0007/score            `81/90`, and a line for each other kind of run: `12/14` in the quick one
 *
 * A state that is the same as the last one is not kept twice; what it got in another kind of run is noted. Restoring
 * first keeps what is there now. Two graders may be at work in one folder: each writes beside, and takes the next free
 * number.
 */

import {
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { UsageError } from "../usage_error.ts";
import type { Lab } from "./lab_folder.ts";
import { skeletonFiles } from "./skeleton.ts";

/** Larger files are no work of a student's hands. */
const MAX_BYTES = 1024 * 1024;
const PLACE = join(".lab", "history");

export interface Snapshot {
  readonly name: string;
  /** One for each kind of run, which have different points to give. */
  readonly scores: readonly string[];
}

/** Points in runs that have `max` to give; −1 if there was none of them. */
export function pointsOf({ scores }: Snapshot, max: number): number {
  const score = scores.find((text) => text.endsWith(`/${max}`));
  return score === undefined ? -1 : Number.parseInt(score, 10);
}

/** Files that are the student's. */
function studentsFiles(lab: Lab): string[] {
  const { files, own_tests, predictions } = lab.manifest;
  return [...files, ...(own_tests ? [own_tests.file] : []), ...(predictions ? [predictions.file] : [])];
}

export function snapshots(dir: string): Snapshot[] {
  const place = join(dir, PLACE);
  if (!existsSync(place)) return [];
  return readdirSync(place)
    .filter((name) => /^\d{4,}$/.test(name))
    .sort((a, b) => Number(a) - Number(b))
    .map((name) => {
      const file = join(place, name, "score");
      return { name, scores: existsSync(file) ? readFileSync(file, "utf8").trim().split("\n") : [] };
    });
}

/** Keeps the folder's files with `score`; the name of the snapshot, or null if the last one is the same. */
function keep(lab: Lab, dir: string, score: string): string | null {
  const isPlain = (name: string): boolean => {
    const info = lstatSync(join(dir, name), { throwIfNoEntry: false });
    return info?.isFile() === true && info.size < MAX_BYTES;
  };
  const names = studentsFiles(lab).filter(isPlain);
  const last = snapshots(dir).at(-1);
  const isSame =
    last !== undefined &&
    names.every((name) => {
      const kept = join(dir, PLACE, last.name, name);
      return existsSync(kept) && readFileSync(kept).equals(readFileSync(join(dir, name)));
    });
  if (isSame) {
    noteScore(join(dir, PLACE, last.name, "score"), last, score);
    return null;
  }
  const temporary = join(dir, PLACE, `${process.pid}.${nextTemporary++}.tmp`);
  rmSync(temporary, { recursive: true, force: true });
  mkdirSync(temporary, { recursive: true });
  try {
    for (const file of names) copyFileSync(join(dir, file), join(temporary, file));
    writeFileSync(join(temporary, "score"), `${score}\n`);
    return moveToFree(temporary, join(dir, PLACE), Number(last?.name ?? 0) + 1);
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true });
    throw error;
  }
}

/** What the same files got in another kind of run. */
function noteScore(file: string, { scores }: Snapshot, score: string): void {
  if (!score.includes("/") || scores.includes(score)) return;
  const [, max] = score.split("/");
  const others = scores.filter((text) => !text.endsWith(`/${max}`));
  replace(file, Buffer.from(`${[...others, score].join("\n")}\n`));
}

let nextTemporary = 0;

/** Gives a finished snapshot its number: the first from `number` on that nobody else has taken meanwhile. */
function moveToFree(temporary: string, place: string, number: number): string {
  for (let free = number; ; free++) {
    const name = String(free).padStart(4, "0");
    try {
      renameSync(temporary, join(place, name));
      return name;
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : "";
      if ((code !== "ENOTEMPTY" && code !== "EEXIST") || free > number + 1000) throw error;
    }
  }
}

/** The same where the folder may be read-only: why nothing was kept, or null. */
export function tryToKeep(lab: Lab, dir: string, score: string): string | null {
  try {
    keep(lab, dir, score);
    return null;
  } catch (error) {
    return `the history cannot be kept: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** Puts the files of snapshot `name` back; what was there is kept first. */
export function restore(lab: Lab, dir: string, name: string): void {
  const known = snapshots(dir).map((snapshot) => snapshot.name);
  const wanted = name.padStart(4, "0");
  if (!known.includes(wanted))
    throw new UsageError(`there is no snapshot ${name}`, `there are: ${known.join(", ") || "none"}`);
  keep(lab, dir, "before restore");
  for (const file of studentsFiles(lab)) {
    const kept = join(dir, PLACE, wanted, file);
    if (existsSync(kept)) replace(join(dir, file), readFileSync(kept));
  }
}

/** Puts the skeleton back; what was there is kept first. */
export function reset(lab: Lab, dir: string): void {
  keep(lab, dir, "before reset");
  const own = new Set(studentsFiles(lab));
  for (const [name, text] of skeletonFiles(lab)) {
    if (own.has(name)) replace(join(dir, name), Buffer.from(text));
  }
}

function replace(path: string, bytes: Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.tmp`, bytes);
  renameSync(`${path}.tmp`, path);
}
