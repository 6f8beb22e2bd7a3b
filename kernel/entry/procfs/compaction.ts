/**
 * Files of compaction and of the huge pages that it makes:
 * /proc/sys/vm/{compact_memory,compaction_proactiveness,extfrag_threshold,nr_hugepages}.
 *
 * `echo 1 > compact_memory` compacts every zone from end to end. The other two are numbers (theory 1 and 3 of
 * mm/compaction.ts). Absent with `compaction=off`. A number written to nr_hugepages is what the
 * pool of mm/hugetlb.ts is to have; what it then has is read. Source: Documentation/admin-guide/sysctl/vm.rst.
 */

import type { Compaction, HugePool } from "../../../mm/index.ts";
import type { FileRegistry } from "../../file.ts";
import type { Task } from "../../task.ts";
import type { Sleeping } from "../../types.ts";
import { EINVAL } from "../../uapi/errno.ts";

const DIR = "/proc/sys/vm";
/** More than the largest machine has. */
const MAX_HUGE_PAGES = 4096;

/** A whole number up to `max`, or −1. */
function parseNumber(text: string, max: number): number {
  const word = text.trim();
  return /^\d{1,9}$/.test(word) && Number(word) <= max ? Number(word) : -1;
}

export function registerCompactionFiles(registry: FileRegistry, compaction: Compaction): void {
  const number = (name: string, max: number, get: () => number, set: (value: number) => void): void =>
    registry.registerText(`${DIR}/${name}`, {
      read: () => `${get()}\n`,
      *write(_task: Task, text: string): Sleeping<number> {
        const value = parseNumber(text, max);
        if (value < 0) return -EINVAL;
        set(value);
        return 0;
      },
    });
  number("compaction_proactiveness", 100, compaction.proactiveness, compaction.setProactiveness);
  number("extfrag_threshold", 1000, compaction.extfragThreshold, compaction.setExtfragThreshold);
  registry.registerText(`${DIR}/compact_memory`, {
    read: () => "",
    *write(task: Task, text: string): Sleeping<number> {
      if (parseNumber(text, 1) !== 1) return -EINVAL;
      compaction.compactAll(task.ctx);
      return 0;
    },
  });
}

export function registerHugePoolFile(registry: FileRegistry, pool: HugePool): void {
  registry.registerText(`${DIR}/nr_hugepages`, {
    read: () => `${pool.nrPages()}\n`,
    *write(task: Task, text: string): Sleeping<number> {
      const wanted = parseNumber(text, MAX_HUGE_PAGES);
      if (wanted < 0) return -EINVAL;
      yield* pool.resize(task.ctx, wanted);
      return 0;
    },
  });
}
