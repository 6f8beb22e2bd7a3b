/**
 * Priority inheritance: who holds what a more urgent task waits for runs as urgently as that task.
 *
 *      high (90) ──waits──▶ mutex A ──held by──▶ middle (50) ──waits──▶ mutex B ──held by──▶ low (10)
 *                                                 runs at 90                                 runs at 90
 *
 * Without it the time that `high` waits has no bound: any task between 10 and 90 may run instead of `low` for as long
 * as it likes, and `low` never comes to its unlock. With it the bound is the critical sections on the way.
 *
 * The graph needs three links, all in RAM: mutex → owner, task → mutex it is blocked on, task → mutexes it holds. Each
 * mutex keeps its waiters ordered by priority, so that what a task inherits is the greatest first waiter of the
 * mutexes it holds. A change (a waiter comes, leaves, or changes its own priority) is carried along the chain until
 * nothing changes any more; a chain is followed `maxLockDepth` steps at most.
 *
 * | mutex: offset | field     | width | meaning                                                                     |
 * |---------------|-----------|-------|-----------------------------------------------------------------------------|
 * | 0             | owner     | u32   | granule of the owner's task_struct; 0 free; OWNER_DEAD: it ended as owner    |
 * | 4             | flags     | u32   | MUTEX_NO_PI                                                                  |
 * | 8             | waiters   | 8     | list head; nodes are the wait nodes of task_structs                          |
 * | 16            | next held | u32   | granule of the mutex that the owner took before this one; 0 for none         |
 * | 20            | name      | u32   | lock class for lockdep; 0 when that is off                                   |
 * | 24            | released  | f64   | the owner's clock at the last unlock                                         |
 *
 *   PI-1  boost of a task = max priority of the first waiters of the mutexes it holds, 0 without any
 *   PI-2  waiters are in order of priority, equal ones in order of arrival
 *   PI-3  the links hold no cycle: a wait that would close one is refused before it begins
 *
 * Lock: none; nothing here yields. Context: any that may touch the tasks.
 * Real kernels: Linux kernel/locking/rtmutex.c (rt_mutex_adjust_prio_chain); Sha, Rajkumar, Lehoczky 1990.
 */

import type { Machine } from "./arch/machine.ts";
import { listAddTail, listDel, listFirst, listNext } from "./lib/list.ts";
import { KERN_WARNING, type Printk } from "./printk.ts";
import type { Scheduler } from "./sched.ts";
import type { Task, Tasks } from "./task.ts";
import { TASK_BLOCKED_ON, TASK_BOOST, TASK_HELD, TASK_PRIORITY, TASK_WAIT_NODE, taskComm } from "./task_struct.ts";
import { asPhys, fromGranule, NULL, type PhysAddr, toGranule } from "./types.ts";

export const MUTEX_OWNER = 0;
export const MUTEX_FLAGS = 4;
export const MUTEX_WAITERS = 8;
export const MUTEX_NEXT_HELD = 16;
export const MUTEX_CLASS = 20;
export const MUTEX_RELEASED = 24;
export const MUTEX_BYTES = 32;

/** Flag: waiters of this mutex lend its owner nothing. */
export const MUTEX_NO_PI = 1;
/** Owner word of a mutex whose owner ended without unlocking: taken for ever. */
export const OWNER_DEAD = 1;
/** Longest chain that is followed. */
export const MAX_LOCK_DEPTH = 1024;

export interface PiChain {
  /** The live owner of a mutex. */
  ownerOf(mutex: PhysAddr): Task | undefined;
  /** Puts a mutex on, or takes it off, the list of what a task holds. */
  addHeld(task: Task, mutex: PhysAddr): void;
  dropHeld(task: Task, mutex: PhysAddr): void;
  /** Begins, or ends, a task's wait for a mutex: place in the queue, link, what the owners inherit. */
  block(task: Task, mutex: PhysAddr): void;
  unblock(task: Task, mutex: PhysAddr): void;
  /** Makes PI-1 true for one task. */
  refresh(task: Task): void;
  /** Carries a changed priority of a waiting task along. */
  priorityChanged(task: Task): void;
  /** Would `task` wait for itself if it waited for `mutex`? */
  closesCycle(task: Task, mutex: PhysAddr): boolean;
  nrBoosts(): number;
  /** PI-1, PI-2 for one mutex: the first violation, or null. */
  check(mutex: PhysAddr): string | null;
}

export interface PiChainDeps {
  readonly machine: Machine;
  readonly printk: Printk;
  readonly tasks: Tasks;
  readonly scheduler: Scheduler;
  /** False: nobody inherits anything, so that the inversion can be seen. */
  readonly isInheriting: boolean;
  readonly maxLockDepth: number;
  /** u32 counter in RAM: how often a task was raised. */
  readonly nrBoosts: PhysAddr;
}

export function createPiChain(deps: PiChainDeps): PiChain {
  const { machine, printk, tasks, scheduler, isInheriting, maxLockDepth } = deps;
  const { port } = machine;

  const waitersOf = (mutex: PhysAddr): PhysAddr => asPhys(mutex + MUTEX_WAITERS);
  const priorityOf = (struct: number): number => port.ld32(struct + TASK_PRIORITY);
  const nodeOf = (task: Task): PhysAddr => asPhys(task.struct + TASK_WAIT_NODE);
  const blockedOn = (task: Task): PhysAddr => fromGranule(port.ld32(task.struct + TASK_BLOCKED_ON));
  const ownerOf = (mutex: PhysAddr): Task | undefined => {
    const owner = port.ld32(mutex + MUTEX_OWNER);
    return owner <= OWNER_DEAD ? undefined : tasks.at(fromGranule(owner));
  };

  /** PI-2. */
  const insert = (task: Task, mutex: PhysAddr): void => {
    const head = waitersOf(mutex);
    const priority = priorityOf(task.struct);
    let before = listNext(port, head);
    while (before !== head && priorityOf(before - TASK_WAIT_NODE) >= priority) before = listNext(port, before);
    listAddTail(port, nodeOf(task), before);
  };

  /** PI-1: what the waiters of a task's mutexes lend it. */
  const boostOf = (task: Task): number => {
    let boost = 0;
    for (let held = port.ld32(task.struct + TASK_HELD); held !== 0; ) {
      const mutex = fromGranule(held);
      const first = listFirst(port, waitersOf(mutex));
      const lends = first !== NULL && (port.ld32(mutex + MUTEX_FLAGS) & MUTEX_NO_PI) === 0;
      if (lends) boost = Math.max(boost, priorityOf(first - TASK_WAIT_NODE));
      held = port.ld32(mutex + MUTEX_NEXT_HELD);
    }
    return boost;
  };

  const refresh = (task: Task): void => {
    if (!isInheriting) return;
    const boost = boostOf(task);
    const before = port.ld32(task.struct + TASK_BOOST);
    if (boost === before) return;
    if (boost > before) port.st32(deps.nrBoosts, port.ld32(deps.nrBoosts) + 1);
    scheduler.setBoost(task, boost);
  };

  /**
   * The waiters of `mutex` have changed: so may what its owner inherits, and then the queue in which that one waits.
   */
  const propagate = (from: PhysAddr): void => {
    let mutex = from;
    for (let depth = 0; mutex !== NULL; depth++) {
      const owner = ownerOf(mutex);
      if (owner === undefined) return;
      if (depth >= maxLockDepth) {
        const who = `${taskComm(port, owner.struct)} (${owner.pid})`;
        printk(KERN_WARNING, `Maximum lock depth ${maxLockDepth} reached task: ${who}`);
        return;
      }
      const before = priorityOf(owner.struct);
      refresh(owner);
      if (priorityOf(owner.struct) === before) return;
      mutex = blockedOn(owner);
      if (mutex !== NULL) reposition(owner, mutex);
    }
  };

  const reposition = (task: Task, mutex: PhysAddr): void => {
    listDel(port, nodeOf(task));
    insert(task, mutex);
  };

  const priorityChanged = (task: Task): void => {
    const mutex = blockedOn(task);
    if (mutex === NULL) return;
    reposition(task, mutex);
    propagate(mutex);
  };
  scheduler.onPriorityChange(priorityChanged);

  return {
    ownerOf,
    addHeld(task, mutex) {
      port.st32(mutex + MUTEX_NEXT_HELD, port.ld32(task.struct + TASK_HELD));
      port.st32(task.struct + TASK_HELD, toGranule(mutex));
    },
    dropHeld(task, mutex) {
      let link = task.struct + TASK_HELD;
      while (port.ld32(link) !== 0 && fromGranule(port.ld32(link)) !== mutex) {
        link = fromGranule(port.ld32(link)) + MUTEX_NEXT_HELD;
      }
      port.st32(link, port.ld32(mutex + MUTEX_NEXT_HELD));
      port.st32(mutex + MUTEX_NEXT_HELD, 0);
    },
    block(task, mutex) {
      insert(task, mutex);
      port.st32(task.struct + TASK_BLOCKED_ON, toGranule(mutex));
      propagate(mutex);
    },
    unblock(task, mutex) {
      listDel(port, nodeOf(task));
      port.st32(task.struct + TASK_BLOCKED_ON, 0);
      propagate(mutex);
    },
    refresh,
    priorityChanged,
    closesCycle(task, mutex) {
      let owner = ownerOf(mutex);
      for (let depth = 0; owner !== undefined && depth <= maxLockDepth; depth++) {
        if (owner === task) return true;
        const next = blockedOn(owner);
        owner = next === NULL ? undefined : ownerOf(next);
      }
      return false;
    },
    nrBoosts: () => port.ld32(deps.nrBoosts),
    check(mutex) {
      const head = waitersOf(mutex);
      let last = Number.POSITIVE_INFINITY;
      for (let node = listNext(port, head); node !== head; node = listNext(port, node)) {
        const priority = priorityOf(node - TASK_WAIT_NODE);
        if (priority > last) return `PI-2: waiter of priority ${priority} behind one of ${last}`;
        last = priority;
      }
      const owner = ownerOf(mutex);
      if (owner === undefined || !isInheriting) return null;
      const boost = port.ld32(owner.struct + TASK_BOOST);
      return boost === boostOf(owner) ? null : `PI-1: task ${owner.pid} has boost ${boost}, not ${boostOf(owner)}`;
    },
  };
}
