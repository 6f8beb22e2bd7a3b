/**
 * ftrace reader: lines of every dialect, contexts, and the matching of frees to allocations.
 *
 * Method: hand-written traces, rows compared as text; the address map against `Map`; random streams of events and
 * random byte flips, which may end in an InputError or a sound recording and in nothing else.
 */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { KernelRecording } from "../../kernel/uapi/recording.ts";
import { parseGfpNames } from "../../mm/index.ts";
import { AddressMap } from "../../scripts/readers/address_map.ts";
import { checkKernelRecording } from "../../scripts/readers/check.ts";
import { readFtrace } from "../../scripts/readers/ftrace.ts";
import { cpuMsOf, HANG_MS } from "../support/cpu_time.ts";
import { expectSoundOrRefused, inputErrorOf, textFile } from "./fixtures.ts";

const STRICT = { lenient: false };

/** Events of one task on CPU 0; `body` is what stands behind the time. */
function line(body: string, flags = ".....", cpu = 0): string {
  return `             gcc-27214   [${String(cpu).padStart(3, "0")}] ${flags}  4096.679903: ${body}`;
}

const TAIL = "node=-1 accounted=false";
const kmalloc = (ptr: string, size = 100) =>
  line(`kmalloc: call_site=f+0x1/0x2 ptr=${ptr} bytes_req=${size} bytes_alloc=128 gfp_flags=GFP_KERNEL ${TAIL}`);
const kfree = (ptr: string) => line(`kfree: call_site=f+0x1/0x2 ptr=${ptr}`);
const cacheAlloc = (ptr: string, name = "filp", size = 184) =>
  line(
    `kmem_cache_alloc: call_site=f+0x1/0x2 ptr=${ptr} name=${name} ` +
      `bytes_req=${size} bytes_alloc=192 gfp_flags=GFP_ATOMIC ${TAIL}`,
  );
const cacheFree = (ptr: string, name = "filp") => line(`kmem_cache_free: call_site=f+0x1/0x2 ptr=${ptr} name=${name}`);
const pageAlloc = (pfn: string, order = 0) =>
  line(
    `mm_page_alloc: page=ffffea000ebf4d80 pfn=${pfn} order=${order} migratetype=1 ` +
      "gfp_flags=GFP_HIGHUSER_MOVABLE|__GFP_ZERO|__GFP_COMP",
  );
const pageFree = (pfn: string, order = 0) => line(`mm_page_free: page=ffffea000ebf4d80 pfn=${pfn} order=${order}`);

const A = "ffff888107358978";
const B = "ffff888107358980";

function read(...lines: string[]): KernelRecording {
  const recording = readFtrace(textFile(`${lines.join("\n")}\n`), STRICT);
  checkKernelRecording(recording);
  return recording;
}

/** `event slot order cache` of each row. */
function rows(recording: KernelRecording): string[] {
  const { slot, order, cache } = recording;
  return Array.from(recording.event, (event, i) => [event, slot[i], order[i], cache[i]].join(" "));
}

describe("columns", () => {
  test("an event of every kind, with its fields", () => {
    const recording = read(
      "# tracer: nop",
      "#",
      pageAlloc("0x3afd36", 2),
      kmalloc(A),
      cacheAlloc(B),
      cacheFree(B),
      kfree(A),
      pageFree("0x3afd36", 2),
    );
    expect(rows(recording)).toEqual(["0 0 2 0", "2 1 0 0", "4 2 0 0", "5 2 0 0", "3 1 0 0", "1 0 2 0"]);
    expect([...recording.sizeBytes]).toEqual([0, 100, 184, 0, 0, 0]);
    expect([...recording.allocBytes]).toEqual([0, 128, 192, 0, 0, 0]);
    expect([...recording.migratetype]).toEqual([1, 0, 0, 0, 0, 0]);
    expect([...recording.gfp]).toEqual([
      parseGfpNames("GFP_HIGHUSER_MOVABLE|__GFP_ZERO|__GFP_COMP"),
      parseGfpNames("GFP_KERNEL"),
      parseGfpNames("GFP_ATOMIC"),
      0,
      0,
      0,
    ]);
    expect([...recording.pid]).toEqual([27214, 27214, 27214, 27214, 27214, 27214]);
    expect(recording).toMatchObject({ kind: "kernel", name: "t", nrEvents: 6, nrSlots: 3, nrCpus: 1, warnings: [] });
    expect(recording.caches).toEqual([{ name: "filp", objectSizeBytes: 184, slotSizeBytes: 192 }]);
  });

  test.each([
    [".....", 0, 0],
    ["d....", 0, 1],
    ["D....", 0, 1],
    ["b....", 0, 0],
    ["bNs1.", 1, 0],
    ["..s1.", 1, 0],
    ["d.h1.", 2, 1],
    ["d.H2.", 2, 1],
    ["d.Z..", 2, 1],
    ["d.z..", 2, 1],
    ["d.s3", 1, 1],
    ["....", 0, 0],
  ])("flags %s are context %i, interrupts off %i", (flags, context, irqsOff) => {
    const recording = read(line(`mm_page_free: page=ffffea000ebf4d80 pfn=0x10 order=0`, flags, 3));
    expect([recording.context[0], recording.irqsOff[0], recording.cpu[0]]).toEqual([context, irqsOff, 3]);
    expect(recording.nrCpus).toBe(4);
  });

  test("slots are reused after their free, so that nrSlots is the peak", () => {
    const churn = Array.from({ length: 50 }, () => [kmalloc(A), kfree(A)]).flat();
    const recording = read(kmalloc(B), ...churn, kfree(B));
    expect(recording.nrSlots).toBe(2);
    expect(recording.nrEvents).toBe(102);
  });
});

describe("dialects", () => {
  const body = `kmalloc: call_site=f ptr=${A} bytes_req=8 bytes_alloc=8 gfp_flags=GFP_KERNEL`;
  test.each([
    ["trace", `            bash-27894   [001] .....  4121.898513: ${body}`, 27894],
    ["trace with the TGID column", `            bash-27894   (  27894) [001] .....  4121.898513: ${body}`, 27894],
    ["trace with an unknown TGID", `          <idle>-0       (-------) [001] d.s1.  4121.898513: ${body}`, 0],
    ["Linux 5.4, four flags", `            bash-27894 [001] ....  4121.898513: ${body}`, 27894],
    ["trace-cmd report", `            bash-27894 [001]  4121.898513: kmalloc:              ${body.slice(9)}`, 27894],
    [
      "trace-cmd report with flags",
      `            bash-27894 [001] ..... 4121.898513: kmalloc:  (f+0x1) ${body.slice(9)}`,
      27894,
    ],
    ["perf script", `bash 27894 [001]  4121.898513: kmem:${body}`, 27894],
    ["a task of many words", `   Web Content [2]-1-77   [001] .....  4121.898513: ${body}`, 77],
    ["a pointer with 0x", `  kworker/0:1-12   [001] .....  4121.898513: ${body.replace(A, `0x${A}`)}`, 12],
  ])("%s", (_what, text, pid) => {
    const recording = read(text);
    expect([...recording.event]).toEqual([2]);
    expect([recording.pid[0], recording.cpu[0], recording.sizeBytes[0]]).toEqual([pid, 1, 8]);
  });

  test("events before Linux 6.1: no name=, decimal pfn, _node", () => {
    const recording = read(
      line(`kmem_cache_alloc_node: call_site=f ptr=${A} bytes_req=60 bytes_alloc=64 gfp_flags=GFP_KERNEL node=0`),
      line(`kmem_cache_free: call_site=f ptr=${A}`),
      line(`kmalloc_node: call_site=f ptr=${B} bytes_req=60 bytes_alloc=64 gfp_flags=GFP_KERNEL node=0`),
      line("mm_page_alloc: page=00000000dead pfn=3862838 order=0 migratetype=0 gfp_flags=GFP_KERNEL"),
      line("mm_page_free: page=00000000dead pfn=3862838 order=0"),
    );
    expect(rows(recording)).toEqual(["4 0 0 0", "5 0 0 0", "2 0 0 0", "0 1 0 0", "1 1 0 0"]);
    expect(recording.caches).toEqual([{ name: "size-64", objectSizeBytes: 60, slotSizeBytes: 64 }]);
  });

  test("unknown events and flags are counted, known ones passed over, lost ones reported", () => {
    const recording = read(
      "cpus=2",
      "CPU:1 [LOST 25 EVENTS]",
      "##### CPU 1 buffer started ####",
      line("mm_page_free_batched: page=ffffea000ebf4d80 pfn=0x3afd36 order=0"),
      line("rss_stat: mm_id=1 curr=1 type=MM_ANONPAGES size=4096B"),
      line("sched_switch: prev_comm=a prev_pid=1 ==> next_comm=b"),
      kmalloc(A).replace("GFP_KERNEL", "GFP_KERNEL|__GFP_FUTURE"),
      kmalloc(B).replace("GFP_KERNEL", "none"),
    );
    expect([...recording.gfp]).toEqual([parseGfpNames("GFP_KERNEL"), 0]);
    expect(recording.warnings).toEqual([
      "25 events were lost while recording",
      "unknown GFP flags ignored: __GFP_FUTURE",
      "1 events of other kinds passed over: sched_switch",
    ]);
  });
});

describe("matching", () => {
  test("an allocation at a live address implies a free, of the old owner's kind", () => {
    const recording = read(cacheAlloc(A), kmalloc(A), kmalloc(A), pageAlloc("0x10", 1), pageAlloc("0x10"));
    expect(rows(recording)).toEqual([
      "4 0 0 0",
      "5 0 0 0",
      "2 0 0 0",
      "3 0 0 0",
      "2 0 0 0",
      "0 1 1 0",
      "1 1 1 0",
      "0 1 0 0",
    ]);
    expect(recording.nrImpliedFrees).toBe(3);
  });

  test("pages and objects have addresses of their own", () => {
    expect(read(pageAlloc("0x10"), kmalloc("0000000000000020"), pageFree("0x20")).nrImpliedFrees).toBe(0);
  });

  test("a free fits how its object was allocated", () => {
    const recording = read(
      cacheAlloc(A),
      kfree(A),
      cacheAlloc(A, "dentry"),
      cacheFree(A, "filp"),
      kmalloc(A),
      cacheFree(A),
    );
    expect(rows(recording)).toEqual(["4 0 0 0", "5 0 0 0", "4 0 0 1", "5 0 0 1", "2 0 0 0", "3 0 0 0"]);
  });

  test("frees of older pages and of older objects of known size get a prelude", () => {
    const recording = read(kmalloc(B), cacheFree(A), pageFree("0x99", 3), kfree(B), cacheAlloc(A));
    expect(rows(recording)).toEqual(["2 2 0 0", "5 0 0 0", "1 1 3 0", "3 2 0 0", "4 2 0 0"]);
    expect([...recording.preludeEvent]).toEqual([4, 0]);
    expect([...recording.preludeSlot]).toEqual([0, 1]);
    expect([...recording.preludeOrder]).toEqual([0, 3]);
    expect(recording.nrSlots).toBe(3);
  });

  test("other frees of older objects are dropped and counted", () => {
    const recording = read(
      kfree(A),
      cacheFree(B, "seen_only_in_frees"),
      kmalloc(A),
      cacheFree(B, "seen_only_in_frees"),
    );
    expect(rows(recording)).toEqual(["2 0 0 0"]);
    expect(recording.nrUnknownFrees).toBe(3);
    expect(recording.caches).toEqual([{ name: "seen_only_in_frees", objectSizeBytes: 0, slotSizeBytes: 0 }]);
  });

  test("kfree of nothing is nothing, and failed allocations are counted", () => {
    const zero = "0000000000000000";
    const recording = read(
      kmalloc(A),
      kfree(zero),
      kfree("0000000000000010"),
      kfree("(nil)"),
      kmalloc(zero),
      cacheAlloc("(null)"),
      line(`mm_page_alloc: page=${zero} pfn=0x0 order=9 migratetype=1 gfp_flags=GFP_KERNEL`),
    );
    expect(recording.nrEvents).toBe(1);
    expect(recording.nrUnknownFrees).toBe(0);
    expect(recording.warnings).toEqual(["3 failed allocations dropped"]);
  });

  test("pointers that differ in one low or one high bit are different; a memory tag is not part of one", () => {
    const pointers = ["ffff888107358978", "ffff888107358979", "ffff898107358978", "fff7888107358978"];
    expect(read(...pointers.map((ptr) => kmalloc(ptr))).nrSlots).toBe(4);
    expect(rows(read(kmalloc("f4ff888107358978"), kfree("f9ff888107358978")))).toEqual(["2 0 0 0", "3 0 0 0"]);
  });

  test("a page freed at another order is freed whole, with a warning", () => {
    const recording = read(pageAlloc("0x10", 2), pageFree("0x10", 0));
    expect(rows(recording)).toEqual(["0 0 2 0", "1 0 2 0"]);
    expect(recording.warnings).toEqual(["1 pages freed at another order than allocated: freed whole"]);
  });
});

describe("refusals", () => {
  const filler = Array.from({ length: 20 }, () => kmalloc(A));
  test.each([
    ["nonsense", '"nonsense" is no trace line'],
    [kmalloc("xyz"), "kmalloc: no readable ptr="],
    [kmalloc("0xffff8881073589780"), "kmalloc: no readable ptr="],
    [kmalloc(A).replace("bytes_req=100", "bytes_req=-1"), "kmalloc: no readable bytes_req= and bytes_alloc="],
    [kmalloc(A).replace("bytes_req=100", "bytes_req=4294967296"), "kmalloc: no readable bytes_req= and bytes_alloc="],
    [kmalloc(A).replace("gfp_flags", "flags"), "kmalloc: no gfp_flags="],
    [cacheAlloc(A, "x", 0), "kmem_cache_alloc: an object of 0 bytes"],
    [pageAlloc("0x10", 32), "mm_page_alloc: no order= from 0 to 31"],
    [pageAlloc("-5"), "mm_page_alloc: no readable pfn="],
    [pageFree("0x10").replace("order=0", ""), "mm_page_free: no order= from 0 to 31"],
    [pageAlloc("0x10").replace("migratetype=1", "migratetype=99"), "mm_page_alloc: no readable migratetype="],
    [kmalloc(A).replace("27214", "99999999999"), expect.stringContaining("is no trace line")],
    [kmalloc(A).replace("4096.679903", "noon"), expect.stringContaining("is no trace line")],
  ])("%s is a bad line", (bad, what) => {
    const file = textFile([...filler, bad, ...filler].join("\n"), "k.ftrace");
    expect(inputErrorOf(() => readFtrace(file, STRICT))).toMatchObject({ file: "k.ftrace", line: 21, message: what });
    const recording = readFtrace(file, { lenient: true });
    checkKernelRecording(recording);
    expect(recording.warnings).toContain(`line 21: ${typeof what === "string" ? what : quotedStart(bad)}: dropped`);
  });

  test("a trace without kmem events, or with nothing but frees of older objects", () => {
    inputErrorOf(() => readFtrace(textFile("# tracer: nop\n#\n"), STRICT));
    inputErrorOf(() => readFtrace(textFile(`${kfree("0000000000000000")}\n`), STRICT));
    inputErrorOf(() => readFtrace(textFile(`${cacheFree(A)}\n`), STRICT));
  });

  test("time that goes backwards is reported once", () => {
    const early = kmalloc(B).replace("4096.", "4095.");
    expect(read(kmalloc(A), early, kfree(A)).warnings).toEqual([
      "line 2: time goes backwards: recordings of several CPUs one after another?",
    ]);
  });

  test("CPUs beyond 255 are folded", () => {
    const recording = read(line(`kfree: call_site=f ptr=${A}`), kmalloc(A).replace("[000]", "[300]"));
    expect(recording.cpu[0]).toBe(44);
    expect(recording.warnings).toEqual(["1 events of CPUs over 255 folded"]);
  });
});

function quotedStart(text: string): string {
  return `"${text.trim().slice(0, 40)}…" is no trace line`;
}

describe("damage", () => {
  const event = fc.oneof(
    fc
      .tuple(fc.constantFrom(kmalloc, kfree, cacheAlloc, cacheFree), fc.nat(5))
      .map(([f, i]) => f(`ffff8881000000${i}0`)),
    fc.tuple(fc.nat(3), fc.nat(5)).map(([order, i]) => pageAlloc(`0x${i + 1}`, order)),
    fc.tuple(fc.nat(3), fc.nat(5)).map(([order, i]) => pageFree(`0x${i + 1}`, order)),
  );

  test("random streams are sound", () => {
    fc.assert(
      fc.property(fc.array(event, { minLength: 1, maxLength: 60 }), (lines) => {
        expectSoundOrRefused(() => readFtrace(textFile(lines.join("\n")), STRICT));
      }),
      { numRuns: 500 },
    );
  });

  test("random byte flips are refused or sound", () => {
    const sample = [
      pageAlloc("0x3afd36"),
      kmalloc(A),
      cacheAlloc(B),
      cacheFree(B),
      kfree(A),
      pageFree("0x3afd36"),
    ].join("\n");
    const flip = fc.tuple(fc.nat(sample.length - 1), fc.nat(255));
    fc.assert(
      fc.property(fc.array(flip, { minLength: 1, maxLength: 5 }), fc.boolean(), (flips, lenient) => {
        const file = textFile(sample);
        for (const [at, byte] of flips) file.bytes[at] = byte;
        expectSoundOrRefused(() => readFtrace(file, { lenient }));
      }),
      { numRuns: 2000 },
    );
  });

  test("hostile lines take linear time", () => {
    for (const unit of [" ", "[", " [1", "-1 ", "(", "a-1 [0] "]) {
      const cpuMs = cpuMsOf(() =>
        inputErrorOf(() => readFtrace(textFile(`${`${unit.repeat(65536)}x\n`.repeat(20)}`), STRICT)),
      );
      expect(cpuMs).toBeLessThan(HANG_MS);
    }
  });
});

test("MAP-1 the address map does what Map does", () => {
  const key = fc.oneof(
    fc.nat(40),
    fc.nat(40).map((i) => 0x88_8100_0000_00 + i * 64),
    fc.maxSafeNat(),
  );
  const step = fc.record({ key, value: fc.nat(1000), isDelete: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 3000, size: "max" }), (steps) => {
      const map = new AddressMap();
      const oracle = new Map<number, number>();
      for (const { key, value, isDelete } of steps) {
        if (isDelete) {
          map.delete(key);
          oracle.delete(key);
        } else {
          map.set(key, value);
          oracle.set(key, value);
        }
      }
      expect(map.size).toBe(oracle.size);
      for (const { key } of steps) expect(map.get(key)).toBe(oracle.get(key) ?? -1);
    }),
    { numRuns: 30 },
  );
});
