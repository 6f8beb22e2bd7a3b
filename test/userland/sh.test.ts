/**
 * Goal: the shell and its programs do what their users expect of such programs.
 * Method: a machine is booted with the programs, init runs one command text, and what comes out of the console is
 * compared. Nothing is faked: pipes, files and processes are the kernel's.
 */
import { describe, expect, it } from "vitest";
import { boot } from "../../kernel/entry/boot.ts";
import type { Kernel } from "../../kernel/entry/kernel.ts";
import { builtinPrograms } from "../../userland/index.ts";

const BUDGET_CYCLES = 20_000_000_000;

function machine(programs = builtinPrograms()): { kernel: Kernel; take: () => string } {
  let text = "";
  const kernel = boot({
    nrCpus: 2,
    ramBytes: 32 * 1024 * 1024,
    seed: "1",
    port: "bounds",
    cmdline: "",
    console: (part) => {
      text += part;
    },
    programs,
  });
  const take = (): string => {
    const taken = text;
    text = "";
    return taken;
  };
  return { kernel, take };
}

/** Output and status of `sh -c commands`. */
function sh(commands: string): { out: string; status: number | undefined } {
  const { kernel, take } = machine();
  take();
  const pid = kernel.spawn("/bin/sh", ["sh", "-c", commands]);
  expect(pid).toBeGreaterThan(0);
  kernel.run({ untilCycles: BUDGET_CYCLES, shouldStop: () => kernel.exitStatus(pid) !== undefined });
  expect(kernel.nrReports()).toBe(0);
  return { out: take(), status: kernel.exitStatus(pid) };
}

describe("sh", () => {
  it.each([
    ["echo a; echo 'b  c' \"d\"", "a\nb  c d\n", 0],
    ["echo -n x | cat", "x", 0],
    ["echo one | cat | cat - | cat", "one\n", 0],
    ["echo a > /tmp/f; echo b >> /tmp/f; cat < /tmp/f", "a\nb\n", 0],
    ["cat /nope 2> /tmp/e; echo $?; cat /tmp/e", "1\ncat: /nope: No such file or directory\n", 0],
    ["cat /nope 2>&1 | cat", "cat: /nope: No such file or directory\n", 0],
    ["true && echo yes || echo no; false && echo yes || echo no", "yes\nno\n", 0],
    ["false; echo $?; exit 7", "1\n", 7],
    ["true | false", "", 1],
    ["/bin/false; echo $?", "1\n", 0],
    [
      "cd /proc; pwd; cat uptime > /dev/null && echo $?; cd nope",
      "/proc\n0\nsh: cd: nope: No such file or directory\n",
      1,
    ],
    ["fre", "sh: fre: not found (did you mean free?)\n", 127],
    ["zzzzzzzzzz", "sh: zzzzzzzzzz: not found\n", 127],
    ["echo (", "(\n", 0],
    ["echo a | | cat", "sh: 10: syntax error near '|'\n", 2],
    ["cat 'open", "sh: 5: unterminated quote '\n", 2],
    ["sleep 0.001 & wait; echo $?", "0\n", 0],
    ["sleep 100 & kill $!; wait $!; echo $?", "143\n", 0],
    ["help | cat > /tmp/h; ls /tmp", "h\n", 0],
    ["sh -c 'echo in; exit 3'; echo $?", "in\n3\n", 0],
    ["echo 'echo from file; exit 4' > /tmp/s; sh /tmp/s; echo $?", "from file\n4\n", 0],
    ["echo hi # not this", "hi\n", 0],
  ])("%s", (commands, out, status) => {
    expect(sh(commands)).toEqual({ out, status });
  });

  it("prompts, keeps a history and ends at the end of input", () => {
    const { kernel, take } = machine();
    take();
    const pid = kernel.spawn("/bin/sh", ["sh", "-i"]);
    const type = (text: string): string => {
      kernel.feedConsole(text);
      kernel.run({ untilCycles: BUDGET_CYCLES });
      return take();
    };
    kernel.run({ untilCycles: BUDGET_CYCLES });
    expect(take()).toBe("# ");
    expect(type("echo hi\n")).toBe("hi\n# ");
    expect(type("\nhistory\n")).toBe("# " + "    1  echo hi\n    2  history\n# ");
    kernel.closeConsole();
    kernel.run({ untilCycles: BUDGET_CYCLES });
    expect(kernel.exitStatus(pid)).toBe(0);
  });
});

describe("init", () => {
  it("runs the commands it is given and switches the machine off", () => {
    const { kernel, take } = machine();
    take();
    kernel.spawn("/sbin/init", ["init", "-c", "echo done"]);
    const stop = kernel.run({ untilCycles: BUDGET_CYCLES });
    expect([stop, kernel.panicReport]).toEqual(["poweroff", null]);
    expect(take()).toContain("done\n");
  });
});

describe("programs", () => {
  it.each([
    ["ls /", /^bin\/ +dev\/ +proc\/ +sbin\/ +sys\/ +tmp\/\n$/],
    ["free", /^ +total.*\nMem: +\d+ +\d+ +\d+ +\d+ +\d+ +\d+\nSwap: +0 +0 +0\n$/],
    ["ps", / 1 +0 . +\d+ +\d+ 00:00:00 .*\n(.*\n)* +\d+ +\d+ R +\d+ +\d+ 00:00:00 ps\n$/],
    ["top", /^top - 00:00:0.*\nTasks: .*\n%Cpu\(s\):.*\nMiB Mem :/],
    ["slabtop -o", / Active \/ Total Objects.*\n(.*\n)* +OBJS ACTIVE .*\n +\d+ +\d+ +\d+% +[\d.]+K/],
    ["vmstat; vmstat -m", /^procs -+memory(.*\n){4} *\S+( +\d+){4}\n/],
    ["memmap 1 2", /^(Memory map: .*\n([0-9a-f]{8} {2}.*\n)+\. free \d+ .*\n){2}$/],
    ["buddyinfo", /^order .*\nNODE ZONE .*\n0 \S+ /],
    ["dmesg", /^\[ +0\.000000\] /],
    ["mount", /^\S+ on \/\S* type \w+ \(.*\)\n/],
    ["uname -a", /^Slabtown slabtown \S+ .* riscv64\n$/],
    ["uptime", /^ 00:00:\d\d up 0 min, {2}load average: /],
    ["echo AB | cat > /tmp/f; hexdump -C /tmp/f", /^00000000 {2}41 42 0a {42}\|AB\.\|\n00000003\n$/],
    ["memhog 2M", /^memhog: 2048 KiB touched\nmemhog: 512 pages verified, 0 wrong; .*\n$/],
    ["stress --ops 3000 --threads 3", /contents good\n$/],
    ["webserver --requests 200", /^webserver: 200 requests, 0 failed, /],
    ["leak 100", /^leak: 100 blocks of 64 bytes /],
  ])("%s", (commands, expected) => {
    const { out, status } = sh(commands);
    expect(out).toMatch(expected);
    expect(status).toBe(0);
  });

  it("answers bad arguments with a usage line and status 2", () => {
    const names = [
      "free",
      "memmap",
      "vmstat",
      "ps",
      "kill",
      "sleep",
      "memhog",
      "stress",
      "webserver",
      "leak",
      "uname",
      "slabtop",
    ];
    for (const name of names) {
      const { out, status } = sh(`${name} --nonsense`);
      expect(out).toMatch(new RegExp(`^usage: ${name}`));
      expect(status, name).toBe(2);
    }
  });

  it("a file that refuses what is written to it: the reason, and status 1", () => {
    const { out, status } = sh("echo 0 > /sys/devices/system/cpu/cpu0/online");
    expect(out).toContain("sh: write error: Device or resource busy");
    expect(status).toBe(1);
  });

  it("what is typed comes by the serial port's interrupt", () => {
    const { kernel, take } = machine();
    kernel.spawn("/bin/sh", ["sh"]);
    kernel.run();
    kernel.feedConsole("echo typed\n");
    expect(kernel.run()).toBe("input");
    expect(take()).toContain("typed\n");
    expect(kernel.readFile("/proc/interrupts")).toMatch(/^ {2}4: +1 +0 .*ttyS0$/m);
  });
});
