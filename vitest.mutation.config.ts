/**
 * `npm run mutate -- --mutate mm/FILE.ts`: the tests of mm/, run against mutants of one of its files.
 *
 * A survivor is a change of the code that no test notices; docs/mutation.md lists those that are left, each with a reason.
 */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/mm/**/*.test.ts"],
    setupFiles: ["test/support/seed.ts"],
    pool: "forks",
    testTimeout: 60_000,
    hookTimeout: 60_000,
    typecheck: { enabled: false },
  },
});
