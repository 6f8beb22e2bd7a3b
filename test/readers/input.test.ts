/**
 * Input files and detection: from what the user typed to the right reader, or to a message that helps.
 *
 * Method: real files in a temporary directory, a standard input of our own, and bytes of everything people pass to
 * the wrong program.
 */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readRecording } from "../../scripts/readers/detect.ts";
import { inputFromBytes, readInput } from "../../scripts/readers/input.ts";
import { InputError } from "../../scripts/readers/input_error.ts";
import { byteFile, expectSoundOrRefused, inputErrorOf, mtcBytes, textFile } from "./fixtures.ts";

const REP = "1\n1\n2\n1\na 0 8\nf 0\n";
let directory = "";

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "slabtown-input-"));
});
afterAll(() => rmSync(directory, { recursive: true }));

function put(name: string, content: string | Uint8Array): string {
  const path = join(directory, name);
  writeFileSync(path, content);
  return path;
}

async function refusal(promise: Promise<unknown>): Promise<InputError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(InputError);
  return error as InputError;
}

describe("readInput()", () => {
  test("reads plain and gzip files, whatever they are called", async () => {
    for (const [name, content] of [
      ["a.rep", REP],
      ["a.rep.gz", gzipSync(REP)],
      ["packed", gzipSync(REP)],
      ["plain.gz", REP],
      ["members.gz", Buffer.concat([gzipSync(REP.slice(0, 5)), gzipSync(REP.slice(5))])],
    ] as const) {
      const input = await readInput(put(name, content));
      expect(Buffer.from(input.bytes).toString()).toBe(REP);
      expect(input.path).toBe(join(directory, name));
    }
  });

  test.each([
    ["redis.mtc.gz", "redis"],
    ["redis.REP.GZ", "redis"],
    ["my.program.ltrace.txt", "my.program"],
    ["gcc.ftrace", "gcc"],
    [".rep", ".rep"],
    ["README", "README"],
    ["a\x1bb.rep", "a?b"],
  ])("%j is called %j", async (file, name) => {
    expect((await readInput(put(file, REP))).name).toBe(name);
  });

  test("- is standard input, compressed or not, in chunks", async () => {
    for (const content of [Buffer.from(REP), gzipSync(REP)]) {
      const input = await readInput("-", { stdin: chunks(content) });
      expect(Buffer.from(input.bytes).toString()).toBe(REP);
      expect(input).toMatchObject({ path: "<stdin>", name: "stdin" });
    }
    expect((await refusal(readInput("-", { stdin: chunks(Buffer.alloc(0)) }))).format()).toMatch(
      /^<stdin>: the file is empty/,
    );
  });

  test("says what is wrong with a path", async () => {
    const missing = join(directory, "missing.rep");
    expect((await refusal(readInput(missing))).format()).toBe(`${missing}: no such file`);
    expect((await refusal(readInput(directory))).format()).toContain(`${directory}: is a directory (expected a file)`);
    expect((await refusal(readInput(join(put("f", REP), "x")))).message).toContain("no such file");
    expect((await refusal(readInput(""))).message).toBe("the file name is empty");
    expect((await refusal(readInput("a\0b"))).message).toContain("NUL");
    expect((await refusal(readInput("x".repeat(5000)))).message).toContain("too long");
    expect((await refusal(readInput(put("empty", "")))).message).toBe("the file is empty");
    expect((await refusal(readInput(put("e.gz", gzipSync(""))))).message).toBe("the file is empty once decompressed");
  });

  test.skipIf(process.getuid?.() === 0)("says that a file may not be read", async () => {
    const path = put("secret", REP);
    (await import("node:fs")).chmodSync(path, 0);
    expect((await refusal(readInput(path))).message).toBe("permission denied");
  });

  test("refuses gzip that is cut anywhere or damaged", async () => {
    const whole = gzipSync(REP);
    for (let end = 2; end < whole.length; end++) {
      const error = inputErrorOf(() => inputFromBytes("x.gz", whole.subarray(0, end)));
      expect(error.format()).toMatch(/^x\.gz: the gzip data /);
    }
    const damaged = Buffer.from(whole);
    damaged[whole.length - 6] = (damaged[whole.length - 6] ?? 0) ^ 0xff;
    expect((await refusal(readInput(put("d.gz", damaged)))).message).toContain("incorrect data check");
  });

  test("stops at the limit, before and after decompression", async () => {
    const bomb = gzipSync(Buffer.alloc(4_000_000));
    expect(bomb.length).toBeLessThan(10_000);
    expect((await refusal(readInput(put("bomb", bomb), { maxBytes: 100_000 }))).message).toContain(
      "decompressed, it is larger",
    );
    expect((await refusal(readInput(put("big", REP.repeat(99)), { maxBytes: 100 }))).message).toContain("it is larger");
    expect((await refusal(readInput("-", { stdin: endless(), maxBytes: 1e6 }))).message).toContain(
      "larger than 1000000",
    );
  });
});

async function* chunks(content: Buffer): AsyncGenerator<Buffer> {
  for (let i = 0; i < content.length; i += 5) yield content.subarray(i, i + 5);
}

async function* endless(): AsyncGenerator<string> {
  for (;;) yield "y\n".repeat(1000);
}

describe("readRecording()", () => {
  const FTRACE =
    "a-1 [000] .....  1.5: kmalloc: call_site=f ptr=ffff888100000008 bytes_req=8 bytes_alloc=8 gfp_flags=GFP_KERNEL\n";

  test.each([
    ["rep", REP, "heap"],
    ["rep with a comment", `# mine\n${REP}`, "heap"],
    ["rep with a byte order mark", `\ufeff${REP}`, "heap"],
    ["ftrace", `# tracer: nop\n#\n${FTRACE}`, "kernel"],
    ["ftrace without a header", FTRACE, "kernel"],
    ["ltrace", "prog->malloc(24) = 0x10\n", "heap"],
    ["ltrace, interrupted", "[pid 1] malloc(24 <unfinished ...>\n[pid 1] <... malloc resumed> ) = 0x10\n", "heap"],
    ["strace", '71  0.000123 execve("/bin/true", ["true"], 0x7ffd /* 9 vars */) = 0\n', "syscall"],
    ["strace of one process", 'write(1, "x", 1) = 1\nbrk(NULL) = 0x55d0c0a2a000\n', "syscall"],
  ])("knows %s by its content", (_what, text, kind) => {
    expect(readRecording(textFile(text)).kind).toBe(kind);
  });

  test("knows MTC1 by its magic", () => {
    expect(readRecording(byteFile(mtcBytes([{ op: 0, size: 1 }]))).kind).toBe("heap");
  });

  test("the format can be forced", () => {
    expect(inputErrorOf(() => readRecording(textFile(REP), { format: "mtc" })).message).toContain("MTC1");
    expect(inputErrorOf(() => readRecording(textFile("hello"), { format: "rep" })).line).toBe(1);
    expect(inputErrorOf(() => readRecording(textFile("hello"), { format: "ftrace" })).line).toBe(1);
    expect(inputErrorOf(() => readRecording(textFile("hello"), { format: "ltrace" })).line).toBe(1);
  });

  test("a damaged file still reaches its reader, whose message has the place", () => {
    expect(inputErrorOf(() => readRecording(textFile("a 0 8\nf 0\n")))).toMatchObject({ line: 1, column: 1 });
    expect(inputErrorOf(() => readRecording(textFile(`1\nx\n2\n1\na 0 8\n`)))).toMatchObject({ line: 2, column: 1 });
    expect(inputErrorOf(() => readRecording(textFile("# tracer: nop\n#\n"))).message).toContain("no kmem event");
    expect(inputErrorOf(() => readRecording(byteFile(Uint8Array.from([0x4d, 0x54, 0x43, 0x31])))).byteOffset).toBe(4);
  });

  test.each<[string, string | number[]]>([
    ["a PNG image", [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]],
    ["an ELF program", [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]],
    ["xz-compressed", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]],
    ["zstd-compressed", [0x28, 0xb5, 0x2f, 0xfd, 0]],
    ["bzip2-compressed", "BZh91AY"],
    ["a zip archive", [0x50, 0x4b, 3, 4]],
    ["perf's binary data", "PERFILE2xxxx"],
    ["trace-cmd's binary data", [0x17, 8, 0x44, ...new TextEncoder().encode("tracing")]],
    ["UTF-16 text", [0xff, 0xfe, 0x31, 0]],
    ["compressed twice", [0x1f, 0x8b, 8]],
    ["of a version we do not know", "MTC2"],
    ["binary data of no known kind", [0, 1, 2, 3, 0xff, 0xfe]],
    ["JSON", '{"a": 1}\n'],
    ["YAML", "machine:\n  cpus: 2\n"],
    ["a web page", "<!DOCTYPE html>\n"],
    ["a script", "#!/bin/sh\necho\n"],
    ["a Git LFS pointer", "version https://git-lfs.github.com/spec/v1\n"],
    ["a text of no known kind", "hello world\n"],
    ["nothing but blank lines", "\n\n  \n"],
    ["a text of no known kind", "1\n2\n"],
  ])("says that a file is %s", (what, content) => {
    const file = typeof content === "string" ? textFile(content, "f") : byteFile(Uint8Array.from(content), "f");
    const text = inputErrorOf(() => readRecording(file)).format();
    expect(text).toContain(what);
    expect(text).toContain("(expected a .rep, MTC1, ftrace, ltrace or strace recording)");
  });

  test("random bytes and random text are refused or sound", () => {
    const bytes = fc.uint8Array({ minLength: 1, maxLength: 400 });
    const words = fc.constantFrom(
      "a",
      "f",
      "r",
      "0",
      "1",
      " ",
      "\n",
      "malloc(",
      ") = 0x1",
      "[000]",
      "kfree: ",
      "-1",
      "MTC1",
    );
    const text = fc
      .array(words, { minLength: 1, maxLength: 80 })
      .map((parts) => new TextEncoder().encode(parts.join("")));
    fc.assert(
      fc.property(fc.oneof(bytes, text), fc.boolean(), (content, lenient) => {
        expectSoundOrRefused(() => readRecording(byteFile(content), { lenient }));
      }),
      { numRuns: 3000 },
    );
  });
});

test("an InputError prints as file:line:col: what (expected …), and the hint below", () => {
  const error = new InputError("f.rep", "bad", { line: 3, column: 7, expected: "good", hint: "mend it" });
  expect(error.format()).toBe("f.rep:3:7: bad (expected good)\n  hint: mend it");
  expect(String(error)).toBe(error.format());
  expect(new InputError("f", "bad", { line: 3 }).format()).toBe("f:3: bad");
  expect(new InputError("f", "bad", { byteOffset: 0 }).format()).toBe("f: byte 0: bad");
  expect(new InputError("f", "bad").format()).toBe("f: bad");
});
