/**
 * Compaction in a whole kernel: what a person at the prompt sees and sets.
 *
 * Goal: the files under /proc/sys/vm, HTLB-1, HTLB-2, kcompactd as a thread, `compaction=off`. Method: `fragment` in the
 * shell, commands against its pieces; every invariant walk and leak check at the end.
 */

import { describe, expect, it } from "vitest";
import { builtinPrograms } from "../../userland/index.ts";
import { bootKernel } from "../support/boot_kernel.ts";

const STORM = "fragment 54M --hold 3000000000 > /tmp/out & sleep 0.3; ";

/** What `sh -c script` prints on a machine of 64 MiB; nothing may be left afterwards. */
function session(script: string, cmdline = ""): string {
  const programs = Object.fromEntries(builtinPrograms());
  const t = bootKernel(programs, { cmdline: `quiet ${cmdline}`, ramBytes: 64 * 2 ** 20 });
  t.run("/bin/sh", "-c", `${script}; wait`);
  t.kernel.removeFiles();
  t.expectNoLeak();
  expect(t.kernel.nrReports()).toBe(0);
  return t.output();
}

const number = (text: string, name: string): number => Number(new RegExp(`^${name}:? +(\\d+)`, "m").exec(text)?.[1]);

describe("a fragmented machine", () => {
  it("HTLB-1, HTLB-2 gets huge pages with compaction, few without, and gives them back", () => {
    const counts = "cat /proc/meminfo /proc/vmstat";
    // What is taken cannot be promised any more: nothing else starts until the pieces are gone.
    const ask = `${STORM} sysctl vm.nr_hugepages=16; wait; ${counts}; sysctl vm.nr_hugepages=0; cat /tmp/out`;
    const on = session(ask);
    expect(on).toContain("vm.nr_hugepages = 16");
    expect(number(on, "HugePages_Total")).toBe(16);
    expect(number(on, "Hugetlb")).toBe(16 * 2048);
    expect(number(on, "compact_success")).toBeGreaterThan(5);
    expect(on).toContain("vm.nr_hugepages = 0");
    expect(on).toMatch(/fragment: \d+ of \d+ pages kept/);
    expect(on).not.toMatch(/wrong/);
    const off = session(ask, "compaction=off");
    expect(number(off, "HugePages_Total")).toBeLessThan(8);
    expect(number(off, "compact_stall")).toBe(0);
  });

  it("is put in order by compact_memory", () => {
    const index = "cat /sys/kernel/debug/extfrag/unusable_index";
    const quietly = "sysctl vm.compaction_proactiveness=0";
    const text = session(`${quietly}; ${STORM} ${index}; sysctl vm.compact_memory=1; echo --; ${index}`);
    const unusable = (part: string): number => Number(/zone +DMA32 .*?(\d\.\d+) \d\.\d+ *$/m.exec(part)?.[1]);
    const [before = "", after = ""] = text.split("--\n");
    expect(unusable(before)).toBeGreaterThan(0.5);
    expect(unusable(after)).toBeLessThan(0.5);
  });

  it("is kept in order by kcompactd, before anybody asks", () => {
    const text = session(
      `sysctl vm.compaction_proactiveness=100; ${STORM} sleep 1; stress --ops 9000; ps; cat /proc/vmstat`,
    );
    expect(text).toContain("kcompactd0");
    expect(number(text, "compact_daemon_migrate_scanned")).toBeGreaterThan(0);
    expect(number(text, "pgmigrate_success")).toBeGreaterThan(0);
  });
});

describe("the files", () => {
  it("take whole numbers in their range only", () => {
    const bad = ["compact_memory=2", "compact_memory=x", "extfrag_threshold=1001", "compaction_proactiveness=101"];
    const text = session([...bad, "nr_hugepages=-1", "nr_hugepages=5000"].map((s) => `sysctl vm.${s}`).join("; "));
    expect(text.match(/Invalid argument/g)).toHaveLength(6);
    expect(session("sysctl vm.extfrag_threshold=700 vm.compaction_proactiveness=0")).toBe(
      "vm.extfrag_threshold = 700\nvm.compaction_proactiveness = 0\n",
    );
    const off = session("ls /proc/sys/vm", "compaction=off");
    expect(off).not.toContain("compact_memory");
    expect(off).toContain("nr_hugepages");
  });
});
