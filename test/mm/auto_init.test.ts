/**
 * init_on_alloc and init_on_free.
 *
 * Goal: INI-1 … INI-3. Method: a machine on BoundsPort; random allocations and frees of pages and objects whose owners
 * fill them with a pattern that RAM is then searched for, beside a machine without the parameters where it must be found.
 */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { asPfn, type Pfn, type PhysAddr, pfnToPhys } from "../../kernel/types.ts";
import { EINVAL } from "../../kernel/uapi/errno.ts";
import type { AutoInit } from "../../mm/auto_init.ts";
import { __GFP_COMP, GFP_KERNEL, GFP_NOWAIT } from "../../mm/gfp.ts";
import { SLAB_TYPESAFE_BY_RCU } from "../../mm/slab_layout.ts";
import { bootDrivers } from "../support/driver_kernel.ts";
import { finish } from "../support/finish.ts";
import { bootTaskWorld, type TaskWorld } from "../support/task_world.ts";

const SECRET = 0xa5;
const PAGE = 4096;
const ON_ALLOC: AutoInit = { onAlloc: true, onFree: false };
const ON_FREE: AutoInit = { onAlloc: false, onFree: true };

const world = (autoInit?: AutoInit): TaskWorld =>
  bootTaskWorld({ ramBytes: 24 * 2 ** 20, ...(autoInit === undefined ? {} : { autoInit }) });
const isAll = (w: TaskWorld, addr: PhysAddr, bytes: number, byte: number): boolean =>
  w.machine.port.readBytes(addr, bytes).every((found) => found === byte);

/** Runs of eight pattern bytes in RAM: an allocator's links may lie between them. */
function nrSecrets(w: TaskWorld): number {
  const ram = Buffer.from(w.machine.port.readBytes(0x10_0000, 23 * 2 ** 20));
  const secret = Buffer.alloc(8, SECRET);
  let nr = 0;
  for (let at = ram.indexOf(secret); at >= 0; at = ram.indexOf(secret, at + 8)) nr++;
  return nr;
}

/** A thing that was handed out: a block of pages if `order` is a number, else an object of kmalloc. */
interface Held {
  readonly addr: PhysAddr;
  readonly bytes: number;
  free(): number;
}

function take(w: TaskWorld, size: number): Held {
  if (size < 4) {
    const pfn: Pfn = w.pageAlloc.tryAllocPages(w.ctx, size, GFP_KERNEL);
    return { addr: pfnToPhys(pfn), bytes: PAGE << size, free: () => w.pageAlloc.freePages(w.ctx, pfn, size) };
  }
  const { kmallocAny, kfree, ksize } = w.slab.kmalloc;
  const addr = finish(kmallocAny(w.ctx, size, GFP_KERNEL));
  return { addr, bytes: ksize(w.ctx, addr), free: () => kfree(w.ctx, addr) };
}

/** Takes, fills and frees as `steps` say: below 4 a page order, else a size; negative: the -n-th of what is held. */
function live(w: TaskWorld, steps: readonly number[], look: (got: Held) => void): void {
  const held: Held[] = [];
  for (const step of steps) {
    if (step < 0 && held.length > 0) expect(held.splice(-step % held.length, 1)[0]?.free()).toBe(0);
    if (step < 0) continue;
    const got = take(w, step);
    look(got);
    w.machine.port.fill(got.addr, SECRET, got.bytes);
    held.push(got);
  }
  for (const { free } of held) expect(free()).toBe(0);
}

const steps = fc.array(
  fc.oneof(fc.integer({ min: -20, max: -1 }), fc.integer({ min: 0, max: 3 }), fc.integer({ min: 4, max: 20_000 })),
  { minLength: 20, maxLength: 60 },
);

describe("init_on_alloc", () => {
  it("INI-1 everything that is handed out is zero, pages and objects, whatever lay there", () => {
    fc.assert(
      fc.property(steps, (order) => {
        const w = world(ON_ALLOC);
        live(w, order, ({ addr, bytes }) => expect(isAll(w, addr, bytes, 0)).toBe(true));
        expect(w.slab.check() ?? w.pageAlloc.check()).toBeNull();
      }),
      { numRuns: 12 },
    );
  });

  it("INI-1 not so without it: the last owner's bytes are there", () => {
    const w = world();
    let nrDirty = 0;
    live(w, [64, -1, 64, -1, 0, -1, 0], ({ addr, bytes }) => {
      if (!isAll(w, addr, bytes, 0)) nrDirty++;
    });
    expect(nrDirty).toBeGreaterThan(1);
  });
});

describe("init_on_free", () => {
  it("INI-2 what was freed is nowhere in RAM", () => {
    fc.assert(
      fc.property(steps, (order) => {
        const w = world(ON_FREE);
        live(w, order, () => {});
        expect(nrSecrets(w)).toBe(0);
        expect(w.slab.check() ?? w.pageAlloc.check()).toBeNull();
      }),
      { numRuns: 6 },
    );
  });

  it("INI-2 not so without it, nor with init_on_alloc", () => {
    for (const when of [undefined, ON_ALLOC]) {
      const w = world(when);
      live(w, [64, 2000, 1], () => {});
      expect(nrSecrets(w)).toBeGreaterThan(500);
    }
  });

  it("INI-2 a compound block as well (bug: its head was taken for a block that may not be freed)", () => {
    const w = world(ON_FREE);
    const pfn = w.pageAlloc.tryAllocPages(w.ctx, 3, GFP_KERNEL | __GFP_COMP);
    w.machine.port.fill(pfnToPhys(pfn), SECRET, 8 * PAGE);
    expect(w.pageAlloc.freePages(w.ctx, pfn, 3)).toBe(0);
    expect(isAll(w, pfnToPhys(pfn), 8 * PAGE, 0)).toBe(true);
  });

  it("INI-3 a free that is refused changes nothing", () => {
    const w = world(ON_FREE);
    const { port } = w.machine;
    const pfn = w.pageAlloc.tryAllocPages(w.ctx, 1, GFP_KERNEL);
    port.fill(pfnToPhys(pfn), SECRET, 2 * PAGE);
    for (const [bad, order] of [
      [pfn, 0],
      [pfn + 1, 0],
      [pfn, 2],
      [pfn + 0.5, 1],
      [-1, 0],
      [2 ** 31, 0],
    ] as const) {
      expect(w.pageAlloc.freePages(w.ctx, asPfn(bad), order)).toBe(-EINVAL);
    }
    w.pages.setRefcount(pfn, 2);
    expect(w.pageAlloc.freePages(w.ctx, pfn, 1)).toBe(-EINVAL);
    w.pages.setRefcount(pfn, 1);
    expect(isAll(w, pfnToPhys(pfn), 2 * PAGE, SECRET)).toBe(true);

    const { kmallocAny, kfree } = w.slab.kmalloc;
    const { layer } = w.slab;
    const other = w.slab.kmemCacheCreate(w.ctx, { name: "other", size: 64 });
    const obj = finish(kmallocAny(w.ctx, 64, GFP_NOWAIT));
    port.fill(obj, SECRET, 64);
    expect(kfree(w.ctx, (obj + 8) as PhysAddr)).toBe(-EINVAL);
    expect(layer.kmemCacheFree(w.ctx, other, obj)).toBe(-EINVAL);
    expect(isAll(w, obj, 64, SECRET)).toBe(true);
    expect(kfree(w.ctx, obj)).toBe(0);
    expect(isAll(w, obj, 64, 0)).toBe(true);
    // Somebody else's by now, for all that the second free knows: its content stays.
    port.fill(obj, SECRET, 64);
    expect(kfree(w.ctx, obj)).toBe(-EINVAL);
    expect(isAll(w, obj, 64, SECRET)).toBe(true);
  });
});

describe("what is to survive", () => {
  it.each([ON_ALLOC, ON_FREE])("a constructed object and an RCU-safe one are left alone: %o", (when) => {
    const w = world(when);
    const { port } = w.machine;
    const { layer } = w.slab;
    const ctor = (obj: PhysAddr): void => port.fill(obj, SECRET, 64);
    const built = w.slab.kmemCacheCreate(w.ctx, { name: "built", size: 64, ctor });
    const read = w.slab.kmemCacheCreate(w.ctx, { name: "read", size: 64, flags: SLAB_TYPESAFE_BY_RCU });
    for (const cache of [built, read]) {
      const obj = finish(layer.kmemCacheAllocAny(w.ctx, cache, GFP_KERNEL));
      port.fill(obj, SECRET, 64);
      expect(layer.kmemCacheFree(w.ctx, cache, obj)).toBe(0);
      expect(isAll(w, obj, 64, SECRET)).toBe(true);
      expect(finish(layer.kmemCacheAllocAny(w.ctx, cache, GFP_KERNEL))).toBe(obj);
      expect(isAll(w, obj, 64, SECRET)).toBe(true);
    }
    expect(w.log()).not.toContain("refused");
  });
});

describe("on a booted machine", () => {
  const answerWith = (cmdline: string): string => {
    const t = bootDrivers({ nrCpus: 1, cmdline: `quiet ${cmdline}` });
    expect(t.sh("insmod buggy bug=gives_away; rmmod buggy; cat /etc/motd > /tmp/x; cat /tmp/x > /dev/null")).toBe(0);
    expect(t.kernel.check()).toBeNull();
    t.expectUnloaded();
    return /buggy: answers "(.*)"/.exec(t.log())?.[1] ?? "nothing";
  };

  it("a driver that fills half of its answer gives away what lay there, unless either parameter is set", () => {
    expect(answerWith("")).toBe("ok: word=sesame");
    expect(answerWith("init_on_alloc=1")).toBe("ok: ...........");
    expect(answerWith("init_on_free=on")).toBe("ok: ...........");
  });

  it("the log says what is on; nonsense is told and ignored", () => {
    const log = (cmdline: string): string => bootDrivers({ nrCpus: 1, cmdline }).log();
    expect(log("init_on_alloc=on")).toContain("mem auto-init: stack:off, heap alloc:on, heap free:off");
    expect(log("init_on_alloc=yes")).toContain("Malformed kernel parameter init_on_alloc=yes");
  });
});
