/**
 * What lab 11 gives you: a memory whose words several CPUs access at once, and the functions that you have to write.
 *
 * Do not change this file: the grader uses its own copy.
 */

/** Words of 32 bits, numbered from 0: whole numbers from 0 to 2^32 − 1. Each access happens at once, as a whole. */
export interface Memory {
  /** All of these words are yours, and nothing else is. They are zero before init(). */
  readonly nrWords: number;
  load(word: number): number;
  store(word: number, value: number): void;
  /** Compare-and-swap: stores `desired` if the word is `expected`. Returns what the word was, in either case. */
  cas(word: number, expected: number, desired: number): number;
}

export interface Layout {
  /** Nodes are numbered 1 … nrNodes (at most 255); 0 is no node. There are 2 · nrNodes + 8 words. */
  readonly nrNodes: number;
  /** Tags begin with this number (32 bits; keep as many of its low bits as your tag has). */
  readonly firstTag: number;
}

/** Made anew for each CPU: variables of it are that CPU's own. What CPUs share is in words. */
export interface Freelist {
  /** Called once, before all else, on one CPU: nothing is free. */
  init(): void;
  /** A node that the caller holds becomes free. */
  push(node: number): void;
  /** A node that was free and is now the caller's; 0 if there was none. */
  pop(): number;
  /** `nr` free nodes at once, by one compare-and-swap; all that there are, if there are fewer. */
  refill(nr: number): number[];
}
