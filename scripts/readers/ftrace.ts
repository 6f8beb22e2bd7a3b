/**
 * ftrace text: the kernel's own `kmem:` events, as /sys/kernel/tracing/trace shows them.
 *
 *            TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
 *             gcc-27214   [000] .....  4096.679912: mm_page_alloc: page=… pfn=0x3afd36 order=0 migratetype=1 …
 *                               │││││
 *                               ││││└ migrate-disable (absent before Linux 5.12)
 *                               │││└ preempt depth
 *                               ││└ context: . task, s softirq, h hardirq, H hardirq inside softirq, z Z NMI
 *                               │└ need-resched
 *                               └ d interrupts off, b bottom halves off, D both
 *
 * Owns the syntax of lines; kmem_ledger.ts owns what the events mean together. Understood besides the kernel's own
 * text: `trace-cmd report` (no flags, wide columns), `perf script` (`kmem:` before the event, blanks around the pid),
 * the TGID column, pointers with and without 0x, `(nil)`, frame numbers in decimal.
 *
 *   event                                       fields used
 *   kmalloc, kmalloc_node                       ptr bytes_req bytes_alloc gfp_flags
 *   kmem_cache_alloc, kmem_cache_alloc_node     the same and name (absent before Linux 6.1: `size-<bytes_alloc>`)
 *   kfree, kmem_cache_free                      ptr, name
 *   mm_page_alloc, mm_page_free                 page pfn order, migratetype gfp_flags
 *
 * Failed allocations (null pointers) are dropped and counted; `kfree(NULL)` and `kfree()` of the zero-size pointer do
 * nothing in the kernel, and nothing here. Nested inside NMI nobody may allocate, so z and Z count as hardirq.
 *
 * No regular expression looks at a whole line: lines are hostile until parsed, and this is the hot loop.
 *
 * Source: Linux Documentation/trace/ftrace.rst, include/trace/events/kmem.h, kernel/trace/trace_output.c.
 */

import { type KernelRecording, KMEM_IN_HARDIRQ, KMEM_IN_SOFTIRQ, KMEM_IN_TASK } from "../../kernel/uapi/recording.ts";
import { parseGfpNames } from "../../mm/index.ts";
import { MAX_RECORDED_ORDER } from "./check.ts";
import { digitsEnd, findField, hexKey, skipBlanks, tokenEnd, unsigned } from "./field_scan.ts";
import type { InputFile } from "./input.ts";
import { InputError, printable, quoted } from "./input_error.ts";
import { type EventContext, KmemLedger } from "./kmem_ledger.ts";
import type { TextReaderOptions } from "./rep.ts";
import { LineCursor, LineTally } from "./text_lines.ts";

const KNOWN_EVENTS: ReadonlyMap<string, "alloc" | "free" | "pageAlloc" | "pageFree" | "passOver"> = new Map([
  ["kmalloc", "alloc"],
  ["kmalloc_node", "alloc"],
  ["kmem_cache_alloc", "alloc"],
  ["kmem_cache_alloc_node", "alloc"],
  ["kfree", "free"],
  ["kmem_cache_free", "free"],
  ["mm_page_alloc", "pageAlloc"],
  ["mm_page_free", "pageFree"],
  ["mm_page_free_batched", "passOver"],
  ["mm_page_alloc_zone_locked", "passOver"],
  ["mm_page_alloc_extfrag", "passOver"],
  ["mm_page_pcpu_drain", "passOver"],
  ["mm_alloc_contig_migrate_range_info", "passOver"],
  ["mm_setup_per_zone_wmarks", "passOver"],
  ["mm_setup_per_zone_lowmem_reserve", "passOver"],
  ["mm_calculate_totalreserve_pages", "passOver"],
  ["rss_stat", "passOver"],
]);

const MAX_CPUS = 256;
const MAX_PID = 0x7fffffff;
const MAX_U32 = 0xffffffff;
const MAX_MIGRATETYPE = 15;
/** `kmalloc(0)` returns 16, which `kfree()` takes like a null pointer. */
const ZERO_SIZE_PTR = 16;
const MAX_OTHER_NAMES = 100;
const NR_NAMES_SHOWN = 4;

/** Where a line's event begins, or that it is none. The reader reuses one. */
interface Head extends EventContext {
  name: string;
  /** Offset behind the event's colon. */
  body: number;
  timestamp: number;
}

/** True if `line` looks like an event in this format. */
export function isFtraceEvent(line: string): boolean {
  return parseHead(line, newHead());
}

/** The kernel recording in an ftrace text. Throws `InputError`. O(lines). */
export function readFtrace(input: InputFile, options: TextReaderOptions): KernelRecording {
  const reader = new FtraceReader(new LineTally(input.path, options.lenient));
  const lines = new LineCursor(input.bytes);
  while (lines.next()) reader.readLine(lines.text, lines.number);
  const warnings = reader.finish();
  if (reader.ledger.nrRows === 0) {
    throw new InputError(input.path, "holds no kmem event that could be replayed", {
      expected: "mm_page_alloc, kmalloc, kmem_cache_alloc and their frees",
      hint: "record with `trace-cmd record -e kmem PROGRAM` and pass on what `trace-cmd report` prints",
    });
  }
  const recording = reader.ledger.finish(input.name, warnings);
  if (recording.nrEvents === 0) {
    throw new InputError(input.path, `holds nothing but ${recording.nrUnknownFrees} frees of older objects`);
  }
  return recording;
}

class FtraceReader {
  readonly ledger = new KmemLedger();
  readonly #tally: LineTally;
  readonly #head = newHead();
  readonly #masks = new Map<string, number>();
  readonly #caches = new Map<string, number>();
  readonly #unknownFlags = new Set<string>();
  readonly #otherEvents = new Map<string, number>();
  #nrFailed = 0;
  #nrLost = 0;
  #nrFoldedCpus = 0;
  #lastTime = 0;
  #backwardsLine = 0;

  constructor(tally: LineTally) {
    this.#tally = tally;
  }

  readLine(text: string, number: number): void {
    if (text === "" || text.startsWith("#")) return;
    const head = this.#head;
    if (!parseHead(text, head)) {
      this.#readOther(text, number);
      return;
    }
    this.#tally.nrLines++;
    if (head.timestamp < this.#lastTime && this.#backwardsLine === 0) this.#backwardsLine = number;
    this.#lastTime = head.timestamp;
    if (head.cpu >= MAX_CPUS) {
      head.cpu %= MAX_CPUS;
      this.#nrFoldedCpus++;
    }
    const complaint = this.#readEvent(text, head);
    if (complaint !== "") this.#tally.badLine({ line: number, what: `${head.name}: ${complaint}` });
  }

  /** Throws `InputError` if too many lines are bad. */
  finish(): string[] {
    const warnings = this.#tally.finish();
    if (this.#nrLost > 0) warnings.push(`${this.#nrLost} events were lost while recording`);
    if (this.#nrFailed > 0) warnings.push(`${this.#nrFailed} failed allocations dropped`);
    if (this.#nrFoldedCpus > 0) warnings.push(`${this.#nrFoldedCpus} events of CPUs over ${MAX_CPUS - 1} folded`);
    if (this.#backwardsLine > 0) {
      warnings.push(`line ${this.#backwardsLine}: time goes backwards: recordings of several CPUs one after another?`);
    }
    if (this.#unknownFlags.size > 0) {
      warnings.push(`unknown GFP flags ignored: ${firstFew([...this.#unknownFlags])}`);
    }
    if (this.#otherEvents.size > 0) {
      let nr = 0;
      for (const count of this.#otherEvents.values()) nr += count;
      warnings.push(`${nr} events of other kinds passed over: ${firstFew([...this.#otherEvents.keys()])}`);
    }
    return warnings;
  }

  /** A line that is no event: known furniture, or bad. */
  #readOther(text: string, number: number): void {
    const lost = /^CPU:\d{1,5} \[LOST (\d{1,15}) EVENTS\]/.exec(text);
    if (lost !== null) this.#nrLost += Number(lost[1]);
    if (lost !== null || /^(?:cpus=\d|version = \d|CPU \d+ is empty)/.test(text) || text.trim() === "") return;
    this.#tally.nrLines++;
    this.#tally.badLine({
      line: number,
      what: `${quoted(text.trim())} is no trace line`,
      expected: "TASK-PID [CPU] FLAGS TIME: EVENT: …",
    });
  }

  /** Performs one event. Returns what is wrong with it, or an empty text. */
  #readEvent(text: string, head: Head): string {
    switch (KNOWN_EVENTS.get(head.name)) {
      case "alloc":
        return this.#readAlloc(text, head);
      case "free":
        return this.#readFree(text, head);
      case "pageAlloc":
        return this.#readPageAlloc(text, head);
      case "pageFree":
        return this.#readPageFree(text, head);
      case "passOver":
        return "";
      case undefined: {
        const { size } = this.#otherEvents;
        const name = size < MAX_OTHER_NAMES || this.#otherEvents.has(head.name) ? printable(head.name) : "others";
        this.#otherEvents.set(name, (this.#otherEvents.get(name) ?? 0) + 1);
        return "";
      }
    }
  }

  #readAlloc(text: string, head: Head): string {
    const ptr = hexKey(text, findField(text, " ptr=", head.body));
    const requested = unsigned(text, findField(text, " bytes_req=", head.body), MAX_U32);
    const slotSize = unsigned(text, findField(text, " bytes_alloc=", head.body), MAX_U32);
    const gfp = this.#gfp(text, head.body);
    if (ptr < 0) return "no readable ptr=";
    if (requested < 0 || slotSize < 0) return "no readable bytes_req= and bytes_alloc=";
    if (gfp < 0) return "no gfp_flags=";
    if (ptr <= ZERO_SIZE_PTR) {
      this.#nrFailed++;
      return "";
    }
    let cache = -1;
    if (head.name.startsWith("kmem_cache")) {
      if (requested === 0) return "an object of 0 bytes";
      cache = this.#cache(text, head.body);
      if (cache === -1) cache = this.ledger.cacheIndex(`size-${slotSize}`);
      if (cache === -1) return "too many caches";
    }
    this.ledger.allocObject(head, ptr, cache, requested, slotSize, gfp);
    return "";
  }

  #readFree(text: string, head: Head): string {
    const ptr = hexKey(text, findField(text, " ptr=", head.body));
    if (ptr < 0) return "no readable ptr=";
    if (ptr > ZERO_SIZE_PTR)
      this.ledger.freeObject(head, ptr, head.name === "kfree" ? -1 : this.#cache(text, head.body));
    return "";
  }

  #readPageAlloc(text: string, head: Head): string {
    const page = hexKey(text, findField(text, " page=", head.body));
    const pfn = pageFrame(text, head.body);
    const order = unsigned(text, findField(text, " order=", head.body), MAX_RECORDED_ORDER);
    const migratetype = unsigned(text, findField(text, " migratetype=", head.body), MAX_MIGRATETYPE);
    const gfp = this.#gfp(text, head.body);
    if (pfn < 0) return "no readable pfn=";
    if (order < 0) return `no order= from 0 to ${MAX_RECORDED_ORDER}`;
    if (migratetype < 0) return "no readable migratetype=";
    if (gfp < 0) return "no gfp_flags=";
    if (pfn === 0 || page === 0) this.#nrFailed++;
    else this.ledger.allocPages(head, pfn, order, migratetype, gfp);
    return "";
  }

  #readPageFree(text: string, head: Head): string {
    const pfn = pageFrame(text, head.body);
    const order = unsigned(text, findField(text, " order=", head.body), MAX_RECORDED_ORDER);
    if (pfn < 0) return "no readable pfn=";
    if (order < 0) return `no order= from 0 to ${MAX_RECORDED_ORDER}`;
    this.ledger.freePages(head, pfn, order);
    return "";
  }

  /** The index of the cache a line names; −1 if it names none. */
  #cache(text: string, body: number): number {
    const at = findField(text, " name=", body);
    if (at < 0) return -1;
    const name = text.slice(at, tokenEnd(text, at));
    let index = this.#caches.get(name);
    if (index === undefined) {
      index = name === "" ? -1 : this.ledger.cacheIndex(printable(name));
      this.#caches.set(name, index);
    }
    return index;
  }

  /** The line's GFP mask; −1 if it has none. Names we do not know are left out of the mask and remembered. */
  #gfp(text: string, body: number): number {
    const at = findField(text, " gfp_flags=", body);
    if (at < 0) return -1;
    const names = text.slice(at, tokenEnd(text, at));
    const known = this.#masks.get(names);
    if (known !== undefined) return known;
    let mask = 0;
    for (const name of names.split("|")) {
      const bits = parseGfpNames(name);
      if (bits === -1) this.#unknownFlags.add(printable(name));
      else mask |= bits;
    }
    this.#masks.set(names, mask >>> 0);
    return mask >>> 0;
  }
}

function newHead(): Head {
  return { cpu: 0, context: KMEM_IN_TASK, irqsOff: 0, pid: 0, name: "", body: 0, timestamp: 0 };
}

/** Takes `TASK-PID [CPU] FLAGS TIME: EVENT:` apart. False if `text` does not have that shape. */
function parseHead(text: string, head: Head): boolean {
  // A task's name may hold anything, brackets too: the CPU is the first ` [digits] `.
  let open = text.indexOf(" [");
  let close = -1;
  while (open >= 0) {
    close = digitsEnd(text, open + 2);
    if (close > open + 2 && text.startsWith("] ", close)) break;
    open = text.indexOf(" [", open + 1);
  }
  if (open < 0) return false;
  head.cpu = unsigned(text, open + 2, MAX_U32);
  head.pid = pidBefore(text, open);
  if (head.pid < 0 || head.cpu < 0) return false;

  let at = skipBlanks(text, close + 1);
  let end = tokenEnd(text, at);
  const hasFlags = end > at && text.charCodeAt(end - 1) !== 0x3a && !isDigit(text.charCodeAt(at));
  if (hasFlags && end - at < 4) return false;
  head.irqsOff = hasFlags && (text[at] === "d" || text[at] === "D") ? 1 : 0;
  head.context = hasFlags ? contextOf(text.charAt(at + 2)) : KMEM_IN_TASK;
  if (hasFlags) {
    at = skipBlanks(text, end);
    end = tokenEnd(text, at);
  }
  if (text.charCodeAt(end - 1) !== 0x3a) return false;
  head.timestamp = Number(text.slice(at, end - 1));
  if (end - 1 === at || !Number.isFinite(head.timestamp)) return false;

  at = skipBlanks(text, end);
  end = tokenEnd(text, at);
  if (end - at < 2 || text.charCodeAt(end - 1) !== 0x3a) return false;
  head.name = text.slice(text.startsWith("kmem:", at) && end - at > 5 ? at + 5 : at, end - 1);
  head.body = end;
  return true;
}

/** The pid in `comm-pid`, `comm-pid (tgid)` or `comm pid`, which ends before `end`; −1 if there is none. */
function pidBefore(text: string, end: number): number {
  let last = end;
  while (last > 0 && text.charCodeAt(last - 1) === 0x20) last--;
  if (last > 0 && text[last - 1] === ")") {
    last = text.lastIndexOf("(", last);
    while (last > 0 && text.charCodeAt(last - 1) === 0x20) last--;
  }
  let first = last;
  while (first > 0 && isDigit(text.charCodeAt(first - 1))) first--;
  if (first < 1 || first === last || (text[first - 1] !== "-" && text[first - 1] !== " ")) return -1;
  return unsigned(text, first, MAX_PID);
}

function contextOf(flag: string): number {
  if (flag === "s") return KMEM_IN_SOFTIRQ;
  return flag === "h" || flag === "H" || flag === "z" || flag === "Z" ? KMEM_IN_HARDIRQ : KMEM_IN_TASK;
}

/** `pfn=0x3afd36`, or decimal before Linux 5.18; −1 if there is none. */
function pageFrame(text: string, body: number): number {
  const at = findField(text, " pfn=", body);
  return text.startsWith("0x", at) && at >= 0 ? hexKey(text, at) : unsigned(text, at, Number.MAX_SAFE_INTEGER);
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39;
}

function firstFew(names: readonly string[]): string {
  const shown = names.slice(0, NR_NAMES_SHOWN).join(", ");
  return names.length > NR_NAMES_SHOWN ? `${shown}, …` : shown;
}
