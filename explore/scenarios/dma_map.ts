/**
 * Scenario: bounce buffers (mm/swiotlb.ts) between drivers on two CPUs, an interrupt that maps too, and a device.
 *
 * The device is the program of the last CPU: it waits for a doorbell, reads the buffer at its bus address, writes every
 * word incremented, and says that it is done. A driver fills a buffer, maps it, rings, waits, unmaps, and looks at
 * what came back. Only a few slots are free, so that mappings fail and slots change hands.
 *
 *   driver  fill ─ map ─ ring ──────────────── wait ─ unmap ─ look
 *   device               └▶ read ─ write ─ done ─┘
 */

import { asDma, asPhys, type Context, type DmaAddr, type PhysAddr } from "../../kernel/types.ts";
import {
  CMA_BYTES,
  createCma,
  createDmaSubsystem,
  DMA_BIDIRECTIONAL,
  DMA_MAPPING_ERROR,
  DMA_STATIC_BYTES,
  DMA_TO_DEVICE,
  type DmaDevice,
  GFP_NOWAIT,
  type Swiotlb,
} from "../../mm/index.ts";
import type { BuildOptions, Mutant, Operation, Scenario, ScenarioWorld } from "../scenario.ts";
import { createObjectWorld, type ObjectWorld, type Parts, withoutLocks } from "../world.ts";

/** Two words: enough to see a torn or stale copy. */
const BUFFER_BYTES = 8;
const SLOT_BYTES = 2048;
/** Slots that the scenario leaves free. */
const NR_FREE_SLOTS = 2;
/** Of a doorbell: bus address of the buffer; 1 when the device has finished. A line for each CPU. */
const RING = 0;
const DONE = 4;
const DOORBELL_BYTES = 64;

const MUTANTS: readonly Mutant[] = [
  {
    name: "look-before-unmap",
    story: "the driver reads its buffer before it unmaps it: what the device wrote is not there yet",
    kinds: ["invariant"],
    bound: 0,
  },
  {
    name: "fill-after-map",
    story: "the driver fills its buffer after mapping it: the device gets what was there before",
    kinds: ["invariant"],
    bound: 0,
  },
  {
    name: "unmap-early",
    story: "the driver unmaps before the device has finished: the slot gets another owner",
    kinds: ["race", "invariant"],
    bound: 0,
  },
  {
    name: "ring-plain",
    story: "the doorbell is a plain store: nothing orders the buffer before it",
    kinds: ["race"],
    bound: 0,
  },
  {
    name: "slots-unlocked",
    story: "slots are taken without the lock",
    kinds: ["race", "invariant", "oops"],
    bound: 1,
    programs: ["mu", "mu"],
    irqs: 0,
  },
];

function plant(mutant: string): ((parts: Parts) => Parts) | undefined {
  return mutant === "slots-unlocked" ? withoutLocks : undefined;
}

interface Bench {
  readonly world: ObjectWorld;
  readonly swiotlb: Swiotlb;
  readonly dev: DmaDevice;
  readonly doorbell: (cpu: number) => number;
  readonly buffer: (cpu: number) => PhysAddr;
  /** Something to send, of nobody in particular. */
  readonly spare: PhysAddr;
  readonly mutant: string;
}

const seedOf = (cpu: number): number => 0x100 * (cpu + 1);

/** One transfer, from the driver's side. */
function transfer({ world, swiotlb, dev, doorbell, buffer, mutant }: Bench, ctx: Context): string | undefined {
  const { port } = world;
  const [mem, bell, seed] = [buffer(ctx.cpu), doorbell(ctx.cpu), seedOf(ctx.cpu)];
  const fill = (): void => {
    for (let at = 0; at < BUFFER_BYTES; at += 4) port.st32(mem + at, seed + at);
  };
  const look = (): string | undefined => {
    for (let at = 0; at < BUFFER_BYTES; at += 4) {
      const found = port.ld32(mem + at);
      if (found !== seed + at + 1) return `DMA: the driver of CPU ${ctx.cpu} reads ${found}, not ${seed + at + 1}`;
    }
    return undefined;
  };
  const map = (): DmaAddr => swiotlb.map(ctx, dev, mem, BUFFER_BYTES, DMA_BIDIRECTIONAL);
  if (mutant !== "fill-after-map") fill();
  const dma = map();
  if (mutant === "fill-after-map") fill();
  if (dma === DMA_MAPPING_ERROR) {
    // The device is told that nothing comes.
    port.stAtomic(bell + RING, 1);
    return undefined;
  }
  if (mutant === "ring-plain") port.st32(bell + RING, dma);
  else port.stAtomic(bell + RING, dma);
  const unmap = (): void => swiotlb.unmap(ctx, dev, dma, BUFFER_BYTES, DMA_BIDIRECTIONAL);
  if (mutant === "unmap-early") unmap();
  world.port.waitUntil(bell + DONE, 1, true);
  const early = mutant === "look-before-unmap" ? look() : undefined;
  if (mutant !== "unmap-early") unmap();
  return early ?? (mutant === "look-before-unmap" ? undefined : look());
}

/** The device serves the driver of one CPU. */
function serve({ world, doorbell }: Bench, cpu: number): void {
  const { port } = world;
  const bell = doorbell(cpu);
  port.waitUntil(bell + RING, 0, false);
  const dma = port.ldAtomic(bell + RING);
  if (dma !== 1) for (let at = 0; at < BUFFER_BYTES; at += 4) port.st32(dma + at, port.ld32(dma + at) + 1);
  port.stAtomic(bell + DONE, 1);
}

function operationsOf(bench: Bench): ReadonlyMap<string, Operation> {
  const { swiotlb, dev, spare } = bench;
  const serving =
    (cpu: number): Operation =>
    () => {
      serve(bench, cpu);
      return undefined;
    };
  return new Map<string, Operation>([
    ["t", (ctx) => transfer(bench, ctx)],
    [
      "m",
      (ctx, held) => {
        const dma = swiotlb.map(ctx, dev, spare, BUFFER_BYTES, DMA_TO_DEVICE);
        if (dma !== DMA_MAPPING_ERROR) held.push(dma);
        return undefined;
      },
    ],
    [
      "u",
      (ctx, held) => {
        const dma = held.shift();
        if (dma !== undefined) swiotlb.unmap(ctx, dev, asDma(dma), BUFFER_BYTES, DMA_TO_DEVICE);
        return undefined;
      },
    ],
    ["0", serving(0)],
    ["1", serving(1)],
  ]);
}

function build({ nrCpus, mutant }: BuildOptions): ScenarioWorld {
  const world = createObjectWorld({ nrCpus, plant: plant(mutant) });
  const { machine, contexts, spinlocks, printk, pageAlloc, pages, image, slab, ctx, names } = world;
  const cma = createCma({ ...world, area: null, state: image.bss("cma", CMA_BYTES, 8) });
  const system = createDmaSubsystem({
    machine,
    contexts,
    spinlocks,
    printk,
    pageAlloc,
    kmalloc: slab.kmalloc,
    cma,
    image,
    pages,
    isDebug: false,
    isIommu: false,
    swiotlbBytes: 1,
    statics: image.bss("dma", DMA_STATIC_BYTES, 8),
  });
  system.init(ctx);
  const { swiotlb } = system;
  const master = machine.dmaBus.attach("explored");
  const dev = system.dma.createDevice(ctx, { name: "explored", driver: "explore", master });
  const memory = slab.kmalloc.kmallocAny(ctx, DOORBELL_BYTES * (2 * nrCpus + 1), GFP_NOWAIT) as PhysAddr;
  const doorbell = (cpu: number): number => memory + cpu * DOORBELL_BYTES;
  const buffer = (cpu: number): PhysAddr => asPhys(memory + (nrCpus + cpu) * DOORBELL_BYTES);
  machine.port.fill(memory, 0, DOORBELL_BYTES * (2 * nrCpus + 1));
  for (let cpu = 0; cpu < nrCpus; cpu++) {
    names.add(doorbell(cpu), 8, `doorbell[${cpu}]`, { [RING]: "ring", [DONE]: "done" });
    names.add(buffer(cpu), BUFFER_BYTES, `buffer[${cpu}]`);
  }
  // All slots but a few are taken by somebody else.
  const filler = pageAlloc.tryAllocPages(ctx, 0, GFP_NOWAIT) * 4096;
  for (let nr = swiotlb.nslabs() - NR_FREE_SLOTS; nr > 0; nr--) {
    swiotlb.map(ctx, dev, asPhys(filler), SLOT_BYTES, DMA_BIDIRECTIONAL);
  }
  const used = swiotlb.used();
  for (let i = 0; i < NR_FREE_SLOTS; i++) {
    const at = swiotlb.map(ctx, dev, asPhys(filler), SLOT_BYTES, DMA_BIDIRECTIONAL);
    names.add(at, SLOT_BYTES, `slot ${i}`);
    swiotlb.unmap(ctx, dev, at, SLOT_BYTES, DMA_BIDIRECTIONAL);
  }
  const bench: Bench = { world, swiotlb, dev, doorbell, buffer, spare: buffer(nrCpus), mutant };
  return {
    world,
    operations: operationsOf(bench),
    check(held) {
      const fault = swiotlb.check();
      if (fault !== null) return fault;
      const wanted = used + held.flat().length;
      return swiotlb.used() === wanted ? null : `SWI-5: ${swiotlb.used()} slots are taken, ${wanted} are mapped`;
    },
  };
}

export const dmaMap: Scenario = {
  name: "dma-map",
  about: "drivers on two CPUs that map bounce buffers, interrupts that do, and a device that works on them",
  cpus: 3,
  maxCpus: 4,
  operations: new Map([
    ["t", "a transfer: fill, map, ring, wait, unmap, look"],
    ["m", "map"],
    ["u", "unmap what was mapped first"],
    ["0", "the device serves CPU 0"],
    ["1", "the device serves CPU 1"],
  ]),
  programs: (nrCpus) =>
    nrCpus < 3 ? ["mu", "mu"].slice(0, nrCpus) : ["t", "t", "01", ...Array.from({ length: nrCpus - 3 }, () => "mu")],
  randomLetters: "mu",
  irqProgram: "mu",
  irqs: 1,
  hasLocks: true,
  mutants: MUTANTS,
  build,
};
