/**
 * Words that options and scenarios have in common: formats of recordings, what a replay writes into its blocks.
 *
 * Apart from the readers, so that a command line is parsed without loading them.
 */

export type RecordingFormat = "rep" | "mtc" | "ftrace" | "ltrace" | "strace";

/** The formats, for `--format` and its message. */
export const RECORDING_FORMATS: readonly RecordingFormat[] = ["rep", "mtc", "ftrace", "ltrace", "strace"];

export const TOUCH_MODES = ["none", "first", "all"] as const;
export type TouchMode = (typeof TOUCH_MODES)[number];
