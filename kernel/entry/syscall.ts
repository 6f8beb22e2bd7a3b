/**
 * System calls: the door between programs and the kernel.
 *
 * Arguments are integers from a program that may be wrong about everything: each call checks its own, buffers are
 * copied through uaccess, and the answer to nonsense is −errno. A call that has to sleep returns the rest of its work.
 *
 *   SYS-1  no argument whatever makes the kernel oops
 *   SYS-2  a call that fails has no effect
 *   SYS-3  leaving the kernel is a checkpoint: pending interrupts are taken there
 */

import type { ProcessMemory, SwapArea, Writeback } from "../../mm/index.ts";
import { CYC_SYSCALL } from "../arch/charges.ts";
import type { ContextTracking } from "../context.ts";
import { holding, type OpenFile } from "../file.ts";
import type { Irqs } from "../irq.ts";
import type { Task } from "../task.ts";
import type { MaySleep, Sleeping } from "../types.ts";
import { EBADF, EFAULT, EINVAL, EMFILE, ENOMEM, ENOTDIR, ERANGE } from "../uapi/errno.ts";
import { O_APPEND, O_CREAT, O_DIRECT, O_TRUNC } from "../uapi/mman.ts";
import * as sys from "../uapi/syscall.ts";
import { encodeUtf8 } from "../uapi/utf8.ts";
import { createMemoryCalls } from "./memory_calls.ts";
import { userPath } from "./paths.ts";
import { type Caller, NR_OPEN, type SyscallEntry } from "./process.ts";
import { createProcessCalls, type ProcessCallDeps } from "./process_calls.ts";
import { createSignalCalls } from "./signal_calls.ts";
import { createSwapCalls } from "./swap_calls.ts";

/** Largest read or write; larger ones are cut, as Unix allows. */
const MAX_IO = 1024 * 1024;

/** What system calls need of the file tree. */
export interface FileTree {
  /** An open file with one reference, or −errno. `pid` is who asks: /proc/self is its directory. */
  open(path: string, flags: number, pid: number): OpenFile | number;
  pipe(): { readEnd: OpenFile; writeEnd: OpenFile } | null;
  unlink(path: string): number;
  /** Is there a directory at the absolute `path`, as `pid` sees it? */
  isDirectory(path: string, pid: number): boolean;
}

export interface SyscallDeps extends ProcessCallDeps {
  readonly contexts: ContextTracking;
  readonly irqs: Irqs;
  readonly processMemory: ProcessMemory;
  readonly files: FileTree;
  readonly swapArea: SwapArea;
  readonly writeback: Writeback;
}

export function createSyscalls(deps: SyscallDeps): SyscallEntry {
  const { machine, irqs, processMemory, files, writeback } = deps;
  const { clock } = machine.harts;
  const processCall = createProcessCalls(deps);
  const swapCall = createSwapCalls(deps);
  const signalCalls = createSignalCalls(deps);
  const memoryCalls = createMemoryCalls(processMemory, writeback);

  // ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────

  const fileOf = ({ process }: Caller, fd: number): OpenFile | undefined => process.fds[fd];
  const lowestFd = ({ process }: Caller): number => process.fds.indexOf(undefined);

  /** A file that needs something before its first use gets its descriptor only when it has that. */
  function* prepared(caller: Caller, fd: number, file: OpenFile): Sleeping<number> {
    // A fatal signal closes it with all others; until it is ready, another thread of the process may find it unready.
    caller.process.fds[fd] = file;
    const error = yield* holding(file, () => file.prepare?.(caller.task) ?? nothing());
    if (error === 0) return fd;
    if (caller.process.fds[fd] === file) {
      caller.process.fds[fd] = undefined;
      if (--file.refs === 0) file.release();
    }
    return error;
  }
  function* nothing(): Sleeping<number> {
    return 0;
  }

  const open = (caller: Caller, pathPtr: number, flags: number): MaySleep<number> => {
    const path = userPath(caller, pathPtr);
    if (typeof path === "number") return path;
    const fd = lowestFd(caller);
    if (fd < 0 || fd >= NR_OPEN) return -EMFILE;
    const file = files.open(path, flags & (O_CREAT | O_TRUNC | O_APPEND | O_DIRECT | 3), caller.process.pid);
    if (typeof file === "number") return file;
    if (file.prepare !== undefined) return prepared(caller, fd, file);
    caller.process.fds[fd] = file;
    return fd;
  };

  const chdir = (caller: Caller, pathPtr: number): number => {
    const path = userPath(caller, pathPtr);
    if (typeof path === "number") return path;
    if (files.isDirectory(path, caller.process.pid)) {
      caller.process.cwd = path;
      return 0;
    }
    const file = files.open(path, 0, caller.process.pid);
    if (typeof file === "number") return file;
    if (--file.refs === 0) file.release();
    return -ENOTDIR;
  };

  const getcwd = (caller: Caller, buf: number, bytes: number): number => {
    const text = encodeUtf8(`${caller.process.cwd}\0`);
    if (bytes < text.length) return -ERANGE;
    return caller.user.copyTo(buf, text) === 0 ? text.length : -EFAULT;
  };

  const close = ({ process, task }: Caller, fd: number): MaySleep<number> => {
    const file = process.fds[fd];
    if (file === undefined) return -EBADF;
    process.fds[fd] = undefined;
    if (--file.refs > 0) return 0;
    if (file.close !== undefined) return closeAsleep(task, file);
    file.release();
    return 0;
  };
  function* closeAsleep(task: Task, file: OpenFile): Sleeping<number> {
    yield* file.close?.(task) ?? nothing();
    return 0;
  }

  /** −EINVAL for what is no file on a disk, nor one in RAM. */
  const fsync = (caller: Caller, fd: number): MaySleep<number> => {
    const file = fileOf(caller, fd);
    if (file === undefined) return -EBADF;
    if (file.fsync !== undefined) return holding(file, () => file.fsync?.(caller.task) ?? nothing());
    return file.mapped === undefined ? -EINVAL : 0;
  };
  function* sync(task: Task): Sleeping<number> {
    yield* writeback.syncAll(task);
    return 0;
  }

  const pipe = (caller: Caller, fdsPtr: number): number => {
    const first = lowestFd(caller);
    const second = caller.process.fds.indexOf(undefined, first + 1);
    if (first < 0 || second < 0) return -EMFILE;
    if (caller.user.copyTo(fdsPtr, Uint8Array.of(first, 0, 0, 0, second, 0, 0, 0)) !== 0) return -EFAULT;
    const ends = files.pipe();
    if (ends === null) return -ENOMEM;
    caller.process.fds[first] = ends.readEnd;
    caller.process.fds[second] = ends.writeEnd;
    return 0;
  };

  function* read(caller: Caller, fd: number, buf: number, bytes: number): Sleeping<number> {
    const file = fileOf(caller, fd);
    if (file === undefined) return -EBADF;
    if (!(bytes >= 0)) return -EINVAL;
    const got = yield* holding(file, () => file.read(caller.task, Math.min(Math.floor(bytes), MAX_IO)));
    if (typeof got === "number") return got;
    if (caller.user.copyTo(buf, got) === 0) return got.length;
    file.unread?.(got.length);
    return -EFAULT;
  }

  function* write(caller: Caller, fd: number, buf: number, bytes: number): Sleeping<number> {
    const file = fileOf(caller, fd);
    if (file === undefined) return -EBADF;
    if (!(bytes >= 0)) return -EINVAL;
    const source = caller.user.copyFrom(buf, Math.min(Math.floor(bytes), MAX_IO));
    return source === undefined ? -EFAULT : yield* holding(file, () => file.write(caller.task, source));
  }

  const fileCall = (caller: Caller, nr: number, a: readonly number[]): MaySleep<number> => {
    const [a0, a1, a2] = a as [number, number, number];
    switch (nr) {
      case sys.SYS_openat:
        return open(caller, a1, a2);
      case sys.SYS_close:
        return close(caller, a0);
      case sys.SYS_pipe2:
        return pipe(caller, a0);
      case sys.SYS_lseek:
        return fileOf(caller, a0)?.seek(a1, a2) ?? -EBADF;
      case sys.SYS_read:
      case sys.SYS_getdents64:
        return read(caller, a0, a1, a2);
      case sys.SYS_write:
        return write(caller, a0, a1, a2);
      case sys.SYS_fsync:
      case sys.SYS_fdatasync:
        return fsync(caller, a0);
      case sys.SYS_sync:
        return sync(caller.task);
      case sys.SYS_unlink: {
        const path = userPath(caller, a0);
        return typeof path === "number" ? path : files.unlink(path);
      }
      case sys.SYS_chdir:
        return chdir(caller, a0);
      default:
        return getcwd(caller, a0, a1);
    }
  };

  const FILE_CALLS = new Set<number>([
    sys.SYS_getcwd,
    sys.SYS_chdir,
    sys.SYS_openat,
    sys.SYS_close,
    sys.SYS_pipe2,
    sys.SYS_lseek,
    sys.SYS_read,
    sys.SYS_getdents64,
    sys.SYS_write,
    sys.SYS_fsync,
    sys.SYS_fdatasync,
    sys.SYS_sync,
    sys.SYS_unlink,
  ]);

  return (caller, nr, args) => {
    const { cpu } = caller.task.ctx;
    clock[cpu] = (clock[cpu] as number) + CYC_SYSCALL;
    // Registers hold integers. A program of this machine could pass a fraction or NaN, which no check below expects.
    for (let i = 0; i < args.length; i++) if (!Number.isSafeInteger(args[i])) return -EINVAL;
    const result = memoryCalls.has(nr)
      ? memoryCalls.call(caller, nr, args)
      : FILE_CALLS.has(nr)
        ? fileCall(caller, nr, args)
        : nr === sys.SYS_swapon || nr === sys.SYS_swapoff
          ? swapCall(caller, nr, args[0] as number, args[1] as number)
          : signalCalls.has(nr)
            ? signalCalls.call(caller, nr, args)
            : processCall(caller, nr, args);
    irqs.checkpoint(cpu);
    return typeof result === "object" ? deps.contexts.mustIterate(result) : result;
  };
}
