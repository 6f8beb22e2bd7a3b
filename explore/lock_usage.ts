/**
 * Interrupt usage of locks: a lock that a handler takes must be taken with interrupts off everywhere else on that CPU.
 *
 * Else a handler that comes while the lock is held waits for ever for what it interrupted. The checker remembers for
 * each lock and CPU how it was taken and reports the pair, on any schedule: the interrupt need not hit the moment.
 * A handler that only *tries* waits for nobody (pcp.ts).
 *
 *   LKU-1  reported: taken in a handler on CPU c, not by trying, and on CPU c outside with interrupts on
 */

const IN_HANDLER = 1;
const WITH_IRQS_ON = 2;

export interface LockUsage {
  reset(): void;
  /** A lock is taken; true if that and what is known of it is a bug. */
  used(cpu: number, lock: number, isInIrq: boolean, isIrqOn: boolean, isTry: boolean): boolean;
}

export function createLockUsage(nrCpus: number): LockUsage {
  const bits = new Map<number, number>();
  return {
    reset() {
      if (bits.size > 0) bits.clear();
    },
    used(cpu, lock, isInIrq, isIrqOn, isTry) {
      if (!isIrqOn && !isInIrq) return false;
      if (isInIrq && isTry) return false;
      const key = lock * nrCpus + cpu;
      const known = (bits.get(key) ?? 0) | (isInIrq ? IN_HANDLER : WITH_IRQS_ON);
      bits.set(key, known);
      return known === (IN_HANDLER | WITH_IRQS_ON);
    },
  };
}
