/**
 * End states: what a machine still holds when all its programs have ended, to be compared with another run's.
 *
 * Things that a run may keep without having leaked are left out: threads that the kernel makes when it first needs
 * them, with their stacks and task_structs, and the slab allocator's own caches.
 */

import type { Kernel, TaskInfo } from "../kernel/entry/kernel.ts";
import { DEBUG_ENTRIES_PER_PAGE } from "../mm/index.ts";

const PERMANENT_THREAD = /^(ksoftirqd|kworker)\/|^(kcompactd|khugepaged|kswapd|writeback)/;
const STACK_PAGES = 4;
/** Caches that the slab allocator keeps for itself, and areas of vmalloc: freed ones wait for a flush (VML-4). */
const INTERNAL_CACHE = /^(magazine-|kmem_cache|slab|vmap_area)/;

export interface EndState {
  /** Tasks that are left, without the kernel's permanent ones. */
  readonly tasks: number;
  /** Lines of /proc/modules. */
  readonly modules: number;
  readonly pages: ReadonlyMap<string, number>;
  readonly objects: ReadonlyMap<string, number>;
}

/** Pages that are on swap disks and not in RAM: what one run has there another may have in RAM. */
function nrSwappedOut(kernel: Kernel): number {
  const areas = (kernel.readFile("/proc/swaps") ?? "").matchAll(/^\S+\s+partition\s+\d+\s+(\d+)/gm);
  const usedKib = [...areas].reduce((sum, [, kib]) => sum + Number(kib), 0);
  const [, nrCached = 0] = /^nr_swapcached (\d+)$/m.exec(kernel.readFile("/proc/vmstat") ?? "") ?? [];
  return usedKib / 4 - Number(nrCached);
}

/** Pages of dma-debug's entries: it keeps them, as many as the most mappings at once needed, which is chance. */
function nrDebugEntryPages(kernel: Kernel): number {
  const nrEntries = Number(kernel.readFile("/sys/kernel/debug/dma-api/nr_total_entries") ?? 0);
  return Math.ceil(nrEntries / DEBUG_ENTRIES_PER_PAGE);
}

/** Threads that the kernel makes when it first needs them, and keeps. */
export const isPermanentThread = ({ comm }: Pick<TaskInfo, "comm">): boolean => PERMANENT_THREAD.test(comm);
/** Pages of the kernel stacks of those. */
export const permanentStackPages = (kernel: Kernel): number =>
  STACK_PAGES * kernel.tasks().filter(isPermanentThread).length;

/** Pages that somebody has to give back: caches may keep theirs, threads that the kernel keeps their stacks. */
export function heldPages(kernel: Kernel): number {
  const { largeKmalloc, anon, files, pageTables, kernelStacks, other } = kernel.census();
  const stacks = kernelStacks - permanentStackPages(kernel);
  return largeKmalloc + anon + files + pageTables + stacks + other;
}

/** What is in use at the end, after every cache has given back what it can. */
export function endState(kernel: Kernel): EndState {
  const { slab } = kernel.memory;
  slab.shrinkAll(kernel.contexts.taskContext(kernel.machine.harts.current[0] as number));
  const tasks = kernel.tasks();
  const nrPermanent = tasks.filter(isPermanentThread).length;
  const objects = new Map<string, number>();
  slab.forEachCache((cache) => {
    const { name, activeObjects } = slab.slabInfo(cache);
    if (INTERNAL_CACHE.test(name)) return;
    objects.set(name, activeObjects - (name === "task_struct" ? nrPermanent : 0));
  });
  const { largeKmalloc, anon, files, kernelStacks, dmaPools, balloon, other, ...rest } = kernel.census();
  // Where in the window the stacks of permanent threads came to lie is chance, and so is how many tables that takes.
  const pageTables = rest.pageTables - kernel.nrKernelTables();
  const stacks = kernelStacks - permanentStackPages(kernel);
  // Coherent memory comes from DMA's pool, or from pages of its own where the pool could not be had: one sum.
  const others = files + dmaPools + balloon + other - nrDebugEntryPages(kernel);
  const pages = { largeKmalloc, anon: anon + nrSwappedOut(kernel), pageTables, stacks, other: others };
  const modules = (kernel.readFile("/proc/modules") ?? "").split("\n").length;
  return { tasks: tasks.length - nrPermanent, modules, pages: new Map(Object.entries(pages)), objects };
}

/** What `now` has and `reference` has not, in words; null if nothing. */
export function surplusText(now: EndState, reference: EndState): string | null {
  const more = (mine: ReadonlyMap<string, number>, theirs: ReadonlyMap<string, number>, word: string): string[] =>
    [...mine]
      .map(([name, nr]) => [name, nr - (theirs.get(name) ?? 0)] as const)
      .filter(([, extra]) => extra > 0)
      .map(([name, extra]) => `${extra} ${word} ${name}`);
  const surplus = [
    ...(now.tasks > reference.tasks ? [`${now.tasks - reference.tasks} tasks`] : []),
    ...(now.modules > reference.modules ? [`${now.modules - reference.modules} modules`] : []),
    ...more(now.pages, reference.pages, "pages of"),
    ...more(now.objects, reference.objects, "objects of"),
  ];
  return surplus.length === 0 ? null : surplus.join(", ");
}
