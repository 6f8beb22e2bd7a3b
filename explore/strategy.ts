/**
 * What a strategy is: who runs next, at every point where there is a choice, and which run comes next.
 *
 * Choices are bits: bit c: CPU c executes its next access; bit IRQ + c: an interrupt on CPU c before it. Three kinds
 * of points exist. *Running*: CPU c is at a scheduling point and could go on. *Blocked*: it waits, others must run.
 * *Ended*: its program is over. In the last two c is not among the choices and changing costs nothing.
 *
 *   STR-1  a strategy is a pure function of its seed and of the points it was shown
 */

/** Choice IRQ + c: CPU c takes an interrupt. */
export const IRQ = 8;
/** Most CPUs of an exploration: their choices lie below those of interrupts. */
export const MAX_EXPLORED_CPUS = 8;
const CPUS = (1 << MAX_EXPLORED_CPUS) - 1;

export interface Strategy {
  readonly name: string;
  /** A run begins, of `nrCpus` CPUs. */
  begin(nrCpus: number): void;
  /** One of `choices`. `cpu` has run so far (−1: nobody) and has made `pos` accesses. STOP: this run is of no use. */
  choose(choices: number, cpu: number, pos: number): number;
  /** A run has ended: is there another one? */
  next(): boolean;
  /** No run is left that the strategy's bound allows. */
  isComplete(): boolean;
  /**
   * Kind and address of the access that each CPU would make next, written by the engine for a strategy that has this:
   * it also starts every CPU up to its first scheduling point before the first choice.
   */
  readonly pending?: { readonly kind: Int32Array; readonly addr: Int32Array };
}

export const STOP = -1;

/** The lowest choice, CPUs before interrupts. */
export function lowest(choices: number): number {
  return 31 - Math.clz32(choices & -choices);
}

/** What happens unless somebody decides otherwise: the same CPU goes on, else the lowest one, else an interrupt. */
export function defaultChoice(choices: number, cpu: number): number {
  if (cpu >= 0 && ((choices >>> cpu) & 1) !== 0) return cpu;
  return lowest((choices & CPUS) === 0 ? choices : choices & CPUS);
}

/** Does taking `choice` cost one unit of the bound: a CPU that could go on is stopped, or an interrupt comes in? */
export function isPreemption(choices: number, cpu: number, choice: number): boolean {
  const canGoOn = cpu >= 0 && ((choices >>> cpu) & 1) !== 0;
  return choice >= IRQ ? choice !== defaultChoice(choices, cpu) : canGoOn && choice !== cpu;
}

/** The n-th choice, n from 0. */
export function nthChoice(choices: number, n: number): number {
  let rest = choices;
  for (let i = 0; i < n; i++) rest &= rest - 1;
  return lowest(rest);
}

export function nrChoices(choices: number): number {
  let n = 0;
  for (let rest = choices; rest !== 0; rest &= rest - 1) n++;
  return n;
}
