/**
 * A6 from the outside: every size of RAM as a figure's subject, and what the curve says.
 */

import { join } from "node:path";
import type { BenchRun } from "./bench_run.ts";
import { runTask } from "./child.ts";
import type { GrowthSubject, Sample } from "./child_tasks.ts";
import { type Figure, type FigureResult, figureName, measureFigure } from "./figures.ts";

export interface GrowthPoint {
  readonly ramBytes: number;
  /** Nanoseconds per operation, medians, by CPU time and by the clock. */
  readonly cpuNs: number;
  readonly ns: number;
}

export interface GrowthCurve {
  readonly subject: GrowthSubject;
  readonly title: string;
  readonly points: readonly GrowthPoint[];
  readonly failures: number;
  readonly fault: string | null;
}

const MIB = 2 ** 20;
export const GROWTH_SIZES: readonly number[] = [64, 128, 256, 512, 1024, 2048, 4096].map((mib) => mib * MIB);

interface Curve {
  readonly id: string;
  readonly subject: GrowthSubject;
  readonly title: string;
}
const CURVES: readonly Curve[] = [
  { id: "A6", subject: "buddy", title: "growth with RAM: page churn, 50 % full" },
  { id: "A6b", subject: "kmalloc", title: "growth with RAM: kmalloc, 80 objects a MiB" },
  { id: "A6c", subject: "memory", title: "growth with RAM: one access to memory, no allocator" },
];
export const GROWTH_NAMES: readonly string[] = CURVES.map(figureName);

const sizeName = (bytes: number): string => (bytes < 1024 * MIB ? `${bytes / MIB} MiB` : `${bytes / 1024 / MIB} GiB`);

function figureOf({ id, subject, title }: Curve, folder: string, run: BenchRun): Figure {
  const { seed, nrOps } = run;
  const nrWarmup = Math.ceil(nrOps / 10);
  const file = (ramBytes: number): string =>
    join(folder, `growth-${subject === "memory" ? "buddy" : subject}-${ramBytes}.stream`);
  return {
    id,
    title,
    unit: "ns",
    bar: 2,
    better: "lower",
    async prepare() {
      for (const ramBytes of GROWTH_SIZES) {
        if (run.isStopped()) break;
        run.detail(`${id} ${title}: drawing for ${sizeName(ramBytes)}`);
        const task = { subject, ramBytes, seed, nrOps: nrOps + nrWarmup, file: file(ramBytes) } as const;
        await runTask({ do: "draw-growth", ...task }, run);
      }
      return GROWTH_SIZES.map((ramBytes) => ({
        name: sizeName(ramBytes),
        role: "slabtown",
        measure: () =>
          runTask<Sample>({ do: "growth", subject, ramBytes, seed, file: file(ramBytes), nrWarmup, nrOps }, run),
      }));
    },
  };
}

function curveOf({ subject, title }: Curve, { subjects }: FigureResult): GrowthCurve {
  return {
    subject,
    title,
    points: subjects.map(({ name, value, cpu }) => ({
      ramBytes: GROWTH_SIZES.find((bytes) => sizeName(bytes) === name) ?? 0,
      cpuNs: cpu ?? value,
      ns: value,
    })),
    failures: Math.max(...subjects.map(({ failures }) => failures)),
    fault: subjects.find(({ fault }) => fault !== null)?.fault ?? null,
  };
}

/** The curves that the run wants. Fewer when it is stopped. */
export async function measureGrowth(folder: string, run: BenchRun): Promise<readonly GrowthCurve[]> {
  const curves: GrowthCurve[] = [];
  for (const curve of CURVES) {
    if (!run.wants(figureName(curve)) || run.isStopped()) continue;
    const result = await measureFigure(figureOf(curve, folder, run), run);
    if (result !== null) curves.push(curveOf(curve, result));
  }
  return curves;
}

/** Cost at the largest RAM, and the worst up to 256 MiB, as multiples of the cost at the smallest. */
export function growthFactors({ points }: GrowthCurve): { readonly toLargest: number; readonly to256MiB: number } {
  const base = points[0]?.cpuNs ?? Number.NaN;
  const upTo = points.filter(({ ramBytes }) => ramBytes <= 256 * MIB).map(({ cpuNs }) => cpuNs / base);
  return { toLargest: (points.at(-1)?.cpuNs ?? Number.NaN) / base, to256MiB: Math.max(...upTo) };
}
