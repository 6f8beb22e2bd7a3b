/**
 * The interrupt controller: 32 lines, priorities, masks, routes; edges of one CPU beside level wires of devices; NMI.
 *
 * 1. Two kinds of signal reach a CPU on the same 32 line numbers:
 *
 *      edge    raise(cpu, line)      a latch per CPU: timer, IPIs. Taken once, however often it was raised meanwhile
 *      level   setLevel(line, on)    one wire per line, from devices. Pending as long as somebody holds it up
 *
 *    Several devices may hold one wire up (`source` tells them apart): it falls when the last lets go. A wire reaches
 *    the one CPU that its route names.
 *
 * 2. What a CPU could take is summed up in its register `pending`, which the kernel looks at when it switches
 *    interrupts on:  (edges | wires routed here) & not masked & not in service.
 *    acknowledge() takes the line with the least priority number, the lowest line among equals, and only if it is more
 *    urgent than everything the CPU has in service; the line is then in service until complete(). A wire that is still
 *    up at complete() is pending again: the driver has to quiet its device, or it is interrupted for ever.
 *
 * 3. Local clocks differ, and an interrupt is never taken before the moment it was raised. A CPU that is behind that
 *    moment holds it back: acknowledge() does not see it yet, heldUntil() says when it will, and the scheduler ends the
 *    slice there. An idle CPU has nothing else to do: the scheduler brings its clock forward instead.
 *
 * 4. A wire that falls after its CPU was signalled and before it acknowledged leaves the CPU with an interrupt and no
 *    reason: it acknowledges IRQ_SPURIOUS.
 *
 * 5. A non-maskable interrupt is not held back by `irqOn`. On the CPU that is being executed it is taken inside
 *    raiseNmi; on another CPU at its next checkpoint. During an NMI a further one waits for its end.
 *
 *   CHIP-1  pending(cpu) = (edges(cpu) | {wires up with route cpu}) & ~masked & ~in service(cpu); 0 while offline
 *   CHIP-2  acknowledge() returns no line whose moment is later than the CPU's clock
 *   CHIP-3  acknowledge() returns only what is strictly more urgent than all that is in service
 *   CHIP-4  an NMI handler is not entered while one runs on that CPU
 *
 * Sources: RISC-V PLIC (claim and complete, priorities), Intel SDM 3A ch. 10 (local APIC: spurious vector, NMI).
 */

import type { DeviceEvents } from "./events.ts";
import type { Harts } from "./harts.ts";

export const NR_IRQ_LINES = 32;

/** The CPU's own timer. */
export const IRQ_TIMER = 0;
/** Another CPU asks this one to look at its runqueue. */
export const IRQ_RESCHEDULE = 1;
/** Another CPU asks this one to call a function. */
export const IRQ_CALL_FUNCTION = 2;
/** Another CPU has changed a page table that this one uses (mm/tlb.ts). */
export const IRQ_TLB_FLUSH = 3;
/** Console receiver. */
export const IRQ_UART = 4;
/** What a CPU acknowledges when the reason of its interrupt is gone. */
export const IRQ_SPURIOUS = 31;

/** Lines below this one are edges of a single CPU; from here on devices own them. */
export const FIRST_DEVICE_LINE = 4;

/** Priority numbers go from 0, the most urgent, to this one less 1. */
export const NR_IRQ_PRIORITIES = 256;

export interface IrqChip {
  /** Latches edge `line` of CPU `cpu`. Any context; a device may call it. An offline CPU hears nothing. */
  raise(cpu: number, line: number): void;
  /** A device lifts or drops the wire of `line`; `source` (0-31) tells devices on one wire apart. */
  setLevel(line: number, asserted: boolean, source?: number): void;
  isAsserted(line: number): boolean;
  mask(line: number): void;
  unmask(line: number): void;
  isMasked(line: number): boolean;
  /** 0 is most urgent. At power-on each line's priority is its number. */
  setPriority(line: number, priority: number): void;
  /** Which CPU the wire of a line reaches: 0 at power-on. */
  route(line: number, cpu: number): void;
  routeOf(line: number): number;
  /** Takes the most urgent line that may be taken now: it is then in service. −1 if none. Interrupts are off. */
  acknowledge(cpu: number): number;
  /** Ends the service of a line. */
  complete(cpu: number, line: number): void;
  /** Services of a line since its wire was last down: how long somebody has failed to quiet it. */
  servicesSinceLow(line: number): number;
  /** The first moment at which the CPU can take something pending or held back; Infinity if there is nothing. */
  heldUntil(cpu: number): number;
  /** Raises the timer line of each CPU whose deadline has passed, and disarms that timer. */
  checkTimer(cpu: number): void;
  /** Non-maskable interrupt. Any context. */
  raiseNmi(cpu: number): void;
  /** Takes a waiting NMI if the CPU's clock has come to it. Checkpoints only. */
  pollNmi(cpu: number): void;
  /** kernel/nmi.ts registers the NMI vector. */
  onNmi(vector: (cpu: number) => void): void;
  /** Forgets what CPU `cpu` has latched: it goes offline. */
  clearCpu(cpu: number): void;
  /** Everything of the above that a saved machine must hold. */
  readonly registers: readonly (Uint8Array | Uint32Array | Float64Array)[];
  /** CHIP-1 recomputed: the first CPU of which it does not hold, or −1. */
  checkPending(): number;
}

export function createIrqChip(harts: Harts, events: DeviceEvents): IrqChip {
  const { nrCpus, pending, timerDeadline, clock, online, current } = harts;
  /** Latched edges and lines in service, one bit per line; the moment of each edge. */
  const edges = new Uint32Array(nrCpus);
  const inService = new Uint32Array(nrCpus);
  const edgeMoment = new Float64Array(nrCpus * NR_IRQ_LINES);
  /** Who holds each wire up, and since when. */
  const holders = new Uint32Array(NR_IRQ_LINES);
  const wireMoment = new Float64Array(NR_IRQ_LINES);
  const services = new Uint32Array(NR_IRQ_LINES);
  const routes = new Uint8Array(NR_IRQ_LINES);
  const priorities = Uint8Array.from({ length: NR_IRQ_LINES }, (_, line) => line);
  /** Element 0: masked lines. */
  const masked = new Uint32Array(1);
  const nmiWaits = new Uint8Array(nrCpus);
  const nmiRuns = new Uint8Array(nrCpus);
  const nmiMoment = new Float64Array(nrCpus);
  let vector: (cpu: number) => void = () => {};

  /** The moment of whoever raises: a device's own time while its event fires, else the clock of the running CPU. */
  const moment = (): number => (events.isFiring() ? events.now() : (clock[current[0] as number] as number));

  const wiresOf = (cpu: number): number => {
    let word = 0;
    for (let line = 0; line < NR_IRQ_LINES; line++) {
      if (holders[line] !== 0 && routes[line] === cpu) word |= 1 << line;
    }
    return word;
  };
  const pendingOf = (cpu: number): number =>
    online[cpu] === 0
      ? 0
      : ((edges[cpu] as number) | wiresOf(cpu)) & ~(masked[0] as number) & ~(inService[cpu] as number);
  const update = (cpu: number): void => {
    pending[cpu] = pendingOf(cpu);
  };
  const updateAll = (): void => {
    for (let cpu = 0; cpu < nrCpus; cpu++) update(cpu);
  };

  const momentOf = (cpu: number, line: number): number => {
    const bit = 1 << line;
    const isWire = holders[line] !== 0 && routes[line] === cpu;
    const wire = isWire ? (wireMoment[line] as number) : Number.POSITIVE_INFINITY;
    if (((edges[cpu] as number) & bit) === 0) return wire;
    return Math.min(wire, edgeMoment[cpu * NR_IRQ_LINES + line] as number);
  };

  /** Priority of the most urgent line in service; past the last when there is none. */
  const runningPriority = (cpu: number): number => {
    let least = NR_IRQ_PRIORITIES;
    for (let word = inService[cpu] as number; word !== 0; word &= word - 1) {
      least = Math.min(least, priorities[31 - Math.clz32(word & -word)] as number);
    }
    return least;
  };

  const latch = (cpu: number, line: number, when: number): void => {
    if (online[cpu] === 0) return;
    const bit = 1 << line;
    if (((edges[cpu] as number) & bit) === 0) edgeMoment[cpu * NR_IRQ_LINES + line] = when;
    edges[cpu] = (edges[cpu] as number) | bit;
    update(cpu);
  };

  const pollNmi = (cpu: number): void => {
    if (nmiWaits[cpu] === 0 || nmiRuns[cpu] === 1 || (clock[cpu] as number) < (nmiMoment[cpu] as number)) return;
    nmiWaits[cpu] = 0;
    nmiRuns[cpu] = 1;
    vector(cpu);
    nmiRuns[cpu] = 0;
  };

  return {
    raise: (cpu, line) => latch(cpu, line, moment()),
    setLevel(line, asserted, source = 0) {
      const before = holders[line] as number;
      const cpu = routes[line] as number;
      holders[line] = asserted ? before | (1 << source) : before & ~(1 << source);
      const isUp = holders[line] !== 0;
      if (isUp === (before !== 0)) return;
      if (isUp) wireMoment[line] = moment();
      else {
        services[line] = 0;
        const wasSignalled = ((pending[cpu] as number) & (1 << line)) !== 0 && (wireMoment[line] as number) <= moment();
        if (wasSignalled && ((edges[cpu] as number) & (1 << line)) === 0) latch(cpu, IRQ_SPURIOUS, moment());
      }
      update(cpu);
    },
    isAsserted: (line) => holders[line] !== 0,
    mask(line) {
      masked[0] = (masked[0] as number) | (1 << line);
      updateAll();
    },
    unmask(line) {
      masked[0] = (masked[0] as number) & ~(1 << line);
      updateAll();
    },
    isMasked: (line) => ((masked[0] as number) & (1 << line)) !== 0,
    setPriority(line, priority) {
      priorities[line] = priority;
    },
    route(line, cpu) {
      routes[line] = cpu;
      updateAll();
    },
    routeOf: (line) => routes[line] as number,
    acknowledge(cpu) {
      const now = clock[cpu] as number;
      let best = -1;
      let bestPriority = runningPriority(cpu);
      for (let word = pending[cpu] as number; word !== 0; word &= word - 1) {
        const line = 31 - Math.clz32(word & -word);
        const priority = priorities[line] as number;
        if (priority >= bestPriority || momentOf(cpu, line) > now) continue;
        best = line;
        bestPriority = priority;
      }
      if (best < 0) return -1;
      edges[cpu] = (edges[cpu] as number) & ~(1 << best);
      if (holders[best] !== 0 && routes[best] === cpu) services[best] = (services[best] as number) + 1;
      if (best !== IRQ_SPURIOUS) inService[cpu] = (inService[cpu] as number) | (1 << best);
      update(cpu);
      return best;
    },
    complete(cpu, line) {
      inService[cpu] = (inService[cpu] as number) & ~(1 << line);
      update(cpu);
    },
    servicesSinceLow: (line) => services[line] as number,
    heldUntil(cpu) {
      let first = nmiWaits[cpu] === 1 ? (nmiMoment[cpu] as number) : Number.POSITIVE_INFINITY;
      for (let word = pending[cpu] as number; word !== 0; word &= word - 1) {
        first = Math.min(first, momentOf(cpu, 31 - Math.clz32(word & -word)));
      }
      return first;
    },
    checkTimer(cpu) {
      const deadline = timerDeadline[cpu] as number;
      if ((clock[cpu] as number) < deadline) return;
      timerDeadline[cpu] = Number.POSITIVE_INFINITY;
      latch(cpu, IRQ_TIMER, deadline);
    },
    raiseNmi(cpu) {
      if (online[cpu] === 0) return;
      if (nmiWaits[cpu] === 0) nmiMoment[cpu] = moment();
      nmiWaits[cpu] = 1;
      if (current[0] === cpu) pollNmi(cpu);
    },
    pollNmi,
    onNmi(hook) {
      vector = hook;
    },
    clearCpu(cpu) {
      edges[cpu] = 0;
      inService[cpu] = 0;
      nmiWaits[cpu] = 0;
      update(cpu);
    },
    registers: [
      edges,
      inService,
      edgeMoment,
      holders,
      wireMoment,
      services,
      routes,
      priorities,
      masked,
      nmiWaits,
      nmiRuns,
      nmiMoment,
    ],
    checkPending() {
      for (let cpu = 0; cpu < nrCpus; cpu++) if (pending[cpu] !== pendingOf(cpu) >>> 0) return cpu;
      return -1;
    },
  };
}
