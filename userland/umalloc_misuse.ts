/**
 * The misuse desk: says what is wrong with a pointer that free() or realloc() would not take.
 *
 * The check itself is one look at the map (umalloc.ts); here we are off the fast path and walk the heap to name the
 * mistake. The default is to write one line to fd 2 and go on with the heap untouched; glibc would abort.
 */

import { PAGE_SIZE, TASK_SIZE } from "../kernel/params.ts";
import type { ProgramEnv } from "../kernel/uapi/program.ts";
import { SYS_write } from "../kernel/uapi/syscall.ts";
import { promptResult } from "./umalloc_arena.ts";
import type { HeapWalker } from "./umalloc_check.ts";
import {
  FIRST_UNIT,
  MESSAGE_BYTES,
  ST_END,
  ST_MESSAGE,
  ST_NR_MISUSES,
  ST_TOP,
  STATE_OFFSET,
  UNIT_BYTES,
} from "./umalloc_layout.ts";
import { UNIT_CACHED, UNIT_FREE, UNIT_USED } from "./umalloc_map.ts";
import type { MappedBlocks } from "./umalloc_mapped.ts";

export type MisuseKind =
  | "double free"
  | "interior pointer"
  | "misaligned pointer"
  | "foreign pointer"
  | "corrupted heap";

export interface MisuseDesk {
  /** Counts the misuse and tells `onMisuse` or fd 2. The heap must have been set up. */
  report(kind: MisuseKind, ptr: number, caller: string): void;
  /** Finds out what `ptr` is, and reports it. O(heap). */
  reportPointer(ptr: number, caller: string): void;
}

/** The misuse desk of the heap that starts at `base`. */
export function createMisuseDesk(
  env: ProgramEnv,
  base: number,
  walker: HeapWalker,
  blocks: MappedBlocks,
  onMisuse: ((kind: MisuseKind, ptr: number) => void) | undefined,
): MisuseDesk {
  const { mem } = env;
  const state = base + STATE_OFFSET;

  /** For a pointer between the heap's base and the break. */
  const classifyInHeap = (ptr: number): MisuseKind => {
    const u = Math.floor((ptr - base) / UNIT_BYTES);
    if (u < FIRST_UNIT) return "foreign pointer";
    if (ptr % UNIT_BYTES !== 0) return "misaligned pointer";
    // What is top now may have been a chunk that was freed next to it.
    if (u >= mem.ld32(state + ST_TOP)) return "double free";
    const code = walker.holderCode(u);
    if (code === UNIT_USED) return "interior pointer";
    return code === UNIT_FREE || code === UNIT_CACHED ? "double free" : "foreign pointer";
  };

  const classify = (ptr: number): MisuseKind => {
    if (!Number.isInteger(ptr) || ptr < PAGE_SIZE || ptr >= TASK_SIZE) return "foreign pointer";
    if (ptr >= base && ptr < base + mem.ld32(state + ST_END) * UNIT_BYTES) return classifyInHeap(ptr);
    if (blocks.holderOf(ptr) === 0) return "foreign pointer";
    return ptr % UNIT_BYTES === 0 ? "interior pointer" : "misaligned pointer";
  };

  const complain = (kind: MisuseKind, ptr: number, caller: string): void => {
    const what =
      kind === "double free"
        ? "double free detected in umalloc"
        : kind === "corrupted heap"
          ? "corrupted heap"
          : `invalid pointer 0x${Math.trunc(ptr).toString(16)} (${kind})`;
    const line = `${caller}(): ${what}`.slice(0, MESSAGE_BYTES - 1);
    for (let i = 0; i < line.length; i++) mem.st8(state + ST_MESSAGE + i, line.charCodeAt(i));
    mem.st8(state + ST_MESSAGE + line.length, 10);
    // A terminal that is busy would make the write sleep, which a plain function cannot: then the line is lost.
    promptResult(env.syscall(SYS_write, 2, state + ST_MESSAGE, line.length + 1));
  };

  const report: MisuseDesk["report"] = (kind, ptr, caller) => {
    mem.st32(state + ST_NR_MISUSES, mem.ld32(state + ST_NR_MISUSES) + 1);
    if (onMisuse === undefined) complain(kind, ptr, caller);
    else onMisuse(kind, ptr);
  };

  return { report, reportPointer: (ptr, caller) => report(classify(ptr), ptr, caller) };
}
