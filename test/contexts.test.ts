/**
 * The table of docs/contexts.md says what the compiler says.
 *
 * Goal: [context-in-the-type], for every row of the table. Method: the rows are read from the page; for each there are
 * snippets, which are compiled with a TaskContext and with an IrqContext, and once more to ask whether the result may
 * be a generator. A row without snippets fails, and so does a snippet without a row.
 */

import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { typeErrors } from "./support/tsc_fixture.ts";

const HEAD = `
import type { Completions } from "../kernel/completion.ts";
import type { KfreeRcu } from "../kernel/kfree_rcu.ts";
import type { Mutexes } from "../kernel/mutex.ts";
import type { Rcu } from "../kernel/rcu.ts";
import type { Semaphores } from "../kernel/semaphore.ts";
import type { Seqlocks } from "../kernel/seqlock.ts";
import type { Smp } from "../kernel/smp.ts";
import type { Softirqs } from "../kernel/softirq.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import type { Task } from "../kernel/task.ts";
import type { Tasklets } from "../kernel/tasklet.ts";
import type { Timers } from "../kernel/timer.ts";
import type { DmaAddr, IrqContext, Pfn, PhysAddr, Sleeping, TaskContext } from "../kernel/types.ts";
import type { WaitQueues } from "../kernel/wait.ts";
import type { Workqueues } from "../kernel/workqueue.ts";
import type { Cma } from "../mm/cma.ts";
import type { Dma } from "../mm/dma.ts";
import type { DmaDevice } from "../mm/dma_device.ts";
import type { DmaPool } from "../mm/dma_pool.ts";
import { GFP_ATOMIC, GFP_KERNEL, GFP_NOIO } from "../mm/gfp.ts";
import type { Mempools } from "../mm/mempool.ts";
import type { Mempool } from "../mm/mempool_elements.ts";
import type { PageAllocator } from "../mm/page_alloc.ts";
import type { KmemCache } from "../mm/slab_descriptor.ts";
import type { SlabSubsystem } from "../mm/slab_subsystem.ts";
declare const pages: PageAllocator, slab: SlabSubsystem, mempools: Mempools, dma: Dma, cma: Cma;
declare const spinlocks: Spinlocks, seqlocks: Seqlocks, mutexes: Mutexes, semaphores: Semaphores;
declare const completions: Completions, waits: WaitQueues, rcu: Rcu, kfree: KfreeRcu, softirqs: Softirqs;
declare const tasklets: Tasklets, timers: Timers, works: Workqueues, smp: Smp;
declare const pfn: Pfn, addr: PhysAddr, bus: DmaAddr, dev: DmaDevice, dmaPool: DmaPool, pool: Mempool, cache: KmemCache;
`;

/** In process context there is a task and its context; in an interrupt its context stands where either is wanted. */
const PROCESS = "declare const ctx: TaskContext, task: Task;\n";
const INTERRUPT = "declare const ctx: IrqContext, task: IrqContext;\n";

/** First words of a row → the expressions that it stands for. */
const CALLS: ReadonlyMap<string, readonly string[]> = new Map([
  ["allocPages(…, GFP_KERNEL)", ["pages.allocPages(ctx, 0, GFP_KERNEL)"]],
  ["allocPages(…, GFP_ATOMIC)", ["pages.allocPages(ctx, 0, GFP_ATOMIC)"]],
  ["freePages", ["pages.freePages(ctx, pfn, 0)"]],
  ["kmalloc(…, GFP_KERNEL)", ["slab.kmalloc.kmalloc(ctx, 64, GFP_KERNEL)"]],
  ["kmalloc(…, GFP_ATOMIC)", ["slab.kmalloc.kmalloc(ctx, 64, GFP_ATOMIC)"]],
  ["kfree", ["slab.kmalloc.kfree(ctx, addr)"]],
  ["kmemCacheAlloc(…, GFP_KERNEL)", ["slab.layer.kmemCacheAlloc(ctx, cache, GFP_KERNEL)"]],
  ["kmemCacheAlloc(…, GFP_ATOMIC)", ["slab.layer.kmemCacheAlloc(ctx, cache, GFP_ATOMIC)"]],
  ["kmemCacheFree", ["slab.layer.kmemCacheFree(ctx, cache, addr)"]],
  ["kmemCacheCreate", ['slab.kmemCacheCreate(ctx, { name: "x", size: 8 })']],
  ["mempool.create", ["mempools.create(ctx, { minNr: 1, bytes: 8 })"]],
  ["mempool.alloc(…, GFP_NOIO)", ["mempools.alloc(ctx, pool, GFP_NOIO)"]],
  ["mempool.alloc(…, GFP_ATOMIC)", ["mempools.alloc(ctx, pool, GFP_ATOMIC)"]],
  ["mempool.free", ["mempools.free(ctx, pool, addr)"]],
  ["dma.allocCoherent(…, GFP_KERNEL)", ["dma.allocCoherent(ctx, dev, 64, GFP_KERNEL)"]],
  ["dma.allocCoherent(…, GFP_ATOMIC)", ["dma.allocCoherent(ctx, dev, 64, GFP_ATOMIC)"]],
  ["dma.freeCoherent", ["dma.freeCoherent(ctx, dev, 64, addr, bus)"]],
  [
    "dma.mapSingle",
    [
      "dma.mapSingle(ctx, dev, addr, 64, 1)",
      "dma.unmapSingle(ctx, dev, bus, 64, 1)",
      "dma.syncSingleForCpu(ctx, dev, bus, 64, 1)",
      "dma.syncSingleForDevice(ctx, dev, bus, 64, 1)",
    ],
  ],
  ["dma.mapSg", ["dma.mapSg(ctx, dev, addr, 1, 1)", "dma.unmapSg(ctx, dev, addr, 1, 1)"]],
  ["dma.poolCreate", ['dma.poolCreate(ctx, "x", dev, 8, 8, 0)', "dma.poolDestroy(ctx, dmaPool)"]],
  ["dma.poolAlloc(…, GFP_ATOMIC)", ["dma.poolAlloc(ctx, dmaPool, GFP_ATOMIC)"]],
  ["dma.poolFree", ["dma.poolFree(ctx, dmaPool, addr, bus)"]],
  ["cma.alloc", ["cma.alloc(ctx, 1, 0)"]],
  ["cma.release", ["cma.release(ctx, pfn, 1)"]],
  ["spinLock", ["spinlocks.spinLock(ctx, addr)", "spinlocks.spinLockIrqsave(ctx, addr)"]],
  ["seqlock.writeSeqlock", ["seqlocks.writeSeqlock(ctx, addr)"]],
  ["mutex.lock", ["mutexes.lock(task, addr)"]],
  ["mutex.tryLock", ["mutexes.tryLock(task, addr)", "mutexes.unlock(task, addr)"]],
  ["semaphore.down", ["semaphores.down(task, addr)"]],
  ["semaphore.tryDown", ["semaphores.tryDown(ctx, addr)", "semaphores.up(ctx, addr)"]],
  ["completion.wait", ["completions.wait(task, addr)", "completions.waitTimeout(task, addr, 1)"]],
  ["completion.complete", ["completions.complete(ctx, addr)", "completions.completeAll(ctx, addr)"]],
  ["waitOn", ["waits.waitOn(addr, task)", "waits.waitOnTimeout(addr, task, 1)"]],
  ["wakeUp", ["waits.wakeUp(addr)", "waits.wakeOne(addr)"]],
  ["rcuReadLock", ["rcu.rcuReadLock(ctx)"]],
  ["callRcu", ["rcu.callRcu(ctx, addr, 1)", "kfree.kfreeRcu(ctx, addr, 0)"]],
  ["synchronizeRcu", ["rcu.synchronizeRcu(task)", "rcu.rcuBarrier(task)"]],
  ["raiseSoftirq", ["softirqs.raiseSoftirq(ctx, 1)"]],
  ["tasklet.schedule", ["tasklets.schedule(ctx, addr)"]],
  ["tasklet.kill", ["tasklets.kill(task, addr)"]],
  ["modTimer", ["timers.modTimer(ctx, addr, 1)", "timers.delTimer(ctx, addr)"]],
  ["queueWork", ["works.queueWork(ctx, addr)"]],
  ["flushWork", ["works.flushWork(task, addr)", "works.cancelWorkSync(task, addr)"]],
  ["smpCallFunction", ["smp.smpCallFunction(ctx, 0, () => {})"]],
]);

interface Row {
  readonly call: string;
  readonly process: string;
  readonly interrupt: string;
  readonly maySleep: string;
}

const rows: readonly Row[] = readFileSync(new URL("../docs/contexts.md", import.meta.url), "utf8")
  .split("\n")
  .flatMap((line) => {
    const cells = /^\| `([^`]+)`[^|]* \| ([✓✗]) \| ([✓✗]) \| (yes|no) \|$/.exec(line);
    if (cells === null) return [];
    const [, call = "", process = "", interrupt = "", maySleep = ""] = cells;
    return [{ call, process, interrupt, maySleep }];
  });

const compiles = (head: string, body: string): boolean =>
  typeErrors(`${HEAD}${head}${body}\nexport {};\n`).length === 0;

it("the frame of the snippets compiles by itself", () => {
  expect(typeErrors(`${HEAD}${PROCESS}export {};\n`)).toEqual([]);
  expect(typeErrors(`${HEAD}${INTERRUPT}export {};\n`)).toEqual([]);
});

it("every row has its calls, and every call its row", () => {
  expect(rows.map(({ call }) => call).sort()).toEqual([...CALLS.keys()].sort());
});

it.each(rows)("$call: process $process, interrupt $interrupt, may sleep: $maySleep", (row) => {
  for (const call of CALLS.get(row.call) ?? []) {
    expect({ call, compiles: compiles(PROCESS, `export const r = ${call};`) }).toEqual({
      call,
      compiles: row.process === "✓",
    });
    expect({ call, compiles: compiles(INTERRUPT, `export const r = ${call};`) }).toEqual({
      call,
      compiles: row.interrupt === "✓",
    });
    // The part of the result's type that is a generator: none, or some.
    const never = `const r = ${call};\nexport const none: [Extract<typeof r, Sleeping<never> | Sleeping<unknown>>] extends [never] ? true : false = true;`;
    expect({ call, sleeps: !compiles(PROCESS, never) }).toEqual({ call, sleeps: row.maySleep === "yes" });
  }
});
