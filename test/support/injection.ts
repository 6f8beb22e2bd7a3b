/**
 * Interrupts at every point of an operation.
 *
 * `forEachInjection` counts the memory accesses of an operation, then runs it again from the same state once per access
 * at which interrupts are on, with an interrupt injected right before that access, and checks the world after each run.
 * The machine is put back by restoring RAM and registers, so a world must keep its state there (`isFresh: true` boots
 * a new one for each run where it does not).
 *
 * `injectAtRandom` is for larger programs: several interrupts per run, at seeded points.
 */

import { InjectPort } from "../../kernel/arch/inject_port.ts";
import type { Machine } from "../../kernel/arch/machine.ts";
import { type ContextTracking, HARDIRQ_OFFSET } from "../../kernel/context.ts";
import type { IrqContext } from "../../kernel/types.ts";

export interface InjectionWorld {
  /** Booted with `port: "inject"`. */
  readonly machine: Machine;
  readonly contexts: ContextTracking;
}

export interface InjectionCount {
  /** Memory accesses of the operation. */
  readonly accesses: number;
  /** Runs made, one per access with interrupts on. */
  readonly injected: number;
}

export interface InjectionOptions<W> {
  /** Where else than with interrupts on: for example only while a certain task runs. */
  readonly isOpen?: (world: W) => boolean;
  /** Boot a new world for each run. */
  readonly isFresh?: boolean;
  /** CPU that is interrupted. */
  readonly cpu?: number;
}

export function injectPortOf(world: InjectionWorld): InjectPort {
  const { port } = world.machine;
  if (port instanceof InjectPort) return port;
  throw new Error('injection: boot the world with port: "inject"');
}

/** Runs `handler` as a hard interrupt on top of whatever the CPU does; false if it has interrupts off. */
export function interruptNow<W extends InjectionWorld>(
  world: W,
  cpu: number,
  handler: (world: W, irq: IrqContext) => void,
): boolean {
  const { machine, contexts } = world;
  const { irqOn } = machine.harts;
  if (irqOn[cpu] === 0) return false;
  const irq = contexts.irqContext(cpu);
  irqOn[cpu] = 0;
  contexts.add(irq, HARDIRQ_OFFSET);
  handler(world, irq);
  contexts.subtract(irq, HARDIRQ_OFFSET);
  irqOn[cpu] = 1;
  return true;
}

/** What an operation leaves on the CPU has to be what it found. */
function expectLevel(world: InjectionWorld, cpu: number): void {
  const count = world.contexts.preemptCount(world.contexts.taskContext(cpu));
  if (count !== 0) throw new Error(`injection: preempt_count is 0x${count.toString(16)} afterwards`);
  if (world.machine.harts.irqOn[cpu] !== 1) throw new Error("injection: interrupts are off afterwards");
}

/**
 * Runs `operation` once per injection point. `check` throws if anything is wrong or leaked; it runs after each run, and
 * once without any interrupt. An error is thrown on with the number of its point.
 */
export function forEachInjection<W extends InjectionWorld>(
  setup: () => W,
  operation: (world: W) => void,
  interruptHandler: (world: W, irq: IrqContext) => void,
  check: (world: W) => void,
  options: InjectionOptions<W> = {},
): InjectionCount {
  const { isFresh = false, cpu = 0, isOpen = () => true } = options;
  let world = setup();
  const start = world.machine.save();
  const points: number[] = [];
  let accesses = 0;
  const run = (point: number, hook: (nr: number) => void): void => {
    const port = injectPortOf(world);
    try {
      port.setHook(hook);
      operation(world);
      accesses = point < 0 ? port.nrAccesses() : accesses;
      port.setHook(undefined);
      expectLevel(world, cpu);
      check(world);
    } catch (error) {
      port.setHook(undefined);
      if (error instanceof Error) error.message = `interrupt before access ${point} of ${accesses}: ${error.message}`;
      throw error;
    }
  };

  run(-1, (nr) => {
    if (world.machine.harts.irqOn[cpu] === 1 && isOpen(world)) points.push(nr);
  });
  for (const point of points) {
    if (isFresh) world = setup();
    else world.machine.restore(start);
    run(point, (nr) => {
      if (nr === point) interruptNow(world, cpu, interruptHandler);
    });
  }
  return { accesses, injected: points.length };
}

/**
 * Runs `operation` with an interrupt before each access that `shall` names (and at which interrupts are on), for example
 * one in fifty by a seeded draw. Returns the number of interrupts taken.
 */
export function injectAtRandom<W extends InjectionWorld>(
  world: W,
  operation: (world: W) => void,
  interruptHandler: (world: W, irq: IrqContext) => void,
  shall: () => boolean,
  cpu = 0,
): number {
  const port = injectPortOf(world);
  let taken = 0;
  port.setHook(() => {
    if (shall() && interruptNow(world, cpu, interruptHandler)) taken++;
  });
  try {
    operation(world);
  } finally {
    port.setHook(undefined);
  }
  expectLevel(world, cpu);
  return taken;
}
