/**
 * Goal: the reports have the layout of procps.
 * Method: a few lines of /proc as Linux prints them, against what procps-ng 4 made of the same lines.
 */
import { describe, expect, it } from "vitest";
import { freeReport, slabtopReport, twoDecimals, vmstatSlabReport } from "../../userland/programs/memory_reports.ts";
import { parsePidStat } from "../../userland/programs/proc_text.ts";
import { psReport } from "../../userland/programs/process_reports.ts";

const MEMINFO = `MemTotal:          89268 kB
MemFree:           70880 kB
MemAvailable:      69252 kB
Buffers:               0 kB
Cached:             1940 kB
Shmem:              1940 kB
SReclaimable:        632 kB
SwapTotal:             0 kB
SwapFree:              0 kB
`;

const SLABINFO = `slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables ...
RAWv6                 13     13   1216   13    4 : tunables    0    0    0 : slabdata      1      1      0
fib6_node              0      0    128   32    1 : tunables    0    0    0 : slabdata      0      0      0
`;

describe("reports", () => {
  it("free", () => {
    expect(freeReport(MEMINFO, 1024)).toBe(
      "               total        used        free      shared  buff/cache   available\n" +
        "Mem:           89268       20016       70880        1940        2572       69252\n" +
        "Swap:              0           0           0\n",
    );
  });

  it("slabtop", () => {
    expect(slabtopReport(SLABINFO, "c").split("\n")).toEqual([
      " Active / Total Objects (% used)    : 13 / 13 (100.0%)",
      " Active / Total Slabs (% used)      : 1 / 1 (100.0%)",
      " Active / Total Caches (% used)     : 1 / 2 (50.0%)",
      " Active / Total Size (% used)       : 15.44K / 15.44K (100.0%)",
      " Minimum / Average / Maximum Object : 0.12K / 1.19K / 1.19K",
      "",
      "  OBJS ACTIVE  USE OBJ SIZE  SLABS OBJ/SLAB CACHE SIZE NAME                   ",
      "    13     13 100%    1.19K      1       13        16K RAWv6                  ",
      "     0      0   0%    0.12K      0       32         0K fib6_node              ",
      "",
    ]);
  });

  it("vmstat -m", () => {
    expect(vmstatSlabReport(SLABINFO)).toContain("RAWv6                        13     13   1216     13\n");
  });

  it("ps takes a name with blanks and parentheses", () => {
    const task = parsePidStat("42 (a (b) c) S 1 42 42 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 7 3850240 405 0\n");
    expect(task).toMatchObject({ pid: 42, comm: "a (b) c", state: "S", ppid: 1, ticks: 200, rssPages: 405 });
    expect(psReport(task === null ? [] : [task])).toBe(
      "  PID  PPID S    VSZ   RSS     TIME COMMAND\n   42     1 S   3760  1620 00:00:02 a (b) c\n",
    );
  });

  it.each([
    [0.125, "0.12"],
    [0.375, "0.38"],
    [1.1875, "1.19"],
    [0, "0.00"],
    [112713.5, "112713.50"],
  ])("%d with two decimals", (value, text) => {
    expect(twoDecimals(value)).toBe(text);
  });
});
