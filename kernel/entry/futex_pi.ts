/**
 * Futexes with priority inheritance: a lock of user threads whose owner the kernel knows.
 *
 *      word in user memory:   0 free │ tid of the owner │ tid + FUTEX_WAITERS: others wait in the kernel
 *
 * An uncontended lock is a compare-and-swap 0 → tid in user mode, and the kernel hears nothing of it. Who finds a tid
 * there asks the kernel, which makes a mutex for the word, gives it to the thread that the word names, and waits for
 * it: the owner inherits the priority of its waiters (pi_chain.ts), through any chain of such locks. FUTEX_WAITERS in
 * the word makes the owner's compare-and-swap tid → 0 fail, so that it asks the kernel to hand the lock over.
 *
 *   FPI-1  while there is a mutex for a word, the word is not 0; with an owner it has its tid and FUTEX_WAITERS
 *   FPI-2  the mutex lives as long as somebody owns it or waits for it
 *   FPI-3  a wait that would never end is −EDEADLK, not a report; an owner that ends hands over (FUTEX_OWNER_DIED)
 *
 * Words are known by address space and address: threads of one process. The mutexes are the kernel's plain ones also
 * with prove_locking=on: user mode may hold them. Source: Linux kernel/futex/pi.c.
 */

import { MUTEX_BYTES, type Mutexes } from "../mutex.ts";
import type { Task } from "../task.ts";
import { asPhys, type Context, type MaySleep, NULL, type PhysAddr, type Sleeping } from "../types.ts";
import { EDEADLK, EFAULT, EINVAL, ENOMEM, EPERM, ESRCH } from "../uapi/errno.ts";
import { FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS } from "../uapi/syscall.ts";
import type { ReplayHeap } from "./kernel_replay.ts";
import type { Caller } from "./process.ts";

export interface PiFutexes {
  /** 0 with the lock taken; −EDEADLK, −ESRCH (the word names no thread), −EFAULT, −EINVAL, −ENOMEM. */
  lock(caller: Caller, addr: number): MaySleep<number>;
  /** 0; −EPERM if the word does not name the caller; −EFAULT, −EINVAL. */
  unlock(caller: Caller, addr: number): number;
  /** A thread ends: what it owns is handed over. */
  taskEnds(task: Task): void;
}

export interface PiFutexDeps {
  /** Not the proved ones. */
  readonly mutexes: Mutexes;
  readonly heap: Pick<ReplayHeap, "kmalloc" | "kfree">;
  readonly gfp: number;
}

/** A word that somebody waits for. */
interface Contended {
  readonly mutex: PhysAddr;
  /** Its owner and its waiters. */
  nrUsers: number;
  hasOwnerDied: boolean;
}

export function createPiFutexes({ mutexes, heap, gfp }: PiFutexDeps): PiFutexes {
  const contended = new Map<string, Contended>();
  const keyOf = ({ process }: Caller, addr: number): string => `${process.mm}:${addr}`;

  const wordAt = (caller: Caller, addr: number): number | undefined => {
    const bytes = caller.user.copyFrom(addr, 4);
    return bytes === undefined ? undefined : new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
  };
  const setWord = (caller: Caller, addr: number, word: number): number => {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, word >>> 0, true);
    return caller.user.copyTo(addr, bytes);
  };

  /** FPI-2 */
  const drop = (ctx: Context, key: string, entry: Contended): void => {
    if (--entry.nrUsers > 0) return;
    contended.delete(key);
    heap.kfree(ctx, entry.mutex);
  };

  /** A mutex for a word that `owner` holds. */
  const create = (caller: Caller, key: string, owner: Task): Contended | undefined => {
    const mutex = asPhys(heap.kmalloc(caller.task.ctx, MUTEX_BYTES, gfp));
    if (mutex === NULL) return undefined;
    mutexes.init(mutex, "futex");
    mutexes.tryLock(owner, mutex);
    const entry = { mutex, nrUsers: 1, hasOwnerDied: false };
    contended.set(key, entry);
    return entry;
  };

  function* wait(caller: Caller, addr: number, key: string, entry: Contended): Sleeping<number> {
    const { task } = caller;
    entry.nrUsers++;
    let isTaken = false;
    try {
      yield* mutexes.lock(task, entry.mutex);
      isTaken = true;
    } finally {
      if (!isTaken) drop(task.ctx, key, entry);
    }
    const died = entry.hasOwnerDied ? FUTEX_OWNER_DIED : 0;
    entry.hasOwnerDied = false;
    const failed = setWord(caller, addr, task.pid | FUTEX_WAITERS | died);
    if (failed !== 0) {
      // The word is gone: nobody could ever unlock it.
      mutexes.unlock(task, entry.mutex);
      drop(task.ctx, key, entry);
    }
    return failed;
  }

  const lock: PiFutexes["lock"] = (caller, addr) => {
    if (!(addr >= 0) || addr % 4 !== 0) return -EINVAL;
    const { task, process } = caller;
    const key = keyOf(caller, addr);
    const word = wordAt(caller, addr);
    if (word === undefined) return -EFAULT;
    let entry = contended.get(key);
    if (entry === undefined && word === 0) return setWord(caller, addr, task.pid);
    if ((word & FUTEX_TID_MASK) === task.pid) return -EDEADLK;
    const isNew = entry === undefined;
    if (entry === undefined) {
      const owner = process.threads.get(word & FUTEX_TID_MASK);
      if (owner === undefined) return -ESRCH;
      entry = create(caller, key, owner);
      if (entry === undefined) return -ENOMEM;
    }
    const failed = mutexes.wouldDeadlock(task, entry.mutex) ? -EDEADLK : setWord(caller, addr, word | FUTEX_WAITERS);
    if (failed === 0) return wait(caller, addr, key, entry);
    if (isNew) {
      mutexes.unlock(mutexes.owner(entry.mutex) as Task, entry.mutex);
      drop(task.ctx, key, entry);
    }
    return failed;
  };

  const unlock: PiFutexes["unlock"] = (caller, addr) => {
    if (!(addr >= 0) || addr % 4 !== 0) return -EINVAL;
    const key = keyOf(caller, addr);
    const word = wordAt(caller, addr);
    if (word === undefined) return -EFAULT;
    const { task } = caller;
    const entry = contended.get(key);
    // The word is the program's: what it says and what the kernel knows may differ.
    const isOwner =
      (word & FUTEX_TID_MASK) === task.pid && (entry === undefined || mutexes.owner(entry.mutex) === task);
    if (!isOwner) return -EPERM;
    if (entry === undefined) return setWord(caller, addr, 0);
    mutexes.unlock(task, entry.mutex);
    const next = mutexes.owner(entry.mutex);
    const isLast = entry.nrUsers === 1;
    drop(task.ctx, key, entry);
    return setWord(caller, addr, isLast ? 0 : (next?.pid ?? 0) | FUTEX_WAITERS);
  };

  return {
    lock,
    unlock,
    taskEnds(task) {
      for (const [key, entry] of contended) {
        if (mutexes.owner(entry.mutex) !== task) continue;
        entry.hasOwnerDied = true;
        mutexes.unlock(task, entry.mutex);
        drop(task.ctx, key, entry);
      }
    },
  };
}
