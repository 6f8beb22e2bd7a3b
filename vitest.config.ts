/**
 * The test runner's settings.
 *
 * Forked processes, not threads: a test may set `process.exitCode`. Two workers at most: machines with two cores are the
 * ones a course has. The files of a worker share the modules that they import, which is a tenth of the time of all tests:
 * no module of ours keeps state, as everything is made by a function and kept by who asked for it. They are Node's own
 * modules, not vitest's: test/support/typescript_loader.mjs says why.
 */
import { defineConfig } from "vitest/config";
import { SummaryReporter } from "./test/support/reporter.ts";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    reporters: ["default", new SummaryReporter()],
    setupFiles: ["test/support/typescript_loader.mjs", "test/support/seed.ts"],
    sequence: { setupFiles: "list" },
    experimental: { viteModuleRunner: false, nodeLoader: false },
    pool: "forks",
    isolate: false,
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    passWithNoTests: false,
    typecheck: { enabled: false },
  },
});
