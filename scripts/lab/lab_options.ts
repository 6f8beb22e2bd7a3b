/**
 * Values of the options of `slabtown lab …`, as commander leaves them.
 */

import type { Format } from "./formats.ts";

export interface GradingOptions {
  readonly case?: string;
  readonly all?: boolean;
  readonly color: boolean;
  /** True: nothing but ASCII. */
  readonly ascii?: boolean;
  readonly format?: Format;
  readonly seedFile?: string;
  /** The lab, where the folder does not say it (or is not to be asked). */
  readonly lab?: string;
  /** False: leave the folder as it is. */
  readonly history?: boolean;
}

export interface CohortOptions {
  readonly lab?: string;
  readonly jobs?: number;
  readonly seedFile?: string;
  readonly json?: boolean;
  readonly csv?: string;
  readonly quiet?: boolean;
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
