/**
 * Numbers of `bench` and `explore`, as commander's option parsers take them: apart from the commands, so that parsing a
 * command line loads neither.
 */

import { MAX_CPUS } from "../kernel/params.ts";
import { parseWhole } from "./options.ts";

/** As many runs of `explore` as there can be. */
export const MAX_RUNS = 1_000_000_000;

/** `--parallel N`. */
export const parseThreads = (text: string): number => parseWhole(text, "--parallel", 1, MAX_CPUS);
/** `--samples N`. */
export const parseSamples = (text: string): number => parseWhole(text, "--samples", 1, 100);
/** `--ops N`: also 500k or 5M. */
export function parseOps(text: string): number {
  const match = /^(\d+)([km]?)$/i.exec(text.trim());
  const factor = match?.[2] === "" ? 1 : match?.[2]?.toLowerCase() === "k" ? 1_000 : 1_000_000;
  return parseWhole(match === null ? text : String(Number(match[1]) * factor), "--ops", 1_000, 100_000_000);
}

export const parseBound = (text: string): number => parseWhole(text, "--bound", 0, 10);
export const parseDepth = (text: string): number => parseWhole(text, "--depth", 1, 10);
export const parseProgramLength = (text: string): number => parseWhole(text, "--ops", 1, 200);
export const parseRuns = (text: string): number => parseWhole(text, "--runs", 1, MAX_RUNS);
export const parseIrqs = (text: string): number => parseWhole(text, "--irqs", 0, 10);
