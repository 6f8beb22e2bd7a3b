/**
 * Disks as files: /dev/sda read, written and mapped through the page cache.
 *
 *   open files, VMAs ──▶ address_space (AS_DISK) ── pages ──▶ disk_cache.ts, writeback.ts ──▶ PageIo of the driver
 *   O_DIRECT ────────────────────────────────────────────────────────────────────────────────▶ the driver's file
 *
 * A disk has one node while anybody uses it, and with it one set of pages, whoever opens it. The node keeps a file of
 * the driver open, and so the driver's module. When the last open file and the last mapping are gone, the flusher
 * writes what is dirty, the pages go, and the driver's file is closed; close() waits for that. So what a program has
 * written and closed is on the disk, and a module can be removed.
 *
 * O_DIRECT goes past the cache, and is kept in step with it: what is dirty is written before, what the cache has is
 * dropped after a write. With a mapping of the same pages all the same it is a mixture, as in Linux.
 *
 * A disk that is pulled out leaves its pages readable until its files are closed; whatever needs the disk is −ENODEV.
 * Opening the name again gives the disk that is there then.
 *
 *   BLK-1  one node a disk: two who open it see each other's bytes
 *   BLK-2  a node ends when nobody uses it and nothing is dirty, or its disk failed: then with a line in the log
 *   BLK-3  each open file is told once of each write error that it has not been told of (errseq)
 *   BLK-4  a node does not end while a call on a file of it sleeps, though another thread closes that file
 *   BLK-5  a file whose user was killed is closed as well: rmmod, which finds its module in use, waits for that
 *
 * Positions are host objects, as for all files. Context: process. Linux: block/fops.c, block/bdev.c (blkdev_put).
 */

import { AS_DISK, AS_USERS, type DiskCache, newPattern, type ProcessMemory, type Writeback } from "../../mm/index.ts";
import type { MemoryPort } from "../arch/port.ts";
import { type OpenFile, type PageIo, seekFrom } from "../file.ts";
import { PAGE_SIZE } from "../params.ts";
import { KERN_ERR, type Printk } from "../printk.ts";
import type { Task } from "../task.ts";
import { type Context, NULL, type PhysAddr, type Sleeping } from "../types.ts";
import { EBADF, EIO, ENODEV, ENOMEM, ENOSPC } from "../uapi/errno.ts";
import { O_RDWR, O_WRONLY, SEEK_CUR, SEEK_END } from "../uapi/mman.ts";

export interface BlockFiles {
  /** The disk `name`, whose file of the driver is `device`, through the cache; −errno. */
  open(name: string, device: OpenFile, flags: number): OpenFile | number;
  /** The same past the cache. */
  openDirect(name: string, device: OpenFile): OpenFile;
  /** Path of the disk with these pages; "" for none. */
  nameOf(mapping: PhysAddr): string;
  /** Sleeps until no disk is left that nobody uses but the flusher; false if there was none. */
  waitForEnds(task: Task): Sleeping<boolean>;
  /** Disks in use. */
  nrNodes(): number;
}

export interface BlockFilesDeps {
  readonly port: MemoryPort;
  readonly printk: Printk;
  readonly processMemory: ProcessMemory;
  readonly writeback: Writeback;
  readonly diskCache: DiskCache;
  /** Pages of files can be reclaimed from here on. */
  readonly startKswapd: () => void;
  /** Context of whoever runs at this moment. */
  readonly context: () => Context;
}

interface Node {
  readonly name: string;
  readonly device: OpenFile;
  readonly mapping: PhysAddr;
  io: PageIo | undefined;
  isPreparing: boolean;
  nrOpen: number;
  isEnded: boolean;
}

export function createBlockFiles(deps: BlockFilesDeps): BlockFiles {
  const { port, printk, processMemory, writeback, diskCache, context } = deps;
  const { files, dirty } = processMemory;
  const nodes = new Map<string, Node>();
  const all = new Set<Node>();

  const isGone = ({ mapping, device }: Node): boolean =>
    writeback.backing(mapping)?.isGone === true || device.seek(0, SEEK_END) < 0;
  const isUsed = ({ nrOpen, mapping, isPreparing }: Node): boolean =>
    nrOpen > 0 || isPreparing || port.ld32(mapping + AS_USERS) > 1;

  // ── Nodes ────────────────────────────────────────────────────────────────────────────────────────────────────────

  const nodeFor = (name: string, device: OpenFile): Node | number => {
    const old = nodes.get(name);
    if (old !== undefined && !isGone(old)) {
      device.release();
      return old;
    }
    const bytes = device.seek(0, SEEK_END);
    const mapping = bytes < 0 ? NULL : files.create(context(), AS_DISK);
    if (mapping === NULL) {
      device.release();
      return bytes < 0 ? bytes : -ENOMEM;
    }
    files.setSize(mapping, bytes);
    const node: Node = { name, device, mapping, io: undefined, isPreparing: false, nrOpen: 0, isEnded: false };
    nodes.set(name, node);
    all.add(node);
    return node;
  };

  /** The driver's memory for pages, and the flusher: had by the first who opens it. */
  function* prepare(task: Task, node: Node): Sleeping<number> {
    yield* writeback.waitFor(task, () => !node.isPreparing);
    if (node.io !== undefined) return 0;
    const error = writeback.start(task.ctx);
    if (error !== 0) return error;
    node.isPreparing = true;
    // A fatal signal may unwind it: the next who opens the disk tries again.
    try {
      const io = yield* node.device.openPages?.(task) ?? noPages();
      if (typeof io === "number") return io;
      node.io = io;
      writeback.attach(node.mapping, { name: node.name, io, isGone: false });
      deps.startKswapd();
      return 0;
    } finally {
      node.isPreparing = false;
      writeback.announce();
    }
  }
  function* noPages(): Sleeping<number> {
    return -ENODEV;
  }

  const end = (node: Node): void => {
    if (node.io !== undefined) writeback.detach(node.mapping);
    if (dirty.hasDirty(node.mapping)) printk(KERN_ERR, `Buffer I/O error on dev ${node.name}, dirty pages are lost`);
    files.put(context(), node.mapping);
    node.device.release();
    all.delete(node);
    if (nodes.get(node.name) === node) nodes.delete(node.name);
    node.isEnded = true;
    writeback.announce();
  };

  /** The flusher's part: ends what nobody uses. */
  writeback.onClose(function* (task) {
    for (const node of [...all]) {
      if (isUsed(node)) continue;
      if (node.io !== undefined) yield* writeback.writeOut(task, node.mapping);
      if (!isUsed(node)) end(node);
    }
  });
  files.onIdle(() => writeback.wakeToClose());

  const drop = (node: Node): void => {
    node.nrOpen--;
    if (isUsed(node)) return;
    // Without the driver's memory there is no flusher yet, and nothing to write.
    if (node.io === undefined) end(node);
    else writeback.wakeToClose();
  };

  /** A call that sleeps: another thread may close the file meanwhile, and the node must not end under it. */
  function* within<T>(node: Node, call: () => Sleeping<T>): Sleeping<T> {
    node.nrOpen++;
    try {
      return yield* call();
    } finally {
      drop(node);
    }
  }

  // ── An open file ─────────────────────────────────────────────────────────────────────────────────────────────────

  const openNode = (node: Node, flags: number): OpenFile => {
    const { mapping } = node;
    const access = flags & 3;
    const canWrite = access === O_WRONLY || access === O_RDWR;
    const pattern = newPattern();
    const size = (): number => files.sizeBytes(mapping);
    let position = 0;
    let seen = writeback.errorsSeen(mapping);
    node.nrOpen++;
    return {
      refs: 1,
      isConsole: false,
      mapped: { mapping, canRead: access !== O_WRONLY, canWrite },
      prepare: (task) => within(node, () => prepare(task, node)),
      *read(task, max) {
        if (access === O_WRONLY) return -EBADF;
        const bytes = Math.max(0, Math.min(max, size() - position));
        if (isGone(node)) return -ENODEV;
        const got = yield* within(node, () => diskCache.read(task, mapping, position, bytes, pattern));
        if (typeof got !== "number") position += got.length;
        return got;
      },
      unread(nrBytes) {
        position -= nrBytes;
      },
      *write(task, source) {
        if (!canWrite) return -EBADF;
        if (isGone(node)) return -ENODEV;
        if (position >= size() && source.length > 0) return -ENOSPC;
        const part = source.subarray(0, Math.max(0, size() - position));
        const n = yield* within(node, () => diskCache.write(task, mapping, position, part));
        if (n > 0) position += n;
        return n;
      },
      seek(offset, whence) {
        const to = isGone(node) ? -ENODEV : seekFrom(position, size(), offset, whence);
        if (to >= 0) position = to;
        return to;
      },
      fsync: (task) =>
        within(node, function* () {
          yield* writeback.sync(task, mapping);
          const before = seen;
          seen = writeback.errorsSince(mapping, before);
          return seen === before ? 0 : -EIO;
        }),
      *close(task) {
        drop(node);
        yield* writeback.waitFor(task, () => node.isEnded || isUsed(node));
      },
      release: () => drop(node),
    };
  };

  /** What the cache has of a range must not differ from the disk. */
  function* settle(task: Task, name: string): Sleeping<void> {
    const node = nodes.get(name);
    if (node?.io !== undefined) yield* writeback.sync(task, node.mapping);
  }
  const forget = (name: string, position: number, bytes: number): void => {
    const node = nodes.get(name);
    if (node === undefined || bytes <= 0) return;
    const [first, last] = [Math.floor(position / PAGE_SIZE), Math.ceil((position + bytes) / PAGE_SIZE)];
    diskCache.invalidate(context(), node.mapping, first, last);
  };

  return {
    open(name, device, flags) {
      const node = nodeFor(name, device);
      return typeof node === "number" ? node : openNode(node, flags);
    },
    openDirect: (name, device) => ({
      ...device,
      // The swap area: what was written through the cache must be there.
      *openPages(task) {
        yield* settle(task, name);
        return yield* device.openPages?.(task) ?? noPages();
      },
      *read(task, max) {
        yield* settle(task, name);
        return yield* device.read(task, max);
      },
      *write(task, source) {
        yield* settle(task, name);
        const n = yield* device.write(task, source);
        const end = device.seek(0, SEEK_CUR);
        forget(name, end - n, n);
        return n;
      },
    }),
    nameOf(mapping) {
      for (const node of all) if (node.mapping === mapping) return `/dev/${node.name}`;
      return "";
    },
    *waitForEnds(task) {
      const hasIdle = (): boolean => [...all].some((node) => !isUsed(node));
      if (!hasIdle()) return false;
      yield* writeback.waitFor(task, () => !hasIdle());
      return true;
    },
    nrNodes: () => all.size,
  };
}
