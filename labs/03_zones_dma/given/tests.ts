/**
 * What lab 3 gives to your own tests.
 *
 * Do not change this file: the grader uses its own copy.
 */

import type { Dma } from "./api.ts";

/** Your functions over a machine of the test's, with eyes and hands of the CPU and of a device. */
export interface DmaUnderTest extends Dma {
  cpuWrite(address: number, value: number): void;
  cpuRead(address: number): number;
  /** The device at the address that map returned, or behind it. */
  deviceWrite(bus: number, value: number): void;
  deviceRead(bus: number): number;
  /** Frames of a zone that are free. */
  freeFrames(zone: number): number;
  /** Calls of wakeReclaim so far. */
  wakes(): number;
}

export interface DmaConfig {
  /** Each zone: start, end, min, low, ratio; a zone starts where the one below ends. */
  zones: readonly (readonly [start: number, end: number, min: number, low: number, ratio: number])[];
  /** Slots of the bounce area, which starts at frame 1; the lowest zone begins behind it. */
  slots: number;
}

export interface Bench {
  create(config: DmaConfig): DmaUnderTest;
  /** Complains unless `condition` is true. */
  check(condition: boolean, message?: string): void;
  /** Complains unless the two are the same. */
  equal(actual: unknown, expected: unknown, message?: string): void;
}

/** Tests by name. */
export type Tests = Record<string, (t: Bench) => void>;
