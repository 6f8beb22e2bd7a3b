/**
 * How many cases a test compared: what the table of `npm run conformance` adds up.
 *
 * A test over a recorded table is one test and thousands of rows. It says so by `countCases`, before it fails or not;
 * a test that says nothing counts as one case.
 */

import { expect, type TestContext } from "vitest";

declare module "vitest" {
  interface TaskMeta {
    /** Cases that this test compared, and how many of them were right. */
    cases?: { readonly right: number; readonly all: number };
  }
}

/** Notes `all` cases of which `wrong` are listed, and fails the test unless the list is empty. */
export function countCases({ task }: TestContext, all: number, wrong: readonly unknown[]): void {
  task.meta.cases = { right: all - wrong.length, all };
  expect(all).toBeGreaterThan(0);
  expect(wrong.slice(0, 10)).toEqual([]);
}
