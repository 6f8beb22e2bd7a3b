/**
 * Files of a driver: open ones keep the module loaded, and a device that goes takes its files along.
 *
 * What a driver registers is wrapped. open() takes a reference to the module, the last close gives it back: rmmod of a
 * module in use says −EBUSY. revokeDevice() ends the files of a node while programs still hold their descriptors: no
 * new open, no new call gets in, calls inside are waited for, then each file is released; from there on the
 * descriptors answer −ENODEV. So the driver may free its state right afterwards.
 *
 *   DFL-1  references of a module = open files of its nodes, revoked ones included
 *   DFL-2  file.release() of the driver is called exactly once, and never while a call is inside the file
 *   DFL-3  after revokeDevice() no code of the driver is reached through the node
 *
 * Real kernels: `fops->owner` and try_module_get; kernfs's active references (fs/kernfs/dir.c, kernfs_drain).
 */

import type { FileRegistry, OpenFile } from "../kernel/file.ts";
import type { Task } from "../kernel/task.ts";
import type { PhysAddr, Sleeping } from "../kernel/types.ts";
import { ENODEV } from "../kernel/uapi/errno.ts";
import type { WaitQueues } from "../kernel/wait.ts";

export interface DriverFiles extends FileRegistry {
  /** Takes a node away and ends its files; wake your own sleepers first. Process context. */
  revokeDevice(task: Task, name: string): Sleeping<void>;
  /** Takes every node and text away that is still registered: the names of the nodes. For unloading. */
  forgetAll(): readonly string[];
  /** Open files, revoked ones included. */
  nrOpen(): number;
}

/** The module that owns the files. */
export interface FileOwner {
  /** A reference; false while the module comes or goes. */
  tryGet(): boolean;
  put(): void;
  /** Queue on which revokeDevice waits. */
  readonly queue: PhysAddr;
}

interface Node {
  isRevoked: boolean;
  /** Calls inside the driver through this node. */
  nrInside: number;
  readonly files: Set<OpenFile>;
}

export function createDriverFiles(registry: FileRegistry, waits: WaitQueues, owner: FileOwner): DriverFiles {
  const nodes = new Map<string, Node>();
  const texts = new Set<string>();
  let nrOpen = 0;

  function* inside<T>(node: Node, call: () => Sleeping<T>): Sleeping<T | number> {
    if (node.isRevoked) return -ENODEV;
    node.nrInside++;
    // A fatal signal unwinds the caller: it must be counted out.
    try {
      return yield* call();
    } finally {
      node.nrInside--;
      if (node.isRevoked && node.nrInside === 0) waits.wakeUp(owner.queue);
    }
  }

  const wrap = (node: Node, file: OpenFile): OpenFile => ({
    refs: 1,
    isConsole: false,
    read: (task, max) => inside(node, () => file.read(task, max)),
    write: (task, bytes) => inside(node, () => file.write(task, bytes)),
    seek: (offset, whence) => (node.isRevoked ? -ENODEV : file.seek(offset, whence)),
    ...openPagesOf(node, file),
    release() {
      if (node.files.delete(file)) file.release();
      nrOpen--;
      owner.put();
    },
  });

  /** Pages of a disk: the memory that its driver keeps for them goes with the file. */
  const openPagesOf = (node: Node, file: OpenFile): Pick<OpenFile, "openPages"> => {
    const { openPages } = file;
    if (openPages === undefined) return {};
    return {
      *openPages(task) {
        const io = yield* inside(node, () => openPages(task));
        if (typeof io === "number") return io;
        return {
          nrPages: io.nrPages,
          maxPages: io.maxPages,
          read: (ctx, first, frames, nr) => (node.isRevoked ? -ENODEV : io.read(ctx, first, frames, nr)),
          write: (ctx, first, frames, nr) => (node.isRevoked ? -ENODEV : io.write(ctx, first, frames, nr)),
          writeSleeping: (by, first, frames, nr) => inside(node, () => io.writeSleeping(by, first, frames, nr)),
          readSleeping: (by, first, nr) => inside(node, () => io.readSleeping(by, first, nr)),
        };
      },
    };
  };

  const open = (node: Node, openInDriver: (flags: number) => OpenFile | number, flags: number): OpenFile | number => {
    if (node.isRevoked || !owner.tryGet()) return -ENODEV;
    const file = openInDriver(flags);
    if (typeof file === "number") {
      owner.put();
      return file;
    }
    node.files.add(file);
    nrOpen++;
    return wrap(node, file);
  };

  const unregisterDevice = (name: string): void => {
    const node = nodes.get(name);
    if (node === undefined) return;
    registry.unregisterDevice(name);
    node.isRevoked = true;
  };

  return {
    ...registry,
    registerDevice(name, openInDriver) {
      const node: Node = { isRevoked: false, nrInside: 0, files: new Set() };
      registry.registerDevice(name, (flags) => open(node, openInDriver, flags));
      nodes.set(name, node);
    },
    unregisterDevice,
    registerText(path, file) {
      registry.registerText(path, file);
      texts.add(path);
    },
    unregisterText(path) {
      registry.unregisterText(path);
      texts.delete(path);
    },
    *revokeDevice(task, name) {
      const node = nodes.get(name);
      if (node === undefined) return;
      unregisterDevice(name);
      nodes.delete(name);
      while (node.nrInside > 0) yield* waits.waitOn(owner.queue, task);
      for (const file of node.files) file.release();
      node.files.clear();
    },
    forgetAll() {
      const left = [...nodes.keys()];
      for (const name of left) unregisterDevice(name);
      nodes.clear();
      for (const path of texts) registry.unregisterText(path);
      texts.clear();
      return left;
    },
    nrOpen: () => nrOpen,
  };
}
