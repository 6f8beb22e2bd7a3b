/**
 * The scratch area of libc: where what is passed to the kernel lies in the process's own memory.
 *
 *     scratch │ strings, pointer arrays, small structures: 16 KiB │ input and output buffer: 16 KiB │
 *
 * One mapping, made at the first call that needs it; pages that are never used are never touched. It belongs to one
 * thread, which does one call at a time: nothing in it outlives a call.
 */

import type { Sleeping } from "../kernel/types.ts";
import { EINVAL, ENAMETOOLONG, ENOMEM } from "../kernel/uapi/errno.ts";
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from "../kernel/uapi/mman.ts";
import type { ProgramEnv } from "../kernel/uapi/program.ts";
import { SYS_mmap } from "../kernel/uapi/syscall.ts";
import { decodeUtf8, encodeUtf8 } from "../kernel/uapi/utf8.ts";

export const STRING_BYTES = 16 * 1024;
export const BUFFER_BYTES = 16 * 1024;

export interface Scratch {
  /** Its address, or −ENOMEM. */
  scratch(): Sleeping<number>;
  /** Gets it now: so that a program that runs out of memory can still say so. */
  reserve(): Sleeping<void>;
  /** `text` as a C string at `offset`: its address, or −errno (−EINVAL for a NUL in it, −ENAMETOOLONG, −ENOMEM). */
  cString(text: string, offset?: number): Sleeping<number>;
  storePointer(at: number, value: number): void;
  loadPointer(at: number): number;
  loadString(at: number): string;
}

export function createScratch(
  { mem }: Pick<ProgramEnv, "mem">,
  call: (nr: number, ...args: readonly number[]) => Sleeping<number>,
): Scratch {
  let scratchBase = 0;

  /** Address of the scratch area, or −ENOMEM. */
  function* scratch(): Sleeping<number> {
    if (scratchBase > 0) return scratchBase;
    const flags = MAP_PRIVATE | MAP_ANONYMOUS;
    const got = yield* call(SYS_mmap, 0, STRING_BYTES + BUFFER_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (got > 0) scratchBase = got;
    return got > 0 ? got : -ENOMEM;
  }

  /** Gets the scratch area now: so that a program that runs out of memory can still say so. */
  function* reserve(): Sleeping<void> {
    const base = yield* scratch();
    if (base < 0) return;
    mem.st8(base, 0);
    mem.st8(base + STRING_BYTES, 0);
  }

  /** `text` as a C string at `offset` of the scratch area: its address, or −errno. */
  function* cString(text: string, offset = 0): Sleeping<number> {
    const base = yield* scratch();
    if (base < 0) return base;
    const bytes = encodeUtf8(text);
    // A NUL inside would silently name something else.
    if (bytes.includes(0)) return -EINVAL;
    if (offset + bytes.length >= STRING_BYTES) return -ENAMETOOLONG;
    mem.write(base + offset, bytes);
    mem.st8(base + offset + bytes.length, 0);
    return base + offset;
  }

  const storePointer = (at: number, value: number): void => {
    mem.st32(at, value % 2 ** 32);
    mem.st32(at + 4, Math.floor(value / 2 ** 32));
  };
  const loadPointer = (at: number): number => mem.ld32(at) + mem.ld32(at + 4) * 2 ** 32;

  const loadString = (at: number): string => {
    let end = at;
    while (mem.ld8(end) !== 0) end++;
    return decodeUtf8(mem.read(at, end - at));
  };

  return { scratch, reserve, cString, storePointer, loadPointer, loadString };
}
