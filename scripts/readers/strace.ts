/**
 * strace text: what the processes of a program did to their memory and to each other.
 *
 *   14084      0.000061 brk(NULL)           = 0x2deb5000            one call a line; -f puts the pid in front
 *   14084      0.001482 vfork( <unfinished ...>                     another process came between …
 *   14084      0.000865 <... vfork resumed>) = 14085                … and this is the rest of it
 *   14085      0.000031 --- SIGCHLD {si_signo=SIGCHLD, …} ---       signals are passed over
 *   14085      0.000113 +++ exited with 0 +++                       the end, also `killed by SIGSEGV (core dumped)`
 *
 * Owns the way from lines to whole calls: `RecordedCall`s, in the order in which they took effect. strace_events.ts
 * makes rows of them. A call that gives memory back, makes, replaces or ends a process takes effect where it begins:
 * before it has returned, somebody else may use what it gave. All others take effect where they return.
 *
 * Time stamps (-r, -t, -tt, -ttt) and durations (-T) are passed over, and so are calls that are not about memory or
 * processes. A call that was interrupted to be restarted (ERESTART…) was not performed. A line of one of our calls
 * that cannot be read is bad: counted, shown, and dropped (text_lines.ts).
 *
 * Source: strace(1).
 */

import { EINVAL, errnoNumber } from "../../kernel/uapi/errno.ts";
import type { SyscallRecording } from "../../kernel/uapi/recording.ts";
import type { InputFile } from "./input.ts";
import { InputError, quoted } from "./input_error.ts";
import type { TextReaderOptions } from "./rep.ts";
import { EventBuilder, type RecordedCall } from "./strace_events.ts";
import { signalOf, splitArguments } from "./strace_words.ts";
import { type BadLine, LineCursor, LineTally } from "./text_lines.ts";

/** Pid and time stamps, all optional. The pattern is linear: no two neighbours overlap. */
const PREFIX = /^\s*(?:\[pid\s+(\d+)\]\s*|(\d+)\s+)?(?:[\d:]+(?:\.\d+)?\s+)?(?:\(\+\s*[\d.]+\)\s+)?/;
const CALL = /^([a-z_]\w*)\(/;
const RESUMED = /^<\.\.\. ([a-z_]\w*) resumed> ?/;
const ENDED = /^\+\+\+ (?:exited with (\d+)|killed by (\w+)[^+]*) \+\+\+$/;
/** Lines that say something else. */
const OTHER = /^(?:---|\+\+\+ superseded|strace:|\[ Process|<detached)/;
const UNFINISHED = "<unfinished ...>";
const RESULT = /^\s*=\s*(?:(\?)|(0x[0-9a-f]+|-?\d+))(?:\s+([A-Z][A-Z0-9_]+))?/;

/** Calls that take effect where they begin. */
const EARLY = /^(?:munmap|v?fork|clone3?|execve(?:at)?|exit|exit_group)$/;
const OURS = new RegExp(
  "^(?:brk|mmap2?|munmap|mprotect|mremap|madvise|mlock2?|munlock|m(?:un)?lockall|v?fork|clone3?|execve|exit|" +
    "exit_group|_exit|wait4|waitpid|waitid|kill)$",
);

/** True if `line` looks like a call in this format that we replay. */
export function isStraceCall(line: string): boolean {
  const body = line.slice(PREFIX.exec(line)?.[0].length ?? 0);
  const name = CALL.exec(body)?.[1] ?? "";
  if (!OURS.test(name)) return false;
  if (body.trimEnd().endsWith(UNFINISHED)) return true;
  const { end } = splitArguments(body, name.length + 1);
  return end > 0 && RESULT.test(body.slice(end));
}

/** The recording of system calls in an strace text. Throws `InputError`. O(lines · log lines). */
export function readStrace(input: InputFile, options: TextReaderOptions): SyscallRecording {
  const tally = new LineTally(input.path, options.lenient);
  const calls = wholeCalls(input, tally);
  const events = new EventBuilder(calls, (line, what) => tally.badOp(line, what));
  const rows = events.build();
  const warnings = tally.finish();
  if (rows.nrEvents === 0) {
    throw new InputError(input.path, "holds no call that is about memory or processes", {
      hint: "record with `strace -f -r -e trace=memory,process -o FILE PROGRAM`",
    });
  }
  return { ...rows, name: input.name, warnings: [...warnings, ...events.warnings()] };
}

interface PendingCall {
  readonly line: number;
  readonly name: string;
  readonly text: string;
}

/** The calls of all lines, joined, in the order in which they took effect. */
function wholeCalls(input: InputFile, tally: LineTally): RecordedCall[] {
  const lines = new LineCursor(input.bytes);
  const calls: RecordedCall[] = [];
  const pending = new Map<number, PendingCall>();
  while (lines.next()) {
    if (lines.text.trim() === "") continue;
    tally.nrLines++;
    const bad = readLine(lines.text, lines.number, calls, pending);
    if (bad !== undefined) tally.badLine({ line: lines.number, ...bad });
  }
  for (const [pid, { line, name, text }] of pending) {
    // It ran when the recording ended. What takes effect at its beginning has done so, if its arguments are whole.
    if (/^(?:exit|exit_group|munmap)$/.test(name)) {
      calls.push({ line, pid, name, args: splitArguments(`${text})`, 0).args, result: 0 });
    }
  }
  return calls.sort((a, b) => a.line - b.line);
}

type Complaint = Omit<BadLine, "line">;

function readLine(
  text: string,
  line: number,
  calls: RecordedCall[],
  pending: Map<number, PendingCall>,
): Complaint | undefined {
  const prefix = PREFIX.exec(text);
  const pid = Number(prefix?.[1] ?? prefix?.[2] ?? 0);
  const body = text.slice(prefix?.[0].length ?? 0).trimEnd();
  const name = CALL.exec(body)?.[1];
  if (name !== undefined) {
    pending.delete(pid);
    const rest = body.slice(name.length + 1);
    if (!rest.endsWith(UNFINISHED)) return OURS.test(name) ? finish(rest, { line, name, pid }, line, calls) : undefined;
    pending.set(pid, { line, name, text: rest.slice(0, -UNFINISHED.length) });
    return undefined;
  }
  const resumed = RESUMED.exec(body);
  if (resumed !== null) {
    const begun = pending.get(pid);
    pending.delete(pid);
    if (!OURS.test(resumed[1] ?? "")) return undefined;
    if (begun === undefined || begun.name !== resumed[1]) {
      return { what: `${resumed[1]} is resumed without a beginning`, expected: `\`${UNFINISHED}\` before` };
    }
    const effect = EARLY.test(begun.name) ? begun.line : line;
    return finish(begun.text + body.slice(resumed[0].length), { ...begun, pid }, effect, calls);
  }
  const ended = ENDED.exec(body);
  if (ended !== null) {
    const begun = pending.get(pid);
    pending.delete(pid);
    if (begun !== undefined && /^exit(?:_group)?$/.test(begun.name)) {
      calls.push({ line: begun.line, pid, name: begun.name, args: [begun.text.trim()], result: 0 });
    }
    const [, status, signal = ""] = ended;
    if (status !== undefined) calls.push({ line, pid, name: "+exited", args: [status], result: 0 });
    else calls.push({ line, pid, name: "+killed", args: [String(signalOf(signal))], result: 0 });
    return undefined;
  }
  return OTHER.test(body) ? undefined : { what: `${quoted(text)} is no traced call`, expected: "`brk(NULL) = 0x…`" };
}

/** Reads `a, b) = result`, takes the call in. */
function finish(
  rest: string,
  { name, pid }: { readonly line: number; readonly name: string; readonly pid: number },
  line: number,
  calls: RecordedCall[],
): Complaint | undefined {
  const { args, end } = splitArguments(rest, 0);
  if (end < 0) return { what: `the arguments of ${name} have no end`, expected: "`)`" };
  const found = RESULT.exec(rest.slice(end));
  if (found === null) return { what: `the call of ${name} has no result`, expected: "`) = RESULT` at the end" };
  const [, unknown, number = "", word = ""] = found;
  if (word.startsWith("ERESTART")) return undefined;
  const value = unknown === undefined ? Number(number) : Number.NaN;
  const result = value === -1 && word !== "" ? -(errnoNumber(word) ?? EINVAL) : value;
  calls.push({ line, pid, name, args, result });
  return undefined;
}
