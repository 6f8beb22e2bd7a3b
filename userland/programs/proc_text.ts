/**
 * Readers for the text files of /proc, as procps has them: by name where lines are named, by column elsewhere.
 *
 * A file may have more lines and columns than are asked for here, and may lack some: what is missing counts as 0, as
 * an older kernel would have it. Pure functions over text. Formats: proc(5), and the kernel's filesystems/proc.rst.
 */

/** User-visible clock ticks per second, in which /proc counts CPU time. */
export const USER_HZ = 100;

const count = (text: string | undefined): number => {
  const n = Number(text);
  return text !== undefined && Number.isFinite(n) ? n : 0;
};

export const linesOf = (text: string): string[] => text.split("\n").filter((line) => line !== "");

export const columnsOf = (line: string): string[] => line.trim().split(/\s+/);

/** `/proc/meminfo`: name → KiB. */
export function parseMeminfo(text: string): ReadonlyMap<string, number> {
  const fields = new Map<string, number>();
  for (const line of linesOf(text)) {
    const colon = line.indexOf(":");
    if (colon > 0) fields.set(line.slice(0, colon), count(columnsOf(line.slice(colon + 1))[0]));
  }
  return fields;
}

/** `/proc/vmstat`, and any other file of lines `name value`. */
export function parseNamedCounts(text: string): ReadonlyMap<string, number> {
  return new Map(
    linesOf(text).map((line) => {
      const [name, value] = columnsOf(line);
      return [name ?? "", count(value)] as const;
    }),
  );
}

export interface SystemStat {
  /** user, nice, system, idle, iowait, irq, softirq, steal; in USER_HZ. */
  readonly cpuTicks: readonly number[];
  readonly nrInterrupts: number;
  readonly nrSwitches: number;
  readonly nrForks: number;
  readonly nrRunning: number;
  readonly nrBlocked: number;
}

/** `/proc/stat`. */
export function parseSystemStat(text: string): SystemStat {
  const lines = new Map(linesOf(text).map((line) => [columnsOf(line)[0] ?? "", columnsOf(line).slice(1)] as const));
  const first = (name: string): number => count(lines.get(name)?.[0]);
  return {
    cpuTicks: Array.from({ length: 8 }, (_, i) => count(lines.get("cpu")?.[i])),
    nrInterrupts: first("intr"),
    nrSwitches: first("ctxt"),
    nrForks: first("processes"),
    nrRunning: first("procs_running"),
    nrBlocked: first("procs_blocked"),
  };
}

export interface SlabLine {
  readonly name: string;
  readonly activeObjs: number;
  readonly numObjs: number;
  readonly objSize: number;
  readonly objPerSlab: number;
  readonly pagesPerSlab: number;
  readonly activeSlabs: number;
  readonly numSlabs: number;
}

/** `/proc/slabinfo`, version 2.x. */
export function parseSlabinfo(text: string): SlabLine[] {
  return linesOf(text)
    .filter((line) => !line.startsWith("#") && !line.startsWith("slabinfo"))
    .map((line) => {
      const [cache = "", , slabdata = ""] = line.split(" : ");
      const columns = columnsOf(cache);
      const slabs = columnsOf(slabdata);
      return {
        name: columns[0] ?? "",
        activeObjs: count(columns[1]),
        numObjs: count(columns[2]),
        objSize: count(columns[3]),
        objPerSlab: count(columns[4]),
        pagesPerSlab: count(columns[5]),
        activeSlabs: count(slabs[1]),
        numSlabs: count(slabs[2]),
      };
    });
}

export interface ZoneBlocks {
  readonly node: number;
  readonly zone: string;
  /** Free blocks of 2^index pages. */
  readonly nrFree: readonly number[];
}

/** `/proc/buddyinfo`. */
export function parseBuddyinfo(text: string): ZoneBlocks[] {
  const zones: ZoneBlocks[] = [];
  for (const line of linesOf(text)) {
    const found = /^Node\s+(\d+),\s+zone\s+(\S+)\s+(.*)$/.exec(line);
    if (!found) continue;
    const [, node, zone = "", orders = ""] = found;
    zones.push({ node: count(node), zone, nrFree: columnsOf(orders).map(count) });
  }
  return zones;
}

export interface PidStat {
  readonly pid: number;
  readonly comm: string;
  readonly state: string;
  readonly ppid: number;
  /** User and system time together, in USER_HZ. */
  readonly ticks: number;
  readonly priority: number;
  readonly nice: number;
  readonly nrThreads: number;
  readonly vsizeBytes: number;
  readonly rssPages: number;
}

/** `/proc/<pid>/stat`, or null when it is none. The name may contain blanks and parentheses: the last `)` ends it. */
export function parsePidStat(text: string): PidStat | null {
  const open = text.indexOf("(");
  const close = text.lastIndexOf(")");
  if (open < 0 || close < open) return null;
  // Columns behind the name; proc(5) numbers the first of them 3.
  const columns = columnsOf(text.slice(close + 1));
  const field = (nr: number): number => count(columns[nr - 3]);
  return {
    pid: count(text.slice(0, open).trim()),
    comm: text.slice(open + 1, close),
    state: columns[0] ?? "?",
    ppid: field(4),
    ticks: field(14) + field(15),
    priority: field(18),
    nice: field(19),
    nrThreads: field(20),
    vsizeBytes: field(23),
    rssPages: field(24),
  };
}

/** Seconds since boot, of `/proc/uptime`. */
export const parseUptime = (text: string): number => count(columnsOf(text)[0]);

/** The three averages of `/proc/loadavg`, as text. */
export const parseLoadavg = (text: string): string => columnsOf(text).slice(0, 3).join(", ");
