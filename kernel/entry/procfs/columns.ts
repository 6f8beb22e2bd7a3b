/**
 * Columns of text: how the files of /proc line up their words and numbers.
 */

import { PAGE_SIZE } from "../../params.ts";

const KIB_PER_PAGE = PAGE_SIZE / 1024;

/** `%<width>lu`: a value at the right edge of its column; it overflows rather than being cut. */
export const right = (value: number | string, width: number): string => String(value).padStart(width);

/** `%-<width>s`. */
export const left = (value: number | string, width: number): string => String(value).padEnd(width);

/** Pages as kilobytes. */
export const pagesToKib = (pages: number): number => pages * KIB_PER_PAGE;

/** The words of a list that is written over several lines. */
export const words = (text: string): readonly string[] => text.trim().split(/\s+/);
