/**
 * The end of a run: programs that have to stop, things that have to be put in order, contents that were wrong.
 *
 *   kill ── until no program is left ── settle ── `finally` programs, one after another ── settle ── compare
 *
 * At the end nothing fails on purpose any more. Whoever cannot be killed, and a `finally` program that cannot be
 * started or does not end, is itself a finding.
 */

import type { Kernel, TaskInfo } from "../kernel/entry/kernel.ts";
import { CYCLES_PER_SECOND } from "../kernel/params.ts";
import { ENOMEM } from "../kernel/uapi/errno.ts";
import { SIGKILL } from "../kernel/uapi/mman.ts";

/** How long a killed program may live on: drivers and mempools wait for seconds. */
export const KILL_PATIENCE_CYCLES = 20 * CYCLES_PER_SECOND;
/** How long init may take to bury the dead. */
const SETTLE_CYCLES = 200_000_000;
const SLICE_CYCLES = 10_000_000;

/** Lets the kernel go on until it has nothing more to do. */
export function settle(kernel: Kernel): void {
  if (kernel.panicReport === null) kernel.run({ untilCycles: kernel.now() + SETTLE_CYCLES });
}

/** Kernel threads that end by themselves: they load drivers, or look for a swap disk, however long that takes. */
const ENDING_THREAD = /^(modprobe|kmod|swapon)$/;

/** The same at the end: nobody is taken for left behind who is about to go. */
export function settleAtEnd(kernel: Kernel): void {
  settle(kernel);
  const end = kernel.now() + KILL_PATIENCE_CYCLES;
  const isEnding = ({ isKernelThread, comm }: TaskInfo): boolean => isKernelThread && ENDING_THREAD.test(comm);
  while (kernel.panicReport === null && kernel.now() < end && kernel.tasks().some(isEnding)) {
    if (kernel.run({ untilCycles: kernel.now() + SLICE_CYCLES }) !== "budget") return;
  }
}

/** SIGKILL to every program but init; how many there were. */
export function killPrograms(kernel: Kernel): number {
  const isProgram = ({ isKernelThread, pid, tgid, state }: TaskInfo): boolean =>
    !isKernelThread && pid === tgid && state !== "Z";
  const programs = kernel.tasks().filter(isProgram);
  return programs.filter(({ pid, comm }) => !(pid === 1 && comm === "init") && kernel.kill(pid, SIGKILL) === 0).length;
}

/** A machine so small that a command had no memory beside what drivers and caches hold: nothing can be said. */
export const NO_MEMORY = "no memory for a command";

/** Ends what is left, removes the files that programs made, and runs `commands`; what went wrong, or null. */
export function putInOrder(kernel: Kernel, commands: readonly (readonly string[])[]): string | null {
  kernel.stopFaults();
  settleAtEnd(kernel);
  const end = kernel.now() + KILL_PATIENCE_CYCLES;
  while (killPrograms(kernel) > 0) {
    if (kernel.now() >= end) return "programs that cannot be killed";
    if (kernel.run({ untilCycles: kernel.now() + SLICE_CYCLES }) !== "budget" && killPrograms(kernel) > 0) {
      return "programs that nothing wakes, not even SIGKILL";
    }
  }
  kernel.removeFiles();
  for (const words of commands) {
    const problem = runCommand(kernel, words);
    if (problem === NO_MEMORY) return NO_MEMORY;
    if (problem !== null) return `${words.join(" ")}: ${problem}`;
  }
  settleAtEnd(kernel);
  return kernel.check();
}

function runCommand(kernel: Kernel, words: readonly string[]): string | null {
  const name = words[0] ?? "";
  const pid = kernel.spawn(name.startsWith("/") ? name : `/bin/${name}`, words);
  if (pid === -ENOMEM) return NO_MEMORY;
  if (pid < 0) return `could not be started (error ${-pid})`;
  const end = kernel.now() + KILL_PATIENCE_CYCLES;
  while (kernel.exitStatus(pid) === undefined) {
    if (kernel.now() >= end) return "does not end";
    if (kernel.run({ untilCycles: kernel.now() + SLICE_CYCLES }) !== "budget") break;
  }
  return kernel.exitStatus(pid) === undefined ? "waits for what never comes" : null;
}

/** What iotest and pktsink print about bytes that are not what they should be. */
const WRONG_CONTENT = /\b(\d+) (?:wrong|corrupt)\b/g;
const MAX_LINE = 1000;
const HEAP_DAMAGED = 3;
const KERNEL_REPLAY_DAMAGED = 1;

interface EndedWorkload {
  readonly kind: string;
  readonly exitStatus: number | undefined;
}

/** Did this replay find other contents than it had written? */
export function isDamaged({ kind, exitStatus }: EndedWorkload): boolean {
  return (
    (kind === "heap" && exitStatus === HEAP_DAMAGED) || (kind === "kernel" && exitStatus === KERNEL_REPLAY_DAMAGED)
  );
}

export interface ContentWatch {
  printed(text: string): void;
  nrWrong(): number;
}

/** Counts what programs print about wrong contents. */
export function createContentWatch(): ContentWatch {
  let nrWrong = 0;
  return {
    printed(text) {
      // They print lines; what is longer is a file.
      if (text.length > MAX_LINE) return;
      for (const match of text.matchAll(WRONG_CONTENT)) nrWrong += Number(match[1]);
    },
    nrWrong: () => nrWrong,
  };
}
