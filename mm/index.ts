/**
 * The front door of the memory subsystem: what other rooms may use.
 */

export { gfpNames, parseGfpNames } from "./gfp.ts";
