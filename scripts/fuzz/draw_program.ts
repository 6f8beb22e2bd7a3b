/**
 * Random programs: every built-in one, with arguments that make sense, that hardly do, and that do not.
 */

import type { Draw } from "./draw.ts";
import type { FuzzProgram, Words } from "./fuzz_case.ts";

/** Files that there are, that there may be, and that there are not. */
const FILES = [
  ...["/proc/meminfo", "/proc/slabinfo", "/proc/buddyinfo", "/proc/zoneinfo", "/proc/vmstat", "/proc/interrupts"],
  ...["/proc/1/status", "/proc/2/maps", "/proc/modules", "/proc/stat", "/proc/lockdep_stats", "/dev/kmsg"],
  ...["/dev/null", "/dev/null", "/dev/sda", "/dev/nic0", "/dev/sensor0", "/dev/fb0", "/dev/fb0ctl", "/dev/rtc0"],
  ...[
    "/dev/ttyS1",
    "/dev/console",
    "/tmp/a",
    "/tmp/b",
    "/tmp/c",
    "/sys/devices/nic0/stats",
    "/sys/kernel/debug/dma-api/dump",
  ],
  ...[
    "/nope",
    "/",
    "",
    "relative",
    "/tmp/a/b",
    "/bin/cat",
    "/sys/kernel/debug/tracing/trace",
    "/proc/../tmp/../proc/uptime",
  ],
];
const JUNK = [
  ...[
    "",
    "-",
    "--",
    "-1",
    "-h",
    "--help",
    "0",
    "1",
    "00",
    "0x10",
    "1e9",
    "999999999999999999999",
    "4294967296",
    "-0.5",
  ],
  ...["--seed", "--ops", "--size=", "=", "a=b", "NaN", "$?", "*", "ä€😀", "%s", "x".repeat(300), "a b", "'", '"', "\\"],
];
const WRITABLE = [
  ...["/tmp/a", "/tmp/b", "/tmp/c", "/dev/null", "/dev/sda", "/dev/nic0", "/dev/ttyS1", "/dev/fb0", "/proc/vmstat"],
  ...["/dev/null", "/sys/devices/nic0/traffic", "/sys/kernel/debug/dma-api/driver_filter", "/dev/kmsg", "/tmp/a/b"],
];

/** What write-back and reclaim of files are told. */
const DIRTY = [
  ...["swappiness", "dirty_ratio", "dirty_background_ratio", "dirty_writeback_centisecs"].flatMap((name) =>
    [0, 1, 100, 200].map((value) => [`vm.${name}=${value}`]),
  ),
  ...[["vm.drop_caches=1"], ["vm.drop_caches=3"], ["vm.dirty_expire_centisecs=1"]],
];
const DISKS = ["/dev/sda", "/dev/sda", "/dev/sdb", "/tmp/a", "/dev/null", "/nope"];

const cycles = (d: Draw): string => String(d.spread(1, 200_000_000));
const size = (d: Draw): string => `${d.spread(1, 64)}${d.of(["K", "K", "M", ""])}`;
const number = (d: Draw, max: number): string => String(d.spread(0, max));
/** Half of the time much of it. */
const count = (d: Draw, max: number): string => String(d.chance(50) ? d.whole(0, max) : d.spread(0, max));
const file = (d: Draw): string => d.of(FILES);
const option = (d: Draw, name: string, value: string): string[] => (d.chance(50) ? [name, value] : []);
const flags = (d: Draw, choices: readonly string[]): string[] => d.list(0, 2, () => d.of(choices));

export type DrawArguments = (d: Draw, drivers: readonly string[]) => string[];

/** Arguments by program. The test compares the names with the built-in programs. */
export const PROGRAM_ARGUMENTS: Readonly<Record<string, DrawArguments>> = {
  cat: (d) => d.list(0, 3, () => file(d)),
  rm: (d) => d.list(1, 2, () => d.of(WRITABLE)),
  ls: (d) => [
    ...flags(d, ["-1"]),
    ...d.list(0, 2, () => d.of(["/", "/proc", "/sys/kernel/slab", "/dev", "/tmp", "/nope"])),
  ],
  echo: (d) => d.list(0, 3, () => d.of(JUNK)),
  hexdump: (d) => [...flags(d, ["-C"]), file(d)],
  dmesg: () => [],
  mount: () => [],
  sysctl: (d) =>
    d.of([["-a"], ["vm.min_free_kbytes"], [`vm.min_free_kbytes=${d.spread(0, 100_000)}`], ["vm.nope=1"], ...DIRTY]),
  head: (d) => [...option(d, "-n", number(d, 100)), file(d)],
  tail: (d) => [...option(d, "-n", number(d, 100)), file(d)],
  grep: (d) => [...flags(d, ["-i", "-v", "-c", "-E"]), d.of(["a", ".*", "[", "(", "free", "^$", "a*b|c"]), file(d)],
  wc: (d) => [file(d)],
  free: (d) => flags(d, ["-b", "-k", "-m"]),
  memmap: (d) => (d.chance(50) ? [] : ["1", number(d, 3)]),
  vmstat: (d) => (d.chance(50) ? flags(d, ["-m"]) : ["1", number(d, 3)]),
  slabtop: (d) => ["-o", ...option(d, "-s", d.of(["a", "b", "c", "n", "u", "z"]))],
  buddyinfo: () => [],
  uptime: () => [],
  ps: (d) => flags(d, ["-e", "-f"]),
  top: (d) => flags(d, ["-b"]),
  kill: (d) => [...d.list(0, 1, () => d.of(["-9", "-KILL", "-2", "-0", "-x"])), ...d.list(1, 3, () => number(d, 40))],
  sleep: (d) => [d.of(["0", "0.001", "0.05", "1", "100000", "1e9"])],
  setarch: (d) => [d.of(["-R", "-R", "--addr-no-randomize", "-x"]), d.of(["cat", "ps", "nothing"])],
  uname: (d) => flags(d, ["-a", "-r", "-m"]),
  true: () => [],
  false: () => [],
  poweroff: () => [],
  reboot: () => [],
  insmod: (d, drivers) => [
    d.of(drivers),
    ...d.list(0, 1, () => d.of(["ring=8", "rate=4", "width=64", "x=y", "cpu=1"])),
  ],
  rmmod: (d, drivers) => d.list(1, 2, () => d.of(drivers)),
  lsmod: () => [],
  pktgen: (d) =>
    d.chance(50)
      ? [count(d, 1000), ...option(d, "--size", number(d, 1600)), ...option(d, "--seed", number(d, 99))]
      : ["--wire", count(d, 3000), ...option(d, "--rate", number(d, 200_000)), ...option(d, "--burst", number(d, 64))],
  pktsink: (d) => option(d, "--packets", number(d, 500)),
  memhog: (d) => [size(d), ...flags(d, ["--huge", "--free"]), ...option(d, "--hold", cycles(d))],
  fragment: (d) => [size(d), ...option(d, "--keep", number(d, 20)), ...option(d, "--hold", cycles(d))],
  inversion: (d) => [
    ...(d.chance(50) ? ["--plain"] : []),
    ...option(d, "--mem", size(d)),
    ...option(d, "--busy", cycles(d)),
    ...option(d, "--rounds", number(d, 5)),
  ],
  userpager: (d) => [number(d, 600)],
  filehog: (d) => [d.chance(80) ? `${d.spread(1, 2000)}K` : size(d), ...option(d, "--hold", cycles(d))],
  stress: (d) => [
    ...["--ops", count(d, 5000), ...option(d, "--seed", number(d, 9999)), ...option(d, "--max", size(d))],
    ...option(d, "--threads", number(d, 9)),
  ],
  leak: (d) => [count(d, 500), ...option(d, "--size", size(d)), ...option(d, "--hold", cycles(d))],
  dd: (d) => [
    ...[
      `if=${d.chance(30) ? "/dev/zero" : file(d)}`,
      `of=${d.of(WRITABLE)}`,
      `bs=${size(d)}`,
      `count=${count(d, 200)}`,
    ],
    ...d.list(0, 1, () => `${d.of(["skip", "seek"])}=${number(d, 3000)}`),
    ...d.list(0, 1, () => d.of(["iflag=direct", "oflag=direct", "conv=fsync", "conv=sparse"])),
  ],
  iotest: (d) => [
    d.of(["/dev/sda", "/dev/sda", "/tmp/a", "/tmp/alone", "/dev/null"]),
    ...["--size", size(d), "--block", size(d), ...option(d, "--seed", number(d, 99))],
    ...d.list(0, 2, () => d.of(["--direct", "--mmap", "--sync"])),
  ],
  sync: (d) => d.list(0, 2, () => file(d)),
  fbtest: (d) => d.list(0, 1, () => number(d, 8)),
  sensord: (d) => [
    d.of(["/dev/sensor0", "/dev/sensor1", "/dev/null"]),
    number(d, 200),
    ...option(d, "--pause", cycles(d)),
  ],
  webserver: (d) =>
    d.chance(50)
      ? ["--requests", count(d, 1000), ...option(d, "--seed", number(d, 99))]
      : ["--nic", ...option(d, "--requests", number(d, 500))],
  mkswap: (d) => [d.of(DISKS)],
  swapon: (d) => [...option(d, "-p", d.of(["0", "5", "32768"])), ...d.list(0, 1, () => d.of(DISKS))],
  swapoff: (d) => [d.of(["-a", ...DISKS])],
  pmap: (d) => [...flags(d, ["-x"]), ...d.list(1, 2, () => number(d, 8))],
  forkbomb: () => [],
  usertests: (d) => d.of([["-q"], ["-l"], ["forktest"], ["mem"], ["page-parallel"], ["mmap-shuffle"], ["nope"]]),
  sysfuzz: (d) => [number(d, 9999), `0-${number(d, 400)}`],
  help: () => [],
  sh: (d) =>
    d.of([["-c", "true"], ["-c", ""], ["/tmp/a"], ["/proc/meminfo"], [], ["-c", "exit 3"], ["-c", "sh -c 'ps; ps'"]]),
};

/** Those that end the run are drawn seldom. */
const ENDING = ["poweroff", "reboot"];
const LASTING = Object.keys(PROGRAM_ARGUMENTS).filter((name) => !ENDING.includes(name));
/** Those that do much, more often. */
const BUSY = [
  "stress",
  "memhog",
  "iotest",
  "dd",
  "pktgen",
  "webserver",
  "sensord",
  "filehog",
  "leak",
  "fbtest",
  "insmod",
];

/** A command: name and arguments. */
function command(d: Draw, drivers: readonly string[]): string[] {
  const name = d.chance(0.3) ? d.of(ENDING) : d.chance(40) ? d.of(BUSY) : d.of(LASTING);
  const args = (PROGRAM_ARGUMENTS[name] as DrawArguments)(d, drivers);
  if (!d.chance(12)) return [name, ...args];
  const junk = d.list(1, 3, () => d.of(JUNK));
  return d.chance(50) ? [name, ...junk] : [name, ...args, ...junk];
}

/** Writes to a file of the kernel that changes how it is. */
function turn(d: Draw, cpus: number, devices: readonly string[]): Words {
  const write = (text: string, path: string): Words => ["echo", text, ">", path];
  switch (d.whole(0, 6)) {
    case 0:
    case 1:
      return write(d.of(["0", "1", "0", "x"]), `/sys/devices/system/cpu/cpu${d.whole(0, cpus)}/online`);
    case 2:
      return write("1", `/sys/devices/${d.of(devices)}/remove`);
    case 3:
      return write("1", "/sys/bus/slab/rescan");
    case 4: {
      const kind = d.of(["failslab", "fail_page_alloc"]);
      return write(number(d, 60), `/sys/kernel/debug/${kind}/${d.of(["probability", "interval", "times", "space"])}`);
    }
    case 5:
      return write(number(d, 2000), `/sys/kernel/debug/cma/reserved/${d.of(["alloc", "free"])}`);
    default:
      return write(d.of(["count=500 rate=50000", "count=100 burst=64", "rate=0", "x"]), "/sys/devices/nic0/traffic");
  }
}

function step(d: Draw, cpus: number, drivers: readonly string[], devices: readonly string[]): Words {
  if (d.chance(30)) return turn(d, cpus, devices);
  const words = command(d, drivers);
  if (d.chance(20)) words.push("|", ...command(d, drivers));
  if (d.chance(15)) words.push(d.of([">", ">>", "<"]), d.of(WRITABLE));
  if (d.chance(15)) words.push("&");
  return words;
}

export interface ProgramLimits {
  readonly cpus: number;
  readonly drivers: readonly string[];
  readonly devices: readonly string[];
  /** Latest start, cycles. */
  readonly latest: number;
}

export function drawProgram(d: Draw, { cpus, drivers, devices, latest }: ProgramLimits): FuzzProgram {
  const at = d.chance(40) ? 0 : d.spread(1, latest);
  const count = d.chance(85) ? 1 : d.spread(2, 12);
  if (d.chance(60)) return { steps: [command(d, drivers)], isPlain: true, at, count };
  return { steps: d.list(1, 6, () => step(d, cpus, drivers, devices)), isPlain: false, at, count };
}
