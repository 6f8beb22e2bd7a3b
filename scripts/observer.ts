/**
 * Observers: how long each operation of a workload took, in cycles, by kind of operation.
 *
 * One histogram for each kind. The kinds are numbered as the recordings number them (kernel/uapi/recording.ts), so a
 * replayer reports its row's own code. Observers live on the host: the kernel runs the same with and without them.
 */

import { createHistogram, type Histogram } from "../kernel/lib/histogram.ts";
import { OBSERVED_LOCK_PI, OBSERVED_LOCK_PLAIN, type ProgramObserver } from "../kernel/uapi/program.ts";
import {
  HEAP_CALLOC,
  HEAP_FREE,
  HEAP_MALLOC,
  HEAP_MEMALIGN,
  HEAP_REALLOC,
  HEAP_WRITE,
  KMEM_CACHE_ALLOC,
  KMEM_CACHE_FREE,
  KMEM_KFREE,
  KMEM_KMALLOC,
  KMEM_PAGE_ALLOC,
  KMEM_PAGE_FREE,
} from "../kernel/uapi/recording.ts";
import { SYSCALL_KINDS } from "../userland/index.ts";

/** Names by code. They are the metric names of scenarios too: `latency.page_alloc.p99`. */
export const HEAP_KINDS: readonly string[] = named([
  [HEAP_MALLOC, "malloc"],
  [HEAP_CALLOC, "calloc"],
  [HEAP_REALLOC, "realloc"],
  [HEAP_FREE, "free"],
  [HEAP_MEMALIGN, "memalign"],
  [HEAP_WRITE, "write"],
]);
const PROGRAM_KINDS: readonly string[] = named([
  ...HEAP_KINDS.map((name, code) => [code, name] as const),
  [OBSERVED_LOCK_PI, "lock_pi"],
  [OBSERVED_LOCK_PLAIN, "lock_plain"],
]);
export const KERNEL_KINDS: readonly string[] = named([
  [KMEM_PAGE_ALLOC, "page_alloc"],
  [KMEM_PAGE_FREE, "page_free"],
  [KMEM_KMALLOC, "kmalloc"],
  [KMEM_KFREE, "kfree"],
  [KMEM_CACHE_ALLOC, "cache_alloc"],
  [KMEM_CACHE_FREE, "cache_free"],
]);

/** By kind of workload: what its operations are. */
export const OBSERVED_KINDS: Readonly<Record<"program" | "heap" | "kernel" | "syscall", readonly string[]>> = {
  program: PROGRAM_KINDS,
  heap: HEAP_KINDS,
  kernel: KERNEL_KINDS,
  syscall: SYSCALL_KINDS,
};

/** What was seen of one kind of operation. */
export interface KindStats {
  readonly name: string;
  readonly latency: Histogram;
  nrFailed: number;
}

/** A `ProgramObserver` with its results. */
export interface LatencyObserver extends ProgramObserver {
  readonly kinds: readonly KindStats[];
  nrOps: number;
  nrFailed: number;
}

/** An observer with one histogram for each of `names`; codes outside count as operations of no kind. */
export function createLatencyObserver(names: readonly string[]): LatencyObserver {
  const kinds = names.map((name): KindStats => ({ name, latency: createHistogram(), nrFailed: 0 }));
  const observer: LatencyObserver = {
    kinds,
    nrOps: 0,
    nrFailed: 0,
    operation(kind, cycles, failed) {
      observer.nrOps++;
      if (failed) observer.nrFailed++;
      const stats = kinds[kind];
      if (stats === undefined) return;
      stats.latency.record(cycles);
      if (failed) stats.nrFailed++;
    },
  };
  return observer;
}

/** The kinds of all `observers` together, in the order of their first appearance; empty ones are left out. */
export function mergeKinds(observers: readonly LatencyObserver[]): KindStats[] {
  const merged = new Map<string, KindStats>();
  for (const observer of observers) {
    for (const kind of observer.kinds) {
      if (kind.latency.count === 0) continue;
      const sum = merged.get(kind.name) ?? { name: kind.name, latency: createHistogram(), nrFailed: 0 };
      sum.latency.merge(kind.latency);
      sum.nrFailed += kind.nrFailed;
      merged.set(kind.name, sum);
    }
  }
  return [...merged.values()];
}

function named(pairs: readonly (readonly [code: number, name: string])[]): string[] {
  const names: string[] = [];
  for (const [code, name] of pairs) names[code] = name;
  return names;
}
