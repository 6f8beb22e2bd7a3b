/**
 * Rate limits: a message that could come a thousand times a second comes a few times, and then how often it was held
 * back.
 *
 *      interval    |  1  2 … burst  ✗  ✗  ✗ |  "warn_alloc: 3 callbacks suppressed"  1  2 …
 *                  └ begins with the first message after the interval before
 *
 *   RTL-1  at most `burst` messages in an interval; the first one of the next says how many there would have been
 *
 * State in RAM, RATELIMIT_BYTES: 0 begin of the interval f64 (0: none yet) · 8 printed u32 · 12 held back u32.
 * Context: any. Source: lib/ratelimit.c (___ratelimit), include/linux/ratelimit_types.h.
 */

import type { MemoryPort } from "./arch/port.ts";
import { CYCLES_PER_SECOND } from "./params.ts";
import { KERN_WARNING, type Printk } from "./printk.ts";

export const RATELIMIT_BYTES = 16;
export const DEFAULT_RATELIMIT_INTERVAL = 5 * CYCLES_PER_SECOND;
export const DEFAULT_RATELIMIT_BURST = 10;

const PRINTED = 8;
const MISSED = 12;

export interface RateLimit {
  /** Who is limited, as the kernel names it in the line about what was held back. */
  readonly name: string;
  readonly intervalCycles: number;
  readonly burst: number;
}

export const DEFAULT_RATELIMIT = { intervalCycles: DEFAULT_RATELIMIT_INTERVAL, burst: DEFAULT_RATELIMIT_BURST };

/** True if a message may be printed at `now` (RTL-1); `state` is RATELIMIT_BYTES, zeroed, on 8 bytes. */
export function createRatelimit(
  port: MemoryPort,
  printk: Printk,
  state: number,
  { name, intervalCycles, burst }: RateLimit,
): (now: number) => boolean {
  const begin = (now: number): void => {
    const missed = port.ld32(state + MISSED);
    if (missed > 0) printk(KERN_WARNING, `${name}: ${missed} callbacks suppressed`);
    port.stF64(state, Math.max(now, 1));
    port.st32(state + PRINTED, 0);
    port.st32(state + MISSED, 0);
  };
  return (now) => {
    const began = port.ldF64(state);
    if (began === 0 || now > began + intervalCycles) begin(now);
    const printed = port.ld32(state + PRINTED);
    const counter = printed < burst ? PRINTED : MISSED;
    port.st32(state + counter, port.ld32(state + counter) + 1);
    return printed < burst;
  };
}
