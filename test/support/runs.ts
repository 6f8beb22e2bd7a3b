/**
 * How often long tests repeat themselves: a short form on every run, the long one with SLABTOWN_SLOW=1.
 *
 * Short is what still finds the planted bugs of the same file; FC_SEED=random takes other programs each time.
 */

const isSlow = process.env.SLABTOWN_SLOW === "1";

/** `short` as a rule, `long` with SLABTOWN_SLOW=1. */
export const runs = (short: number, long: number): number => (isSlow ? long : short);
