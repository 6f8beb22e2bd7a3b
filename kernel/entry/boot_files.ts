/**
 * Files below /proc and /sys that belong to one subsystem each and are registered at boot, beside those of procfs.
 */

import type { Cma, PageAllocator, SlabSubsystem, VmStat, Zones } from "../../mm/index.ts";
import type { MemoryPort } from "../arch/port.ts";
import type { FileRegistry } from "../file.ts";
import type { Printk } from "../printk.ts";
import type { UserMemory } from "./boot_memory.ts";
import { registerLkdtm, registerVmallocinfo } from "./lkdtm.ts";
import type { ObjectUsers } from "./object_users.ts";
import type { OomSetting } from "./oom_kill.ts";
import { registerCmaFiles } from "./procfs/cma.ts";
import { registerCompactionFiles, registerHugePoolFile } from "./procfs/compaction.ts";
import { registerLayoutFiles } from "./procfs/layout.ts";
import { registerOvercommitFiles } from "./procfs/overcommit.ts";
import { registerThpFiles } from "./procfs/thp.ts";
import { registerVmFiles } from "./procfs/vm_files.ts";

export interface KernelFileOwners {
  readonly port: MemoryPort;
  readonly cma: Cma;
  readonly userMemory: UserMemory;
  readonly isCompacting: boolean;
  readonly users: ObjectUsers;
  readonly zones: Zones;
  readonly slab: SlabSubsystem;
  readonly pageAlloc: PageAllocator;
  readonly vmstat: VmStat;
  readonly printk: Printk;
  readonly nrCpus: number;
  readonly oomSettings: readonly OomSetting[];
  readonly memoryMap: () => string;
  readonly panic: (reason: string) => void;
}

export function registerKernelFiles(registry: FileRegistry, owners: KernelFileOwners): void {
  const { port, cma, userMemory, isCompacting, users, memoryMap, panic } = owners;
  const { processMemory, compaction, hugePool, reclaim } = userMemory;
  registerCmaFiles(registry, cma);
  registerLayoutFiles(registry, processMemory.layout);
  registerOvercommitFiles(registry, processMemory.account);
  if (isCompacting) registerCompactionFiles(registry, compaction);
  registerHugePoolFile(registry, hugePool);
  registerThpFiles(registry, processMemory.thp);
  registerVmallocinfo(registry, users.vmalloc);
  registry.registerText("/sys/kernel/debug/memory_map", { read: memoryMap });
  registerLkdtm(registry, { port, ...users, panic });
  registerVmFiles(registry, { ...reclaim, ...owners });
}
