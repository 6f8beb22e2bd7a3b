/**
 * Where a runnable task goes: the CPU it wakes on, what it interrupts there, and what an idle CPU pulls.
 *
 * A fair task goes to the least busy CPU, its last one if that is as good: caches are warm there. A real-time task goes
 * where it can run soonest: nothing as urgent is there, and the local clock is least beyond now. A task that is bound
 * to a CPU stays at home. A CPU without work pulls the task that would run next from the busiest queue.
 *
 * The rules are those of sched.ts (SCH-4 … SCH-6); the arrays of who runs where and until when are shared with it.
 */

import { CYC_IPI } from "./arch/charges.ts";
import { IRQ_RESCHEDULE } from "./arch/irqchip.ts";
import type { Machine } from "./arch/machine.ts";
import type { ContextTracking } from "./context.ts";
import type { RbTree } from "./lib/rbtree.ts";
import type { Runqueues } from "./runqueue.ts";
import type { Task, Tasks } from "./task.ts";
import {
  PF_NO_SETAFFINITY,
  SCHED_FIFO,
  TASK_BASE_POLICY,
  TASK_BASE_PRIORITY,
  TASK_BOOST,
  TASK_CPU,
  TASK_FLAGS,
  TASK_HOME,
  TASK_ON_QUEUE,
  TASK_POLICY,
  TASK_PRIORITY,
  TASK_READY_TIME,
  TASK_RUNNING,
  TASK_STATE,
  TASK_WAKE_TIME,
} from "./task_struct.ts";
import type { PhysAddr } from "./types.ts";

export interface Seats {
  /** The task that executes on each CPU; undefined while its scheduler or idle loop does. */
  readonly running: (Task | undefined)[];
  /** The local time at which each CPU's slice ends. */
  readonly horizon: Float64Array;
  /** Tasks that sleep until a moment, and the root of that tree. */
  readonly byWakeTime: RbTree;
  readonly sleepers: PhysAddr;
}

export interface Placement {
  /** Queues a task that is runnable from now on; one that sleeps until a moment leaves the tree of sleepers. */
  wake(task: Task): void;
  /** Puts a task that is on no queue on the one of `cpu`, and tells that CPU. */
  place(task: Task, cpu: number, now: number): void;
  /** Makes the higher of the set and the inherited priority count, wherever the task is (SCH-5). */
  applyPriority(task: Task): void;
  /** The next task of `cpu`'s queue ends the slice that runs there, if it is more urgent. */
  preemptIfLower(struct: PhysAddr, cpu: number): void;
  /** Gives an idle CPU the next task of the busiest queue that has more than it can run. */
  pull(cpu: number): void;
  leastBusyCpu(last: number): number;
  /** Tasks that run or wait on a CPU. */
  loadOf(cpu: number): number;
}

export function createPlacement(
  machine: Machine,
  contexts: ContextTracking,
  tasks: Tasks,
  runqueues: Runqueues,
  { running, horizon, byWakeTime, sleepers }: Seats,
): Placement {
  const { port, irqChip, harts } = machine;
  const { clock, irqOn, current, nrCpus } = harts;
  const { enqueue, dequeue, peekMovable, urgency, isUsable, moveVruntime } = runqueues;
  const nrRunningOf = runqueues.nrRunning;

  const isRealTime = (struct: PhysAddr): boolean => port.ld32(struct + TASK_POLICY) === SCHED_FIFO;
  const isPinned = (struct: PhysAddr): boolean => (port.ld32(struct + TASK_FLAGS) & PF_NO_SETAFFINITY) !== 0;

  const leastBusyCpu = (last: number): number => {
    let best = isUsable(last) ? last : 0;
    for (let cpu = 0; cpu < nrCpus; cpu++) {
      if (isUsable(cpu) && loadOf(cpu) < loadOf(best)) best = cpu;
    }
    return best;
  };
  const loadOf = (cpu: number): number => nrRunningOf(cpu) + (running[cpu] === undefined ? 0 : 1);

  /** Interrupts are off: a handler wakes tasks too. They come back without a checkpoint, what is pending stays so. */
  const withIrqsOff = (act: (task: Task) => void, task: Task): void => {
    const cpu = current[0] as number;
    const flags = irqOn[cpu] as number;
    irqOn[cpu] = 0;
    act(task);
    irqOn[cpu] = flags;
  };
  const wake = (task: Task): void => withIrqsOff(wakeLocked, task);

  const wakeLocked = (task: Task): void => {
    const { struct } = task;
    if (port.ldF64(struct + TASK_WAKE_TIME) !== 0) {
      byWakeTime.erase(sleepers, struct);
      port.stF64(struct + TASK_WAKE_TIME, 0);
    }
    if (port.ld32(struct + TASK_ON_QUEUE) === 1 || running[port.ld32(struct + TASK_CPU)] === task) {
      port.st32(struct + TASK_STATE, TASK_RUNNING);
      return;
    }
    const now = clock[current[0] as number] as number;
    port.st32(struct + TASK_STATE, TASK_RUNNING);
    const last = port.ld32(struct + TASK_CPU);
    const home = port.ld32(struct + TASK_HOME);
    const isHeld = isPinned(struct) && isUsable(home);
    place(task, isHeld ? home : isRealTime(struct) ? soonestCpu(struct, last, now) : leastBusyCpu(last), now);
  };

  /** Puts a task that is on no queue on the one of `cpu`, and tells that CPU. */
  const place = (task: Task, cpu: number, now: number): void => {
    const { struct } = task;
    const last = port.ld32(struct + TASK_CPU);
    const wasIdle = loadOf(cpu) === 0;
    // An idle CPU's clock stood still; it cannot run the task before the moment it was woken (SCH-4).
    if (wasIdle) clock[cpu] = Math.max(clock[cpu] as number, now);
    if (last !== cpu) moveVruntime(struct, last, cpu);
    port.stF64(struct + TASK_READY_TIME, now);
    enqueue(struct, cpu);
    const self = current[0] as number;
    if (cpu === self) preemptIfLower(struct, cpu);
    else if (wasIdle || isRealTime(struct)) {
      clock[self] = (clock[self] as number) + CYC_IPI;
      irqChip.raise(cpu, IRQ_RESCHEDULE);
    }
  };

  /** Highest real-time priority that runs or waits on a CPU; 0 if only fair tasks do. */
  const rankOf = (cpu: number): number => {
    const now = running[cpu];
    const isUrgent = now !== undefined && isRealTime(now.struct);
    return isUrgent ? Math.max(urgency(cpu), port.ld32(now.struct + TASK_PRIORITY)) : urgency(cpu);
  };

  /** Where a real-time task runs soonest: nothing as urgent is there, and the clock is least beyond now. */
  const soonestCpu = (struct: PhysAddr, last: number, now: number): number => {
    const priority = port.ld32(struct + TASK_PRIORITY);
    let best = -1;
    let soonest = Number.POSITIVE_INFINITY;
    for (let cpu = 0; cpu < nrCpus; cpu++) {
      if (!isUsable(cpu) || rankOf(cpu) >= priority) continue;
      const start = loadOf(cpu) === 0 ? now : Math.max(now, clock[cpu] as number);
      if (start > soonest || (start === soonest && cpu !== last)) continue;
      best = cpu;
      soonest = start;
    }
    return best >= 0 ? best : leastBusyCpu(last);
  };

  /** A task of a higher priority than the running one: that one yields at its next look at the time. */
  const preemptIfLower = (struct: PhysAddr, cpu: number): void => {
    const now = running[cpu];
    if (now === undefined || port.ld32(struct + TASK_PRIORITY) <= port.ld32(now.struct + TASK_PRIORITY)) return;
    horizon[cpu] = 0;
    contexts.setNeedResched(cpu, true);
  };

  /** Makes the higher of the set and the inherited priority count, wherever the task is. */
  const applyPriority = (task: Task): void => withIrqsOff(applyPriorityLocked, task);
  const applyPriorityLocked = (task: Task): void => {
    const { struct } = task;
    const boost = port.ld32(struct + TASK_BOOST);
    const isBoosted = boost > port.ld32(struct + TASK_BASE_PRIORITY);
    const policy = isBoosted ? SCHED_FIFO : port.ld32(struct + TASK_BASE_POLICY);
    const priority = isBoosted ? boost : port.ld32(struct + TASK_BASE_PRIORITY);
    if (policy === port.ld32(struct + TASK_POLICY) && priority === port.ld32(struct + TASK_PRIORITY)) return;
    const cpu = port.ld32(struct + TASK_CPU);
    const wasQueued = port.ld32(struct + TASK_ON_QUEUE) === 1;
    if (wasQueued) dequeue(struct, cpu);
    port.st32(struct + TASK_POLICY, policy);
    port.st32(struct + TASK_PRIORITY, priority);
    if (wasQueued) {
      enqueue(task.struct, cpu);
      preemptIfLower(struct, cpu);
    } else if (running[cpu] === task && isOutranked(struct, cpu)) horizon[cpu] = 0;
  };
  const isOutranked = (struct: PhysAddr, cpu: number): boolean => urgency(cpu) > port.ld32(struct + TASK_PRIORITY);

  /** Gives an idle CPU the next task of the busiest queue that has more than it can run. */
  const pull = (cpu: number): void => {
    let busiest = -1;
    for (let other = 0; other < nrCpus; other++) {
      if (other !== cpu && nrRunningOf(other) > (busiest < 0 ? 1 : nrRunningOf(busiest))) busiest = other;
    }
    if (busiest < 0) return;
    const struct = peekMovable(busiest);
    const task = tasks.at(struct);
    if (task === undefined) return;
    dequeue(struct, busiest);
    moveVruntime(struct, busiest, cpu);
    clock[cpu] = Math.max(clock[cpu] as number, clock[busiest] as number);
    enqueue(task.struct, cpu);
  };

  return { wake, place, applyPriority, preemptIfLower, pull, leastBusyCpu, loadOf };
}
