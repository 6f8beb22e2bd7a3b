/**
 * What the balloon's host is told about this machine's memory. Source: drivers/virtio/virtio_balloon.c
 * (update_balloon_vm_stats).
 */

import type { GuestMemory } from "../../drivers/index.ts";
import {
  ALLOCSTALL,
  NR_FILE_PAGES,
  OOM_KILL,
  PGFAULT,
  PGMAJFAULT,
  PSWPIN,
  PSWPOUT,
  type VmStat,
  type Zones,
} from "../../mm/index.ts";
import { PAGE_SIZE } from "../params.ts";

/** `available`: pages, as MemAvailable has them. */
export function guestMemory(vmstat: VmStat, zones: Zones, available: number): GuestMemory {
  const majorFaults = vmstat.event(PGMAJFAULT);
  return {
    "swap-in": vmstat.event(PSWPIN) * PAGE_SIZE,
    "swap-out": vmstat.event(PSWPOUT) * PAGE_SIZE,
    "major-faults": majorFaults,
    "minor-faults": vmstat.event(PGFAULT) - majorFaults,
    "free-memory": zones.totalFree() * PAGE_SIZE,
    "total-memory": zones.totalManaged() * PAGE_SIZE,
    "available-memory": available * PAGE_SIZE,
    "disk-caches": vmstat.item(NR_FILE_PAGES) * PAGE_SIZE,
    "oom-kills": vmstat.event(OOM_KILL),
    "alloc-stalls": vmstat.event(ALLOCSTALL),
  };
}
