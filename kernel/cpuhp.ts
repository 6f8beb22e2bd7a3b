/**
 * CPU hot-plug: taking a CPU out of a running system, and back in.
 *
 *   cpuDown:  its tasks move ─▶ its lines move ─▶ it takes what it has latched ─▶ off ─▶ hooks, last registered first
 *   cpuUp:    on ─▶ hooks, first registered first ─▶ tasks may come
 *
 * Whoever keeps something per CPU registers hooks: `offline` takes over what the dead CPU has left, `online` prepares
 * it again. Hooks run on another CPU than the one in question, one after the other, and do not sleep. A hook
 * that answers −errno undoes the whole operation: the hooks that had run are reversed and the CPU stays as it was.
 *
 * CPU 0 cannot go: it takes what nobody else takes (−EBUSY).
 *
 *   HP-1  an offline CPU runs no task, has none on its queue, takes no interrupt and has no device line
 *   HP-2  online hooks run in order of registration, offline hooks in the reverse order, each as often as its twin
 *   HP-3  after a refused cpuDown everything is as before
 *
 * Linux numbers its hooks, and some run on the CPU itself before it is dead. Lines stay where they were moved to, there
 * and here.
 *
 * Source: Linux kernel/cpu.c, drivers/base/cpu.c, arch/x86/kernel/smpboot.c.
 */

import { CYC_CPU_DOWN, CYC_CPU_UP } from "./arch/charges.ts";
import type { Machine } from "./arch/machine.ts";
import type { FileRegistry } from "./file.ts";
import type { Irqs } from "./irq.ts";
import { KERN_INFO, type Printk } from "./printk.ts";
import type { Scheduler } from "./sched.ts";
import type { Task } from "./task.ts";
import { PREEMPTED, type Sleeping, type TaskContext } from "./types.ts";
import { EBUSY, EINVAL } from "./uapi/errno.ts";

/** 0 or nothing: all is well; −errno refuses. */
// biome-ignore lint/suspicious/noConfusingVoidType: a hook with nothing to say returns nothing.
export type CpuhpHook = (ctx: TaskContext, cpu: number) => number | undefined | void;

export interface CpuhpState {
  /** As in /sys/devices/system/cpu/hotplug/states: `mm/slab:online`. */
  readonly name: string;
  readonly online?: CpuhpHook;
  readonly offline?: CpuhpHook;
}

export interface Cpuhp {
  /** Adds hooks; nothing is called for CPUs that are online already. */
  registerCpuhp(state: CpuhpState): void;
  unregisterCpuhp(name: string): void;
  /**
   * Takes a CPU offline: 0 (also if it was), −EINVAL for a CPU that is not there, −EBUSY for CPU 0 and for one that is
   * just going, or what a hook answered. The task may be on that very CPU: it is moved first. Process context.
   */
  cpuDown(task: Task, cpu: number): Sleeping<number>;
  /** Brings a CPU back: 0 (also if it was online), −EINVAL, or what a hook answered. Process context. */
  cpuUp(task: Task, cpu: number): Sleeping<number>;
  /** Makes /sys/devices/system/cpu. */
  registerFiles(registry: FileRegistry): void;
}

export interface CpuhpDeps {
  readonly machine: Machine;
  readonly printk: Printk;
  readonly irqs: Irqs;
  readonly scheduler: Scheduler;
}

const DIR = "/sys/devices/system/cpu";

/** `0-2,4`: numbers as Linux prints sets of CPUs. */
export function formatCpuList(cpus: readonly number[]): string {
  const ranges: string[] = [];
  for (let i = 0; i < cpus.length; i++) {
    const first = cpus[i] as number;
    while (i + 1 < cpus.length && cpus[i + 1] === (cpus[i] as number) + 1) i++;
    ranges.push(first === cpus[i] ? `${first}` : `${first}-${cpus[i]}`);
  }
  return ranges.join(",");
}

export function createCpuhp({ machine, printk, irqs, scheduler }: CpuhpDeps): Cpuhp {
  const { harts, irqChip, mmu } = machine;
  const { clock, online, irqOn, current, timerDeadline, nrCpus } = harts;
  const states: CpuhpState[] = [];

  const isCpu = (cpu: number): boolean => Number.isInteger(cpu) && cpu >= 0 && cpu < nrCpus;
  const charge = (cycles: number): void => {
    const self = current[0] as number;
    clock[self] = (clock[self] as number) + cycles;
  };
  const nextOnline = (except: number): number => {
    for (let cpu = 0; cpu < nrCpus; cpu++) if (cpu !== except && online[cpu] === 1) return cpu;
    return 0;
  };

  /** Calls offline hooks from the last to the first; undoes all and answers −errno if one refuses. */
  const runOffline = (ctx: TaskContext, cpu: number): number => {
    for (let i = states.length - 1; i >= 0; i--) {
      const result = states[i]?.offline?.(ctx, cpu) ?? 0;
      if (result >= 0) continue;
      for (let undo = i + 1; undo < states.length; undo++) states[undo]?.online?.(ctx, cpu);
      return result;
    }
    return 0;
  };
  const runOnline = (ctx: TaskContext, cpu: number): number => {
    for (let i = 0; i < states.length; i++) {
      const result = states[i]?.online?.(ctx, cpu) ?? 0;
      if (result >= 0) continue;
      for (let undo = i - 1; undo >= 0; undo--) states[undo]?.offline?.(ctx, cpu);
      return result;
    }
    return 0;
  };

  /** What the CPU has latched is taken on it a last time: an IPI on its way must not be lost. */
  const takeLastInterrupts = (cpu: number): void => {
    const self = current[0] as number;
    clock[cpu] = Math.max(clock[cpu] as number, clock[self] as number);
    current[0] = cpu;
    irqs.checkpoint(cpu);
    current[0] = self;
  };

  const switchOff = (cpu: number): void => {
    takeLastInterrupts(cpu);
    online[cpu] = 0;
    timerDeadline[cpu] = Number.POSITIVE_INFINITY;
    irqChip.clearCpu(cpu);
    mmu.flushAll(cpu);
    charge(CYC_CPU_DOWN);
  };
  const switchOn = (cpu: number): void => {
    const self = current[0] as number;
    clock[cpu] = Math.max(clock[cpu] as number, clock[self] as number);
    irqOn[cpu] = 1;
    online[cpu] = 1;
    irqChip.clearCpu(cpu);
  };

  function* down(task: Task, cpu: number): Sleeping<number> {
    if (!isCpu(cpu)) return -EINVAL;
    if (online[cpu] === 0) return 0;
    if (cpu === 0 || !scheduler.isActive(cpu)) return -EBUSY;
    scheduler.setActive(cpu, false);
    // The scheduler goes on with this task on a CPU that is still active.
    while (task.ctx.cpu === cpu) yield PREEMPTED;
    const lines = irqs.moveLines(cpu, nextOnline(cpu));
    switchOff(cpu);
    const result = runOffline(task.ctx, cpu);
    if (result < 0) {
      switchOn(cpu);
      for (const line of lines) irqChip.route(line, cpu);
      scheduler.setActive(cpu, true);
      return result;
    }
    printk(KERN_INFO, `smpboot: CPU ${cpu} is now offline`);
    return 0;
  }

  function* up(task: Task, cpu: number): Sleeping<number> {
    if (!isCpu(cpu)) return -EINVAL;
    if (online[cpu] === 1) return 0;
    printk(KERN_INFO, `smpboot: Booting Node 0 Processor ${cpu} APIC 0x${cpu.toString(16)}`);
    charge(CYC_CPU_UP);
    switchOn(cpu);
    const result = runOnline(task.ctx, cpu);
    if (result < 0) switchOff(cpu);
    else scheduler.setActive(cpu, true);
    return Math.min(result, 0);
  }

  const cpusThat = (wanted: number): string =>
    `${formatCpuList(Array.from(online.keys()).filter((cpu) => online[cpu] === wanted))}\n`;

  function* writeOnline(task: Task, cpu: number, text: string): Sleeping<number> {
    const word = text.trim();
    if (word === "0") return yield* down(task, cpu);
    return word === "1" ? yield* up(task, cpu) : -EINVAL;
  }

  return {
    registerCpuhp: (state) => {
      states.push(state);
    },
    unregisterCpuhp(name) {
      const index = states.findIndex((state) => state.name === name);
      if (index >= 0) states.splice(index, 1);
    },
    cpuDown: down,
    cpuUp: up,
    registerFiles(registry) {
      const all = `${formatCpuList(Array.from(online.keys()))}\n`;
      registry.registerText(`${DIR}/possible`, { read: () => all });
      registry.registerText(`${DIR}/present`, { read: () => all });
      registry.registerText(`${DIR}/online`, { read: () => cpusThat(1) });
      registry.registerText(`${DIR}/offline`, { read: () => cpusThat(0) });
      for (let cpu = 0; cpu < nrCpus; cpu++) {
        registry.registerText(`${DIR}/cpu${cpu}/online`, {
          read: () => `${online[cpu]}\n`,
          write: (task, text) => writeOnline(task, cpu, text),
        });
      }
    },
  };
}
