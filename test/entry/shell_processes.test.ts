/**
 * Shell commands about processes: ulimit, forkbomb, pmap.
 *
 * Goal: PRC-8 from the shell, output in the form of bash and procps, nothing left. Method: the shell on a booted kernel
 * with init.
 */

import { describe, expect, it } from "vitest";
import { builtinPrograms } from "../../userland/index.ts";
import { bootKernel } from "../support/boot_kernel.ts";

/** What `sh -c text` prints. */
function sh(text: string, ramBytes = 32 * 2 ** 20): string {
  const t = bootKernel(Object.fromEntries(builtinPrograms()), { ramBytes });
  t.run("/bin/sh", "-c", text);
  expect(t.kernel.nrReports()).toBe(0);
  t.expectNoLeak();
  return t.output();
}

describe("ulimit", () => {
  it("shows and sets the limits of the shell, and its children have them", () => {
    expect(sh("ulimit -s; ulimit -Ss 1024; ulimit -s; ulimit -Hs; sh -c 'ulimit -s'")).toBe(
      "8192\n1024\nunlimited\n1024\n",
    );
    expect(sh("ulimit -v 5000; grep 'address space' /proc/1/limits")).toMatch(/^Max address space +5120000 +5120000 /);
  });

  it("lists all of them, and refuses nonsense", () => {
    expect(sh("ulimit -a").split("\n").length).toBe(11);
    expect(sh("ulimit -q || echo no")).toMatch(/^sh: usage: ulimit .*\nno\n$/);
    expect(sh("ulimit -a 5 || echo no")).toContain("no\n");
    expect(sh("ulimit -u x || echo no")).toContain("no\n");
    expect(sh("ulimit -u 5; ulimit -Su 6 || echo no")).toBe("sh: ulimit: max user processes: Invalid argument\nno\n");
  });
});

describe("forkbomb", () => {
  it("ends at the limit of processes, and the shell goes on", () => {
    const text = sh("ulimit -u 20; forkbomb; ulimit -u 50; forkbomb; echo alive");
    expect(text).toBe(
      "forkbomb: 19 processes, then: Resource temporarily unavailable\n" +
        "forkbomb: 49 processes, then: Resource temporarily unavailable\nalive\n",
    );
  });

  it("ends for want of memory, too, and gives all of it back", () => {
    const output = sh("ulimit -u unlimited; forkbomb; echo alive", 12 * 2 ** 20);
    // fork finds no memory, or a fault of one of them finds none first: the OOM killer ends that one.
    expect(output).toMatch(/forkbomb: \d+ processes, then: Cannot allocate memory\n|Killed process \d+ \(forkbomb\)/);
    expect(output).toContain("\nalive\n");
  });
});

describe("pmap", () => {
  it("prints the mappings and their sum, with -x what is resident", () => {
    const lines = sh("pmap 1").split("\n");
    expect(lines[0]).toBe("1:   sh");
    expect(lines.some((line) => /^00000007ff[0-9a-f]{6} +\d+K rw--- {3}\[ stack \]$/.test(line))).toBe(true);
    const sum = lines.slice(1, -2).reduce((total, line) => total + Number(/(\d+)K/.exec(line)?.[1]), 0);
    expect(Number(/total +(\d+)K/.exec(lines.join("\n"))?.[1])).toBe(sum);
    expect(sh("pmap -x 1")).toMatch(/\ntotal kB +\d+ +\d+ +\d+\n$/);
    expect(sh("pmap 999 || echo none")).toBe("pmap: 999: no such process\nnone\n");
  });
});
