/**
 * fragment: a program that leaves free memory in pieces, and looks whether its own pages survive what is done then.
 *
 *   touched   |1|2|3|4|5|6|7|8|9|…        one page after the other
 *   dropped   |1| | | | | | |8| |…        all but every n-th go back (madvise)
 *
 * It holds what it kept for a while and then compares it, so compaction and migration can be watched meanwhile.
 */

import { PAGE_SIZE } from "../../kernel/params.ts";
import { PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import { strerror } from "../../kernel/uapi/errno.ts";
import { MADV_DONTNEED, MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from "../../kernel/uapi/mman.ts";
import { SYS_madvise, SYS_mmap, SYS_nanosleep } from "../../kernel/uapi/syscall.ts";
import { parseCount, parseOptions, parseSize } from "./arguments.ts";
import { EXIT_FAILED, EXIT_OK, type Tool, type ToolDefinition } from "./tool.ts";

const DEFAULT_KEEP = 8;

interface Pieces {
  readonly base: number;
  readonly nrPages: number;
  readonly keep: number;
}

/** Writes its number into each page, then drops all but every `keep`-th: 0 or −errno. */
function* breakUp(tool: Tool, { base, nrPages, keep }: Pieces): Sleeping<number> {
  for (let page = 0; page < nrPages; page++) {
    tool.env.mem.st32(base + page * PAGE_SIZE, page + 1);
    if (tool.env.timeIsUp()) yield PREEMPTED;
  }
  if (keep === 1) return 0;
  for (let page = 0; page < nrPages; page += keep) {
    const nrDropped = Math.min(keep - 1, nrPages - page - 1);
    if (nrDropped === 0) break;
    const result = yield* tool.sys(SYS_madvise, base + (page + 1) * PAGE_SIZE, nrDropped * PAGE_SIZE, MADV_DONTNEED);
    if (result < 0) return result;
  }
  return 0;
}

/** Kept pages whose content is not what was written. */
function* countWrong(tool: Tool, { base, nrPages, keep }: Pieces): Sleeping<number> {
  let nrWrong = 0;
  for (let page = 0; page < nrPages; page += keep) {
    if (tool.env.mem.ld32(base + page * PAGE_SIZE) !== page + 1) nrWrong++;
    if (tool.env.timeIsUp()) yield PREEMPTED;
  }
  return nrWrong;
}

export const FRAGMENT: ToolDefinition = {
  name: "fragment",
  synopsis: "SIZE [--keep N] [--hold CYCLES]",
  summary: "touch SIZE bytes (64M), keep every N-th page (8), hold them, compare them",
  *main(tool) {
    const values = { "--keep": parseCount, "--hold": parseCount };
    const options = parseOptions(tool.args, { values, minOperands: 1, maxOperands: 1 });
    const bytes = parseSize(options?.operands[0] ?? "");
    const keep = options?.values.get("--keep") ?? DEFAULT_KEEP;
    if (options === null || bytes === null || bytes === 0 || keep === 0) return yield* tool.usage();
    const base = yield* tool.sys(SYS_mmap, 0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const pieces = { base, nrPages: Math.ceil(bytes / PAGE_SIZE), keep };
    const error = base < 0 ? base : yield* breakUp(tool, pieces);
    if (error < 0) {
      yield* tool.complain(strerror(error));
      return EXIT_FAILED;
    }
    const nrKept = Math.ceil(pieces.nrPages / keep);
    yield* tool.out(`fragment: ${nrKept} of ${pieces.nrPages} pages kept\n`);
    const holdCycles = options.values.get("--hold") ?? 0;
    if (holdCycles > 0) yield* tool.sys(SYS_nanosleep, holdCycles);
    const nrWrong = yield* countWrong(tool, pieces);
    if (nrWrong > 0) yield* tool.complain(`${nrWrong} wrong of ${nrKept} pages`);
    return nrWrong > 0 ? EXIT_FAILED : EXIT_OK;
  },
};
