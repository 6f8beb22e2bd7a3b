/**
 * The trees /proc and /sys: files whose text is made when they are read.
 *
 * Each formatter is a pure function of ProcSources and prints what Linux 6.12 prints, column by column, so that real
 * tools read it. Fixed files are a table; /proc/<pid> and /sys/kernel/slab/<cache> come and go with their objects;
 * drivers register their own (kernel/file.ts).
 *
 * Context: any; nothing sleeps, nothing is locked, no virtual time passes.
 */

import { createFileRegistry, type FileRegistry, type TextFile } from "../../file.ts";
import type { SlabInfoRow, TaskInfo } from "../kernel.ts";
import type { ProcSources } from "../proc_sources.ts";
import { formatBuddyinfo } from "./buddyinfo.ts";
import { formatExtfragIndex, formatUnusableIndex } from "./fragmentation.ts";
import { formatInterrupts, formatSoftirqs, formatStat } from "./interrupts.ts";
import { formatMeminfo } from "./meminfo.ts";
import {
  formatCmdline,
  formatFilesystems,
  formatKmsg,
  formatLoadavg,
  formatMinFreeKbytes,
  formatModules,
  formatMounts,
  formatSwaps,
  formatUptime,
  formatVersion,
} from "./misc.ts";
import { formatPagetypeinfo } from "./pagetypeinfo.ts";
import { PID_FILES, pidFileWriter } from "./pid.ts";
import { formatSlabinfo, SLAB_ATTRIBUTES } from "./slabinfo.ts";
import { formatVmstat } from "./vmstat.ts";
import { formatZoneinfo } from "./zoneinfo.ts";

/** The files of /proc that describe memory: what `slabtown procfs DIR` writes. */
export const PROCFS_FILES: readonly string[] = [
  "meminfo",
  "buddyinfo",
  "pagetypeinfo",
  "zoneinfo",
  "slabinfo",
  "vmstat",
];

export interface Procfs {
  /** Text of the file at an absolute path under /proc or /sys; null if there is none. */
  read(path: string): string | null;
  /** Takes what is written to the file at `path`; undefined if it is only read. */
  writer(path: string): TextFile["write"] | undefined;
  /** Names in a directory, in the order of Linux's `ls` for numbers and words; null if it is not a directory. */
  list(dir: string): readonly string[] | null;
}

const FIXED: ReadonlyMap<string, (s: ProcSources) => string> = new Map([
  ["/proc/buddyinfo", formatBuddyinfo],
  ["/proc/cmdline", formatCmdline],
  ["/proc/filesystems", formatFilesystems],
  ["/proc/interrupts", formatInterrupts],
  ["/proc/kmsg", formatKmsg],
  ["/proc/loadavg", formatLoadavg],
  ["/proc/meminfo", formatMeminfo],
  ["/proc/modules", formatModules],
  ["/proc/mounts", formatMounts],
  ["/proc/pagetypeinfo", formatPagetypeinfo],
  ["/proc/slabinfo", formatSlabinfo],
  ["/proc/softirqs", formatSoftirqs],
  ["/proc/stat", formatStat],
  ["/proc/swaps", formatSwaps],
  ["/proc/sys/vm/min_free_kbytes", formatMinFreeKbytes],
  ["/proc/uptime", formatUptime],
  ["/proc/version", formatVersion],
  ["/proc/vmstat", formatVmstat],
  ["/proc/zoneinfo", formatZoneinfo],
  ["/sys/kernel/debug/extfrag/extfrag_index", formatExtfragIndex],
  ["/sys/kernel/debug/extfrag/unusable_index", formatUnusableIndex],
]);

const SLAB_DIR = "/sys/kernel/slab";

export function createProcfs(sources: ProcSources, registry: FileRegistry = createFileRegistry()): Procfs {
  /** Names directly below `dir` of the files with fixed paths, ours and registered ones, and of their directories. */
  const fixedNames = (dir: string): string[] => {
    const prefix = dir === "/" ? "/" : `${dir}/`;
    const below = [...FIXED.keys(), ...registry.textPaths()].filter((path) => path.startsWith(prefix));
    return Array.from(new Set(below.map((path) => path.slice(prefix.length).split("/", 1)[0] as string)));
  };

  const findTask = (pid: string): TaskInfo | undefined => (/^\d+$/.test(pid) ? sources.task(Number(pid)) : undefined);
  const findCache = (name: string): SlabInfoRow | undefined => sources.slabCaches().find((row) => row.name === name);

  const read = (path: string): string | null => {
    const registered = registry.text(path);
    if (registered !== undefined) return registered.read();
    const fixed = FIXED.get(path);
    if (fixed !== undefined) return fixed(sources);
    const [, pid = "", pidFile = ""] = /^\/proc\/(\d+)\/([^/]+)$/.exec(path) ?? [];
    const format = PID_FILES.get(pidFile);
    if (format !== undefined) {
      const task = findTask(pid);
      return task === undefined ? null : format(sources, task);
    }
    const [, cache = "", attribute = ""] = /^\/sys\/kernel\/slab\/([^/]+)\/([^/]+)$/.exec(path) ?? [];
    const row = findCache(cache);
    return row === undefined ? null : (SLAB_ATTRIBUTES.get(attribute)?.(row) ?? null);
  };

  const writer = (path: string): TextFile["write"] => {
    const registered = registry.text(path)?.write;
    if (registered !== undefined) return registered;
    const [, pid = "", file = ""] = /^\/proc\/(\d+)\/([^/]+)$/.exec(path) ?? [];
    const task = findTask(pid);
    const write = task === undefined ? undefined : pidFileWriter(sources, task, file);
    if (write === undefined) return undefined;
    return function* (_task, text) {
      return write(text);
    };
  };

  /** Names that come and go: pids, caches, and the files of each; null if `dir` is no such directory. */
  const dynamicNames = (dir: string): readonly string[] | null => {
    // Threads are reached by their number but only processes are listed, as in Linux.
    if (dir === "/proc") return sources.tasks().flatMap((task) => (task.pid === task.tgid ? [String(task.pid)] : []));
    if (dir === "/sys/kernel") return ["slab"];
    if (dir === SLAB_DIR) return sources.slabCaches().map((row) => row.name);
    const pid = /^\/proc\/(\d+)$/.exec(dir)?.[1];
    if (pid !== undefined) return findTask(pid) === undefined ? null : Array.from(PID_FILES.keys());
    const cache = /^\/sys\/kernel\/slab\/([^/]+)$/.exec(dir)?.[1];
    if (cache !== undefined) return findCache(cache) === undefined ? null : Array.from(SLAB_ATTRIBUTES.keys());
    return [];
  };

  const list = (dir: string): readonly string[] | null => {
    const path = dir.length > 1 && dir.endsWith("/") ? dir.slice(0, -1) : dir;
    const dynamic = path.startsWith("/") ? dynamicNames(path) : null;
    if (dynamic === null) return null;
    const names = Array.from(new Set([...dynamic, ...fixedNames(path)]));
    if (names.length === 0 && path !== SLAB_DIR) return null;
    const rank = (name: string): number => (/^\d+$/.test(name) ? Number(name) : Number.POSITIVE_INFINITY);
    return names.sort((a, b) => {
      const [left, right] = [rank(a), rank(b)];
      if (left !== right) return left < right ? -1 : 1;
      return a < b ? -1 : a > b ? 1 : 0;
    });
  };

  return { read, writer, list };
}
