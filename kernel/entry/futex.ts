/**
 * futex: sleep until another thread changes a word of user memory.
 *
 * The word belongs to the program; the kernel only looks at it once, and remembers who sleeps on which address. A
 * thread whose expected value is no longer there does not sleep (−EAGAIN), so a wake-up between its test and its
 * call is not lost.
 *
 * Locks with priority inheritance: futex_pi.ts.
 *
 *   FTX-1  a sleeper is woken by FUTEX_WAKE on the same address of the same address space, or by a fatal signal
 */

import type { Scheduler } from "../sched.ts";
import type { Task } from "../task.ts";
import { BLOCKED, type MaySleep, type Sleeping } from "../types.ts";
import { EAGAIN, EFAULT, EINVAL, ENOSYS } from "../uapi/errno.ts";
import { FUTEX_LOCK_PI, FUTEX_UNLOCK_PI, FUTEX_WAIT, FUTEX_WAKE } from "../uapi/syscall.ts";
import type { PiFutexes } from "./futex_pi.ts";
import type { Caller } from "./process.ts";

export type Futex = (caller: Caller, addr: number, op: number, value: number) => MaySleep<number>;

export function createFutex(scheduler: Scheduler, piFutexes: PiFutexes): Futex {
  /** Sleepers in order of arrival, by address space and address. */
  const sleepers = new Map<string, Task[]>();

  function* wait(key: string, task: Task): Sleeping<number> {
    const queue = sleepers.get(key) ?? [];
    sleepers.set(key, queue);
    queue.push(task);
    try {
      // A signal without a handler for it may wake, too.
      while (queue.includes(task)) {
        scheduler.prepareToBlock(task);
        yield BLOCKED;
      }
    } finally {
      const index = queue.indexOf(task);
      if (index >= 0) queue.splice(index, 1);
      if (queue.length === 0 && sleepers.get(key) === queue) sleepers.delete(key);
    }
    return 0;
  }

  return (caller, addr, op, value) => {
    if (!(addr >= 0) || addr % 4 !== 0) return -EINVAL;
    const key = `${caller.process.mm}:${addr}`;
    if (op === FUTEX_WAIT) {
      const word = caller.user.copyFrom(addr, 4);
      if (word === undefined) return -EFAULT;
      const current = new DataView(word.buffer, word.byteOffset, 4).getUint32(0, true);
      return current === value >>> 0 ? wait(key, caller.task) : -EAGAIN;
    }
    if (op === FUTEX_LOCK_PI) return piFutexes.lock(caller, addr);
    if (op === FUTEX_UNLOCK_PI) return piFutexes.unlock(caller, addr);
    if (op !== FUTEX_WAKE) return -ENOSYS;
    const queue = sleepers.get(key);
    let woken = 0;
    while (queue !== undefined && queue.length > 0 && woken < value) {
      scheduler.wake(queue.shift() as Task);
      woken++;
    }
    return woken;
  };
}
