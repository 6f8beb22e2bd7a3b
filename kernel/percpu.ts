/**
 * Per-CPU variables: the same layout once for every CPU, each copy on cache lines of its own.
 *
 *   area of CPU 0            area of CPU 1
 *   | preempt_count | … |    | preempt_count | … |      variable = area base of the CPU + offset
 *
 * Subsystems define their variables while the kernel is being composed (the offset is then a constant in their
 * closures); boot allocates the areas once and the layout is frozen. A path finds its area in its Context.
 *
 *   PCPU-1  offsets are disjoint and aligned as asked
 *   PCPU-2  areas start on a cache line and are a whole number of lines: no line is shared by two CPUs
 *   PCPU-3  no variable is defined after setup()
 */

import { bugOn } from "./bug.ts";
import { CACHE_LINE } from "./params.ts";
import { alignUp, asPhys, type PhysAddr } from "./types.ts";

export interface PerCpu {
  /** Offset of a new variable of `bytes` in each area. Composition only. */
  define(name: string, bytes: number, align?: number): number;
  /** Bytes of one area. */
  unitBytes(): number;
  /** Freezes the layout; `base` is memory for `nrCpus` areas, zeroed, cache-line aligned. */
  setup(base: PhysAddr, nrCpus: number): void;
  /** Base of a CPU's area. */
  areaOf(cpu: number): PhysAddr;
}

export function createPerCpu(): PerCpu {
  let next = 0;
  let base = 0;
  let nrAreas = 0;
  const unitBytes = (): number => alignUp(next, CACHE_LINE);
  return {
    define(_name, bytes, align = 4) {
      bugOn(nrAreas !== 0, "percpu: variable defined after the areas were laid out");
      const offset = alignUp(next, align);
      next = offset + bytes;
      return offset;
    },
    unitBytes,
    setup(areas, nrCpus) {
      bugOn(areas % CACHE_LINE !== 0, "percpu: areas are not on a cache line", areas);
      base = areas;
      nrAreas = nrCpus;
    },
    areaOf(cpu) {
      bugOn(cpu >= nrAreas, "percpu: no area for this CPU", cpu, nrAreas);
      return asPhys(base + cpu * unitBytes());
    },
  };
}
