/**
 * The judge of lab 11: over histories, and says which rule the first wrong one breaks.
 *
 * | kind      | what was seen                                                                       |
 * |-----------|-------------------------------------------------------------------------------------|
 * | bad-claim | a result that is no node, or no list of nodes                              (LFS-1)  |
 * | bad-zero  | pop says neither a node nor 0                                              (LFS-2)  |
 * | foreign   | a node that does not exist                                                 (LFS-1)  |
 * | twice     | one node in two hands, or in a hand and free                               (LFS-1)  |
 * | lost      | a node that nobody holds and that is not free                              (LFS-1)  |
 * | empty     | "nothing" although at each moment there was something                      (LFS-2)  |
 * | short, long  | a refill of fewer or more than it has to be                             (LFS-6)  |
 * | early     | a node taken before it was given                                           (LFS-1)  |
 * | endless   | no end, though all others get their turns                                  (LFS-7)  |
 * | stuck     | no end while another CPU rests                                             (LFS-7)  |
 * | bad-word, outside | an access that the memory refuses                                  (LFS-5, LFS-9) |
 * | unsteady  | another access after the same loads                                        (LFS-9)  |
 * | narrow    | a compare-and-swap expects what an earlier one has expected                (LFS-5)  |
 * | overtaken | a node in no place or two, after one CPU rested and another one changed much (LFS-5) |
 * | slow      | more accesses than a CPU that is alone needs                               (LFS-8)  |
 *
 * In a history without overlaps the first eight are called `one-…`: the mistake needs no second CPU.
 */

import { type BrokenRun, type HistoryOp, isSequential, parseRun } from "../../kit/history.ts";
import type { Violation } from "../../kit/lab_code.ts";
import type { Json, Observation, Op, Program } from "../../kit/program.ts";
import { type History, isLinearizable, type LockfreeConfig, takenBy } from "./history.ts";

type Verdict = { readonly kind: string; readonly message: string } | null;

/** Accesses that an operation of a CPU that is alone may take. */
export const accessesAllowed = (op: HistoryOp): number => 8 + (op.name === "refill" ? 2 * op.arg : 0);

/** An operation as people read it: `pop → 3`. */
export function opText(op: HistoryOp): string {
  if (op.name === "push") return `push(${op.arg})`;
  const shown = Array.isArray(op.result) ? `[${op.result.join(" ")}]` : op.result;
  return `${op.name === "refill" ? `refill(${op.arg})` : op.name} → ${shown}`;
}

const whose = (op: HistoryOp): string => `CPU ${op.cpu} (${opText(op)})`;

/** The first run of an observation that breaks a rule, and which. */
export function firstWrong(
  program: Program,
  claim: Json | undefined,
): { readonly run: History | BrokenRun; readonly verdict: NonNullable<Verdict> } | null {
  const config = program.config as unknown as LockfreeConfig;
  for (const text of Array.isArray(claim) ? claim.slice(2) : []) {
    const run = parseRun<History>(text as Json);
    if (run === null) continue;
    const verdict = "failure" in run ? brokenVerdict(run) : historyVerdict(run, config);
    if (verdict !== null) return { run, verdict };
  }
  return null;
}

function brokenVerdict({ failure: [kind, message], where }: BrokenRun): NonNullable<Verdict> {
  const [op] = where;
  const place = op === undefined ? "" : ` (CPU ${op.cpu}, in ${op.name})`;
  return { kind, message: `${message}${place}` };
}

function historyVerdict(history: History, config: LockfreeConfig): Verdict {
  const verdict = nodesVerdict(history, config) ?? orderVerdict(history, config.free) ?? costVerdict(history);
  if (verdict === null || verdict.kind === "slow" || verdict.kind.startsWith("bad-")) return verdict;
  return isSequential(history) ? { ...verdict, kind: `one-${verdict.kind}` } : verdict;
}

/** Each node in one place. */
function nodesVerdict({ ops, left }: History, { free, hold = [] }: LockfreeConfig): Verdict {
  const last = free + hold.reduce((sum, nr) => sum + nr, 0);
  const isNode = (node: number | string): boolean =>
    Number.isInteger(node) && Number(node) >= 1 && Number(node) <= last;
  const room: number[] = Array.from({ length: last + 1 }, (_, node) => (node >= 1 && node <= free ? 1 : 0));
  for (const { name, arg } of ops) if (name === "push") room[arg] = (room[arg] ?? 0) + 1;
  const takers = new Map<number, HistoryOp>();
  for (const op of ops.toSorted((a, b) => a.last - b.last)) {
    if (op.name === "refill" && !Array.isArray(op.result))
      return { kind: "bad-claim", message: `refill(${op.arg}) returns ${op.result}, which is no list` };
    for (const node of takenBy(op)) {
      if (typeof node !== "number" || !Number.isInteger(node) || node <= 0)
        return { kind: op.name === "pop" ? "bad-zero" : "bad-claim", message: `${whose(op)}: that is no node` };
      if (!isNode(node)) return { kind: "foreign", message: `${whose(op)}: nobody ever had a node ${node}` };
      room[node] = (room[node] as number) - 1;
      const before = takers.get(node);
      if ((room[node] as number) < 0)
        return {
          kind: "twice",
          message: `node ${node} is in two hands: ${before ? whose(before) : "its owner"} and ${whose(op)}`,
        };
      takers.set(node, op);
    }
    if (op.name === "refill" && takenBy(op).length > op.arg)
      return { kind: "long", message: `${whose(op)}: that is more than ${op.arg}` };
  }
  for (const node of left) {
    if (typeof node !== "number" || node < 0)
      return { kind: "bad-zero", message: `in the end pop → ${node}: that is no node, and 0 is "nothing"` };
    if (!isNode(node)) return { kind: "foreign", message: `in the end ${node} is on the list, and nobody ever had it` };
    room[Number(node)] = (room[Number(node)] as number) - 1;
    const taker = takers.get(Number(node));
    const who =
      taker === undefined || left.indexOf(node) !== left.lastIndexOf(node) ? "free once more" : `with ${whose(taker)}`;
    if ((room[Number(node)] as number) < 0)
      return { kind: "twice", message: `node ${node} is in two hands: in the end it is free, and ${who}` };
  }
  const lost = room.findIndex((nr) => nr > 0);
  if (lost < 0) return null;
  return { kind: "lost", message: `node ${lost} is lost: nobody holds it, and in the end it is not on the list` };
}

/** Can the results be explained by some order? If not, the operation that is to blame, as well as can be told. */
function orderVerdict(history: History, nrFree: number): Verdict {
  if (isLinearizable(history, nrFree)) return null;
  const nothing = history.ops.find((op) => op.name === "pop" && op.result === 0);
  const short = history.ops.find((op) => op.name === "refill" && takenBy(op).length < op.arg);
  const why = "no order of the operations explains it: at each moment there was more";
  if (short !== undefined) return { kind: "short", message: `${whose(short)}: ${why}` };
  if (nothing !== undefined) return { kind: "empty", message: `${whose(nothing)}: ${why}` };
  const all = history.ops.map(whose).join(", ").slice(0, 70);
  return { kind: "early", message: `no order explains ${all}` };
}

function costVerdict({ ops }: History): Verdict {
  if (ops.some((op) => op.cpu !== 0)) return null;
  const op = ops.find((candidate) => candidate.nrAccesses > accessesAllowed(candidate));
  if (op === undefined) return null;
  const message = `${opText(op)} takes ${op.nrAccesses} accesses, alone; ${accessesAllowed(op)} are allowed`;
  return { kind: "slow", message };
}

/** The first violation of a program, or null. */
export function judge(program: Program, observation: Observation): Violation | null {
  for (let at = 0; at < observation.claims.length; at++) {
    const op = program.ops[at] as Op;
    const claim = observation.claims[at];
    const verdict = isSearch(op)
      ? (firstWrong(program, claim)?.verdict ?? null)
      : op[0] === "overtake"
        ? overtakenVerdict(op, claim, program.config as unknown as LockfreeConfig)
        : aloneVerdict(op, claim);
    if (verdict !== null) return { ...verdict, op: at };
  }
  return null;
}

const isSearch = ([name]: Op): boolean => name === "explore" || name === "stress";

/** What was seen without the engine: a CPU that rests, and tags that come back. */
function aloneVerdict(op: Op, claim: Json | undefined): Verdict {
  const [at, what, message] = Array.isArray(claim) ? claim : [];
  if (typeof what !== "string" || what === "") return null;
  if (op[0] === "rest") {
    const rests = `while CPU 0 rests before its access ${at}, CPU 1 does not get on`;
    return { kind: what, message: what === "stuck" ? `${rests}: ${message}` : String(message) };
  }
  const [word, value] = what.split(":");
  const again = `word ${word} is ${value} again, which an earlier compare-and-swap of a pop has expected`;
  return { kind: "narrow", message: `after ${at} pops ${again}` };
}

interface OvertakenRow {
  readonly at: number;
  readonly failure?: readonly [kind: string, message: string];
  readonly hands?: readonly (readonly unknown[])[];
  readonly left?: readonly unknown[];
}

/** Is each node in one place after all that? */
function overtakenVerdict(op: Op, claim: Json | undefined, { free, hold = [] }: LockfreeConfig): Verdict {
  const nrNodes = free + hold.reduce((sum, nr) => sum + nr, 0);
  for (const text of Array.isArray(claim) ? claim : []) {
    const row = parseRow(text as Json);
    if (row === null) continue;
    const { at, failure, hands, left } = row;
    if (failure !== undefined) return { kind: String(failure[0]), message: String(failure[1]) };
    const places = [...[hands ?? []].flat(2), ...(left ?? [])];
    const when = `CPU 0 rests before its access ${at}, CPU 1 makes ${op[3]} rounds, CPU 0 goes on`;
    for (let node = 1; node <= nrNodes; node++) {
      const nr = places.filter((other) => other === node).length;
      if (nr === 0) return { kind: "overtaken", message: `${when}: node ${node} is lost` };
      if (nr > 1) return { kind: "overtaken", message: `${when}: node ${node} is in two hands` };
    }
  }
  return null;
}

function parseRow(text: Json): OvertakenRow | null {
  if (typeof text !== "string") return null;
  try {
    const row: unknown = JSON.parse(text);
    const isList = (value: unknown): boolean => value === undefined || Array.isArray(value);
    if (typeof row !== "object" || row === null || !("at" in row)) return null;
    const { hands, left, failure } = row as Record<string, unknown>;
    return isList(hands) && isList(left) && isList(failure) ? (row as OvertakenRow) : null;
  } catch {
    return null;
  }
}
