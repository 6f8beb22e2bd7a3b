/**
 * Lab 8: all checks, the hidden ones among them, and how an operation is written.
 */

import type { Check, LabCode } from "../../kit/lab_code.ts";
import type { Json, Op } from "../../kit/program.ts";
import { hasName, judge } from "./judge.ts";
import type { GfpConfig } from "./machine.ts";
import { maskName } from "./model.ts";
import { PAGES } from "./page_checks.ts";
import { picture } from "./picture.ts";
import { BOOKS, POOLS } from "./pool_checks.ts";
import { anyMask, atomic, Builder, blocking } from "./programs.ts";
import { question } from "./question.ts";

const VISIBLE = [...PAGES, ...POOLS, ...BOOKS];
const ALL_KINDS = [...new Set(VISIBLE.flatMap(({ kinds }) => kinds))];

const HIDDEN: readonly Check[] = [
  {
    id: "long-run",
    rule: "GFP-1 to DEF-2",
    title: "all rules hold in long runs without interrupts in the midst of a call",
    cause: "one of the rules above, in a state that the visible programs do not reach",
    kinds: ALL_KINDS,
    isSweep: true,
    runs: { quick: 1, full: 12 },
    program(random) {
      const min = 1 + random.below(4);
      const plan = Array.from({ length: 8 }, () => random.below(4));
      const builder = new Builder(8 + random.below(8), min, min + 1 + random.below(3), plan);
      builder.op("pool", 1 + random.below(3));
      for (let round = 0; round < 60; round++) {
        const kind = random.below(8);
        if (kind < 2) builder.page(anyMask(random));
        else if (kind < 4) builder.take(random.below(3) === 0 ? blocking(random.below(6)) : atomic(random.below(6)));
        else if (kind === 4) builder.put(random.below(builder.taken.length + 1), random.below(2) === 0);
        else if (kind === 5) builder.back(random.below(builder.pages.length + 1));
        else if (kind === 6) builder.defer(random.below(2) === 0);
        else builder.op("runWork");
      }
      builder.op("runWork");
      while (builder.taken.length > 0) builder.put(0);
      builder.op("end");
      return builder.build();
    },
  },
  {
    id: "storm",
    rule: "GFP-1 to DEF-2",
    title: "no page and no object is lost when interrupts come anywhere",
    cause: "one of the rules about contexts, at a place that the visible programs do not reach",
    kinds: ALL_KINDS,
    isSweep: true,
    runs: { quick: 1, full: 24 },
    program(random) {
      const minNr = 1 + random.below(3);
      const builder = new Builder(minNr + 3 + random.below(2), 1, 2, [random.below(2), 0, 1]);
      builder.op("pool", minNr);
      builder.exhaust(random.below(4));
      for (let round = 0; round < 24; round++) {
        const kind = random.below(5);
        if (kind === 0 && builder.taken.length > 0) {
          const [ref = 0] = builder.taken.splice(random.below(builder.taken.length), 1);
          builder.armFree(1 + random.below(16), ref);
          if (random.below(2) === 0) builder.take(blocking(random.below(6)));
          else builder.put(random.below(builder.taken.length + 1));
        } else if (kind === 1) {
          builder.armDefer(1 + random.below(6));
          if (random.below(2) === 0) builder.defer();
          else builder.op("runWork");
        } else if (kind === 2) builder.put(random.below(builder.taken.length + 1), true);
        else builder.take(random.below(2) === 0 ? blocking(random.below(6)) : atomic(random.below(6)));
      }
      // Armed and not yet run: here.
      builder.op("runWork");
      return builder.build();
    },
  },
];

function describe(op: Op, index: number, name: (index: number) => string): string {
  const [kind, a, b, c] = op;
  const it = typeof a === "object" && a !== null ? name(a.ref) : String(a);
  const result = name(index) === "" ? "" : `${name(index)}=`;
  const irq = (isIrq: unknown): string => (isIrq === true ? "irq:" : "");
  const delta = Number(c ?? 0) === 0 ? "" : `+${c}`;
  const texts: Readonly<Record<string, () => string>> = {
    may: () => `mayBlock(${maskName(Number(a))})`,
    leaves: () => `keeps(${maskName(Number(a))})`,
    page: () => `${irq(b)}${result}allocPage(${maskName(Number(a))})`,
    back: () => `givePage(${it})`,
    pool: () => `createPool(${a})`,
    take: () => `${irq(b)}${result}poolAlloc(${maskName(Number(a))})`,
    put: () => `${irq(b)}poolFree(${it}${delta})`,
    end: () => "destroyPool()",
    defer: () => `${irq(b)}deferFree(${a})`,
    runWork: () => "runDeferred()",
    interrupt: () => {
      const what = typeof c === "object" && c !== null ? name(c.ref) : String(c);
      return `[interrupt at call ${a} of the next: ${b === "free" ? "poolFree" : "deferFree"}(${what})]`;
    },
  };
  return texts[kind]?.() ?? kind;
}

export const lab: LabCode = {
  checks: [...VISIBLE, ...HIDDEN],
  judge,
  hasName,
  describe,
  describeConfig(config: Json) {
    const { pages, min, low, reclaim } = config as unknown as GfpConfig;
    return `${pages} pages free, min ${min}, low ${low}, reclaim frees ${reclaim.join(", ") || "nothing"}`;
  },
  picture,
  question,
};
