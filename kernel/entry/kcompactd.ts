/**
 * kcompactd: the thread that compacts for those who cannot wait, and before anybody asks.
 *
 *   a request that may not wait fails ─▶ wakeDaemon ─┐
 *   irq exit, half a second since the last look,     ├─▶ wakes kcompactd0 ─▶ compaction.ts
 *     and free memory is in pieces ──────────────────┘
 *
 * The look every half second has no timer of its own, as reaping has none (slab_reaping.ts): an idle machine comes to
 * rest. The thread is made when it is first needed.
 *
 * Source: mm/compaction.c (kcompactd).
 */

import type { Compaction } from "../../mm/index.ts";
import type { Machine } from "../arch/machine.ts";
import type { Irqs } from "../irq.ts";
import type { Kthreads } from "../kthread.ts";
import type { Task } from "../task.ts";
import type { PhysAddr, Sleeping } from "../types.ts";
import type { WaitQueues } from "../wait.ts";

export interface KcompactdDeps {
  readonly machine: Machine;
  readonly compaction: Compaction;
  readonly irqs: Pick<Irqs, "onIrqExit">;
  readonly waits: WaitQueues;
  readonly kthreads: Pick<Kthreads, "request">;
  /** A queue head of static memory. */
  readonly queue: PhysAddr;
}

export function startKcompactd({ machine, compaction, irqs, waits, kthreads, queue }: KcompactdDeps): void {
  const { clock } = machine.harts;
  let isMade = false;
  waits.init(queue);

  function* main(task: Task): Sleeping<void> {
    for (;;) {
      yield* waits.waitEvent(queue, task, compaction.hasWork);
      compaction.serveDaemon(task.ctx);
    }
  }

  compaction.onWanted(() => {
    if (isMade) waits.wakeUp(queue);
    else kthreads.request({ comm: "kcompactd0", body: main }, () => {});
    isMade = true;
  });
  irqs.onIrqExit((ctx) => compaction.lookAround(clock[ctx.cpu] as number));
}
