/**
 * `npm run mutate -- --mutate mm/FILE.ts`: the tests of mm/, run against mutants of one of its files.
 *
 * MUTATE_TESTS="depot magazine" takes only the tests of test/mm with those names, which is faster. A survivor is a
 * change of the code that no test notices; docs/mutation.md lists those that are left, each with a reason.
 */
import { defineConfig } from "vitest/config";

const { MUTATE_TESTS = "**/*" } = process.env;

export default defineConfig({
  test: {
    include: MUTATE_TESTS.split(" ").map((name) => `test/mm/${name}.test.ts`),
    env: { SLABTOWN_SLOW: "1" },
    setupFiles: ["test/support/seed.ts", "test/support/mutation_guard.ts"],
    pool: "forks",
    isolate: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    typecheck: { enabled: false },
  },
});
