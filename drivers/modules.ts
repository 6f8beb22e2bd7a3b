/**
 * Modules: drivers that are loaded and unloaded while the system runs.
 *
 *           insmod              probe ok               rmmod, no users
 *   absent ────────▶ Loading ────────────▶ Live ───────────────────────▶ Unloading ─▶ absent
 *                       └── every probe failed, or nothing fits: −errno, absent ──────▶
 *
 * struct module, in RAM:   | state u32 | refs u32 | wait queue 8 | devices u32 | 0 u32 | name 56 |
 *
 * Linux keeps a module whose probe failed; here insmod then fails and takes the module back, as
 * platform_driver_probe() does: there is nothing it could wait for, and a second insmod is to be possible.
 *
 *   MOD-1  refs = open files of the module's nodes; a module with refs is not unloaded (−EBUSY)
 *   MOD-2  a module that is absent holds nothing: what is left is reported and makes the run fail
 *   MOD-3  one change of a module at a time: insmod of one that is there says −EEXIST, rmmod of one on its way −EBUSY
 *
 * Real kernels: kernel/module/main.c, procfs.c.
 */

import { editDistance } from "../kernel/cmdline.ts";
import type { FileRegistry } from "../kernel/file.ts";
import { KERN_ERR } from "../kernel/printk.ts";
import type { Task } from "../kernel/task.ts";
import { asPhys, NULL, type PhysAddr, type Sleeping } from "../kernel/types.ts";
import { EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, ENOMEM } from "../kernel/uapi/errno.ts";
import { GFP_KERNEL } from "../mm/index.ts";
import { type Bus, type BusDriver, reportLeftovers } from "./bus.ts";
import type { DriverType, KernelServices } from "./driver.ts";
import { createDriverFiles, type DriverFiles } from "./driver_files.ts";
import { createDriverLedger, type DriverLedger, type StepCounter } from "./driver_ledger.ts";
import { createModuleView } from "./module_view.ts";
import type { Napi } from "./napi.ts";

const MODULE_STATE = 0;
const MODULE_REFS = 4;
const MODULE_QUEUE = 8;
const MODULE_DEVICES = 16;
const MODULE_NAME = 24;
const MODULE_BYTES = 80;

const MODULE_LIVE = 0;
const MODULE_COMING = 1;
const MODULE_GOING = 2;
const STATE_NAMES = ["Live", "Loading", "Unloading"];

interface Module extends BusDriver {
  readonly struct: PhysAddr;
  readonly ledger: DriverLedger;
  readonly files: DriverFiles;
}

export interface Modules {
  /** Loads a module: 0, −ENOENT, −EEXIST, −EINVAL (a parameter), −ENODEV (nothing fits), or what its probe said. */
  insmod(worker: Task, name: string, args: string): Sleeping<number>;
  /** Unloads one: 0, −ENOENT, −EBUSY. */
  rmmod(worker: Task, name: string): Sleeping<number>;
  drivers(): readonly BusDriver[];
  /** /proc/modules, newest first. */
  text(): string;
  /** MOD-1 and the drivers' own checks. */
  check(): string | null;
  nrReports(): number;
}

export interface ModulesDeps {
  readonly services: KernelServices;
  readonly napi: Napi;
  readonly registry: FileRegistry;
  readonly types: readonly DriverType[];
  readonly steps: StepCounter;
  /** The bus; a function because the bus asks for the drivers of the modules. */
  readonly bus: () => Bus;
}

/** `ring=64 verbose` as pairs; a word without `=` is 1. */
function parseArguments(args: string): readonly (readonly [string, string])[] {
  return args
    .split(/\s+/)
    .filter((word) => word !== "")
    .map((word) => {
      const equals = word.indexOf("=");
      return equals < 0 ? ([word, "1"] as const) : ([word.slice(0, equals), word.slice(equals + 1)] as const);
    });
}

export function createModules(deps: ModulesDeps): Modules {
  const { services, registry, types, steps } = deps;
  const { printk, waits, slab } = services;
  const { port } = services.machine;
  const loaded = new Map<string, Module>();
  let nrReports = 0;

  const stateOf = (struct: PhysAddr): number => port.ld32(struct + MODULE_STATE);
  const refsOf = (struct: PhysAddr): number => port.ld32(struct + MODULE_REFS);
  const addRef = (struct: PhysAddr, n: number): void => port.st32(struct + MODULE_REFS, refsOf(struct) + n);

  /** The parameters as a map; undefined after a line in the log. */
  const readParams = (type: DriverType, args: string): ReadonlyMap<string, string> | undefined => {
    const params = new Map<string, string>();
    const known = Object.keys(type.params);
    for (const [name, value] of parseArguments(args)) {
      if (known.includes(name)) {
        params.set(name, value);
        continue;
      }
      const nearest = [...known].sort((a, b) => editDistance(a, name) - editDistance(b, name))[0] ?? "";
      const isNear = nearest !== "" && editDistance(nearest, name) <= Math.max(2, name.length / 3);
      const hint = isNear ? `; did you mean '${nearest}'?` : known.length > 0 ? ` (known: ${known.join(", ")})` : "";
      printk(KERN_ERR, `${type.name}: unknown parameter '${name}'${hint}`);
      return undefined;
    }
    return params;
  };

  function* allocStruct(worker: Task, name: string): Sleeping<PhysAddr> {
    let struct = slab.kmalloc.kzalloc(worker.ctx, MODULE_BYTES, GFP_KERNEL);
    if (typeof struct === "object") struct = yield* struct;
    if (struct === NULL) return NULL;
    port.st32(struct + MODULE_STATE, MODULE_COMING);
    waits.init(asPhys(struct + MODULE_QUEUE));
    for (let i = 0; i < Math.min(name.length, 55); i++) port.st8(struct + MODULE_NAME + i, name.charCodeAt(i));
    return struct;
  }

  const createModule = (type: DriverType, struct: PhysAddr, params: ReadonlyMap<string, string>): Module | number => {
    const ledger = createDriverLedger(steps);
    const files = createDriverFiles(registry, waits, {
      tryGet() {
        if (stateOf(struct) === MODULE_GOING) return false;
        addRef(struct, 1);
        return true;
      },
      put: () => addRef(struct, -1),
      queue: asPhys(struct + MODULE_QUEUE),
    });
    const driver = type.create(createModuleView({ ...services, napi: deps.napi, registry: files }, ledger), params);
    return typeof driver === "number" ? driver : { name: type.name, driver, struct, ledger, files };
  };

  /** The end of a module: what it forgot is reported. */
  const unload = (worker: Task, module: Module): void => {
    const nodes = module.files.forgetAll();
    const forgotten = nodes.map((node) => `/dev/${node}`).join(", ");
    const leftovers = [module.ledger.leftovers(), forgotten].filter((part) => part !== null && part !== "").join(", ");
    if (reportLeftovers(printk, module.name, leftovers === "" ? null : leftovers)) nrReports++;
    loaded.delete(module.name);
    slab.kmalloc.kfree(worker.ctx, module.struct);
  };

  return {
    *insmod(worker, name, args) {
      const type = types.find((candidate) => candidate.name === name);
      if (type === undefined) return -ENOENT;
      if (loaded.has(name)) return -EEXIST;
      const params = readParams(type, args);
      if (params === undefined) return -EINVAL;
      const struct = yield* allocStruct(worker, name);
      if (struct === NULL) return -ENOMEM;
      const module = createModule(type, struct, params);
      if (typeof module === "number") {
        slab.kmalloc.kfree(worker.ctx, struct);
        return module;
      }
      loaded.set(name, module);
      const { nrBound, error } = yield* deps.bus().probeAll(worker, module);
      if (nrBound === 0) {
        port.st32(struct + MODULE_STATE, MODULE_GOING);
        if (error === 0) printk(KERN_ERR, `${name}: no device`);
        unload(worker, module);
        return error === 0 ? -ENODEV : error;
      }
      port.st32(struct + MODULE_DEVICES, nrBound);
      port.st32(struct + MODULE_STATE, MODULE_LIVE);
      return 0;
    },
    *rmmod(worker, name) {
      const module = loaded.get(name);
      if (module === undefined) return -ENOENT;
      const { struct } = module;
      if (stateOf(struct) !== MODULE_LIVE || refsOf(struct) > 0) return -EBUSY;
      port.st32(struct + MODULE_STATE, MODULE_GOING);
      const result = yield* deps.bus().removeAll(worker, module);
      if (result !== 0) {
        port.st32(struct + MODULE_STATE, MODULE_LIVE);
        return result;
      }
      unload(worker, module);
      return 0;
    },
    drivers: () => [...loaded.values()].filter(({ struct }) => stateOf(struct) === MODULE_LIVE),
    text: () =>
      [...loaded.values()]
        .reverse()
        .map(({ name, struct, ledger }) => {
          const bytes = MODULE_BYTES + ledger.bytesHeld();
          const state = STATE_NAMES[stateOf(struct)];
          return `${name} ${bytes} ${refsOf(struct)} - ${state} 0x${struct.toString(16).padStart(16, "0")}\n`;
        })
        .join(""),
    check() {
      for (const { name, struct, files, driver } of loaded.values()) {
        const [refs, open] = [refsOf(struct), files.nrOpen()];
        if (refs !== open) return `MOD-1: module ${name} has ${refs} references and ${open} open files`;
        const broken = driver.check?.() ?? null;
        if (broken !== null) return broken;
      }
      return null;
    },
    nrReports: () => nrReports,
  };
}
