/**
 * InjectPort: a memory port that lets something happen before any access.
 *
 * Interrupts come between two instructions; in this machine they come at checkpoints, which is enough to run, and hides
 * every bug that needs one between a load and its store. This port stands around another one and calls a hook before
 * each access, with the number of the access: a test injects an interrupt there, at each of them in turn.
 *
 *   kernel code ──▶ InjectPort ──▶ hook(number)? ──▶ BoundsPort ──▶ RAM
 *
 *   INJ-1  accesses that are made inside the hook are not counted and do not call it
 *   INJ-2  without a hook it does what the port inside does
 *
 * An atomic operation (cas, casBelow, fetchAdd), a copy and a fill are one access: the hook never comes in the middle.
 * A copy or fill of ordinary memory can be interrupted on real hardware; nothing in this kernel looks at half of one.
 */

import type { MemoryPort } from "./port.ts";

export type AccessHook = (nrAccess: number) => void;

export class InjectPort implements MemoryPort {
  readonly sizeBytes: number;
  private readonly inner: MemoryPort;
  private hook: AccessHook | undefined;
  private nr = 0;
  private isInside = false;

  constructor(inner: MemoryPort) {
    this.inner = inner;
    this.sizeBytes = inner.sizeBytes;
  }

  /** Calls `hook` before each access from now on, counting from 0; undefined takes it away. */
  setHook(hook: AccessHook | undefined): void {
    this.hook = hook;
    this.nr = 0;
    this.isInside = false;
  }

  /** Accesses since setHook. */
  nrAccesses(): number {
    return this.nr;
  }

  private before(): void {
    const { hook } = this;
    if (hook === undefined || this.isInside) return;
    this.isInside = true;
    hook(this.nr++);
    this.isInside = false;
  }

  ld8(addr: number): number {
    this.before();
    return this.inner.ld8(addr);
  }
  ld16(addr: number): number {
    this.before();
    return this.inner.ld16(addr);
  }
  ld32(addr: number): number {
    this.before();
    return this.inner.ld32(addr);
  }
  ldF64(addr: number): number {
    this.before();
    return this.inner.ldF64(addr);
  }
  st8(addr: number, value: number): void {
    this.before();
    this.inner.st8(addr, value);
  }
  st16(addr: number, value: number): void {
    this.before();
    this.inner.st16(addr, value);
  }
  st32(addr: number, value: number): void {
    this.before();
    this.inner.st32(addr, value);
  }
  stF64(addr: number, value: number): void {
    this.before();
    this.inner.stF64(addr, value);
  }
  ldWord(word: number): number {
    return this.ld32(word * 4);
  }
  stWord(word: number, value: number): void {
    this.st32(word * 4, value);
  }
  ldAtomic(addr: number): number {
    this.before();
    return this.inner.ldAtomic(addr);
  }
  stAtomic(addr: number, value: number): void {
    this.before();
    this.inner.stAtomic(addr, value);
  }
  cas(addr: number, expected: number, desired: number): number {
    this.before();
    return this.inner.cas(addr, expected, desired);
  }
  casBelow(addr: number, limit: number, desired: number): number {
    this.before();
    return this.inner.casBelow(addr, limit, desired);
  }
  fetchAdd(addr: number, delta: number): number {
    this.before();
    return this.inner.fetchAdd(addr, delta);
  }
  copy(dst: number, src: number, bytes: number): void {
    this.before();
    this.inner.copy(dst, src, bytes);
  }
  fill(addr: number, byte: number, bytes: number): void {
    this.before();
    this.inner.fill(addr, byte, bytes);
  }
  writeBytes(addr: number, source: Uint8Array): void {
    this.before();
    this.inner.writeBytes(addr, source);
  }
  readBytes(addr: number, bytes: number): Uint8Array {
    this.before();
    return this.inner.readBytes(addr, bytes);
  }
}
