/**
 * What this lab gives you: the shape of what you write.
 *
 * Do not change this file: the grader uses its own copy.
 */

export interface Tickets {
  /** A ticket from 0 to n − 1 that nobody has; −1 if there is none. */
  take(): number;
  /** Takes a ticket back; false if it is not out. */
  give(ticket: number): boolean;
}
