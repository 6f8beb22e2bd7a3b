/** `npm run matrix`: the same results on Node 20, 22, 24 and 26. Half an hour; needs the network. */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/matrix/**/*.matrix.ts"],
    pool: "forks",
    testTimeout: 1_200_000,
    hookTimeout: 60_000,
  },
});
