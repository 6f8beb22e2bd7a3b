/**
 * userpager: demand paging in user mode.
 *
 *      load from a page that is PROT_NONE ─▶ SIGSEGV ─▶ handler: mprotect, fill the page ─▶ the load again
 *
 * What a garbage collector, a checkpointer or a virtual machine does with SIGSEGV: the handler learns the address from
 * si_addr, makes the page what the program is to see, and returns; the access is tried again and does not know of it.
 */

import { PAGE_SIZE } from "../../kernel/params.ts";
import type { Sleeping } from "../../kernel/types.ts";
import { strerror } from "../../kernel/uapi/errno.ts";
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE, SIGSEGV } from "../../kernel/uapi/mman.ts";
import type { Program, ProgramEnv } from "../../kernel/uapi/program.ts";
import { SA_SIGINFO, SEGV_ACCERR, SIG_DFL } from "../../kernel/uapi/signal.ts";
import { SYS_mmap, SYS_mprotect } from "../../kernel/uapi/syscall.ts";
import { sigaction, siginfoOf } from "../signals.ts";
import { parseCount, parseOptions } from "./arguments.ts";
import { createRandom } from "./random.ts";
import { EXIT_FAILED, EXIT_OK, type ToolDefinition } from "./tool.ts";

const DEFAULT_PAGES = 64;
const MAX_PAGES = 65_536;

/** What the page at `index` has in its words. */
const contentOf = (index: number): number => (index * 2654435761) >>> 0;

export const USERPAGER: ToolDefinition = {
  name: "userpager",
  synopsis: "[PAGES] [--seed S]",
  summary: "demand paging by a handler of SIGSEGV (userpager 256)",
  *main(tool) {
    const { env } = tool;
    const options = parseOptions(tool.args, { values: { "--seed": parseCount }, maxOperands: 1 });
    const nrPages = options?.operands[0] === undefined ? DEFAULT_PAGES : parseCount(options.operands[0]);
    if (options === null || nrPages === null || nrPages < 1 || nrPages > MAX_PAGES) return yield* tool.usage();
    const flags = MAP_PRIVATE | MAP_ANONYMOUS;
    const buffer = yield* tool.sys(SYS_mmap, 0, PAGE_SIZE, PROT_READ | PROT_WRITE, flags, -1, 0);
    const region = yield* tool.sys(SYS_mmap, 0, nrPages * PAGE_SIZE, PROT_NONE, flags, -1, 0);
    if (buffer < 0 || region < 0) {
      yield* tool.complain(strerror(Math.min(buffer, region)));
      return EXIT_FAILED;
    }

    let nrFaults = 0;
    const pager: Program = function* (own: ProgramEnv): Sleeping<number> {
      const { addr, code } = siginfoOf(own);
      const index = Math.floor((addr - region) / PAGE_SIZE);
      const page = region + index * PAGE_SIZE;
      const isMine = code === SEGV_ACCERR && index >= 0 && index < nrPages;
      // Somebody else's fault: with the default action the access kills, as it should.
      if (!isMine) return yield* sigaction(own, buffer, SIGSEGV, SIG_DFL);
      nrFaults++;
      own.syscall(SYS_mprotect, page, PAGE_SIZE, PROT_READ | PROT_WRITE);
      own.mem.st32(page, contentOf(index));
      return 0;
    };
    yield* sigaction(env, buffer, SIGSEGV, pager, SA_SIGINFO);

    const random = createRandom(options.values.get("--seed") ?? 1);
    const start = env.now();
    let nrWrong = 0;
    const look = (index: number): void => {
      if (env.mem.ld32(region + index * PAGE_SIZE) !== contentOf(index)) nrWrong++;
    };
    for (let i = 0; i < nrPages; i++) look(random.below(nrPages));
    for (let index = 0; index < nrPages; index++) look(index);
    const cycles = Math.floor((env.now() - start) / Math.max(nrFaults, 1));
    yield* tool.out(
      `userpager: ${nrPages} pages, ${nrFaults} faults served by the handler, ${cycles} cycles each, ` +
        `${nrWrong} wrong\n`,
    );
    return nrWrong === 0 ? EXIT_OK : EXIT_FAILED;
  },
};
