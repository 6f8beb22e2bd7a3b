/**
 * What a scenario is: real kernel code, small programs of operations over it, and bugs that can be planted in it.
 *
 * A program is a word of letters, one operation each (`ppU`: take, take, give the older back). Each CPU runs one; what
 * an operation takes stays in the hands of its CPU (`held`) until another one gives it back. Everything that a body
 * keeps there is made anew when it is run again, as the engine asks.
 */

import type { IrqContext, TaskContext } from "../kernel/types.ts";
import type { FailureKind, Subject } from "./subject.ts";
import type { PageWorld } from "./world.ts";

/** What a CPU has taken, oldest first. */
export type Held = number[];

/** Does one operation; text: what is wrong. */
export type Operation = (ctx: TaskContext | IrqContext, held: Held) => string | undefined;

export interface Mutant {
  readonly name: string;
  /** What is wrong, in a sentence. */
  readonly story: string;
  /** Which reports are right. */
  readonly kinds: readonly FailureKind[];
  /** Preemptions and interrupts that are enough. */
  readonly bound: number;
  /** Where the scenario's own programs do not show it. */
  readonly programs?: readonly string[];
  readonly irqs?: number;
}

export interface Scenario {
  readonly name: string;
  readonly about: string;
  /** CPUs, unless told otherwise, and at most. */
  readonly cpus: number;
  readonly maxCpus: number;
  /** Letter → what it does. */
  readonly operations: ReadonlyMap<string, string>;
  /** The program of each CPU. */
  programs(nrCpus: number): readonly string[];
  /** Letters that random programs are made of; "": they would wait for what nobody brings. */
  readonly randomLetters: string;
  /** What an interrupt does; "": there are none. */
  readonly irqProgram: string;
  /** Interrupts per CPU and run. */
  readonly irqs: number;
  /** Code that waits for locks cannot be judged by DPOR. */
  readonly hasLocks: boolean;
  readonly mutants: readonly Mutant[];
  build(options: BuildOptions): ScenarioWorld;
}

export interface BuildOptions {
  readonly nrCpus: number;
  /** Name of the planted bug; "": none. */
  readonly mutant: string;
}

/** What a scenario is made of, before programs. */
export interface ScenarioWorld {
  readonly world: PageWorld;
  readonly operations: ReadonlyMap<string, Operation>;
  /** When all have ended: `held` of each CPU, and of its interrupts. What is wrong, or null. */
  check(held: readonly Held[]): string | null;
  readonly hints?: readonly (readonly [number, number])[];
  /** The value of a word as people read it, or null for the number itself. */
  showValue?(addr: number, value: number): string | null;
}

export interface Explorable {
  readonly subject: Subject;
  /** Other programs from the next run on. */
  setPrograms(programs: readonly string[]): void;
  programs(): readonly string[];
  watchLocks: PageWorld["watchLocks"];
}

/** A subject whose bodies are what they are, without programs. `watchLocks`: of the world that it was built on. */
export function asExplorable(subject: Subject, watchLocks: PageWorld["watchLocks"]): Explorable {
  return { subject, setPrograms() {}, programs: () => [], watchLocks };
}

/** Puts programs on the CPUs of a scenario's world. */
export function bindPrograms(
  built: ScenarioWorld,
  nrCpus: number,
  first: readonly string[],
  irqProgram: string,
): Explorable {
  const { world, operations } = built;
  let programs = first;
  const held: Held[] = Array.from({ length: nrCpus * 2 }, () => []);

  const perform = (program: string, ctx: TaskContext | IrqContext, hands: Held): string | undefined => {
    for (let i = 0; i < program.length; i++) {
      const wrong = (operations.get(program[i] as string) as Operation)(ctx, hands);
      if (wrong !== undefined) return wrong;
    }
    return undefined;
  };

  const subject: Subject = {
    port: world.port,
    harts: world.machine.harts,
    nrCpus,
    body(cpu) {
      held[cpu] = [];
      held[nrCpus + cpu] = [];
      return perform(programs[cpu] ?? "", world.task(cpu), held[cpu]);
    },
    interrupt:
      irqProgram === ""
        ? undefined
        : (cpu) => world.inInterrupt(cpu, (irq) => perform(irqProgram, irq, held[nrCpus + cpu] as Held)),
    check() {
      for (let cpu = 0; cpu < nrCpus; cpu++) {
        const count = world.contexts.preemptCount(world.task(cpu));
        if (count !== 0) return `CPU ${cpu} ends with preempt_count 0x${count.toString(16)}`;
      }
      return built.check(held);
    },
    nameOf: world.names.nameOf,
    showValue: built.showValue ?? (() => null),
    hints: [...world.hints, ...(built.hints ?? [])],
    balanced: world.balanced,
  };
  world.port.mark();
  return {
    subject,
    setPrograms(others) {
      programs = others;
    },
    programs: () => programs,
    watchLocks: world.watchLocks,
  };
}
