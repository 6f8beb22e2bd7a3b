/** Tickets: a list of those that are free, and a set of those that are out. */

import type { Tickets } from "../given/api.ts";

export function createTickets(nr: number): Tickets {
  const free: number[] = [];
  for (let ticket = nr - 1; ticket >= 0; ticket--) free.push(ticket);
  const out = new Set<number>();

  return {
    take() {
      const ticket = free.pop();
      if (ticket === undefined) return -1;
      out.add(ticket);
      return ticket;
    },
    give(ticket) {
      if (!out.delete(ticket)) return false;
      free.push(ticket);
      return true;
    },
  };
}
