/**
 * Files of the ramfs and of the tmpfs at /tmp: their bytes are in the page cache (mm/filemap.ts), which read, write and
 * mmap share. Pages of a tmpfs can go to swap; a ramfs keeps its pages in RAM.
 *
 *   name ─▶ RamfsNode ─▶ address_space ◀─ open files, mappings         each is one user of it
 *
 * unlink takes the name away; the bytes go with the last user, as in every Unix. A write behind the end leaves a hole,
 * which reads as zeros and costs no page.
 *
 *   RFS-1  an address_space has as many users as its node (1 while it has a name), open files and VMAs
 *   RFS-2  a write that finds no memory, and can make none by reclaim, returns what it has written, or −ENOSPC
 *   RFS-3  a read that cannot bring a page back from swap returns what came before it, or −ENOMEM or −EIO
 */

import { AS_TMPFS, type FileMap, fileByte, MAX_FILE_BYTES, type ProcessMemory } from "../../mm/index.ts";
import type { MemoryPort } from "../arch/port.ts";
import { type OpenFile, seekFrom } from "../file.ts";
import { PAGE_SIZE } from "../params.ts";
import { asPfn, type Context, NULL, type PhysAddr } from "../types.ts";
import { EFBIG, ENOMEM, ENOSPC } from "../uapi/errno.ts";
import { O_APPEND, O_RDWR, O_WRONLY } from "../uapi/mman.ts";

export interface RamfsMemory {
  readonly port: MemoryPort;
  readonly processMemory: ProcessMemory;
  /** Context of whoever runs at this moment. */
  readonly context: () => Context;
  /** Frees pages for a file, if any can be freed, at nobody's life; true if it is worth to try again. */
  readonly makeRoom: () => boolean;
  /** Between two pages of a long transfer: interrupts may come. */
  readonly interruptPoint: (ctx: Context) => void;
}

/** A file: its pages and size are in RAM. */
export interface RamfsNode {
  readonly mapping: PhysAddr;
}

/** A new, empty file, whose pages can go to swap or not; undefined without memory. */
export function createNode({ processMemory, context }: RamfsMemory, isTmpfs: boolean): RamfsNode | undefined {
  const mapping = processMemory.files.create(context(), isTmpfs ? AS_TMPFS : 0);
  return mapping === NULL ? undefined : { mapping };
}

/** The file has no name any more. */
export function dropNode({ processMemory, context }: RamfsMemory, { mapping }: RamfsNode): void {
  processMemory.files.put(context(), mapping);
}

/** The page's frame, with memory made if that helps; −ENOMEM, −EIO. */
function obtain({ context, makeRoom }: RamfsMemory, files: FileMap, mapping: PhysAddr, index: number): number {
  let got = files.obtain(context(), mapping, index);
  while (got === -ENOMEM && makeRoom()) got = files.obtain(context(), mapping, index);
  return got;
}

/** Copies `[at, at + bytes)` of a file, which lies in it, holes as zeros; −errno if nothing can be had. */
function readRange(memory: RamfsMemory, mapping: PhysAddr, at: number, bytes: number): Uint8Array | number {
  const { files } = memory.processMemory;
  const out = new Uint8Array(bytes);
  for (let done = 0; done < bytes; ) {
    const position = at + done;
    const index = Math.floor(position / PAGE_SIZE);
    const n = Math.min(bytes - done, PAGE_SIZE - (position % PAGE_SIZE));
    const got = files.isHole(mapping, index) ? 0 : obtain(memory, files, mapping, index);
    if (got < 0) return done > 0 ? out.subarray(0, done) : got;
    if (got > 0) out.set(memory.port.readBytes(fileByte(asPfn(got), position), n), done);
    done += n;
  }
  return out;
}

/** All bytes of a file. */
export function nodeBytes(memory: RamfsMemory, { mapping }: RamfsNode): Uint8Array {
  const bytes = readRange(memory, mapping, 0, memory.processMemory.files.sizeBytes(mapping));
  return typeof bytes === "number" ? new Uint8Array(0) : bytes;
}

/**
 * An open file with one reference, and a user of the node's pages until it is released. `flags` as open(2) has them.
 */
export function openNode(memory: RamfsMemory, { mapping }: RamfsNode, flags: number): OpenFile {
  const { processMemory, port, context } = memory;
  const { files } = processMemory;
  const access = flags & 3;
  let position = (flags & O_APPEND) !== 0 ? files.sizeBytes(mapping) : 0;
  files.get(mapping);

  /** Writes what fits in one page: number of bytes, or −errno. */
  const writePart = (source: Uint8Array, done: number): number => {
    const offset = position % PAGE_SIZE;
    const n = Math.min(source.length - done, PAGE_SIZE - offset);
    const got = obtain(memory, files, mapping, Math.floor(position / PAGE_SIZE));
    if (got < 0) return got;
    port.writeBytes(fileByte(asPfn(got), offset), source.subarray(done, done + n));
    return n;
  };

  return {
    refs: 1,
    isConsole: false,
    mapped: { mapping, canRead: access !== O_WRONLY, canWrite: access === O_WRONLY || access === O_RDWR },
    *read(_task, max) {
      const bytes = Math.max(0, Math.min(max, files.sizeBytes(mapping) - position));
      const part = readRange(memory, mapping, position, bytes);
      if (typeof part !== "number") position += part.length;
      return part;
    },
    unread(nrBytes) {
      position -= nrBytes;
    },
    *write(_task, source) {
      if (position + source.length > MAX_FILE_BYTES) return -EFBIG;
      let done = 0;
      while (done < source.length) {
        const n = writePart(source, done);
        if (n < 0 && done > 0) return done;
        if (n < 0) return n === -ENOMEM ? -ENOSPC : n;
        done += n;
        position += n;
        files.setSize(mapping, Math.max(files.sizeBytes(mapping), position));
        memory.interruptPoint(context());
      }
      return done;
    },
    seek(offset, whence) {
      const to = seekFrom(position, files.sizeBytes(mapping), offset, whence);
      if (to >= 0) position = to;
      return to;
    },
    release() {
      files.put(context(), mapping);
    },
  };
}
