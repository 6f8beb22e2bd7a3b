/**
 * Dynamic partial-order reduction: of all schedules that differ only in the order of independent accesses, one.
 *
 * Two accesses are *dependent* if they touch the same word and one may store. After each run every pair of dependent
 * accesses by different CPUs that nothing else orders marks a point where the other one should go first; only marked
 * points are tried again. *Sleep sets* leave out what an earlier alternative has covered already: a CPU whose next
 * access was tried at a point sleeps below it until something dependent happens.
 *
 *   run     a₀  b₁  c₀ …                    aᵢ: access of CPU i
 *           └───────┘ a and c of one CPU; b and c dependent ⇒ at the point of b, CPU 0 goes first next time
 *
 * Complete without a bound, for a few CPUs with a few operations each: it proves pairs. No interrupts, and no code
 * that waits for locks: a CPU that waits has no next access.
 *
 *   DPR-1  every order of dependent accesses that can happen is run
 *
 * Source: C. Flanagan, P. Godefroid, POPL 2005; P. Godefroid, LNCS 1032 (sleep sets).
 */

import { ATOMIC_LOAD, LOAD } from "../kernel/arch/explore_port.ts";
import { defaultChoice, lowest, MAX_EXPLORED_CPUS, STOP, type Strategy } from "./strategy.ts";

interface Point {
  readonly runnable: number;
  taken: number;
  /** CPUs to be tried here, and tried already. */
  wanted: number;
  tried: number;
  readonly asleep: number;
  readonly kinds: Int32Array;
  readonly addrs: Int32Array;
}

const isStore = (kind: number): boolean => kind !== LOAD && kind !== ATOMIC_LOAD;

export function createDpor(): Strategy {
  const pending = { kind: new Int32Array(MAX_EXPLORED_CPUS), addr: new Int32Array(MAX_EXPLORED_CPUS) };
  const points: Point[] = [];
  let depth = 0;
  let nrCpus = 0;
  let isOver = false;

  const dependent = (p: Point, a: number, q: Point, b: number): boolean =>
    (p.addrs[a] as number) >>> 2 === (q.addrs[b] as number) >>> 2 &&
    (isStore(p.kinds[a] as number) || isStore(q.kinds[b] as number));

  /** Who need not go first at the next point: tried before, and independent of what was taken. */
  const asleepAfter = (p: Point): number => {
    let asleep = 0;
    const candidates = (p.asleep | p.tried) & ~(1 << p.taken);
    for (let rest = candidates; rest !== 0; rest &= rest - 1) {
      const c = lowest(rest);
      if (!dependent(p, c, p, p.taken)) asleep |= 1 << c;
    }
    return asleep;
  };

  /** Marks where the order of two dependent accesses can be turned round. */
  const findRaces = (): void => {
    const vectors = Array.from({ length: nrCpus }, () => new Int32Array(nrCpus));
    const stamps: Int32Array[] = [];
    for (let k = 0; k < points.length; k++) {
      const here = points[k] as Point;
      const c = here.taken;
      const vector = vectors[c] as Int32Array;
      let isFirst = true;
      const joined: Int32Array[] = [];
      for (let j = k - 1; j >= 0; j--) {
        const before = points[j] as Point;
        if (before.taken === c || !dependent(before, before.taken, here, c)) continue;
        const stamp = stamps[j] as Int32Array;
        const isOrdered = (stamp[before.taken] as number) <= (vector[before.taken] as number);
        if (!isOrdered && isFirst) {
          before.wanted |= ((before.runnable >>> c) & 1) !== 0 ? 1 << c : before.runnable;
          isFirst = false;
        }
        joined.push(stamp);
      }
      for (const stamp of joined) {
        for (let i = 0; i < nrCpus; i++) vector[i] = Math.max(vector[i] as number, stamp[i] as number);
      }
      vector[c] = (vector[c] as number) + 1;
      stamps.push(vector.slice());
    }
  };

  return {
    name: "dpor",
    pending,
    begin(cpus) {
      nrCpus = cpus;
      depth = 0;
    },
    choose(choices, cpu) {
      const known = points[depth];
      if (known !== undefined) {
        depth++;
        return known.taken;
      }
      const before = points[depth - 1];
      const asleep = before === undefined ? 0 : asleepAfter(before);
      const awake = choices & ~asleep;
      if (awake === 0) return STOP;
      const taken = defaultChoice(awake, cpu);
      const [kinds, addrs] = [pending.kind.slice(0, nrCpus), pending.addr.slice(0, nrCpus)];
      points.push({ runnable: choices, taken, wanted: 1 << taken, tried: 1 << taken, asleep, kinds, addrs });
      depth++;
      return taken;
    },
    next() {
      points.length = depth;
      findRaces();
      while (points.length > 0) {
        const last = points[points.length - 1] as Point;
        const open = last.wanted & ~last.tried & ~last.asleep;
        if (open !== 0) {
          last.taken = lowest(open);
          last.tried |= 1 << last.taken;
          return true;
        }
        points.pop();
      }
      isOver = true;
      return false;
    },
    isComplete: () => isOver,
  };
}
