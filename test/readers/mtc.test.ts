/**
 * MTC1 reader: nothing in a binary file is trusted.
 *
 * Method: files made by a writer of our own (fixtures.ts), right ones and every kind of wrong one; then every prefix
 * of a file, and random byte flips.
 */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeLeb128, LEB_CUT, LEB_OVERFLOW } from "../../scripts/readers/leb128.ts";
import { readMtc } from "../../scripts/readers/mtc.ts";
import { byteFile, expectSoundOrRefused, heapRows, inputErrorOf, leb128, type MtcOp, mtcBytes } from "./fixtures.ts";

const STRICT = { lenient: false };
const LENIENT = { lenient: true };

const OPS: readonly MtcOp[] = [
  { op: 0, size: 24 },
  { op: 1, size: 4096, tid: 1 },
  { op: 4, size: 300, align: 6, tid: 2 },
  { op: 2, size: 500, ref: 2 },
  { op: 3, ref: 1, tid: 2 },
  { op: 0, size: 1 },
  { op: 3, ref: 3 },
];

describe("right files", () => {
  test("all five operations, with threads, ids counted backwards and alignments", () => {
    const recording = readMtc(byteFile(mtcBytes(OPS)), STRICT);
    expect(heapRows(recording)).toEqual([
      "0 0 0 24 0",
      "1 1 1 4096 0",
      "4 2 2 300 6",
      "2 0 0 500 0",
      "3 2 1 0 0",
      "0 0 3 1 0",
      "3 0 0 0 0",
    ]);
    expect(recording).toMatchObject({ name: "fixture", nrIds: 4, nrThreads: 3, warnings: [] });
  });

  test("dt, site, align and tid may be missing, and unknown columns are passed over", () => {
    const ops = [
      { op: 0, size: 8 },
      { op: 3, ref: 0 },
    ];
    const columns = { dt: undefined, site: undefined, align: undefined, tid: undefined };
    const color = { enc: "u8", count: 3, bytes: [1, 2, 3] };
    const bytes = mtcBytes(ops, { columns: { color, ...columns }, header: { threads: undefined, sites: undefined } });
    expect(heapRows(readMtc(byteFile(bytes), STRICT))).toEqual(["0 0 0 8 0", "3 0 0 0 0"]);
  });

  test("a thread column of 256 threads, and columns in u8 where LEB128 is usual", () => {
    const ops = Array.from({ length: 256 }, (_, tid) => ({ op: 0, tid, size: tid }));
    const tid = { enc: "u8", count: 256, bytes: ops.map((op) => op.tid) };
    const recording = readMtc(byteFile(mtcBytes(ops, { columns: { tid } })), STRICT);
    expect([...recording.thread]).toEqual(ops.map((op) => op.tid));
    expect(recording.nrThreads).toBe(256);
  });

  test("sizes up to 2^53 are exact, and beyond they are clamped", () => {
    const sizes = [127, 128, 16384, 2 ** 32, 2 ** 40 + 1, Number.MAX_SAFE_INTEGER];
    const ops: MtcOp[] = [...sizes, 2n ** 64n - 1n].map((size) => ({ op: 0, size }));
    const recording = readMtc(byteFile(mtcBytes(ops)), STRICT);
    expect([...recording.size]).toEqual([...sizes, Number.MAX_SAFE_INTEGER]);
  });

  test("a name that is no name gives way to the file's", () => {
    for (const name of [undefined, 7, "", "a b", "\u001b[2J", "x".repeat(65)]) {
      expect(readMtc(byteFile(mtcBytes(OPS, { header: { name } })), STRICT).name).toBe("t");
    }
  });

  test("live_at_end is compared", () => {
    expect(readMtc(byteFile(mtcBytes(OPS, { header: { live_at_end: 2 } })), STRICT).warnings).toEqual([]);
    expect(readMtc(byteFile(mtcBytes(OPS, { header: { live_at_end: 5 } })), STRICT).warnings).toEqual([
      "the header announces 5 live blocks at the end, the operations leave 2",
    ]);
  });
});

describe("wrong headers", () => {
  test.each<[string, unknown]>([
    ["n_ops", undefined],
    ["n_ops", "7"],
    ["n_ops", 6],
    ["n_ops", 1e15],
    ["n_ops", -1],
    ["n_ops", 1.5],
    ["n_ops", null],
    ["n_ids", 3],
    ["n_threads", 0],
    ["n_threads", 257],
    ["n_threads", 2],
    ["threads", {}],
    ["sites", "none"],
    ["sites", []],
    ["columns", undefined],
    ["columns", {}],
    ["columns", [7]],
    ["columns", [null]],
    ["columns", []],
    ["live_at_end", "x"],
  ])("%s: %j is refused with a byte offset", (key, value) => {
    const error = inputErrorOf(() => readMtc(byteFile(mtcBytes(OPS, { header: { [key]: value } })), STRICT));
    expect(error.byteOffset).toBeTypeOf("number");
    expect(error.format()).toMatch(/^t\.mtc: byte \d+: /);
  });

  test.each([
    "",
    "{",
    "null",
    "[]",
    '"MTC1"',
    "7",
    '{"__proto__":{"n_ops":1,"n_ids":1,"n_threads":1,"columns":[]}}',
    '{"n_ops":1,"n_ids":1,"n_threads":1,"columns":[{"__proto__":{"name":"op","enc":"u8","count":1,"bytes":1}}]}',
    '{"n_ops":1e999}',
  ])("the header %s is refused", (rawHeader) => {
    inputErrorOf(() => readMtc(byteFile(mtcBytes(OPS, { rawHeader })), STRICT));
    expect(Object.hasOwn(Object.prototype, "n_ops")).toBe(false);
  });

  test("a column that claims more than the file holds never reaches an allocation", () => {
    for (const [count, bytes] of [
      [2 ** 50, 2 ** 50],
      [2 ** 40, 7],
      [7, 2 ** 31],
    ]) {
      const columns = [{ name: "op", enc: "u8", count, bytes }];
      inputErrorOf(() => readMtc(byteFile(mtcBytes(OPS, { header: { columns } })), STRICT));
    }
  });

  test("a column twice, and an unknown encoding", () => {
    const column = { name: "op", enc: "u8", count: 0, bytes: 0 };
    for (const columns of [[column, column], [{ ...column, enc: "zstd" }], [{ ...column, name: 5 }]]) {
      inputErrorOf(() => readMtc(byteFile(mtcBytes(OPS, { header: { columns } })), STRICT));
    }
  });
});

describe("wrong columns", () => {
  const readWith = (columns: NonNullable<Parameters<typeof mtcBytes>[1]>["columns"]) =>
    inputErrorOf(() => readMtc(byteFile(mtcBytes(OPS, { columns: columns ?? {} })), STRICT));
  const sizes = [24, 4096, 300, 500, 1];

  test("an unknown operation, with the offset of its byte", () => {
    const bytes = mtcBytes([{ op: 0, size: 8 }]);
    const start = bytes.length - 1 - 2 - 1 - 1 - 1;
    expect(bytes[start]).toBe(0);
    bytes[start] = 9;
    expect(inputErrorOf(() => readMtc(byteFile(bytes), STRICT))).toMatchObject({
      byteOffset: start,
      message: "operation 0 is of kind 9",
    });
  });

  test("an integer that is cut, too long, or one too many", () => {
    const whole = sizes.flatMap(leb128);
    expect(readWith({ size: { enc: "uleb128", count: 5, bytes: whole.slice(0, -1) } }).message).toContain("exactly");
    expect(readWith({ size: { enc: "uleb128", count: 5, bytes: [...whole, 1] } }).message).toContain("exactly");
    const endless = [...Array.from({ length: 11 }, () => 0x80), 0, 1, 2, 3, 4];
    expect(readWith({ size: { enc: "uleb128", count: 5, bytes: endless } }).message).toContain("64 bits");
    expect(readWith({ dt: { enc: "uleb128", count: 7, bytes: [1, 1, 1, 1, 1, 1, 0x80] } }).message).toContain("dt");
  });

  test("a column of the wrong length, or missing", () => {
    for (const name of ["op", "size", "ref", "align", "tid"]) readWith({ [name]: undefined });
    for (const name of ["op", "size", "ref", "align", "tid", "dt", "site"]) {
      readWith({ [name]: { enc: "u8", count: 2, bytes: [0, 0] } });
    }
  });

  test("a thread, a site, an alignment out of range", () => {
    expect(readWith({ tid: { enc: "u8", count: 7, bytes: [0, 0, 0, 3, 0, 0, 0] } }).message).toBe(
      'entry 3 of column "tid" is 3',
    );
    expect(readWith({ site: { enc: "uleb128", count: 1, bytes: [1] } }).message).toBe('entry 0 of column "site" is 1');
    readWith({ align: { enc: "u8", count: 1, bytes: [64] } });
  });

  test("bytes behind the last column are refused, and ignored under lenient", () => {
    const bytes = mtcBytes(OPS, { trailing: [1, 2, 3] });
    expect(inputErrorOf(() => readMtc(byteFile(bytes), STRICT)).byteOffset).toBe(bytes.length - 3);
    const recording = readMtc(byteFile(bytes), LENIENT);
    expect(recording.nrOps).toBe(OPS.length);
    expect(recording.warnings).toEqual([`byte ${bytes.length - 3}: 3 bytes are left over behind the last column`]);
  });
});

describe("operations that cannot be", () => {
  test.each<[string, MtcOp[]]>([
    ["frees allocation 0, which is free", [{ op: 0 }, { op: 3, ref: 0 }, { op: 3, ref: 0 }]],
    ["reallocates allocation 0, which is free", [{ op: 0 }, { op: 3, ref: 0 }, { op: 2, ref: 0, size: 9 }]],
    ["frees an allocation before the first", [{ op: 0 }, { op: 3, ref: 0 }, { op: 3, ref: 5 }]],
    ["frees an allocation before the first", [{ op: 0 }, { op: 3, ref: 0 }, { op: 3, ref: 2 ** 40 }]],
  ])("an operation that %s", (what, ops) => {
    const error = inputErrorOf(() => readMtc(byteFile(mtcBytes(ops)), STRICT));
    expect(error.message).toBe(`operation 2 ${what}`);
    expect(error.byteOffset).toBeGreaterThan(8);
    const recording = readMtc(byteFile(mtcBytes(ops)), LENIENT);
    expect(heapRows(recording)).toHaveLength(2);
    expect(recording.warnings.at(-1)).toBe("1 operations dropped");
  });

  test("a file without an operation left", () => {
    inputErrorOf(() => readMtc(byteFile(mtcBytes([])), STRICT));
    inputErrorOf(() => readMtc(byteFile(mtcBytes([{ op: 3, ref: 0 }])), LENIENT));
  });
});

describe("damage", () => {
  const sample = mtcBytes(OPS);

  test("every prefix is refused, with an offset inside the file", () => {
    for (let end = 0; end < sample.length; end++) {
      const error = inputErrorOf(() => readMtc(byteFile(sample.slice(0, end)), STRICT));
      expect(error.byteOffset).toBeLessThanOrEqual(end);
      expectSoundOrRefused(() => readMtc(byteFile(sample.slice(0, end)), LENIENT));
    }
  });

  test("random byte flips are refused or sound", () => {
    const flip = fc.tuple(fc.nat(sample.length - 1), fc.nat(255));
    fc.assert(
      fc.property(fc.array(flip, { minLength: 1, maxLength: 3 }), fc.boolean(), (flips, lenient) => {
        const bytes = sample.slice();
        for (const [at, byte] of flips) bytes[at] = byte;
        expectSoundOrRefused(() => readMtc(byteFile(bytes), { lenient }));
      }),
      { numRuns: 3000 },
    );
  });

  test("random columns behind a right header are refused or sound", () => {
    const ops = fc.array(
      fc.record({ op: fc.nat(4), tid: fc.nat(3), size: fc.nat(5000), ref: fc.nat(4), align: fc.nat(12) }),
      { minLength: 1, maxLength: 40 },
    );
    let nrSound = 0;
    fc.assert(
      fc.property(ops, fc.boolean(), (list, lenient) => {
        if (expectSoundOrRefused(() => readMtc(byteFile(mtcBytes(list)), { lenient })) === "sound") nrSound++;
      }),
      { numRuns: 1000 },
    );
    expect(nrSound).toBeGreaterThan(100);
  });
});

describe("LEB128", () => {
  test("what the writer writes, the decoder reads", () => {
    fc.assert(
      fc.property(fc.array(fc.maxSafeNat()), (numbers) => {
        const bytes = Uint8Array.from(numbers.flatMap(leb128));
        const values = new Float64Array(numbers.length);
        expect(decodeLeb128(bytes, 0, bytes.length, values)).toBe(bytes.length);
        expect([...values]).toEqual(numbers);
      }),
    );
  });

  test("over-long zeros are legal, an eleventh byte is not, an end inside is neither", () => {
    const one = new Float64Array(1);
    const decode = (bytes: number[]) => decodeLeb128(Uint8Array.from(bytes), 0, bytes.length, one);
    expect(decode([0x81, 0x80, 0])).toBe(3);
    expect(one[0]).toBe(1);
    expect(decode([...Array.from({ length: 9 }, () => 0xff), 1])).toBe(10);
    expect(decode([...Array.from({ length: 10 }, () => 0xff), 1])).toBe(LEB_OVERFLOW);
    expect(decode([0x80, 0x80])).toBe(LEB_CUT);
    expect(decode([])).toBe(LEB_CUT);
  });
});
