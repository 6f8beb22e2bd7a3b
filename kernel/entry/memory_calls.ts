/**
 * System calls about memory: arguments of a program become those of mm/, open files become their pages.
 *
 * Limits of the process (setrlimit) are handed to its address space before each call; faults between two calls see
 * those of the last one.
 *
 *   SYS-1, SYS-2 (syscall.ts)
 */

import type { FilePart, ProcessMemory, Writeback } from "../../mm/index.ts";
import type { Task } from "../task.ts";
import type { MaySleep, Sleeping } from "../types.ts";
import { EACCES, EBADF, EFAULT, EINVAL, EIO, ENODEV } from "../uapi/errno.ts";
import { MAP_ANONYMOUS } from "../uapi/mman.ts";
import { RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_STACK } from "../uapi/resource.ts";
import * as sys from "../uapi/syscall.ts";
import type { Caller } from "./process.ts";
import { softLimit } from "./rlimit.ts";

/** mincore's vector is copied out at once: at most so many pages in one call. */
const MAX_MINCORE_PAGES = 1 << 20;

export interface MemoryCalls {
  /** Is `nr` one of these calls? */
  has(nr: number): boolean;
  call(caller: Caller, nr: number, args: readonly number[]): MaySleep<number>;
}

export function createMemoryCalls(processMemory: ProcessMemory, writeback: Writeback): MemoryCalls {
  const { files } = processMemory;
  const setLimits = ({ process }: Caller): void => {
    const { rlimits } = process;
    processMemory.setLimits(process.mm, {
      as: softLimit(rlimits, RLIMIT_AS),
      data: softLimit(rlimits, RLIMIT_DATA),
      stack: softLimit(rlimits, RLIMIT_STACK),
      memlock: softLimit(rlimits, RLIMIT_MEMLOCK),
    });
  };

  const mmap = (caller: Caller, a: readonly number[]): number => {
    const [addr, bytes, prot, flags, fd, offset] = a as [number, number, number, number, number, number];
    const { ctx } = caller.task;
    const { mm, fds } = caller.process;
    if ((flags & MAP_ANONYMOUS) !== 0) return processMemory.mmap(ctx, mm, addr, bytes, prot, flags);
    const file = fds[fd];
    if (file === undefined) return -EBADF;
    if (file.mapped === undefined) return -ENODEV;
    return processMemory.mmap(ctx, mm, addr, bytes, prot, flags, { ...file.mapped, offset });
  };

  const mincore = (caller: Caller, addr: number, bytes: number, vec: number): number => {
    if (bytes / 4096 > MAX_MINCORE_PAGES) return -EINVAL;
    const found = processMemory.mincore(caller.task.ctx, caller.process.mm, addr, bytes);
    if (typeof found === "number") return found;
    return caller.user.copyTo(vec, found) === 0 ? 0 : -EFAULT;
  };

  const ftruncate = (caller: Caller, fd: number, bytes: number): number => {
    const file = caller.process.fds[fd];
    if (file === undefined) return -EBADF;
    if (file.mapped === undefined || bytes < 0) return -EINVAL;
    if (processMemory.files.isDisk(file.mapped.mapping)) return -EINVAL;
    if (!file.mapped.canWrite) return -EACCES;
    return processMemory.truncate(caller.task.ctx, file.mapped.mapping, bytes);
  };

  /** MS_SYNC: writes what is dirty of these pages; `error`, or a write error that nobody has been told of. */
  function* syncParts(task: Task, parts: readonly FilePart[], error: number): Sleeping<number> {
    // The mapping may go meanwhile, and the disk's file with it.
    for (const { mapping } of parts) files.get(mapping);
    try {
      for (const { mapping, from, to } of parts) {
        yield* writeback.sync(task, mapping, from, to);
        const seen = writeback.errorsSeen(mapping);
        if (writeback.errorsSince(mapping, seen) !== seen) return -EIO;
      }
      return error;
    } finally {
      for (const { mapping } of parts) files.put(task.ctx, mapping);
    }
  }
  /** MS_ASYNC has nothing to do: stores have made the pages dirty, and the flusher knows when. */
  const msync = (caller: Caller, addr: number, bytes: number, flags: number): MaySleep<number> => {
    const { error, parts } = processMemory.msync(caller.process.mm, addr, bytes, flags);
    return parts.length === 0 ? error : syncParts(caller.task, parts, error);
  };

  type Call = (caller: Caller, a: readonly number[]) => MaySleep<number>;
  /** A call that takes its arguments as they are. */
  const plain =
    (call: (ctx: Caller["task"]["ctx"], mm: Caller["process"]["mm"], ...args: number[]) => number): Call =>
    (caller, a) =>
      call(caller.task.ctx, caller.process.mm, ...a);

  const CALLS: ReadonlyMap<number, Call> = new Map<number, Call>([
    [sys.SYS_brk, plain((ctx, mm, addr = 0) => processMemory.brk(ctx, mm, addr))],
    [sys.SYS_mmap, mmap],
    [sys.SYS_munmap, plain((ctx, mm, addr = 0, bytes = 0) => processMemory.munmap(ctx, mm, addr, bytes))],
    [sys.SYS_mprotect, plain((ctx, mm, addr = 0, n = 0, prot = 0) => processMemory.mprotect(ctx, mm, addr, n, prot))],
    [
      sys.SYS_mremap,
      plain((ctx, mm, addr = 0, old = 0, bytes = 0, flags = 0, to = 0) =>
        processMemory.mremap(ctx, mm, addr, old, bytes, flags, to),
      ),
    ],
    [sys.SYS_madvise, plain((ctx, mm, addr = 0, n = 0, advice = 0) => processMemory.madvise(ctx, mm, addr, n, advice))],
    [sys.SYS_msync, (caller, [addr = 0, bytes = 0, flags = 0]) => msync(caller, addr, bytes, flags)],
    [sys.SYS_mlock, plain((ctx, mm, addr = 0, bytes = 0) => processMemory.mlock(ctx, mm, addr, bytes))],
    [sys.SYS_munlock, plain((ctx, mm, addr = 0, bytes = 0) => processMemory.munlock(ctx, mm, addr, bytes))],
    [sys.SYS_mlockall, plain((ctx, mm, flags = 0) => processMemory.mlockall(ctx, mm, flags))],
    [sys.SYS_munlockall, plain((ctx, mm) => processMemory.munlockall(ctx, mm))],
    [sys.SYS_mincore, (caller, [addr = 0, bytes = 0, vec = 0]) => mincore(caller, addr, bytes, vec)],
    [sys.SYS_ftruncate, (caller, [fd = 0, bytes = 0]) => ftruncate(caller, fd, bytes)],
  ]);

  return {
    has: (nr) => CALLS.has(nr),
    call(caller, nr, args) {
      setLimits(caller);
      return (CALLS.get(nr) as Call)(caller, args);
    },
  };
}
