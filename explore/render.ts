/**
 * Rendering: a failing run as columns, one for each CPU, one line for each access that matters.
 *
 *   CPU 0                                   CPU 1
 *   pop      ld  empty.head = 1:A
 *                                           pop      cas empty.head = 1:A → B
 *   ── CPU 0 goes on ──
 *
 * What matters: accesses to words that two threads touched and one of them wrote. Of long runs the accesses to the
 * word of the failure, and the first and last before each change of CPU, are kept.
 */

import { ATOMIC_LOAD, ATOMIC_RMW, ATOMIC_STORE, LOAD, STORE, WAIT } from "../kernel/arch/explore_port.ts";
import type { Failure, Subject, TracedAccess } from "./subject.ts";

/** Lines of a rendering, its head and what is left out included. */
const MAX_ROWS = 18;
const VERBS: ReadonlyMap<number, string> = new Map([
  [LOAD, "ld"],
  [STORE, "st"],
  [ATOMIC_LOAD, "ldAtomic"],
  [ATOMIC_STORE, "stAtomic"],
  [ATOMIC_RMW, "swap"],
  [WAIT, "wait"],
]);

/** Functions of the port and of locking, which are on every stack. */
const INNER = new Set([
  ...["record", "done", "arrive", "arriveWaiting", "isReplayed", "swap", "touch", "waitUntil", "copy", "fill"],
  ...[
    "ld8",
    "ld16",
    "ld32",
    "ldF64",
    "st8",
    "st16",
    "st32",
    "stF64",
    "ldAtomic",
    "stAtomic",
    "cas",
    "casBelow",
    "fetchAdd",
  ],
  ...["writeBytes", "readBytes"],
]);

const threadOf = ({ cpu, isInIrq }: TracedAccess): string => `${cpu}${isInIrq ? "i" : ""}`;

/** Is it a word that handlers put back, as preempt_count? */
const isBalanced = (subject: Subject, addr: number): boolean =>
  subject.balanced?.some(([start, bytes]) => addr >= start && addr < start + bytes) === true;

/** Words that are shared, and written while they are. */
function sharedWords(subject: Subject, accesses: readonly TracedAccess[]): Set<number> {
  const users = new Map<number, Set<string>>();
  const written = new Set<number>();
  for (const access of accesses) {
    if (access.bytes > 64 || isBalanced(subject, access.addr)) continue;
    for (let word = access.addr >>> 2; word <= (access.addr + access.bytes - 1) >>> 2; word++) {
      const threads = users.get(word) ?? new Set();
      users.set(word, threads.add(threadOf(access)));
      if (access.kind === STORE || access.kind === ATOMIC_STORE || access.isStored) written.add(word);
    }
  }
  return new Set([...users].filter(([word, threads]) => threads.size > 1 && written.has(word)).map(([word]) => word));
}

export interface RenderOptions {
  /** Columns of the terminal. */
  readonly width: number;
}

function accessText(subject: Subject, access: TracedAccess): string {
  const { kind, addr, value } = access;
  const site = access.site.find((name) => !INNER.has(name)) ?? "program";
  const show = (n: number): string => subject.showValue?.(addr, n) ?? (n > 0xffff ? `0x${n.toString(16)}` : String(n));
  const what = `${access.isInIrq ? "irq " : ""}${site}: ${VERBS.get(kind)} ${subject.nameOf(addr)}`;
  if (access.isRacing) return `${what} ✗`;
  if (kind === ATOMIC_RMW) return `${what} ${show(value)} ${access.isStored ? `→ ${show(access.stored)}` : "refused"}`;
  return `${what} ${kind === STORE || kind === ATOMIC_STORE ? "←" : "="} ${show(value)}`;
}

/** Which accesses to show: all that are shared, or of too many the ones that tell most. */
function chosen(subject: Subject, accesses: readonly TracedAccess[], failure: Failure): number[] {
  const shared = sharedWords(subject, accesses);
  const failing = failure.addr === undefined ? -1 : failure.addr >>> 2;
  const all = accesses.flatMap((access, i) => (shared.has(access.addr >>> 2) ? [i] : []));
  if (all.length <= MAX_ROWS) return all;
  const isEdge = (at: number): boolean => {
    const [before, here, after] = [all[at - 1], all[at], all[at + 1]].map((i) =>
      i === undefined ? "" : threadOf(accesses[i] as TracedAccess),
    );
    return before !== here || after !== here;
  };
  const keep = new Set<number>();
  const add = (test: (index: number, at: number) => boolean): void => {
    for (let at = all.length - 1; at >= 0 && keep.size < MAX_ROWS; at--) {
      const index = all[at] as number;
      if (test(index, at)) keep.add(index);
    }
  };
  add((index) => (accesses[index] as TracedAccess).addr >>> 2 === failing);
  add((_, at) => isEdge(at));
  add((index) => (accesses[index] as TracedAccess).kind >= ATOMIC_LOAD);
  return [...keep].sort((a, b) => a - b);
}

/** The lines of a failing run. */
export function renderRun(
  subject: Subject,
  accesses: readonly TracedAccess[],
  failure: Failure,
  { width }: RenderOptions,
): string[] {
  const column = Math.max(24, Math.floor((width - 2) / subject.nrCpus));
  const cut = (text: string): string => (text.length >= column ? `${text.slice(0, column - 2)}…` : text);
  const lines = [
    Array.from({ length: subject.nrCpus }, (_, cpu) => `CPU ${cpu}`.padEnd(column))
      .join("")
      .trimEnd(),
  ];
  let last = -1;
  for (const index of chosen(subject, accesses, failure)) {
    const access = accesses[index] as TracedAccess;
    const nrHidden = index - last - 1;
    const isSkip = nrHidden > 0 && last >= 0 && (accesses[last] as TracedAccess).cpu === access.cpu;
    lines.push(" ".repeat(access.cpu * column) + cut(`${isSkip ? "⋮ " : ""}${accessText(subject, access)}`));
    last = index;
  }
  return lines;
}
