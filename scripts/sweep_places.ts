/**
 * Places that allocate: where in the kernel, and for whom, each request of a run was made.
 *
 *   request 17, 18, 23 … ──▶ memhog: allocFrame < faultAnon < handleFault < fault …  ──▶ 17, 23 and some between
 *   request 19           ──▶ modprobe: kzalloc < bring < probe < insmod …            ──▶ 19
 *
 * A place is the chain of the kernel's functions that are open when it asks, each with its line, and the name of the
 * task; an interrupt's chain ends where the interrupt was taken. A run of tens of thousands of requests has some dozens
 * of places: who tries a few requests of each has been on all paths on which an allocation can fail. What he has not
 * seen are states that only some of the requests of a place meet: there are more of those than places, so K is chosen.
 *
 *   SWP-4  of each place the first request is tried before any place's second; the same places in the same order always
 *   SWP-5  who watches changes nothing: the watched run is the run
 */

import { openFrames } from "../kernel/stack_trace.ts";
import type { RequestObserver } from "../mm/index.ts";

export interface Place {
  /** `memhog: allocFrame < faultAnon < handleFault < fault`, innermost first. */
  readonly name: string;
  /** Numbers of its requests, ascending. */
  readonly requests: readonly number[];
}

export interface PlaceRecorder {
  readonly onRequest: RequestObserver;
  /** In the order of their first requests. */
  places(): readonly Place[];
}

/** Where an interrupt begins: what is outside is not its caller. */
const INTERRUPT_ENTRY = "takeSafely";
const INJECTION = /[\\/]fault_inject\./;

/** Records where requests come from. */
export function createPlaceRecorder(): PlaceRecorder {
  const places = new Map<string, { readonly name: string; readonly requests: number[] }>();
  const onRequest: RequestObserver = (nr, who) => {
    const frames = openFrames().filter(({ place }) => !INJECTION.test(place));
    const entry = frames.findIndex(({ name }) => name === INTERRUPT_ENTRY);
    const own = entry < 0 ? frames : frames.slice(0, entry);
    // kworker/1 is at the place of kworker/0.
    const task = entry < 0 ? who.replace(/\/\d.*$/, "") : "interrupt";
    const key = `${task} ${own.map(({ place }) => place).join(" ")}`;
    const known = places.get(key);
    if (known !== undefined) known.requests.push(nr);
    else places.set(key, { name: `${task}: ${own.map(({ name }) => name).join(" < ")}`, requests: [nr] });
  };
  return { onRequest, places: () => [...places.values()] };
}

/** Up to `count` of `numbers`: the first, the last, then evenly spread ones between. */
export function spread(numbers: readonly number[], count: number): readonly number[] {
  const last = numbers.length - 1;
  if (last < 0 || count < 1) return [];
  const steps = Math.min(count, numbers.length) - 1;
  const at = (i: number): number => numbers[steps === 0 ? 0 : Math.round((i * last) / steps)] as number;
  const between = Array.from({ length: Math.max(0, steps - 1) }, (_, i) => at(i + 1));
  return steps === 0 ? [at(0)] : [at(0), at(steps), ...between];
}

/**
 * Up to `perPlace` requests of each place, in rounds: first all first ones, each also as `N+` (with `isPersistent` all
 * are), then all last ones, then those between.
 */
export function placePlan(places: readonly Place[], perPlace: number, isPersistent: boolean): readonly string[] {
  const chosen = places.map(({ requests }) => spread(requests, perPlace));
  const nrRounds = Math.max(0, ...chosen.map(({ length }) => length));
  const rounds = Array.from({ length: nrRounds }, (_, round) =>
    chosen.flatMap((numbers) => numbers.slice(round, round + 1)).sort((a, b) => a - b),
  );
  return rounds.flatMap((numbers, round) =>
    numbers.flatMap((nth) => (round === 0 || isPersistent ? [`${nth}`, `${nth}+`] : [`${nth}`])),
  );
}
