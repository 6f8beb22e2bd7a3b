/**
 * A request to the disk: its record in RAM, and the memory that it carries from the first byte to the last.
 *
 *   makeRequest ─▶ pages, scatterlist, record ─▶ [ map ─▶ device ─▶ unmap ] again on an error ─▶ dropRequest
 *
 * struct request, 64 bytes:
 *
 * | offset | field      | meaning                                                                      | written by  |
 * |--------|------------|------------------------------------------------------------------------------|-------------|
 * | 0      | completion | 16 bytes: the device is done with it                                         | interrupt   |
 * | 16     | opcode     | DISK_OP_READ, DISK_OP_WRITE                                                  | maker       |
 * | 20     | lba        | first sector                                                                 | maker       |
 * | 24     | nr pages   | entries of the scatterlist, one page each                                    | maker       |
 * | 28     | sgl        | granule of the scatterlist                                                   | maker       |
 * | 32     | table      | granule of the segment table, 0 while not at the device                      | issue, end  |
 * | 36     | table dma  | its bus address                                                              | issue       |
 * | 40     | status     | DISK_STATUS_…, or REQUEST_ABORTED                                            | end         |
 * | 44     | abandoned  | 1: its task was killed; whoever ends it drops it                             | task        |
 * | 48     | bytes      | of the transfer, a multiple of the sector                                    | maker       |
 * | 52     | own        | 1: lies in memory of its own, is never mapped, unmapped or dropped (disk_pages.ts) | maker |
 *
 *   REQ-1  a request owns its pages, scatterlist and record until dropRequest, wherever the task is by then
 *
 * The task may be killed while the device still writes into the pages: so nothing here hangs on the task.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import type { Task } from "../kernel/task.ts";
import {
  asPfn,
  asPhys,
  type Context,
  fromGranule,
  NO_PFN,
  NULL,
  type PhysAddr,
  pfnToPhys,
  physToPfn,
  type Sleeping,
  toGranule,
} from "../kernel/types.ts";
import { GFP_NOIO, type Mempool, SG_BYTES } from "../mm/index.ts";
import { SECTOR_BYTES } from "./disk_device.ts";
import type { Platform } from "./driver.ts";

export const REQUEST_BYTES = 64;
export const RQ_COMPLETION = 0;
export const RQ_OPCODE = 16;
export const RQ_LBA = 20;
export const RQ_NR_PAGES = 24;
const RQ_SGL = 28;
export const RQ_TABLE = 32;
export const RQ_TABLE_DMA = 36;
export const RQ_STATUS = 40;
export const RQ_ABANDONED = 44;
export const RQ_BYTES = 48;
export const RQ_OWN = 52;

const PAGE_BYTES = 4096;

export interface DiskRequests {
  /** A request for `bytes` (whole sectors, at most MAX_REQUEST_BYTES) from sector `lba` on; NULL without memory. */
  make(task: Task, opcode: number, lba: number, bytes: number): Sleeping<PhysAddr>;
  /** Gives everything back. Any context. */
  drop(ctx: Context, request: PhysAddr): void;
  field(request: PhysAddr, offset: number): number;
  setField(request: PhysAddr, offset: number, value: number): void;
  sgl(request: PhysAddr): PhysAddr;
  /** Copies into the pages, or out of them, from byte `offset` of the transfer on. */
  write(request: PhysAddr, offset: number, source: Uint8Array): void;
  read(request: PhysAddr, offset: number, bytes: number): Uint8Array;
}

/** Pages that one request may carry. */
export const MAX_REQUEST_PAGES = 32;
export const MAX_REQUEST_BYTES = MAX_REQUEST_PAGES * PAGE_BYTES;

export function createDiskRequests({ machine, pageAlloc, slab, mempools, dma }: Platform, pool: Mempool): DiskRequests {
  const port: MemoryPort = machine.port;
  const field = (request: PhysAddr, offset: number): number => port.ld32(request + offset);
  const setField = (request: PhysAddr, offset: number, value: number): void => port.st32(request + offset, value);
  const sgl = (request: PhysAddr): PhysAddr => fromGranule(field(request, RQ_SGL));
  /** Address of page `i`; the first word of a scatterlist entry is the CPU's address. */
  const pageOf = (request: PhysAddr, i: number): PhysAddr => asPhys(port.ld32(sgl(request) + i * SG_BYTES));

  const drop = (ctx: Context, request: PhysAddr): void => {
    for (let i = 0; i < field(request, RQ_NR_PAGES); i++) pageAlloc.freePages(ctx, physToPfn(pageOf(request, i)), 0);
    slab.kmalloc.kfree(ctx, sgl(request));
    mempools.free(ctx, pool, request);
  };

  /** Scatterlist and pages of a request; false when memory ran out, the record saying how far it got. */
  function* fill(task: Task, request: PhysAddr, bytes: number): Sleeping<boolean> {
    let list = slab.kmalloc.kzalloc(task.ctx, Math.ceil(bytes / PAGE_BYTES) * SG_BYTES, GFP_NOIO);
    if (typeof list === "object") list = yield* list;
    if (list === NULL) return false;
    setField(request, RQ_SGL, toGranule(list));
    for (let done = 0; done < bytes; done += PAGE_BYTES) {
      let pfn = pageAlloc.allocPages(task.ctx, 0, GFP_NOIO);
      if (typeof pfn === "object") pfn = yield* pfn;
      if (pfn === NO_PFN) return false;
      const i = done / PAGE_BYTES;
      dma.sgSet(sgl(request), i, pfnToPhys(asPfn(pfn)), Math.min(PAGE_BYTES, bytes - done));
      setField(request, RQ_NR_PAGES, i + 1);
    }
    return true;
  }

  const eachPart = (
    request: PhysAddr,
    offset: number,
    bytes: number,
    part: (addr: number, n: number, done: number) => void,
  ): void => {
    for (let done = 0; done < bytes; ) {
      const at = (offset + done) % PAGE_BYTES;
      const n = Math.min(bytes - done, PAGE_BYTES - at);
      part(pageOf(request, Math.floor((offset + done) / PAGE_BYTES)) + at, n, done);
      done += n;
    }
  };

  return {
    *make(task, opcode, lba, bytes) {
      let request = mempools.alloc(task.ctx, pool, GFP_NOIO);
      if (typeof request === "object") request = yield* request;
      if (request === NULL) return NULL;
      port.fill(request, 0, REQUEST_BYTES);
      setField(request, RQ_OPCODE, opcode);
      setField(request, RQ_LBA, lba);
      setField(request, RQ_BYTES, bytes);
      let isWhole = false;
      // A fatal signal may unwind the task while it waits for memory: what it has goes back then, too.
      try {
        isWhole = yield* fill(task, request, bytes);
      } finally {
        if (!isWhole) drop(task.ctx, request);
      }
      return isWhole ? request : NULL;
    },
    drop,
    field,
    setField,
    sgl,
    write(request, offset, source) {
      eachPart(request, offset, source.length, (addr, n, done) =>
        port.writeBytes(addr, source.subarray(done, done + n)),
      );
    },
    read(request, offset, bytes) {
      const out = new Uint8Array(bytes);
      eachPart(request, offset, bytes, (addr, n, done) => out.set(port.readBytes(addr, n), done));
      return out;
    },
  };
}

if (MAX_REQUEST_BYTES % SECTOR_BYTES !== 0) throw new Error("disk: a request is no whole number of sectors");
