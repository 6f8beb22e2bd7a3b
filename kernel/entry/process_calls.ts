/**
 * System calls about processes, threads, time, modules and the machine (syscall.ts has the rules).
 */

import type { DriverCore } from "../../drivers/index.ts";
import type { Machine } from "../arch/machine.ts";
import type { Deferred } from "../deferred.ts";
import type { OpenFile } from "../file.ts";
import { CYCLES_PER_SECOND, CYCLES_PER_TICK } from "../params.ts";
import type { Scheduler } from "../sched.ts";
import type { Task } from "../task.ts";
import { SCHED_FIFO, SCHED_NORMAL } from "../task_struct.ts";
import { type MaySleep, PREEMPTED, type Sleeping } from "../types.ts";
import { E2BIG, EBADF, EBUSY, EFAULT, EINVAL, EMFILE, ENAMETOOLONG, ENOSYS, ESRCH } from "../uapi/errno.ts";
import * as sys from "../uapi/syscall.ts";
import { encodeUtf8 } from "../uapi/utf8.ts";
import type { BlockFiles } from "./block_files.ts";
import type { Eventcounts } from "./eventcount.ts";
import { createFutex } from "./futex.ts";
import type { PiFutexes } from "./futex_pi.ts";
import { MAX_PATH, userPath } from "./paths.ts";
import { type Caller, ExitRequest, type Processes } from "./process.ts";
import { prlimit } from "./rlimit.ts";

const MAX_ARGS = 128;
const MAX_ARG_BYTES = 4096;
/** How long a reboot waits for works and RCU callbacks: 1 s. */
const SETTLE_CYCLES = CYCLES_PER_SECOND;
const PERSONALITY_ASK = 0xffff_ffff;
/** Longest argument text of a module. */
const MAX_MODULE_ARGS = 1024;

const UTSNAME = ["Slabtown", "slabtown", "6.12.0-slabtown", "#1 SMP PREEMPT_DYNAMIC", "riscv64", "(none)"];

export interface ProcessCallDeps {
  readonly machine: Machine;
  readonly scheduler: Scheduler;
  readonly processes: Processes;
  readonly eventcounts: Eventcounts;
  readonly piFutexes: PiFutexes;
  readonly drivers: DriverCore;
  readonly blockFiles: Pick<BlockFiles, "waitForEnds">;
  readonly deferred: Pick<Deferred, "nrWaiting">;
  readonly powerOff: (restart: boolean) => void;
}

/** A 64-bit pointer in a copy of user memory. */
const readPointer = (bytes: Uint8Array, offset: number): number => {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, 8);
  return view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;
};

const fileOf = ({ process }: Caller, fd: number): OpenFile | undefined => process.fds[fd];

/** argv of a new program, or −errno. */
function stringsOf({ user }: Caller, argv: number, argc: number): string[] | number {
  if (!(argc >= 0 && argc <= MAX_ARGS)) return -E2BIG;
  const pointers = argc === 0 ? new Uint8Array(0) : user.copyFrom(argv, argc * 8);
  if (pointers === undefined) return -EFAULT;
  const args: string[] = [];
  for (let i = 0; i < argc; i++) {
    const arg = user.string(readPointer(pointers, i * 8), MAX_ARG_BYTES);
    if (typeof arg === "number") return arg === -ENAMETOOLONG ? -E2BIG : arg;
    args.push(arg);
  }
  return args;
}

export type ProcessCall = (caller: Caller, nr: number, args: readonly number[]) => MaySleep<number>;

export function createProcessCalls(deps: ProcessCallDeps): ProcessCall {
  const { machine, scheduler, processes, eventcounts } = deps;
  const { clock } = machine.harts;
  const futex = createFutex(scheduler, deps.piFutexes);

  const uname = (caller: Caller, buf: number): number => {
    const out = new Uint8Array(65 * UTSNAME.length);
    UTSNAME.forEach((text, i) => {
      out.set(encodeUtf8(text), 65 * i);
    });
    return caller.user.copyTo(buf, out);
  };

  const spawn = (caller: Caller, pathPtr: number, argv: number, argc: number, fdsPtr: number): number => {
    const path = userPath(caller, pathPtr);
    if (typeof path === "number") return path;
    const args = stringsOf(caller, argv, argc);
    if (typeof args === "number") return args;
    const fdWords = caller.user.copyFrom(fdsPtr, 12);
    if (fdWords === undefined) return -EFAULT;
    const passed = [0, 4, 8].map((at) => fileOf(caller, fdWords[at] as number));
    const fds: OpenFile[] = [];
    for (const file of passed) {
      if (file === undefined) return -EBADF;
      fds.push(file);
    }
    const { pid: parent, rlimits, oomScoreAdj } = caller.process;
    const pid = processes.spawn(parent, path, args, fds, { rlimits, oomScoreAdj });
    if (pid > 0) for (const file of fds) file.refs++;
    return pid;
  };

  const execve = (caller: Caller, pathPtr: number, argv: number, argc: number): MaySleep<number> => {
    const path = userPath(caller, pathPtr);
    if (typeof path === "number") return path;
    const args = stringsOf(caller, argv, argc);
    return typeof args === "number" ? args : processes.execve(caller, path, args);
  };

  function* wait4(caller: Caller, pid: number, statusPtr: number, options: number): Sleeping<number> {
    const result = yield* processes.wait(caller, pid, options);
    if (result.pid <= 0 || statusPtr === 0) return result.pid;
    const { status } = result;
    const word = Uint8Array.of(status & 0xff, (status >>> 8) & 0xff, 0, 0);
    return caller.user.copyTo(statusPtr, word) === 0 ? result.pid : -EFAULT;
  }

  const limits = (caller: Caller, pid: number, resource: number, newPtr: number, oldPtr: number): number => {
    const target = pid === 0 ? caller.process : processes.get(pid);
    return target?.status === undefined ? prlimit(caller.user, target, resource, newPtr, oldPtr) : -ESRCH;
  };

  function* nanosleep(caller: Caller, cycles: number): Sleeping<number> {
    if (!(cycles >= 0) || !Number.isFinite(cycles)) return -EINVAL;
    const { task } = caller;
    const until = (clock[task.ctx.cpu] as number) + cycles;
    do yield* scheduler.sleepUntil(task, until);
    while ((clock[task.ctx.cpu] as number) < until);
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

  /** Any value is taken, as by Linux; most bits are about other systems' programs. */
  const personality = ({ process }: Caller, persona: number): number => {
    const old = process.personality;
    if (persona >>> 0 !== PERSONALITY_ASK) process.personality = persona >>> 0;
    return old;
  };

  const threadOf = (tid: number): Task | undefined => {
    for (const { threads } of processes.all()) {
      const thread = threads.get(tid);
      if (thread !== undefined) return thread;
    }
    return undefined;
  };

  const setScheduler = (tid: number, policy: number, priority: number): number => {
    const target = threadOf(tid);
    if (target === undefined) return -ESRCH;
    const isValid =
      (policy === SCHED_NORMAL && priority === 0) ||
      (policy === SCHED_FIFO && priority >= 1 && priority <= 99 && Number.isInteger(priority));
    if (!isValid) return -EINVAL;
    scheduler.setPolicy(target, policy, priority);
    return 0;
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
    return typeof name === "number" ? name : removeModule(caller.task, name);
  };

  /** A module whose disk is on its way to be closed is in use for that long only (BLK-5). */
  function* removeModule(task: Task, name: string): Sleeping<number> {
    const result = yield* deps.drivers.rmmod(task, name);
    if (result !== -EBUSY || !(yield* deps.blockFiles.waitForEnds(task))) return result;
    return yield* deps.drivers.rmmod(task, name);
  }

  // ── Eventcounts ──────────────────────────────────────────────────────────────────────────────────────────────────

  const openEventcount = (caller: Caller): number => {
    const { fds } = caller.process;
    const fd = fds.indexOf(undefined);
    if (fd < 0) return -EMFILE;
    const file = eventcounts.create(caller.task.ctx);
    if (typeof file === "number") return file;
    fds[fd] = file;
    return fd;
  };

  return (caller, nr, a) => {
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
        return a1 >= 0 && a1 < 65 && Number.isInteger(a1) ? processes.kill(a0, a1, caller.process.pid) : -EINVAL;
      case sys.SYS_uname:
        return uname(caller, a0);
      case sys.SYS_personality:
        return personality(caller, a0);
      case sys.SYS_clone:
        return processes.clone(caller, a2, a3);
      case sys.SYS_fork:
        return processes.fork(caller, a0);
      case sys.SYS_vfork:
        return processes.vfork(caller, a0);
      case sys.SYS_execve:
        return execve(caller, a0, a1, a2);
      case sys.SYS_prlimit64:
        return limits(caller, a0, a1, a2, a3);
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
      case sys.SYS_eventcount:
        return openEventcount(caller);
      case sys.SYS_eventcount_await:
        return eventcounts.awaitValue(caller.task, fileOf(caller, a0), a1, a2);
      case sys.SYS_eventcount_advance:
        return eventcounts.advance(fileOf(caller, a0), a1);
      case sys.SYS_reboot:
        return a0 === 0 || a0 === 1 ? reboot(caller.task, a0 === 1) : -EINVAL;
      default:
        return -ENOSYS;
    }
  };
}
