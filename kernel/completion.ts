/**
 * Completions: "it has happened", once or for everybody.
 *
 *   waiter: yield* completions.wait(task, c)          doer, any context: completions.complete(ctx, c)
 *
 * | offset | field | width | meaning                                                            |
 * |--------|-------|-------|--------------------------------------------------------------------|
 * | 0      | done  | u32   | completions that nobody has used yet; DONE_FOR_ALL after completeAll |
 * | 8      | queue | 8     | wait queue                                                         |
 *
 * The difference from a wait queue is the count: a completion that comes before the wait is not lost, so there is no
 * condition to test and no race to think about. It may live on the stack of the waiter (in its frame): after wait()
 * returns, the doer does not touch it any more.
 *
 *   CMP-1  each complete ends one wait, past or future; completeAll ends all of them until reinit
 *   CMP-2  a waiter that is unwound, or whose time runs out, uses up nothing
 *   CMP-3  done > 0 only while nobody waits
 *
 * Real kernels: Linux kernel/sched/completion.c.
 */

import type { Machine } from "./arch/machine.ts";
import type { ContextTracking } from "./context.ts";
import type { Task } from "./task.ts";
import { asPhys, type Context, type PhysAddr, type Sleeping } from "./types.ts";
import type { ExclusiveTurn, WaitQueues } from "./wait.ts";

export const COMPLETION_BYTES = 16;

const DONE = 0;
const QUEUE = 8;
/** Value of `done` that no wait uses up. */
const DONE_FOR_ALL = 0xffff_ffff;

export interface Completions {
  /** Makes the COMPLETION_BYTES at `completion` one that has not happened. */
  init(completion: PhysAddr): void;
  /** Forgets what has happened; nobody may wait. */
  reinit(completion: PhysAddr): void;
  /** Sleeps until it has happened. Process context. */
  wait(task: Task, completion: PhysAddr): Sleeping<unknown>;
  /** The same for at most `cycles`: false if it has not happened by then. Process context. */
  waitTimeout(task: Task, completion: PhysAddr, cycles: number): Sleeping<boolean>;
  /** Uses up one completion if there is one. Any context. */
  tryWait(ctx: Context, completion: PhysAddr): boolean;
  /** It has happened, for one waiter. Any context. */
  complete(ctx: Context, completion: PhysAddr): void;
  /** It has happened, for all. Any context. */
  completeAll(ctx: Context, completion: PhysAddr): void;
  isDone(completion: PhysAddr): boolean;
}

export function createCompletions(machine: Machine, contexts: ContextTracking, waits: WaitQueues): Completions {
  const { port, harts } = machine;
  const { clock } = harts;
  const queueOf = (completion: PhysAddr): PhysAddr => asPhys(completion + QUEUE);

  const tryWait = (completion: PhysAddr): boolean => {
    const done = port.ld32(completion + DONE);
    if (done === 0) return false;
    if (done !== DONE_FOR_ALL) port.st32(completion + DONE, done - 1);
    return true;
  };

  /** One waiter is woken with its completion in hand; without a waiter it is kept. */
  const signal = (completion: PhysAddr): void => {
    if (waits.wakeOne(queueOf(completion))) return;
    const done = port.ld32(completion + DONE);
    if (done < DONE_FOR_ALL - 1) port.st32(completion + DONE, done + 1);
  };

  const turnOf = (completion: PhysAddr, untilCycles: number): ExclusiveTurn => ({
    take: () => tryWait(completion),
    // After completeAll there is nothing to pass on: everybody was woken.
    passOn: () => {
      if (port.ld32(completion + DONE) !== DONE_FOR_ALL) signal(completion);
    },
    untilCycles,
  });
  const waitUntil = (task: Task, completion: PhysAddr, until: number): Sleeping<boolean> => {
    contexts.mightSleep(task.ctx, "kernel/completion.ts:wait");
    return waits.waitExclusive(queueOf(completion), task, turnOf(completion, until));
  };

  return {
    init(completion) {
      port.st32(completion + DONE, 0);
      waits.init(queueOf(completion));
    },
    reinit: (completion) => port.st32(completion + DONE, 0),
    wait: (task, completion) => waitUntil(task, completion, Number.POSITIVE_INFINITY),
    waitTimeout: (task, completion, cycles) => waitUntil(task, completion, (clock[task.ctx.cpu] as number) + cycles),
    tryWait(ctx, completion) {
      const flags = contexts.localIrqSave(ctx);
      const isDone = tryWait(completion);
      contexts.localIrqRestore(ctx, flags);
      return isDone;
    },
    complete(ctx, completion) {
      const flags = contexts.localIrqSave(ctx);
      signal(completion);
      contexts.localIrqRestore(ctx, flags);
    },
    completeAll(ctx, completion) {
      const flags = contexts.localIrqSave(ctx);
      port.st32(completion + DONE, DONE_FOR_ALL);
      waits.wakeUp(queueOf(completion));
      contexts.localIrqRestore(ctx, flags);
    },
    isDone: (completion) => port.ld32(completion + DONE) !== 0,
  };
}
