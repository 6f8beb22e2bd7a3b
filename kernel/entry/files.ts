/**
 * Open files: the console, pipes, and texts that the kernel makes on the spot (/proc, /sys). The ramfs: ramfs.ts.
 *
 * The bytes of pipes are in RAM, in frames of the page allocator (NR_FILE_PAGES); names and positions are host objects:
 * the file system is not what this kernel is about.
 */

import { GFP_KERNEL, NR_FILE_PAGES, type PageAllocator, type VmStat } from "../../mm/index.ts";
import type { MemoryPort } from "../arch/port.ts";
import { type OpenFile, seekFrom, type TextFile } from "../file.ts";
import { PAGE_SIZE } from "../params.ts";
import { asPhys, type Context, NO_PFN, type Pfn, type PhysAddr, pfnToPhys, type Sleeping } from "../types.ts";
import { EBADF, EINVAL, EPIPE } from "../uapi/errno.ts";
import { decodeUtf8, encodeUtf8 } from "../uapi/utf8.ts";
import { Interrupted, type WaitQueues } from "../wait.ts";

const notSeekable = (): number => -EINVAL;

function* cannot(): Sleeping<number> {
  return -EBADF;
}

/** A text made when it was opened: the files of /proc and /sys. */
export function textFile(text: string, onWrite?: TextFile["write"]): OpenFile {
  const bytes = encodeUtf8(text);
  let position = 0;
  return {
    refs: 1,
    isConsole: false,
    *read(_task, max) {
      const part = bytes.subarray(position, position + max);
      position += part.length;
      return part;
    },
    unread(nrBytes) {
      position -= nrBytes;
    },
    *write(task, source) {
      if (onWrite === undefined) return -EBADF;
      return (yield* onWrite(task, decodeUtf8(source))) || source.length;
    },
    seek(offset, whence) {
      const to = seekFrom(position, bytes.length, offset, whence);
      if (to >= 0) position = to;
      return to;
    },
    release() {},
  };
}

/** Swallows everything, is empty: /dev/null. */
export const nullFile = (): OpenFile => ({
  refs: 1,
  isConsole: false,
  *read() {
    return new Uint8Array(0);
  },
  *write(_task, bytes) {
    return bytes.length;
  },
  seek: () => 0,
  release() {},
});

/** Zeroes without end, at most 64 KiB in one read: /dev/zero. */
export const zeroFile = (): OpenFile => ({
  ...nullFile(),
  *read(_task, max) {
    return new Uint8Array(Math.min(max, 0x1_0000));
  },
});

// ── Frames with bytes ──────────────────────────────────────────────────────────────────────────────────────────────

export interface PageBytes {
  readonly port: MemoryPort;
  readonly pageAlloc: PageAllocator;
  readonly vmstat: VmStat;
  /** Context of whoever runs at this moment. */
  readonly context: () => Context;
}

const allocFilePage = ({ pageAlloc, vmstat, context }: PageBytes): Pfn => {
  const pfn = pageAlloc.tryAllocPages(context(), 0, GFP_KERNEL);
  if (pfn !== NO_PFN) vmstat.modItem(NR_FILE_PAGES, 1);
  return pfn;
};
const freeFilePage = ({ pageAlloc, vmstat, context }: PageBytes, pfn: Pfn): void => {
  vmstat.modItem(NR_FILE_PAGES, -1);
  pageAlloc.freePages(context(), pfn, 0);
};

/**
 * A pipe: one page of RAM as a ring. Returns the two ends, or null without memory.
 *
 *   PIPE-1  0 ≤ written − read ≤ 4080; a reader sleeps on an empty ring with writers, a writer on a full one
 */
export function createPipe(memory: PageBytes, waits: WaitQueues): { readEnd: OpenFile; writeEnd: OpenFile } | null {
  const pfn = allocFilePage(memory);
  if (pfn === NO_PFN) return null;
  const { port } = memory;
  const base = pfnToPhys(pfn);
  const queue: PhysAddr = base;
  const ring = asPhys(base + 16);
  const ringBytes = PAGE_SIZE - 16;
  waits.init(queue);
  let [read, written, isReadOpen, isWriteOpen] = [0, 0, true, true];
  const releaseEnd = (): void => {
    waits.wakeUp(queue);
    if (!isReadOpen && !isWriteOpen) freeFilePage(memory, pfn);
  };
  const readEnd: OpenFile = {
    refs: 1,
    isConsole: false,
    isInterruptible: true,
    *read(task, max) {
      while (written === read && isWriteOpen) yield* waits.waitOn(queue, task);
      const bytes = new Uint8Array(Math.min(max, written - read));
      for (let i = 0; i < bytes.length; i++) bytes[i] = port.ld8(ring + (read++ % ringBytes));
      waits.wakeUp(queue);
      return bytes;
    },
    // Nobody has run since the read: what it took out of the ring is still there.
    unread(nrBytes) {
      read -= nrBytes;
    },
    write: cannot,
    seek: notSeekable,
    release() {
      isReadOpen = false;
      releaseEnd();
    },
  };
  const writeEnd: OpenFile = {
    refs: 1,
    isConsole: false,
    isInterruptible: true,
    read: cannot,
    *write(task, source) {
      for (let done = 0; done < source.length; ) {
        try {
          while (written - read === ringBytes && isReadOpen) yield* waits.waitOn(queue, task);
        } catch (error) {
          // A signal: what is in the pipe counts.
          if (error instanceof Interrupted && done > 0) return done;
          throw error;
        }
        if (!isReadOpen) return -EPIPE;
        while (done < source.length && written - read < ringBytes) {
          port.st8(ring + (written++ % ringBytes), source[done++] as number);
        }
        waits.wakeUp(queue);
      }
      return source.length;
    },
    seek: notSeekable,
    release() {
      isWriteOpen = false;
      releaseEnd();
    },
  };
  return { readEnd, writeEnd };
}

/** The terminal: output goes to the host as it is; input comes line by line. */
export interface ConsoleDevice {
  open(): OpenFile;
  feed(text: string): void;
  close(): void;
  /** True while some task sleeps in read. */
  hasReader(): boolean;
  /** The interrupt handler's part: fetches what has arrived and wakes readers; false if there was nothing. */
  receive(): boolean;
}

/**
 * The console's serial port. What the host types is in the port's FIFO until the interrupt has fetched it; `setWire`
 * drives the port's interrupt line.
 */
export function createConsole(
  waits: WaitQueues,
  queue: PhysAddr,
  out: (bytes: Uint8Array) => void,
  setWire: (isUp: boolean) => void,
): ConsoleDevice {
  let fifo = "";
  let hasHungUp = false;
  let input = "";
  let isClosed = false;
  waits.init(queue);
  const file: OpenFile = {
    refs: 1,
    isConsole: true,
    isInterruptible: true,
    *read(task, max) {
      while (!input.includes("\n") && !isClosed) yield* waits.waitOn(queue, task);
      const newline = input.indexOf("\n");
      const line = newline < 0 ? input : input.slice(0, newline + 1);
      const bytes = encodeUtf8(line);
      const part = bytes.subarray(0, max);
      input = part.length === bytes.length ? input.slice(line.length) : input.slice(Math.max(1, max));
      return part;
    },
    *write(_task, bytes) {
      out(bytes);
      return bytes.length;
    },
    seek: notSeekable,
    release() {},
  };
  return {
    open: () => {
      file.refs++;
      return file;
    },
    feed(text) {
      fifo += text;
      setWire(true);
    },
    close() {
      hasHungUp = true;
      setWire(true);
    },
    receive() {
      const isNew = fifo !== "" || hasHungUp !== isClosed;
      [input, fifo, isClosed] = [input + fifo, "", hasHungUp];
      setWire(false);
      if (isNew) waits.wakeUp(queue);
      return isNew;
    },
    hasReader: () => !waits.isEmpty(queue),
  };
}
