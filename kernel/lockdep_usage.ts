/**
 * How a class of locks was used: eight bits, and which of them exclude each other.
 *
 *   bit   0x01 0x02   taken in a hard interrupt, exclusively / as a reader      IN-HARDIRQ-W  IN-HARDIRQ-R
 *         0x04 0x08   taken or held with hard interrupts on                     HARDIRQ-ON-W  HARDIRQ-ON-R
 *         0x10 … 0x80 the same four for softirqs
 *
 * Used in an interrupt and with it on exclude each other, unless both were readers: readers nest.
 * Source: Linux kernel/locking/lockdep.c (usage_str, get_usage_chars, excl_mask).
 */

export const USED_IN = 0x33;
export const ENABLED = 0xcc;
/** Bits that say "exclusively". */
export const WRITE_BITS = 0x55;

/** The bits that contradict `bit`. */
export function exclusiveOf(bit: number): number {
  const group = bit < 0x10 ? bit : bit >>> 4;
  const shift = bit < 0x10 ? 0 : 4;
  switch (group) {
    case 1:
      return (4 | 8) << shift;
    case 2:
      return 4 << shift;
    case 4:
      return (1 | 2) << shift;
    default:
      return 1 << shift;
  }
}

export const irqNameOf = (bit: number): string => (bit < 0x10 ? "HARDIRQ" : "SOFTIRQ");

/** `IN-HARDIRQ-W`, `SOFTIRQ-ON-R`. */
export function usageName(bit: number): string {
  const irq = irqNameOf(bit);
  const kind = (bit & WRITE_BITS) !== 0 ? "W" : "R";
  return (bit & USED_IN) !== 0 ? `IN-${irq}-${kind}` : `${irq}-ON-${kind}`;
}

/** `-.+?`: hardirq, hardirq read, softirq, softirq read. */
export function usageChars(bits: number): string {
  const char = (group: number, shared: number): string => {
    const isIn = (group & (1 << shared)) !== 0;
    const isOn = (group & (4 << shared)) !== 0;
    if (isIn) return isOn ? "?" : "-";
    return isOn ? "+" : ".";
  };
  const [hard, soft] = [bits & 0xf, bits >>> 4];
  return char(hard, 0) + char(hard, 1) + char(soft, 0) + char(soft, 1);
}
