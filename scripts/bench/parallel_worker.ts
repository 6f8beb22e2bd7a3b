/**
 * A thread of a parallel machine: boots its copy of the kernel, then does what the host asks (messages.ts).
 *
 * Entry file of a worker thread; parallel_machine.ts starts it.
 */

import { parentPort, workerData } from "node:worker_threads";
import type { Kernel } from "../../kernel/entry/kernel.ts";
import { KERN_WARNING } from "../../kernel/printk.ts";
import { PCP_BUSY } from "../../mm/index.ts";
import { GIVE_UP, GivenUp, THREAD_IDLE, THREAD_RUNNING } from "./control.ts";
import { lockNames } from "./lock_names.ts";
import type { RanReply, Reply, Request } from "./messages.ts";
import { runStress } from "./parallel_stress.ts";
import { createWorkload } from "./parallel_workloads.ts";
import { bootWorld, type ThreadWorld, type WorldSetup } from "./thread_world.ts";

const setup = workerData as WorldSetup;
let world: ThreadWorld | undefined;
let rest: Rest | undefined;
let logAtRest = 0;

const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6;
const cpuMs = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

function getWorld(): ThreadWorld {
  if (world === undefined) throw new Error("bench: a thread was asked to work before it had booted");
  return world;
}

/** What a machine at rest has. */
interface Rest {
  readonly freePages: number;
  readonly nrCaches: number;
  /** In pages: what describes caches and their slabs. It grows with caches only. */
  readonly descriptorPages: number;
}

/** Everything back where it came from. All other threads rest. */
function bringToRest({ kernel, ctx }: ThreadWorld): Rest {
  const { slab, pageAlloc, zones } = kernel.memory;
  slab.shrinkAll(ctx);
  pageAlloc.drainAllPages(ctx);
  let [nrCaches, descriptorPages] = [0, 0];
  slab.forEachCache((cache) => {
    const { name, nrSlabs, order } = slab.slabInfo(cache);
    nrCaches++;
    if (/^(kmem_cache$|slab-)/.test(name)) descriptorPages += nrSlabs << order;
  });
  return { freePages: zones.totalFree(), nrCaches, descriptorPages };
}

/** Pages that were free at `before` and are neither free now nor hold descriptors of caches made since (M6). */
function lostPages(before: Rest, now: Rest): number {
  const describing = now.nrCaches > before.nrCaches ? now.descriptorPages - before.descriptorPages : 0;
  return before.freePages - now.freePages - describing;
}

function firstComplaint(kernel: Kernel): string | undefined {
  return kernel.printk.records(logAtRest).find((record) => record.level <= KERN_WARNING)?.text;
}

function finish(ready: ThreadWorld): string | null {
  const { kernel } = ready;
  const before = kernel.check();
  if (before !== null) return before;
  if (rest === undefined) throw new Error("bench: a thread was asked to finish before it had settled");
  const nrLost = lostPages(rest, bringToRest(ready));
  if (nrLost !== 0) return `${nrLost} pages are lost`;
  if (kernel.nrReports() !== 0) return `${kernel.nrReports()} kernel reports: ${firstComplaint(kernel) ?? "no text"}`;
  const complaint = firstComplaint(kernel);
  return complaint === undefined ? kernel.check() : `kernel log: ${complaint}`;
}

/** Intervals of the warm-up: after each one magazines may grow (M6), as they do every 15 s of virtual time. */
const WARMUP_INTERVALS = 4;

/** What the kernel does at a tick of its object caches. All other threads wait. */
function endInterval({ kernel, ctx }: ThreadWorld): void {
  const { slab } = kernel.memory;
  slab.forEachCache((cache) => {
    slab.layer.tick(ctx, cache);
  });
}

/** Times that CPUs met at depots of either kind, since their magazines have the size that they have. */
function depotContention({ kernel }: ThreadWorld): number {
  const { slab } = kernel.memory;
  let sum = 0;
  slab.forEachCache((cache) => {
    sum += slab.layer.stats(cache).contention;
  });
  return sum;
}

function run(ready: ThreadWorld, request: Request & { do: "run" }): RanReply {
  const { control, kernel, contended } = ready;
  const { nrActive } = request;
  const work = createWorkload(request.workload, ready, nrActive);
  const busyBefore = kernel.memory.vmstat.event(PCP_BUSY);
  work.prepare();
  control.barrier(nrActive);
  for (let interval = 0; interval < WARMUP_INTERVALS; interval++) {
    work.run(Math.ceil(request.warmupPairs / WARMUP_INTERVALS));
    control.barrier(nrActive);
    if (ready.cpu === 0) endInterval(ready);
    control.barrier(nrActive);
  }
  const depotBefore = depotContention(ready);
  const before = new Map(contended);
  const sleepsBefore = ready.nrSleeps();
  control.barrier(nrActive);
  const cpuBefore = cpuMs();
  const startMs = nowMs();
  const pairs = work.run(request.nrPairs);
  const endMs = nowMs();
  control.barrier(nrActive);
  const cpuSpent = ready.cpu === 0 ? cpuMs() - cpuBefore : 0;
  work.end();
  control.barrier(nrActive);
  return {
    kind: "ran",
    pairs,
    startMs,
    endMs,
    cpuMs: cpuSpent,
    contended: [...contended].map(([lock, times]) => [lock, times - (before.get(lock) ?? 0)] as const),
    sleeps: ready.nrSleeps() - sleepsBefore,
    depotBusy: ready.cpu === 0 ? depotContention(ready) - depotBefore : 0,
    pcpBusy: ready.cpu === 0 ? kernel.memory.vmstat.event(PCP_BUSY) - busyBefore : 0,
  };
}

async function answer(request: Request): Promise<Reply> {
  if (request.do === "boot") {
    const start = nowMs();
    world = await bootWorld(setup);
    return { kind: "booted", checksum: world.checksum, ms: nowMs() - start };
  }
  const ready = getWorld();
  if (request.do === "settle") {
    rest = bringToRest(ready);
    logAtRest = ready.kernel.printk.nextSeq();
    return { kind: "settled", names: lockNames(ready.kernel) };
  }
  if (request.do === "finish") return { kind: "finished", fault: finish(ready) };
  ready.control.setState(THREAD_RUNNING);
  const reply: Reply =
    request.do === "run" ? run(ready, request) : { kind: "stressed", counts: runStress(ready, request.spec) };
  ready.control.setState(THREAD_IDLE);
  return reply;
}

parentPort?.on("message", (request: Request) => {
  answer(request)
    .catch((error: unknown): Reply => {
      // The others must not wait for this thread.
      world?.control.setStop(GIVE_UP);
      const text = error instanceof Error ? error : new Error(String(error));
      const message = text instanceof GivenUp ? "" : `CPU ${setup.cpu}: ${text.message}`;
      return { kind: "failed", message, stack: text.stack ?? "" };
    })
    .then((reply) => parentPort?.postMessage(reply));
});
