/**
 * Goal: programs that hand the kernel nonsense, share, grow, map, fork and run out of memory get what Unix promises, and
 * afterwards as many pages are free as before.
 * Method: the cases of `usertests` (xv6's usertests and Pintos' tests/vm, names kept), each run by the program itself on
 * one booted kernel with the checking port. The other xv6 cases of this folder run the same ideas without fork.
 */

import { describe, expect, it } from "vitest";
import { builtinPrograms } from "../../userland/index.ts";
import { USER_TESTS } from "../../userland/usertests/usertests.ts";
import { bootKernel, type TestKernel } from "../support/boot_kernel.ts";

let machine: TestKernel | undefined;
const theMachine = (): TestKernel => {
  machine ??= bootKernel(Object.fromEntries(builtinPrograms()), { ramBytes: 64 * 2 ** 20 });
  return machine;
};

/** Runs one case on the common machine. */
function run(name: string): void {
  const t = theMachine();
  const before = t.output().length;
  const status = t.run("/bin/usertests", name);
  expect([status, t.output().slice(before)]).toEqual([0, expect.stringContaining(`test ${name}: OK\n`)]);
  expect(t.kernel.nrReports()).toBe(0);
  t.expectNoLeak();
}

const namesOf = (origin: string): string[] =>
  USER_TESTS.filter((test) => test.origin === origin).map(({ name }) => name);

describe("xv6", () => {
  it.each(namesOf("xv6"))("%s", run);
});

describe("Pintos", () => {
  it.each(namesOf("Pintos"))("%s", run);
});

describe("the program itself", () => {
  it("lists its cases, leaves out slow ones, refuses unknown names", () => {
    const t = theMachine();
    const said = (...args: string[]): string => {
      const before = t.output().length;
      t.run("/bin/usertests", ...args);
      return t.output().slice(before);
    };
    expect(said("-l").trimEnd().split("\n").length).toBe(USER_TESTS.length);
    expect(said("-l", "-q").split("\n").length).toBeLessThan(USER_TESTS.length);
    expect(said("nonsense")).toContain("nonsense: no such test");
    expect(namesOf("Pintos").length).toBe(34);
  });
});
