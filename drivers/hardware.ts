/**
 * Hardware: what a driver finds on the bus, and what a device model is made of.
 *
 *   driver ──registers──▶ ┌ device ─────────────┐ ──acts at virtual times──▶ events
 *          ◀──irq line─── │ model (host object)  │ ──master──▶ RAM, where the bus lets it
 *                         └──────────────────────┘
 *
 * A model is a host object with registers; it holds no RAM of the machine and touches RAM through its bus master only.
 * All of its doors to the machine are in DeviceEnv, which knows whether the device is still there: once it has
 * vanished (pulled out, or broken), its registers read all ones, stores to them are lost, its line is quiet, and what
 * it had planned does not happen. Plugged in again, it is as at power-on.
 *
 *   HW-1  a device that is gone has no effect on the machine
 *   HW-2  a device acts only at the register accesses of its driver and at events it planned through its DeviceEnv
 *
 * Real kernels: PCI answers reads of a missing device with all ones (PCI_ERROR_RESPONSE, include/linux/pci.h).
 */

import { CYC_MMIO } from "../kernel/arch/charges.ts";
import type { BusMaster } from "../kernel/arch/dma_bus.ts";
import { E820_RAM } from "../kernel/arch/firmware_map.ts";
import type { Machine } from "../kernel/arch/machine.ts";
import type { Prng } from "../kernel/lib/prng.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import { asPhys } from "../kernel/types.ts";
import { createFaultModel, FAULT_KINDS, type FaultKind, type FaultModel, parseFaultRule } from "./fault_model.ts";

/** What a register of a missing device reads as. */
export const ALL_ONES = 0xffff_ffff;

/** Memory-mapped registers, 32 bits each, at byte offsets. Any context. */
export interface DeviceRegisters {
  ld32(register: number): number;
  st32(register: number, value: number): void;
}

/** A device as its driver and the bus see it. */
export interface Hardware {
  readonly name: string;
  /** Which driver fits: the name of a DriverType. */
  readonly compatible: string;
  /** Its interrupt line. */
  readonly line: number;
  readonly registers: DeviceRegisters;
  /** Its way to RAM: what a driver gives to dma.createDevice. */
  readonly master: BusMaster;
  readonly faults: FaultModel;
  /** False once it was pulled out or has vanished. */
  isPresent(): boolean;
  /** Pulls it out. */
  unplug(): void;
  /** Plugs it in, as at power-on; nothing if it is there. */
  plug(): void;
}

/** One setting of a device in a scenario or in BootOptions.devices. */
export interface DeviceSetting {
  /** `number`: a whole number in [min, max]. `fault`: a probability in [0, 1], or `#N` for the N-th occurrence. */
  readonly kind: "number" | "fault";
  readonly min: number;
  readonly max: number;
  readonly fallback: number;
  /** One line: what it is, with its unit. */
  readonly meaning: string;
}

export type DeviceSettingTable = Readonly<Record<string, DeviceSetting>>;

/** Settings of one device as the user wrote them. */
export type DeviceSettings = Readonly<Record<string, number | string>>;

/** RAM as a host sees it that backs it. */
export interface GuestRam {
  readonly nrFrames: number;
  /** Throws the content of frames away: until they are written they hold DISCARDED bytes. */
  discard(first: number, nr: number): void;
  /** Is the frame still as discard() left it? */
  isDiscarded(frame: number): boolean;
}

/** What a model has of the machine. */
export interface DeviceEnv {
  readonly name: string;
  readonly faults: FaultModel;
  /** The device's own random stream. */
  readonly random: Prng;
  /** Value of a number setting. */
  setting(name: string): number;
  /** Moment of the act: of the event that fires, or of the register access. */
  now(): number;
  /** Does `act` after `delay` cycles unless the device is gone or reset by then. */
  after(delay: number, act: () => void): void;
  /** The device's way to RAM, refused once it is gone. */
  readonly master: BusMaster;
  /** What a host does with the memory of a virtual machine, past the bus. For devices that are its part here. */
  readonly guest: GuestRam;
  /** Asserts or releases the interrupt line. */
  setIrq(isAsserted: boolean): void;
  /** The device is gone from here on. */
  vanish(): void;
}

/** A device model: its registers and its reset. Built by a DeviceKind. */
export interface DeviceModel extends DeviceRegisters {
  /** Back to power-on; what was planned is forgotten already. */
  reset(): void;
}

/** A type of device: its settings, the faults it can have, and its model. */
export interface DeviceKind {
  readonly compatible: string;
  readonly settings: DeviceSettingTable;
  readonly faults: readonly FaultKind[];
  create(env: DeviceEnv): DeviceModel;
}

const FAULT_MEANINGS: Readonly<Record<FaultKind, string>> = {
  lost_irq: "the interrupt of an act never comes",
  late: "an act comes late by late_cycles",
  corrupt: "an act ends with an error or with wrong bytes",
  twice: "an act is reported twice",
  never: "an act never ends",
  vanish: "the device is gone from this act on",
  stray_write: "the device writes outside its mapping",
};

/** A number setting. */
export function numberSetting(min: number, max: number, fallback: number, meaning: string): DeviceSetting {
  return { kind: "number", min, max, fallback, meaning };
}

/** All settings of a kind: its own, and those of its faults. */
export function settingsOf(kind: DeviceKind): DeviceSettingTable {
  const faults = kind.faults.map((fault): [string, DeviceSetting] => [
    fault,
    { kind: "fault", min: 0, max: 1, fallback: 0, meaning: FAULT_MEANINGS[fault] },
  ]);
  const late: [string, DeviceSetting][] = kind.faults.includes("late")
    ? [["late_cycles", numberSetting(1, 1_000_000_000, 1_000_000, "how late the fault `late` makes an act, cycles")]]
    : [];
  return { ...kind.settings, ...Object.fromEntries(faults), ...Object.fromEntries(late) };
}

const DISCARDED = 0xd1;
const DISCARDED_WORD = DISCARDED * 0x0101_0101;

function guestRam({ port, firmwareMap }: Pick<Machine, "port" | "firmwareMap">): GuestRam {
  const ends = firmwareMap.filter(({ type }) => type === E820_RAM).map(({ end }) => end);
  return {
    nrFrames: Math.floor(Math.max(...ends) / PAGE_SIZE),
    discard: (first, nr) => port.fill(asPhys(first * PAGE_SIZE), DISCARDED, nr * PAGE_SIZE),
    isDiscarded(frame) {
      for (let at = frame * PAGE_SIZE; at < (frame + 1) * PAGE_SIZE; at += 4) {
        if (port.ld32(asPhys(at)) !== DISCARDED_WORD) return false;
      }
      return true;
    },
  };
}

/** What is wrong with a setting's value; null if nothing. */
export function settingProblem(setting: DeviceSetting, value: number | string): string | null {
  if (setting.kind === "fault") {
    return parseFaultRule(value) === undefined ? "expected a probability from 0 to 1, or #N" : null;
  }
  const isGood = Number.isInteger(value) && Number(value) >= setting.min && Number(value) <= setting.max;
  return isGood ? null : `expected a whole number from ${setting.min} to ${setting.max}`;
}

/** The master as the model has it: a device that is gone drives no wires, so there is nothing to report. */
const whilePresent = (master: BusMaster, isPresent: () => boolean): BusMaster => ({
  name: master.name,
  read: (bus, bytes) => (isPresent() ? master.read(bus, bytes) : null),
  view: (bus, bytes) => (isPresent() ? master.view(bus, bytes) : null),
  write: (bus, source) => isPresent() && master.write(bus, source),
  ld32: (bus) => (isPresent() ? master.ld32(bus) : null),
  st32: (bus, value) => isPresent() && master.st32(bus, value),
});

/** Builds a device at power-on. Throws for a setting that the kind does not have, or a bad value. */
export function createHardware(
  machine: Machine,
  kind: DeviceKind,
  place: { readonly name: string; readonly line: number },
  settings: DeviceSettings = {},
): Hardware {
  const { name, line } = place;
  const { events, irqChip, harts, random } = machine;
  const table = settingsOf(kind);
  for (const [setting, value] of Object.entries(settings)) {
    const known = table[setting];
    const problem = known === undefined ? `known are ${Object.keys(table).join(", ")}` : settingProblem(known, value);
    if (problem !== null) throw new Error(`device ${name}: setting ${setting}=${value}: ${problem}`);
  }
  const rules = Object.fromEntries(
    FAULT_KINDS.flatMap((fault) => (fault in settings ? [[fault, settings[fault]]] : [])),
  );
  const faults = createFaultModel((fault) => random.stream(`${name}:${fault}`), rules);
  let isPresent = true;
  /** Counts power-ons: what was planned before the last one does not happen. */
  let life = 0;

  const vanish = (): void => {
    isPresent = false;
    life++;
    setIrq(false);
  };
  const setIrq = (isAsserted: boolean): void => {
    irqChip.setLevel(line, isAsserted && isPresent);
  };
  const charge = (): void => {
    const cpu = harts.current[0] as number;
    harts.clock[cpu] = (harts.clock[cpu] as number) + CYC_MMIO;
  };
  const now = (): number => (events.isFiring() ? events.now() : (harts.clock[harts.current[0] as number] as number));
  const master = machine.dmaBus.attach(name);
  const model = kind.create({
    name,
    faults,
    master: whilePresent(master, () => isPresent),
    guest: guestRam(machine),
    get random() {
      return random.stream(name);
    },
    setting: (setting) => Number(settings[setting] ?? table[setting]?.fallback),
    now,
    after(delay, act) {
      const planned = life;
      events.at(now() + delay, () => {
        if (planned === life) act();
      });
    },
    setIrq,
    vanish,
  });

  return {
    name,
    compatible: kind.compatible,
    line,
    faults,
    master,
    registers: {
      ld32: (register) => {
        charge();
        return isPresent ? model.ld32(register) >>> 0 : ALL_ONES;
      },
      st32: (register, value) => {
        charge();
        if (isPresent) model.st32(register, value >>> 0);
      },
    },
    isPresent: () => isPresent,
    unplug: vanish,
    plug() {
      if (isPresent) return;
      isPresent = true;
      model.reset();
    },
  };
}
