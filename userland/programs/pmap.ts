/**
 * pmap: the mappings of a process, in the layout of procps-ng 4, from /proc/PID/maps or, with -x, smaps.
 */

import type { Sleeping } from "../../kernel/types.ts";
import { parseCount, parseOptions } from "./arguments.ts";
import { EXIT_FAILED, EXIT_OK, type Tool, type ToolDefinition } from "./tool.ts";

interface Mapping {
  readonly start: string;
  readonly kib: number;
  readonly rights: string;
  readonly name: string;
  rssKib: number;
  dirtyKib: number;
}

const LINE = /^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ *(.*)$/;

/** The mappings in a text of maps or smaps. */
export function parseMappings(text: string): Mapping[] {
  const mappings: Mapping[] = [];
  for (const line of text.split("\n")) {
    const found = LINE.exec(line);
    if (found !== null) {
      const [, start = "", end = "", rights = "", path = ""] = found;
      const kib = (Number.parseInt(end, 16) - Number.parseInt(start, 16)) / 1024;
      const name =
        path === "" ? "  [ anon ]" : path.startsWith("[") ? `  ${path.replace(/^\[(.*)\]$/, "[ $1 ]")}` : path;
      mappings.push({ start, kib, rights, name: name.replace(/^.*\//, ""), rssKib: 0, dirtyKib: 0 });
      continue;
    }
    const last = mappings[mappings.length - 1];
    const [, field = "", value = "0"] = /^(Rss|Shared_Dirty|Private_Dirty): +(\d+) kB$/.exec(line) ?? [];
    if (last === undefined || field === "") continue;
    if (field === "Rss") last.rssKib = Number(value);
    else last.dirtyKib += Number(value);
  }
  return mappings;
}

/** `rw-p` as pmap writes it: shared shows, private does not, and a column that is never used. */
const pmapRights = (rights: string): string => `${rights.slice(0, 3)}${rights[3] === "s" ? "s" : "-"}-`;
const right = (value: number, width: number): string => String(value).padStart(width);

export function pmapReport(pid: number, comm: string, mappings: readonly Mapping[], isLong: boolean): string {
  const address = (start: string): string => start.padStart(16, "0");
  const total = (of: (mapping: Mapping) => number): number => mappings.reduce((sum, mapping) => sum + of(mapping), 0);
  const head = `${pid}:   ${comm}\n`;
  if (!isLong) {
    const rows = mappings.map((m) => `${address(m.start)} ${right(m.kib, 6)}K ${pmapRights(m.rights)} ${m.name}\n`);
    return `${head}${rows.join("")} total ${right(
      total(({ kib }) => kib),
      16,
    )}K\n`;
  }
  const row = (m: Mapping): string => {
    const numbers = [m.kib, m.rssKib, m.dirtyKib].map((kib) => right(kib, 7)).join(" ");
    return `${address(m.start)} ${numbers} ${pmapRights(m.rights)} ${m.name}\n`;
  };
  const sums = [total(({ kib }) => kib), total(({ rssKib }) => rssKib), total(({ dirtyKib }) => dirtyKib)];
  return (
    `${head}Address           Kbytes     RSS   Dirty Mode  Mapping\n${mappings.map(row).join("")}` +
    `---------------- ------- ------- ------- \ntotal kB         ${sums.map((sum) => right(sum, 7)).join(" ")}\n`
  );
}

function* report(tool: Tool, pid: number, isLong: boolean): Sleeping<boolean> {
  const comm = yield* tool.textOrNull(`/proc/${pid}/comm`);
  const text = yield* tool.textOrNull(`/proc/${pid}/${isLong ? "smaps" : "maps"}`);
  if (comm === null || text === null) {
    yield* tool.complain(`${pid}: no such process`);
    return false;
  }
  yield* tool.out(pmapReport(pid, comm.trimEnd(), parseMappings(text), isLong));
  return true;
}

export const PMAP: ToolDefinition = {
  name: "pmap",
  synopsis: "[-x] PID...",
  summary: "the mappings of a process; -x with what is resident",
  *main(tool) {
    const options = parseOptions(tool.args, { flags: ["-x"], minOperands: 1, maxOperands: 16 });
    const pids = options?.operands.map(parseCount) ?? [null];
    if (options === null || pids.includes(null)) return yield* tool.usage();
    let isFine = true;
    for (const pid of pids as number[]) isFine = (yield* report(tool, pid, options.flags.has("-x"))) && isFine;
    return isFine ? EXIT_OK : EXIT_FAILED;
  },
};
