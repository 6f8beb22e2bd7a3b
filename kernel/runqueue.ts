/**
 * Runqueues: the runnable tasks of each CPU, in the order in which they are to run.
 *
 *   per-CPU area:  | rt root u32 | fair root u32 | nr_running u32 | inactive u32 | min_vruntime f64 |
 *
 * Two red-black trees through the same node of task_struct: SCHED_FIFO by priority, highest first; the others by the
 * virtual time they have run, least first. A CPU that is going offline is inactive: what is queued is moved away by the
 * scheduler, and nothing comes (SCH-6).
 *
 * Invariants SCH-1, SCH-2, SCH-3 and SCH-6 of sched.ts are about these. Lock: the scheduler's, interrupts are off.
 */

import type { Machine } from "./arch/machine.ts";
import { createRbTree } from "./lib/rbtree.ts";
import type { PerCpu } from "./percpu.ts";
import {
  PF_NO_SETAFFINITY,
  SCHED_FIFO,
  TASK_CPU,
  TASK_FLAGS,
  TASK_ON_QUEUE,
  TASK_POLICY,
  TASK_PRIORITY,
  TASK_READY_TIME,
  TASK_RUNNING,
  TASK_STATE,
  TASK_VRUNTIME,
} from "./task_struct.ts";
import { asPhys, NULL, type PhysAddr } from "./types.ts";

const RQ_RT_ROOT = 0;
const RQ_FAIR_ROOT = 4;
const RQ_NR_RUNNING = 8;
const RQ_INACTIVE = 12;
const RQ_MIN_VRUNTIME = 16;
const RQ_BYTES = 24;

export interface Runqueues {
  enqueue(struct: PhysAddr, cpu: number): void;
  dequeue(struct: PhysAddr, cpu: number): void;
  /** The task that would run next on a CPU, or NULL. */
  peek(cpu: number): PhysAddr;
  /**
   * The task to run at `now`: the first one that was ready by then. A CPU that is behind the one that woke a task
   * leaves it waiting; if all are such, the one that is ready first.
   */
  pick(cpu: number, now: number): PhysAddr;
  /** The same as peek among those that may leave their CPU. */
  peekMovable(cpu: number): PhysAddr;
  /** Priority of the most urgent real-time task that waits; 0 without one. */
  urgency(cpu: number): number;
  nrRunning(cpu: number): number;
  /** Whether tasks may be on a CPU: it is online and not about to go. */
  isUsable(cpu: number): boolean;
  setInactive(cpu: number, isInactive: boolean): void;
  /** Virtual run times of two queues do not compare: a task keeps its distance from the queue's minimum. */
  moveVruntime(struct: PhysAddr, from: number, to: number): void;
  /** Books `cycles` on a task that is on no queue, and lets the minimum of its CPU follow (SCH-3). */
  addVruntime(struct: PhysAddr, cpu: number, cycles: number): void;
  check(cpu: number): string | null;
}

type StructTest = (struct: PhysAddr) => boolean;

/** Reserves the queues' place in the per-CPU areas; they can be used once the areas are laid out. */
export function createRunqueues(machine: Machine, percpu: PerCpu): Runqueues {
  const { port, harts } = machine;
  const { online } = harts;
  const RQ = percpu.define("runqueue", RQ_BYTES, 8);
  const rqOf = (cpu: number): PhysAddr => asPhys(percpu.areaOf(cpu) + RQ);
  const vruntime = (struct: PhysAddr): number => port.ldF64(struct + TASK_VRUNTIME);
  const readyTime = (struct: PhysAddr): number => port.ldF64(struct + TASK_READY_TIME);
  const fair = createRbTree(port, { less: (a, b) => vruntime(a) < vruntime(b) });
  const realTime = createRbTree(port, { less: (a, b) => port.ld32(a + TASK_PRIORITY) > port.ld32(b + TASK_PRIORITY) });
  const TREES = [
    [realTime, RQ_RT_ROOT],
    [fair, RQ_FAIR_ROOT],
  ] as const;
  const isRealTime: StructTest = (struct) => port.ld32(struct + TASK_POLICY) === SCHED_FIFO;
  const isPinned: StructTest = (struct) => (port.ld32(struct + TASK_FLAGS) & PF_NO_SETAFFINITY) !== 0;
  const nrRunning = (cpu: number): number => port.ld32(rqOf(cpu) + RQ_NR_RUNNING);
  const isUsable = (cpu: number): boolean => online[cpu] === 1 && port.ld32(rqOf(cpu) + RQ_INACTIVE) === 0;
  const peek = (cpu: number): PhysAddr => {
    const urgent = realTime.first(asPhys(rqOf(cpu) + RQ_RT_ROOT));
    return urgent !== NULL ? urgent : fair.first(asPhys(rqOf(cpu) + RQ_FAIR_ROOT));
  };

  return {
    enqueue(struct, cpu) {
      const rq = rqOf(cpu);
      if (isRealTime(struct)) realTime.insert(asPhys(rq + RQ_RT_ROOT), struct);
      else {
        port.stF64(struct + TASK_VRUNTIME, Math.max(vruntime(struct), port.ldF64(rq + RQ_MIN_VRUNTIME)));
        fair.insert(asPhys(rq + RQ_FAIR_ROOT), struct);
      }
      port.st32(struct + TASK_ON_QUEUE, 1);
      port.st32(struct + TASK_CPU, cpu);
      port.st32(rq + RQ_NR_RUNNING, port.ld32(rq + RQ_NR_RUNNING) + 1);
    },
    dequeue(struct, cpu) {
      const rq = rqOf(cpu);
      if (isRealTime(struct)) realTime.erase(asPhys(rq + RQ_RT_ROOT), struct);
      else fair.erase(asPhys(rq + RQ_FAIR_ROOT), struct);
      port.st32(struct + TASK_ON_QUEUE, 0);
      port.st32(rq + RQ_NR_RUNNING, port.ld32(rq + RQ_NR_RUNNING) - 1);
    },
    peek,
    pick(cpu, now) {
      let soonest: PhysAddr = NULL;
      for (const [queue, root] of TREES) {
        for (let node = queue.first(asPhys(rqOf(cpu) + root)); node !== NULL; node = queue.next(node)) {
          if (readyTime(node) <= now) return node;
          if (soonest === NULL || readyTime(node) < readyTime(soonest)) soonest = node;
        }
      }
      return soonest;
    },
    peekMovable(cpu) {
      for (const [queue, root] of TREES) {
        let struct = queue.first(asPhys(rqOf(cpu) + root));
        while (struct !== NULL && isPinned(struct)) struct = queue.next(struct);
        if (struct !== NULL) return struct;
      }
      return NULL;
    },
    urgency(cpu) {
      const first = realTime.first(asPhys(rqOf(cpu) + RQ_RT_ROOT));
      return first === NULL ? 0 : port.ld32(first + TASK_PRIORITY);
    },
    nrRunning,
    isUsable,
    setInactive: (cpu, isInactive) => port.st32(rqOf(cpu) + RQ_INACTIVE, isInactive ? 1 : 0),
    moveVruntime(struct, from, to) {
      const lag = vruntime(struct) - port.ldF64(rqOf(from) + RQ_MIN_VRUNTIME);
      port.stF64(struct + TASK_VRUNTIME, Math.max(0, port.ldF64(rqOf(to) + RQ_MIN_VRUNTIME) + lag));
    },
    addVruntime(struct, cpu, cycles) {
      port.stF64(struct + TASK_VRUNTIME, vruntime(struct) + cycles);
      if (isRealTime(struct)) return;
      const rq = rqOf(cpu);
      const first = fair.first(asPhys(rq + RQ_FAIR_ROOT));
      const least = first === NULL ? vruntime(struct) : Math.min(vruntime(struct), vruntime(first));
      port.stF64(rq + RQ_MIN_VRUNTIME, Math.max(port.ldF64(rq + RQ_MIN_VRUNTIME), least));
    },
    check(cpu) {
      const rq = rqOf(cpu);
      if (!isUsable(cpu) && nrRunning(cpu) !== 0) return `SCH-6: CPU ${cpu} is offline and queues tasks`;
      let nr = 0;
      for (const [queue, root] of TREES) {
        const broken = queue.check(asPhys(rq + root));
        if (broken !== null) return `runqueue ${cpu}: ${broken}`;
        for (let node = queue.first(asPhys(rq + root)); node !== NULL; node = queue.next(node)) {
          if (port.ld32(node + TASK_STATE) !== TASK_RUNNING) return `SCH-1: queued task at ${node} is not runnable`;
          if (port.ld32(node + TASK_CPU) !== cpu) return `SCH-1: task at ${node} is on the queue of another CPU`;
          nr++;
        }
      }
      return nr === nrRunning(cpu) ? null : `SCH-2: CPU ${cpu} queues ${nr} tasks, nr_running ${nrRunning(cpu)}`;
    },
  };
}
