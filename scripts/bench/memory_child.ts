/**
 * Samples of process memory: a page fault (B1), a fork and the copies that its stores make (B2).
 *
 * A program's store goes through the MMU, its fault through the kernel and back, as in a run. What the machine's
 * zeroing or copying of a page costs is measured beside it, over as many pages, and taken off: the figure is what the
 * kernel adds. Warmed up by doing the same thing before.
 */

import { createFaultHandler, TaskMemory } from "../../kernel/entry/user_mode.ts";
import { PAGE_SIZE } from "../../kernel/params.ts";
import { NO_PFN, NULL, type PhysAddr } from "../../kernel/types.ts";
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from "../../kernel/uapi/mman.ts";
import { GFP_KERNEL } from "../../mm/index.ts";
import type { Sample } from "./child_tasks.ts";
import { bootForBench } from "./single_workloads.ts";

const FORK_BYTES = 64 * 2 ** 20;
const NR_PAGES = FORK_BYTES / PAGE_SIZE;
const NR_WARMUP = 6;
/** There is memory enough. */
const noRoom = (): boolean => false;
const BLOCK_ORDER = 10;
const BLOCK_MASK = 2 ** BLOCK_ORDER - 1;
const RAM_BYTES = 256 * 2 ** 20;

export interface MemoryReply {
  /** Nanoseconds a demand-zero fault, beyond zeroing. */
  readonly fault: Sample;
  /** Milliseconds a fork of a process with 64 MiB. */
  readonly fork: Sample;
  /** Nanoseconds a store that copies, beyond copying. */
  readonly cow: Sample;
}

/** CPU time in ns: other processes of a busy computer do not count. */
const timeOf = (work: () => void): number => {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) * 1000;
};

export function sampleMemory(seed: string): MemoryReply {
  const kernel = bootForBench(seed, RAM_BYTES);
  const { processMemory, pageAlloc } = kernel.memory;
  const ctx = kernel.contexts.taskContext(0);
  const { port } = kernel.machine;
  const bad = (what: string): never => {
    throw new Error(`bench: no memory for ${what}`);
  };

  const { machine, contexts } = kernel;
  const faultDeps = { machine, processMemory, makeRoom: noRoom, interruptPoint: contexts.interruptPoint };
  const touchAll = (mm: PhysAddr, addr: number): void => {
    const memory = new TaskMemory(machine, ctx, createFaultHandler(faultDeps, ctx, mm));
    processMemory.activate(ctx.cpu, mm);
    for (let i = 0; i < NR_PAGES; i++) memory.st8(addr + i * PAGE_SIZE, 1);
  };

  const round = (): { fault: number; fork: number; cow: number } => {
    const mm = processMemory.createMm(ctx);
    const addr = processMemory.mmap(ctx, mm, 0, FORK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    if (mm === NULL || addr < 0) bad("a process of 64 MiB");
    const faults = timeOf(() => touchAll(mm, addr));
    let child: PhysAddr = NULL;
    const fork = timeOf(() => {
      child = processMemory.fork(ctx, mm);
    });
    if (child === NULL) bad("its child");
    const cows = timeOf(() => touchAll(child, addr));
    for (const each of [child, mm]) processMemory.mmPut(ctx, each);
    processMemory.activate(ctx.cpu, NULL);
    // As many pages of RAM, without a kernel.
    const blocks = Array.from({ length: (2 * NR_PAGES) >> BLOCK_ORDER }, () =>
      pageAlloc.tryAllocPages(ctx, BLOCK_ORDER, GFP_KERNEL),
    );
    if (blocks.includes(NO_PFN)) bad("blocks of 4 MiB");
    const at = (i: number): number => ((blocks[i >> BLOCK_ORDER] as number) + (i & BLOCK_MASK)) * PAGE_SIZE;
    const zeroing = timeOf(() => {
      for (let i = 0; i < NR_PAGES; i++) port.fill(at(i), 0, PAGE_SIZE);
    });
    const copying = timeOf(() => {
      for (let i = 0; i < NR_PAGES; i++) port.copy(at(i), at(NR_PAGES + i), PAGE_SIZE);
    });
    for (const pfn of blocks) pageAlloc.freePages(ctx, pfn, BLOCK_ORDER);
    return { fault: (faults - zeroing) / NR_PAGES, fork: fork / 1e6, cow: (cows - copying) / NR_PAGES };
  };

  for (let i = 0; i < NR_WARMUP; i++) round();
  const { fault, fork, cow } = round();
  const sample = (value: number, nrOps: number): Sample => ({
    value,
    cpu: null,
    worst: null,
    nrOps,
    failures: 0,
    fault: kernel.check(),
  });
  return { fault: sample(fault, NR_PAGES), fork: sample(fork, 1), cow: sample(cow, NR_PAGES) };
}
