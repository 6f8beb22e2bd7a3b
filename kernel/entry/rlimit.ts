/**
 * Resource limits of a process: soft and hard, inherited at fork, kept over execve (getrlimit, setrlimit, prlimit64).
 *
 * What a limit binds is said where it binds: RLIMIT_NPROC in process_start.ts, those of memory in mm/. A soft limit may
 * be set to anything up to the hard one; everybody here is root, who may raise the hard one, too.
 *
 *   RLM-1  soft ≤ hard
 *   RLM-2  a child has the limits of its parent at the fork, and changes of one do not show in the other
 */

import { PAGE_SIZE } from "../params.ts";
import { EFAULT, EINVAL, ESRCH } from "../uapi/errno.ts";
import {
  RLIM_INFINITY,
  RLIM_NLIMITS,
  RLIMIT_BYTES,
  RLIMIT_CORE,
  RLIMIT_MEMLOCK,
  RLIMIT_NOFILE,
  RLIMIT_NPROC,
  RLIMIT_SIGPENDING,
  RLIMIT_STACK,
} from "../uapi/resource.ts";
import type { UserAccess } from "./user_mode.ts";

export interface Rlimits {
  /** By resource. */
  readonly soft: number[];
  readonly hard: number[];
}

export const softLimit = ({ soft }: Rlimits, resource: number): number => soft[resource] ?? RLIM_INFINITY;

export const copyRlimits = ({ soft, hard }: Rlimits): Rlimits => ({ soft: [...soft], hard: [...hard] });

const STACK_BYTES = 8 * 1024 * 1024;
const MEMLOCK_BYTES = 8 * 1024 * 1024;
/** As many threads as have their kernel stacks in an eighth of memory; a user may have half of them. */
const NPROC_SHARE_BYTES = 2 * 8 * 4 * PAGE_SIZE;
const MIN_NPROC = 64;
/** RLIMIT_MSGQUEUE, NICE and RTPRIO exist to be read. */
const OTHERS: readonly (readonly [resource: number, value: number])[] = [
  [12, 819_200],
  [13, 0],
  [14, 0],
];

/** Limits of the first process on a machine with `ramBytes`, as Linux has them (INIT_RLIMITS, set_max_threads). */
export function initialRlimits(ramBytes: number, nrOpen: number): Rlimits {
  const soft = new Array<number>(RLIM_NLIMITS).fill(RLIM_INFINITY);
  const hard = [...soft];
  soft[RLIMIT_STACK] = STACK_BYTES;
  soft[RLIMIT_CORE] = 0;
  const nproc = Math.max(MIN_NPROC, Math.floor(ramBytes / NPROC_SHARE_BYTES));
  const both = [
    [RLIMIT_NPROC, nproc],
    [RLIMIT_SIGPENDING, nproc],
    [RLIMIT_NOFILE, nrOpen],
    [RLIMIT_MEMLOCK, MEMLOCK_BYTES],
    ...OTHERS,
  ];
  for (const [resource, value] of both) soft[resource as number] = hard[resource as number] = value as number;
  return { soft, hard };
}

/** A 64-bit word; what a double does not hold is no limit. */
function storeLimit(view: DataView, at: number, value: number): void {
  const isNone = !Number.isSafeInteger(value);
  view.setUint32(at, isNone ? 0xffff_ffff : value % 2 ** 32, true);
  view.setUint32(at + 4, isNone ? 0xffff_ffff : Math.floor(value / 2 ** 32), true);
}

function loadLimit(view: DataView, at: number): number {
  const value = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
  return Number.isSafeInteger(value) ? value : RLIM_INFINITY;
}

/** prlimit64(pid or 0, resource, new or NULL, old or NULL): 0 or −errno. */
export function prlimit(
  user: UserAccess,
  target: { readonly rlimits: Rlimits } | undefined,
  resource: number,
  newPtr: number,
  oldPtr: number,
): number {
  if (target === undefined) return -ESRCH;
  if (!(resource >= 0 && resource < RLIM_NLIMITS)) return -EINVAL;
  const { soft, hard } = target.rlimits;
  const wanted = newPtr === 0 ? undefined : readLimits(user, newPtr);
  if (wanted === null) return -EFAULT;
  if (wanted !== undefined && wanted.soft > wanted.hard) return -EINVAL;
  if (oldPtr !== 0) {
    const bytes = new Uint8Array(RLIMIT_BYTES);
    const view = new DataView(bytes.buffer);
    storeLimit(view, 0, soft[resource] as number);
    storeLimit(view, 8, hard[resource] as number);
    if (user.copyTo(oldPtr, bytes) !== 0) return -EFAULT;
  }
  if (wanted !== undefined) {
    soft[resource] = wanted.soft;
    hard[resource] = wanted.hard;
  }
  return 0;
}

function readLimits(user: UserAccess, ptr: number): { readonly soft: number; readonly hard: number } | null {
  const bytes = user.copyFrom(ptr, RLIMIT_BYTES);
  if (bytes === undefined) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, RLIMIT_BYTES);
  return { soft: loadLimit(view, 0), hard: loadLimit(view, 8) };
}
