/**
 * Files that say how random the layout of new programs is (theory: mm/layout.ts).
 *
 *   /proc/sys/kernel/randomize_va_space   0 none · 1 stack and mappings · 2 the heap, too
 *   /proc/sys/vm/mmap_rnd_bits            bits of a page number by which mappings begin lower, 8 to 20
 *
 * A value binds from the next execve on. Linux takes any number for the first; here it has to be one of the three.
 * Source: Documentation/admin-guide/sysctl/kernel.rst, vm.rst.
 */

import { type Layout, MAX_MMAP_RND_BITS, MIN_MMAP_RND_BITS, RANDOMIZE_ALL, RANDOMIZE_NONE } from "../../../mm/index.ts";
import type { FileRegistry } from "../../file.ts";
import { EINVAL } from "../../uapi/errno.ts";

export function registerLayoutFiles(registry: FileRegistry, layout: Layout): void {
  const tunable = (path: string, min: number, max: number, get: () => number, set: (value: number) => void): void =>
    registry.registerText(path, {
      read: () => `${get()}\n`,
      *write(_task, text) {
        const value = /^\d{1,2}$/.test(text.trim()) ? Number(text.trim()) : -1;
        if (value < min || value > max) return -EINVAL;
        set(value);
        return 0;
      },
    });
  tunable("/proc/sys/kernel/randomize_va_space", RANDOMIZE_NONE, RANDOMIZE_ALL, layout.mode, layout.setMode);
  const { mmapRndBits, setMmapRndBits } = layout;
  tunable("/proc/sys/vm/mmap_rnd_bits", MIN_MMAP_RND_BITS, MAX_MMAP_RND_BITS, mmapRndBits, setMmapRndBits);
}
