/**
 * Files below /sys/kernel/mm/transparent_hugepage (theory: mm/thp.ts).
 *
 *   enabled                 always [madvise] never: one of the three is written, the one that holds is in brackets
 *   defrag                  always defer defer+madvise [madvise] never: what a fault does for a huge page
 *   hpage_pmd_size          bytes of a huge page
 *   khugepaged/             pages_to_scan, scan_sleep_millisecs: may be written; pages_collapsed, full_scans: counts
 *
 * Source: Documentation/admin-guide/mm/transhuge.rst.
 */

import { THP_DEFRAG_MODES, THP_POLICIES, type Thp } from "../../../mm/index.ts";
import type { FileRegistry } from "../../file.ts";
import { PAGE_SIZE } from "../../params.ts";
import { EINVAL } from "../../uapi/errno.ts";

const DIR = "/sys/kernel/mm/transparent_hugepage";

export function registerThpFiles(registry: FileRegistry, thp: Thp): void {
  const { scanner } = thp;
  const choice = (name: string, words: readonly string[], get: () => number, set: (value: number) => void): void =>
    registry.registerText(`${DIR}/${name}`, {
      read: () => `${words.map((word, i) => (i === get() ? `[${word}]` : word)).join(" ")}\n`,
      *write(_task, text) {
        const chosen = words.indexOf(text.trim());
        if (chosen < 0) return -EINVAL;
        set(chosen);
        return 0;
      },
    });
  choice("enabled", THP_POLICIES, thp.policy, thp.setPolicy);
  choice("defrag", THP_DEFRAG_MODES, thp.defrag, thp.setDefrag);
  registry.registerText(`${DIR}/hpage_pmd_size`, { read: () => `${512 * PAGE_SIZE}\n` });
  const tunable = (name: string, min: number, get: () => number, set: (value: number) => void): void =>
    registry.registerText(`${DIR}/khugepaged/${name}`, {
      read: () => `${get()}\n`,
      *write(_task, text) {
        const value = /^\d{1,9}$/.test(text.trim()) ? Number(text.trim()) : -1;
        if (value < min) return -EINVAL;
        set(value);
        return 0;
      },
    });
  tunable("pages_to_scan", 1, scanner.pagesToScan, scanner.setPagesToScan);
  tunable("scan_sleep_millisecs", 0, scanner.sleepMillis, scanner.setSleepMillis);
  registry.registerText(`${DIR}/khugepaged/pages_collapsed`, { read: () => `${scanner.nrCollapsed()}\n` });
  registry.registerText(`${DIR}/khugepaged/full_scans`, { read: () => `${scanner.nrFullScans()}\n` });
}
