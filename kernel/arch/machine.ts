/**
 * The machine: RAM, CPUs, interrupt controller, MMU and random streams, as one thing that can be saved.
 *
 * A saved machine is a copy of RAM, of the CPUs' registers and TLBs, and of the random streams. What the host holds
 * besides (program generators, device models) is not here; see `docs/adr/0003-save-and-restore.md`.
 *
 *   IMG-4  restore() refuses an image that was saved while a device had an act planned, and to put one back while a
 *          device has one planned now: plans are host objects, no image has them
 */

import { createRandomStreams, type RandomState, type RandomStreams } from "../lib/prng.ts";
import { MAX_CPUS, MIN_RAM_BYTES, PAGE_SIZE } from "../params.ts";
import { createDmaBus, type DmaBus } from "./dma_bus.ts";
import { createDeviceEvents, type DeviceEvents } from "./events.ts";
import { type FirmwareRegion, pcFirmwareMap, ramPageMap } from "./firmware_map.ts";
import { type CpuGuard, GuardPort } from "./guard_port.ts";
import { createHarts, type Harts } from "./harts.ts";
import { InjectPort } from "./inject_port.ts";
import { createIommu, type Iommu } from "./iommu.ts";
import { createIrqChip, type IrqChip } from "./irqchip.ts";
import { type MachineSums, type RegisterFile, sumMachine } from "./machine_sums.ts";
import { createMmu, type Mmu } from "./mmu.ts";
import { BoundsPort, createRam, type MemoryPort, type RamBuffer, RawPort } from "./port.ts";
import { ThreadPort } from "./thread_port.ts";

/** Which port class kernel code reaches RAM through (port.ts, thread_port.ts; inject and guard stand around bounds). */
export type PortKind = "raw" | "bounds" | "threads" | "inject" | "guard";
/** Makes a port of another class over the machine's RAM. */
export type PortFactory = (ram: RamBuffer) => MemoryPort;

export interface MachineConfig {
  /** 1 … 64. */
  readonly nrCpus: number;
  /** A multiple of the page size, 8 MiB … 4 GiB. */
  readonly ramBytes: number;
  readonly seed: string;
  readonly port: PortKind | PortFactory;
  /** RAM that the host provides, zeroed, `ramBytes` long: shared with other threads. Default: the machine's own. */
  readonly ram?: RamBuffer | undefined;
  /** Compare what TLBs have with the tables, at each access of a process. */
  readonly debugTlb?: boolean;
}

export interface Machine {
  readonly config: MachineConfig;
  readonly port: MemoryPort;
  readonly firmwareMap: readonly FirmwareRegion[];
  readonly harts: Harts;
  readonly irqChip: IrqChip;
  readonly mmu: Mmu;
  /** What devices will do later. */
  readonly events: DeviceEvents;
  /** How devices reach RAM. */
  readonly dmaBus: DmaBus;
  /** Page tables between devices and RAM, for those that are put behind it. */
  readonly iommu: Iommu;
  /** Knows what devices own, on a machine with a guard port; else null. */
  readonly guard: CpuGuard | null;
  readonly random: RandomStreams;
  /** A copy. With `into`, an image of this machine that is needed no more, its buffers are used again. */
  save(into?: MachineImage): MachineImage;
  /** Puts a saved machine of the same configuration back, in place. Throws where that would lose something (IMG-4). */
  restore(image: MachineImage): void;
  /** Checksums of RAM, registers and random streams. */
  sums(): MachineSums;
}

type Words = Uint8Array | Uint32Array | Int32Array | Float64Array;

export interface MachineImage {
  readonly ram: Uint8Array;
  readonly registers: readonly Words[];
  readonly random: RandomState;
  /** Time of the latest act of a device, and how many were planned. */
  readonly deviceTime: number;
  readonly nrPlanned: number;
}

const HINT = "restore between acts, or run again up to the point (docs/adr/0009-time-travel.md)";
const acts = (nr: number): string => (nr === 1 ? "a device had an act planned" : `devices had ${nr} acts planned`);

function createPort(kind: MachineConfig["port"], ram: RamBuffer, map: readonly FirmwareRegion[]): MemoryPort {
  if (typeof kind === "function") return kind(ram);
  if (kind === "bounds" || kind === "inject" || kind === "guard") {
    const bounds = new BoundsPort(ram, ramPageMap(map, ram.byteLength));
    if (kind === "guard") return new GuardPort(bounds);
    return kind === "bounds" ? bounds : new InjectPort(bounds);
  }
  return kind === "threads" ? new ThreadPort(ram) : new RawPort(ram);
}

/** Builds a machine at power-on: RAM zeroed, one CPU online, clocks at 0. */
export function createMachine(config: MachineConfig): Machine {
  const { nrCpus, ramBytes, seed } = config;
  if (!Number.isInteger(nrCpus) || nrCpus < 1 || nrCpus > MAX_CPUS) throw new Error(`machine: ${nrCpus} CPUs`);
  if (ramBytes % PAGE_SIZE !== 0 || ramBytes < MIN_RAM_BYTES) throw new Error(`machine: ${ramBytes} bytes of RAM`);

  const firmwareMap = pcFirmwareMap(ramBytes);
  const ram = config.ram ?? createRam(ramBytes);
  if (ram.byteLength !== ramBytes) throw new Error(`machine: ${ram.byteLength} bytes given as ${ramBytes} of RAM`);
  const port = createPort(config.port, ram, firmwareMap);
  const harts = createHarts(nrCpus);
  const events = createDeviceEvents();
  const irqChip = createIrqChip(harts, events);
  const mmu = createMmu(port, harts, config.debugTlb);
  const random = createRandomStreams(seed);
  harts.online[0] = 1;

  const files: readonly RegisterFile[] = [
    { name: "clock", words: harts.clock },
    { name: "interrupt flag", words: harts.irqOn },
    { name: "pending lines", words: harts.pending },
    { name: "timer deadline", words: harts.timerDeadline },
    { name: "page table root", words: harts.satpRoot },
    { name: "address space", words: harts.satpAsid },
    { name: "online", words: harts.online },
    { name: "current CPU", words: harts.current },
    ...irqChip.registers.map((words) => ({ name: "interrupt controller", words })),
    { name: "page walks", words: mmu.walks },
    ...mmu.tlbWords.map((words) => ({ name: "TLB", words })),
  ];
  const registers: readonly Words[] = files.map(({ words }) => words);
  const ramBytesView = new Uint8Array(ram);
  const checkShape = ({ ram: image, registers: saved }: MachineImage): void => {
    if (image.length !== ramBytes) throw new Error("machine: the image is of another RAM size");
    const isAlike =
      saved.length === registers.length && saved.every((words, i) => words.length === registers[i]?.length);
    if (!isAlike) throw new Error("machine: the image is of a machine with other CPUs");
  };

  return {
    config,
    port,
    firmwareMap,
    harts,
    irqChip,
    mmu,
    events,
    iommu: createIommu(ram),
    guard: port instanceof GuardPort ? port.guard : null,
    dmaBus: createDmaBus(ram, ramPageMap(firmwareMap, ramBytes)),
    random,
    save(into) {
      if (into !== undefined) checkShape(into);
      into?.ram.set(ramBytesView);
      into?.registers.forEach((words, i) => {
        words.set(registers[i] as Words);
      });
      return {
        ram: into?.ram ?? ramBytesView.slice(),
        registers: into?.registers ?? registers.map((words) => words.slice()),
        random: random.save(),
        deviceTime: events.now(),
        nrPlanned: events.nrPending(),
      };
    },
    restore(image) {
      checkShape(image);
      if (image.nrPlanned > 0) throw new Error(`machine: ${acts(image.nrPlanned)} when the image was saved; ${HINT}`);
      if (events.nrPending() > 0) throw new Error(`machine: ${acts(events.nrPending())} at restore; ${HINT}`);
      ramBytesView.set(image.ram);
      registers.forEach((words, i) => {
        words.set(image.registers[i] as Words);
      });
      random.restore(image.random);
      events.restart(image.deviceTime);
    },
    sums: () => sumMachine(ram, files, random.save()),
  };
}
