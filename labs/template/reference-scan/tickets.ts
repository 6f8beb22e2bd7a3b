/** Tickets: a mark for each that is out, and a search for one without. */

import type { Tickets } from "../given/api.ts";

export function createTickets(nr: number): Tickets {
  const isOut = new Uint8Array(nr);

  function take(): number {
    // BLANK BEGIN find a ticket that is not out, and mark it (TIC-1, TIC-2)
    for (let ticket = 0; ticket < nr; ticket++) {
      if (isOut[ticket] === 1) continue;
      isOut[ticket] = 1;
      return ticket;
    }
    return -1;
    // BLANK END
  }

  function give(ticket: number): boolean {
    // BLANK BEGIN take it back if it is out, else refuse (TIC-3)
    if (isOut[ticket] !== 1) return false;
    isOut[ticket] = 0;
    return true;
    // BLANK END
  }

  return { take, give };
}
