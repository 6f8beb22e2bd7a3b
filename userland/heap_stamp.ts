/**
 * Stamps: marks in the blocks of a heap replay by which damage shows.
 *
 *     │ 16 bytes from the id │ … not looked at … │ 8 bytes from the id │      (shorter blocks: what fits)
 *
 * If the allocator hands out memory twice, two blocks overlap at the beginning or the end of one of them, and the
 * later stamp destroys the earlier.
 */

import type { UserMemory } from "../kernel/uapi/program.ts";

const HEAD_WORDS = 4;
const TAIL_WORDS = 2;
/** From this size on a block has a tail of its own. */
const MIN_BYTES_FOR_TAIL = (HEAD_WORDS + TAIL_WORDS) * 4;

export interface Stamper {
  /** Stamps the block of `bytes` bytes at `p`. */
  stamp(p: number, bytes: number, id: number): void;
  isIntact(p: number, bytes: number, id: number): boolean;
  /** As isIntact(), for the head alone: of a block that was `bytes` long and may have been lengthened. */
  isHeadIntact(p: number, bytes: number, id: number): boolean;
  /** True if the places where a stamp goes are zero. */
  isZero(p: number, bytes: number): boolean;
}

/** Word number `i` of the stamp of block `id`; never 0, so that a stamp is not mistaken for fresh memory. */
const stampWord = (id: number, i: number): number =>
  ((Math.imul(id + 1, 0x9e37_79b1) ^ Math.imul(i + 1, 0x85eb_ca6b)) | 1) >>> 0;

/** Byte `i` < 4 of a stamp: of a block too short for a word, or cut short after it was stamped. */
const stampByte = (id: number, i: number): number => (stampWord(id, 0) >>> (8 * i)) & 0xff;

export function createStamper(mem: UserMemory): Stamper {
  const headWords = (bytes: number): number => Math.min(HEAD_WORDS, Math.floor(bytes / 4));
  const tailAt = (p: number, bytes: number): number => p + bytes - (bytes % 4) - TAIL_WORDS * 4;

  const isHeadIntact = (p: number, bytes: number, id: number): boolean => {
    if (bytes < 4) {
      for (let i = 0; i < bytes; i++) if (mem.ld8(p + i) !== stampByte(id, i)) return false;
      return true;
    }
    const nr = headWords(bytes);
    for (let i = 0; i < nr; i++) if (mem.ld32(p + i * 4) !== stampWord(id, i)) return false;
    return true;
  };

  return {
    stamp(p, bytes, id) {
      if (bytes < 4) {
        for (let i = 0; i < bytes; i++) mem.st8(p + i, stampByte(id, i));
        return;
      }
      const nr = headWords(bytes);
      for (let i = 0; i < nr; i++) mem.st32(p + i * 4, stampWord(id, i));
      if (bytes < MIN_BYTES_FOR_TAIL) return;
      for (let i = 0; i < TAIL_WORDS; i++) mem.st32(tailAt(p, bytes) + i * 4, stampWord(id, HEAD_WORDS + i));
    },
    isHeadIntact,
    isIntact(p, bytes, id) {
      if (!isHeadIntact(p, bytes, id)) return false;
      if (bytes < MIN_BYTES_FOR_TAIL) return true;
      for (let i = 0; i < TAIL_WORDS; i++) {
        if (mem.ld32(tailAt(p, bytes) + i * 4) !== stampWord(id, HEAD_WORDS + i)) return false;
      }
      return true;
    },
    isZero(p, bytes) {
      const head = Math.min(bytes, HEAD_WORDS * 4);
      for (let i = 0; i < head; i++) if (mem.ld8(p + i) !== 0) return false;
      for (let i = Math.max(head, bytes - TAIL_WORDS * 4); i < bytes; i++) if (mem.ld8(p + i) !== 0) return false;
      return true;
    },
  };
}
