/**
 * The scheduler: which task runs on which CPU, and which CPU the host executes next.
 *
 * 1. Each CPU has a runqueue in its per-CPU area: a list per real-time order (SCHED_FIFO, highest priority first),
 *    and a red-black tree of fair tasks ordered by virtual run time. Real-time tasks go first; among fair tasks the
 *    one that has had least runs next, so that all advance together (Linux's CFS until 6.5, without weights).
 *
 * 2. A waking task goes to the least busy CPU, its old one if that is as good; a CPU that runs out of work pulls the
 *    task that would run next from the busiest.
 *
 * 3. The host executes one CPU at a time: always the one with work whose local clock is least, a seeded draw deciding
 *    ties. It runs one task until that yields: its slice is over (`timeIsUp`), it sleeps, or it ends. Slices are short
 *    while several CPUs have work, so that their clocks stay within one slice of each other.
 *
 *   SCH-1  a task on a runqueue is TASK_RUNNING, and on one queue only
 *   SCH-2  nr_running = tasks in the queue
 *   SCH-3  min_vruntime never decreases; a waking task starts at least there
 *   SCH-4  a local clock never runs backwards, and no task runs before the moment it was woken
 *   SCH-5  the priority that counts is the higher of the one that was set and the one inherited; a task of a higher
 *          priority that wakes on a CPU ends the slice that runs there
 *   SCH-6  a CPU that is offline or going offline has no task on its queue and gets none, neither by wake nor by pull
 *   SCH-8  an idle machine's time goes to the next thing that happens, not beyond where the host wants to look; a
 *          sleeper whose moment is KTIME_MAX or later has none
 *   SCH-7  an interrupt is taken by an idle CPU at the moment it was raised, by a busy one at most SLICE_DEVICE later
 *
 * Sleepers (nanosleep) are in one tree by wake-up time, linked through the same node: a task sleeps or queues.
 * Locks: none; everything here runs between two tasks, or with interrupts off in the timer handler.
 */

import { CYC_CONTEXT_SWITCH, CYC_PICK_NEXT } from "./arch/charges.ts";
import { IRQ_RESCHEDULE, IRQ_TIMER } from "./arch/irqchip.ts";
import type { Machine } from "./arch/machine.ts";
import type { ContextTracking } from "./context.ts";
import type { KernelImage } from "./image.ts";
import { IRQ_HANDLED, type Irqs } from "./irq.ts";
import { createRbTree } from "./lib/rbtree.ts";
import { CYCLES_PER_TICK, KTIME_MAX } from "./params.ts";
import type { PerCpu } from "./percpu.ts";
import { createRunqueues, type Runqueues } from "./runqueue.ts";
import { createPlacement } from "./sched_placement.ts";
import { createSlices, SLICE_DEVICE } from "./sched_slice.ts";
import type { Task, Tasks } from "./task.ts";
import {
  TASK_BASE_POLICY,
  TASK_BASE_PRIORITY,
  TASK_BOOST,
  TASK_CPU,
  TASK_INTERRUPTIBLE,
  TASK_ON_QUEUE,
  TASK_READY_TIME,
  TASK_RUN_CYCLES,
  TASK_RUNNING,
  TASK_STATE,
  TASK_SWITCHES,
  TASK_WAKE_TIME,
} from "./task_struct.ts";
import { BLOCKED, type IrqContext, NULL, type PhysAddr, type Sleeping } from "./types.ts";

export type StepResult = "ran" | "advanced" | "nothing";

export interface Scheduler {
  /** Puts a runnable task on a runqueue (new, or woken). Any context. */
  wake(task: Task): void;
  /** Sleeps until virtual time `wakeTime`, or until woken. */
  sleepUntil(task: Task, wakeTime: number): Sleeping<void>;
  /**
   * Sets the state a task will block in, at most until `wakeTime`; it then yields BLOCKED. A wake-up in between counts.
   */
  prepareToBlock(task: Task, wakeTime?: number): void;
  /** Executes the next slice anywhere in the machine. */
  step(): StepResult;
  /** No slice is to go on beyond this virtual time: where the host wants to look. */
  setDeadline(cycles: number): void;
  /** Until when nothing at all happens: 0 while a task is runnable, Infinity if nothing ever will. No side effects. */
  quietUntil(): number;
  /** An idle machine's time goes to `cycles`: nothing was to happen before. */
  passTime(cycles: number): void;
  /** True when the task running on `cpu` should yield. */
  timeIsUp(cpu: number): boolean;
  /** What the task asks for; what counts may be more, by inheritance. */
  setPolicy(task: Task, policy: number, priority: number): void;
  /** The priority that the task inherits through locks, 0 for none: it runs at the higher of the two (SCH-5). */
  setBoost(task: Task, priority: number): void;
  /** Called after the priority that counts has changed by setPolicy: who orders by it must look again. */
  onPriorityChange(hook: (task: Task) => void): void;
  /** True while the task executes, or is what its CPU goes on with: for whom it is worth to wait without sleeping. */
  isOnCpu(task: Task): boolean;
  /** True when another task than the running one could use this CPU. */
  hasOtherWork(cpu: number): boolean;
  /** False: tasks of this CPU move to others and none come (CPU hot-plug); true: it takes part again. */
  setActive(cpu: number, isActive: boolean): void;
  isActive(cpu: number): boolean;
  /** The task on a CPU at this moment; undefined while the scheduler or an idle loop runs. */
  current(cpu: number): Task | undefined;
  nrRunning(): number;
  nrSwitches(): number;
  /** Hooks of the layer above: around each slice, and when a body returned or threw. */
  onSwitch(activate: (task: Task, cpu: number) => void): void;
  /** What to throw into a task instead of resuming it (a fatal signal); undefined to resume. */
  onResume(doom: (task: Task) => unknown): void;
  onEnd(ended: (task: Task, status: number, error: unknown) => void): void;
  /** Nothing is on this CPU's runqueue, and no task runs there. */
  isIdle(cpu: number): boolean;
  /** Adds a hook to the timer interrupt, after the scheduler's own part. */
  onTick(hook: (ctx: IrqContext) => void): void;
  /** Adds a hook that runs when `cpu` passed through the scheduler: a task left it, or it was idle and disturbed. */
  onPass(hook: (cpu: number) => void): void;
  /** Adds a hook that runs between any two slices: for what must be done where no task is. */
  onStep(hook: () => void): void;
  /** Where the scheduler learns of kernel timers: the earliest of all CPUs. */
  setTimers(timers: EarliestTimer): void;
  check(): string | null;
}

/** The earliest kernel timer: when (Infinity: there is none), and on which CPU. */
export interface EarliestTimer {
  time(): number;
  cpu(): number;
  /** Timers whose function was called so far, modulo 2^32. */
  nrFired(): number;
}

export interface SchedulerDeps {
  readonly machine: Machine;
  readonly image: KernelImage;
  readonly percpu: PerCpu;
  readonly contexts: ContextTracking;
  readonly irqs: Irqs;
}

export function createScheduler(deps: SchedulerDeps): (tasks: Tasks) => Scheduler {
  const runqueues = createRunqueues(deps.machine, deps.percpu);
  const sleepers = deps.image.bss("sleepers", 8, 8);
  return (tasks) => bindScheduler(deps, runqueues, sleepers, tasks);
}

function bindScheduler(deps: SchedulerDeps, runqueues: Runqueues, sleepers: PhysAddr, tasks: Tasks): Scheduler {
  const { machine, contexts, irqs } = deps;
  const { enqueue, dequeue, peek, isUsable } = runqueues;
  const nrRunningOf = runqueues.nrRunning;
  const { port, harts, irqChip, events, random } = machine;
  const { clock, online, irqOn, timerDeadline, current, nrCpus } = harts;
  const jitter = random.stream("sched");
  const running: (Task | undefined)[] = new Array(nrCpus).fill(undefined);
  const previous: (Task | undefined)[] = new Array(nrCpus).fill(undefined);
  const horizon = new Float64Array(nrCpus);
  let activate: (task: Task, cpu: number) => void = () => {};
  let doom: (task: Task) => unknown = () => undefined;
  let ended: (task: Task, status: number, error: unknown) => void = () => {};
  const tickHooks: ((ctx: IrqContext) => void)[] = [];
  const passHooks: ((cpu: number) => void)[] = [];
  const stepHooks: (() => void)[] = [];
  let timers: EarliestTimer = { time: () => Number.POSITIVE_INFINITY, cpu: () => 0, nrFired: () => 0 };
  let priorityChanged: (task: Task) => void = () => {};
  let nrSwitches = 0;
  let hostDeadline = Number.POSITIVE_INFINITY;

  const byWakeTime = createRbTree(port, {
    less: (a, b) => port.ldF64(a + TASK_WAKE_TIME) < port.ldF64(b + TASK_WAKE_TIME),
  });

  const placement = createPlacement(machine, contexts, tasks, runqueues, { running, horizon, byWakeTime, sleepers });
  const { wake, place, applyPriority, preemptIfLower, pull, leastBusyCpu, loadOf } = placement;

  // ── Time ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  const wakeSleepers = (now: number): void => {
    for (let struct = byWakeTime.first(sleepers); struct !== NULL; struct = byWakeTime.first(sleepers)) {
      if (port.ldF64(struct + TASK_WAKE_TIME) > now) return;
      const task = tasks.at(struct);
      if (task !== undefined) wake(task);
    }
  };

  irqs.requestIrq(IRQ_TIMER, {
    name: "timer",
    handler(ctx) {
      timerDeadline[ctx.cpu] = (clock[ctx.cpu] as number) + CYCLES_PER_TICK;
      wakeSleepers(clock[ctx.cpu] as number);
      for (const hook of tickHooks) hook(ctx);
      return IRQ_HANDLED;
    },
  });

  const passed = (cpu: number): void => {
    for (const hook of passHooks) hook(cpu);
  };

  /** Brings the CPU of the earliest kernel timer to that moment; false if it is still waiting to be run. */
  const fireTimer = (): boolean => {
    const time = timers.time();
    const nrFired = timers.nrFired();
    const cpu = timers.cpu();
    current[0] = cpu;
    clock[cpu] = Math.max(clock[cpu] as number, time);
    irqs.checkpoint(cpu);
    if (running[cpu] === undefined) passed(cpu);
    return timers.nrFired() !== nrFired || timers.time() !== time;
  };

  irqs.requestIrq(IRQ_RESCHEDULE, {
    name: "reschedule",
    handler(ctx) {
      const next = peek(ctx.cpu);
      if (next !== NULL) preemptIfLower(next, ctx.cpu);
      return IRQ_HANDLED;
    },
  });

  /** An event planned while a task runs: its slice must not go on far beyond it. */
  events.onPlan((time) => {
    const cpu = current[0] as number;
    if (running[cpu] === undefined) return;
    horizon[cpu] = Math.min(horizon[cpu] as number, Math.max(time, (clock[cpu] as number) + SLICE_DEVICE));
  });

  const firstWake = (): number => {
    const first = byWakeTime.first(sleepers);
    return first === NULL ? Number.POSITIVE_INFINITY : port.ldF64(first + TASK_WAKE_TIME);
  };

  const passTime = (cycles: number): void => {
    const cpu = isUsable(current[0] as number) ? (current[0] as number) : 0;
    clock[cpu] = Math.max(clock[cpu] as number, cycles);
  };

  /** Nothing is runnable: time jumps to the first sleeper, kernel timer or act of a device (SCH-8). */
  const advance = (): boolean => {
    const first = byWakeTime.first(sleepers);
    const wakeTime = firstWake();
    const time = Math.min(wakeTime, events.nextTime());
    const due = Math.min(time, timers.time());
    if (due > hostDeadline && due !== Number.POSITIVE_INFINITY) {
      passTime(hostDeadline);
      return true;
    }
    if (timers.time() <= time && timers.time() !== Number.POSITIVE_INFINITY && fireTimer()) return true;
    if (time === Number.POSITIVE_INFINITY) return false;
    const home = first !== NULL && wakeTime === time ? port.ld32(first + TASK_CPU) : (current[0] as number);
    const cpu = isUsable(home) ? home : 0;
    current[0] = cpu;
    clock[cpu] = Math.max(clock[cpu] as number, time);
    irqs.checkpoint(cpu);
    wakeSleepers(clock[cpu] as number);
    passed(cpu);
    return true;
  };

  const prepareToBlock = (task: Task, wakeTime = Number.POSITIVE_INFINITY): void => {
    port.st32(task.struct + TASK_STATE, TASK_INTERRUPTIBLE);
    if (wakeTime >= KTIME_MAX) return;
    port.stF64(task.struct + TASK_WAKE_TIME, Math.max(wakeTime, 1));
    byWakeTime.insert(sleepers, task.struct);
  };

  // ── One slice ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** When a CPU can go on: with a task at once, without one when an interrupt comes; Infinity if neither is there. */
  const readyTime = (cpu: number): number => {
    if (online[cpu] === 0) return Number.POSITIVE_INFINITY;
    if (nrRunningOf(cpu) === 0 && isUsable(cpu)) pull(cpu);
    const now = clock[cpu] as number;
    if (nrRunningOf(cpu) > 0) return now;
    return irqOn[cpu] === 1 ? Math.max(now, irqChip.heldUntil(cpu)) : Number.POSITIVE_INFINITY;
  };

  /** The CPU that can go on first; −1 if none can. */
  const nextCpu = (): number => {
    let best = -1;
    let soonest = Number.POSITIVE_INFINITY;
    for (let cpu = 0; cpu < nrCpus; cpu++) {
      const time = readyTime(cpu);
      if (time === Number.POSITIVE_INFINITY || time > soonest) continue;
      if (time === soonest && jitter.next() >= 0.5) continue;
      best = cpu;
      soonest = time;
    }
    return best;
  };

  /** An idle CPU is woken by an interrupt: its clock, which stood still, goes to that moment. */
  const takeIdle = (cpu: number): void => {
    current[0] = cpu;
    clock[cpu] = Math.max(clock[cpu] as number, irqChip.heldUntil(cpu));
    irqs.checkpoint(cpu);
    passed(cpu);
  };

  const { nrBusyCpus, setHorizon } = createSlices(machine, runqueues, horizon, {
    firstWake,
    firstTimer: () => timers.time(),
    hostDeadline: () => hostDeadline,
  });

  const finishSlice = (task: Task, cpu: number, startedAt: number): void => {
    const { struct } = task;
    const used = (clock[cpu] as number) - startedAt;
    port.stF64(struct + TASK_RUN_CYCLES, port.ldF64(struct + TASK_RUN_CYCLES) + used);
    runqueues.addVruntime(struct, cpu, used);
  };

  /** Resumes a task's code once. Its time is booked before it is queued again: the queue is ordered by it (SCH-1). */
  const resume = (task: Task, cpu: number): void => {
    const startedAt = clock[cpu] as number;
    try {
      const fatal = doom(task);
      const result = fatal === undefined ? task.code.next() : task.code.throw(fatal);
      if (result.done === true) {
        running[cpu] = undefined;
        contexts.scheduleDebug(task.ctx);
        contexts.setCurrentTask(cpu, 0);
        ended(task, result.value, undefined);
        return;
      }
      running[cpu] = undefined;
      contexts.scheduleDebug(task.ctx);
      contexts.setCurrentTask(cpu, 0);
      finishSlice(task, cpu, startedAt);
      const state = port.ld32(task.struct + TASK_STATE);
      if (result.value !== BLOCKED || state === TASK_RUNNING) requeue(task, cpu);
    } catch (error) {
      running[cpu] = undefined;
      contexts.exitDebug(task.ctx);
      ended(task, -1, error);
      contexts.setCurrentTask(cpu, 0);
    }
  };

  /** A task that still wants to run goes back to its CPU's queue, unless that CPU is going offline. */
  const requeue = (task: Task, cpu: number): void => {
    if (isUsable(cpu)) enqueue(task.struct, cpu);
    else place(task, leastBusyCpu(cpu), clock[cpu] as number);
  };

  const runOn = (cpu: number): void => {
    current[0] = cpu;
    irqs.checkpoint(cpu);
    const struct = runqueues.pick(cpu, clock[cpu] as number);
    const task = tasks.at(struct);
    if (task === undefined) return;
    clock[cpu] = Math.max(clock[cpu] as number, port.ldF64(struct + TASK_READY_TIME));
    const alone = nrBusyCpus() === 1;
    dequeue(struct, cpu);
    // Every slice costs something, or a task that only polls would stop the time of its CPU.
    clock[cpu] = (clock[cpu] as number) + CYC_PICK_NEXT;
    if (previous[cpu] !== task) {
      clock[cpu] = (clock[cpu] as number) + CYC_CONTEXT_SWITCH;
      port.st32(struct + TASK_SWITCHES, port.ld32(struct + TASK_SWITCHES) + 1);
      nrSwitches++;
    }
    previous[cpu] = task;
    running[cpu] = task;
    contexts.migrate(task.ctx, cpu);
    contexts.setCurrentTask(cpu, struct);
    activate(task, cpu);
    contexts.setNeedResched(cpu, false);
    setHorizon(cpu, alone);
    resume(task, cpu);
    irqs.checkpoint(cpu);
    passed(cpu);
  };

  return {
    wake,
    *sleepUntil(task, wakeTime) {
      prepareToBlock(task, wakeTime);
      yield BLOCKED;
    },
    prepareToBlock,
    step() {
      for (const hook of stepHooks) hook();
      const cpu = nextCpu();
      if (cpu >= 0 && nrRunningOf(cpu) === 0) {
        takeIdle(cpu);
        return "advanced";
      }
      if (cpu >= 0) {
        // An idle CPU's clock stands still while others run: its timers are due by the time of those.
        if (timers.time() <= (clock[cpu] as number) && fireTimer()) return "advanced";
        runOn(cpu);
        return "ran";
      }
      return advance() ? "advanced" : "nothing";
    },
    setDeadline(cycles) {
      hostDeadline = cycles;
    },
    quietUntil() {
      let first = Math.min(firstWake(), events.nextTime(), timers.time());
      for (let cpu = 0; cpu < nrCpus; cpu++) {
        if (nrRunningOf(cpu) > 0) return 0;
        if (online[cpu] === 1 && irqOn[cpu] === 1) first = Math.min(first, irqChip.heldUntil(cpu));
      }
      return first;
    },
    passTime,
    timeIsUp: (cpu) => (clock[cpu] as number) >= (horizon[cpu] as number),
    setPolicy(task, policy, priority) {
      port.st32(task.struct + TASK_BASE_POLICY, policy);
      port.st32(task.struct + TASK_BASE_PRIORITY, priority);
      applyPriority(task);
      priorityChanged(task);
    },
    setBoost(task, priority) {
      port.st32(task.struct + TASK_BOOST, priority);
      applyPriority(task);
    },
    onPriorityChange(hook) {
      priorityChanged = hook;
    },
    isOnCpu(task) {
      const cpu = port.ld32(task.struct + TASK_CPU);
      if (running[cpu] === task) return true;
      return previous[cpu] === task && port.ld32(task.struct + TASK_ON_QUEUE) === 1 && peek(cpu) === task.struct;
    },
    hasOtherWork: (cpu) => nrRunningOf(cpu) > 0,
    setActive(cpu, isActive) {
      runqueues.setInactive(cpu, !isActive);
      if (isActive) return;
      previous[cpu] = undefined;
      for (let struct = peek(cpu); struct !== NULL; struct = peek(cpu)) {
        const task = tasks.at(struct) as Task;
        dequeue(struct, cpu);
        place(task, leastBusyCpu(cpu), clock[cpu] as number);
      }
    },
    isActive: isUsable,
    current: (cpu) => running[cpu],
    nrRunning() {
      let nr = 0;
      for (let cpu = 0; cpu < nrCpus; cpu++) nr += loadOf(cpu);
      return nr;
    },
    nrSwitches: () => nrSwitches,
    onSwitch(hook) {
      activate = hook;
    },
    onResume(hook) {
      doom = hook;
    },
    onEnd(hook) {
      ended = hook;
    },
    isIdle: (cpu) => loadOf(cpu) === 0,
    onTick(hook) {
      tickHooks.push(hook);
    },
    onPass(hook) {
      passHooks.push(hook);
    },
    onStep(hook) {
      stepHooks.push(hook);
    },
    setTimers(source) {
      timers = source;
    },
    check() {
      for (let cpu = 0; cpu < nrCpus; cpu++) {
        const problem = runqueues.check(cpu);
        if (problem !== null) return problem;
      }
      return null;
    },
  };
}
