/**
 * The student's side: makes what is under test and calls it. It judges nothing.
 */

import { type CreateInstance, exportedFunction, method } from "../kit/driver.ts";

export const create: CreateInstance = (student, { nr }: { readonly nr: number }) => {
  const tickets = exportedFunction(student, "createTickets", "tickets.ts")(nr);
  return { take: method(tickets, "take", "createTickets"), give: method(tickets, "give", "createTickets") };
};
