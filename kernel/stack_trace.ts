/**
 * The stack tracer: how deep the kernel's calls go, by the way into it (stacktrace=on).
 *
 * The code of a task runs on the host's stack. At every place where context tracking is asked for something (each lock,
 * each section with interrupts off, each checkpoint, so on all paths that allocate, free, reclaim, do I/O) the tracer
 * counts the kernel's functions that are open on that stack: from here out to the program, or to the scheduler that has
 * resumed a kernel thread. Each stands for FRAME_BYTES, what a function of a 64-bit kernel takes with its saved
 * registers; a kernel stack of 16 KiB has room for 128 of them. Nothing has to be written at any path.
 *
 *      program │ at ▸ fault ▸ handleFault ▸ … ▸ writeInPlace ▸ passTime ▸ checkpoint ▸ take ▸ handler ▸ …
 *              └ page fault ─────────────────────────────────────────────┘└ and an interrupt on top ─────┘
 *
 * /sys/kernel/debug/tracing/stack_max_size and stack_trace are Linux's (the size column is always FRAME_BYTES);
 * stack_paths has a line for each way in: its deepest number of bytes, and the functions there, outermost first.
 *
 *   STT-1  the traced kernel runs in the same cycles as the plain one
 *   STT-2  only functions of kernel/, mm/ and drivers/ on this side of the last program or scheduler count
 *
 * It looks at the host's stack all the time: some hundred times slower. Everything here is an observer's state, on the
 * host. Source: kernel/trace/trace_stack.c.
 */

import { type HostFrame, hostFrames } from "./bug.ts";
import type { ContextTracking } from "./context.ts";
import type { FileRegistry } from "./file.ts";
import type { Context, Sleeping } from "./types.ts";
import { EINVAL } from "./uapi/errno.ts";

export const FRAME_BYTES = 128;
/** Deeper stacks of the host are cut. */
const MAX_FRAMES = 200;

export interface StackPath {
  /** "page fault", "system call", "kernel thread", each also " + interrupt". */
  readonly way: string;
  /** Innermost first. */
  readonly functions: readonly string[];
}

export interface StackTracer {
  readonly contexts: ContextTracking;
  /** The deepest of each way in. */
  paths(): readonly StackPath[];
  registerFiles(registry: FileRegistry): void;
}

/** What the host calls between two functions of ours, and what only watches. */
const NOISE: ReadonlySet<string> = new Set(["next", "look", "open", "stackOf"]);
const KERNEL_ROOMS: ReadonlySet<string> = new Set(["kernel", "mm", "drivers"]);
/** Who resumes a task: what is outside is nobody's kernel stack. */
const SCHEDULER: ReadonlySet<string> = new Set(["resume", "takeIdle", "advance", "fireTimer", "runOn", "step"]);

/** The kernel's functions that are open, innermost first (STT-2), without the host's observer that asks. */
export function openFrames(): HostFrame[] {
  const host = Error as { stackTraceLimit?: number };
  const limit = host.stackTraceLimit;
  host.stackTraceLimit = MAX_FRAMES;
  const frames = hostFrames(new Error()).filter(({ place }) => !place.includes("stack_trace."));
  if (limit !== undefined) host.stackTraceLimit = limit;
  const first = frames.findIndex(({ room }) => KERNEL_ROOMS.has(room));
  const open: HostFrame[] = [];
  for (const frame of frames.slice(Math.max(0, first))) {
    if (!KERNEL_ROOMS.has(frame.room) || SCHEDULER.has(frame.name)) break;
    if (!NOISE.has(frame.name)) open.push(frame);
  }
  return open;
}

function wayOf(functions: readonly string[]): string {
  const way = ["handleFault", "fault", "makeRoom"].some((name) => functions.includes(name))
    ? "page fault"
    : "kernel thread";
  const entry = functions.includes("syscall") || functions.includes("enterSyscall") ? "system call" : way;
  return functions.includes("takeSafely") ? `${entry} + interrupt` : entry;
}

/** Puts the tracer around a context tracking. Boot, before anything is composed with it. */
export function traceStacks(plain: ContextTracking): StackTracer {
  const deepest = new Map<string, readonly string[]>();

  const look = (): void => {
    const functions = openFrames().map(({ name }) => name);
    const way = wayOf(functions);
    if (functions.length > (deepest.get(way)?.length ?? 0)) deepest.set(way, functions);
  };
  const after =
    <Args extends readonly unknown[], T>(act: (...args: Args) => T): ((...args: Args) => T) =>
    (...args) => {
      look();
      return act(...args);
    };

  const contexts: ContextTracking = {
    ...plain,
    add: after(plain.add),
    preemptDisable: after(plain.preemptDisable),
    localIrqSave: after(plain.localIrqSave),
    localIrqDisable: after(plain.localIrqDisable),
    interruptPoint: after((ctx: Context) => plain.interruptPoint(ctx)),
    mightSleep: after(plain.mightSleep),
  };

  const paths = (): StackPath[] =>
    [...deepest].map(([way, functions]) => ({ way, functions })).sort((a, b) => (a.way < b.way ? -1 : 1));
  const worst = (): readonly string[] =>
    paths().reduce<readonly string[]>((most, { functions }) => (functions.length > most.length ? functions : most), []);

  function* forget(text: string): Sleeping<number> {
    if (text.trim() !== "0") return -EINVAL;
    deepest.clear();
    return 0;
  }

  return {
    contexts,
    paths,
    registerFiles(registry) {
      const dir = "/sys/kernel/debug/tracing";
      registry.registerText(`${dir}/stack_max_size`, {
        read: () => `${worst().length * FRAME_BYTES}\n`,
        write: (_task, text) => forget(text),
      });
      registry.registerText(`${dir}/stack_trace`, { read: () => formatTrace(worst()) });
      registry.registerText(`${dir}/stack_paths`, { read: () => paths().map(formatPath).join("") });
    },
  };
}

const formatPath = ({ way, functions }: StackPath): string =>
  `${way}: ${functions.length * FRAME_BYTES} bytes: ${[...functions].reverse().join(" ")}\n`;

/** Linux's table: from the innermost function out. */
function formatTrace(functions: readonly string[]): string {
  const rows = functions.map((name, i) => {
    const depth = String((functions.length - i) * FRAME_BYTES).padStart(8);
    return `${String(i).padStart(3)}) ${depth} ${String(FRAME_BYTES).padStart(7)}   ${name}`;
  });
  const head = `        Depth    Size   Location    (${functions.length} entries)\n        -----    ----   --------`;
  return `${[head, ...rows].join("\n")}\n`;
}
