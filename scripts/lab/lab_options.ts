/**
 * Values of the options of `slabtown lab …`, as commander leaves them.
 */

export interface GradingOptions {
  readonly case?: string;
  readonly all?: boolean;
  readonly color: boolean;
}
