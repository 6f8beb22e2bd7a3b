/**
 * Goal: `back` makes the machine what it was at the snapshot, whoever types and however; nothing after it has happened.
 * Method: whole sessions: a script in one line, typed lines with jobs in the background, Ctrl-C and end of file; the
 * same files read after the snapshot and after going back. A machine whose repetition is made to differ must say so.
 */

import { describe, expect, it } from "vitest";
import type { Kernel } from "../../kernel/entry/kernel.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import { bootMachine } from "../../scripts/run_workloads.ts";
import { createSession, type Session } from "../../scripts/snapshots/session.ts";
import { builtinPrograms } from "../../userland/index.ts";

const MACHINE = { nrCpus: 2, ramBytes: 32 * 1024 * 1024, seed: "1", cmdline: "quiet" };

interface TestSession {
  readonly session: Session;
  /** What was printed since the last call. */
  output(): string;
  /** Runs until nothing is left to do without new input. */
  settle(): Promise<void>;
  /** Types a line, runs, gives the output back. */
  type(line: string): Promise<string>;
}

function startSession(
  args: readonly string[],
  programs: ReadonlyMap<string, Program> = builtinPrograms(),
): TestSession {
  let text = "";
  const boot = (console: (text: string) => void): Kernel => {
    const kernel = bootMachine(MACHINE, programs, console);
    kernel.spawn("/sbin/init", ["init", ...args]);
    if (args.length > 0) kernel.closeConsole();
    return kernel;
  };
  const session = createSession({
    boot,
    console: (part) => {
      text += part;
    },
  });
  const t: TestSession = {
    session,
    output() {
      const part = text;
      text = "";
      return part;
    },
    async settle() {
      let reason = "budget";
      while (reason === "budget") reason = await session.run();
    },
    async type(line) {
      session.feed("line", `${line}\n`);
      await t.settle();
      return t.output();
    },
  };
  return t;
}

async function script(text: string, programs?: ReadonlyMap<string, Program>): Promise<string> {
  const t = startSession(["-c", text], programs);
  await t.settle();
  expect(t.session.kernel().check()).toBeNull();
  return t.output();
}

const LOOK =
  "cat /proc/buddyinfo; cat /proc/slabinfo; cat /proc/vmstat; cat /proc/interrupts; ps; ls /tmp; cat /tmp/file";

describe("a script that goes back", () => {
  it("sees the same files, processes and counters as after the snapshot, and goes on with its own rest", async () => {
    const before = `echo one > /tmp/file; snapshot here; ${LOOK}`;
    const after = "memhog 4M; leak 30; echo two >> /tmp/file; echo x > /tmp/other; insmod rtc";
    const output = await script(`${before}; echo MIDDLE; ${after}; back 1; ${LOOK}; echo LAST`);
    const line = /snapshot 1 "here": cycle \d+, \d+ pages free\n/.exec(output)?.[0] ?? "none";
    const [first = "", second = ""] = output.split(`back at ${line}`);
    expect(second).toContain("LAST\n");
    expect(second.replace("LAST\n", "")).toBe(
      first.slice(first.indexOf(line) + line.length, first.indexOf("MIDDLE\n")),
    );
    expect(second.match(/^one$/gm)).toHaveLength(1);
  });

  it("SES-2 later snapshots are forgotten, their numbers are given again, and back alone is the last", async () => {
    const output = await script("snapshot; snapshot b; snapshot c; back 2; snapshot -l; snapshot d; back; snapshot -l");
    expect(output.match(/snapshot \d( "\w+")?/g)).toEqual([
      ...["snapshot 1", 'snapshot 2 "b"', 'snapshot 3 "c"', 'snapshot 2 "b"', "snapshot 1", 'snapshot 2 "b"'],
      ...['snapshot 3 "d"', 'snapshot 3 "d"', "snapshot 1", 'snapshot 2 "b"', 'snapshot 3 "d"'],
    ]);
  });

  it.each([
    ["back", "sh: back: no snapshot 0: none was taken"],
    ["snapshot; back 2", "sh: back: no snapshot 2: there are 1 to 1"],
    ["back x", "sh: usage: back [NUMBER]"],
    ["snapshot a b", "sh: usage: snapshot [NAME | -l]"],
    ["snapshot 'a;b'", "sh: usage: snapshot [NAME | -l]"],
    ["echo take x > /dev/snapshot; echo $?", "0"],
  ])("%s: %s", async (text, message) => {
    expect(await script(text)).toContain(message);
  });

  it("in a condition, a pipe and a nested shell", async () => {
    expect(await script("snapshot && echo A && back 1 && echo B")).toMatch(/^snapshot.*\nA\nback at snapshot.*\nB\n$/);
    expect(await script("snapshot | cat; echo A; back 1 | cat; echo B")).toMatch(/^snapshot.*\nA\nback at.*\nB\n$/);
    expect(await script("snapshot; sh -c 'echo A; back 1; echo B'; echo C")).toMatch(/^snapshot.*\nA\nback at.*\nB\n$/);
  });
});

describe("a session at a terminal", () => {
  it("SES-1 with a job in the background and input at odd moments", async () => {
    const t = startSession([]);
    await t.settle();
    t.output();
    t.session.feed("line", "memhog 2M --hold 500000000 &\n");
    await t.session.run();
    t.session.feed("line", "sleep 0.003; snapshot busy\n");
    await t.session.run();
    t.session.feed("line", "ps; cat /proc/buddyinfo\n");
    await t.session.run();
    const first = t.output();
    expect(first).toContain("memhog");
    await t.type("memhog 8M");
    await t.type("wait");
    expect(await t.type("ps")).not.toContain("memhog");
    // What shall see the job running stands on the same line.
    t.session.feed("line", "back 1; ps; cat /proc/buddyinfo\n");
    await t.session.run();
    const again = t.output();
    expect(again).toContain('back at snapshot 1 "busy"');
    expect(again.split("pages free\n")[1]).toMatch(/memhog[\s\S]*Node 0/);
    const end = await t.type("wait; ps");
    expect(end).toContain("PID");
    expect(end).not.toMatch(/^ .*memhog$/m);
    expect(t.session.kernel().check()).toBeNull();
  });

  it("Ctrl-C is part of the past, and an end of file that came later is not", async () => {
    const t = startSession([]);
    await t.settle();
    t.session.feed("line", "memhog 1M --hold 900000000000\n");
    await t.session.run();
    t.session.feed("interrupt");
    await t.settle();
    await t.type("snapshot");
    expect(await t.type("echo $?; back; echo $?")).toMatch(/back at snapshot 1.*\n0\n# $/);
    expect(await t.type("snapshot two; cat")).toContain("snapshot 2");
    t.session.feed("eof");
    expect(t.session.isClosed()).toBe(true);
    await t.settle();
    expect(t.session.kernel().panicReport).toBeNull();
  });

  it("SES-3 a repetition that differs is given up: the machine stays, and says what differs", async () => {
    let nrRuns = 0;
    const programs = new Map(builtinPrograms());
    // Reads something that is no part of the machine: what must never be.
    programs.set("/bin/wayward", function* (env) {
      env.mem.st32(env.argv, ++nrRuns);
      return 0;
    });
    const output = await script("wayward; snapshot; echo A; back 1; echo status $?; ps", programs);
    expect(output).toMatch(
      /A\nsh: back: running again led to another machine at snapshot 1 \(.*page.*\); please report this\n/,
    );
    expect(output).toContain("status 1\n");
  });

  it("without a host that keeps snapshots the commands say so", () => {
    const kernel = bootMachine(MACHINE, builtinPrograms(), (text) => {
      output += text;
    });
    let output = "";
    kernel.spawn("/sbin/init", ["init", "-c", "snapshot; back 1; ls /dev"]);
    kernel.run();
    expect(output).toContain("sh: snapshot: nobody keeps snapshots here");
    expect(output).toContain("sh: back: nobody keeps snapshots here");
    expect(output).not.toMatch(/^snapshot$/m);
  });
});
