/**
 * `snapshot` and `back`: the shell's part in going back to an earlier moment of the machine.
 *
 *   # snapshot before          snapshot 1 "before": cycle 3105532, 15467 pages free
 *   # memhog 10M; leak 50
 *   # back 1; free             the machine is what it was then; the shell goes on with `free`
 *
 * The machine at a snapshot has a shell in it that was told to take it, and knows nothing of what it did later. When
 * somebody goes back to it, it is told again: with what stands behind `back` on its line, which it does instead of what
 * stood behind `snapshot` on its own. Else `snapshot; memhog 1M; back 1` would go round for ever.
 */

import type { Sleeping } from "../kernel/types.ts";
import { ENOENT, strerror } from "../kernel/uapi/errno.ts";
import { O_RDWR } from "../kernel/uapi/mman.ts";
import { decodeUtf8 } from "../kernel/uapi/utf8.ts";
import type { Builtin, BuiltinCall, Shell } from "./sh_state.ts";

const DEVICE = "/dev/snapshot";
const READ_BYTES = 4096;
const STATUS_USAGE = 2;
const NAME = /^[\w.-]{1,40}$/;
const NUMBER = /^\d{1,6}$/;

/** Asks the host; its answer, or −errno. */
function* ask({ libc }: Shell, request: string): Sleeping<string | number> {
  const fd = yield* libc.open(DEVICE, O_RDWR);
  if (fd < 0) return fd;
  let answer = "";
  let result = yield* libc.write(fd, request);
  while (result > 0) {
    const bytes = yield* libc.read(fd, READ_BYTES);
    result = typeof bytes === "number" ? bytes : bytes.length;
    if (typeof bytes !== "number") answer += decodeUtf8(bytes);
  }
  yield* libc.close(fd);
  return result < 0 ? result : answer;
}

/**
 * Prints what the host says. The first word of an answer is its kind: `ok TEXT`, `error TEXT`, or `back TEXT` with a
 * second part, the commands to go on with.
 */
function* tell(call: BuiltinCall, name: string, request: string): Sleeping<number> {
  const { shell, outFd, errFd } = call;
  const answer = yield* ask(shell, request);
  if (typeof answer === "number") {
    const why = answer === -ENOENT ? "nobody keeps snapshots here: they are for `slabtown boot`" : strerror(answer);
    yield* shell.libc.write(errFd, `sh: ${name}: ${why}\n`);
    return 1;
  }
  const [text = "", instead = ""] = answer.split("\0");
  const [kind = "", ...words] = text.split(" ");
  if (kind === "back") shell.instead = instead;
  yield* shell.libc.write(kind === "error" ? errFd : outFd, words.join(" "));
  return kind === "error" ? 1 : 0;
}

function* usage({ shell, errFd }: BuiltinCall, text: string): Sleeping<number> {
  yield* shell.libc.write(errFd, `sh: usage: ${text}\n`);
  return STATUS_USAGE;
}

function* snapshot(call: BuiltinCall): Sleeping<number> {
  const [name = ""] = call.args;
  if (name === "-l" && call.args.length === 1) return yield* tell(call, "snapshot", "list");
  const isUsable = call.args.length <= 1 && (name === "" || NAME.test(name));
  return isUsable ? yield* tell(call, "snapshot", `take ${name}`) : yield* usage(call, "snapshot [NAME | -l]");
}

function* back(call: BuiltinCall): Sleeping<number> {
  const [which = "", ...more] = call.args;
  if (more.length > 0 || !(which === "" || NUMBER.test(which))) return yield* usage(call, "back [NUMBER]");
  return yield* tell(call, "back", `back ${which}\0${call.shell.rest}`);
}

export const snapshotBuiltins: readonly (readonly [name: string, builtin: Builtin])[] = [
  [
    "snapshot",
    { synopsis: "[NAME | -l]", summary: "keep this moment of the machine, or list what is kept", run: snapshot },
  ],
  [
    "back",
    { synopsis: "[NUMBER]", summary: "go back to a snapshot (default: the last) with the whole machine", run: back },
  ],
];
