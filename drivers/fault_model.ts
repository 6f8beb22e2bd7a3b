/**
 * Faults of a device: which of its acts go wrong, drawn from the device's own random stream or told by number.
 *
 *   lost_irq      the act is done, the interrupt for it never comes
 *   late          the act is done late, by the setting `late_cycles`
 *   corrupt       the act ends with an error in its status, or with wrong bytes
 *   twice         the act is reported a second time
 *   never         the act is begun and never ends
 *   vanish        the device is gone: it reads as all ones, as on PCI, and acts no more
 *   stray_write   the device writes outside what was mapped for it
 *
 * A rule is a probability (`0.01`), or an occurrence by number (`#3`: the third chance and no other). A device model
 * asks `strikes(kind)` once at each chance; asking draws. Each kind has a stream of its own, so that a rule for one
 * moves no draw of another.
 *
 *   FLT-1  strikes() counts chances of its kind and nothing else; without a rule it draws nothing
 *
 * Host state: faults are a property of the hardware.
 */

import type { Prng } from "../kernel/lib/prng.ts";

export const FAULT_KINDS = ["lost_irq", "late", "corrupt", "twice", "never", "vanish", "stray_write"] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

/** A probability from 0 to 1, or `#N` for the N-th chance, N ≥ 1. */
export type FaultRule = number | string;

export interface FaultModel {
  /** True when the act that happens now goes wrong in this way. Counts a chance. */
  strikes(kind: FaultKind): boolean;
  /** Replaces the rule of a kind and counts its chances from 0 again. */
  setRule(kind: FaultKind, rule: FaultRule): void;
  /** How often a kind has struck. */
  nrStruck(kind: FaultKind): number;
}

interface FaultState {
  probability: number;
  nth: number;
  nrChances: number;
  nrStruck: number;
}

/** The rule as numbers: `probability` or `nth` is 0; undefined for a text or number that is no rule. */
export function parseFaultRule(rule: FaultRule): { probability: number; nth: number } | undefined {
  if (typeof rule === "number") return rule >= 0 && rule <= 1 ? { probability: rule, nth: 0 } : undefined;
  const nth = /^#([1-9]\d{0,8})$/.exec(rule)?.[1];
  if (nth !== undefined) return { probability: 0, nth: Number(nth) };
  return /^(0|1|0?\.\d+|1\.0+)$/.test(rule) ? { probability: Number(rule), nth: 0 } : undefined;
}

/** The faults of one device; `streamOf` gives the random stream of a kind. Throws for what is no rule. */
export function createFaultModel(
  streamOf: (kind: FaultKind) => Prng,
  rules: Readonly<Partial<Record<FaultKind, FaultRule>>>,
): FaultModel {
  const states = new Map<FaultKind, FaultState>();

  const setRule = (kind: FaultKind, rule: FaultRule): void => {
    const parsed = parseFaultRule(rule);
    if (parsed === undefined) throw new Error(`${rule} is no fault: a probability from 0 to 1, or #N`);
    states.set(kind, { ...parsed, nrChances: 0, nrStruck: states.get(kind)?.nrStruck ?? 0 });
  };
  for (const kind of FAULT_KINDS) {
    const rule = rules[kind];
    if (rule !== undefined) setRule(kind, rule);
  }

  return {
    strikes(kind) {
      const state = states.get(kind);
      if (state === undefined) return false;
      state.nrChances++;
      const isHit =
        state.nth > 0
          ? state.nrChances === state.nth
          : state.probability > 0 && streamOf(kind).next() < state.probability;
      if (isHit) state.nrStruck++;
      return isHit;
    },
    setRule,
    nrStruck: (kind) => states.get(kind)?.nrStruck ?? 0,
  };
}
