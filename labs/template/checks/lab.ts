/**
 * Checks and judge: programs of take and give over a few tickets, and who has which.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import type { Check, LabCode, Violation } from "../../kit/lab_code.ts";
import { type Observation, type Op, type Program, valueOfArg } from "../../kit/program.ts";

interface Config {
  readonly nr: number;
}

/** Random operations: takes, and gives of what was taken before (once, unless `isTwice`). */
function mixed(random: Prng, nr: number, length: number, isTwice: boolean): Program {
  const ops: Op[] = [];
  const held: number[] = [];
  while (ops.length < length) {
    const at = random.below(Math.max(1, held.length));
    const from = held[at];
    if (from === undefined || (held.length < nr && random.below(2) === 0)) {
      held.push(ops.length);
      ops.push(["take"]);
    } else {
      ops.push(["give", { ref: from }]);
      if (!isTwice || random.below(2) === 0) held.splice(at, 1);
    }
  }
  return { config: { nr }, ops };
}

const CHECKS: readonly Check[] = [
  {
    id: "one-owner",
    rule: "TIC-1",
    title: "a ticket is with one holder at a time",
    cause: "a ticket that is handed out is not marked",
    kinds: ["twice", "no-ticket"],
    program: (random, nr) => mixed(random, 2 + (nr % 4), 4 + (nr % 20), false),
  },
  {
    id: "exhausted",
    rule: "TIC-2",
    title: "take() says -1 only if all tickets are out",
    cause: "the search ends too early, or what was given back is forgotten",
    kinds: ["early", "late"],
    program(_random, nr) {
      const size = 1 + (nr % 5);
      const takes = Array.from({ length: size + 1 }, (): Op => ["take"]);
      return { config: { nr: size }, ops: [...takes, ["give", { ref: size - 1 }], ["take"]] };
    },
  },
  {
    id: "refusal",
    rule: "TIC-3",
    title: "give() of what is not out returns false, and nothing changes",
    cause: "give() does not look whether the ticket is out",
    kinds: ["accepted", "refused"],
    program: (random, nr) => mixed(random, 3 + (nr % 3), 8 + (nr % 20), true),
  },
  {
    id: "long-run",
    rule: "TIC-1",
    title: "all rules hold over long random runs",
    cause: "see the other checks",
    kinds: ["twice", "no-ticket", "early", "late", "accepted", "refused"],
    isSweep: true,
    program: (random, nr) => mixed(random, 5 + (nr % 20), 200, nr % 2 === 0),
  },
];

/** The first claim that breaks a rule, against a set of what is out. */
function judge(program: Program, observation: Observation): Violation | null {
  const { nr } = program.config as unknown as Config;
  const out = new Set<unknown>();
  for (let op = 0; op < observation.claims.length; op++) {
    const claim = observation.claims[op];
    const [name, arg] = program.ops[op] as Op;
    if (name === "give") {
      const ticket = valueOfArg(arg, observation);
      const isOut = out.delete(ticket);
      if (claim === isOut) continue;
      return isOut
        ? { kind: "refused", op, message: `give(${ticket}) is not true, though ${ticket} is out` }
        : { kind: "accepted", op, message: `give(${ticket}) is not false, though nobody has ${ticket}` };
    }
    if (claim === -1) {
      if (out.size === nr) continue;
      return { kind: "early", op, message: `take() says -1, though only ${out.size} of ${nr} tickets are out` };
    }
    const isTicket = typeof claim === "number" && Number.isInteger(claim) && claim >= 0 && claim < nr;
    if (!isTicket && out.size === nr) return { kind: "late", op, message: "all tickets are out: take() has to say -1" };
    if (!isTicket) return { kind: "no-ticket", op, message: `take() returns what is no ticket of 0 to ${nr - 1}` };
    if (out.has(claim)) return { kind: "twice", op, message: `ticket ${claim} is out, and is handed out again` };
    out.add(claim);
  }
  return null;
}

export const lab: LabCode = {
  checks: CHECKS,
  judge,
  hasName: ([name]) => name === "take",
  describe([name, arg], index, letter) {
    if (name === "take") return `${letter(index)}=take()`;
    return `give(${typeof arg === "object" && arg !== null ? letter(arg.ref) : arg})`;
  },
  describeConfig: (config) => `${(config as unknown as Config).nr} tickets`,
  picture(_program, observation, violation) {
    return [`returned: ${observation.claims.slice(0, violation.op + 1).join(" ")}`];
  },
  question(random) {
    const nr = 3 + random.below(5);
    const nrTaken = 1 + random.below(nr);
    return {
      text: [`Of ${nr} tickets ${nrTaken} are out. How many calls of take() in a row return a ticket?`],
      answer: String(nr - nrTaken),
      explanation: [`${nr} − ${nrTaken} are left; then take() says −1.`],
    };
  },
};
