/**
 * Colour: whether to use it, decided once, and the few styles that the output has.
 *
 *   --no-color  >  NO_COLOR (not empty)  >  FORCE_COLOR  >  is it a terminal
 *
 * Styles are chosen so that the text says the same without them. Source: no-color.org, force-color.org.
 */

import { Chalk, type ChalkInstance, type ColorSupportLevel } from "chalk";

export interface ColorRequest {
  /** False for `--no-color`. */
  readonly color: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly isTty: boolean;
}

/** The colour level for a stream: 0 none, 1 basic, 2 256 colours, 3 true colour. */
export function colorLevel(request: ColorRequest): ColorSupportLevel {
  if (!request.color) return 0;
  if ((request.env.NO_COLOR ?? "") !== "") return 0;
  const forced = request.env.FORCE_COLOR;
  if (forced !== undefined) {
    if (forced === "0" || forced === "false") return 0;
    return forced === "2" ? 2 : forced === "3" ? 3 : 1;
  }
  return request.isTty && request.env.TERM !== "dumb" ? 1 : 0;
}

export interface Paint {
  heading(text: string): string;
  dim(text: string): string;
  good(text: string): string;
  bad(text: string): string;
}

/** The styles at `level`. Blue and yellow instead of green and red: told apart by everybody. */
export function createPaint(level: ColorSupportLevel): Paint {
  const chalk: ChalkInstance = new Chalk({ level });
  return {
    heading: (text) => chalk.bold(text),
    dim: (text) => chalk.dim(text),
    good: (text) => chalk.blue(text),
    bad: (text) => chalk.bold.yellow(text),
  };
}
