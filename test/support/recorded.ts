/**
 * Recorded files of real kernels (test/conformance/recorded), and where larger recordings may lie.
 */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** Text of a recorded file: `linux-6.18/zoneinfo`. */
export const recorded = (name: string): string =>
  readFileSync(new URL(`../conformance/recorded/${name}`, import.meta.url), "utf8");

const SHIPPED = fileURLToPath(new URL("../../scripts/samples/", import.meta.url));
/** Folder of larger recordings, from the environment; empty if none was named. */
const LARGER = process.env.SLABTOWN_RECORDINGS ?? "";

function recordingsIn(dir: string): string[] {
  if (dir === "" || !existsSync(dir)) return [];
  return readdirSync(dir, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ftrace.gz"))
    .sort()
    .map((name) => join(dir, name));
}

/** Paths of recorded kernel events: those that ship, and those in the folder that SLABTOWN_RECORDINGS names. */
export const shippedKernelRecordings = (): string[] => recordingsIn(SHIPPED);
export const largerKernelRecordings = (): string[] => recordingsIn(LARGER);

export interface RecordedSlabinfoRow {
  readonly name: string;
  readonly size: number;
  readonly objects: number;
  readonly pages: number;
}

/** Rows of a recorded slabinfo. */
export function recordedSlabinfo(name: string): RecordedSlabinfoRow[] {
  return recorded(name)
    .split("\n")
    .flatMap((line) => {
      const match = /^(\S+) +\d+ +\d+ +(\d+) +(\d+) +(\d+) :/.exec(line);
      if (match === null) return [];
      const [size, objects, pages] = match.slice(2).map(Number) as [number, number, number];
      return [{ name: match[1] as string, size, objects, pages }];
    });
}

/** Numbers of one zone in a recorded zoneinfo. */
export interface RecordedZone {
  readonly name: string;
  /** `managed`, `min`, `batch`, `high_min`, `vm stats threshold` …: the first number behind the name. */
  field(name: string): number;
  has(name: string): boolean;
  /** The line `protection: (a, b, …)`. */
  readonly protection: readonly number[];
}

export function recordedZones(name: string): RecordedZone[] {
  return recorded(name)
    .split(/^Node 0, zone +/m)
    .slice(1)
    .map((text) => {
      const find = (field: string): RegExpExecArray | null => new RegExp(`^ *${field}:? +(\\d+)$`, "m").exec(text);
      return {
        name: /^\S+/.exec(text)?.[0] as string,
        has: (field) => find(field) !== null,
        field(field) {
          const match = find(field);
          if (match === null) throw new Error(`zoneinfo has no ${field}`);
          return Number(match[1]);
        },
        protection: (/protection: \((.*)\)/.exec(text)?.[1] ?? "").split(", ").map(Number),
      };
    });
}
