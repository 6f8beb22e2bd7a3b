/**
 * The judge of lab 1: walks through claims in order and says which rule the first wrong one breaks.
 *
 * | kind          | the claim                                                                             |
 * |---------------|---------------------------------------------------------------------------------------|
 * | bad-claim     | is no address, no number of bytes, no list                                             |
 * | hole          | bytes that are no RAM                                                       (BOOT-1)  |
 * | reserved      | bytes that are reserved                                                     (BOOT-2)  |
 * | misaligned    | an address that is no multiple of the alignment                             (BOOT-3)  |
 * | twice         | bytes that were allocated before                                            (BOOT-4)  |
 * | backwards     | below something that was allocated before                                   (BOOT-4)  |
 * | skips         | higher than necessary; seam: where memory of two rows would do              (BOOT-5)  |
 * | refused       | no memory, where some is free; seam as above; after-refusal: it was found before (BOOT-6) |
 * | impossible    | an address for a request that makes no sense                                (BOOT-7)  |
 * | page-hole, page-reserved, page-used   a page in the list that is not free as a whole  (BOOT-8)  |
 * | page-lost     | a page that is free as a whole and not in the list                          (BOOT-8)  |
 * | form          | rows out of order, empty, touching, or with a page twice                    (BOOT-9)  |
 * | closed        | anything is handed out after the hand-over                                  (BOOT-10) |
 * | count         | reservedBytes() or usedBytes() is wrong                                     (BOOT-11) |
 * | slow          | more steps than the rows of the tables explain                              (BOOT-12) |
 * | changed       | a row of the firmware's tables was changed                                  (BOOT-13) |
 * | high          | a wrong address or list where the right one lies at 2 GiB or more           (BOOT-3)  |
 */

import type { Violation } from "../../kit/lab_code.ts";
import { namesOf } from "../../kit/names.ts";
import type { Json, Observation, Op, Program } from "../../kit/program.ts";
import { NO_MEMORY, PAGE_SIZE } from "../given/api.ts";
import { type BootConfig, BootSpace, type Piece, type Range } from "./model.ts";

/** Every allocation has a letter. */
export const hasName = (op: Op): boolean => op[0] === "alloc";

export const hex = (n: number): string => `0x${n.toString(16)}`;

/** Steps that an allocation or the hand-over may take. */
export const stepsAllowed = (nrRows: number, nrAllocated: number): number => 8 * (nrRows + nrAllocated + 4) ** 2;

const HIGH = 2 ** 31;

type Verdict = { readonly kind: string; readonly message: string } | null;

/** One walk through a program: the model as far as the claims were right. */
export class Walk {
  readonly space: BootSpace;
  readonly #program: Program;
  readonly #observation: Observation;
  readonly #name: (index: number) => string;
  /** Bytes that left with the hand-over. */
  #handedOver = 0;
  /** A request was refused, and nothing was allocated since. */
  #wasRefused = false;

  constructor(program: Program, observation: Observation) {
    this.space = new BootSpace(program.config as unknown as BootConfig);
    this.#program = program;
    this.#observation = observation;
    this.#name = namesOf(program, hasName);
  }

  /** Judges operation `index`, and moves the model on if its claim is right. */
  step(index: number): Verdict {
    const op = this.#program.ops[index] as Op;
    const claim = this.#observation.claims[index] as Json;
    const { config, owners } = this.space;
    const allowed = stepsAllowed(config.map.length + config.reserved.length, owners.length);
    const verdict = this.#judge(op, index, claim);
    if (verdict !== null || (op[0] !== "alloc" && op[0] !== "handOver")) return verdict;
    const steps = this.#observation.steps[index] as number;
    if (steps <= allowed) return null;
    const rows = `${config.map.length}+${config.reserved.length} rows and ${owners.length} allocations`;
    return { kind: "slow", message: `${op[0]} takes ${steps} steps; ${rows} allow ${allowed}` };
  }

  #judge(op: Op, index: number, claim: Json): Verdict {
    switch (op[0]) {
      case "alloc":
        return this.#judgeAlloc(Number(op[1]), Number(op[2]), index, claim);
      case "handOver":
        return this.#judgeHandOver(claim);
      case "reservedBytes":
        return this.#judgeCount("reservedBytes", claim, this.space.reservedBytes, "of RAM are reserved");
      case "usedBytes":
        return this.#judgeUsed(claim);
      case "changedRow":
        return claim === -1
          ? null
          : { kind: "changed", message: `row ${show(claim)} of the firmware's tables was changed` };
      default:
        return null;
    }
  }

  // ── Allocations ──────────────────────────────────────────────────────────────────────────────────────────────────

  #judgeAlloc(size: number, align: number, index: number, claim: Json): Verdict {
    const { space } = this;
    const call = `alloc(${sizeText(size)}, ${sizeText(align)})`;
    const isPossible = Number.isInteger(size) && size > 0 && Number.isInteger(align) && isPowerOfTwo(align);
    const right = isPossible ? space.lowest(size, align) : NO_MEMORY;
    if (typeof claim !== "number" || !Number.isInteger(claim) || (claim < 0 && claim !== NO_MEMORY)) {
      const kind = right >= HIGH ? "high" : "bad-claim";
      return { kind, message: `${call} returns ${show(claim)}, which is no address` };
    }
    if (claim === right) {
      if (isPossible) this.#wasRefused = claim === NO_MEMORY;
      if (claim !== NO_MEMORY) space.take(index, claim, size);
      return null;
    }
    if (!isPossible) {
      return { kind: "impossible", message: `${call} returns ${hex(claim)}, but there is no such request` };
    }
    if (space.isOver) {
      return { kind: "closed", message: `${call} returns ${hex(claim)}, but memory was handed over` };
    }
    const verdict = this.#wrongAddress(claim, size, align, right, call);
    return right >= HIGH && (claim < 0 || claim >= HIGH) ? { ...verdict, kind: "high" } : verdict;
  }

  /** `claim` is not where the allocation has to land. */
  #wrongAddress(claim: number, size: number, align: number, right: number, call: string): NonNullable<Verdict> {
    const end = claim + size;
    if (claim === NO_MEMORY) return this.#refusal(size, right, call);
    const range = `${hex(claim)}..${hex(end)}`;
    if (claim % align !== 0) {
      return { kind: "misaligned", message: `${call} returns ${hex(claim)}, which is no multiple of ${hex(align)}` };
    }
    const pieces = this.space.pieces(claim, end);
    const hole = pieces.find(({ isRam }) => !isRam);
    if (hole !== undefined) {
      return { kind: "hole", message: `${range} was allocated, but ${piece(hole)} is no RAM` };
    }
    const reserved = pieces.find(({ isReserved }) => isReserved);
    if (reserved !== undefined) {
      return { kind: "reserved", message: `${range} was allocated, but ${piece(reserved)} is reserved` };
    }
    const owned = pieces.find(({ owner }) => owner !== undefined);
    if (owned?.owner !== undefined) {
      const first = `${this.#name(owned.owner.op)} (op ${owned.owner.op + 1})`;
      return { kind: "twice", message: `${range} was allocated, but ${piece(owned)} belongs to ${first} already` };
    }
    if (claim < this.space.cursor) {
      const message = `${call} returns ${hex(claim)}, below the last allocation, up to ${hex(this.space.cursor)}`;
      return { kind: "backwards", message };
    }
    return {
      kind: this.#missed("skips", right, size),
      message: `${call} returns ${hex(claim)}, but ${hex(right)} is free`,
    };
  }

  #refusal(size: number, right: number, call: string): NonNullable<Verdict> {
    const message = `${call} finds nothing although ${hex(right)}..${hex(right + size)} is free`;
    return { kind: this.#missed("refused", right, size), message };
  }

  #missed(kind: "skips" | "refused", right: number, size: number): string {
    if (this.#wasRefused) return "after-refusal";
    return this.space.hasSeam(right, right + size) ? "seam" : kind;
  }

  // ── The hand-over ────────────────────────────────────────────────────────────────────────────────────────────────

  #judgeHandOver(claim: Json): Verdict {
    const whole = this.space.wholePages();
    const verdict = this.#wrongList(claim, whole);
    if (verdict !== null) return verdict;
    if (!this.space.isOver) this.#handedOver = whole.reduce((sum, [first, end]) => sum + (end - first) * PAGE_SIZE, 0);
    this.space.isOver = true;
    return null;
  }

  #wrongList(claim: Json, whole: readonly Range[]): Verdict {
    if (!Array.isArray(claim) || !claim.every(isRow)) {
      // A list that never ends, where the end of memory is no 32-bit number.
      const kind = whole.some(([, end]) => end * PAGE_SIZE > HIGH) ? "high" : "bad-claim";
      return { kind, message: `handOver() returns ${show(claim)}, which is no number of rows` };
    }
    const rows = claim as Range[];
    if (this.space.isOver) {
      if (rows.length === 0) return null;
      return { kind: "closed", message: `the second handOver() hands out ${rows.length} ranges once more` };
    }
    return this.#notFree(rows) ?? lostPage(rows, whole) ?? wrongForm(rows);
  }

  #notFree(rows: readonly Range[]): Verdict {
    for (const [first, end] of rows) {
      if (first >= end) continue;
      const pieces = this.space.pieces(first * PAGE_SIZE, end * PAGE_SIZE);
      const bad = pieces.find(({ isRam, isReserved, owner }) => !isRam || isReserved || owner !== undefined);
      if (bad === undefined) continue;
      const what = `frames ${first}..${end - 1} are handed over, but ${piece(bad)}`;
      if (bad.start >= HIGH) return { kind: "high", message: `${what} is not free` };
      if (!bad.isRam) return { kind: "page-hole", message: `${what} is no RAM` };
      if (bad.isReserved) return { kind: "page-reserved", message: `${what} is reserved` };
      const name = bad.owner === undefined ? "somebody" : this.#name(bad.owner.op);
      return { kind: "page-used", message: `${what} belongs to ${name}` };
    }
    return null;
  }

  // ── Books ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #judgeUsed(claim: Json): Verdict {
    const { space } = this;
    if (!space.isOver) return this.#judgeCount("usedBytes", claim, space.allocatedBytes, "are allocated");
    const rest = space.ramBytes - space.reservedBytes - this.#handedOver;
    return this.#judgeCount("usedBytes", claim, rest, "of RAM are neither reserved nor handed over");
  }

  #judgeCount(name: string, claim: Json, right: number, what: string): Verdict {
    if (claim === right) return null;
    return { kind: "count", message: `${name}() says ${show(claim)}, but ${right} bytes ${what}` };
  }
}

/** A page that is free as a whole and in no row. */
function lostPage(rows: readonly Range[], whole: readonly Range[]): Verdict {
  for (const [first, end] of whole) {
    let frame = first;
    // The rows that have `frame` reach to where the next look begins.
    for (;;) {
      const covering = rows.filter(([from, to]) => from <= frame && frame < to).map(([, to]) => to);
      if (covering.length === 0) break;
      frame = Math.max(...covering);
    }
    if (frame < end) {
      const message = `frame ${frame} (${hex(frame * PAGE_SIZE)}) is free as a whole, but no row hands it over`;
      return { kind: frame * PAGE_SIZE >= HIGH ? "high" : "page-lost", message };
    }
  }
  return null;
}

function wrongForm(rows: readonly Range[]): Verdict {
  for (let i = 0; i < rows.length; i++) {
    const [first, end] = rows[i] as Range;
    const row = `row ${i} of the list is ${first}..${end}`;
    if (first >= end) return { kind: "form", message: `${row}, which is empty` };
    const before = rows[i - 1];
    if (before === undefined || before[1] < first) continue;
    const what = before[1] === first ? "touches" : "does not lie behind";
    return { kind: "form", message: `${row}, and ${what} row ${i - 1}, which is ${before[0]}..${before[1]}` };
  }
  return null;
}

function isRow(row: Json): boolean {
  return Array.isArray(row) && row.length === 2 && row.every((n) => typeof n === "number" && Number.isInteger(n));
}

function isPowerOfTwo(n: number): boolean {
  let power = 1;
  while (power < n) power *= 2;
  return power === n;
}

function piece({ start, end }: Piece): string {
  return `${hex(start)}..${hex(end)}`;
}

/** Sizes are read best in hex from a page on. */
export function sizeText(n: number): string {
  return Number.isInteger(n) && n >= 4096 ? hex(n) : String(n);
}

function show(claim: Json | undefined): string {
  if (typeof claim === "object" && claim !== null && "not" in claim) return String(claim.not).slice(0, 40);
  return (JSON.stringify(claim) ?? "nothing").slice(0, 40);
}

/** The first violation of a program, or null. */
export function judge(program: Program, observation: Observation): Violation | null {
  const walk = new Walk(program, observation);
  for (let op = 0; op < observation.claims.length; op++) {
    const verdict = walk.step(op);
    if (verdict !== null) return { ...verdict, op };
  }
  return null;
}
