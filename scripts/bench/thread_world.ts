/**
 * One thread's view of a parallel machine: a kernel booted on the shared RAM, and the CPU that this thread is.
 *
 * Boot writes RAM from the first line on, and the kernel is made of closures that cannot be sent to another thread. So
 * every thread boots: one after the other, each on the same RAM wiped to zero. Boot is deterministic, hence each ends
 * with the same bytes; the checksum that each thread takes proves it. Afterwards all threads hold equal closures (the
 * same addresses, the same cache numbers) over one RAM, and everything that changes is in that RAM.
 *
 *   thread 0   wipe ─ boot ─ sum │                                 │ ─ run ─ …
 *   thread 1                     │ wipe ─ boot ─ sum               │ ─ run ─ …      all sums equal, or nothing runs
 *   thread 2                     │                 wipe ─ boot ─ … │ ─ run ─ …
 *
 * A port per thread is made once over the RAM that it will always have, so V8 sees constants, as in a run of one.
 */

import type { PortFactory } from "../../kernel/arch/machine.ts";
import { boot } from "../../kernel/entry/boot.ts";
import type { Kernel } from "../../kernel/entry/kernel.ts";
import { createSpinWait } from "../../kernel/spin_wait.ts";
import type { TaskContext } from "../../kernel/types.ts";
import { asPhys } from "../../kernel/types.ts";
import type { KmemCache } from "../../mm/index.ts";
import { createThreadControl, type ThreadControl } from "./control.ts";

export interface WorldSetup {
  readonly cpu: number;
  readonly nrCpus: number;
  readonly seed: string;
  readonly cmdline: string;
  readonly ram: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
  /** Shared words for the workload. */
  readonly data: SharedArrayBuffer;
  /** How long a lock may stay taken before the machine is given up. */
  readonly patienceMs: number;
  /** Test only: module whose `createPort(ram)` makes the port. */
  readonly portModule?: string | undefined;
}

export interface ThreadWorld {
  readonly cpu: number;
  readonly seed: string;
  readonly kernel: Kernel;
  readonly ctx: TaskContext;
  readonly control: ThreadControl;
  readonly data: Int32Array;
  /** 256-byte objects, made in every thread's boot. */
  readonly cache: KmemCache;
  /** Lock address → how often this thread found it taken. */
  readonly contended: ReadonlyMap<number, number>;
  /** Times that it slept on one. */
  nrSleeps(): number;
  readonly checksum: number;
}

/** Somebody held a lock for longer than anybody should. */
export class StuckLock extends Error {
  override readonly name = "StuckLock";
}

/** FNV-1a over the words of RAM, four lanes. */
export function checksumOf(ram: SharedArrayBuffer): number {
  const words = new Int32Array(ram);
  const prime = 0x0100_0193;
  let [a, b, c, d] = [0x811c_9dc5 | 0, 1, 2, 3];
  for (let i = 0; i < words.length; i += 4) {
    a = Math.imul(a ^ (words[i] as number), prime);
    b = Math.imul(b ^ (words[i + 1] as number), prime);
    c = Math.imul(c ^ (words[i + 2] as number), prime);
    d = Math.imul(d ^ (words[i + 3] as number), prime);
  }
  return (a ^ Math.imul(b, 3) ^ Math.imul(c, 5) ^ Math.imul(d, 7)) >>> 0;
}

/** Wipes RAM and boots on it as CPU `setup.cpu`. */
export async function bootWorld(setup: WorldSetup): Promise<ThreadWorld> {
  const { cpu, nrCpus, seed, cmdline, ram } = setup;
  new Int32Array(ram).fill(0);
  const control = createThreadControl(setup.control, cpu);
  const createPort = setup.portModule === undefined ? undefined : await loadPort(setup.portModule);
  const spin = createSpinWait(ram, {
    now: () => performance.now(),
    onSleep: (lock, holder) => control.waitsForLock(lock, holder),
    onStuck: (lock, holder) => {
      throw new StuckLock(`CPU ${cpu} waits for the lock 0x${lock.toString(16)}, which CPU ${holder} holds`);
    },
    patienceMs: setup.patienceMs,
  });
  const kernel = boot({
    nrCpus,
    ramBytes: ram.byteLength,
    seed,
    port: createPort ?? "threads",
    ram,
    onContention: spin.onContention,
    cmdline: `quiet ${cmdline}`,
    console: () => {},
    programs: new Map(),
  });
  const { slab } = kernel.memory;
  const cache = slab.kmemCacheCreate(kernel.contexts.taskContext(0), { name: "bench-256", size: 256 });
  if (cache === asPhys(0)) throw new Error("bench: no memory for a cache");
  kernel.machine.harts.current[0] = cpu;
  return {
    cpu,
    seed,
    kernel,
    ctx: kernel.contexts.taskContext(cpu),
    control,
    data: new Int32Array(setup.data),
    cache,
    contended: spin.contended,
    nrSleeps: spin.nrSleeps,
    checksum: checksumOf(ram),
  };
}

async function loadPort(url: string): Promise<PortFactory> {
  const loaded: unknown = await import(url);
  if (typeof loaded !== "object" || loaded === null || !("createPort" in loaded)) throw new Error("bench: no port");
  return loaded.createPort as PortFactory;
}
