/**
 * Spinning: what a thread of the host does while another one holds the spinlock that it wants.
 *
 * The holder runs, or the host has suspended it: there may be more threads than processors. So look again for a few
 * microseconds, then sleep for short spells on the lock word itself, which lets the holder run. Nobody is notified at
 * an unlock (that would cost every unlock a call); a sleeper wakes by itself.
 *
 *   look … look … look │ sleep 50 µs │ look … │ sleep 50 µs │ …      after `patienceMs`: the host is told
 *
 *   SPIN-1  it returns when the word was seen free, and at every wake-up: the caller tries again by compare-and-swap
 *   SPIN-2  a lock that its own CPU holds is recursion, and is reported at once
 *   SPIN-3  no wait lasts longer than the host's patience
 *
 * Context: any; interrupts stay as they are. Never call with a lock held that the holder could want.
 * Linux queues its waiters (kernel/locking/qspinlock.c), which is fair; this is a test-and-set lock, which is not.
 */

import { bug } from "./bug.ts";
import type { OnContention } from "./spinlock.ts";
import type { PhysAddr } from "./types.ts";

/** Looks before the first sleep: about 10 µs (2026, Node 20). */
const LOOKS = 1000;
const SLEEP_MS = 0.05;

export interface SpinHost {
  /** Milliseconds that only grow. */
  now(): number;
  /** The machine is given up: throw, or the wait goes on. */
  onSleep(lock: PhysAddr, holderCpu: number): void;
  /** SPIN-3: throws what the host makes of it. */
  onStuck(lock: PhysAddr, holderCpu: number): void;
  readonly patienceMs: number;
}

export interface SpinWait {
  readonly onContention: OnContention;
  /** Lock address → how often this thread found it taken. */
  readonly contended: ReadonlyMap<number, number>;
  /** Times that looking was not enough. */
  nrSleeps(): number;
}

/** Waiting for lock words in `ram`. */
export function createSpinWait(ram: SharedArrayBuffer, host: SpinHost): SpinWait {
  const words = new Int32Array(ram);
  const contended = new Map<number, number>();
  let nrSleeps = 0;

  /** Sleeps until the word is free; each wake-up tells the host. */
  const sleepOn = (lock: PhysAddr): void => {
    const deadline = host.now() + host.patienceMs;
    for (;;) {
      const word = Atomics.load(words, lock >>> 2);
      if (word === 0) return;
      host.onSleep(lock, word - 1);
      if (host.now() > deadline) host.onStuck(lock, word - 1);
      nrSleeps++;
      Atomics.wait(words, lock >>> 2, word, SLEEP_MS);
    }
  };

  return {
    contended,
    nrSleeps: () => nrSleeps,
    onContention(ctx, lock, holderCpu) {
      if (holderCpu === ctx.cpu) bug("spinlock: recursion on lock, CPU", lock, ctx.cpu);
      contended.set(lock, (contended.get(lock) ?? 0) + 1);
      for (let look = 0; look < LOOKS; look++) if (Atomics.load(words, lock >>> 2) === 0) return;
      sleepOn(lock);
    },
  };
}
