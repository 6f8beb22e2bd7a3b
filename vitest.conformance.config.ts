/**
 * `npm run conformance`: the suites of test/conformance/suites.ts at full length, with a table at the end.
 *
 * All of them run in `npm test`, too, those over a workload for fewer steps.
 */
import { defineConfig } from "vitest/config";
import { SUITES } from "./test/conformance/suites.ts";
import { ConformanceReporter } from "./test/support/conformance_reporter.ts";

export default defineConfig({
  test: {
    include: [...new Set(SUITES.flatMap(({ file }) => file ?? []))],
    env: { SLABTOWN_CONFORMANCE: "full" },
    reporters: [new ConformanceReporter()],
    setupFiles: ["test/support/seed.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 300_000,
    hookTimeout: 60_000,
    passWithNoTests: false,
    typecheck: { enabled: false },
  },
});
