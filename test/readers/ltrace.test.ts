/**
 * ltrace and --ops readers: heaps from addresses, and heaps typed by hand.
 *
 * Method: hand-written traces in every dialect of the tool, interleaved calls of two threads, and random byte flips.
 */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { readLtrace } from "../../scripts/readers/ltrace.ts";
import { readOps } from "../../scripts/readers/ops.ts";
import { cpuMsOf, HANG_MS } from "../support/cpu_time.ts";
import { expectSoundOrRefused, heapRows, inputErrorOf, textFile } from "./fixtures.ts";

const STRICT = { lenient: false };

function read(...lines: string[]) {
  return readLtrace(textFile(`${lines.join("\n")}\n`, "p.ltrace"), STRICT);
}

describe("calls", () => {
  test("every call of the family", () => {
    const recording = read(
      "prog->malloc(24)                                 = 0x55d0c0a2a2a0",
      "prog->calloc(10, 20)                             = 0x55d0c0a2a2c0",
      "prog->realloc(0x55d0c0a2a2a0, 0x30)              = 0x55d0c0a2a300",
      "prog->realloc(0, 7)                              = 0x55d0c0a2a400",
      "prog->memalign(64, 100)                          = 0x55d0c0a2a440",
      "prog->free(0x55d0c0a2a300)                       = <void>",
      "prog->free(nil)                                  = <void>",
      "+++ exited (status 0) +++",
    );
    expect(heapRows(recording)).toEqual([
      "0 0 0 24 0",
      "1 0 1 200 0",
      "2 0 0 48 0",
      "2 0 2 7 0",
      "4 0 3 100 6",
      "3 0 0 0 0",
      "3 0 -1 0 0",
    ]);
    expect(recording).toMatchObject({ nrIds: 4, nrThreads: 1, warnings: [] });
  });

  test.each([
    "malloc(24) = 0x10",
    "libc.so.6->malloc(24) = 0x10 <0.000123>",
    "[pid 71] prog->malloc(24) = 0x10",
    "[pid 71] 12:30:01.123456 prog->malloc(24) = 0x10",
    "71 malloc(24) = 0x10",
    "71 0.000123 malloc(24) = 0x10",
    "12:30:01 malloc(24) = 0x10",
    "1700000000.123456 malloc(24) = 0x10",
    "  0.000123 prog->malloc(24)      = 0x10",
    "malloc(24, 0x7ffd, 0, 3) = 0x10",
    "malloc(0x18) = 0x00010",
  ])("%s", (line) => {
    expect(heapRows(read(line, "free(0x10) = <void>")).map((row) => row.slice(2).replace(/^\d+ /, ""))).toEqual([
      "0 24 0",
      "0 0 0",
    ]);
  });

  test("lines of other things are passed over", () => {
    const others = [
      "malloc(8) = 0x10",
      'prog->strlen("malloc(3) = 0x20") = 16',
      "brk@SYS(nil) = 0x55d0",
      "--- SIGCHLD (Child exited) ---",
      "[pid 72] --- Called exec() ---",
      "[pid 72] <... wait resumed> ) = 71",
      "",
    ];
    expect(heapRows(read(...others))).toHaveLength(1);
  });
});

describe("threads and addresses", () => {
  test("an interrupted call exists from its return, an interrupted free from its call", () => {
    const recording = read(
      "[pid 71] prog->malloc(100 <unfinished ...>",
      "[pid 72] prog->malloc(8) = 0x20",
      "[pid 71] <... malloc resumed> ) = 0x10",
      "[pid 72] prog->free(0x10 <unfinished ...>",
      "[pid 71] prog->malloc(50) = 0x10",
      "[pid 72] <... free resumed> ) = <void>",
    );
    expect(heapRows(recording)).toEqual(["0 1 0 8 0", "0 0 1 100 0", "3 1 1 0 0", "0 0 2 50 0"]);
    expect(recording).toMatchObject({ nrThreads: 2, warnings: [] });
  });

  test("a realloc lets go of its address when called, and takes it back if it fails", () => {
    const moved = read(
      "[pid 1] malloc(8) = 0x10",
      "[pid 1] realloc(0x10, 80 <unfinished ...>",
      "[pid 2] malloc(9) = 0x10",
      "[pid 1] <... realloc resumed> ) = 0x50",
      "[pid 1] free(0x50) = <void>",
      "[pid 2] free(0x10) = <void>",
    );
    expect(heapRows(moved)).toEqual(["0 0 0 8 0", "0 1 1 9 0", "2 0 0 80 0", "3 0 0 0 0", "3 1 1 0 0"]);
    const failed = read("malloc(8) = 0x10", "realloc(0x10, 99999999999999) = nil", "free(0x10) = <void>");
    expect(heapRows(failed)).toEqual(["0 0 0 8 0", "3 0 0 0 0"]);
    expect(failed.warnings).toEqual(["1 failed allocations dropped"]);
  });

  test("realloc to 0 bytes answered with nil is a free", () => {
    expect(heapRows(read("malloc(8) = 0x10", "realloc(0x10, 0) = nil"))).toEqual(["0 0 0 8 0", "3 0 0 0 0"]);
  });

  test("what the recording does not explain is inserted or dropped, and said", () => {
    const recording = read(
      "free(0x99) = <void>",
      "realloc(0x98, 5) = 0x98",
      "malloc(8) = 0x10",
      "malloc(9) = 0x10",
      "malloc(18446744073709551615) = 0",
      "calloc(18446744073709551615, 2) = 0x30",
    );
    expect(heapRows(recording)).toEqual([
      "2 0 0 5 0",
      "0 0 1 8 0",
      "3 0 1 0 0",
      "0 0 2 9 0",
      "1 0 3 9007199254740991 0",
    ]);
    expect(recording.warnings).toEqual([
      "1 failed allocations dropped",
      "2 frees or reallocs of memory older than the recording",
      "1 frees inserted: an address was handed out again without one",
    ]);
  });
});

describe("refusals", () => {
  test.each([
    ["malloc(24)", "the call of malloc has no result"],
    ["malloc(many) = 0x10", 'malloc("many") has unreadable arguments'],
    ["calloc(3) = 0x10", 'calloc("3") has unreadable arguments'],
    ["malloc(3) = \x1b[2J", 'malloc returns "?[2J"'],
    ["<... malloc resumed> ) = 0x10", "malloc is resumed without a beginning"],
    ["<... malloc resumed> )", "the resumed call has no result"],
    ["hello", '"hello" is no traced call'],
  ])("%s is a bad line", (line, what) => {
    const error = inputErrorOf(() => read("malloc(8) = 0x20", line));
    expect(error).toMatchObject({ file: "p.ltrace", line: 2, message: what });
  });

  test("a trace without heap calls", () => {
    expect(inputErrorOf(() => read("+++ exited (status 0) +++")).hint).toContain("ltrace -f -o FILE");
  });

  test("random byte flips are refused or sound", () => {
    const sample = [
      "[pid 1] p->malloc(8) = 0x10",
      "[pid 2] p->realloc(0x10, 80 <unfinished ...>",
      "[pid 1] p->calloc(3, 4) = 0x10",
      "[pid 2] <... realloc resumed> ) = 0x50",
      "[pid 1] p->free(0x50) = <void>",
    ].join("\n");
    const flip = fc.tuple(fc.nat(sample.length - 1), fc.nat(255));
    fc.assert(
      fc.property(fc.array(flip, { minLength: 1, maxLength: 4 }), fc.boolean(), (flips, lenient) => {
        const file = textFile(sample);
        for (const [at, byte] of flips) file.bytes[at] = byte;
        expectSoundOrRefused(() => readLtrace(file, { lenient }));
      }),
      { numRuns: 2000 },
    );
  });

  test("hostile lines take bounded time", () => {
    for (const unit of [" ", ")", ") = ", "->", "a", "1 ", "malloc(", "<... ", "1:", "malloc(1)="]) {
      const cpuMs = cpuMsOf(() =>
        inputErrorOf(() => readLtrace(textFile(`${unit.repeat(65536)}x\n`.repeat(5)), STRICT)),
      );
      expect(cpuMs).toBeLessThan(HANG_MS);
    }
  });
});

describe("--ops", () => {
  test("a list becomes rows; blanks and commas separate", () => {
    const rows = ["0 0 0 3 0", "0 0 1 0 0", "3 0 1 0 0", "3 0 0 0 0"];
    expect(heapRows(readOps("+3,+0,-1,-0"))).toEqual(rows);
    expect(heapRows(readOps(" +3 +0, -1\n-0,"))).toEqual(rows);
    expect(readOps("+9007199254740991", "mine")).toMatchObject({ name: "mine", nrIds: 1, nrThreads: 1 });
  });

  test.each([
    ["", undefined, "the list is empty"],
    [",, ,", undefined, "the list is empty"],
    ["+3,4", 4, '"4" is no operation'],
    ["+3,-1", 4, "allocation 1 does not exist yet"],
    ["-0", 1, "allocation 0 does not exist yet"],
    ["+3,-0,-0", 7, "allocation 0 is freed already"],
    ["+1.5", 1, '"+1.5" is no operation'],
    ["+0x10", 1, '"+0x10" is no operation'],
    ["+3 , +9007199254740992", 6, '"+9007199254740992" is out of range'],
    ["+3;-0", 1, '"+3;-0" is no operation'],
  ])("%j is refused at column %s", (text, column, message) => {
    expect(inputErrorOf(() => readOps(text))).toMatchObject({ file: "--ops", column, message });
  });
});
