/**
 * When caches give back what they do not need: by a work item, every 15 seconds of a machine that is awake.
 *
 * Reaping is housekeeping: it must not keep an idle machine from coming to rest, as a timer of its own would. So no
 * timer is armed; the exit of any interrupt (each CPU that runs a task has 250 a second) looks whether the time has
 * come and queues the work. Linux calls a timer with this property deferrable.
 *
 *   irq exit, 15 s since the last tick ended ─▶ queueWork ─▶ kworker: slab.reapTick (M6, M7, M8)
 */

import type { SlabSubsystem } from "../../mm/index.ts";
import type { Machine } from "../arch/machine.ts";
import type { Irqs } from "../irq.ts";
import type { PhysAddr } from "../types.ts";
import type { Workqueues } from "../workqueue.ts";

export interface SlabReapingDeps {
  readonly machine: Machine;
  readonly slab: SlabSubsystem;
  readonly irqs: Pick<Irqs, "onIrqExit">;
  readonly workqueues: Pick<Workqueues, "registerWorkFn" | "initWork" | "queueWork">;
  /** WORK_BYTES of static memory. */
  readonly work: PhysAddr;
}

export function scheduleReaping({ machine, slab, irqs, workqueues, work }: SlabReapingDeps): void {
  const { clock } = machine.harts;
  workqueues.initWork(
    work,
    workqueues.registerWorkFn(function* (task) {
      slab.reapTick(task.ctx);
    }),
  );
  slab.startReaping(clock[0] as number);
  irqs.onIrqExit((ctx) => {
    if ((clock[ctx.cpu] as number) >= slab.nextReap()) workqueues.queueWork(ctx, work);
  });
}
