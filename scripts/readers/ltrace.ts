/**
 * ltrace text: the heap calls of any program, as `ltrace -e malloc+free+realloc+calloc` prints them.
 *
 *   prog->malloc(24)                         = 0x55d0c0a2a2a0        one call a line; `prog->` may be missing
 *   [pid 71] prog->free(0x55d0c0a2a2a0)      = <void>                with -f; or `71 free(…)` with -f -o FILE
 *   [pid 72] prog->malloc(100 <unfinished ...>                       another thread came between …
 *   [pid 72] <... malloc resumed> )          = 0x7f2e30000b70        … and this is the rest of it
 *
 * Owns the way from addresses to ids. Time stamps (-t, -tt, -ttt, -r) and durations (-T) are passed over, and so are
 * signals, exits, system calls and calls of other functions.
 *
 * When an address changes hands: an allocation exists from the moment its call returns, a free works from the moment
 * it is called, and a realloc lets go of its old address when called (another thread may get it before it returns).
 * A failed allocation (`nil`, 0) is dropped. An address handed out while its last owner still lives means that a free
 * went unseen: one is inserted. A free of an unknown address is dropped; a realloc of one allocates.
 *
 * Every pid is a thread here. A traced `fork()` is another process with addresses of its own, and ltrace does not say
 * which is which: record one process at a time.
 *
 * Source: ltrace(1).
 */

import {
  HEAP_CALLOC,
  HEAP_FREE,
  HEAP_MALLOC,
  HEAP_MEMALIGN,
  HEAP_NULL_ID,
  HEAP_REALLOC,
  type HeapRecording,
} from "../../kernel/uapi/recording.ts";
import { MAX_ALIGN_SHIFT } from "./check.ts";
import { HeapColumns } from "./heap_columns.ts";
import type { InputFile } from "./input.ts";
import { InputError, quoted } from "./input_error.ts";
import type { TextReaderOptions } from "./rep.ts";
import { type BadLine, LineCursor, LineTally } from "./text_lines.ts";

const MAX_THREADS = 256;
/** Pid in brackets or bare, then a time stamp, all optional. The patterns are linear: no two neighbours overlap. */
const PREFIX = /^\s*(?:\[pid\s+(\d+)\]\s*|(\d+)\s+)?(?:[\d:]+(?:\.\d+)?\s+)?/.source;
const CALLS = "malloc|calloc|realloc|free|cfree|memalign|aligned_alloc";
const CALL = new RegExp(`${PREFIX}(?:[^\\s(]*->)?(${CALLS})\\((.*)$`);
const RESUMED = new RegExp(`${PREFIX}<\\.\\.\\. (?:[^\\s(]*->)?(${CALLS}) resumed>\\s*(.*)$`);
const OTHER = new RegExp(`${PREFIX}(?:---|\\+\\+\\+|<\\.\\.\\. |[^\\s(]*->|[^\\s(]*[\\w@.]\\()`);
const UNFINISHED = "<unfinished ...>";
const COMPLETE = /^(.*)\)\s*=\s*(\S+)(?:\s+<[\d.]+>)?\s*$/;

/** A call between its two lines. */
interface PendingCall {
  readonly call: string;
  readonly args: string;
  /** Address that a realloc let go of, and the id it had; -1 if it had none. */
  readonly oldAddress: string;
  readonly oldId: number;
}

/** True if `line` looks like a heap call in this format. */
export function isLtraceCall(line: string): boolean {
  const match = CALL.exec(line);
  const rest = match?.[4] ?? "";
  return match !== null && (rest.trimEnd().endsWith(UNFINISHED) || COMPLETE.test(rest));
}

/** The heap recording in an ltrace text. Throws `InputError`. O(lines). */
export function readLtrace(input: InputFile, options: TextReaderOptions): HeapRecording {
  const lines = new LineCursor(input.bytes);
  const tally = new LineTally(input.path, options.lenient);
  const heap = new TracedHeap();
  while (lines.next()) {
    const text = lines.text;
    if (text.trim() === "") continue;
    tally.nrLines++;
    const bad = readLine(text, heap);
    if (bad !== undefined) tally.badLine({ line: lines.number, ...bad });
  }
  const warnings = tally.finish();
  if (heap.columns.nrOps === 0) {
    throw new InputError(input.path, "holds no call of malloc, calloc, realloc or free", {
      hint: "record with `ltrace -f -o FILE -e malloc+free+realloc+calloc PROGRAM`",
    });
  }
  return heap.finish(input.name, warnings);
}

type Complaint = Omit<BadLine, "line">;

function readLine(text: string, heap: TracedHeap): Complaint | undefined {
  const call = CALL.exec(text);
  if (call !== null) {
    const thread = heap.threadOf(call[1] ?? call[2] ?? "");
    const rest = (call[4] ?? "").trimEnd();
    const name = call[3] ?? "";
    if (rest.endsWith(UNFINISHED)) return heap.begin(thread, name, rest.slice(0, -UNFINISHED.length));
    const complete = COMPLETE.exec(rest);
    if (complete === null) return { what: `the call of ${name} has no result`, expected: "`) = RESULT` at the end" };
    return heap.begin(thread, name, complete[1] ?? "") ?? heap.end(thread, name, complete[2] ?? "");
  }
  const resumed = RESUMED.exec(text);
  if (resumed !== null) {
    const thread = heap.threadOf(resumed[1] ?? resumed[2] ?? "");
    const complete = COMPLETE.exec(resumed[4] ?? "");
    if (complete === null) return { what: "the resumed call has no result", expected: "`) = RESULT` at the end" };
    return heap.end(thread, resumed[3] ?? "", complete[2] ?? "");
  }
  return OTHER.test(text) ? undefined : { what: `${quoted(text)} is no traced call`, expected: "`malloc(24) = 0x…`" };
}

/** The traced program's heap: who owns which address. */
class TracedHeap {
  readonly columns = new HeapColumns();
  readonly #idAt = new Map<string, number>();
  readonly #threads = new Map<string, number>();
  readonly #pending = new Map<number, PendingCall>();
  #nrIds = 0;
  #nrFailed = 0;
  #nrUnknown = 0;
  #nrImplied = 0;

  threadOf(pid: string): number {
    let index = this.#threads.get(pid);
    if (index === undefined) this.#threads.set(pid, (index = this.#threads.size % MAX_THREADS));
    return index;
  }

  /** A call is made: check its arguments, do what it does at once. */
  begin(thread: number, call: string, args: string): Complaint | undefined {
    const [first = Number.NaN, second = Number.NaN] = args.split(",").map(parseNumber);
    const takesTwo = call !== "malloc" && call !== "free" && call !== "cfree";
    const isSound = !Number.isNaN(first) && (!takesTwo || !Number.isNaN(second));
    this.#pending.delete(thread);
    if (!isSound) return { what: `${call}(${quoted(args)}) has unreadable arguments`, expected: "numbers" };
    let oldAddress = "";
    let oldId = -1;
    if (call === "free" || call === "cfree") {
      this.#free(thread, addressOf(args));
    } else if (call === "realloc" && first !== 0) {
      oldAddress = addressOf(args);
      oldId = this.#idAt.get(oldAddress) ?? -1;
      this.#idAt.delete(oldAddress);
      if (oldId === -1) this.#nrUnknown++;
    }
    this.#pending.set(thread, { call, args, oldAddress, oldId });
    return undefined;
  }

  /** A call returns `result`. */
  end(thread: number, call: string, result: string): Complaint | undefined {
    const pending = this.#pending.get(thread);
    this.#pending.delete(thread);
    if (pending === undefined || pending.call !== call) {
      return { what: `${call} is resumed without a beginning`, expected: "`<unfinished ...>` before" };
    }
    if (call === "free" || call === "cfree") return undefined;
    const value = parseNumber(result);
    if (Number.isNaN(value)) {
      this.#restore(pending);
      return { what: `${call} returns ${quoted(result)}`, expected: "an address" };
    }
    if (value === 0) this.#failed(thread, pending);
    else this.#allocated(thread, pending, addressOf(result));
    return undefined;
  }

  finish(name: string, warnings: string[]): HeapRecording {
    if (this.#threads.size > MAX_THREADS) {
      warnings.push(`${this.#threads.size} threads are folded into ${MAX_THREADS}`);
    }
    if (this.#nrFailed > 0) warnings.push(`${this.#nrFailed} failed allocations dropped`);
    if (this.#nrUnknown > 0) warnings.push(`${this.#nrUnknown} frees or reallocs of memory older than the recording`);
    if (this.#nrImplied > 0) {
      warnings.push(`${this.#nrImplied} frees inserted: an address was handed out again without one`);
    }
    return this.columns.finish(name, this.#nrIds, Math.min(this.#threads.size, MAX_THREADS), warnings);
  }

  #free(thread: number, address: string): void {
    const id = address === "0" ? HEAP_NULL_ID : this.#idAt.get(address);
    this.#idAt.delete(address);
    if (id === undefined) this.#nrUnknown++;
    else this.columns.push(HEAP_FREE, thread, id, 0);
  }

  #failed(thread: number, pending: PendingCall): void {
    const size = parseNumber(pending.args.split(",")[1] ?? "");
    if (pending.call === "realloc" && size === 0) {
      // realloc(p, 0) answered with nil has freed p.
      if (pending.oldId !== -1) this.columns.push(HEAP_FREE, thread, pending.oldId, 0);
      return;
    }
    this.#restore(pending);
    this.#nrFailed++;
  }

  /** A realloc that fails leaves the old block alone. */
  #restore(pending: PendingCall): void {
    if (pending.oldId !== -1) this.#idAt.set(pending.oldAddress, pending.oldId);
  }

  #allocated(thread: number, pending: PendingCall, address: string): void {
    const owner = this.#idAt.get(address);
    if (owner !== undefined) {
      this.columns.push(HEAP_FREE, thread, owner, 0);
      this.#nrImplied++;
    }
    const id = pending.oldId === -1 ? this.#nrIds++ : pending.oldId;
    this.#idAt.set(address, id);
    const [first = 0, second = 0] = pending.args.split(",").map(parseNumber);
    if (pending.call === "malloc") this.columns.push(HEAP_MALLOC, thread, id, atMost53Bits(first));
    else if (pending.call === "calloc") this.columns.push(HEAP_CALLOC, thread, id, atMost53Bits(first * second));
    else if (pending.call === "realloc") this.columns.push(HEAP_REALLOC, thread, id, atMost53Bits(second));
    else this.columns.push(HEAP_MEMALIGN, thread, id, atMost53Bits(second), shiftOf(first));
  }
}

/** `24`, `0x18`, `nil`, `NULL`, `<void>`; NaN if it is no number. */
function parseNumber(text: string): number {
  const word = text.trim();
  if (/^(?:0x[0-9a-f]+|\d+)$/i.test(word)) return Number(word);
  return /^(?:\(?nil\)?|NULL|<void>|void)$/.test(word) ? 0 : Number.NaN;
}

/** The first argument as a key: exact, where a double would round. */
function addressOf(args: string): string {
  const word = (args.split(",")[0] ?? "").trim().toLowerCase();
  return parseNumber(word) === 0 ? "0" : word.replace(/^0x0*/, "0x");
}

function atMost53Bits(size: number): number {
  return Math.min(size, Number.MAX_SAFE_INTEGER);
}

function shiftOf(alignment: number): number {
  return alignment < 2 ? 0 : Math.min(Math.round(Math.log2(alignment)), MAX_ALIGN_SHIFT);
}
