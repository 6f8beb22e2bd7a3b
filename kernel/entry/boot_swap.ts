/**
 * The kernel parameter swap=SIZE: a disk of that size, and on it a swap area from boot on.
 *
 *   boot: disk1 with that capacity, driver disk ─▶ tried ─▶ thread: header ─▶ swapon ─▶ thread ends
 *
 * What mkswap and swapon do, for runs that have no shell to do it. The disk is new, so its header has to be written.
 */

import type { DeviceSettings } from "../../drivers/index.ts";
import type { SwapArea } from "../../mm/index.ts";
import type { FileRegistry, OpenFile } from "../file.ts";
import type { Kthreads } from "../kthread.ts";
import { PAGE_SIZE } from "../params.ts";
import { KERN_ERR, type Printk } from "../printk.ts";
import type { Task } from "../task.ts";
import type { Sleeping } from "../types.ts";
import { EINVAL, EIO, ENODEV, ENOMEM, strerror } from "../uapi/errno.ts";
import { O_RDWR, SEEK_END, SEEK_SET } from "../uapi/mman.ts";
import { swapHeaderPage } from "../uapi/swap.ts";

/** The device that the parameter adds, and the node that it gets behind disk0. */
const SWAP_DISK = "disk1";
const NODE = "sdb";
const MIB = 1024 * 1024;
/** The largest disk of the model. */
const MAX_DISK_MIB = 1024;
const UUID = Uint8Array.from({ length: 16 }, (_, i) => (i === 6 ? 0x40 : i === 8 ? 0x80 : i));

export interface BootSwapDeps {
  readonly printk: Printk;
  readonly kthreads: Kthreads;
  readonly registry: FileRegistry;
  readonly area: SwapArea;
}

/** The settings of all devices with the swap disk among them; what they say about it counts, but for its size. */
export const withSwapDisk = (
  devices: Readonly<Record<string, DeviceSettings>>,
  capacityMib: number,
): Readonly<Record<string, DeviceSettings>> => ({
  ...devices,
  [SWAP_DISK]: { ...devices[SWAP_DISK], capacity_mib: Math.min(capacityMib, MAX_DISK_MIB) },
});

/** Size of the disk in whole MiB; 0 without the parameter. */
export const swapDiskMib = (bytes: number): number => Math.ceil(bytes / MIB);

/** What to do about it. */
function hintFor(error: number): string {
  if (error === -ENODEV) return `the driver disk has not bound ${SWAP_DISK}, dmesg says why: more memory?`;
  if (error === -ENOMEM) return "there is no memory for its slot map: boot with more memory or a smaller swap=SIZE";
  if (error === -EIO) return `${SWAP_DISK} cannot be written: look at its faults in devices:`;
  if (error === -EINVAL) return "it has no room for a header and a page: boot with a larger swap=SIZE";
  return "swapon it by hand: mkswap, swapon";
}

/** Asks for the thread, once the driver has had its chance. Any context. */
export function swapAtBoot({ printk, kthreads, registry, area }: BootSwapDeps): void {
  function* format(task: Task, file: OpenFile): Sleeping<number> {
    const end = file.seek(0, SEEK_END);
    file.seek(0, SEEK_SET);
    const page = swapHeaderPage(Math.floor(end / PAGE_SIZE), UUID);
    return end < 0 ? end : Math.min(0, yield* file.write(task, page));
  }

  function* swapOn(task: Task): Sleeping<number> {
    const file = registry.device(NODE)?.(O_RDWR) ?? -ENODEV;
    if (typeof file === "number") return file;
    const written = yield* format(task, file);
    const error = written < 0 ? written : yield* area.swapon(task, `/dev/${NODE}`, file);
    if (error !== 0 && --file.refs === 0) file.release();
    return error;
  }

  kthreads.request(
    {
      comm: "swapon",
      *body(task) {
        const error = yield* swapOn(task);
        if (error !== 0) printk(KERN_ERR, `swap: no swap area on /dev/${NODE}: ${strerror(error)}; ${hintFor(error)}`);
      },
    },
    () => {},
  );
}
