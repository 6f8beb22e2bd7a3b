/**
 * Goal: every value on the command line is either what the user meant or a one-line error with a way out.
 * Method: tables of good and bad texts; good ones by value, bad ones by their message.
 */
import { describe, expect, it } from "vitest";
import { didYouMean, nearest } from "../../scripts/nearest.ts";
import {
  formatSize,
  machineArgs,
  parseCmdline,
  parseCpus,
  parseCycles,
  parseMem,
  parseSeed,
  resolveMachine,
  shellQuote,
} from "../../scripts/options.ts";
import { colorLevel } from "../../scripts/paint.ts";
import { UsageError } from "../../scripts/usage_error.ts";
import { splitWords } from "../../scripts/words.ts";

const MIB = 1024 * 1024;

function usageError(work: () => unknown): UsageError {
  try {
    work();
  } catch (error) {
    if (error instanceof UsageError) return error;
    throw error;
  }
  throw new Error("no error was thrown");
}

describe("--mem", () => {
  it.each([
    ["8M", 8 * MIB],
    ["64m", 64 * MIB],
    ["64MiB", 64 * MIB],
    ["1.5G", 1536 * MIB],
    ["4G", 4096 * MIB],
    ["16384K", 16 * MIB],
    [String(8 * MIB), 8 * MIB],
  ])("%s is %d bytes", (text, bytes) => {
    expect(parseMem(text)).toBe(bytes);
  });

  it.each([
    ["0", "too small"],
    ["1K", "too small"],
    ["7M", "too small"],
    ["3T", "more than the machine can have"],
    ["4097M", "more than the machine can have"],
    ["", "no size"],
    ["-64M", "no size"],
    ["64X", "no size"],
    ["1e9", "no size"],
    ["Infinity", "no size"],
    ["0x4000000", "no size"],
    ["8388609", "multiple of the page size"],
    ["99999999999999999999G", "not a whole number"],
  ])("%j is refused: %s", (text, what) => {
    const error = usageError(() => parseMem(text));
    expect(error.message).toContain(what);
    expect(error.message).not.toContain("\n");
    expect(error.hint).toBeDefined();
  });

  it("a number without its unit gets the unit as a hint", () => {
    expect(usageError(() => parseMem("64")).hint).toContain("64M?");
  });
});

describe("--cpus, --cycles, --seed, --cmdline", () => {
  it.each(["1", "2", "64"])("--cpus %s is taken", (text) => {
    expect(parseCpus(text)).toBe(Number(text));
  });

  it.each(["0", "65", "1.5", "-1", "", "two", "1e1", "0x2", "NaN"])("--cpus %j is refused", (text) => {
    expect(usageError(() => parseCpus(text)).hint).toContain("1 to 64");
  });

  it.each([
    ["500", 500],
    ["10M", 10_000_000],
    ["2g", 2_000_000_000],
    ["3k", 3000],
  ])("--cycles %s is %d", (text, cycles) => {
    expect(parseCycles(text)).toBe(cycles);
  });

  it.each(["0", "", "-1", "1.5M", "M", "9999999999999999999"])("--cycles %j is refused", (text) => {
    expect(usageError(() => parseCycles(text)).message).toContain("no number of cycles");
  });

  it.each(["", "a\nb", "x".repeat(65), "\u001b[31m"])("--seed %j is refused", (text) => {
    expect(usageError(() => parseSeed(text)).message).not.toContain("\u001b");
  });

  it("--cmdline is one line", () => {
    expect(parseCmdline("slub_debug=FZP quiet")).toBe("slub_debug=FZP quiet");
    expect(usageError(() => parseCmdline("a\nb")).message).toContain("--cmdline");
  });
});

describe("machine", () => {
  it("takes the command line before the scenario before the defaults", () => {
    const machine = resolveMachine(64 * MIB, { nrCpus: 8 }, { nrCpus: 4, seed: "7" });
    expect(machine).toEqual({ nrCpus: 8, ramBytes: 64 * MIB, seed: "7", cmdline: "" });
  });

  it("its options lead to the same machine", () => {
    const machine = { nrCpus: 3, ramBytes: 8 * MIB + 4096, seed: "a b", cmdline: "quiet" };
    const [, cpus = "", , mem = "", , seed = "", , cmdline = ""] = machineArgs(machine);
    expect(parseCpus(cpus)).toBe(3);
    expect(parseMem(mem)).toBe(machine.ramBytes);
    expect([seed, cmdline]).toEqual(["a b", "quiet"]);
    expect(formatSize(64 * MIB)).toBe("64M");
  });
});

describe("words", () => {
  it("splits as a shell does", () => {
    expect(splitWords(`stress --ops 1000 'a b' "c'd" e\\ f ''`)).toEqual([
      "stress",
      "--ops",
      "1000",
      "a b",
      "c'd",
      "e f",
      "",
    ]);
  });

  it.each(["", "   ", "echo 'open"])("%j is refused", (text) => {
    expect(usageError(() => splitWords(text)).hint).toBeDefined();
  });

  it("quotes what a shell would split", () => {
    expect(shellQuote("a-b.gz")).toBe("a-b.gz");
    expect(shellQuote("it's")).toBe(`'it'\\''s'`);
    expect(splitWords(shellQuote("a $b 'c'"))).toEqual(["a $b 'c'"]);
  });

  it("suggests the nearest and nothing far", () => {
    expect(nearest("rnu", ["boot", "run"])).toBe("run");
    expect(nearest("xyzzy", ["boot", "run"])).toBeUndefined();
    expect(didYouMean("stres", ["stress", "free"])).toBe('did you mean "stress"?');
  });
});

describe("colour", () => {
  const request = (color: boolean, env: Record<string, string>, isTty: boolean) => colorLevel({ color, env, isTty });

  it("flag > NO_COLOR > FORCE_COLOR > terminal", () => {
    expect(request(false, { FORCE_COLOR: "3" }, true)).toBe(0);
    expect(request(true, { NO_COLOR: "1", FORCE_COLOR: "3" }, true)).toBe(0);
    expect(request(true, { NO_COLOR: "", FORCE_COLOR: "3" }, false)).toBe(3);
    expect(request(true, { FORCE_COLOR: "0" }, true)).toBe(0);
    expect(request(true, {}, true)).toBe(1);
    expect(request(true, {}, false)).toBe(0);
  });
});
