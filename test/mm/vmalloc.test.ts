/**
 * vmalloc and the accessor of the kernel's window.
 *
 * Goal: VML-1 … VML-6, KVA-1, KVA-2, KST-1, KST-2. Method: a machine on BoundsPort with struct vmap_area from whole pages; every
 * allocation of a sequence refused once; random areas against a map of what they hold, on two CPUs.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { KernelBug } from "../../kernel/bug.ts";
import { PAGE_SIZE, VMALLOC_BYTES, VMALLOC_START } from "../../kernel/params.ts";
import { TASK_STACK, TASK_STACK_USED, TASK_STRUCT_BYTES } from "../../kernel/task_struct.ts";
import { asVirt, type PhysAddr, pfnToPhys, physToPfn } from "../../kernel/types.ts";
import { EINVAL } from "../../kernel/uapi/errno.ts";
import { __GFP_NOWARN, __GFP_ZERO, GFP_KERNEL } from "../../mm/gfp.ts";
import { LAZY_MAX_PAGES } from "../../mm/vmalloc.ts";
import { NR_PAGETABLE } from "../../mm/vmstat.ts";
import { bootVmalloc } from "../support/vmalloc_world.ts";

const GFP = GFP_KERNEL | __GFP_NOWARN;
const va = (n: number) => asVirt(n);

describe("areas", () => {
  it("VML-1 lie side by side with a guard page between, and hold what is written, on every CPU", () => {
    const w = bootVmalloc();
    const sizes = [1, 4096, 4097, 16384, 100_000];
    const got = sizes.map((bytes, i) => w.vm.vmalloc(w.ctx, bytes, GFP, `test_${i}`));
    expect(w.vm.areas().map(({ nrPages, caller }) => [nrPages, caller])).toEqual([
      [1, "test_0"],
      [1, "test_1"],
      [2, "test_2"],
      [4, "test_3"],
      [25, "test_4"],
    ]);
    for (let i = 1; i < got.length; i++) {
      expect((got[i] as number) - (got[i - 1] as number)).toBe((Math.ceil((sizes[i - 1] as number) / 4096) + 1) * 4096);
    }
    got.forEach((at, i) => {
      w.virtual.fill(w.ctx, va(at), i + 1, sizes[i] as number);
    });
    const other = w.contexts.taskContext(1);
    got.forEach((at, i) => {
      const bytes = w.virtual.read(other, va(at), sizes[i] as number);
      expect(bytes.every((byte) => byte === i + 1)).toBe(true);
    });
    expect(w.vm.check()).toBeNull();
    for (const at of got) expect(w.vm.vfree(w.ctx, at)).toBe(0);
    w.expectAllBack();
  });

  it("KVA-1 behind an area, and everywhere else, is nothing; a write that runs over touches nothing", () => {
    const w = bootVmalloc();
    const at = w.vm.vmalloc(w.ctx, 2 * PAGE_SIZE, GFP | __GFP_ZERO, "test");
    w.vm.vmalloc(w.ctx, PAGE_SIZE, GFP, "neighbour");
    for (const bad of [at + 2 * PAGE_SIZE, at - 1, VMALLOC_START, VMALLOC_START + VMALLOC_BYTES, 0x1000, -4096]) {
      expect(() => w.virtual.ld8(w.ctx, va(bad))).toThrow(KernelBug);
      expect(() => w.virtual.st8(w.ctx, va(bad), 1)).toThrow(/unable to handle page fault/);
    }
    expect(() => w.virtual.write(w.ctx, va(at + 4000), new Uint8Array(5000).fill(7))).toThrow(KernelBug);
    expect(w.virtual.read(w.ctx, va(at), 2 * PAGE_SIZE).every((byte) => byte === 0)).toBe(true);
    expect(() => w.virtual.ld32(w.ctx, va(at + 2))).toThrow(/not aligned/);
    w.virtual.st32(w.ctx, va(at + 4), 0xdeadbeef);
    expect(w.virtual.ld32(w.ctx, va(at + 4))).toBe(0xdeadbeef);
    expect(w.virtual.ld8(w.ctx, va(at + 4))).toBe(0xef);
  });

  it("KVA-2 a process's address means nothing there, nor a window address in a process", () => {
    const w = bootVmalloc();
    const at = w.vm.vmalloc(w.ctx, PAGE_SIZE, GFP, "test");
    w.virtual.st8(w.ctx, va(at), 5);
    expect(w.machine.mmu.translate(0, at, false)).toBe(-1);
    expect(w.machine.mmu.translateKernel(0, 0x1000_0000, false)).toBe(-1);
  });

  it("refuses nonsense, and frees what is no area with a line in the log only", () => {
    const w = bootVmalloc();
    for (const bytes of [0, -1, Number.NaN, VMALLOC_BYTES, 1e15]) expect(w.vm.vmalloc(w.ctx, bytes, GFP, "x")).toBe(0);
    const at = w.vm.vmalloc(w.ctx, PAGE_SIZE, GFP, "a name that is much longer than thirty-six bytes");
    expect(w.vm.areas()[0]?.caller).toBe("a name that is much longer than thir");
    for (const bad of [at + 1, at + PAGE_SIZE, 0, -1, VMALLOC_START]) expect(w.vm.vfree(w.ctx, bad)).toBe(-EINVAL);
    expect(w.vm.vfree(w.ctx, at)).toBe(0);
    expect(w.vm.vfree(w.ctx, at)).toBe(-EINVAL);
    expect(w.log()).toContain("Trying to vfree() nonexistent vm area (0x");
    w.expectAllBack();
  });
});

describe("lazy freeing", () => {
  it("VML-4 addresses come back after a flush only, and one flush is for many", () => {
    const w = bootVmalloc();
    const flushes: number[] = [];
    const { flushAsid } = w.machine.mmu;
    const mmu = w.machine.mmu as { flushAsid: typeof flushAsid };
    mmu.flushAsid = (cpu, asid) => {
      flushes.push(cpu);
      flushAsid(cpu, asid);
    };
    const first = w.vm.vmalloc(w.ctx, PAGE_SIZE, GFP, "test");
    w.virtual.st8(w.ctx, va(first), 1);
    w.vm.vfree(w.ctx, first);
    const seen = new Set<number>([first]);
    let rounds = 1;
    while (flushes.length === 0) {
      const at = w.vm.vmalloc(w.ctx, PAGE_SIZE, GFP, "test");
      expect(seen.has(at)).toBe(false);
      seen.add(at);
      w.vm.vfree(w.ctx, at);
      rounds++;
    }
    expect(flushes).toEqual([0, 1]);
    expect(rounds * 2).toBeGreaterThan(LAZY_MAX_PAGES / 2);
    expect(w.vm.vmalloc(w.ctx, PAGE_SIZE, GFP, "test")).toBe(first);
    w.vm.vfree(w.ctx, first);
    w.expectAllBack();
  });

  it("tables beyond the first go when nobody needs them", () => {
    const w = bootVmalloc();
    const before = w.vmstat.item(NR_PAGETABLE);
    const got = Array.from({ length: 300 }, () => w.vm.vmalloc(w.ctx, 3 * PAGE_SIZE, GFP, "test"));
    expect(w.vmstat.item(NR_PAGETABLE)).toBeGreaterThan(before);
    for (const at of got) w.vm.vfree(w.ctx, at);
    expect(w.vmstat.item(NR_PAGETABLE)).toBe(before);
    w.expectAllBack();
  });
});

describe("failures", () => {
  it("VML-5 whichever allocation is refused, nothing is left behind", () => {
    for (let n = 0; n < 700; n += n < 12 ? 1 : 53) {
      let count = Number.POSITIVE_INFINITY;
      const w = bootVmalloc(() => count-- === 0);
      count = n;
      const got = w.vm.vmalloc(w.ctx, 600 * PAGE_SIZE, GFP, "test");
      expect(got === 0).toBe(n < 603);
      expect(w.vm.check()).toBeNull();
      count = Number.POSITIVE_INFINITY;
      if (got !== 0) w.vm.vfree(w.ctx, got);
      w.expectAllBack();
    }
  });

  it("memory that runs out is an answer", () => {
    const w = bootVmalloc();
    expect(w.vm.vmalloc(w.ctx, 64 * 2 ** 20, GFP, "test")).toBe(0);
    w.expectAllBack();
  });

  it("an entry that is lost, and a frame that is taken away, are found", () => {
    const w = bootVmalloc();
    const at = w.vm.vmalloc(w.ctx, 2 * PAGE_SIZE, GFP, "test");
    const pfn = physToPfn(w.machine.mmu.translateKernel(0, at, false) as PhysAddr);
    w.pages.setPrivate(pfn, 0);
    expect(w.vm.check()).toMatch(/^VML-2, VML-6/);
  });
});

describe("kernel stacks", () => {
  function task() {
    const w = bootVmalloc();
    const { port } = w.machine;
    const struct = pfnToPhys(w.pageAlloc.tryAllocPages(w.ctx, 0, GFP));
    port.fill(struct, 0, TASK_STRUCT_BYTES);
    port.st32(struct + TASK_STACK, w.stacks.alloc(w.ctx));
    w.contexts.setCurrentTask(0, struct);
    const base = VMALLOC_START + port.ld32(struct + TASK_STACK) * PAGE_SIZE;
    return { w, base, used: () => port.ld32(struct + TASK_STACK_USED) };
  }

  it("KST-1 frames add up, lie in the stack's own pages, and go in the order in which they came", () => {
    const { w, base, used } = task();
    w.stacks.enter(w.ctx, 256);
    w.stacks.enter(w.ctx, 6000);
    expect(used()).toBe(6256);
    expect(w.virtual.ld32(w.ctx, va(base + 16384 - 6256))).toBe(6000);
    expect(() => w.stacks.leave(w.ctx, 256)).toThrow(/KST-1/);
    w.stacks.leave(w.ctx, 6000);
    w.stacks.leave(w.ctx, 256);
    expect(used()).toBe(0);
  });

  it("KST-2 the last byte is there, the one below is not, and no frame is large enough to step over the guard", () => {
    const { w, base, used } = task();
    const below = w.vm.vmalloc(w.ctx, 64 * PAGE_SIZE, GFP | __GFP_ZERO, "neighbour");
    w.stacks.enter(w.ctx, 16384);
    expect(used()).toBe(16384);
    expect(() => w.stacks.enter(w.ctx, 16)).toThrow(/kernel stack overflow/);
    w.stacks.leave(w.ctx, 16384);
    for (const bytes of [16400, 20480, 24576, 200_000]) {
      expect(() => w.stacks.enter(w.ctx, bytes)).toThrow(/kernel stack overflow/);
      expect(used()).toBe(0);
    }
    const guard = (base - 16).toString(16).padStart(16, "0");
    expect(w.log()).toContain(`BUG: TASK stack guard page was hit at ${guard} (stack is`);
    expect(w.virtual.read(w.ctx, va(below), 64 * PAGE_SIZE).every((byte) => byte === 0)).toBe(true);
  });
});

describe("random areas", () => {
  it("VML-1, VML-2 keep their contents whatever comes and goes around them", () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant("alloc" as const), pages: fc.integer({ min: 1, max: 40 }) }),
      fc.record({ kind: fc.constant("free" as const), which: fc.nat() }),
      fc.record({ kind: fc.constant("purge" as const) }),
    );
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 60 }), (steps) => {
        const w = bootVmalloc();
        const live: { at: number; pages: number; mark: number }[] = [];
        steps.forEach((s, i) => {
          const ctx = w.contexts.taskContext(i % 2);
          if (s.kind === "alloc") {
            const at = w.vm.vmalloc(ctx, s.pages * PAGE_SIZE, GFP, "test");
            if (at === 0) return;
            w.virtual.fill(ctx, va(at), i & 0xff, s.pages * PAGE_SIZE);
            live.push({ at, pages: s.pages, mark: i & 0xff });
          } else if (s.kind === "free" && live.length > 0) {
            const [gone] = live.splice(s.which % live.length, 1);
            expect(w.vm.vfree(ctx, gone?.at ?? 0)).toBe(0);
          } else if (s.kind === "purge") w.vm.purge(ctx);
          expect(w.vm.check()).toBeNull();
        });
        for (const { at, pages, mark } of live) {
          for (const cpu of [0, 1]) {
            const bytes = w.virtual.read(w.contexts.taskContext(cpu), va(at), pages * PAGE_SIZE);
            expect(bytes.every((byte) => byte === mark)).toBe(true);
          }
          w.vm.vfree(w.ctx, at);
        }
        w.expectAllBack();
      }),
      { numRuns: 20 },
    );
  });
});
