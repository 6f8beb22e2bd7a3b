/**
 * A drawn stream as a file, so that every process of a figure, in JavaScript or in C, replays the very same bytes.
 *
 *   int32   magic "STR1", number of operations, number of slots, operations that only fill
 *   int32   words[operations]        slot · 2 + (1 for a free)
 *   uint16  sizes[operations]
 *
 * All little-endian, as every computer that runs Node is. native_replay.c is the other reader.
 */

import { readFileSync, writeFileSync } from "node:fs";
import type { OpStream } from "./streams.ts";

const MAGIC = 0x3152_5453;
const HEADER_WORDS = 4;

export function writeStream(path: string, { words, sizes, nrSlots, nrFill }: OpStream): void {
  const bytes = new Uint8Array(HEADER_WORDS * 4 + words.byteLength + sizes.byteLength);
  new Int32Array(bytes.buffer, 0, HEADER_WORDS).set([MAGIC, words.length, nrSlots, nrFill]);
  new Int32Array(bytes.buffer, HEADER_WORDS * 4, words.length).set(words);
  new Uint16Array(bytes.buffer, HEADER_WORDS * 4 + words.byteLength, sizes.length).set(sizes);
  writeFileSync(path, bytes);
}

/** The stream in `path`. Throws if it is none. */
export function readStream(path: string): OpStream {
  const file = readFileSync(path);
  // A small file may lie anywhere in a buffer that Node shares; views of words need a multiple of four.
  const bytes = Uint8Array.from(file);
  const [magic, nrOps = 0, nrSlots = 0, nrFill = 0] = new Int32Array(bytes.buffer, 0, HEADER_WORDS);
  if (magic !== MAGIC || bytes.length !== HEADER_WORDS * 4 + nrOps * 6) throw new Error(`bench: ${path} is no stream`);
  const words = new Int32Array(bytes.buffer, HEADER_WORDS * 4, nrOps);
  return { words, sizes: new Uint16Array(bytes.buffer, HEADER_WORDS * 4 + nrOps * 4, nrOps), nrSlots, nrFill };
}
