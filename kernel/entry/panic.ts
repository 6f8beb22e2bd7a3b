/**
 * Panic: the end of a kernel that cannot go on, and the one place that decides when that is.
 *
 * A bug of the kernel takes the task with it that ran into it (an oops, process.ts). Where there is no such task the
 * kernel stops: in an interrupt, in the scheduler, and in the end of a task that an oops has killed. The last comes of
 * locks: who dies with one in his hand leaves it taken, and the first thing his exit does is to free memory, under that
 * lock. Linux says "Fixing recursive fault but reboot is needed!" then, and hangs; this kernel says why and stops.
 *
 *   PAN-1  no bug of the kernel leaves it as an exception once it runs: what happens in it ends in an oops or a panic
 *   PAN-2  the first panic is the one that is reported, and it is the last thing that is said: why, where, and what
 *          RAM was used for at that moment
 */

import type { Machine } from "../arch/machine.ts";
import { BadAccess } from "../arch/port.ts";
import { KernelBug } from "../bug.ts";
import type { ContextTracking } from "../context.ts";
import { KERN_ALERT, KERN_EMERG, type Printk } from "../printk.ts";
import type { Context } from "../types.ts";

/** What the host sees of how the system is: written here and by reboot(2). */
export interface SystemState {
  powerOff: boolean;
  panicReport: string | null;
}

export interface Panic {
  readonly state: SystemState;
  panic(reason: string): void;
  /** Reports a bug that no task can take with it, and panics. `where`: "in interrupt". */
  die(ctx: Context, error: Error, where: string): void;
  /** Runs `work`; a bug of the kernel that comes out of it is a panic, anything else is thrown on (PAN-1). */
  orDie<T>(work: () => T): T | undefined;
}

export interface PanicDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly printk: Printk;
  /** RAM as a picture; reads a machine that may be broken. */
  readonly memoryMap: () => string;
}

export function createPanic({ machine, contexts, printk, memoryMap }: PanicDeps): Panic {
  const { harts } = machine;
  const state: SystemState = { powerOff: false, panicReport: null };
  const here = (): Context => contexts.taskContext(harts.current[0] as number);
  const panic = (reason: string): void => {
    if (state.panicReport !== null) return;
    state.panicReport = `Kernel panic - not syncing: ${reason}`;
    printk(KERN_EMERG, `${state.panicReport}\n${contexts.stackDump(here())}`);
    printk(KERN_EMERG, memoryMap().trimEnd());
    printk(KERN_EMERG, `---[ end ${state.panicReport} ]---`);
    printk.silence();
  };
  const die = (ctx: Context, error: Error, where: string): void => {
    contexts.taint("D");
    printk(KERN_ALERT, `kernel BUG: ${error.message}\nOops: invalid opcode: 0000 [#1] ${where}`);
    printk(KERN_ALERT, `${contexts.stackDump(ctx, error)}\n---[ end trace 0000000000000000 ]---`);
    panic(`Fatal exception${where === "in interrupt" ? " in interrupt" : ""}`);
  };
  return {
    state,
    panic,
    die,
    orDie(work) {
      try {
        return work();
      } catch (error) {
        if (!(error instanceof KernelBug || error instanceof BadAccess)) throw error;
        die(here(), error, "outside any task");
        return undefined;
      }
    },
  };
}
