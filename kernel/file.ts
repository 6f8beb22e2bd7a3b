/**
 * Open files, and the files that subsystems and drivers add: /dev nodes, texts of /proc and /sys.
 *
 * What a file descriptor points at is an OpenFile; several descriptors may share one. Where the files are kept is not
 * decided here: kernel/entry builds the tree. A driver that is loaded registers its nodes and texts, and takes them
 * away when it is removed; files that are open then stay valid objects and answer −ENODEV by themselves.
 *
 *   FIL-1  a path is registered once; registering it again is a kernel bug
 *   FIL-2  read() of a text makes it anew and has no effect; only write() changes something
 *   FIL-3  a file lives as long as a call on it sleeps, though another thread closes it meanwhile: `holding`
 */

import { bugOn } from "./bug.ts";
import type { Task } from "./task.ts";
import type { PhysAddr, Sleeping, TaskContext } from "./types.ts";
import { EINVAL, EOVERFLOW } from "./uapi/errno.ts";
import { SEEK_CUR, SEEK_END, SEEK_SET } from "./uapi/mman.ts";

export interface OpenFile {
  refs: number;
  /** True for the terminal: reads wait for a line, Ctrl-C reaches its readers. */
  readonly isConsole: boolean;
  /** Its readers and writers may sleep for ever: a signal ends that. */
  readonly isInterruptible?: boolean;
  /** What mmap shows of it; absent: it cannot be mapped. */
  readonly mapped?: { readonly mapping: PhysAddr; readonly canRead: boolean; readonly canWrite: boolean };
  /** At most `max` bytes; empty at the end of the file; −errno. */
  read(task: Task, max: number): Sleeping<Uint8Array | number>;
  /** The last `nrBytes` read could not be delivered: the next read gets them again. Absent: they are lost. */
  unread?(nrBytes: number): void;
  /** Bytes written, or −errno. */
  write(task: Task, bytes: Uint8Array): Sleeping<number>;
  /** The new position, or −errno. */
  seek(offset: number, whence: number): number;
  /** Whole pages by DMA, for the swap area; −ENOMEM. Until release(). Absent: this file is no disk. */
  openPages?(task: Task): Sleeping<PageIo | number>;
  /** What must be had before the first use: 0 or −errno, and then it is released. Absent: nothing. */
  prepare?(task: Task): Sleeping<number>;
  /** What was written is on the disk afterwards: 0; −EIO for what could not be since this file last asked. */
  fsync?(task: Task): Sleeping<number>;
  /** release() by close(), which waits until nothing of the file is left to be done. Absent: release() does all. */
  close?(task: Task): Sleeping<void>;
  /** The last descriptor is gone. */
  release(): void;
}

/** FIL-3: makes a call that may sleep on `file`. Whoever lets go of it last releases it. Linux: fdget, fput. */
export function* holding<T>(file: OpenFile, call: () => Sleeping<T>): Sleeping<T> {
  file.refs++;
  // A fatal signal may unwind it.
  try {
    return yield* call();
  } finally {
    if (--file.refs === 0) file.release();
  }
}

/**
 * Where lseek() leads in a file of `end` bytes: the new position, −EINVAL before the beginning or for no `whence`,
 * −EOVERFLOW for a position that no register of this machine holds.
 */
export function seekFrom(position: number, end: number, offset: number, whence: number): number {
  const base = whence === SEEK_SET ? 0 : whence === SEEK_CUR ? position : whence === SEEK_END ? end : -1;
  if (base < 0 || base + offset < 0) return -EINVAL;
  return Number.isSafeInteger(base + offset) ? base + offset : -EOVERFLOW;
}

/**
 * A disk as an array of pages. `pages` are frames, `nr` of them in a row on the disk from page `first` on; at most
 * `maxPages` at once.
 */
export interface PageIo {
  readonly nrPages: number;
  readonly maxPages: number;
  /** Waits in place: the CPU polls the device. 0, −EIO or −ENODEV. Any context that may poll. */
  read(ctx: TaskContext, first: number, pages: Int32Array, nr: number): number;
  write(ctx: TaskContext, first: number, pages: Int32Array, nr: number): number;
  /** The same for a thread, which sleeps; the frames may change as soon as it does. One at a time. */
  writeSleeping(task: Task, first: number, pages: Int32Array, nr: number): Sleeping<number>;
  /** The content of `nr` pages, for any task, which sleeps and may be killed meanwhile; −ENOMEM besides. */
  readSleeping(task: Task, first: number, nr: number): Sleeping<Uint8Array | number>;
}

/** A file of /proc or /sys: its text is made when it is opened. */
export interface TextFile {
  read(): string;
  /** Takes what was written, newline included: 0 or −errno. Process context. Absent: the file is read-only. */
  write?(task: Task, text: string): Sleeping<number>;
}

export interface FileRegistry {
  /** `/dev/<name>`; `open` gives a file with one reference, or −errno. */
  registerDevice(name: string, open: (flags: number) => OpenFile | number): void;
  unregisterDevice(name: string): void;
  device(name: string): ((flags: number) => OpenFile | number) | undefined;
  deviceNames(): readonly string[];
  /** A text at an absolute path below /proc or /sys. */
  registerText(path: string, file: TextFile): void;
  unregisterText(path: string): void;
  text(path: string): TextFile | undefined;
  textPaths(): readonly string[];
}

export function createFileRegistry(): FileRegistry {
  const devices = new Map<string, (flags: number) => OpenFile | number>();
  const texts = new Map<string, TextFile>();
  return {
    registerDevice(name, open) {
      bugOn(devices.has(name), "FIL-1: a device node of this name exists");
      devices.set(name, open);
    },
    unregisterDevice: (name) => {
      devices.delete(name);
    },
    device: (name) => devices.get(name),
    deviceNames: () => [...devices.keys()].sort(),
    registerText(path, file) {
      bugOn(texts.has(path), "FIL-1: a text of this path exists");
      texts.set(path, file);
    },
    unregisterText: (path) => {
      texts.delete(path);
    },
    text: (path) => texts.get(path),
    textPaths: () => [...texts.keys()],
  };
}
