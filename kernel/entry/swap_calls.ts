/**
 * swapon and swapoff (syscall.ts has the rules; mm/swap_area.ts does the work).
 */

import type { SwapArea } from "../../mm/index.ts";
import type { OpenFile } from "../file.ts";
import type { MaySleep, Sleeping } from "../types.ts";
import { EINVAL } from "../uapi/errno.ts";
import { O_DIRECT, O_RDWR } from "../uapi/mman.ts";
import { SWAP_FLAG_PREFER, SWAP_FLAG_PRIO_MASK, SYS_swapon } from "../uapi/syscall.ts";
import { userPath } from "./paths.ts";
import type { Caller } from "./process.ts";

export interface SwapCallDeps {
  readonly files: { open(path: string, flags: number, pid: number): OpenFile | number };
  readonly swapArea: SwapArea;
}

export type SwapCall = (caller: Caller, nr: number, path: number, flags: number) => MaySleep<number>;

export function createSwapCalls({ files, swapArea }: SwapCallDeps): SwapCall {
  function* swapon(caller: Caller, path: string, flags: number): Sleeping<number> {
    const isPreferred = (flags & SWAP_FLAG_PREFER) !== 0;
    if (!Number.isInteger(flags) || (flags & ~(SWAP_FLAG_PREFER | SWAP_FLAG_PRIO_MASK)) !== 0) return -EINVAL;
    const file = files.open(path, O_RDWR | O_DIRECT, caller.process.pid);
    if (typeof file === "number") return file;
    let error = -1;
    // A fatal signal unwinds it: what was not taken over is closed all the same.
    try {
      error = yield* swapArea.swapon(caller.task, path, file, isPreferred ? flags & SWAP_FLAG_PRIO_MASK : undefined);
      return error;
    } finally {
      if (error !== 0 && --file.refs === 0) file.release();
    }
  }

  return (caller, nr, pathPtr, flags) => {
    const path = userPath(caller, pathPtr);
    if (typeof path === "number") return path;
    return nr === SYS_swapon ? swapon(caller, path, flags) : swapArea.swapoff(caller.task, path);
  };
}
