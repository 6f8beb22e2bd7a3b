/**
 * Random places of stack, mappings and heap.
 *
 * Goal: ASLR-1 … ASLR-3. Method: programs that print their own maps, in whole kernels with and without a seed, a mode, a
 * personality; many draws of the places against the borders.
 */

import { describe, expect, it } from "vitest";
import { createRandomStreams } from "../../kernel/lib/prng.ts";
import { USER_HEAP_BASE, USER_MMAP_TOP, USER_STACK_TOP } from "../../kernel/params.ts";
import type { PhysAddr } from "../../kernel/types.ts";
import { createLayout, LAYOUT_BYTES, MAX_MMAP_RND_BITS, type Places, RANDOMIZE_ALL } from "../../mm/layout.ts";
import { builtinPrograms } from "../../userland/index.ts";
import { bootKernel } from "../support/boot_kernel.ts";

/** What `sh -c script` prints; nothing may be left afterwards. */
function session(script: string, cmdline = "", seed = "test"): string {
  const t = bootKernel(Object.fromEntries(builtinPrograms()), { cmdline: `quiet ${cmdline}`, seed });
  t.run("/bin/sh", "-c", script);
  t.kernel.removeFiles();
  t.expectNoLeak();
  return t.output();
}

const MAPS = "cat /proc/self/maps";
/** End of the stack of each process that printed its maps. */
const stacks = (text: string): string[] => [...text.matchAll(/-([0-9a-f]+) .*\[stack\]/g)].map(([, end]) => end ?? "");
const halves = (text: string): string[] => text.split("--\n");

describe("a new program", () => {
  it("ASLR-1 lies elsewhere each time, and at the same places with the same seed", () => {
    const twice = session(`${MAPS}; echo --; ${MAPS}`);
    const [first, second] = halves(twice);
    expect(first).not.toBe(second);
    expect(new Set(stacks(twice)).size).toBe(2);
    expect(session(`${MAPS}; echo --; ${MAPS}`)).toBe(twice);
    expect(session(`${MAPS}; echo --; ${MAPS}`, "", "other")).not.toBe(twice);
  });

  it("ASLR-2 lies at the fixed places with norandmaps, with randomize_va_space 0, and under setarch -R", () => {
    const fixed = session(MAPS, "norandmaps");
    expect(stacks(fixed)).toEqual([USER_STACK_TOP.toString(16)]);
    expect(fixed).toContain(`-${USER_MMAP_TOP.toString(16)} `);
    expect(session(`sysctl kernel.randomize_va_space=0; ${MAPS}`)).toBe(`kernel.randomize_va_space = 0\n${fixed}`);
    expect(session(`setarch -R ${MAPS}`)).toBe(fixed);
    // What runs without randomisation draws nothing: who comes after it lies where it would have lain.
    expect(session(`setarch -R uname; ${MAPS}`)).toBe(session(`uname; ${MAPS}`));
  });

  it("ASLR-2 under setarch -R begins children at the fixed places, too, and says so", () => {
    const text = session(`setarch -R sh -c "cat /proc/self/personality; ${MAPS}; ${MAPS}"`);
    expect(text).toMatch(/^00040000\n/);
    expect(new Set(stacks(text))).toEqual(new Set([USER_STACK_TOP.toString(16)]));
    expect(session("setarch -R nothing; echo $?; setarch cat")).toBe(
      "setarch: nothing: No such file or directory\n127\nusage: setarch -R COMMAND [ARGUMENT...]\n",
    );
  });

  it("a mode or a number of bits that is none is refused", () => {
    const bad = ["kernel.randomize_va_space=3", "kernel.randomize_va_space=x", "vm.mmap_rnd_bits=7"];
    const text = session([...bad, "vm.mmap_rnd_bits=21"].map((setting) => `sysctl ${setting}`).join("; "));
    expect(text.match(/Invalid argument/g)).toHaveLength(4);
    expect(session("sysctl -a")).toMatch(/^kernel\.randomize_va_space = 2\n(.*\n)*vm\.mmap_rnd_bits = 18\n/);
  });
});

describe("the places", () => {
  /** Many draws, from a stream of their own. */
  function draws(mode: number, bits = MAX_MMAP_RND_BITS): Places[] {
    const words = new Uint32Array(LAYOUT_BYTES / 4);
    const port = {
      ld32: (at: number) => words[at / 4] as number,
      st32: (at: number, value: number) => {
        words[at / 4] = value;
      },
    };
    const random = createRandomStreams("places").stream("aslr");
    const layout = createLayout({ port: port as never, random, state: 0 as PhysAddr });
    layout.setMode(mode);
    layout.setMmapRndBits(bits);
    return Array.from({ length: 2000 }, () => layout.draw(false));
  }
  const spread = (places: readonly Places[], of: (place: Places) => number): readonly [number, number] => {
    const values = places.map(of);
    return [Math.min(...values) * 4096, Math.max(...values) * 4096];
  };

  it("ASLR-3 heap, mappings and a stack of 8 MiB never meet, and use the room they have", () => {
    const all = draws(RANDOMIZE_ALL);
    const [[heapLow, heapHigh], [mmapLow, mmapHigh], [stackLow, stackHigh]] = [
      spread(all, (place) => place.heapStart),
      spread(all, (place) => place.mmapTop),
      spread(all, (place) => place.stackTop),
    ];
    expect([heapLow >= USER_HEAP_BASE, heapHigh < USER_HEAP_BASE + 2 ** 25]).toEqual([true, true]);
    expect([mmapHigh <= USER_MMAP_TOP, mmapLow > USER_MMAP_TOP - 2 ** 32]).toEqual([true, true]);
    expect([stackHigh <= USER_STACK_TOP, stackLow > USER_STACK_TOP - 2 ** 23]).toEqual([true, true]);
    expect([heapHigh < mmapLow, mmapHigh < stackLow - 9 * 2 ** 20]).toEqual([true, true]);
    expect([heapHigh - heapLow > 2 ** 24.9, mmapHigh - mmapLow > 2 ** 31.9, stackHigh - stackLow > 2 ** 22.9]).toEqual([
      true,
      true,
      true,
    ]);
  });

  it("ASLR-2 mode 1 leaves the heap where it is", () => {
    const all = draws(1);
    expect(spread(all, (place) => place.heapStart)).toEqual([USER_HEAP_BASE, USER_HEAP_BASE]);
    expect(new Set(all.map((place) => place.mmapTop)).size).toBeGreaterThan(1900);
    expect(new Set(draws(0).map((place) => JSON.stringify(place))).size).toBe(1);
  });
});
