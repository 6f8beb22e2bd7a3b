/**
 * Values of the options of `slabtown lab …`, as commander leaves them.
 */

import type { Format } from "./formats.ts";

export interface GradingOptions {
  readonly case?: string;
  readonly all?: boolean;
  readonly color: boolean;
  readonly format?: Format;
  readonly seedFile?: string;
  readonly output?: string;
}

export interface QuizOptions {
  readonly seed?: number;
  readonly solve?: boolean;
  readonly answer?: string;
}

export interface ReplayOptions {
  readonly case: string;
  readonly seed: number;
  readonly step?: number;
}
