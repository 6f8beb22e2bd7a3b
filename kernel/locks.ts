/**
 * The locks of the kernel, as one thing to hand to whoever needs some of them.
 *
 * | lock                | holder may sleep | waits by          | taken in                       | file           |
 * |---------------------|------------------|-------------------|--------------------------------|----------------|
 * | spinlock            | no               | spinning          | any context, with the right form | spinlock.ts  |
 * | reader-writer lock  | no               | spinning          | any; readers nest              | rwlock.ts      |
 * | sequence lock       | writers: no      | readers look again | readers any, writers as a spinlock | seqlock.ts |
 * | mutex               | yes              | polling, sleeping | tasks                          | mutex.ts       |
 * | semaphore           | yes              | sleeping          | down: tasks; up: any           | semaphore.ts   |
 * | completion          | –                | sleeping          | wait: tasks; complete: any     | completion.ts  |
 */

import type { Machine } from "./arch/machine.ts";
import { type Completions, createCompletions } from "./completion.ts";
import type { ContextTracking } from "./context.ts";
import type { Lockdep } from "./lockdep.ts";
import { createMutexes, type Mutexes } from "./mutex.ts";
import type { Printk } from "./printk.ts";
import { proveMutexes, proveRwlocks } from "./prove_locking.ts";
import { createRwlocks, type Rwlocks } from "./rwlock.ts";
import type { Scheduler } from "./sched.ts";
import { createSemaphores, type Semaphores } from "./semaphore.ts";
import { createSeqlocks, type Seqlocks } from "./seqlock.ts";
import type { Spinlocks } from "./spinlock.ts";
import type { Tasks } from "./task.ts";
import type { PhysAddr } from "./types.ts";
import type { WaitQueues } from "./wait.ts";

export interface Locks {
  readonly spinlocks: Spinlocks;
  readonly rwlocks: Rwlocks;
  readonly seqlocks: Seqlocks;
  readonly mutexes: Mutexes;
  /** The same without lockdep: for locks of user threads, which are held while they run in user mode. */
  readonly userMutexes: Mutexes;
  readonly semaphores: Semaphores;
  readonly completions: Completions;
}

export interface LockDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  readonly spinlocks: Spinlocks;
  readonly tasks: Tasks;
  readonly scheduler: Scheduler;
  readonly waits: WaitQueues;
  /** MUTEX_STATIC_BYTES of zeroed static memory. */
  readonly mutexStatics: PhysAddr;
  /** False with `pi=off`. */
  readonly isInheriting?: boolean;
  readonly maxLockDepth?: number;
  /** With prove_locking=on; `contexts` and `spinlocks` are then the proved ones already. */
  readonly lockdep?: Lockdep | undefined;
}

export function createLocks(deps: LockDeps): Locks {
  const { machine, contexts, spinlocks, waits, lockdep } = deps;
  const rwlocks = createRwlocks(machine, contexts, spinlocks);
  const mutexes = createMutexes({ ...deps, statics: deps.mutexStatics });
  return {
    spinlocks,
    rwlocks: lockdep === undefined ? rwlocks : proveRwlocks(rwlocks, spinlocks, contexts, lockdep),
    seqlocks: createSeqlocks(machine, spinlocks),
    userMutexes: mutexes,
    mutexes: lockdep === undefined ? mutexes : proveMutexes(mutexes, contexts, lockdep),
    semaphores: createSemaphores(machine, contexts, waits),
    completions: createCompletions(machine, contexts, waits),
  };
}
