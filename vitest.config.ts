/**
 * The test runner's settings.
 *
 * Forked processes, not threads: a test machine's RAM goes back to the system when its file is done, and a test may
 * set `process.exitCode`. Two workers at most: machines with two cores are the ones a course has.
 */
import { defineConfig } from "vitest/config";
import { SummaryReporter } from "./test/support/reporter.ts";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    reporters: ["default", new SummaryReporter()],
    setupFiles: ["test/support/seed.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    passWithNoTests: false,
    typecheck: { enabled: false },
  },
});
