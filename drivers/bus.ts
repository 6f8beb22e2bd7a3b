/**
 * The bus: which devices there are, which driver has which of them, and hot-plug.
 *
 *   /sys/devices/<name>/{compatible,irq,driver,stats}   about a device       …/remove   write 1: take it out
 *   /sys/bus/slab/devices                               one line per device  /sys/bus/slab/rescan   write 1: plug in
 *
 * A device is bound to one driver at most. Probing, removing and taking out a device are serialised per device: who
 * comes second is told −EBUSY. Removing in order calls the driver first and takes the device out then; a device that
 * vanished by itself stays bound until somebody writes `remove`.
 *
 *   DBUS-1  a bound device has a loaded module, and its driver's probe returned 0 and remove was not called since
 *   DBUS-2  between begin and end of a change nobody else changes the same device
 *
 * Real kernels: drivers/base/{bus,dd}.c; drivers/pci/pci-sysfs.c (remove, rescan).
 */

import type { FileRegistry } from "../kernel/file.ts";
import { KERN_ERR, KERN_INFO, type Printk } from "../kernel/printk.ts";
import type { Task } from "../kernel/task.ts";
import type { Sleeping } from "../kernel/types.ts";
import { EBUSY, EINVAL, ENODEV } from "../kernel/uapi/errno.ts";
import type { Driver, StatRows } from "./driver.ts";
import { deviceLog } from "./driver.ts";
import type { Hardware } from "./hardware.ts";

/** A driver as the bus knows it. */
export interface BusDriver {
  readonly name: string;
  readonly driver: Driver;
}

export interface DeviceStats {
  readonly device: string;
  readonly driver: string;
  readonly rows: StatRows;
}

export interface Bus {
  /** Offers every free device that fits to the driver: how many it took, and the last error, 0 if none. */
  probeAll(worker: Task, driver: BusDriver): Sleeping<{ nrBound: number; error: number }>;
  /** Takes every device away from the driver: 0, or −EBUSY if one is being changed. */
  removeAll(worker: Task, driver: BusDriver): Sleeping<number>;
  /** A device by name, plugged in or not. */
  device(name: string): Hardware | undefined;
  nrBound(driver: BusDriver): number;
  stats(): readonly DeviceStats[];
}

export interface BusDeps {
  readonly printk: Printk;
  readonly registry: FileRegistry;
  readonly devices: readonly Hardware[];
  /** Runs `work` in a kernel thread and waits for it. */
  readonly inWorker: (caller: Task, work: (worker: Task) => Sleeping<number>) => Sleeping<number>;
  /** Drivers of the loaded modules. */
  readonly drivers: () => readonly BusDriver[];
}

interface Slot {
  readonly hardware: Hardware;
  bound: BusDriver | null;
  isChanging: boolean;
}

export const statsText = (rows: StatRows): string => rows.map(([name, value]) => `${name} ${value}\n`).join("");

export function createBus(deps: BusDeps): Bus {
  const { printk, registry, inWorker } = deps;
  const slots: readonly Slot[] = deps.devices.map((hardware) => ({ hardware, bound: null, isChanging: false }));

  function* changing<T>(slot: Slot, change: () => Sleeping<T>): Sleeping<T> {
    slot.isChanging = true;
    try {
      return yield* change();
    } finally {
      slot.isChanging = false;
    }
  }

  function* probe(worker: Task, slot: Slot, driver: BusDriver): Sleeping<number> {
    const { hardware } = slot;
    const result = yield* changing(slot, () => driver.driver.probe(worker, hardware));
    if (result === 0) slot.bound = driver;
    else {
      const what = result === -ENODEV ? "rejects match" : `with driver ${driver.name} failed with error`;
      deviceLog(printk, driver.name, hardware.name).err(`probe ${what} ${result}`);
    }
    return result;
  }

  function* remove(worker: Task, slot: Slot): Sleeping<void> {
    const { bound, hardware } = slot;
    if (bound === null) return;
    yield* changing(slot, () => bound.driver.remove(worker, hardware));
    slot.bound = null;
  }

  // ── Hot-plug ─────────────────────────────────────────────────────────────────────────────────────────────────────

  function* takeOut(worker: Task, slot: Slot): Sleeping<number> {
    if (slot.isChanging) return -EBUSY;
    yield* remove(worker, slot);
    slot.hardware.unplug();
    removeTexts(slot);
    printk(KERN_INFO, `slab ${slot.hardware.name}: removed`);
    return 0;
  }

  function* rescan(worker: Task): Sleeping<number> {
    for (const slot of slots) {
      const { hardware } = slot;
      if (slot.isChanging) continue;
      if (!hardware.isPresent() && slot.bound === null) {
        hardware.plug();
        addTexts(slot);
        printk(KERN_INFO, `slab ${hardware.name}: found, ${hardware.compatible}, irq ${hardware.line}`);
      }
      const driver = deps.drivers().find(({ name }) => name === hardware.compatible);
      if (slot.bound === null && driver !== undefined) yield* probe(worker, slot, driver);
    }
    return 0;
  }

  /** A file that starts `work` when 1 is written to it. */
  const trigger = (work: (worker: Task) => Sleeping<number>) => ({
    read: () => "",
    *write(task: Task, text: string): Sleeping<number> {
      return text.trim() === "1" ? yield* inWorker(task, work) : -EINVAL;
    },
  });

  // ── Texts ────────────────────────────────────────────────────────────────────────────────────────────────────────

  const rowsOf = ({ bound, hardware }: Slot): StatRows => bound?.driver.stats(hardware) ?? [];

  const filesOf = (slot: Slot): readonly (readonly [string, () => string])[] => [
    ["compatible", () => `${slot.hardware.compatible}\n`],
    ["irq", () => `${slot.hardware.line}\n`],
    ["driver", () => (slot.bound === null ? "" : `${slot.bound.name}\n`)],
    ["stats", () => statsText(rowsOf(slot))],
  ];
  const directory = (slot: Slot): string => `/sys/devices/${slot.hardware.name}`;
  const addTexts = (slot: Slot): void => {
    // A device that vanished without a driver has kept its texts.
    if (registry.text(`${directory(slot)}/remove`) !== undefined) return;
    for (const [file, read] of filesOf(slot)) registry.registerText(`${directory(slot)}/${file}`, { read });
    registry.registerText(
      `${directory(slot)}/remove`,
      trigger((worker) => takeOut(worker, slot)),
    );
  };
  const removeTexts = (slot: Slot): void => {
    for (const [file] of filesOf(slot)) registry.unregisterText(`${directory(slot)}/${file}`);
    registry.unregisterText(`${directory(slot)}/remove`);
  };
  for (const slot of slots) addTexts(slot);
  registry.registerText("/sys/bus/slab/rescan", trigger(rescan));
  registry.registerText("/sys/bus/slab/devices", {
    read: () =>
      slots
        .filter(({ hardware, bound }) => hardware.isPresent() || bound !== null)
        .map(({ hardware, bound }) => `${hardware.name} ${hardware.compatible} ${bound?.name ?? "-"}\n`)
        .join(""),
  });

  return {
    *probeAll(worker, driver) {
      let [nrBound, error] = [0, 0];
      for (const slot of slots) {
        const fits = slot.hardware.compatible === driver.name && slot.hardware.isPresent();
        if (!fits || slot.bound !== null || slot.isChanging) continue;
        const result = yield* probe(worker, slot, driver);
        if (result === 0) nrBound++;
        else error = result;
      }
      return { nrBound, error };
    },
    *removeAll(worker, driver) {
      const mine = slots.filter(({ bound }) => bound === driver);
      if (mine.some(({ isChanging }) => isChanging)) return -EBUSY;
      for (const slot of mine) yield* remove(worker, slot);
      return 0;
    },
    device: (name) => slots.find(({ hardware }) => hardware.name === name)?.hardware,
    nrBound: (driver) => slots.filter(({ bound }) => bound === driver).length,
    stats: () =>
      slots.flatMap((slot) =>
        slot.bound === null ? [] : [{ device: slot.hardware.name, driver: slot.bound.name, rows: rowsOf(slot) }],
      ),
  };
}

/** What the log says about things that a module did not give back. */
export function reportLeftovers(printk: Printk, module: string, leftovers: string | null): boolean {
  if (leftovers === null) return false;
  printk(KERN_ERR, `BUG: module ${module} still holds ${leftovers}`);
  return true;
}
