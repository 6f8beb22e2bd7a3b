/**
 * How long interrupts, or preemption, were off: the longest window of each CPU, and where it was.
 *
 * The longest window is a bound on how late anything can be noticed on that CPU. It is measured on the CPU's own clock,
 * from the moment when the last of [interrupts on] was given up to the moment when it is back; work that is not charged
 * to the clock does not count. Interrupt handlers are such windows too.
 *
 * The kernel parameter irqsoff=on chooses this implementation of context tracking: the plain one with a watch around
 * each function that switches something. Without the parameter none of this is on any path.
 *
 * "Where" are names of functions, taken from the stack when the window is opened and when it is closed; the primitives
 * themselves (locks, this file) are left out. Everything here is an observer's state, on the host.
 *
 *   IOF-1  a window is counted once, when it closes; windows inside it (a lock in a lock) are part of it
 *   IOF-2  the watched kernel runs in the same cycles as the plain one
 *
 * Source: Linux kernel/trace/trace_irqsoff.c, Documentation/trace/ftrace.rst.
 */

import type { Machine } from "./arch/machine.ts";
import { stackNames } from "./bug.ts";
import { type ContextTracking, PREEMPT_OFFSET } from "./context.ts";
import type { FileRegistry } from "./file.ts";
import { CYCLES_PER_SECOND } from "./params.ts";
import { TASK_PID, taskComm } from "./task_struct.ts";
import type { Context, Sleeping } from "./types.ts";
import { EINVAL } from "./uapi/errno.ts";

export interface OffWindow {
  readonly cpu: number;
  readonly cycles: number;
  readonly startedAt: string;
  readonly endedAt: string;
  /** Task that was running, and its pid. */
  readonly comm: string;
  readonly pid: number;
}

export interface OffTracker {
  /** Context tracking with the watch around it: what the rest of the kernel is composed with. */
  readonly contexts: ContextTracking;
  /** The longest window with interrupts off since boot, or since reset(); undefined before the first. */
  maxIrqsOff(cpu: number): OffWindow | undefined;
  /** The same with preemption off: preempt_count was not 0. */
  maxPreemptOff(cpu: number): OffWindow | undefined;
  reset(): void;
  /** Makes current_tracer, tracing_max_latency and trace in /sys/kernel/debug/tracing. */
  registerFiles(registry: FileRegistry): void;
}

/** Functions that open and close windows for others: not where one was opened. */
const PRIMITIVES: ReadonlySet<string> = new Set([
  ..."open close update localIrqSave localIrqRestore localIrqEnable localIrqDisable hardirqsOff hardirqsOn".split(" "),
  ..."add subtract preemptDisable preemptEnable spinLock spinUnlock spinTryLock spinLockIrqsave".split(" "),
  ..."spinUnlockIrqrestore spinLockBh spinUnlockBh spinLockIrq spinUnlockIrq localBhDisable localBhEnable".split(" "),
]);

const placeOf = (stack: Error): string => stackNames(stack).find((name) => !PRIMITIVES.has(name)) ?? "(host)";

type Who = (cpu: number) => { readonly comm: string; readonly pid: number };

/** The open window of each CPU and its longest closed one. */
interface Watch {
  /** Opens the window of `cpu` if `isOff`, closes it if not; nothing if that is how it is already. */
  update(cpu: number, isOff: boolean): void;
  longest(cpu: number): OffWindow | undefined;
  reset(): void;
}

function createWatch(clock: Float64Array, who: Who): Watch {
  const openedAt = new Float64Array(clock.length);
  const opener: (Error | undefined)[] = new Array(clock.length).fill(undefined);
  const longest: (OffWindow | undefined)[] = new Array(clock.length).fill(undefined);

  const close = (cpu: number, stack: Error): void => {
    opener[cpu] = undefined;
    const cycles = (clock[cpu] as number) - (openedAt[cpu] as number);
    if (cycles <= (longest[cpu]?.cycles ?? 0)) return;
    longest[cpu] = { cpu, cycles, startedAt: placeOf(stack), endedAt: placeOf(new Error()), ...who(cpu) };
  };

  return {
    update(cpu, isOff) {
      const stack = opener[cpu];
      if (!isOff && stack !== undefined) close(cpu, stack);
      if (!isOff || stack !== undefined) return;
      opener[cpu] = new Error();
      openedAt[cpu] = clock[cpu] as number;
    },
    longest: (cpu) => longest[cpu],
    reset: () => {
      longest.fill(undefined);
    },
  };
}

/** Puts the watch around a context tracking. Boot, before anything is composed with it. */
export function traceOff(machine: Machine, plain: ContextTracking): OffTracker {
  const { port, harts } = machine;
  const { irqOn, clock, nrCpus } = harts;
  const who: Who = (cpu) => {
    const task = plain.currentTask(plain.taskContext(cpu));
    return { comm: taskComm(port, task), pid: task === 0 ? 0 : port.ld32(task + TASK_PID) };
  };
  const irqs = createWatch(clock, who);
  const preemption = createWatch(clock, who);
  const seeCount = (ctx: Context): void => preemption.update(ctx.cpu, plain.preemptCount(ctx) !== 0);
  const add = (ctx: Context, offset: number): void => {
    plain.add(ctx, offset);
    seeCount(ctx);
  };
  const subtract = (ctx: Context, offset: number): void => {
    plain.subtract(ctx, offset);
    seeCount(ctx);
  };

  const contexts: ContextTracking = {
    ...plain,
    add,
    subtract,
    preemptDisable: (ctx) => add(ctx, PREEMPT_OFFSET),
    preemptEnable: (ctx) => subtract(ctx, PREEMPT_OFFSET),
    localIrqSave(ctx) {
      const flags = plain.localIrqSave(ctx);
      irqs.update(ctx.cpu, true);
      return flags;
    },
    localIrqRestore(ctx, flags) {
      // Before what is pending is taken: a handler is a window of its own.
      irqs.update(ctx.cpu, flags === 0);
      plain.localIrqRestore(ctx, flags);
    },
    localIrqEnable(ctx) {
      irqs.update(ctx.cpu, false);
      plain.localIrqEnable(ctx);
    },
    localIrqDisable(ctx) {
      plain.localIrqDisable(ctx);
      irqs.update(ctx.cpu, true);
    },
    hardirqsOff(cpu) {
      plain.hardirqsOff(cpu);
      irqs.update(cpu, true);
    },
    hardirqsOn(cpu) {
      plain.hardirqsOn(cpu);
      irqs.update(cpu, false);
    },
    scheduleDebug(ctx) {
      plain.scheduleDebug(ctx);
      seeCount(ctx);
      irqs.update(ctx.cpu, irqOn[ctx.cpu] === 0);
    },
  };

  const tracers = { irqsoff: irqs, preemptoff: preemption };
  let tracer: keyof typeof tracers = "irqsoff";
  const reset = (): void => {
    irqs.reset();
    preemption.reset();
  };
  const worst = (): OffWindow | undefined =>
    Array.from({ length: nrCpus }, (_, cpu) => tracers[tracer].longest(cpu)).reduce(
      (most, window) => ((window?.cycles ?? 0) > (most?.cycles ?? 0) ? window : most),
      undefined,
    );

  function* choose(text: string): Sleeping<number> {
    const name = text.trim();
    if (name !== "irqsoff" && name !== "preemptoff") return -EINVAL;
    tracer = name;
    return 0;
  }
  function* forget(text: string): Sleeping<number> {
    if (text.trim() !== "0") return -EINVAL;
    reset();
    return 0;
  }

  return {
    contexts,
    maxIrqsOff: irqs.longest,
    maxPreemptOff: preemption.longest,
    reset,
    registerFiles(registry) {
      const dir = "/sys/kernel/debug/tracing";
      registry.registerText(`${dir}/available_tracers`, { read: () => "preemptoff irqsoff\n" });
      registry.registerText(`${dir}/current_tracer`, {
        read: () => `${tracer}\n`,
        write: (_task, text) => choose(text),
      });
      registry.registerText(`${dir}/tracing_max_latency`, {
        read: () => `${microseconds(worst())}\n`,
        write: (_task, text) => forget(text),
      });
      registry.registerText(`${dir}/trace`, { read: () => formatTrace(tracer, worst(), nrCpus) });
    },
  };
}

const microseconds = (window: OffWindow | undefined): number =>
  Math.floor((window?.cycles ?? 0) / (CYCLES_PER_SECOND / 1_000_000));

/** The head of the report of Linux's latency tracers; without its list of calls, which nobody records here. */
function formatTrace(tracer: string, window: OffWindow | undefined, nrCpus: number): string {
  const { cpu = 0, comm = "swapper", pid = 0, startedAt = "", endedAt = "" } = window ?? {};
  return [
    `# tracer: ${tracer}`,
    "#",
    `# ${tracer} latency trace v1.1.5 on 6.12.0-slabtown`,
    "# --------------------------------------------------------------------",
    `# latency: ${microseconds(window)} us, #0/0, CPU#${cpu} | (M:preempt VP:0, KP:0, SP:0 HP:0 #P:${nrCpus})`,
    "#    -----------------",
    `#    | task: ${comm}-${pid} (uid:0 nice:0 policy:0 rt_prio:0)`,
    "#    -----------------",
    `#  => started at: ${startedAt}`,
    `#  => ended at:   ${endedAt}`,
    "#",
    "",
  ].join("\n");
}
