/**
 * User mode: the loads and stores of a program, through its page tables, and the kernel's own access to user memory.
 *
 *   program ─▶ UserMemory.ld32(va) ─▶ TLB / walk ─▶ RAM
 *                                        └ fault ─▶ handleFault ─▶ again, or a signal that unwinds the program
 *
 * A program's access that is not allowed raises a signal by throwing `FatalSignal`, which unwinds the program's
 * generator up to the scheduler: the simulated trap. The kernel's own copies (uaccess) never throw: a bad user pointer
 * is −EFAULT for the caller.
 *
 *   UAC-1  no byte outside the process's mappings is read or written by either
 *   UAC-2  every access costs CYC_USER_ACCESS, bulk copies CYC_PER_LINE per 64 bytes, misses and faults what they do
 */

import type { ProcessMemory } from "../../mm/index.ts";
import { CYC_PER_LINE, CYC_USER_ACCESS } from "../arch/charges.ts";
import type { Machine } from "../arch/machine.ts";
import type { Mmu } from "../arch/mmu.ts";
import type { MemoryPort } from "../arch/port.ts";
import { PAGE_SIZE } from "../params.ts";
import type { PhysAddr, TaskContext } from "../types.ts";
import { EFAULT, EIO, ENAMETOOLONG, ENOMEM, ENXIO } from "../uapi/errno.ts";
import { SIGBUS, SIGKILL, SIGSEGV } from "../uapi/mman.ts";
import type { UserMemory } from "../uapi/program.ts";
import { decodeUtf8 } from "../uapi/utf8.ts";

/** Unwinds a program that a signal kills. `message` is what the log says about it. */
export class FatalSignal extends Error {
  readonly signal: number;
  readonly isOutOfMemory: boolean;
  constructor(signal: number, message: string, isOutOfMemory = false) {
    super(message);
    this.isOutOfMemory = isOutOfMemory;
    this.name = "FatalSignal";
    this.signal = signal;
  }
}

/** The process is dying already: not even the kernel's own copies go on. */
export class DyingSignal extends FatalSignal {
  constructor(signal: number) {
    super(signal, "");
    this.name = "DyingSignal";
  }
}

/** Serves a fault: the physical address, or throws FatalSignal. */
export type FaultHandler = (va: number, isWrite: boolean) => number;

/**
 * Frees memory for a fault that found none, and has undone what it began: true if it is worth to try again. Throws
 * DyingSignal if the process was killed for that.
 */
export type MakeRoom = (ctx: TaskContext) => boolean;

export interface FaultDeps {
  readonly machine: Machine;
  readonly processMemory: ProcessMemory;
  readonly makeRoom: MakeRoom;
  /** The way back from a fault is a checkpoint. */
  readonly interruptPoint: (ctx: TaskContext) => void;
}

/** A fault handler for one task; looks the address space up at each fault. */
export function createFaultHandler(deps: FaultDeps, ctx: TaskContext, mm: PhysAddr): FaultHandler {
  const { machine, processMemory, makeRoom, interruptPoint } = deps;
  const { mmu } = machine;
  return (va, isWrite) => {
    let result = processMemory.handleFault(ctx, mm, va, isWrite);
    while (result === -ENOMEM && makeRoom(ctx)) result = processMemory.handleFault(ctx, mm, va, isWrite);
    interruptPoint(ctx);
    if (result === 0) {
      const addr = mmu.translate(ctx.cpu, va, isWrite);
      if (addr >= 0) return addr;
    }
    const where = Number.isInteger(va) && va >= 0 ? va.toString(16).padStart(16, "0") : String(va);
    if (result === -ENXIO) throw new FatalSignal(SIGBUS, `bus error at ${where}`);
    if (result === -EIO) throw new FatalSignal(SIGBUS, `page at ${where} cannot be read from swap`);
    if (result === -ENOMEM) throw new FatalSignal(SIGKILL, `out of memory at a page fault, address ${where}`, true);
    throw new FatalSignal(SIGSEGV, `segfault at ${where} ip 0000000000010000 error ${isWrite ? 6 : 4}`);
  };
}

/** The memory that a program sees. One class for all programs, so that its accesses stay monomorphic. */
export class TaskMemory implements UserMemory {
  private readonly port: MemoryPort;
  private readonly mmu: Mmu;
  private readonly clock: Float64Array;
  private readonly ctx: TaskContext;
  private readonly fault: FaultHandler;

  constructor(machine: Machine, ctx: TaskContext, fault: FaultHandler) {
    this.port = machine.port;
    this.mmu = machine.mmu;
    this.clock = machine.harts.clock;
    this.ctx = ctx;
    this.fault = fault;
  }

  private at(va: number, isWrite: boolean): number {
    const cpu = this.ctx.cpu;
    this.clock[cpu] = (this.clock[cpu] as number) + CYC_USER_ACCESS;
    const addr = this.mmu.translate(cpu, va, isWrite);
    return addr >= 0 ? addr : this.fault(va, isWrite);
  }
  private at4(va: number, isWrite: boolean): number {
    const addr = this.at(va, isWrite);
    if ((addr & 3) !== 0) throw new FatalSignal(SIGBUS, `misaligned access at ${va.toString(16)}`);
    return addr;
  }

  ld8(va: number): number {
    return this.port.ld8(this.at(va, false));
  }
  ld32(va: number): number {
    return this.port.ld32(this.at4(va, false));
  }
  st8(va: number, value: number): void {
    this.port.st8(this.at(va, true), value & 0xff);
  }
  st32(va: number, value: number): void {
    this.port.st32(this.at4(va, true), value >>> 0);
  }

  /** Calls `part` for each piece of `[va, va + bytes)` that lies in one page. */
  private forEachPart(
    va: number,
    bytes: number,
    isWrite: boolean,
    part: (addr: number, n: number, done: number) => void,
  ) {
    const { ctx } = this;
    for (let done = 0; done < bytes; ) {
      const addr = this.at(va + done, isWrite);
      const n = Math.min(bytes - done, PAGE_SIZE - (addr & (PAGE_SIZE - 1)));
      this.clock[ctx.cpu] = (this.clock[ctx.cpu] as number) + CYC_PER_LINE * Math.ceil(n / 64);
      part(addr, n, done);
      done += n;
    }
  }
  fill(va: number, byte: number, bytes: number): void {
    this.forEachPart(va, bytes, true, (addr, n) => this.port.fill(addr, byte & 0xff, n));
  }
  copy(dst: number, src: number, bytes: number): void {
    if (dst === src || !(bytes > 0)) return;
    // Through a host buffer: overlapping ranges and pages that are not neighbours in RAM are one case.
    this.write(dst, this.read(src, bytes));
  }
  read(va: number, bytes: number): Uint8Array {
    const out = new Uint8Array(bytes);
    this.forEachPart(va, bytes, false, (addr, n, done) => out.set(this.port.readBytes(addr, n), done));
    return out;
  }
  write(va: number, source: Uint8Array): void {
    this.forEachPart(va, source.length, true, (addr, n, done) =>
      this.port.writeBytes(addr, source.subarray(done, done + n)),
    );
  }
}

/** copy_from_user, copy_to_user: bytes, or −EFAULT / 0, never an exception. */
export interface UserAccess {
  copyFrom(ptr: number, bytes: number): Uint8Array | undefined;
  /** 0 or −EFAULT. */
  copyTo(ptr: number, source: Uint8Array): number;
  /** NUL-terminated string of at most `max` bytes; −EFAULT for a bad pointer, −ENAMETOOLONG without a NUL. */
  string(ptr: number, max: number): string | number;
}

/** Largest single copy that a system call accepts. */
const MAX_COPY = 16 * 1024 * 1024;

/** uaccess over a task's memory. */
export function createUserAccess(memory: UserMemory): UserAccess {
  const guarded = <T>(access: () => T): T | undefined => {
    try {
      return access();
    } catch (error) {
      if (error instanceof FatalSignal && !(error instanceof DyingSignal)) return undefined;
      throw error;
    }
  };
  const write = (ptr: number, source: Uint8Array): boolean => {
    memory.write(ptr, source);
    return true;
  };
  return {
    copyFrom: (ptr, bytes) =>
      Number.isInteger(ptr) && bytes >= 0 && bytes <= MAX_COPY ? guarded(() => memory.read(ptr, bytes)) : undefined,
    copyTo: (ptr, source) => (Number.isInteger(ptr) && guarded(() => write(ptr, source)) === true ? 0 : -EFAULT),
    string(ptr, max) {
      if (!Number.isInteger(ptr)) return -EFAULT;
      const bytes: number[] = [];
      const isWhole = guarded(() => {
        for (let i = 0; i < max; i++) {
          const byte = memory.ld8(ptr + i);
          if (byte === 0) return true;
          bytes.push(byte);
        }
        return false;
      });
      if (isWhole === undefined) return -EFAULT;
      return isWhole ? decodeUtf8(Uint8Array.from(bytes)) : -ENAMETOOLONG;
    },
  };
}
