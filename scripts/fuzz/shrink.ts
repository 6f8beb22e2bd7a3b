/**
 * Shrinking: a failing case made smaller for as long as it fails in the same way.
 *
 *   lists (programs, modules, parameters, devices, settings, recordings, script steps, words, operations)
 *            without halves, quarters … single entries       delta debugging (Zeller and Hildebrandt, 2002)
 *   numbers  towards their least value: at once, then by halves
 *
 * Candidates come in a fixed order, and each that fails alike becomes the case to go on from, until a whole round finds
 * none or the budget of runs is used up. So the result depends on the case only, never on the speed of the computer.
 */

import type { DeviceSettings } from "../../drivers/index.ts";
import { MIN_RAM_BYTES, PAGE_SIZE } from "../../kernel/params.ts";
import type { FuzzCase, FuzzProgram, FuzzRecording } from "./fuzz_case.ts";

export interface Shrunk<T> {
  readonly smallest: T;
  readonly nrRuns: number;
}

/** The smallest case found from `start` for which `isAlike` holds, in at most `budget` runs. */
export async function shrink<T>(
  start: T,
  candidatesOf: (current: T) => Iterable<T>,
  isAlike: (candidate: T) => Promise<boolean>,
  budget: number,
): Promise<Shrunk<T>> {
  let smallest = start;
  let nrRuns = 0;
  const tried = new Set<string>([JSON.stringify(start)]);
  for (let isSmaller = true; isSmaller; ) {
    isSmaller = false;
    for (const candidate of candidatesOf(smallest)) {
      const key = JSON.stringify(candidate);
      if (tried.has(key)) continue;
      tried.add(key);
      if (nrRuns >= budget) return { smallest, nrRuns };
      nrRuns++;
      if (!(await isAlike(candidate))) continue;
      smallest = candidate;
      isSmaller = true;
      break;
    }
  }
  return { smallest, nrRuns };
}

/** `list` without a chunk of itself: half, then a quarter, … then one entry. */
export function* shorter<T>(list: readonly T[], least = 0): Generator<readonly T[]> {
  for (let size = Math.ceil(list.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < list.length; at += size) {
      const rest = [...list.slice(0, at), ...list.slice(at + size)];
      if (rest.length >= least && rest.length < list.length) yield rest;
    }
  }
}

/** Smaller numbers, the least first. */
function* lower(value: number, least: number): Generator<number> {
  if (value <= least) return;
  yield least;
  for (let gap = Math.floor((value - least) / 2); gap > 0; gap = Math.floor(gap / 4)) yield value - gap;
}

/** `list` with one entry replaced by each of its smaller forms. */
function* eachSmaller<T>(list: readonly T[], smallerOf: (entry: T) => Iterable<T>): Generator<readonly T[]> {
  for (const [i, entry] of list.entries()) {
    for (const smaller of smallerOf(entry)) yield list.with(i, smaller);
  }
}

/** A word with a smaller number in it; the halves of a range `A-B`. */
function* smallerWord(word: string): Generator<string> {
  const [range, from, to] = /^(\d{1,9})-(\d{1,9})$/.exec(word) ?? [];
  if (range !== undefined) {
    const middle = Math.floor((Number(from) + Number(to)) / 2);
    if (Number(from) < Number(to)) yield* [`${from}-${middle}`, `${middle + 1}-${to}`];
    return;
  }
  const [, before = "", digits = "", behind = ""] = /^(.*?)(\d{1,15})(\D*)$/.exec(word) ?? [];
  if (digits === "") return;
  for (const value of lower(Number(digits), 0)) yield `${before}${value}${behind}`;
}

function* smallerProgram(program: FuzzProgram): Generator<FuzzProgram> {
  for (const count of lower(program.count, 1)) yield { ...program, count };
  for (const at of lower(program.at, 0)) yield { ...program, at };
  for (const steps of shorter(program.steps, 1)) yield { ...program, steps };
  const [only] = program.steps;
  if (!program.isPlain && program.steps.length === 1 && only !== undefined) yield { ...program, isPlain: true };
  for (const steps of eachSmaller(program.steps, (words) => shorter(words, 1))) yield { ...program, steps };
  for (const steps of eachSmaller(program.steps, (words) => eachSmaller(words, smallerWord))) {
    yield { ...program, steps };
  }
}

function* smallerRecording(recording: FuzzRecording): Generator<FuzzRecording> {
  for (const at of lower(recording.at, 0)) yield { ...recording, at };
  for (const limit of lower(recording.limit, 1)) yield { ...recording, limit };
}

function* smallerDevices(devices: FuzzCase["devices"]): Generator<Record<string, DeviceSettings>> {
  for (const rest of shorter(Object.entries(devices))) yield Object.fromEntries(rest);
  for (const [name, settings] of Object.entries(devices)) {
    for (const rest of shorter(Object.entries(settings))) yield { ...devices, [name]: Object.fromEntries(rest) };
  }
}

/** Smaller cases, the boldest steps first. */
export function* smallerCases(current: FuzzCase): Generator<FuzzCase> {
  const { programs, recordings, modules, params, devices } = current;
  const nrRun = programs.length + recordings.length;
  for (const rest of shorter(programs)) if (rest.length + recordings.length > 0) yield { ...current, programs: rest };
  for (const rest of shorter(recordings)) if (nrRun > 1 || rest.length > 0) yield { ...current, recordings: rest };
  for (const rest of shorter(modules)) yield { ...current, modules: rest };
  for (const rest of shorter(params)) yield { ...current, params: rest };
  for (const rest of smallerDevices(devices)) yield { ...current, devices: rest };
  for (const cpus of lower(current.cpus, 1)) yield { ...current, cpus };
  for (const killCycles of lower(current.killCycles, 1_000_000)) yield { ...current, killCycles };
  for (const rest of eachSmaller(programs, smallerProgram)) yield { ...current, programs: rest };
  for (const rest of eachSmaller(recordings, smallerRecording)) yield { ...current, recordings: rest };
  for (const rest of eachSmaller(modules, smallerModule)) yield { ...current, modules: rest };
  for (const rest of eachSmaller(params, smallerWord)) yield { ...current, params: rest };
  for (const pages of lower(current.memBytes / PAGE_SIZE, MIN_RAM_BYTES / PAGE_SIZE)) {
    yield { ...current, memBytes: pages * PAGE_SIZE };
  }
  if (current.seed !== "1") yield { ...current, seed: "1" };
}

function* smallerModule(line: string): Generator<string> {
  for (const words of shorter(line.split(" "), 1)) if (line.startsWith(words[0] as string)) yield words.join(" ");
}
