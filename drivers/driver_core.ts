/**
 * The driver core, assembled: hardware at boot, the bus, the modules, and the host's view of them.
 *
 * Hardware is there from power-on; it costs no RAM and does nothing before a driver switches it on. Drivers come by
 * insmod, by the kernel parameter `modules=nic,disk`, or by BootOptions.modules. Loading and unloading run in a kernel
 * thread of their own (`kmod`), which a fatal signal to the asking program does not reach (DRV duties).
 */

import type { FileRegistry } from "../kernel/file.ts";
import type { KernelImage } from "../kernel/image.ts";
import { KERN_ERR } from "../kernel/printk.ts";
import type { Task } from "../kernel/task.ts";
import { PF_KTHREAD } from "../kernel/task_struct.ts";
import { type Context, NULL, type PhysAddr, physAdd, type Sleeping } from "../kernel/types.ts";
import { EIO, ENOMEM, errnoName } from "../kernel/uapi/errno.ts";
import { createBus, type DeviceStats } from "./bus.ts";
import type { DriverType, KernelServices } from "./driver.ts";
import { createStepCounter } from "./driver_ledger.ts";
import { createHardware, type DeviceKind, type DeviceSettings, type Hardware } from "./hardware.ts";
import { createModules } from "./modules.ts";
import { createNapi, napiStaticBytes } from "./napi.ts";

/** Where a device is: its name, its line, its kind. */
export interface DevicePlace {
  readonly name: string;
  readonly line: number;
  readonly kind: DeviceKind;
  /** True: there in every machine. False: only when the configuration names it. */
  readonly isStandard: boolean;
}

export interface DriverCore {
  /** SYS_init_module. Process context. */
  insmod(task: Task, name: string, args: string): Sleeping<number>;
  /** SYS_delete_module. */
  rmmod(task: Task, name: string): Sleeping<number>;
  /**
   * Starts a kernel thread that loads these one after the other: `nic ring=64`. Then, whatever became of them, it calls
   * `afterwards`.
   */
  loadAtBoot(modules: readonly string[], afterwards?: () => void): void;
  /** Text of /proc/modules. */
  modulesText(): string;
  deviceStats(): readonly DeviceStats[];
  check(): string | null;
  /** Modules that were unloaded without giving back what they held. */
  nrReports(): number;
  /** For tests: the `nth` thing that a driver takes from now on is refused; 0 for none. */
  failStep(nth: number): void;
  /** Things that drivers have taken, or asked for, since then. */
  nrSteps(): number;
  device(name: string): Hardware | undefined;
  /** What a CPU that goes offline had to poll is this CPU's from now on. */
  adopt(ctx: Context, cpu: number): void;
}

export interface DriverCoreDeps {
  readonly services: KernelServices;
  readonly registry: FileRegistry;
  readonly places: readonly DevicePlace[];
  readonly types: readonly DriverType[];
  /** Device → settings. Throws for a device or a setting that does not exist. */
  readonly settings: Readonly<Record<string, DeviceSettings>>;
  /** From driverCoreStatics(). */
  readonly statics: PhysAddr;
}

/** Static memory of the core: the queue on which callers wait for the kmod thread, poll lists. Before the seal. */
export const driverCoreStatics = (image: KernelImage, nrCpus: number): PhysAddr =>
  image.bss("driver_core", 8 + napiStaticBytes(nrCpus), 8);

function buildHardware(deps: DriverCoreDeps): readonly Hardware[] {
  const { places, settings, services } = deps;
  for (const name of Object.keys(settings)) {
    const known = places.map((place) => place.name);
    if (!known.includes(name)) throw new Error(`no device ${name}: known are ${known.join(", ")}`);
  }
  return places
    .filter((place) => place.isStandard || place.name in settings)
    .map((place) => createHardware(services.machine, place.kind, place, settings[place.name]));
}

export function createDriverCore(deps: DriverCoreDeps): DriverCore {
  const { services, registry, types } = deps;
  const { printk, tasks, scheduler, waits, contexts, machine } = services;
  const queue = deps.statics;
  waits.init(queue);
  const napi = createNapi({ machine, contexts, softirqs: services.softirqs, statics: physAdd(queue, 8) });

  /** Starts a kernel thread; undefined without memory. */
  const startThread = (comm: string, work: (worker: Task) => Sleeping<number>): Task | undefined => {
    const ctx = contexts.taskContext(machine.harts.current[0] as number);
    let worker: Task | undefined;
    worker = tasks.create(ctx, {
      comm,
      parent: NULL,
      flags: PF_KTHREAD,
      *body() {
        return yield* work(worker as Task);
      },
    });
    if (worker !== undefined) scheduler.wake(worker);
    return worker;
  };

  function* inWorker(caller: Task, work: (worker: Task) => Sleeping<number>): Sleeping<number> {
    let result: number | undefined;
    const worker = startThread("kmod", function* (self) {
      // A bug in a driver unwinds this thread; its caller is not to wait for ever.
      try {
        result = yield* work(self);
      } finally {
        result ??= -EIO;
        waits.wakeUp(queue);
      }
      return 0;
    });
    if (worker === undefined) return -ENOMEM;
    while (result === undefined) yield* waits.waitOn(queue, caller);
    return result;
  }

  function* loadOne(worker: Task, line: string): Sleeping<void> {
    const [name = "", ...args] = line.trim().split(/\s+/);
    const result = yield* modules.insmod(worker, name, args.join(" "));
    if (result !== 0) printk(KERN_ERR, `modprobe: module ${name} not loaded: ${errnoName(result)}`);
  }

  const steps = createStepCounter();
  const bus = createBus({
    printk,
    registry,
    devices: buildHardware(deps),
    inWorker,
    drivers: () => modules.drivers(),
  });
  const modules = createModules({ services, napi, registry, types, steps, bus: () => bus });

  return {
    insmod: (task, name, args) => inWorker(task, (worker) => modules.insmod(worker, name, args)),
    rmmod: (task, name) => inWorker(task, (worker) => modules.rmmod(worker, name)),
    loadAtBoot(names, afterwards = () => {}) {
      if (names.length === 0) return afterwards();
      const worker = startThread("modprobe", function* (self) {
        try {
          for (const line of names) yield* loadOne(self, line);
        } finally {
          afterwards();
        }
        return 0;
      });
      if (worker === undefined) afterwards();
    },
    modulesText: modules.text,
    deviceStats: bus.stats,
    check: modules.check,
    nrReports: modules.nrReports,
    failStep: steps.failStep,
    nrSteps: steps.nrSteps,
    device: bus.device,
    adopt: napi.adopt,
  };
}
