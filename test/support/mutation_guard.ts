/**
 * For mutation runs only: a mutant that loops for ever fails at once, and a failing property is not shrunk.
 *
 * Without it a mutant that makes a list a ring costs its whole timeout and a new worker, and mutants of mm/ do little
 * else. What is counted is loads from RAM, which every such loop makes: far more than any test of test/mm needs.
 */
import fc from "fast-check";
import { beforeEach } from "vitest";
import { RawPort } from "../../kernel/arch/port.ts";

const { MUTATE_LOADS = "40000000" } = process.env;
const MOST_LOADS = Number(MUTATE_LOADS);

fc.configureGlobal({ ...fc.readConfigureGlobal(), endOnFailure: true });

// This file is run once for each test file, but in one process: the count belongs to the class that is patched once.
const port = RawPort.prototype as unknown as Record<string | symbol, (this: RawPort, ...args: number[]) => number>;
const COUNT = Symbol.for("slabtown.loads");
const count = (port[COUNT] ?? { nrLoads: 0 }) as unknown as { nrLoads: number };
if (!(COUNT in port)) {
  Object.defineProperty(port, COUNT, { value: count });
  for (const name of ["ld8", "ld32", "ldAtomic", "cas"]) {
    const original = port[name] as (this: RawPort, ...args: number[]) => number;
    port[name] = function (this: RawPort, ...args: number[]): number {
      if (++count.nrLoads > MOST_LOADS) throw new Error("mutation_guard: this test loads for ever");
      return original.apply(this, args);
    };
  }
}
beforeEach(() => {
  count.nrLoads = 0;
});
