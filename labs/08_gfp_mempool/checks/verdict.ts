/**
 * What the parts of the judge of lab 8 have in common: claims with events, and how they are shown.
 */

import type { Json } from "../../kit/program.ts";

export type Verdict = { readonly kind: string; readonly message: string } | null;
export type Event = readonly Json[];
export interface Seen {
  readonly value: Json;
  readonly events: readonly Event[];
}

export function fail(kind: string, message: string): NonNullable<Verdict> {
  return { kind, message };
}

/** A claim `[value, events]`; what is none is a value without events. */
export function seenOf(claim: Json | undefined): Seen {
  if (!Array.isArray(claim) || !Array.isArray(claim[1])) return { value: claim ?? null, events: [] };
  const events = claim[1].map((event: Json): Event => (Array.isArray(event) ? event : [event]));
  return { value: (claim[0] ?? null) as Json, events };
}

const CALLS: readonly unknown[] = ["take", "give", "kswapd", "reclaim"];

/** Calls of the machine that move pages, without those of an interrupt. */
export function callsOf({ events }: Seen): Event[] {
  let depth = 0;
  return events.filter(([what]) => {
    if (what === "irq") depth++;
    if (what === "iret") depth--;
    return depth === 0 && CALLS.includes(what);
  });
}

export function hadInterrupt({ events }: Seen): boolean {
  return events.some(([what]) => what === "irq");
}

/** What the call itself did: behind it run tasks that it, or an interrupt, has woken. */
export function ownEvents({ events }: Seen): readonly Event[] {
  const end = events.findIndex(([what]) => what === "resume");
  return end < 0 ? events : events.slice(0, end);
}

/** The lock was taken, not by an interrupt. */
export function hasLock(seen: Seen): boolean {
  let depth = 0;
  return ownEvents(seen).some(([what]) => {
    if (what === "irq") depth++;
    if (what === "iret") depth--;
    return depth === 0 && what === "lock";
  });
}

export function count(nr: number, what: string): string {
  return `${nr} ${what}${nr === 1 ? "" : "s"}`;
}

export function show(claim: Json | undefined): string {
  if (typeof claim === "object" && claim !== null && "not" in claim) return String(claim.not);
  const text = JSON.stringify(claim) ?? "nothing";
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}
