/**
 * The machine of lab 8: pages, one spinlock, interrupts, a wait queue, tasks. It runs beside the student's code.
 *
 * Each call of it is a checkpoint: there an armed interrupt runs, unless interrupts are off; then at unlockIrq. What
 * happens is noted as events; what is forbidden ends the call with a `bug` event:
 *
 *   sleep-irq, sleep-lock   a sleeping call in an interrupt; with the lock or with interrupts off
 *   deadlock                the lock is waited for by who holds it, or by an interrupt of who holds it
 *   lock-left, unlock       a call returns with the lock; the lock is given back by who has not got it
 *   queue-left              a call ends while its task is on the wait queue
 */

import { NO_PAGE, type Sleeping } from "../given/api.ts";

export interface GfpConfig {
  readonly pages: number;
  readonly min: number;
  readonly low: number;
  readonly reclaim: readonly number[];
}

export interface Task {
  readonly id: number;
  readonly gen: Sleeping<unknown>;
  isQueued: boolean;
}

/** Ends the student's call. */
export const STOP = { name: "stop" };
/** More is code out of its mind, and a long message. */
const MAX_EVENTS = 400;
/** Rounds of a task that yields without sleeping. */
const MAX_YIELDS = 200;

export class GfpMachine {
  readonly min: number;
  readonly low: number;
  events: unknown[] = [];
  /** What an interrupt does, and at which checkpoint from now on. */
  armed: { at: number; run: () => void } | null = null;
  nrKswapd = 0;
  readonly bugs: string[] = [];
  readonly released: number[] = [];
  isWorkScheduled = false;
  readonly #isTaken: boolean[] = [];
  /** Pages that reclaim has freed once. */
  readonly #freed: boolean[] = [];
  readonly #reclaim: number[] = [];
  #nextReclaim = 0;
  #nrFree = 0;
  #current: Task | null = null;
  /** Tasks on the wait queue, and those that were woken, in their order. */
  readonly #queue: Task[] = [];
  readonly #woken: Task[] = [];
  readonly #asleep: Task[] = [];
  #isInIrq = false;
  #isLocked = false;
  #areIrqsOff = false;

  constructor({ pages, min, low, reclaim }: GfpConfig) {
    this.min = min;
    this.low = low;
    let all = pages;
    for (const nr of reclaim) {
      this.#reclaim[this.#reclaim.length] = nr;
      all += nr;
    }
    for (let page = 0; page < all; page++) this.#isTaken[page] = page >= pages;
    this.#nrFree = pages;
  }

  note(...event: unknown[]): void {
    if (this.events.length < MAX_EVENTS) this.events[this.events.length] = event;
  }

  #bug(kind: string, text: string): never {
    this.note("bug", kind, text);
    this.bugs[this.bugs.length] = text;
    throw STOP;
  }

  #checkpoint(): void {
    const { armed } = this;
    if (armed === null || this.#isInIrq) return;
    armed.at--;
    if (armed.at <= 0 && !this.#areIrqsOff) this.fire();
  }

  /** Runs the armed interrupt now. */
  fire(): void {
    const { armed } = this;
    if (armed === null) return;
    this.armed = null;
    const before = this.#current;
    this.#current = null;
    this.#isInIrq = true;
    this.note("irq");
    armed.run();
    this.note("iret");
    this.#isInIrq = false;
    this.#current = before;
  }

  #sleeps(what: string): void {
    this.#checkpoint();
    if (this.#isInIrq) this.#bug("sleep-irq", `${what}() sleeps in an interrupt`);
    if (this.#isLocked) this.#bug("sleep-lock", `${what}() sleeps while the spinlock is held`);
  }

  // ── For the student ──────────────────────────────────────────────────────────────────────────────────────────────

  /** The functions, as an object without anything else. */
  port(): object {
    const machine = this;
    const take = (): number => {
      for (let page = 0; page < this.#isTaken.length; page++) {
        if (this.#isTaken[page] === true) continue;
        this.#isTaken[page] = true;
        this.#nrFree--;
        return page;
      }
      return NO_PAGE;
    };
    const lock = (what: string): void => {
      this.#checkpoint();
      if (this.#isLocked) {
        const who = this.#isInIrq ? "an interrupt of the code that holds it" : "the code that holds it";
        this.#bug("deadlock", `${what}() waits for ever: the lock is wanted by ${who}`);
      }
      this.#isLocked = true;
      this.note("lock");
    };
    const unlock = (): void => {
      // With interrupts on, one comes while the lock is still held.
      this.#checkpoint();
      if (!this.#isLocked) this.#bug("unlock", "the lock is given back by who does not hold it");
      this.#isLocked = false;
      this.note("unlock");
    };
    return {
      min: this.min,
      low: this.low,
      freePages: () => this.#nrFree,
      takePage: () => {
        this.#checkpoint();
        const page = take();
        this.note("take", page);
        return page;
      },
      givePage: (page: number) => {
        this.#checkpoint();
        this.note("give", page);
        this.give(page);
      },
      wakeKswapd: () => {
        this.#checkpoint();
        this.nrKswapd++;
        this.note("kswapd");
      },
      mightSleep: () => {
        this.note("might");
        this.#checkpoint();
        if (this.#isInIrq) this.#bug("might", "mightSleep() says that it might sleep, in an interrupt");
        if (this.#isLocked) this.#bug("might", "mightSleep() says that it might sleep, while the spinlock is held");
      },
      *reclaim(gfp: number) {
        machine.#sleeps("reclaim");
        const nr = machine.#reclaim[machine.#nextReclaim++] ?? 0;
        machine.note("reclaim", gfp, nr);
        for (let i = 0, page = 0; i < nr && page < machine.#isTaken.length; page++) {
          // Pages of nobody's are the last ones: those that reclaim is to free.
          const cached = machine.#isTaken.length - 1 - page;
          if (machine.#isTaken[cached] !== true || machine.#freed[cached] === true) continue;
          machine.#freed[cached] = true;
          machine.#isTaken[cached] = false;
          machine.#nrFree++;
          i++;
        }
        return nr;
      },
      lock: () => lock("lock"),
      unlock: () => {
        unlock();
        this.#checkpoint();
      },
      lockIrq: () => {
        lock("lockIrq");
        this.#areIrqsOff = true;
      },
      unlockIrq: () => {
        unlock();
        this.#areIrqsOff = false;
        this.#checkpoint();
      },
      prepareToWait: () => {
        this.#checkpoint();
        const task = this.#current;
        if (task === null) this.#bug("sleep-irq", "prepareToWait() in an interrupt");
        else if (!task.isQueued) {
          task.isQueued = true;
          this.#queue[this.#queue.length] = task;
        }
      },
      *schedule() {
        machine.#sleeps("schedule");
        if (machine.#current?.isQueued === true) yield undefined;
      },
      finishWait: () => {
        this.#checkpoint();
        if (this.#current !== null) this.#unqueue(this.#current);
      },
      wakeOne: () => {
        this.#checkpoint();
        const [task] = this.#queue;
        this.note("wake", task?.id ?? null);
        if (task === undefined) return;
        this.#unqueue(task);
        if (removed(this.#asleep, task)) this.#woken[this.#woken.length] = task;
      },
      scheduleWork: () => {
        this.#checkpoint();
        this.isWorkScheduled = true;
        this.note("work");
      },
      *release(object: number) {
        machine.#sleeps("release");
        machine.note("release", object);
        machine.released[machine.released.length] = object;
      },
    };
  }

  get nrFree(): number {
    return this.#nrFree;
  }

  /** A page that is not taken is left alone: the judge sees the event. */
  give(page: number): void {
    if (this.#isTaken[page] !== true) return;
    this.#isTaken[page] = false;
    this.#nrFree++;
  }

  #unqueue(task: Task): void {
    task.isQueued = false;
    removed(this.#queue, task);
  }

  // ── Running ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Runs what a call makes, then every task that was woken; events are those of all of it. */
  call(id: number, isIrq: boolean, work: () => unknown): unknown {
    let value: unknown = null;
    this.#isInIrq = isIrq;
    try {
      const made = work();
      value = isGenerator(made) ? this.#run({ id, gen: made, isQueued: false }) : made;
      this.#isInIrq = false;
      if (this.#isLocked) this.#bug("lock-left", "the call returns with the spinlock held");
      this.fire();
      for (let task = this.#woken[0]; task !== undefined; task = this.#woken[0]) {
        removed(this.#woken, task);
        this.note("resume", task.id);
        const result = this.#run(task);
        if (result !== null) this.note("done", task.id, result);
      }
    } catch (error) {
      if (error !== STOP) throw error;
    }
    this.#isInIrq = false;
    this.#isLocked = false;
    this.#areIrqsOff = false;
    this.#current = null;
    return value;
  }

  /** Runs a generator that must not sleep. */
  runInIrq(made: unknown): unknown {
    return isGenerator(made) ? this.#run({ id: -1, gen: made, isQueued: false }) : made;
  }

  /** Until the end, or until it sleeps: then null. */
  #run(task: Task): unknown {
    const before = this.#current;
    this.#current = this.#isInIrq ? null : task;
    for (let i = 0; i < MAX_YIELDS; i++) {
      const { done, value } = task.gen.next();
      if (done === true) {
        const wasQueued = task.isQueued;
        this.#unqueue(task);
        this.#current = before;
        if (wasQueued)
          this.#bug("queue-left", "the call ends with its task on the wait queue: it gets others' wake-ups");
        return value ?? null;
      }
      if (!task.isQueued) continue;
      this.#asleep[this.#asleep.length] = task;
      this.note("asleep", task.id);
      break;
    }
    this.#current = before;
    return null;
  }
}

function isGenerator(made: unknown): made is Sleeping<unknown> {
  return typeof made === "object" && made !== null && typeof (made as { next?: unknown }).next === "function";
}

/** Takes `item` out of `list`: true if it was there. No built-in that loops: its elements would be the student's. */
function removed<T>(list: T[], item: T): boolean {
  let nr = 0;
  for (let i = 0; i < list.length; i++) {
    const other = list[i] as T;
    if (other !== item) list[nr++] = other;
  }
  const isFound = nr < list.length;
  list.length = nr;
  return isFound;
}
