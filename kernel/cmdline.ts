/**
 * The kernel command line: `name=value` words that choose modes at boot.
 *
 * Every parameter is declared once, here, with its meaning. An unknown word is not an error (Linux passes such words
 * to init), but the log names the nearest known one: most unknown words are typing errors.
 */

export interface KernelParameters {
  /** Text of a parameter; undefined when it was not given; "" for a word without `=`. */
  get(name: ParameterName): string | undefined;
  /** A size such as 16M in bytes; `fallback` when not given. */
  size(name: ParameterName, fallback: number): number;
  /** A whole number; `fallback` when not given. */
  number(name: ParameterName, fallback: number): number;
  /** One of `choices`; the first when not given. */
  choice<const T extends string>(name: ParameterName, choices: readonly [T, ...T[]]): T;
  /** What was wrong, for the log: complete once every parameter has been asked for. */
  readonly complaints: readonly string[];
}

export const PARAMETERS = {
  quiet: "no messages on the console while booting",
  loglevel: "console shows messages of a level below this one (0-8)",
  dma32_limit: "end of ZONE_DMA32, so that a small machine has a ZONE_NORMAL, e.g. 32M",
  movablecore: "size of ZONE_MOVABLE at the top of memory, e.g. 16M",
  cma: "size of the area for large contiguous allocations, which processes may use meanwhile, e.g. 16M",
  compaction: "on (default) or off: are pages of processes moved together when a large block is wanted",
  debug_tlb: "on: tell when a TLB translates by an entry that has changed since; slow",
  min_free_kbytes: "the reserve that watermarks are made from; default as Linux computes it",
  init_on_alloc: "1: pages and objects are zeroed when they are handed out, whether asked for or not",
  init_on_free: "1: pages and objects are zeroed when they are freed",
  object_cache: "magazine (default) or passthrough: the layer above the slabs",
  irqsoff: "on: measures how long interrupts and preemption are off; read it in /sys/kernel/debug/tracing",
  stacktrace: "on: measures how deep the kernel's calls go; read it in /sys/kernel/debug/tracing; very slow",
  irq_unhandled_limit: "interrupts after which a line that nobody serves is judged; 100000 as in Linux",
  modules: "drivers to load at the end of boot, separated by commas: modules=rtc,uart",
  dma_debug: "on (default) or off: watch how drivers use DMA",
  dma_guard: "on: tell when the CPU touches memory that a device owns; slow",
  iommu: "off (default) or on: devices go through page tables",
  swiotlb: "bounce buffers for DMA to take at boot, e.g. 1M; default: when a device needs them",
  depot: "locked (default) or lockfree: how CPUs share full and empty magazines",
  memblock: "debug: the boot allocator tells what it does",
  prove_locking: "on: lockdep looks at every lock taken, and reports what could deadlock",
  failslab: "interval,probability,space,times: object allocations that fail on purpose, as in Linux",
  fail_page_alloc: "interval,probability,space,times: page allocations that fail on purpose, as in Linux",
  fail_nth: "the N-th allocation since boot fails; with N+ all later ones too",
  reclaim: "lists (default) or mglru: are pages aged on active and inactive lists, or in generations",
  transparent_hugepage: "madvise (default), always or never: where faults may bring 2 MiB at once",
  swap: "size of a disk that is the swap area from boot on, e.g. 256M",
  "sysctl.vm.overcommit_memory": "0 (default), 1, 2: refuse absurd promises of memory, none, unsafe ones",
  "sysctl.vm.overcommit_ratio": "with overcommit_memory=2: processes may have so much of RAM, in percent; default 50",
  "sysctl.vm.panic_on_oom": "0 (default) or 1, 2: panic when memory runs out, instead of killing a process",
  "sysctl.vm.oom_kill_allocating_task": "0 (default) or 1: when memory runs out the process dies that asked for some",
  "sysctl.vm.oom_dump_tasks": "1 (default) or 0: the report about it has a table of all processes",
  norandmaps: "stack, mappings and heap of every program begin at the same place (kernel.randomize_va_space=0)",
  pi: "on (default) or off: do owners of a mutex inherit the priority of its waiters",
} as const;

export type ParameterName = keyof typeof PARAMETERS;

const SUFFIXES: Readonly<Record<string, number>> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };

/** Bytes of `64M`; undefined if it is no size. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+)([KMG]?)$/i.exec(text);
  if (!match) return undefined;
  const bytes = Number(match[1]) * (SUFFIXES[(match[2] as string).toUpperCase()] as number);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** Smallest number of insertions, deletions and replacements that turn `a` into `b`. */
export function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}

export function parseCmdline(text: string): KernelParameters {
  const values = new Map<string, string>();
  const complaints: string[] = [];
  for (const word of text.split(/\s+/).filter((part) => part !== "")) {
    const equals = word.indexOf("=");
    const name = equals < 0 ? word : word.slice(0, equals);
    if (Object.hasOwn(PARAMETERS, name)) {
      values.set(name, equals < 0 ? "" : word.slice(equals + 1));
      continue;
    }
    const nearest = Object.keys(PARAMETERS).sort((a, b) => editDistance(a, name) - editDistance(b, name))[0] as string;
    const hint = editDistance(nearest, name) <= Math.max(2, name.length / 3) ? `; did you mean "${nearest}"?` : "";
    complaints.push(`Unknown kernel command line parameter "${word}", will be passed to user space${hint}`);
  }
  return {
    get: (name) => values.get(name),
    size(name, fallback) {
      const value = values.get(name);
      if (value === undefined) return fallback;
      const bytes = parseSize(value);
      if (bytes === undefined)
        complaints.push(`Malformed kernel parameter ${name}=${value} (expected a size like 16M)`);
      return bytes ?? fallback;
    },
    number(name, fallback) {
      const value = values.get(name);
      if (value === undefined) return fallback;
      if (/^\d{1,9}$/.test(value)) return Number(value);
      complaints.push(`Malformed kernel parameter ${name}=${value} (expected a whole number)`);
      return fallback;
    },
    choice(name, choices) {
      const value = values.get(name);
      const known = choices.find((choice) => choice === value);
      if (value !== undefined && known === undefined) {
        complaints.push(`Malformed kernel parameter ${name}=${value} (expected ${choices.join(" or ")})`);
      }
      return known ?? choices[0];
    },
    complaints,
  };
}
