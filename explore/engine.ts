/**
 * The engine: runs the programs of several CPUs in one chosen order, access by access, with the detectors watching.
 *
 *   run(strategy)
 *     ├─ port.rollback(): RAM as built
 *     ├─ choose a CPU ─▶ run its body from the start: replayed up to where it was, then live
 *     │                    ├─ at a scheduling point: strategy.choose(); another CPU → SUSPENDED is thrown
 *     │                    └─ before any access with interrupts on: an interrupt, if the strategy wants one
 *     └─ all ended: subject.check()
 *
 * 1. Where may CPUs change? At atomic accesses, at waits, and at plain stores to words that were accessed atomically
 *    before. Between two such points a CPU touches only what nobody else may touch meanwhile; that this is so is what
 *    the race detector checks, so nothing is lost by not changing there. Interrupts come before any access.
 *
 * 2. A CPU that waits is not offered until what it waits for holds. If nobody can run and no interrupt can come, it is
 *    a *deadlock*; lock words name their holders, so the cycle is told. A CPU that keeps running while others could
 *    must give way after SPIN_LIMIT points (it spins on something); if all do until `maxSteps`, that is a *livelock*.
 *
 * 3. What is chosen other than by default is an event: the schedule in short (schedule.ts).
 *
 *   EXP-1  two runs with the same choices make the same accesses, or the body is not deterministic, which is told
 *   EXP-2  the first failure ends the run
 *   EXP-3  an interrupt comes only with interrupts on, not on top of a handler, at most `irqs` times per CPU
 */

import { ATOMIC_LOAD, ATOMIC_STORE, type ExploreGate, STORE, SUSPENDED, WAIT } from "../kernel/arch/explore_port.ts";
import { BadAccess } from "../kernel/arch/port.ts";
import { KernelBug, stackNames } from "../kernel/bug.ts";
import { createHappensBefore, type Race } from "./happens_before.ts";
import { createLockUsage } from "./lock_usage.ts";
import { defaultChoice, IRQ, lowest, STOP, type Strategy } from "./strategy.ts";
import type { Failure, FailureKind, Subject, TracedAccess } from "./subject.ts";

/** Scheduling points that a CPU may pass in a row, while others could run; then it must give way. */
const SPIN_LIMIT = 1_000;
/** Accesses of a check: broken lists may have no end. */
const MAX_CHECK_ACCESSES = 1_000_000;

/** A choice that was not the default: CPU `cpu`, before its access `pos`, gave way to `to` (IRQ + c: an interrupt). */
export interface ScheduleEvent {
  readonly cpu: number;
  readonly pos: number;
  readonly to: number;
}

export interface RunResult {
  readonly failure: Failure | null;
  /** Live accesses. */
  readonly steps: number;
  /** The strategy gave this run up. */
  readonly isStopped: boolean;
}

export interface EngineOptions {
  /** Interrupts per CPU and run. */
  readonly irqs: number;
  /** Accesses per run after which it counts as a livelock. */
  readonly maxSteps: number;
  /** Report races and usages of locks, not only what comes of them; default true. */
  readonly isDetecting?: boolean;
}

export interface Engine {
  run(strategy: Strategy): RunResult;
  /** As run, but every access is remembered, and replays are compared with the first time (EXP-1). */
  trace(strategy: Strategy): { readonly result: RunResult; readonly accesses: readonly TracedAccess[] };
  /** Events of the last run. */
  events(): ScheduleEvent[];
  /** A lock is about to be taken, waiting if need be (or only tried): for the usage checker. */
  lockUsed(cpu: number, lock: number, isIrqOn: boolean, isTry: boolean): void;
}

/** Stops the running body: its failure is in `failure`. */
const FAILED = { name: "failed" };

export function createEngine(subject: Subject, options: EngineOptions): Engine {
  const { port, harts, nrCpus } = subject;
  const { irqOn, clock, current } = harts;
  const { maxSteps, isDetecting = true } = options;
  const nrIrqs = subject.interrupt === undefined ? 0 : options.irqs;
  const order = createHappensBefore(nrCpus, port.sizeBytes, nrIrqs > 0);
  order.exempt(subject.hints ?? [], true);
  order.exempt(subject.balanced ?? [], false);
  const usage = createLockUsage(nrCpus);
  const logs = Array.from({ length: nrCpus }, () => new Float64Array(maxSteps + 8));
  const lengths = new Int32Array(nrCpus);
  const isDone = new Uint8Array(nrCpus);
  const isInIrq = new Uint8Array(nrCpus);
  const irqsLeft = new Int32Array(nrCpus);
  /** Per CPU, positions at which interrupts came. */
  const irqAt = Array.from({ length: nrCpus }, () => [] as number[]);
  /** Address that a CPU waits for (−1: none), and how. */
  const waitAddr = new Int32Array(nrCpus);
  const waitValue = new Uint32Array(nrCpus);
  const isWaitEqual = new Uint8Array(nrCpus);
  const isWaitLock = new Uint8Array(nrCpus);
  const startClock = clock.slice();
  const events: number[] = [];

  let strategy: Strategy;
  let pending: Strategy["pending"];
  let cpu = 0;
  let next = 0;
  let nextIrq = 0;
  let steps = 0;
  let inARow = 0;
  /** CPUs that have not ended, one bit each; how many of them have announced that they wait. */
  let alive = 0;
  let nrWaiting = 0;
  let isGranted = false;
  let isStarting = false;
  let isRunning = false;
  let isStopped = false;
  let failure: Failure | null = null;
  let traced: TracedAccess[] | null = null;
  /** In a traced run: kind · 2^32 + address of each logged access, per CPU. */
  let shapes: number[][] = [];
  let arriving = { kind: 0, addr: 0, bytes: 0, isStored: false };

  const fail = (kind: FailureKind, message: string, addr?: number): never => {
    failure ??= addr === undefined ? { kind, message } : { kind, message, addr };
    throw FAILED;
  };
  const isRunnable = (c: number): boolean => {
    if (isDone[c] === 1) return false;
    const addr = waitAddr[c] as number;
    return addr < 0 || (port.peek(addr) === waitValue[c]) === (isWaitEqual[c] === 1);
  };
  const runnable = (): number => {
    if (nrWaiting === 0) return alive;
    let choices = 0;
    for (let c = 0; c < nrCpus; c++) if (isRunnable(c)) choices |= 1 << c;
    return choices;
  };

  const waitOf = (c: number): readonly [number, number, number, number] => [
    waitAddr[c] as number,
    waitValue[c] as number,
    isWaitEqual[c] as number,
    isWaitLock[c] as number,
  ];

  // ── Deadlock, livelock ───────────────────────────────────────────────────────────────────────────────────────────

  const deadlock = (): string => {
    const lines: string[] = [];
    for (let c = 0; c < nrCpus; c++) {
      if (isDone[c] === 1) continue;
      const addr = waitAddr[c] as number;
      const holder = port.peek(addr) - 1;
      const whose = holder === c ? "which it holds itself" : `which CPU ${holder} holds`;
      lines.push(
        `CPU ${c} waits for ${subject.nameOf(addr)}, ${isWaitLock[c] === 1 ? whose : "and nobody will change it"}`,
      );
    }
    return lines.join("; ");
  };

  const nextInTurn = (choices: number): number => {
    for (let c = cpu + 1; c <= cpu + nrCpus; c++) if (((choices >>> (c % nrCpus)) & 1) !== 0) return c % nrCpus;
    return cpu;
  };

  // ── Choices ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Asks the strategy; keeps what is not the default. */
  const choose = (choices: number, who: number, pos: number): number => {
    const choice = strategy.choose(choices, who, pos);
    if (choice === STOP) {
      isStopped = true;
      throw SUSPENDED;
    }
    if (choice !== defaultChoice(choices, who)) events.push(who, pos, choice);
    return choice;
  };

  const suspend = (to: number): never => {
    next = to;
    inARow = 0;
    throw SUSPENDED;
  };

  const handle = (isLive: boolean): void => {
    const start = lengths[cpu] as number;
    isInIrq[cpu] = 1;
    if (isLive) order.enterIrq(cpu);
    irqOn[cpu] = 0;
    const wrong = (subject.interrupt as (cpu: number) => string | undefined)(cpu);
    irqOn[cpu] = 1;
    isInIrq[cpu] = 0;
    // Else it ended in an earlier turn of this CPU too, and was left then.
    if (isLive || port.pos > start) order.leaveIrq(cpu);
    if (wrong !== undefined) fail("invariant", wrong);
  };

  const setStop = (): void => {
    const at = irqAt[cpu] as number[];
    port.stop = nextIrq < at.length ? (at[nextIrq] as number) : (lengths[cpu] as number);
    // A traced run looks at each replayed access.
    if (traced !== null) port.stop = 0;
  };

  /** The rest of a replay: interrupts where they came; true if the access at hand is still in the log. */
  const isReplay = (kind: number, addr: number): boolean => {
    if (nrIrqs === 0 && traced === null) return port.pos < (lengths[cpu] as number);
    const at = irqAt[cpu] as number[];
    while (nextIrq < at.length && at[nextIrq] === port.pos) {
      nextIrq++;
      setStop();
      handle(false);
    }
    if (port.pos >= (lengths[cpu] as number)) return false;
    setStop();
    if (traced !== null) {
      const was = (shapes[cpu] as number[])[port.pos];
      if (was !== kind * 2 ** 32 + addr) {
        fail("nondeterminism", `access ${port.pos} of CPU ${cpu} was another one when it was run again`);
      }
    }
    return true;
  };

  /** Lets others, or an interrupt, go first, if the strategy says so; returns when the access may happen. */
  const schedule = (isPoint: boolean): void => {
    let mayLeave = isPoint && !isGranted;
    if (isStarting) {
      if (isPoint) suspend(cpu);
      return;
    }
    isGranted = false;
    for (;;) {
      const isStuck = (waitAddr[cpu] as number) >= 0 && !isRunnable(cpu);
      const mayInterrupt = nrIrqs > 0 && (irqsLeft[cpu] as number) > 0 && isInIrq[cpu] === 0 && irqOn[cpu] === 1;
      if (isStuck) mayLeave = true;
      if (!mayLeave && !mayInterrupt) return;
      let choices = mayLeave ? runnable() : 1 << cpu;
      if (mayLeave && !isStuck && ++inARow > SPIN_LIMIT && choices !== 1 << cpu) suspend(nextInTurn(choices));
      if (mayInterrupt) choices |= 1 << (IRQ + cpu);
      if (choices === 0) fail("deadlock", deadlock(), waitAddr[cpu]);
      if (choices === 1 << cpu && pending === undefined) return;
      const choice = choose(choices, cpu, port.pos);
      if (choice === cpu) return;
      if (choice < IRQ) suspend(choice);
      irqsLeft[cpu] = (irqsLeft[cpu] as number) - 1;
      (irqAt[cpu] as number[]).push(port.pos);
      nextIrq++;
      const [addr, value, isEqual, isLock] = waitOf(cpu);
      waitAddr[cpu] = -1;
      if (addr >= 0) nrWaiting--;
      handle(true);
      if (addr >= 0) nrWaiting++;
      waitAddr[cpu] = addr;
      waitValue[cpu] = value;
      isWaitEqual[cpu] = isEqual;
      isWaitLock[cpu] = isLock;
    }
  };

  // ── The gate ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const who = (thread: number): string =>
    thread < nrCpus ? `CPU ${thread}` : `an interrupt on CPU ${thread - nrCpus}`;

  const reportRace = ({ addr, thread, other, isOtherStore }: Race, kind: number): void => {
    const isIrq = thread % nrCpus === other % nrCpus;
    const what = kind === STORE || kind === ATOMIC_STORE ? "stores" : "loads";
    const was = isOtherStore ? "stored" : "loaded";
    const why = isIrq ? "interrupts were on" : "nothing orders the two";
    const message = `${who(thread)} ${what} ${subject.nameOf(addr)}, which ${who(other)} ${was}, and ${why}`;
    fail(isIrq ? "interrupt race" : "race", message, addr);
  };

  /** Adds the access at hand to the trace. */
  const remember = (value: number, isRacing: boolean): void => {
    const { kind, addr } = arriving;
    // Of an access that makes a race nothing is logged.
    const pos = Math.max(port.pos - 1, 0);
    (shapes[cpu] as number[])[pos] = kind * 2 ** 32 + addr;
    const stored = port.peek(addr);
    traced?.push({ cpu, isInIrq: isInIrq[cpu] === 1, ...arriving, value, stored, isRacing, pos, site: stackNames() });
  };

  const touch = (kind: number, addr: number, bytes: number): void => {
    if (kind === ATOMIC_STORE) arriving.isStored = true;
    let thread = cpu;
    if (nrIrqs > 0) {
      if (isInIrq[cpu] === 1) thread = nrCpus + cpu;
      else order.flagSeen(cpu, irqOn[cpu] === 1);
    }
    const found = order.access(thread, kind, addr, bytes);
    if (found === null || !isDetecting) return;
    if (traced !== null) remember(port.peek(addr & ~3), true);
    reportRace(found, kind);
  };

  const begin = (kind: number, addr: number, bytes: number): void => {
    if (++steps > maxSteps) livelock(addr);
    if (traced !== null) arriving = { kind, addr, bytes, isStored: kind === STORE || kind === ATOMIC_STORE };
  };
  const livelock = (addr: number): never => fail("livelock", `no end after ${maxSteps} accesses: ${spinning()}`, addr);
  const spinning = (): string => {
    const names = stackNames().slice(0, 3).join(" ← ");
    return `CPU ${cpu} is in ${names === "" ? "its program" : names}`;
  };

  const gate: ExploreGate = {
    arrive(kind, addr, bytes) {
      if (isReplay(kind, addr)) return true;
      port.check(addr, bytes);
      if (pending !== undefined) {
        pending.kind[cpu] = kind;
        pending.addr[cpu] = addr;
      }
      schedule(kind >= ATOMIC_LOAD || (kind === STORE && order.isSync(addr)));
      begin(kind, addr, bytes);
      touch(kind, addr, bytes);
      return false;
    },
    touch,
    arriveWaiting(addr, value, isEqual, isLock) {
      if (isReplay(WAIT, addr)) return true;
      if (pending !== undefined) throw new Error(`${strategy.name} cannot judge code that waits for a lock`);
      if ((waitAddr[cpu] as number) < 0) nrWaiting++;
      waitAddr[cpu] = addr;
      waitValue[cpu] = value;
      isWaitEqual[cpu] = isEqual ? 1 : 0;
      // A lock that its own CPU holds: no other CPU can help.
      isWaitLock[cpu] = isLock ? 1 : 0;
      if (isLock && port.peek(addr) === cpu + 1) fail("deadlock", deadlock(), addr);
      schedule(true);
      waitAddr[cpu] = -1;
      nrWaiting--;
      begin(WAIT, addr, 4);
      touch(ATOMIC_LOAD, addr, 4);
      return false;
    },
    done(value) {
      if (traced !== null) remember(value, false);
    },
  };

  // ── A run ────────────────────────────────────────────────────────────────────────────────────────────────────────

  const reset = (): void => {
    port.rollback();
    lengths.fill(0);
    isDone.fill(0);
    irqsLeft.fill(nrIrqs);
    waitAddr.fill(-1);
    nrWaiting = 0;
    alive = (1 << nrCpus) - 1;
    for (const at of irqAt) at.length = 0;
    for (let c = 0; c < nrCpus; c++) irqOn[c] = 1;
    events.length = 0;
    steps = 0;
    inARow = 0;
    isGranted = false;
    isStopped = false;
    failure = null;
    order.reset();
    usage.reset();
  };

  const judgeEnd = (wrong: string | undefined): void => {
    if (wrong !== undefined) fail("invariant", wrong);
    if (irqOn[cpu] !== 1) fail("invariant", `CPU ${cpu} ends its program with interrupts off`);
  };

  /** What stopped a body that is not a SUSPENDED of ours. */
  const asFailure = (error: unknown): Failure => {
    const message = error instanceof Error ? error.message : String(error);
    const isKernel = error instanceof KernelBug || error instanceof BadAccess;
    return { kind: "oops", message: isKernel ? message : `the program threw: ${message}` };
  };

  /** Runs CPU `c` until it is suspended or has ended; true if it ended. */
  const execute = (c: number): boolean => {
    cpu = c;
    current[0] = c;
    port.log = logs[c] as Float64Array;
    port.pos = 0;
    nextIrq = 0;
    isInIrq[c] = 0;
    irqOn[c] = 1;
    clock[c] = startClock[c] as number;
    setStop();
    port.setGate(gate);
    isRunning = true;
    try {
      judgeEnd(subject.body(c));
      isDone[c] = 1;
      alive &= ~(1 << c);
    } catch (error) {
      if (error !== SUSPENDED && error !== FAILED) failure ??= asFailure(error);
    }
    port.setGate(null);
    isRunning = false;
    if (port.pos > (lengths[c] as number)) lengths[c] = port.pos;
    port.pos = 0;
    port.stop = 0;
    return isDone[c] === 1;
  };

  /** Whom to run when `c` has ended (−1: at the start); −1 when nobody is left. */
  const successor = (c: number): number => {
    const choices = runnable();
    inARow = 0;
    if (choices === 0) {
      if (isDone.includes(0)) failure = { kind: "deadlock", message: deadlock() };
      return -1;
    }
    try {
      const isOnly = choices === (choices & -choices) && pending === undefined;
      return isOnly ? lowest(choices) : choose(choices, c, c < 0 ? 0 : (lengths[c] as number));
    } catch (error) {
      if (error !== SUSPENDED) throw error;
      return -1;
    }
  };

  const run = (chosen: Strategy): RunResult => {
    strategy = chosen;
    pending = chosen.pending;
    reset();
    strategy.begin(nrCpus);
    if (pending !== undefined) startAll();
    let c = failure === null ? successor(-1) : -1;
    while (c >= 0) {
      isGranted = true;
      const hasEnded = execute(c);
      if (failure !== null || isStopped) break;
      c = hasEnded ? successor(c) : next;
    }
    if (failure === null && !isStopped) failure = judge();
    return { failure, steps, isStopped };
  };

  const judge = (): Failure | null => {
    port.limit(MAX_CHECK_ACCESSES);
    try {
      const wrong = subject.check();
      return wrong === null ? null : { kind: "invariant", message: wrong };
    } catch (error) {
      return asFailure(error);
    } finally {
      port.limit(Number.POSITIVE_INFINITY);
    }
  };

  /** Brings each CPU to its first scheduling point. */
  const startAll = (): void => {
    isStarting = true;
    for (let c = 0; c < nrCpus && failure === null; c++) execute(c);
    isStarting = false;
  };

  return {
    run,
    trace(chosen) {
      traced = [];
      shapes = Array.from({ length: nrCpus }, () => []);
      const result = run(chosen);
      const accesses = traced;
      traced = null;
      return { result, accesses };
    },
    events: () => {
      const list: ScheduleEvent[] = [];
      for (let i = 0; i < events.length; i += 3) {
        list.push({ cpu: events[i] as number, pos: events[i + 1] as number, to: events[i + 2] as number });
      }
      return list;
    },
    lockUsed(c, lock, isIrqOn, isTry) {
      const isBad = isRunning && isDetecting && usage.used(c, lock, isInIrq[c] === 1, isIrqOn, isTry);
      if (!isBad) return;
      const name = subject.nameOf(lock);
      fail("lock usage", `${name} is taken by an interrupt, and on the same CPU ${c} with interrupts on`, lock);
    },
  };
}
