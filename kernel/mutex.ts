/**
 * Mutexes: a lock that a task may sleep for, and sleep with.
 *
 *   yield* mutexes.lock(task, m);
 *   try { … may sleep … } finally { mutexes.unlock(task, m); }
 *
 * 1. Free: one compare-and-swap of the owner word, 25 cycles. The word names the owner, so that a second lock by the
 *    same task, an unlock by another one and an owner that ends can be told at once.
 *
 * 2. Taken, and the owner runs on another CPU at this moment: it will soon be done, and sleeping costs two context
 *    switches. The waiter polls, up to MAX_SPIN_CYCLES of its own time, as long as nobody else could use its CPU. CPUs
 *    are executed one after the other, so the moment of the unlock can lie ahead of the waiter's clock: the mutex
 *    remembers it, and the waiter's clock is brought forward to it. Had it polled that long, the poll counts; had it
 *    given up before, it is charged the two switches and counted as a sleeper.
 *
 * 3. Else it sleeps, in a queue ordered by priority. The unlock hands the mutex to the first waiter, which owns it
 *    before it runs: nobody overtakes, and no waiter starves. Waiters lend the owner their priority (pi_chain.ts),
 *    unless the kernel was booted with `pi=off` or the mutex has MUTEX_NO_PI.
 *
 * 4. A fatal signal unwinds a waiter. It leaves the queue and takes its loan back; if the mutex was handed to it in the
 *    meantime, it hands it on. A task that is unwound while it *holds* one must have its unlock in a `finally`.
 *
 *   MTX-1  the word names the one task that may unlock; with waiters it is never 0
 *   MTX-2  a waiter gets the mutex before every later waiter of the same or a lower priority
 *   MTX-3  a task that is unwound leaves nothing of itself behind: no place in a queue, no loan, no hand-off lost
 *   MTX-4  a wait that could never end (recursion, a cycle of owners) is reported and refused; the machine goes on
 *   MTX-5  misuse changes nothing: unlock by another task, unlock when free, use in an interrupt
 *   MTX-6  a task that ends as owner is reported; the mutex stays taken
 *
 * Texts: MUTEX_WARN_ON and rt_mutex of Linux 6.12, lockdep's for an exit with locks held. Where Linux parks a task in a
 * deadlock for ever, it dies of an oops here: its unlocks run, and the others go on.
 * Real kernels: Linux kernel/locking/mutex.c (optimistic spinning, hand-off), rtmutex.c.
 */

import { CYC_CONTEXT_SWITCH, CYC_LOCK } from "./arch/charges.ts";
import type { Machine } from "./arch/machine.ts";
import { bug } from "./bug.ts";
import type { ContextTracking } from "./context.ts";
import { initListHead, listDel, listFirst, listIsEmpty } from "./lib/list.ts";
import {
  createPiChain,
  MAX_LOCK_DEPTH,
  MUTEX_BYTES,
  MUTEX_FLAGS,
  MUTEX_NEXT_HELD,
  MUTEX_NO_PI,
  MUTEX_OWNER,
  MUTEX_RELEASED,
  MUTEX_WAITERS,
  OWNER_DEAD,
} from "./pi_chain.ts";
import { KERN_WARNING, type Printk } from "./printk.ts";
import type { Scheduler } from "./sched.ts";
import type { Task, Tasks } from "./task.ts";
import { TASK_BLOCKED_ON, TASK_HELD, TASK_WAIT_NODE, taskComm } from "./task_struct.ts";
import { asPhys, BLOCKED, fromGranule, NULL, type PhysAddr, PREEMPTED, type Sleeping, toGranule } from "./types.ts";

export { MUTEX_BYTES, MUTEX_NO_PI };

/** Static memory: counters. */
export const MUTEX_STATIC_BYTES = 24;

/** How long a waiter polls for a running owner: about what the two context switches of a sleep cost, ten times. */
export const MAX_SPIN_CYCLES = 20_000;
/** Between two looks at the owner word. */
const CYC_POLL = 200;

const NR_FAST = 0;
const NR_SPUN = 4;
const NR_SLEPT = 8;
const NR_BOOSTS = 12;
const NR_REPORTS = 16;

export interface MutexStats {
  /** Taken without waiting, after polling, after sleeping. */
  readonly fast: number;
  readonly spun: number;
  readonly slept: number;
  /** Times that a task was raised by a waiter. */
  readonly boosts: number;
  readonly reports: number;
}

export interface Mutexes {
  /** Makes the MUTEX_BYTES at `mutex` a free mutex; `name` is its class for lockdep. */
  init(mutex: PhysAddr, name: string, flags?: number): void;
  /** Takes the mutex, waiting for it if need be. Process context; may sleep. Oopses where it could wait for ever. */
  lock(task: Task, mutex: PhysAddr): Sleeping<void>;
  /** Takes the mutex if it is free. Process context; never sleeps. */
  tryLock(task: Task, mutex: PhysAddr): boolean;
  /** Hands the mutex to its first waiter. Its owner only. */
  unlock(task: Task, mutex: PhysAddr): void;
  isLocked(mutex: PhysAddr): boolean;
  /** Would a wait of `task` for the mutex never end? For who answers an error where lock() would report. */
  wouldDeadlock(task: Task, mutex: PhysAddr): boolean;
  /** The task that may unlock; undefined when free. */
  owner(mutex: PhysAddr): Task | undefined;
  /** A task ends: reports the mutexes that it holds and leaves them taken (MTX-6). Returns how many. */
  taskEnds(task: Task): number;
  stats(): MutexStats;
  /** MTX-1, PI-1, PI-2: the first violation, or null. */
  check(mutex: PhysAddr): string | null;
}

export interface MutexDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  readonly tasks: Tasks;
  readonly scheduler: Scheduler;
  /** MUTEX_STATIC_BYTES of zeroed static memory. */
  readonly statics: PhysAddr;
  /** False with `pi=off`. */
  readonly isInheriting?: boolean;
  readonly maxLockDepth?: number;
}

export function createMutexes(deps: MutexDeps): Mutexes {
  const { machine, contexts, printk, tasks, scheduler, statics } = deps;
  const { port, harts } = machine;
  const { clock } = harts;
  const chain = createPiChain({
    machine,
    printk,
    tasks,
    scheduler,
    isInheriting: deps.isInheriting ?? true,
    maxLockDepth: deps.maxLockDepth ?? MAX_LOCK_DEPTH,
    nrBoosts: asPhys(statics + NR_BOOSTS),
  });

  const count = (which: number): void => port.st32(statics + which, port.ld32(statics + which) + 1);
  const waitersOf = (mutex: PhysAddr): PhysAddr => asPhys(mutex + MUTEX_WAITERS);
  const ownerWord = (mutex: PhysAddr): number => port.ldAtomic(mutex + MUTEX_OWNER);
  const isOwner = (task: Task, mutex: PhysAddr): boolean => ownerWord(mutex) === toGranule(task.struct);
  const nameOf = (task: Task): string => `${taskComm(port, task.struct)}/${task.pid}`;
  const addrOf = (mutex: PhysAddr): string => `0x${mutex.toString(16)}`;

  // ── Reports ──────────────────────────────────────────────────────────────────────────────────────────────────────

  const warn = (task: Task, where: string, condition: string): void => {
    count(NR_REPORTS);
    const at = `WARNING: CPU: ${task.ctx.cpu} PID: ${task.pid} at kernel/mutex.ts:${where}`;
    printk(KERN_WARNING, [`DEBUG_LOCKS_WARN_ON(${condition})`, at, contexts.stackDump(task.ctx)].join("\n"));
    contexts.taint("W");
  };

  /** MTX-4: says who waits for whom, then oopses. */
  const deadlock = (task: Task, mutex: PhysAddr): never => {
    count(NR_REPORTS);
    const lines = [
      `WARNING: CPU: ${task.ctx.cpu} PID: ${task.pid} at kernel/mutex.ts:lock`,
      "rtmutex deadlock detected",
      `${nameOf(task)} is trying to acquire mutex ${addrOf(mutex)}`,
    ];
    let wanted = mutex;
    for (let owner = chain.ownerOf(wanted); owner !== undefined && owner !== task; owner = chain.ownerOf(wanted)) {
      const next = fromGranule(port.ld32(owner.struct + TASK_BLOCKED_ON));
      lines.push(`${addrOf(wanted)} is held by ${nameOf(owner)}, which is blocked on mutex ${addrOf(next)}`);
      wanted = next;
    }
    lines.push(`${addrOf(wanted)} is held by ${nameOf(task)}`);
    printk(KERN_WARNING, [...lines, contexts.stackDump(task.ctx)].join("\n"));
    contexts.taint("W");
    return bug("MTX-4: a wait for this mutex would never end", mutex, task.pid);
  };

  // ── Lock ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  const tryTake = (task: Task, mutex: PhysAddr): boolean => {
    const owner = mutex + MUTEX_OWNER;
    if (port.ld32(owner) !== 0 || port.cas(owner, 0, toGranule(task.struct)) !== 0) return false;
    chain.addHeld(task, mutex);
    return true;
  };

  /**
   * Brings the clock to the moment at which the mutex was really free; counts how that time was spent since `start`.
   */
  const arrive = (task: Task, mutex: PhysAddr, start: number, hasSlept: boolean): void => {
    const { cpu } = task.ctx;
    const freeAt = port.ldF64(mutex + MUTEX_RELEASED);
    const now = Math.max(clock[cpu] as number, freeAt);
    const isPatient = freeAt - start <= MAX_SPIN_CYCLES;
    clock[cpu] = now + (hasSlept || isPatient ? CYC_LOCK : CYC_LOCK + 2 * CYC_CONTEXT_SWITCH);
    if (hasSlept || !isPatient) count(NR_SLEPT);
    else count(now > start ? NR_SPUN : NR_FAST);
  };

  const ownerRunsElsewhere = (task: Task, mutex: PhysAddr): boolean => {
    const owner = chain.ownerOf(mutex);
    if (owner === undefined || owner.ctx.cpu === task.ctx.cpu) return false;
    return scheduler.isOnCpu(owner) && !scheduler.hasOtherWork(task.ctx.cpu);
  };

  /** Polls while that is worth it: true with the mutex taken. */
  function* spin(task: Task, mutex: PhysAddr, start: number): Sleeping<boolean> {
    while (listIsEmpty(port, waitersOf(mutex)) && ownerRunsElsewhere(task, mutex)) {
      const { cpu } = task.ctx;
      if ((clock[cpu] as number) - start > MAX_SPIN_CYCLES) return false;
      clock[cpu] = (clock[cpu] as number) + CYC_POLL;
      yield PREEMPTED;
      if (tryTake(task, mutex)) {
        arrive(task, mutex, start, false);
        return true;
      }
    }
    return false;
  }

  /** Sleeps until the mutex is handed over. */
  function* sleep(task: Task, mutex: PhysAddr): Sleeping<void> {
    if (chain.closesCycle(task, mutex)) deadlock(task, mutex);
    chain.block(task, mutex);
    let isGranted = false;
    try {
      while (!isOwner(task, mutex)) {
        scheduler.prepareToBlock(task);
        yield BLOCKED;
      }
      isGranted = true;
    } finally {
      if (!isGranted) abandon(task, mutex);
    }
  }

  /** MTX-3: a fatal signal came while this task waited, or after the mutex was handed to it. */
  const abandon = (task: Task, mutex: PhysAddr): void => {
    if (isOwner(task, mutex)) release(task, mutex);
    else chain.unblock(task, mutex);
  };

  function* lockAny(task: Task, mutex: PhysAddr): Sleeping<void> {
    const start = clock[task.ctx.cpu] as number;
    if (tryTake(task, mutex)) {
      arrive(task, mutex, start, false);
      return;
    }
    if (isOwner(task, mutex)) deadlock(task, mutex);
    if (yield* spin(task, mutex, start)) return;
    // While it polled the owner may have gone, without anybody to hand the mutex to.
    if (tryTake(task, mutex)) {
      arrive(task, mutex, start, false);
      return;
    }
    yield* sleep(task, mutex);
    arrive(task, mutex, start, true);
  }

  // ── Unlock ───────────────────────────────────────────────────────────────────────────────────────────────────────

  const release = (task: Task, mutex: PhysAddr): void => {
    chain.dropHeld(task, mutex);
    port.stF64(mutex + MUTEX_RELEASED, clock[task.ctx.cpu] as number);
    const node = listFirst(port, waitersOf(mutex));
    const next = node === NULL ? undefined : tasks.at(asPhys(node - TASK_WAIT_NODE));
    if (next === undefined) port.stAtomic(mutex + MUTEX_OWNER, 0);
    else {
      listDel(port, node);
      port.st32(next.struct + TASK_BLOCKED_ON, 0);
      port.stAtomic(mutex + MUTEX_OWNER, toGranule(next.struct));
      chain.addHeld(next, mutex);
      chain.refresh(next);
    }
    chain.refresh(task);
    if (next !== undefined) scheduler.wake(next);
  };

  return {
    init(mutex, _name, flags = 0) {
      port.fill(mutex, 0, MUTEX_BYTES);
      port.st32(mutex + MUTEX_FLAGS, flags);
      initListHead(port, waitersOf(mutex));
    },
    lock(task, mutex) {
      contexts.mightSleep(task.ctx, "kernel/mutex.ts:lock");
      return contexts.mustIterate(lockAny(task, mutex));
    },
    tryLock(task, mutex) {
      if (!contexts.inTask(task.ctx)) {
        warn(task, "tryLock", "!in_task()");
        return false;
      }
      if (!tryTake(task, mutex)) return false;
      arrive(task, mutex, clock[task.ctx.cpu] as number, false);
      return true;
    },
    unlock(task, mutex) {
      if (!contexts.inTask(task.ctx)) warn(task, "unlock", "!in_task()");
      else if (!isOwner(task, mutex)) warn(task, "unlock", "__owner_task(owner) != current");
      else release(task, mutex);
    },
    wouldDeadlock: (task, mutex) => isOwner(task, mutex) || chain.closesCycle(task, mutex),
    isLocked: (mutex) => ownerWord(mutex) !== 0,
    owner: chain.ownerOf,
    taskEnds(task) {
      const held: PhysAddr[] = [];
      for (let m = port.ld32(task.struct + TASK_HELD); m !== 0; m = port.ld32(fromGranule(m) + MUTEX_NEXT_HELD)) {
        held.push(fromGranule(m));
      }
      if (held.length === 0) return 0;
      count(NR_REPORTS);
      printk(KERN_WARNING, heldAtExit(nameOf(task), held.map(addrOf), contexts.taintText()));
      contexts.taint("W");
      for (const mutex of held) {
        chain.dropHeld(task, mutex);
        port.stAtomic(mutex + MUTEX_OWNER, OWNER_DEAD);
      }
      return held.length;
    },
    stats: () => ({
      fast: port.ld32(statics + NR_FAST),
      spun: port.ld32(statics + NR_SPUN),
      slept: port.ld32(statics + NR_SLEPT),
      boosts: port.ld32(statics + NR_BOOSTS),
      reports: port.ld32(statics + NR_REPORTS),
    }),
    check(mutex) {
      const isFree = ownerWord(mutex) === 0;
      if (isFree && !listIsEmpty(port, waitersOf(mutex))) return `MTX-1: ${addrOf(mutex)} is free and has waiters`;
      return chain.check(mutex);
    },
  };
}

/** Text of debug_check_no_locks_held, kernel/locking/lockdep.c. */
function heldAtExit(who: string, mutexes: readonly string[], taint: string): string {
  const s = mutexes.length === 1 ? "" : "s";
  return [
    "====================================",
    `WARNING: ${who} still has locks held!`,
    `6.12.0-slabtown #1 ${taint}`,
    "------------------------------------",
    `${mutexes.length} lock${s} held by ${who}:`,
    ...mutexes.map((mutex, i) => ` #${i}: ${mutex} (mutex)`),
  ].join("\n");
}
