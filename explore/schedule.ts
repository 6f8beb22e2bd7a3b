/**
 * Schedules as text: the choices of a run that were not the default ones.
 *
 *   0:12>1     CPU 0, before its access 12, gives way to CPU 1            (accesses of a CPU count from 0)
 *   1:7!       an interrupt on CPU 1 before its access 7
 *   >1         CPU 1 begins
 *   -          nothing but defaults: CPU 0 to its end, then CPU 1, …
 *
 * Several in a row, with blanks between. The default keeps the running CPU; when it waits or has ended, the lowest that
 * can go on is next. Replaying is tolerant: an event that never comes about (its access is not reached, its CPU cannot
 * run) is left out, which is what lets schedules be shrunk.
 *
 *   XSC-1  parse(format(events)) = events; replaying the events of a run is that run
 */

import type { ScheduleEvent } from "./engine.ts";
import { defaultChoice, IRQ, type Strategy } from "./strategy.ts";

export function formatSchedule(events: readonly ScheduleEvent[]): string {
  if (events.length === 0) return "-";
  return events
    .map(({ cpu, pos, to }) => (cpu < 0 ? `>${to}` : to >= IRQ ? `${cpu}:${pos}!` : `${cpu}:${pos}>${to}`))
    .join(" ");
}

/** The events, or what is wrong with the text, as a sentence. */
export function parseSchedule(text: string): ScheduleEvent[] | string {
  const events: ScheduleEvent[] = [];
  const words = text.split(/[\s,]+/).filter((word) => word !== "" && word !== "-");
  for (const word of words) {
    const m = /^(?:([0-7]):(\d{1,9}))?(?:>([0-7])|(!))$/.exec(word);
    const isKnown = m !== null && (m[1] !== undefined || m[3] !== undefined);
    if (!isKnown) return `"${word}" is no event (as in 0:12>1, 1:7! or >1; CPUs 0 to 7)`;
    const cpu = m[1] === undefined ? -1 : Number(m[1]);
    const to = m[3] === undefined ? IRQ + cpu : Number(m[3]);
    events.push({ cpu, pos: m[2] === undefined ? 0 : Number(m[2]), to });
  }
  return events;
}

/** Runs one schedule, once. */
export function createReplay(events: readonly ScheduleEvent[]): Strategy {
  let isUsed: boolean[] = [];
  return {
    name: "replay",
    begin() {
      isUsed = events.map(() => false);
    },
    choose(choices, cpu, pos) {
      for (let i = 0; i < events.length; i++) {
        const event = events[i] as ScheduleEvent;
        if (isUsed[i] || event.cpu !== cpu || event.pos !== pos || ((choices >>> event.to) & 1) === 0) continue;
        isUsed[i] = true;
        return event.to;
      }
      return defaultChoice(choices, cpu);
    },
    next: () => false,
    isComplete: () => false,
  };
}
