/**
 * free, vmstat, slabtop, buddyinfo, ps, top and uptime: the programs around the reports.
 *
 * Each reads its files of /proc once and prints once; `ps` and `top` walk /proc for processes, of which some may be
 * gone before their files are read.
 */

import { CYCLES_PER_SECOND } from "../../kernel/params.ts";
import type { Sleeping } from "../../kernel/types.ts";
import { SYS_nanosleep } from "../../kernel/uapi/syscall.ts";
import { parseCount, parseOptions } from "./arguments.ts";
import { listDirectory } from "./directory.ts";
import {
  buddyinfoReport,
  freeReport,
  SLABTOP_SORTS,
  slabtopReport,
  VMSTAT_HEAD,
  type VmstatFiles,
  vmstatLine,
  vmstatSlabReport,
} from "./memory_reports.ts";
import { type PidStat, parsePidStat } from "./proc_text.ts";
import { psReport, topReport, uptimeReport } from "./process_reports.ts";
import { EXIT_FAILED, EXIT_OK, type Tool, type ToolDefinition } from "./tool.ts";

/** Lines of vmstat between two headings. */
const LINES_PER_HEAD = 20;

/** Texts of several files; null, after a complaint, if one cannot be read. */
function* texts(tool: Tool, paths: readonly string[]): Sleeping<string[] | null> {
  const found: string[] = [];
  for (const path of paths) {
    const text = yield* tool.text(path);
    if (text === null) return null;
    found.push(text);
  }
  return found;
}

/** Prints the report of one file. */
function* reportOf(tool: Tool, path: string, report: (text: string) => string): Sleeping<number> {
  const text = yield* tool.text(path);
  if (text === null) return EXIT_FAILED;
  yield* tool.out(report(text));
  return EXIT_OK;
}

/**
 * `[DELAY [COUNT]]`: runs `once` COUNT times, DELAY seconds apart; without a delay once, without a count for ever. Ends
 * early with the status of a run that fails.
 */
function* repeat(tool: Tool, operands: readonly string[], once: (run: number) => Sleeping<number>): Sleeping<number> {
  const [delay, count] = operands.map(parseCount);
  if (delay === null || count === null || delay === 0 || count === 0) return yield* tool.usage();
  const nrRuns = count ?? (delay === undefined ? 1 : Number.POSITIVE_INFINITY);
  for (let run = 0; run < nrRuns; run++) {
    if (run > 0) yield* tool.sys(SYS_nanosleep, (delay as number) * CYCLES_PER_SECOND);
    const status = yield* once(run);
    if (status !== EXIT_OK) return status;
  }
  return EXIT_OK;
}

const memmap: ToolDefinition = {
  name: "memmap",
  synopsis: "[DELAY [COUNT]]",
  summary: "a picture of RAM: what each part is used for; every DELAY seconds",
  *main(tool) {
    const options = parseOptions(tool.args, { maxOperands: 2 });
    if (options === null) return yield* tool.usage();
    const once = (): Sleeping<number> => reportOf(tool, "/sys/kernel/debug/memory_map", (text) => text);
    return yield* repeat(tool, options.operands, once);
  },
};

const free: ToolDefinition = {
  name: "free",
  synopsis: "[-b|-k|-m]",
  summary: "memory in use and free",
  *main(tool) {
    const options = parseOptions(tool.args, { flags: ["-b", "-k", "-m"] });
    if (options === null) return yield* tool.usage();
    const unitBytes = options.flags.has("-b") ? 1 : options.flags.has("-m") ? 1024 ** 2 : 1024;
    return yield* reportOf(tool, "/proc/meminfo", (text) => freeReport(text, unitBytes));
  },
};

const vmstat: ToolDefinition = {
  name: "vmstat",
  synopsis: "[-m | DELAY [COUNT]]",
  summary: "memory and CPU since boot, and every DELAY seconds; -m: slab caches",
  *main(tool) {
    const options = parseOptions(tool.args, { flags: ["-m"], maxOperands: 2 });
    if (options === null) return yield* tool.usage();
    if (options.flags.has("-m")) return yield* reportOf(tool, "/proc/slabinfo", vmstatSlabReport);
    let last: VmstatFiles | undefined;
    return yield* repeat(tool, options.operands, function* (line) {
      const files = yield* vmstatFiles(tool);
      if (files === null) return EXIT_FAILED;
      yield* tool.out((line % LINES_PER_HEAD === 0 ? VMSTAT_HEAD : "") + vmstatLine(files, last));
      last = files;
      return EXIT_OK;
    });
  },
};

function* vmstatFiles(tool: Tool): Sleeping<VmstatFiles | null> {
  const files = yield* texts(tool, ["/proc/meminfo", "/proc/vmstat", "/proc/stat", "/proc/uptime"]);
  if (files === null) return null;
  const [meminfo = "", vmstat = "", stat = "", uptime = ""] = files;
  return { meminfo, vmstat, stat, uptime };
}

const slabtop: ToolDefinition = {
  name: "slabtop",
  synopsis: "[-o] [-s a|b|c|l|n|o|p|s|u]",
  summary: "slab caches by size",
  *main(tool) {
    const args = tool.args.filter((arg) => arg !== "-o" && arg !== "--once");
    const sort = args.length === 0 ? "c" : args[0] === "-s" && args.length === 2 ? args[1] : undefined;
    if (sort === undefined || (sort !== "n" && !SLABTOP_SORTS.has(sort))) return yield* tool.usage();
    return yield* reportOf(tool, "/proc/slabinfo", (text) => slabtopReport(text, sort));
  },
};

const buddyinfo: ToolDefinition = {
  name: "buddyinfo",
  synopsis: "",
  summary: "free blocks of each order and zone",
  *main(tool) {
    if (tool.args.length > 0) return yield* tool.usage();
    return yield* reportOf(tool, "/proc/buddyinfo", buddyinfoReport);
  },
};

const uptime: ToolDefinition = {
  name: "uptime",
  synopsis: "",
  summary: "virtual time since boot, and load",
  *main(tool) {
    if (tool.args.length > 0) return yield* tool.usage();
    const files = yield* texts(tool, ["/proc/uptime", "/proc/loadavg"]);
    if (files === null) return EXIT_FAILED;
    yield* tool.out(uptimeReport(files[0] ?? "", files[1] ?? ""));
    return EXIT_OK;
  },
};

/** The processes of /proc by pid; null, after a complaint, without /proc. */
function* processes(tool: Tool): Sleeping<PidStat[] | null> {
  const names = yield* listDirectory(tool, "/proc");
  if (names === null) return null;
  const pids = names.map((name) => name.replace("/", "")).filter((name) => /^\d+$/.test(name));
  const found: PidStat[] = [];
  for (const pid of pids.map(Number).sort((a, b) => a - b)) {
    const text = yield* tool.textOrNull(`/proc/${pid}/stat`);
    const task = text === null ? null : parsePidStat(text);
    if (task !== null) found.push(task);
  }
  return found;
}

const ps: ToolDefinition = {
  name: "ps",
  synopsis: "[-ef | aux]",
  summary: "all processes, however it is asked",
  *main(tool) {
    // BSD's letters without a dash.
    const args = tool.args.map((arg) => (/^[aux]+$/.test(arg) ? `-${arg}` : arg));
    if (parseOptions(args, { flags: ["-e", "-A", "-a", "-u", "-x", "-f"] }) === null) return yield* tool.usage();
    const tasks = yield* processes(tool);
    if (tasks === null) return EXIT_FAILED;
    yield* tool.out(psReport(tasks));
    return EXIT_OK;
  },
};

const top: ToolDefinition = {
  name: "top",
  synopsis: "",
  summary: "one picture of processes by CPU time",
  *main(tool) {
    if (parseOptions(tool.args, { flags: ["-b"] }) === null) return yield* tool.usage();
    const files = yield* texts(tool, ["/proc/uptime", "/proc/loadavg", "/proc/stat", "/proc/meminfo"]);
    const tasks = files === null ? null : yield* processes(tool);
    if (files === null || tasks === null) return EXIT_FAILED;
    const [since = "", loadavg = "", stat = "", meminfo = ""] = files;
    yield* tool.out(topReport({ uptime: since, loadavg, stat, meminfo }, tasks));
    return EXIT_OK;
  },
};

export const REPORT_TOOLS: readonly ToolDefinition[] = [free, memmap, vmstat, slabtop, buddyinfo, uptime, ps, top];
