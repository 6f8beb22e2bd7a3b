/**
 * Letters for what operations return: A, B, … Z, A1 …, the same in traces, pictures and messages.
 */

import { isRef, type Op, type Program } from "./program.ts";

/**
 * The letter of operation `index`, or "" if it has none: one for each that `hasName`, or that a later one refers to.
 */
export function namesOf(program: Program, hasName: (op: Op) => boolean = () => false): (index: number) => string {
  const used = new Set<number>();
  program.ops.forEach((op, index) => {
    if (hasName(op)) used.add(index);
    for (const arg of op.slice(1)) if (isRef(arg)) used.add(arg.ref);
  });
  const order = [...used].sort((a, b) => a - b);
  return (index) => {
    const at = order.indexOf(index);
    return at < 0 ? "" : `${String.fromCharCode(65 + (at % 26))}${at < 26 ? "" : Math.floor(at / 26)}`;
  };
}
