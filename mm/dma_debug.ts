/**
 * dma-debug: tells a driver what it does wrong with the DMA API (D4), in the words of Linux.
 *
 *   DMA-API: <driver> <device>: device driver frees DMA memory with different size [device address=0x…] [map size=…
 *
 * Each map and each coherent allocation leaves an entry; each unmap, sync and free is compared with it. The checks only
 * look: the call itself then does what it does without them. Mistakes it knows, besides those at unmap and sync:
 *
 *   map      from the stack, from the kernel image, from what is no RAM; overlapping cache lines; a scatter-gather
 *            entry longer than the device allows, a segment across its boundary
 *   unmap    of what was never mapped or twice, with another size, function, CPU address, direction, number of entries;
 *            of a mapping whose error nobody checked
 *   sync     of what is not mapped, beyond its end, with another direction, the wrong way round
 *   release  of a device with live mappings
 *
 *   DBG-1  correct use is silent
 *   DBG-2  a mistake is said once, where it happens, as long as all_errors or num_errors allows and driver_filter fits
 *   DBG-3  without memory for an entry the whole layer switches itself off, as in Linux, and says so
 *   DBG-4  two mappings overlap if cache lines of memory do, not bus addresses: of a new mapping each piece is looked
 *          up; of a live one its first piece is known, where Linux knows its first line
 *
 * Context: any. Lock: one word around the entries, interrupts off; nothing is printed under it.
 * Different from Linux: num_errors starts at 100, not 1; overlap is judged over all cache lines of a mapping, not the
 * first; a sync that starts inside a mapping and ends outside is "outside allocated range" (there it is "not
 * allocated"); one lock. Source: kernel/dma/debug.c.
 */

import type { Machine } from "../kernel/arch/machine.ts";
import { bugOn } from "../kernel/bug.ts";
import type { ContextTracking } from "../kernel/context.ts";
import type { KernelImage } from "../kernel/image.ts";
import { CACHE_LINE, KERNEL_IMAGE_BASE, PAGE_SIZE } from "../kernel/params.ts";
import { KERN_ERR, KERN_INFO, KERN_WARNING, type Printk } from "../kernel/printk.ts";
import type { Spinlocks } from "../kernel/spinlock.ts";
import { TASK_PID, TASK_STACK } from "../kernel/task_struct.ts";
import { asPfn, asPhys, type Context, type DmaAddr, NULL, type PhysAddr, physAdd } from "../kernel/types.ts";
import type { DmaMemory } from "./dma_coherent.ts";
import {
  createDebugEntries,
  DEBUG_COHERENT,
  DEBUG_ENTRIES_STATIC_BYTES,
  DEBUG_NONCOHERENT,
  DEBUG_SG,
  DEBUG_SINGLE,
  type DebugEntries,
  type DebugEntry,
  MAP_ERR_CHECK_NOT_APPLICABLE,
  MAP_ERR_CHECKED,
  MAP_ERR_NOT_CHECKED,
} from "./dma_debug_entries.ts";
import { at, dirName, hex, syncFaults, syncOfNothing, typeName, unmapFaults } from "./dma_debug_faults.ts";
import { DEV_BOUNDARY, DEV_MAX_SEGMENT, type DmaDevice, deviceLabel } from "./dma_device.ts";
import { DMA_MAPPING_ERROR, DMA_TO_DEVICE, type DmaDirection } from "./dma_ops.ts";
import { STACK_PAGES } from "./kernel_stack.ts";
import type { Pages } from "./page.ts";
import type { PageAllocator } from "./page_alloc.ts";
import { crossesBoundary, type Scatterlists } from "./scatterlist.ts";
import { PRIVATE_IS_VMALLOC } from "./vmalloc.ts";

const ERROR_COUNT = 0;
const ALL_ERRORS = 4;
const NUM_ERRORS = 8;
const DISABLED = 12;
const LOCK = 16;
const FILTER = 24;
const FILTER_BYTES = 64;
const ENTRIES_AT = FILTER + FILTER_BYTES;
export const DMA_DEBUG_STATIC_BYTES = ENTRIES_AT + DEBUG_ENTRIES_STATIC_BYTES;

/** How many mistakes are printed unless all_errors is set. Linux: 1. */
const DEFAULT_NUM_ERRORS = 100;
const MAP_ERR_NAMES: readonly string[] = [
  "dma map error check not applicable",
  "dma map error not checked",
  "dma map error checked",
];
/** As Linux's hash would number the entry in `dump`. */
const hashIndex = (dma: number): number => Math.floor(dma / 8192) % 16_384;

export interface DmaDebug {
  mapInvalid(ctx: Context, dev: DmaDevice, phys: number, bytes: number): void;
  mapSingle(ctx: Context, dev: DmaDevice, phys: PhysAddr, bytes: number, dir: DmaDirection, dma: DmaAddr): void;
  unmapSingle(ctx: Context, dev: DmaDevice, dma: DmaAddr, bytes: number, direction: DmaDirection): void;
  mappingError(dev: DmaDevice, dma: DmaAddr): void;
  mapSg(ctx: Context, dev: DmaDevice, sgl: PhysAddr, nents: number, nr: number, direction: DmaDirection): void;
  unmapSg(ctx: Context, dev: DmaDevice, sgl: PhysAddr, nents: number, direction: DmaDirection): void;
  /** `isCoherent`: allocCoherent, else allocPages. */
  alloc(ctx: Context, dev: DmaDevice, bytes: number, memory: DmaMemory, dir: DmaDirection, isCoherent: boolean): void;
  free(ctx: Context, dev: DmaDevice, bytes: number, memory: DmaMemory, dir: DmaDirection, isCoherent: boolean): void;
  sync(ctx: Context, dev: DmaDevice, dma: DmaAddr, bytes: number, direction: DmaDirection, toCpu: boolean): void;
  syncSg(ctx: Context, dev: DmaDevice, sgl: PhysAddr, nents: number, direction: DmaDirection, toCpu: boolean): void;
  release(ctx: Context, dev: DmaDevice): void;
  /** A driver that touches what its device owns (guard_port.ts): not in Linux. */
  cpuAccess(ctx: Context, dev: DmaDevice, text: string): void;
  /** The last device is gone. */
  drop(ctx: Context): void;
  readonly entries: DebugEntries;
  errorCount(): number;
  isDisabled(): boolean;
  dumpText(): string;
  filterText(): string;
  setFilter(text: string): void;
  /** all_errors and num_errors as debugfs shows them. */
  setting(name: "all_errors" | "num_errors"): number;
  setSetting(name: "all_errors" | "num_errors", value: number): void;
  check(): string | null;
}

/** A part of a mapping that lies in one piece. */
interface Piece {
  readonly phys: number;
  readonly bytes: number;
}

/** Bytes up to the first gap. */
function firstRun(pieces: readonly Piece[]): number {
  let [end, nrBytes] = [pieces[0]?.phys, 0];
  for (const { phys, bytes } of pieces) {
    if (phys !== end) break;
    end = phys + bytes;
    nrBytes += bytes;
  }
  return nrBytes;
}

export interface DmaDebugDeps {
  readonly machine: Machine;
  readonly image: KernelImage;
  readonly contexts: ContextTracking;
  readonly spinlocks: Spinlocks;
  readonly printk: Printk;
  readonly pages: Pages;
  readonly pageAlloc: PageAllocator;
  readonly sg: Scatterlists;
  /** DMA_DEBUG_STATIC_BYTES of zeroed static memory, 8-aligned. */
  readonly statics: PhysAddr;
}

export function createDmaDebug(deps: DmaDebugDeps): DmaDebug {
  const { machine, image, contexts, spinlocks, printk, pages, sg, statics } = deps;
  const { port, harts } = machine;
  const entries = createDebugEntries(port, deps.pageAlloc, physAdd(statics, ENTRIES_AT));
  const lock = asPhys(statics + LOCK);
  const word = (offset: number): number => port.ld32(statics + offset);
  const setWord = (offset: number, value: number): void => port.st32(statics + offset, value);
  setWord(NUM_ERRORS, DEFAULT_NUM_ERRORS);
  const isDisabled = (): boolean => word(DISABLED) !== 0;

  const locked = <T>(ctx: Context, work: () => T): T => {
    const flags = spinlocks.spinLockIrqsave(ctx, lock);
    const result = work();
    spinlocks.spinUnlockIrqrestore(ctx, lock, flags);
    return result;
  };

  // ── Saying it ────────────────────────────────────────────────────────────────────────────────────────────────────

  const filterText = (): string => {
    let text = "";
    for (let i = 0; i < FILTER_BYTES && port.ld8(statics + FILTER + i) !== 0; i++) {
      text += String.fromCharCode(port.ld8(statics + FILTER + i));
    }
    return text;
  };

  const complain = (ctx: Context, dev: DmaDevice, text: string): void => {
    setWord(ERROR_COUNT, word(ERROR_COUNT) + 1);
    const label = deviceLabel(port, dev);
    const filter = filterText();
    const isWanted = filter === "" || label.split(" ")[0] === filter;
    const isShown = word(ALL_ERRORS) !== 0 || word(NUM_ERRORS) > 0;
    if (word(ALL_ERRORS) === 0 && word(NUM_ERRORS) > 0) setWord(NUM_ERRORS, word(NUM_ERRORS) - 1);
    if (!isWanted || !isShown) return;
    const task = contexts.currentTask(ctx);
    const pid = task === 0 ? 0 : port.ld32(task + TASK_PID);
    const lines = [
      "------------[ cut here ]------------",
      `DMA-API: ${label}: ${text}`,
      `WARNING: CPU: ${ctx.cpu} PID: ${pid} at mm/dma_debug.ts`,
      contexts.stackDump(ctx),
      "---[ end trace 0000000000000000 ]---",
    ];
    printk(KERN_WARNING, lines.join("\n"));
  };

  // ── Remembering ──────────────────────────────────────────────────────────────────────────────────────────────────

  /** `pieces`: the memory of the mapping, in order; behind an IOMMU it may lie anywhere (DBG-4). */
  const add = (ctx: Context, entry: DebugEntry, pieces: readonly Piece[]): void => {
    const [addr, isDouble] = locked(ctx, () => {
      const isOverlap =
        entry.direction !== DMA_TO_DEVICE &&
        pieces.some(({ phys, bytes }) => entries.overlapping(phys, bytes) !== NULL);
      return [entries.add(ctx, entry, firstRun(pieces)), isOverlap] as const;
    });
    if (addr === NULL) {
      setWord(DISABLED, 1);
      // Nobody looks entries up from here on; kept, they would keep their pages when the last device is gone.
      locked(ctx, entries.forget);
      printk(KERN_ERR, "DMA-API: debugging out of memory - disabling");
    } else if (isDouble) {
      complain(ctx, entry.dev, "cacheline tracking EEXIST, overlapping mappings aren't supported");
    }
  };

  /** The entry that fits best among those at this address: same size, function, direction, number of entries. */
  const bestAt = (ref: DebugEntry): PhysAddr => {
    let [best, bestScore] = [NULL, -1];
    for (const addr of entries.at(ref.dev, ref.dma)) {
      const entry = entries.read(addr);
      const score =
        Number(entry.size === ref.size) +
        Number(entry.type === ref.type) +
        Number(entry.direction === ref.direction) +
        Number(entry.sgCallEnts === ref.sgCallEnts);
      if (score > bestScore) [best, bestScore] = [addr, score];
    }
    return best;
  };

  const checkUnmap = (ctx: Context, ref: DebugEntry): void => {
    if (isDisabled()) return;
    const faults = locked(ctx, () => {
      const addr = bestAt(ref);
      if (addr === NULL) {
        return ref.dma === DMA_MAPPING_ERROR
          ? ["device driver tries to free an invalid DMA memory address"]
          : [`device driver tries to free DMA memory it has not allocated ${at(ref.dma, ref.size)}`];
      }
      const found = unmapFaults(ref, entries.read(addr));
      entries.remove(addr);
      return found;
    });
    for (const fault of faults) complain(ctx, ref.dev, fault);
  };

  // ── Where memory may not come from ───────────────────────────────────────────────────────────────────────────────

  /** Frames of a stack lie anywhere; each says which page of the window it is (vmalloc.ts). */
  const isOnStack = (stack: number, phys: number, bytes: number): boolean => {
    const last = Math.min(Math.ceil((phys + bytes) / PAGE_SIZE), pages.nrFrames);
    for (let pfn = Math.floor(phys / PAGE_SIZE); pfn < last; pfn++) {
      const page = pages.private(asPfn(pfn)) - PRIVATE_IS_VMALLOC;
      if (page >= stack && page < stack + STACK_PAGES) return true;
    }
    return false;
  };

  const checkSource = (ctx: Context, dev: DmaDevice, phys: number, bytes: number): void => {
    const task = contexts.currentTask(ctx);
    const stack = task === 0 ? 0 : port.ld32(task + TASK_STACK);
    if (stack !== 0 && isOnStack(stack, phys, bytes)) {
      complain(ctx, dev, `device driver maps memory from stack [addr=${hex(phys)}]`);
    }
    const imageEnd = image.symbols.at(-1)?.end ?? KERNEL_IMAGE_BASE;
    if (phys < imageEnd && phys + bytes > KERNEL_IMAGE_BASE) {
      const where = `[addr=${hex(phys)}] [len=${bytes}]`;
      complain(ctx, dev, `device driver maps memory from kernel text or rodata ${where}`);
    }
  };

  const checkSegment = (ctx: Context, dev: DmaDevice, length: number, dma: number, dmaLength: number): void => {
    const max = port.ld32(dev + DEV_MAX_SEGMENT);
    const boundary = port.ld32(dev + DEV_BOUNDARY);
    if (length > max) {
      complain(ctx, dev, `mapping sg segment longer than device claims to support [len=${length}] [max=${max}]`);
    }
    if (dmaLength === 0 || !crossesBoundary(dma, dmaLength, boundary)) return;
    const range = `[start=${hex(dma)}] [end=${hex(dma + dmaLength - 1)}] [boundary=${hex(boundary - 1)}]`;
    complain(ctx, dev, `mapping sg segment across boundary ${range}`);
  };

  // ── Syncs ────────────────────────────────────────────────────────────────────────────────────────────────────────

  const syncFaultsOf = (ref: DebugEntry, toCpu: boolean): readonly string[] => {
    const addr = entries.containing(ref.dev, ref.dma);
    return addr === NULL ? [syncOfNothing(ref)] : syncFaults(ref, entries.read(addr), toCpu);
  };

  const checkSync = (ctx: Context, ref: DebugEntry, toCpu: boolean): void => {
    if (isDisabled()) return;
    for (const fault of locked(ctx, () => syncFaultsOf(ref, toCpu))) complain(ctx, ref.dev, fault);
  };

  const single = (dev: DmaDevice, dma: number, size: number, direction: DmaDirection): DebugEntry => ({
    dev,
    dma,
    size,
    type: DEBUG_SINGLE,
    direction,
    sgCallEnts: 0,
    sgMappedEnts: 0,
    phys: 0,
    mapErr: MAP_ERR_NOT_CHECKED,
  });
  const segment = (dev: DmaDevice, sgl: PhysAddr, i: number, nents: number, direction: DmaDirection): DebugEntry => ({
    ...single(dev, sg.sgDmaAddress(sgl, i), sg.sgDmaLength(sgl, i), direction),
    type: DEBUG_SG,
    sgCallEnts: nents,
    phys: sg.sgAddress(sgl, i),
    mapErr: MAP_ERR_CHECK_NOT_APPLICABLE,
  });
  const block = (
    dev: DmaDevice,
    bytes: number,
    memory: DmaMemory,
    dir: DmaDirection,
    isCoherent: boolean,
  ): DebugEntry => ({
    ...single(dev, memory.dma, bytes, dir),
    type: isCoherent ? DEBUG_COHERENT : DEBUG_NONCOHERENT,
    phys: memory.cpu,
    mapErr: MAP_ERR_CHECK_NOT_APPLICABLE,
  });
  /** Segments of a list: those that mapSg made, however many entries the caller speaks of. */
  const nrSegments = (dev: DmaDevice, sgl: PhysAddr, nents: number): number => {
    const first = entries.at(dev, sg.sgDmaAddress(sgl, 0))[0];
    const mapped = first === undefined ? 0 : entries.read(first).sgMappedEnts;
    return mapped === 0 ? Math.min(nents, 1) : Math.min(nents, mapped);
  };

  return {
    mapInvalid(ctx, dev, phys, bytes) {
      if (isDisabled()) return;
      const where = Number.isInteger(phys) && phys >= 0 ? hex(phys) : String(phys);
      complain(ctx, dev, `device driver maps memory from invalid area [addr=${where}] [len=${bytes}]`);
    },
    mapSingle(ctx, dev, phys, bytes, dir, dma) {
      if (isDisabled()) return;
      checkSource(ctx, dev, phys, bytes);
      add(ctx, { ...single(dev, dma, bytes, dir), phys }, [{ phys, bytes }]);
    },
    unmapSingle: (ctx, dev, dma, bytes, direction) => checkUnmap(ctx, single(dev, dma, bytes, direction)),
    mappingError(dev, dma) {
      if (isDisabled() || dma === DMA_MAPPING_ERROR) return;
      const ctx = contexts.taskContext(harts.current[0] as number);
      locked(ctx, () => {
        const addr = entries.at(dev, dma).find((each) => entries.read(each).mapErr === MAP_ERR_NOT_CHECKED);
        if (addr !== undefined) entries.setMapErr(addr, MAP_ERR_CHECKED);
      });
    },
    mapSg(ctx, dev, sgl, nents, nr, direction) {
      if (isDisabled()) return;
      for (let i = 0; i < nents; i++) {
        checkSource(ctx, dev, sg.sgAddress(sgl, i), sg.sgLength(sgl, i));
        checkSegment(ctx, dev, sg.sgLength(sgl, i), sg.sgDmaAddress(sgl, i), i < nr ? sg.sgDmaLength(sgl, i) : 0);
      }
      // The memory of segment i starts at the entry that opened it: found by adding up lengths (SGL-1).
      let entry = 0;
      for (let i = 0; i < nr; i++) {
        const phys = sg.sgAddress(sgl, entry);
        const pieces: Piece[] = [];
        for (let left = sg.sgDmaLength(sgl, i); left > 0 && entry < nents; entry++) {
          pieces.push({ phys: sg.sgAddress(sgl, entry), bytes: sg.sgLength(sgl, entry) });
          left -= sg.sgLength(sgl, entry);
        }
        add(ctx, { ...segment(dev, sgl, i, nents, direction), phys, sgMappedEnts: nr }, pieces);
      }
    },
    unmapSg(ctx, dev, sgl, nents, direction) {
      if (isDisabled()) return;
      const nr = nrSegments(dev, sgl, nents);
      for (let i = 0; i < nr; i++) checkUnmap(ctx, segment(dev, sgl, i, nents, direction));
    },
    alloc(ctx, dev, bytes, memory, dir, isCoherent) {
      if (isDisabled()) return;
      add(ctx, block(dev, bytes, memory, dir, isCoherent), [{ phys: memory.cpu, bytes }]);
    },
    free: (ctx, dev, bytes, memory, dir, isCoherent) => checkUnmap(ctx, block(dev, bytes, memory, dir, isCoherent)),
    sync: (ctx, dev, dma, bytes, direction, toCpu) => checkSync(ctx, single(dev, dma, bytes, direction), toCpu),
    syncSg(ctx, dev, sgl, nents, direction, toCpu) {
      if (isDisabled()) return;
      const nr = nrSegments(dev, sgl, nents);
      for (let i = 0; i < nr; i++) checkSync(ctx, segment(dev, sgl, i, nents, direction), toCpu);
    },
    release(ctx, dev) {
      if (isDisabled()) return;
      const left: DebugEntry[] = [];
      entries.forEach((entry) => {
        if (entry.dev === dev) left.push(entry);
      });
      const last = left.at(-1);
      if (last === undefined) return;
      const details = `${at(last.dma, last.size)} [mapped with ${dirName(last.direction)}]`;
      complain(
        ctx,
        dev,
        `device driver has pending DMA allocations while released from device [count=${left.length}]\n` +
          `One of leaked entries details: ${details} [mapped as ${typeName(last.type)}]`,
      );
      // The struct device is going away; what is left can never be unmapped.
      locked(ctx, () => {
        for (const entry of left) entries.remove(entries.at(dev, entry.dma)[0] as PhysAddr);
      });
    },
    cpuAccess: complain,
    drop: (ctx) => entries.drop(ctx),
    entries,
    errorCount: () => word(ERROR_COUNT),
    isDisabled,
    dumpText() {
      const rows: string[] = [];
      entries.forEach((entry) => {
        const line = Math.floor(entry.phys / CACHE_LINE);
        rows.push(
          `${deviceLabel(port, entry.dev)} ${typeName(entry.type)} idx ${hashIndex(entry.dma)} P=${hex(entry.phys)} ` +
            `D=${entry.dma.toString(16)} L=${entry.size.toString(16)} cln=${hex(line)} ` +
            `${dirName(entry.direction)} ${MAP_ERR_NAMES[entry.mapErr]}\n`,
        );
      });
      return rows.join("");
    },
    filterText,
    setFilter(text) {
      const name = /^[A-Za-z0-9]/.test(text) ? (text.split(/\s/)[0] as string).slice(0, FILTER_BYTES - 1) : "";
      if (name !== "") printk(KERN_INFO, `DMA-API: enable driver filter for driver [${name}]`);
      else if (filterText() !== "") printk(KERN_INFO, "DMA-API: switching off dma-debug driver filter");
      for (let i = 0; i < FILTER_BYTES; i++) port.st8(statics + FILTER + i, name.charCodeAt(i) & 0x7f || 0);
    },
    setting: (name) => word(name === "all_errors" ? ALL_ERRORS : NUM_ERRORS),
    setSetting(name, value) {
      bugOn(!Number.isInteger(value) || value < 0, "dma-debug: a setting is a whole number", value);
      setWord(name === "all_errors" ? ALL_ERRORS : NUM_ERRORS, value);
    },
    check: entries.check,
  };
}
