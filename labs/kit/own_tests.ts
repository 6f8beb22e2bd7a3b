/**
 * The students' own tests, run against an implementation that may be right or wrong.
 *
 * Loaded into the child's realm like a driver. The student's file exports `tests`: functions by name, each of which
 * gets a `Bench` with the lab's operations and two ways to complain. An operation `["run"]` runs them all on fresh
 * instances and returns the names of those that complained.
 */

import type { CreateInstance, Instance, StudentModule } from "./driver.ts";

export interface Bench {
  /** A fresh instance of the allocator under test. */
  create(config: never): Instance;
  /** Complains unless `condition` is true. */
  check(condition: boolean, message?: string): void;
  equal(actual: unknown, expected: unknown, message?: string): void;
}

/** Makes the operations that run `tests` over `student`, whose instances `create` builds. */
export function createOwnTests(create: CreateInstance, student: StudentModule, tests: StudentModule): Instance {
  const bench: Bench = {
    create: (config) => create(student, config),
    check(condition, message) {
      if (condition !== true) throw new Error(message ?? "a check does not hold");
    },
    equal(actual, expected, message) {
      if (actual !== expected) throw new Error(message ?? `${String(actual)} is not ${String(expected)}`);
    },
  };
  const table = tests.tests;
  const names = typeof table === "object" && table !== null ? Object.keys(table).sort() : [];
  return {
    /** Number of tests. */
    count: () => names.length,
    /** True if test `index` complained about this implementation. */
    complains(index: number): boolean {
      const test = (table as Record<string, unknown>)[names[index] as string];
      if (typeof test !== "function") throw new Error(`the test ${names[index]} is no function`);
      try {
        test(bench);
        return false;
      } catch {
        return true;
      }
    },
    name: (index: number) => names[index] ?? "",
  };
}
