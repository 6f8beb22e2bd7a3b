/**
 * The balloon's other half: free memory is reported to the host, unasked (mm/page_reporting.ts has the theory).
 *
 *   a large block becomes free ─▶ delayed work, 2 s ─▶ batches: first frames and orders in coherent memory ─▶ REPORT
 *
 * Only if the host offers it (FEATURES), and if free memory need not keep its content. What a batch looks like: one u32
 * a block, first frame · 16 + order.
 *
 * State: the delayed work, in the driver's struct. Context: process. Source: drivers/virtio/virtio_balloon.c
 * (VIRTIO_BALLOON_F_REPORTING).
 */

import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import type { Task } from "../kernel/task.ts";
import { type Context, type PhysAddr, PREEMPTED, type Sleeping } from "../kernel/types.ts";
import { PAGE_REPORTING_CAPACITY, type PageReporting, type ReportBlocks } from "../mm/index.ts";
import { BALLOON_ERRORS, BALLOON_REPORT } from "./balloon_device.ts";
import type { Platform } from "./driver.ts";
import { ALL_ONES, type Hardware } from "./hardware.ts";

/** How long free memory is left alone, as it may be wanted again: 2 s. */
const DELAY_CYCLES = 2 * CYCLES_PER_SECOND;
/** Of the array. */
export const REPORT_BYTES = PAGE_REPORTING_CAPACITY * 4;

export interface FreeReporting {
  /** From here on free memory is reported; first what is free now. */
  start(ctx: Context): void;
  /** Nothing is reported afterwards. */
  stop(task: Task): Sleeping<void>;
}

interface ReportingPlace {
  readonly device: Hardware;
  /** DELAYED_WORK_BYTES. */
  readonly work: PhysAddr;
  /** REPORT_BYTES that the device reads. */
  readonly array: PhysAddr;
  readonly pageReporting: PageReporting;
  /** So many frames were reported. */
  readonly count: (nrFrames: number) => void;
}

export function createFreeReporting(platform: Platform, place: ReportingPlace): FreeReporting {
  const { machine, contexts, workqueues } = platform;
  const { port, harts } = machine;
  const { device, work, array, pageReporting, count } = place;

  const report: ReportBlocks = (_ctx, frames, orders, nr) => {
    for (let i = 0; i < nr; i++) port.st32(array + i * 4, (frames[i] as number) * 16 + (orders[i] as number));
    device.registers.st32(BALLOON_REPORT, nr);
    // A host that is gone has not heard it (RPT-4).
    return device.registers.ld32(BALLOON_ERRORS) !== ALL_ONES;
  };

  function* reportAll({ ctx }: Task): Sleeping<void> {
    for (let from = 0; from >= 0; ) {
      const { next, nrFrames } = pageReporting.reportSome(ctx, from, report);
      count(nrFrames);
      from = next;
      yield PREEMPTED;
    }
  }
  workqueues.initDelayedWork(work, workqueues.registerWorkFn(reportAll));

  return {
    start(ctx) {
      const later = (c: Context): void => {
        workqueues.queueDelayedWork(c, work, DELAY_CYCLES);
      };
      pageReporting.onFree(() => later(contexts.taskContext(harts.current[0] as number)));
      later(ctx);
    },
    *stop(task) {
      pageReporting.onFree(null);
      yield* workqueues.cancelWorkSync(task, work);
    },
  };
}
