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

import type { DriverCore } from "../../drivers/index.ts";
import type { ProcessMemory } from "../../mm/index.ts";
import { CYC_SYSCALL } from "../arch/charges.ts";
import type { Machine } from "../arch/machine.ts";
import type { ContextTracking } from "../context.ts";
import type { Deferred } from "../deferred.ts";
import type { OpenFile } from "../file.ts";
import type { Irqs } from "../irq.ts";
import { CYCLES_PER_SECOND, CYCLES_PER_TICK } from "../params.ts";
import type { Scheduler } from "../sched.ts";
import type { Task } from "../task.ts";
import { SCHED_FIFO, SCHED_NORMAL } from "../task_struct.ts";
import { type MaySleep, PREEMPTED, type Sleeping } from "../types.ts";
import * as errno from "../uapi/errno.ts";
import { MADV_DONTNEED, O_APPEND, O_CREAT, O_TRUNC } from "../uapi/mman.ts";
import * as sys from "../uapi/syscall.ts";
import { encodeUtf8 } from "../uapi/utf8.ts";
import { createFutex } from "./futex.ts";
import { type Caller, ExitRequest, NR_OPEN, type Processes, type SyscallEntry } from "./process.ts";

const { EBADF, EFAULT, EINVAL, EMFILE, ENAMETOOLONG, ENOMEM, ENOSYS, E2BIG } = errno;
const MAX_PATH = 256;
const MAX_ARGS = 128;
const MAX_ARG_BYTES = 4096;
/** Largest read or write; larger ones are cut, as Unix allows. */
const MAX_IO = 1024 * 1024;

/** What system calls need of the file tree. */
export interface FileTree {
  /** An open file with one reference, or −errno. */
  open(path: string, flags: number): OpenFile | number;
  pipe(): { readEnd: OpenFile; writeEnd: OpenFile } | null;
  unlink(path: string): number;
}

export interface SyscallDeps {
  readonly machine: Machine;
  readonly contexts: ContextTracking;
  readonly irqs: Irqs;
  readonly scheduler: Scheduler;
  readonly processes: Processes;
  readonly processMemory: ProcessMemory;
  readonly files: FileTree;
  readonly drivers: DriverCore;
  readonly deferred: Pick<Deferred, "nrWaiting">;
  readonly powerOff: (restart: boolean) => void;
}

/** How long a reboot waits for works and RCU callbacks: 1 s. */
const SETTLE_CYCLES = CYCLES_PER_SECOND;
/** Longest argument text of a module. */
const MAX_MODULE_ARGS = 1024;

const UTSNAME = ["Slabtown", "slabtown", "6.12.0-slabtown", "#1 SMP PREEMPT_DYNAMIC", "riscv64", "(none)"];

export function createSyscalls(deps: SyscallDeps): SyscallEntry {
  const { machine, irqs, scheduler, processes, processMemory, files } = deps;
  const { clock } = machine.harts;
  const futex = createFutex(scheduler);

  // ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────

  const fileOf = ({ process }: Caller, fd: number): OpenFile | undefined => process.fds[fd];
  const lowestFd = ({ process }: Caller): number => process.fds.indexOf(undefined);

  const open = (caller: Caller, pathPtr: number, flags: number): number => {
    const path = caller.user.string(pathPtr, MAX_PATH);
    if (typeof path === "number") return path;
    const fd = lowestFd(caller);
    if (fd < 0 || fd >= NR_OPEN) return -EMFILE;
    const file = files.open(path, flags & (O_CREAT | O_TRUNC | O_APPEND | 3));
    if (typeof file === "number") return file;
    caller.process.fds[fd] = file;
    return fd;
  };

  const close = ({ process }: Caller, fd: number): number => {
    const file = process.fds[fd];
    if (file === undefined) return -EBADF;
    process.fds[fd] = undefined;
    if (--file.refs === 0) file.release();
    return 0;
  };

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
    const got = yield* file.read(caller.task, Math.min(Math.floor(bytes), MAX_IO));
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
    return source === undefined ? -EFAULT : yield* file.write(caller.task, source);
  }

  const uname = (caller: Caller, buf: number): number => {
    const out = new Uint8Array(65 * UTSNAME.length);
    UTSNAME.forEach((text, i) => {
      out.set(encodeUtf8(text), 65 * i);
    });
    return caller.user.copyTo(buf, out);
  };

  // ── Processes ────────────────────────────────────────────────────────────────────────────────────────────────────

  const readPointer = (bytes: Uint8Array, offset: number): number => {
    const word = (at: number): number =>
      ((bytes[at] as number) |
        ((bytes[at + 1] as number) << 8) |
        ((bytes[at + 2] as number) << 16) |
        ((bytes[at + 3] as number) << 24)) >>>
      0;
    return word(offset) + word(offset + 4) * 2 ** 32;
  };

  const spawn = (caller: Caller, pathPtr: number, argv: number, argc: number, fdsPtr: number): number => {
    const path = caller.user.string(pathPtr, MAX_PATH);
    if (typeof path === "number") return path;
    if (!(argc >= 0 && argc <= MAX_ARGS) || !Number.isInteger(argc)) return -E2BIG;
    const pointers = argc === 0 ? new Uint8Array(0) : caller.user.copyFrom(argv, argc * 8);
    const fdWords = caller.user.copyFrom(fdsPtr, 12);
    if (pointers === undefined || fdWords === undefined) return -EFAULT;
    const args: string[] = [];
    for (let i = 0; i < argc; i++) {
      const arg = caller.user.string(readPointer(pointers, i * 8), MAX_ARG_BYTES);
      if (typeof arg === "number") return arg === -ENAMETOOLONG ? -E2BIG : arg;
      args.push(arg);
    }
    const passed = [0, 4, 8].map((at) => fileOf(caller, fdWords[at] as number));
    const fds: OpenFile[] = [];
    for (const file of passed) {
      if (file === undefined) return -EBADF;
      fds.push(file);
    }
    const pid = processes.spawn(caller.process.pid, path, args, fds);
    if (pid > 0) for (const file of fds) file.refs++;
    return pid;
  };

  function* wait4(caller: Caller, pid: number, statusPtr: number, options: number): Sleeping<number> {
    const result = yield* processes.wait(caller, pid, options);
    if (result.pid <= 0 || statusPtr === 0) return result.pid;
    const { status } = result;
    const word = Uint8Array.of(status & 0xff, (status >>> 8) & 0xff, 0, 0);
    return caller.user.copyTo(statusPtr, word) === 0 ? result.pid : -EFAULT;
  }

  function* nanosleep(caller: Caller, cycles: number): Sleeping<number> {
    if (!(cycles >= 0) || !Number.isFinite(cycles)) return -EINVAL;
    yield* scheduler.sleepUntil(caller.task, (clock[caller.task.ctx.cpu] as number) + cycles);
    return 0;
  }

  function* schedYield(): Sleeping<number> {
    yield PREEMPTED;
    return 0;
  }

  /** What was put off is done first, so that nothing is lost or looks like a leak; whatever never ends is not. */
  function* settle(task: Task, restart: boolean): Sleeping<number> {
    const now = (): number => clock[task.ctx.cpu] as number;
    const end = now() + SETTLE_CYCLES;
    while (deps.deferred.nrWaiting() > 0 && now() < end) yield* scheduler.sleepUntil(task, now() + CYCLES_PER_TICK);
    deps.powerOff(restart);
    return 0;
  }
  const reboot = (task: Task, restart: boolean): MaySleep<number> => {
    if (deps.deferred.nrWaiting() > 0) return settle(task, restart);
    deps.powerOff(restart);
    return 0;
  };

  const setScheduler = (pid: number, policy: number, priority: number): number => {
    const target = processes.get(pid)?.threads.get(pid);
    if (target === undefined) return -errno.ESRCH;
    const isValid =
      (policy === SCHED_NORMAL && priority === 0) ||
      (policy === SCHED_FIFO && priority >= 1 && priority <= 99 && Number.isInteger(priority));
    if (!isValid) return -EINVAL;
    scheduler.setPolicy(target, policy, priority);
    return 0;
  };

  // ── Memory ───────────────────────────────────────────────────────────────────────────────────────────────────────

  const memoryCall = (caller: Caller, nr: number, a: readonly number[]): number => {
    const { ctx } = caller.task;
    const { mm } = caller.process;
    const [addr, bytes, third, fourth] = a as [number, number, number, number];
    switch (nr) {
      case sys.SYS_brk:
        return processMemory.brk(ctx, mm, addr);
      case sys.SYS_mmap:
        return processMemory.mmap(ctx, mm, addr, bytes, third, fourth);
      case sys.SYS_munmap:
        return processMemory.munmap(ctx, mm, addr, bytes);
      case sys.SYS_mprotect:
        return processMemory.mprotect(ctx, mm, addr, bytes, third);
      default:
        return third === MADV_DONTNEED ? processMemory.dropPages(ctx, mm, addr, bytes) : -EINVAL;
    }
  };

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
      case sys.SYS_unlink: {
        const path = caller.user.string(a0, MAX_PATH);
        return typeof path === "number" ? path : files.unlink(path);
      }
      default:
        return caller.user.copyTo(a0, encodeUtf8("/\0")) === 0 ? 2 : -EFAULT;
    }
  };

  // ── Modules ──────────────────────────────────────────────────────────────────────────────────────────────────────

  const initModule = (caller: Caller, namePtr: number, argsPtr: number): MaySleep<number> => {
    const name = caller.user.string(namePtr, MAX_PATH);
    const args = caller.user.string(argsPtr, MAX_MODULE_ARGS);
    if (typeof name === "number") return name;
    if (typeof args === "number") return args;
    return deps.drivers.insmod(caller.task, name, args);
  };

  const deleteModule = (caller: Caller, namePtr: number): MaySleep<number> => {
    const name = caller.user.string(namePtr, MAX_PATH);
    return typeof name === "number" ? name : deps.drivers.rmmod(caller.task, name);
  };

  const processCall = (caller: Caller, nr: number, a: readonly number[]): MaySleep<number> => {
    const [a0, a1, a2, a3] = a as [number, number, number, number];
    switch (nr) {
      case sys.SYS_getpid:
        return caller.process.pid;
      case sys.SYS_getppid:
        return caller.process.parent;
      case sys.SYS_gettid:
        return caller.task.pid;
      case sys.SYS_exit:
        throw new ExitRequest(a0);
      case sys.SYS_exit_group:
        caller.process.ending ??= (a0 & 0xff) << 8;
        throw new ExitRequest(a0);
      case sys.SYS_futex:
        return futex(caller, a0, a1, a2);
      case sys.SYS_nanosleep:
        return nanosleep(caller, a0);
      case sys.SYS_sched_yield:
        return schedYield();
      case sys.SYS_kill:
        return a1 >= 0 && a1 < 65 && Number.isInteger(a1) ? processes.kill(a0, a1) : -EINVAL;
      case sys.SYS_uname:
        return uname(caller, a0);
      case sys.SYS_clone:
        return processes.clone(caller, a2, a3);
      case sys.SYS_wait4:
        return wait4(caller, a0, a1, a2);
      case sys.SYS_spawn:
        return spawn(caller, a0, a1, a2, a3);
      case sys.SYS_thread_join:
        return processes.joinThread(caller, a0);
      case sys.SYS_sched_setscheduler:
        return setScheduler(a0, a1, a2);
      case sys.SYS_init_module:
        return initModule(caller, a0, a1);
      case sys.SYS_delete_module:
        return deleteModule(caller, a0);
      case sys.SYS_reboot:
        return a0 === 0 || a0 === 1 ? reboot(caller.task, a0 === 1) : -EINVAL;
      default:
        return -ENOSYS;
    }
  };

  const MEMORY_CALLS = new Set<number>([sys.SYS_brk, sys.SYS_mmap, sys.SYS_munmap, sys.SYS_mprotect, sys.SYS_madvise]);
  const FILE_CALLS = new Set<number>([
    sys.SYS_getcwd,
    sys.SYS_openat,
    sys.SYS_close,
    sys.SYS_pipe2,
    sys.SYS_lseek,
    sys.SYS_read,
    sys.SYS_getdents64,
    sys.SYS_write,
    sys.SYS_unlink,
  ]);

  return (caller, nr, args) => {
    const { cpu } = caller.task.ctx;
    clock[cpu] = (clock[cpu] as number) + CYC_SYSCALL;
    // Registers hold integers. A program of this machine could pass a fraction or NaN, which no check below expects.
    for (let i = 0; i < args.length; i++) if (!Number.isSafeInteger(args[i])) return -EINVAL;
    const result = MEMORY_CALLS.has(nr)
      ? memoryCall(caller, nr, args)
      : FILE_CALLS.has(nr)
        ? fileCall(caller, nr, args)
        : processCall(caller, nr, args);
    irqs.checkpoint(cpu);
    return typeof result === "object" ? deps.contexts.mustIterate(result) : result;
  };
}
