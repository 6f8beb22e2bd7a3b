/**
 * Panics: what happens when no task can be blamed, or when the one that can does not survive its own end.
 *
 * Goal: PAN-1, PAN-2. Method: programs that break the kernel's own memory, on a booted kernel with BoundsPort.
 */

import { describe, expect, it } from "vitest";
import { KernelBug } from "../../kernel/bug.ts";
import type { Program } from "../../kernel/uapi/program.ts";
import { SYS_mmap } from "../../kernel/uapi/syscall.ts";
import { MAX_NR_ZONES, Z_LOCK } from "../../mm/mmzone.ts";
import { PAGE_ROW_SHIFT, PG_BUDDY } from "../../mm/page.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { bootKernel } from "../support/boot_kernel.ts";

const MIB = 1 << 20;

/** Boots with /bin/victim, runs it as process 1, and says how the kernel stopped. */
function stopWith(victim: (kernel: ReturnType<typeof bootKernel>["kernel"]) => Program) {
  const kernels: ReturnType<typeof bootKernel>["kernel"][] = [];
  const t = bootKernel({
    *"/bin/victim"(env) {
      return yield* victim(kernels[0] as ReturnType<typeof bootKernel>["kernel"])(env);
    },
  });
  kernels.push(t.kernel);
  t.kernel.spawn("/bin/victim", ["victim"]);
  return { stop: t.kernel.run({ untilCycles: 1e9 }), kernel: t.kernel };
}

describe("PAN-1 a bug of the kernel does not leave it as an exception", () => {
  it("an oops with the zone locks held: the exit finds them taken, and the kernel panics", () => {
    const { stop, kernel } = stopWith(
      ({ machine, memory }) =>
        function* (env) {
          const p = env.syscall(SYS_mmap, 0, MIB, 3, 0x22, -1, 0) as number;
          env.mem.fill(p, 1, MIB);
          for (let zone = 0; zone < MAX_NR_ZONES; zone++) machine.port.st32(memory.zones.addr(zone) + Z_LOCK, 1);
          throw new KernelBug("planted", []);
        },
    );
    expect(stop).toBe("panic");
    expect(kernel.panicReport).toBe("Kernel panic - not syncing: Fatal exception");
    const log = kernel.printk.records().map(({ text }) => text);
    expect(log.findIndex((text) => text.includes("kernel BUG: planted"))).toBeGreaterThan(0);
    expect(log.some((text) => text.includes("kernel BUG: spinlock"))).toBe(true);
    expect(log.findIndex((text) => text.includes("Memory map:"))).toBeGreaterThan(log.lastIndexOf(" </TASK>"));
    expect(log.at(-1)).toBe("---[ end Kernel panic - not syncing: Fatal exception ]---");
    // PAN-2: and it stays so.
    expect(kernel.run({ untilCycles: 2e9 })).toBe("panic");
  });

  it("links of free blocks overwritten: whatever is touched next, the run ends with a stop and no exception", () => {
    const { stop, kernel } = stopWith(
      ({ machine, memory }) =>
        function* (env) {
          const p = env.syscall(SYS_mmap, 0, 8 * MIB, 3, 0x22, -1, 0) as number;
          for (let pfn = 0; pfn < memory.pages.nrFrames; pfn++) {
            const at = memory.pages.rowAt(pfn);
            if ((memory.pages.flagsAt(at) & PG_BUDDY) === 0) continue;
            machine.port.fill(at as never, 0xff, 1 << PAGE_ROW_SHIFT);
          }
          env.mem.fill(p, 1, 8 * MIB);
          return 0;
        },
    );
    expect(["panic", "idle", "input"]).toContain(stop);
    expect(kernel.nrReports() > 0 || kernel.panicReport !== null).toBe(true);
  });
});

describe("the end of init", () => {
  it("says on the console what killed it, and its exit code in the panic", () => {
    const t = bootKernel({
      *"/sbin/init"(env) {
        return env.mem.ld8(0);
      },
    });
    const pid = t.kernel.spawn("/sbin/init", ["init"]);
    expect(t.kernel.run({ untilCycles: 1e9 })).toBe("panic");
    expect(t.kernel.panicReport).toBe("Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b");
    expect(pid).toBe(1);
    expect(t.output()).toContain("init[1]: segfault at ");
  });

  // With swap=SIZE the thread that switches it on was process 1: init was not known as such, and orphans had no parent.
  it("TSK-3 init is process 1, though a kernel thread was there before", () => {
    const t = bootKernel(Object.fromEntries(builtinPrograms()), { cmdline: "quiet swap=8M" });
    t.kernel.run({ untilCycles: t.kernel.now() + 1e6 });
    expect(t.kernel.tasks().length).toBeGreaterThan(0);
    expect(t.kernel.spawn("/sbin/init", ["init", "-c", "ps"])).toBe(1);
    const pids = t.kernel.tasks().map((task) => task.pid);
    expect(pids).toEqual([...pids].sort((a, b) => a - b));
    expect(pids[0]).toBe(1);
    t.kernel.run({ untilCycles: 1e9 });
    expect(t.kernel.panicReport).toBeNull();
  });
});
