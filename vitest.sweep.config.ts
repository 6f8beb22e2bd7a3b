/**
 * `npm run sweep:memory`: the fault sweep over address spaces with every allocation, each once and with all later ones.
 */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/cli/memory_sweep.test.ts"],
    env: { SLABTOWN_SWEEP: "all" },
  },
});
