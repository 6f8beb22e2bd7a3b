/**
 * A chain of marks, small: each is kept as what changed since the one before it, deflated.
 *
 *   mark 1 ── XOR 0 ──▶ deflate      mark 2 ── XOR mark 1 ──▶ deflate      …
 *
 * Ten bytes a frame (page sum, owner) of which few change; what did not is zero and deflates to nothing. Read in order,
 * from the first on: that is how a run is repeated.
 */

import { deflateRawSync, inflateRawSync } from "node:zlib";
import type { Mark } from "./mark.ts";

const BYTES_PER_FRAME = 10;
const DEFLATE = { level: 4 } as const;

/** A mark in a chain: what is short of it, and the block of what is long. */
export interface StoredMark extends Omit<Mark, "sums" | "owners"> {
  readonly registers: Mark["sums"]["registers"];
  readonly random: Mark["sums"]["random"];
  readonly ownerNames: readonly string[];
  readonly block: Uint8Array;
}

/** A chain that grows. */
export interface MarkChain {
  readonly stored: readonly StoredMark[];
  add(mark: Mark): void;
}

export function createMarkChain(): MarkChain {
  const stored: StoredMark[] = [];
  let last: Uint8Array | undefined;
  return {
    stored,
    add({ sums, owners, ...rest }) {
      const bytes = markBytes(sums.pages, owners.owner);
      const block = deflateRawSync(exclusiveOr(bytes, last), DEFLATE);
      const { registers, random } = sums;
      stored.push({ ...rest, registers, random, ownerNames: owners.names, block });
      last = bytes;
    },
  };
}

/** The marks of a chain, in order. Throws for a block that is not of a machine with `nrFrames` frames. */
export function* readMarks(stored: readonly StoredMark[], nrFrames: number): Generator<Mark, void> {
  const size = nrFrames * BYTES_PER_FRAME;
  let before: Uint8Array | undefined;
  for (const { registers, random, ownerNames, block, ...rest } of stored) {
    const inflated = inflateRawSync(block, { maxOutputLength: size });
    if (inflated.length !== size) throw new RangeError("a mark is too short");
    before = exclusiveOr(inflated, before);
    const view = new DataView(before.buffer, before.byteOffset);
    const pages = Uint32Array.from({ length: 2 * nrFrames }, (_, i) => view.getUint32(4 * i, true));
    const owner = Uint16Array.from({ length: nrFrames }, (_, i) => view.getUint16(8 * nrFrames + 2 * i, true));
    yield { ...rest, sums: { pages, registers, random }, owners: { owner, names: ownerNames } };
  }
}

function markBytes(pages: Uint32Array, owner: Uint16Array): Uint8Array {
  const bytes = new Uint8Array(pages.byteLength + owner.byteLength);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < pages.length; i++) view.setUint32(4 * i, pages[i] as number, true);
  for (let i = 0; i < owner.length; i++) view.setUint16(pages.byteLength + 2 * i, owner[i] as number, true);
  return bytes;
}

/** `bytes` XOR `other`, in a buffer of its own. */
function exclusiveOr(bytes: Uint8Array, other: Uint8Array | undefined): Uint8Array {
  const result = Uint8Array.from(bytes);
  if (other !== undefined)
    for (let i = 0; i < result.length; i++) result[i] = (bytes[i] as number) ^ (other[i] as number);
  return result;
}
