/**
 * What lockdep prints: the texts of Linux kernel/locking/lockdep.c, filled in.
 *
 * Pure functions from names to lines; lockdep.ts decides when, and prints.
 */

import { MAX_CLASSES } from "./lockdep_graph.ts";

/** One lock in a report. */
export interface LockText {
  readonly name: string;
  /** `0x0010a040 (&zone->lock){-.-.}-{2:2}`. */
  readonly full: string;
}

export interface Reporter {
  /** `comm/pid`. */
  readonly who: string;
  /** `[HC0[0]:SC0[0]:HE1:SE1]`. */
  readonly state: string;
  readonly release: string;
  /** Who holds what, a line each. */
  readonly held: readonly string[];
  /** Where the caller is. */
  readonly stack: string;
}

const OTHER_INFO = ["", "other info that might help us debug this:"];

function framed(title: string, reporter: Reporter, body: readonly string[]): string {
  const bar = (mark: string): string => mark.repeat(Math.max(title.length, 28));
  const lines = [bar("="), title, reporter.release, bar("-"), ...body, ...reporter.held, "", "stack backtrace:"];
  return [...lines, reporter.stack].join("\n");
}

const scenario = (columns: readonly string[], rows: readonly string[]): readonly string[] => [
  " Possible unsafe locking scenario:",
  "",
  `       ${columns.join("                    ")}`,
  `       ${columns.map((column) => "-".repeat(column.length)).join("                    ")}`,
  ...rows,
  "",
  " *** DEADLOCK ***",
  "",
];
const other = (what: string): string => `${" ".repeat(31)}${what}`;

export function recursionText(r: Reporter, next: LockText, held: LockText): string {
  return framed("WARNING: possible recursive locking detected", r, [
    `${r.who} is trying to acquire lock:`,
    next.full,
    "",
    "but task is already holding lock:",
    held.full,
    ...OTHER_INFO,
    ...scenario(["CPU0"], [`  lock(${held.name});`, `  lock(${next.name});`]),
    " May be due to missing lock nesting notation",
    "",
  ]);
}

/** `path`: the classes from `next` to `held` that were taken in this order before. */
export function circularText(r: Reporter, next: LockText, held: LockText, path: readonly LockText[]): string {
  const chain = path.map((lock, i) => `-> #${i} (${lock.full.slice(lock.full.indexOf("(") + 1)}`).reverse();
  const middle = path.length > 2 ? [`Chain exists of:\n  ${path.map((lock) => lock.name).join(" --> ")}`, ""] : [];
  return framed("WARNING: possible circular locking dependency detected", r, [
    `${r.who} is trying to acquire lock:`,
    next.full,
    "",
    "but task is already holding lock:",
    held.full,
    "",
    "which lock already depends on the new lock.",
    "",
    "the existing dependency chain (in reverse order) is:",
    ...chain,
    ...OTHER_INFO,
    ...middle,
    ...scenario(
      ["CPU0", "CPU1"],
      [
        `  lock(${held.name});`,
        other(`lock(${path.at(-2)?.name ?? next.name});`),
        other(`lock(${held.name});`),
        `  lock(${next.name});`,
      ],
    ),
  ]);
}

/** `before` and `now`: `HARDIRQ-ON-W`, `IN-HARDIRQ-W`. */
export function inconsistentText(r: Reporter, lock: LockText, before: string, now: string, seenAt: string): string {
  const rows = [`  lock(${lock.name});`, "  <Interrupt>", `    lock(${lock.name});`];
  return framed("WARNING: inconsistent lock state", r, [
    `inconsistent {${before}} -> {${now}} usage.`,
    `${r.who} ${r.state} takes:`,
    lock.full,
    `{${before}} state was registered at:`,
    `  ${seenAt}`,
    ...OTHER_INFO,
    ...scenario(["CPU0"], rows),
  ]);
}

/** One lock is taken in interrupts, the other with them on; a way leads from the first to the second. */
export interface IrqPair {
  readonly safe: LockText;
  readonly unsafe: LockText;
  /** HARDIRQ or SOFTIRQ. */
  readonly irq: string;
}

const irqScenario = ({ safe, unsafe }: IrqPair): readonly string[] => {
  const body = scenario(
    ["CPU0", "CPU1"],
    [
      `  lock(${unsafe.name});`,
      other("local_irq_disable();"),
      other(`lock(${safe.name});`),
      other(`lock(${unsafe.name});`),
      "  <Interrupt>",
      `    lock(${safe.name});`,
    ],
  );
  return [" Possible interrupt unsafe locking scenario:", ...body.slice(1)];
};

/** `isSafe`: the lock that changed its state is now taken in interrupts; else it is now taken with them on. */
export function inversionText(r: Reporter, pair: IrqPair, isSafe: boolean): string {
  const [changed, found] = isSafe ? [pair.safe, pair.unsafe] : [pair.unsafe, pair.safe];
  const how = isSafe
    ? `but this lock took another, ${pair.irq}-unsafe lock in the past:`
    : `but this lock was taken by another, ${pair.irq}-safe lock in the past:`;
  return framed("WARNING: possible irq lock inversion dependency detected", r, [
    `${r.who} just changed the state of lock:`,
    changed.full,
    how,
    ` ${found.full.slice(found.full.indexOf("("))}`,
    "",
    "and interrupts could create inverse lock ordering between them.",
    ...OTHER_INFO,
    ...irqScenario(pair),
  ]);
}

export function badIrqOrderText(r: Reporter, pair: IrqPair, held: LockText, next: LockText): string {
  const { irq, safe, unsafe } = pair;
  return framed(`WARNING: ${irq}-safe -> ${irq}-unsafe lock order detected`, r, [
    `${r.who} ${r.state} is trying to acquire:`,
    next.full,
    "",
    "and this task is already holding:",
    held.full,
    "which would create a new lock dependency:",
    ` (${held.name}) -> (${next.name})`,
    "",
    `but this new dependency connects a ${irq}-irq-safe lock:`,
    ` (${safe.name})`,
    "",
    `to a ${irq}-irq-unsafe lock:`,
    ` (${unsafe.name})`,
    ...OTHER_INFO,
    ...irqScenario(pair),
  ]);
}

export function waitContextText(r: Reporter, next: LockText, context: number): string {
  return framed("[ BUG: Invalid wait context ]", r, [
    `${r.who} is trying to lock:`,
    next.full,
    "other info that might help us debug this:",
    `context-{${context}:${context}}`,
  ]);
}

export function unlockBalanceText(r: Reporter, lock: LockText): string {
  const rest = r.held.length === 0 ? "but there are no more locks to release!" : "but it does not hold it!";
  return framed("WARNING: bad unlock balance detected!", r, [
    `${r.who} is trying to release lock (${lock.name}) at:`,
    lock.full,
    rest,
    ...OTHER_INFO,
  ]);
}

export function heldLockFreedText(r: Reporter, lock: LockText, start: number, end: number): string {
  const range = `0x${start.toString(16)}-0x${(end - 1).toString(16)}`;
  return framed("WARNING: held lock freed!", r, [
    `${r.who} is freeing memory ${range}, with a lock still held there!`,
    lock.full,
  ]);
}

export function returnToUserText(r: Reporter): string {
  return framed("WARNING: lock held when returning to user space!", r, [
    `${r.who} is leaving the kernel with locks still held!`,
  ]);
}

export interface LockdepNumbers {
  stats(): { readonly classes: number; readonly edges: number };
  nrReports(): number;
}

/** Text of /proc/lockdep_stats: the lines of Linux's file that mean something here. */
export function lockdepStatsText(lockdep: LockdepNumbers): string {
  const { classes, edges } = lockdep.stats();
  const line = (name: string, value: number, max: string): string =>
    ` ${`${name}:`.padEnd(30)}${String(value).padStart(11)}${max}\n`;
  return (
    line("lock-classes", classes, ` [max: ${MAX_CLASSES}]`) +
    line("direct dependencies", edges, ` [max: ${MAX_CLASSES * MAX_CLASSES}]`) +
    line("debug_locks", lockdep.nrReports() === 0 ? 1 : 0, "")
  );
}
