/**
 * The last line of a test run: `N passed, N failed, N skipped`.
 *
 * Scripts and graders read that one line, so it is plain text, counts tests (not files), and comes after everything
 * else: it is written while the process exits, when no other reporter can print any more. A test file that could not
 * be loaded, and an error outside of any test, count as one failure each, so that a run never fails with "0 failed".
 * A run in which no test ran is a failure: a runner that silently collects nothing must not look green.
 */
import type { Reporter, TestModule, Vitest } from "vitest/node";

export interface TestCounts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** The line itself, without its newline. */
export function summaryLine(counts: TestCounts): string {
  return `${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`;
}

/** Counts the tests of all modules; load errors and unhandled errors are failures, unfinished tests are skipped. */
export function countTests(modules: readonly TestModule[], nrUnhandledErrors: number): TestCounts {
  let passed = 0;
  let failed = nrUnhandledErrors;
  let skipped = 0;
  for (const module of modules) {
    const nrBefore = failed;
    for (const test of module.children.allTests()) {
      const { state } = test.result();
      if (state === "passed") passed++;
      else if (state === "failed") failed++;
      else skipped++;
    }
    // A file may fail with none of its tests failing: it did not load, or a hook of its own threw.
    if (failed === nrBefore && !module.ok()) failed++;
  }
  return { passed, failed, skipped };
}

/** Prints the summary line as the very last output of `vitest run`. */
export class SummaryReporter implements Reporter {
  private isWatching = false;
  private counts: TestCounts | undefined;

  onInit(vitest: Vitest): void {
    this.isWatching = vitest.config.watch;
    process.once("exit", () => this.print());
  }

  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly unknown[]): void {
    this.counts = countTests(modules, unhandledErrors.length);
    if (this.isWatching) this.print();
    else if (this.counts.passed + this.counts.failed === 0) process.exitCode = 1;
  }

  private print(): void {
    if (this.counts !== undefined) process.stdout.write(`${summaryLine(this.counts)}\n`);
    this.counts = undefined;
  }
}
