/**
 * The vocabulary: branded addresses, contexts, and what may sleep.
 *
 * Addresses of different spaces are different types, so that a page frame number cannot be passed where a byte
 * address is meant. The brands exist in the compiler only. This is the one file that casts into a brand; arithmetic
 * on addresses goes through the helpers below, because the compiler would allow `pfn + physAddr`.
 *
 * Domain: a physical address is an integer in [0, 2^32), a user address in [0, 2^35). Both exceed what `<<` and `|`
 * can hold, so pages are multiplied and divided, never shifted [no-shift-on-address].
 */

import { GRANULE, PAGE_SIZE } from "./params.ts";

declare const brand: unique symbol;
type Brand<Name extends string> = number & { readonly [brand]: Name };

/** Page frame number: physical address / 4096. Frame 0 is never handed out, so 0 means "none" (`NO_PFN`). */
export type Pfn = Brand<"Pfn">;
/** Physical byte address. The kernel is identity-mapped: this is also how the kernel points at an object. */
export type PhysAddr = Brand<"PhysAddr">;
/** Address that only the MMU can turn into a physical one: vmalloc area, kernel stacks. */
export type VirtAddr = Brand<"VirtAddr">;
/** Address as a device puts it on the bus. */
export type DmaAddr = Brand<"DmaAddr">;
/** Address in a process. The kernel may touch it only through uaccess. */
export type UserPtr = Brand<"UserPtr">;
/** Index of a CPU, `0 ≤ cpu < nrCpus`. */
export type CpuId = Brand<"CpuId">;

export const NO_PFN = 0 as Pfn;
export const NULL = 0 as PhysAddr;

export const asPfn = (n: number): Pfn => n as Pfn;
export const asPhys = (n: number): PhysAddr => n as PhysAddr;
export const asVirt = (n: number): VirtAddr => n as VirtAddr;
export const asDma = (n: number): DmaAddr => n as DmaAddr;
export const asUser = (n: number): UserPtr => n as UserPtr;
export const asCpu = (n: number): CpuId => n as CpuId;

export const pfnToPhys = (pfn: Pfn): PhysAddr => (pfn * PAGE_SIZE) as PhysAddr;
/** Frame that holds byte `addr` (rounds down). `addr` is unsigned 32-bit, so a logical shift is exact. */
export const physToPfn = (addr: PhysAddr): Pfn => (addr >>> 12) as Pfn;
export const pfnAdd = (pfn: Pfn, nrPages: number): Pfn => (pfn + nrPages) as Pfn;
export const physAdd = (addr: PhysAddr, bytes: number): PhysAddr => (addr + bytes) as PhysAddr;

/** Granule number of an 8-aligned address: the 32-bit form in which links are stored. */
export const toGranule = (addr: PhysAddr): number => addr >>> 3;
export const fromGranule = (granule: number): PhysAddr => (granule * GRANULE) as PhysAddr;

export const alignDown = (n: number, align: number): number => n - (n % align);
export const alignUp = (n: number, align: number): number => {
  const rest = n % align;
  return rest === 0 ? n : n + align - rest;
};

// ── Context: where the running code is allowed to do what ──────────────────────────────────────────────────────────

declare const contextBrand: unique symbol;

/**
 * What every kernel path carries: which CPU it runs on and where that CPU's area is. Created by kernel/context.ts.
 * `cpu` and `area` change when a task migrates; an allocator reads them after it has disabled preemption or interrupts.
 */
export interface Context {
  cpu: CpuId;
  /** Base of the CPU's per-CPU area in RAM. */
  area: PhysAddr;
}

/** A task: process context. May sleep when preemption and interrupts are on. */
export type TaskContext = Context & { readonly [contextBrand]: "task" };
/** An interrupt or softirq handler: may never sleep. */
export type IrqContext = Context & { readonly [contextBrand]: "irq" };
/** A non-maskable interrupt handler: may not even take a lock that others take with interrupts off. */
export type NmiContext = Context & { readonly [contextBrand]: "nmi" };

// ── Sleeping ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** Why a task gave up its CPU; what a generator yields to the scheduler. */
export type Pause = typeof PREEMPTED | typeof BLOCKED;
/** Still runnable: its time was up. */
export const PREEMPTED = 0;
/** On a wait queue: runs again when somebody wakes it. */
export const BLOCKED = 1;

/** A function that gives up the CPU on its way. It does nothing until it is iterated with `yield*`. */
export type Sleeping<T> = Generator<Pause, T, void>;

/**
 * The result of something that may sleep but seldom has to: either the value, or the rest of the work to iterate.
 * The fast path pays for no generator; the type forces the caller to write
 * `let p = kmalloc(…); if (typeof p === "object") p = yield* p;` before the value can be used.
 */
export type MaySleep<T extends number> = T | Sleeping<T>;
