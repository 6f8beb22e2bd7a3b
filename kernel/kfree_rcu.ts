/**
 * kfree_rcu: frees an object after a grace period, without a function of the owner's.
 *
 * The object brings an rcu_head of 8 bytes; while it waits, the second word of it holds its offset in the object. A
 * CPU has two lists: what is being collected, and the batch that waits for a grace period, with one rcu_head for all.
 * While a batch waits, everything else is collected; when it is freed, the collection becomes the next batch. So any
 * number of objects costs one callback per grace period.
 *
 *      kfreeRcu ─▶ collecting ──(no batch waits)──▶ batch ──grace period──▶ kfree each, next batch
 *
 *   KFR-1  an object is freed once, after every read section that was open at its kfreeRcu has ended
 *   KFR-2  objects collected ≠ ∅ ⇒ a batch waits (something will come back for them)
 *   KFR-3  count of a CPU = objects on its two lists
 *
 * Locks: none; lists are touched with interrupts off. Source: Linux `kernel/rcu/tree.c` (kvfree_rcu), which collects
 * pointers in pages and waits up to 5 s for a batch to fill.
 */

import type { MemoryPort } from "./arch/port.ts";
import { bugOn } from "./bug.ts";
import type { ContextTracking } from "./context.ts";
import type { PerCpu } from "./percpu.ts";
import type { Rcu } from "./rcu.ts";
import type { Task } from "./task.ts";
import { asPhys, type Context, fromGranule, NULL, type PhysAddr, type Sleeping, toGranule } from "./types.ts";

const COLLECTING = 0;
const BATCH = 4;
/** rcu_head of the batch. */
const HEAD = 8;
const COUNT = 16;
const IS_WAITING = 20;
const KFREE_RCU_BYTES = 24;

const HEAD_NEXT = 0;
const HEAD_OFFSET = 4;

export interface KfreeRcu {
  /** Frees `obj`, a kmalloc or slab object whose rcu_head is at `headOffset` (a multiple of 8). Any context but NMI. */
  kfreeRcu(ctx: Context, obj: PhysAddr, headOffset: number): void;
  /** Sleeps until everything given to kfreeRcu before is freed. */
  kfreeRcuBarrier(task: Task): Sleeping<void>;
  /** Objects that wait on a CPU. */
  nrObjects(cpu: number): number;
  /** Moves what is collected on an offline CPU to this one; a batch that waits is called by whoever adopted it. */
  adopt(ctx: Context, cpu: number): void;
  check(): string | null;
}

export interface KfreeRcuDeps {
  readonly port: MemoryPort;
  readonly nrCpus: number;
  readonly contexts: ContextTracking;
  readonly rcu: Rcu;
  /** 0, or −errno after a report. */
  readonly kfree: (ctx: Context, obj: PhysAddr) => number;
}

/** Reserves the lists; the result makes the subsystem once there are RCU and kfree. */
export function createKfreeRcu(percpu: PerCpu): (deps: KfreeRcuDeps) => KfreeRcu {
  const DATA = percpu.define("kfree_rcu", KFREE_RCU_BYTES, 8);
  return (deps) => bindKfreeRcu(deps, (cpu) => asPhys(percpu.areaOf(cpu) + DATA));
}

function bindKfreeRcu(deps: KfreeRcuDeps, dataOf: (cpu: number) => PhysAddr): KfreeRcu {
  const { port, nrCpus, contexts, rcu, kfree } = deps;

  const add = (addr: number, delta: number): void => port.st32(addr, port.ld32(addr) + delta);

  /** What is collected becomes the batch that waits. Interrupts off. */
  const startBatch = (ctx: Context, data: PhysAddr): void => {
    port.st32(data + BATCH, port.ld32(data + COLLECTING));
    port.st32(data + COLLECTING, 0);
    port.st32(data + IS_WAITING, 1);
    rcu.callRcu(ctx, asPhys(data + HEAD), freeFn);
  };

  const freeFn = rcu.registerRcuFn((ctx, head) => {
    const data = asPhys(head - HEAD);
    let next = fromGranule(port.ld32(data + BATCH));
    port.st32(data + BATCH, 0);
    while (next !== NULL) {
      const obj = asPhys(next - port.ld32(next + HEAD_OFFSET));
      next = fromGranule(port.ld32(next + HEAD_NEXT));
      add(data + COUNT, -1);
      kfree(ctx, obj);
    }
    const flags = contexts.localIrqSave(ctx);
    port.st32(data + IS_WAITING, 0);
    if (port.ld32(data + COLLECTING) !== 0) startBatch(ctx, data);
    contexts.localIrqRestore(ctx, flags);
  });

  const collect = (ctx: Context, data: PhysAddr, head: PhysAddr, headOffset: number): void => {
    const flags = contexts.localIrqSave(ctx);
    port.st32(head + HEAD_NEXT, port.ld32(data + COLLECTING));
    port.st32(head + HEAD_OFFSET, headOffset);
    port.st32(data + COLLECTING, toGranule(head));
    add(data + COUNT, 1);
    if (port.ld32(data + IS_WAITING) === 0) startBatch(ctx, data);
    contexts.localIrqRestore(ctx, flags);
  };

  const nrObjects = (cpu: number): number => port.ld32(dataOf(cpu) + COUNT);
  const nrWaiting = (): number => {
    let nr = 0;
    for (let cpu = 0; cpu < nrCpus; cpu++) nr += nrObjects(cpu);
    return nr;
  };

  const length = (list: number, limit: number): number => {
    let nr = 0;
    for (let at = port.ld32(list); at !== 0 && nr <= limit; at = port.ld32(fromGranule(at) + HEAD_NEXT)) nr++;
    return nr;
  };

  return {
    kfreeRcu(ctx, obj, headOffset) {
      bugOn(headOffset % 8 !== 0 || headOffset < 0, "kfree_rcu: the head is not aligned", obj, headOffset);
      collect(ctx, dataOf(ctx.cpu), asPhys(obj + headOffset), headOffset);
    },
    *kfreeRcuBarrier(task) {
      // One barrier for the batch that waits, one for what was being collected meanwhile.
      for (let round = 0; round < 2 && nrWaiting() !== 0; round++) yield* rcu.rcuBarrier(task);
    },
    nrObjects,
    adopt(ctx, cpu) {
      const data = dataOf(cpu);
      for (let at = fromGranule(port.ld32(data + COLLECTING)); at !== NULL; ) {
        const next = fromGranule(port.ld32(at + HEAD_NEXT));
        add(data + COUNT, -1);
        collect(ctx, dataOf(ctx.cpu), at, port.ld32(at + HEAD_OFFSET));
        at = next;
      }
      port.st32(data + COLLECTING, 0);
    },
    check() {
      for (let cpu = 0; cpu < nrCpus; cpu++) {
        const [data, count] = [dataOf(cpu), nrObjects(cpu)];
        const nr = length(data + COLLECTING, count) + length(data + BATCH, count);
        if (nr !== count) return `KFR-3: CPU ${cpu} has ${nr} objects, ${count} counted`;
        if (port.ld32(data + COLLECTING) !== 0 && port.ld32(data + IS_WAITING) === 0) return `KFR-2: CPU ${cpu}`;
      }
      return null;
    },
  };
}
