/**
 * khugepaged: the thread that makes huge pages of small ones after the fact.
 *
 *   a fault that could not be huge ─▶ there is work ─▶ irq exit, scan_sleep_millisecs since the last scan ─▶ it scans
 *
 * As kcompactd it has no timer of its own and is made when it is first needed: an idle machine comes to rest. A scan
 * looks at pages_to_scan pages, one range of 2 MiB after the other, and lets others run between two ranges.
 *
 * Source: mm/khugepaged.c.
 */

import type { Thp } from "../../mm/index.ts";
import type { Machine } from "../arch/machine.ts";
import type { Irqs } from "../irq.ts";
import type { Kthreads } from "../kthread.ts";
import type { Task } from "../task.ts";
import { type PhysAddr, PREEMPTED, type Sleeping } from "../types.ts";
import type { WaitQueues } from "../wait.ts";

export interface KhugepagedDeps {
  readonly machine: Machine;
  readonly thp: Thp;
  readonly irqs: Pick<Irqs, "onIrqExit">;
  readonly waits: WaitQueues;
  readonly kthreads: Pick<Kthreads, "request">;
  /** A queue head of static memory. */
  readonly queue: PhysAddr;
}

export function startKhugepaged({ machine, thp, irqs, waits, kthreads, queue }: KhugepagedDeps): void {
  const { clock } = machine.harts;
  const { scanner } = thp;
  let isMade = false;
  waits.init(queue);

  function* main(task: Task): Sleeping<void> {
    for (;;) {
      yield* waits.waitEvent(queue, task, scanner.isDue);
      while (scanner.scanStep(task.ctx)) yield PREEMPTED;
    }
  }

  irqs.onIrqExit((ctx) => {
    if (!scanner.lookAround(clock[ctx.cpu] as number)) return;
    if (isMade) waits.wakeUp(queue);
    else kthreads.request({ comm: "khugepaged", body: main }, () => {});
    isMade = true;
  });
}
