/**
 * Malloc-lab reader: every rule of the format has a tiny file here.
 *
 * Method: hand-written files, rows compared as text; then every prefix of a file, and random byte flips, which may
 * end in an InputError or in a sound recording and in nothing else.
 */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { readRep } from "../../scripts/readers/rep.ts";
import { expectSoundOrRefused, heapRows, inputErrorOf, textFile } from "./fixtures.ts";

const STRICT = { lenient: false };
const LENIENT = { lenient: true };

function rep(...ops: string[]): string {
  const nrIds = new Set(ops.map((op) => op.split(" ")[1]).filter((id) => id !== "-1")).size;
  return `20000\n${nrIds}\n${ops.length}\n1\n${ops.join("\n")}\n`;
}

function rows(text: string): string[] {
  return heapRows(readRep(textFile(text), STRICT));
}

describe("operations", () => {
  test("a, r, f and w become rows in recorded order", () => {
    expect(rows(rep("a 0 512", "a 1 0", "w 0 100", "r 0 640", "f 0", "f 1"))).toEqual([
      "0 0 0 512 0",
      "0 0 1 0 0",
      "5 0 0 100 0",
      "2 0 0 640 0",
      "3 0 0 0 0",
      "3 0 1 0 0",
    ]);
  });

  test("both header dialects, headers on one line, comments, blank lines, CRLF and no last newline are read", () => {
    const ops = "a 0 8\r\n\r\n# half way\r\nf 0";
    for (const header of [
      "20000\n1\n2\n1\n",
      "1\n1\n2\n8\n",
      "0\n1\n2\n0\n",
      "20000 1 2 1\n",
      "20000\r\n1\r\n2\r\n1\r\n",
    ]) {
      const recording = readRep(textFile(header + ops), STRICT);
      expect(heapRows(recording)).toEqual(["0 0 0 8 0", "3 0 0 0 0"]);
      expect(recording.warnings).toEqual([]);
      expect(recording).toMatchObject({ kind: "heap", name: "t", nrIds: 1, nrThreads: 1 });
    }
  });

  test("f -1 frees the null pointer", () => {
    expect(rows(rep("a 0 8", "f -1", "f 0"))[1]).toBe("3 0 -1 0 0");
  });

  test("r keeps its id, and allocates one that is not live", () => {
    expect(rows(rep("r 5 10", "r 5 20", "f 5", "r 5 30", "f 5"))).toEqual([
      "2 0 0 10 0",
      "2 0 0 20 0",
      "3 0 0 0 0",
      "2 0 0 30 0",
      "3 0 0 0 0",
    ]);
  });

  test("sparse and huge ids are renumbered in order of first use", () => {
    const recording = readRep(
      textFile(rep("a 9007199254740991 1", "a 70000 2", "f 9007199254740991", "f 70000")),
      STRICT,
    );
    expect([...recording.id]).toEqual([0, 1, 0, 1]);
    expect(recording.nrIds).toBe(2);
  });

  test("a size that is merely huge is kept", () => {
    expect(rows(rep("a 0 1099511627776", "a 1 9007199254740991"))).toEqual([
      "0 0 0 1099511627776 0",
      "0 0 1 9007199254740991 0",
    ]);
  });
});

describe("warnings", () => {
  test("a header that miscounts and ids that are never freed are reported", () => {
    const recording = readRep(textFile("9\n7\n8\n1\na 0 8\na 1 8\nf 0\n"), STRICT);
    expect(recording.warnings).toEqual([
      "the header announces 7 ids, the file has 2",
      "the header announces 8 operations, the file has 3",
      "1 of 2 ids are never freed",
    ]);
  });

  test("operations that cannot be are dropped with their line number, and never refuse the file", () => {
    const recording = readRep(textFile(rep("a 0 8", "a 0 9", "f 7", "w 7 1", "f 0", "f 0", "w 0 4")), STRICT);
    expect(heapRows(recording)).toEqual(["0 0 0 8 0", "3 0 0 0 0"]);
    expect(recording.warnings.slice(0, 5)).toEqual([
      "line 6: id 0 is allocated already: dropped",
      "line 7: free of id 7, which was never allocated: dropped",
      "line 8: write to id 7, which is not allocated: dropped",
      "line 10: id 0 is freed already: dropped",
      "line 11: write to id 0, which is not allocated: dropped",
    ]);
  });

  test("one bad line in a hundred is dropped, with the first few shown and all counted", () => {
    const ops = Array.from({ length: 800 }, (_, i) => (i % 2 === 0 ? `a ${i} 8` : `f ${i - 1}`));
    for (let i = 0; i < 8; i++) ops.splice(100 * i, 0, `a ${i} oops`);
    const recording = readRep(textFile(rep(...ops)), STRICT);
    expect(recording.nrOps).toBe(800);
    expect(recording.warnings[0]).toBe('line 5: the size is "oops": dropped');
    expect(recording.warnings[5]).toBe("3 more bad lines dropped, 8 in all");
  });
});

describe("refusals", () => {
  test.each([
    ["x 0 8", 1, 'unknown operation "x"'],
    ["a", 2, "the id is missing"],
    ["a 0", 4, "the size is missing"],
    ["  a -2 8", 5, 'the id is "-2"'],
    ["a 1.5 8", 3, 'the id is "1.5"'],
    ["a 0 -8", 5, 'the size is "-8"'],
    ["a 0 0x20", 5, 'the size is "0x20"'],
    ["a 0 9007199254740992", 5, 'the size is "9007199254740992"'],
    ["a 99999999999999999999 8", 3, 'the id is "99999999999999999999"'],
    ["a 0 8 9", 7, '"9" is one field too many'],
    ["f 0 8", 5, '"8" is one field too many'],
    ["r -1 8", 3, 'the id is "-1"'],
  ])("%s is a bad line, reported with line and column", (line, column, what) => {
    const error = inputErrorOf(() => readRep(textFile(rep("a 3 8", line, "f 3")), STRICT));
    expect(error).toMatchObject({ file: "t.rep", line: 6, column, message: what });
    expect(error.format()).toMatch(/^t\.rep:6:\d+: .* \(expected .*\)\n {2}hint: .*--lenient/);
    expect(heapRows(readRep(textFile(rep("a 3 8", line, "f 3")), LENIENT))).toHaveLength(2);
  });

  test.each([
    ["", 0, undefined],
    ["1\n2\n", 2, undefined],
    ["1\n2\nmany\n4\n", 3, 1],
    ["1\n2 three 4\n", 2, 3],
    ["1\n2\n3\n4 5\n", 4, 3],
    ["1\n2\n3\n4\n", 4, undefined],
    ["1\n2\n3\n99999999999999999999\n", 4, 1],
  ])("the header of %j is refused", (text, line, column) => {
    expect(inputErrorOf(() => readRep(textFile(text), STRICT))).toMatchObject({ line, column });
  });

  test("a quoted piece of the file cannot drive the terminal", () => {
    const error = inputErrorOf(() => readRep(textFile(`1\n1\n1\n1\n\x1b[2J${"z".repeat(500)} 0 8\n`), STRICT));
    expect(error.format()).not.toContain("\x1b");
    expect(error.message.length).toBeLessThan(100);
  });
});

describe("damage", () => {
  const sample = rep("a 0 512", "a 1 128", "r 0 640", "f -1", "w 1 16", "f 1", "f 0");

  test("every prefix is refused or sound", () => {
    for (let end = 0; end <= sample.length; end++) {
      expectSoundOrRefused(() => readRep(textFile(sample.slice(0, end)), STRICT));
      expectSoundOrRefused(() => readRep(textFile(sample.slice(0, end)), LENIENT));
    }
  });

  test("random byte flips are refused or sound", () => {
    const flip = fc.tuple(fc.nat(sample.length - 1), fc.nat(255));
    fc.assert(
      fc.property(fc.array(flip, { minLength: 1, maxLength: 4 }), fc.boolean(), (flips, lenient) => {
        const file = textFile(sample);
        for (const [at, byte] of flips) file.bytes[at] = byte;
        expectSoundOrRefused(() => readRep(file, { lenient }));
      }),
      { numRuns: 2000 },
    );
  });
});
