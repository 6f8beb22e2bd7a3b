/**
 * The file tree: one place that knows which path leads where.
 *
 *   /proc /sys   texts made by procfs when opened          /dev   console, null, zero, kmsg, devices
 *   /bin /sbin   the programs, by name (for ls)             /tmp   tmpfs: files in RAM and swap, made by open(O_CREAT)
 *                                                           rest   ramfs: files in RAM
 */

import type { FileRegistry, OpenFile } from "../file.ts";
import { formatLogLine, type Printk } from "../printk.ts";
import type { PhysAddr } from "../types.ts";
import { EACCES, EISDIR, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR } from "../uapi/errno.ts";
import { O_CREAT, O_DIRECT, O_TRUNC } from "../uapi/mman.ts";
import type { WaitQueues } from "../wait.ts";
import type { BlockFiles } from "./block_files.ts";
import { type ConsoleDevice, createPipe, nullFile, type PageBytes, textFile, zeroFile } from "./files.ts";
import { resolvePath } from "./paths.ts";
import type { Procfs } from "./procfs/index.ts";
import { createNode, dropNode, nodeBytes, openNode, type RamfsMemory, type RamfsNode } from "./ramfs.ts";
import type { FileTree } from "./syscall.ts";

export interface FileTreeDeps {
  readonly memory: PageBytes & RamfsMemory;
  readonly waits: WaitQueues;
  readonly procfs: Procfs;
  readonly consoleDevice: ConsoleDevice;
  /** What drivers add to /dev, /proc and /sys. */
  readonly registry: FileRegistry;
  /** Disks among what drivers add. */
  readonly blockFiles: BlockFiles;
  readonly printk: Printk;
  readonly programPaths: readonly string[];
}

export interface KernelFiles extends FileTree {
  /** Text of a file, or null: what `cat` would print. */
  readText(path: string): string | null;
  /** Removes every file of the ramfs. */
  removeAll(): void;
  /** Path of the file with these pages, also after unlink; "" for none. */
  nameOf(mapping: PhysAddr): string;
}

/** Longest name of a file, as in Linux. */
const NAME_MAX = 255;
const ROOT = ["bin/", "dev/", "proc/", "sbin/", "sys/", "tmp/"];
const DEVICES = ["console", "kmsg", "null", "tty", "zero"];

/** The tree knows absolute paths only: null for another one. */
const normalize = (path: string): string | null => (path.startsWith("/") ? resolvePath("/", path) : null);

/** Linux: a symbolic link that leads everybody elsewhere. */
const asSeenBy = (path: string, pid: number): string => path.replace(/^\/proc\/self(?=\/|$)/, `/proc/${pid}`);

export function createFileTree(deps: FileTreeDeps): KernelFiles {
  const { memory, waits, procfs, consoleDevice, registry, blockFiles, printk, programPaths } = deps;
  const ramfs = new Map<string, RamfsNode>();
  /** The last name of each address_space that has been a file. */
  const names = new Map<PhysAddr, string>();

  const directory = (path: string): readonly string[] | null => {
    if (path === "/") return [...ROOT, ...namesBelow("/")];
    if (path === "/dev") return [...DEVICES, ...registry.deviceNames()].sort();
    if (path === "/bin" || path === "/sbin") {
      return programPaths.filter((name) => name.startsWith(`${path}/`)).map((name) => name.slice(path.length + 1));
    }
    if (path === "/tmp") return namesBelow("/tmp/");
    if (path.startsWith("/tmp/")) return null;
    const listed = procfs.list(path);
    if (path !== "/proc" || listed === null) return listed;
    const at = listed.findIndex((name) => !/^\d/.test(name) && name > "self");
    return listed.toSpliced(at < 0 ? listed.length : at, 0, "self");
  };
  const namesBelow = (prefix: string): string[] =>
    [...ramfs.keys()]
      .filter((name) => name.startsWith(prefix))
      .map((name) => name.slice(prefix.length))
      .filter((name) => !name.includes("/"))
      .sort();

  const kernelLog = (): string => {
    const lines = printk.records().map((record) => `${formatLogLine(record)}\n`);
    return lines.join("");
  };

  const special = (path: string, flags: number): OpenFile | number | undefined => {
    if (path === "/dev/null") return nullFile();
    if (path === "/dev/zero") return zeroFile();
    if (path === "/dev/console" || path === "/dev/tty") return consoleDevice.open();
    if (path === "/dev/kmsg" || path === "/proc/kmsg") return textFile(kernelLog());
    return path.startsWith("/dev/") ? openDevice(path.slice("/dev/".length), flags) : undefined;
  };
  const openDevice = (name: string, flags: number): OpenFile | number | undefined => {
    const device = registry.device(name)?.(flags);
    if (typeof device !== "object" || device.openPages === undefined) return device;
    const isDirect = (flags & O_DIRECT) !== 0;
    return isDirect ? blockFiles.openDirect(name, device) : blockFiles.open(name, device, flags);
  };

  const openRamfs = (path: string, flags: number): OpenFile | number => {
    let node = ramfs.get(path);
    if (node === undefined) {
      if ((flags & O_CREAT) === 0) return -ENOENT;
      if (/^\/(proc|sys|dev|bin|sbin)(\/|$)/.test(path)) return -EACCES;
      const parent = path.slice(0, path.lastIndexOf("/"));
      if (ramfs.has(parent)) return -ENOTDIR;
      if (parent !== "" && parent !== "/tmp") return -ENOENT;
      node = createNode(memory, path.startsWith("/tmp/"));
      if (node === undefined) return -ENOMEM;
      ramfs.set(path, node);
      names.set(node.mapping, path);
    }
    if ((flags & O_TRUNC) !== 0) memory.processMemory.truncate(memory.context(), node.mapping, 0);
    return openNode(memory, node, flags);
  };

  return {
    open(rawPath, flags, pid) {
      const absolute = normalize(rawPath);
      if (absolute === null) return -ENOENT;
      const path = asSeenBy(absolute, pid);
      if (path.split("/").some((name) => name.length > NAME_MAX)) return -ENAMETOOLONG;
      const device = special(path, flags);
      if (device !== undefined) return device;
      const text = procfs.read(path);
      const isWriting = (flags & 3) !== 0;
      if (text !== null) {
        const onWrite = procfs.writer(path);
        return isWriting && onWrite === undefined ? -EACCES : textFile(text, onWrite);
      }
      const names = directory(path);
      if (names !== null) return isWriting ? -EISDIR : textFile(names.map((name) => `${name}\0`).join(""));
      if (programPaths.includes(path)) return isWriting ? -EACCES : textFile(`(program ${path})\n`);
      return openRamfs(path, flags);
    },
    isDirectory: (path, pid) => directory(asSeenBy(path, pid)) !== null,
    pipe: () => createPipe(memory, waits),
    unlink(rawPath) {
      const path = normalize(rawPath);
      const node = path === null ? undefined : ramfs.get(path);
      if (path === null || node === undefined) return path !== null && directory(path) !== null ? -EISDIR : -ENOENT;
      dropNode(memory, node);
      ramfs.delete(path);
      names.set(node.mapping, `${path} (deleted)`);
      return 0;
    },
    removeAll() {
      for (const node of ramfs.values()) dropNode(memory, node);
      ramfs.clear();
      names.clear();
    },
    nameOf: (mapping) => names.get(mapping) ?? blockFiles.nameOf(mapping),
    readText(rawPath) {
      const path = normalize(rawPath);
      if (path === null) return null;
      if (path === "/dev/kmsg" || path === "/proc/kmsg") return kernelLog();
      const text = procfs.read(path);
      if (text !== null) return text;
      const node = ramfs.get(path);
      if (node === undefined) return null;
      let content = "";
      for (const byte of nodeBytes(memory, node)) content += String.fromCharCode(byte);
      return content;
    },
  };
}
