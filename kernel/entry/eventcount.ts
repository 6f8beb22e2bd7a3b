/**
 * Eventcounts: a number that only grows, and tasks that sleep until it has grown enough.
 *
 *   await(fd, 42)  ── sleeps while count < 42 ──┐
 *   advance(fd, 42) ── count = 42 ───────────────┴─▶ wakes all who wait; each looks again
 *
 * The oldest way to put the steps of several processes into one order: whoever does step n awaits n before it and
 * advances to n + 1 behind it. An eventcount is a file without a name; fork hands it on, and it survives execve.
 *
 *   EVC-1  the count never falls; nobody returns from await(n) with 0 while count < n
 *   EVC-2  the object (queue head and count, 16 bytes of kmalloc) lives as long as a descriptor of it
 *
 * Source: Reed and Kanodia, "Synchronization with Eventcounts and Sequencers", CACM 1979.
 */

import type { Machine } from "../arch/machine.ts";
import { holding, type OpenFile } from "../file.ts";
import type { Task } from "../task.ts";
import { asPhys, type MaySleep, NULL, type PhysAddr, type Sleeping, type TaskContext } from "../types.ts";
import { EBADF, EINVAL, ENOMEM, ETIMEDOUT } from "../uapi/errno.ts";
import type { WaitQueues } from "../wait.ts";
import type { ReplayHeap } from "./kernel_replay.ts";

const COUNT = 8;
const OBJECT_BYTES = 16;

export interface Eventcounts {
  /** A new one that stands at 0, as a file with one reference; −ENOMEM. */
  create(ctx: TaskContext): OpenFile | number;
  /**
   * Sleeps until the count is `value` or more: 0, −EBADF for another file, −ETIMEDOUT after `cycles` (0: never).
   */
  awaitValue(task: Task, file: OpenFile | undefined, value: number, cycles: number): MaySleep<number>;
  /** Raises the count to `value`, if it is lower: 0, −EBADF. */
  advance(file: OpenFile | undefined, value: number): number;
}

export interface EventcountDeps {
  readonly machine: Machine;
  readonly waits: WaitQueues;
  readonly heap: Pick<ReplayHeap, "kmalloc" | "kfree">;
  readonly gfp: number;
  /** Context of whoever runs at this moment. */
  readonly context: () => TaskContext;
}

function* notReadable(): Sleeping<number> {
  return -EINVAL;
}

export function createEventcounts({ machine, waits, heap, gfp, context }: EventcountDeps): Eventcounts {
  const { port, harts } = machine;
  const objects = new WeakMap<OpenFile, PhysAddr>();

  function* sleepUntil(task: Task, object: PhysAddr, value: number, cycles: number): Sleeping<number> {
    const isReached = (): boolean => port.ldF64(object + COUNT) >= value;
    if (cycles === 0) {
      yield* waits.waitEvent(object, task, isReached);
      return 0;
    }
    const until = (harts.clock[task.ctx.cpu] as number) + cycles;
    return (yield* waits.waitEventTimeout(object, task, isReached, until)) ? 0 : -ETIMEDOUT;
  }

  return {
    create(ctx) {
      const object = asPhys(heap.kmalloc(ctx, OBJECT_BYTES, gfp));
      if (object === NULL) return -ENOMEM;
      waits.init(object);
      port.stF64(object + COUNT, 0);
      const file: OpenFile = {
        refs: 1,
        isConsole: false,
        read: notReadable,
        write: notReadable,
        seek: () => -EINVAL,
        release: () => heap.kfree(context(), object),
      };
      objects.set(file, object);
      return file;
    },
    awaitValue(task, file, value, cycles) {
      const object = file === undefined ? undefined : objects.get(file);
      if (object === undefined) return -EBADF;
      if (cycles < 0) return -EINVAL;
      if (port.ldF64(object + COUNT) >= value) return 0;
      return holding(file as OpenFile, () => sleepUntil(task, object, value, cycles));
    },
    advance(file, value) {
      const object = file === undefined ? undefined : objects.get(file);
      if (object === undefined) return -EBADF;
      if (value <= port.ldF64(object + COUNT)) return 0;
      port.stF64(object + COUNT, value);
      waits.wakeUp(object);
      return 0;
    },
  };
}
