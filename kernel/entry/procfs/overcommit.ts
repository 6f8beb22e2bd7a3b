/**
 * Files that say what processes may be promised: /proc/sys/vm/overcommit_memory and overcommit_ratio.
 *
 * The modes and the limit are explained in mm/vm_account.ts. A write binds from the next request on; what has been
 * promised stays. Source: Documentation/admin-guide/sysctl/vm.rst.
 */

import type { ProcessMemory } from "../../../mm/index.ts";
import type { FileRegistry } from "../../file.ts";
import type { Task } from "../../task.ts";
import type { Sleeping } from "../../types.ts";
import { EINVAL } from "../../uapi/errno.ts";

const MAX_MODE = 2;
const MAX_RATIO = 1000;

export function registerOvercommitFiles(registry: FileRegistry, account: ProcessMemory["account"]): void {
  const number = (name: string, max: number, get: () => number, set: (value: number) => void): void =>
    registry.registerText(`/proc/sys/vm/${name}`, {
      read: () => `${get()}\n`,
      *write(_task: Task, text: string): Sleeping<number> {
        const word = text.trim();
        if (!/^\d{1,4}$/.test(word) || Number(word) > max) return -EINVAL;
        set(Number(word));
        return 0;
      },
    });
  number("overcommit_memory", MAX_MODE, account.mode, account.setMode);
  number("overcommit_ratio", MAX_RATIO, account.ratio, account.setRatio);
}
