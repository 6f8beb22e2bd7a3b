/**
 * Tiny subjects for the exploration engine: a bare machine, a few words of RAM, a body for each CPU.
 */

import { createEngine, type Engine } from "../../explore/engine.ts";
import type { Subject } from "../../explore/subject.ts";
import { ExplorePort } from "../../kernel/arch/explore_port.ts";
import { createMachine, type Machine } from "../../kernel/arch/machine.ts";

/** Words for toys: `word(i)` are on lines of their own. */
export const word = (i: number): number => 0x10_0000 + i * 64;

export interface Toy {
  readonly machine: Machine;
  readonly port: ExplorePort;
  readonly subject: Subject;
  readonly engine: Engine;
}

export interface ToySpec {
  readonly bodies: readonly ((port: ExplorePort, cpu: number) => string | undefined)[];
  readonly interrupt?: (port: ExplorePort, cpu: number) => undefined;
  readonly check?: (port: ExplorePort) => string | null;
  readonly irqs?: number;
  readonly maxSteps?: number;
}

export function createToy({ bodies, interrupt, check, irqs = 1, maxSteps = 20_000 }: ToySpec): Toy {
  const nrCpus = bodies.length;
  const machine = createMachine({ nrCpus, ramBytes: 8 << 20, seed: "toy", port: (ram) => new ExplorePort(ram) });
  const port = machine.port as ExplorePort;
  port.mark();
  const subject: Subject = {
    port,
    harts: machine.harts,
    nrCpus,
    body: (cpu) => (bodies[cpu] as (typeof bodies)[number])(port, cpu),
    ...(interrupt === undefined ? {} : { interrupt: (cpu: number) => interrupt(port, cpu) }),
    check: () => check?.(port) ?? null,
    nameOf: (addr) => `word ${(addr - word(0)) / 64}`,
  };
  return { machine, port, subject, engine: createEngine(subject, { irqs, maxSteps }) };
}

/** A spinlock as the kernel has it: 0, or 1 + its holder. */
export function lock(port: ExplorePort, cpu: number, at: number): void {
  while (port.cas(at, 0, cpu + 1) !== 0) port.waitUntil(at, 0, true, true);
}
export const unlock = (port: ExplorePort, at: number): void => port.stAtomic(at, 0);
