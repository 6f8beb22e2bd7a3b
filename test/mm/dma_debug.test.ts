/**
 * dma-debug: what a driver can do wrong with the DMA API, each mistake caught with its exact text.
 *
 * Goal: D4, BUGS row 23, DBG-1 … DBG-4. Method: a table of small drivers. Each row is a driver with one mistake, the
 * line that it must produce, and its clean twin, which must be silent. The log may hold nothing else that starts
 * "DMA-API:".
 */

import { describe, expect, it } from "vitest";
import { createFileRegistry } from "../../kernel/file.ts";
import { TASK_STACK, TASK_STRUCT_BYTES } from "../../kernel/task_struct.ts";
import { asDma, asPhys, type PhysAddr, physToPfn } from "../../kernel/types.ts";
import type { DmaDevice } from "../../mm/dma_device.ts";
import type { DmaDeviceSpec } from "../../mm/dma_devices.ts";
import { registerDmaFiles } from "../../mm/dma_files.ts";
import {
  DMA_BIDIRECTIONAL,
  DMA_FROM_DEVICE,
  DMA_MAPPING_ERROR,
  DMA_TO_DEVICE,
  type DmaDirection,
} from "../../mm/dma_ops.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { PRIVATE_IS_VMALLOC } from "../../mm/vmalloc.ts";
import { coherent, createDmaWorld, type DmaWorld, finishSleeping } from "../support/dma_world.ts";

interface Row {
  /** The violation, as REFERENCE D4 names it. */
  readonly bug: string;
  readonly spec?: Partial<DmaDeviceSpec>;
  /** Plays the driver; the buffer is 8 KiB. With `isClean` it does it right. */
  readonly driver: (w: DmaWorld, dev: DmaDevice, buffer: PhysAddr, isClean: boolean) => void;
  readonly text: RegExp;
}

const map = (w: DmaWorld, dev: DmaDevice, addr: PhysAddr, bytes: number, dir: DmaDirection): number => {
  const dma = w.dma.mapSingle(w.ctx, dev, addr, bytes, dir);
  expect(w.dma.mappingError(dev, dma)).toBe(dma === DMA_MAPPING_ERROR);
  return dma;
};
const unmap = (w: DmaWorld, dev: DmaDevice, dma: number, bytes: number, dir: DmaDirection): void =>
  w.dma.unmapSingle(w.ctx, dev, asDma(dma), bytes, dir);

/** Makes the boot context a task whose kernel stack is `stack`. */
const becomeTask = (w: DmaWorld, stack: PhysAddr): void => {
  const task = w.slab.kmalloc.kmallocAny(w.ctx, TASK_STRUCT_BYTES, GFP_KERNEL | 0x100) as PhysAddr;
  // Its frames say which pages of the window they are, as vmalloc has it.
  w.machine.port.st32(task + TASK_STACK, 1);
  w.pages.setPrivate(physToPfn(stack), PRIVATE_IS_VMALLOC | 1);
  w.contexts.setCurrentTask(0, task);
};

const ROWS: readonly Row[] = [
  {
    bug: "frees what it has not allocated",
    driver: (w, dev, buffer, isClean) => {
      const dma = isClean ? map(w, dev, buffer, 256, DMA_TO_DEVICE) : buffer;
      unmap(w, dev, dma, 256, DMA_TO_DEVICE);
    },
    text: /tries to free DMA memory it has not allocated \[device address=0x0{8}\w{8}\] \[size=256 bytes\]$/,
  },
  {
    bug: "unmaps twice",
    driver: (w, dev, buffer, isClean) => {
      const dma = map(w, dev, buffer, 256, DMA_TO_DEVICE);
      unmap(w, dev, dma, 256, DMA_TO_DEVICE);
      if (!isClean) unmap(w, dev, dma, 256, DMA_TO_DEVICE);
    },
    text: /tries to free DMA memory it has not allocated \[device address=0x\w{16}\] \[size=256 bytes\]$/,
  },
  {
    bug: "unmaps an error",
    driver: (w, dev, buffer, isClean) => {
      const dma = map(w, dev, buffer, 256, DMA_TO_DEVICE);
      unmap(w, dev, dma, 256, DMA_TO_DEVICE);
      if (!isClean) unmap(w, dev, DMA_MAPPING_ERROR, 256, DMA_TO_DEVICE);
    },
    text: /: device driver tries to free an invalid DMA memory address$/,
  },
  {
    bug: "different size",
    driver: (w, dev, buffer, isClean) => {
      const dma = map(w, dev, buffer, 256, DMA_TO_DEVICE);
      unmap(w, dev, dma, isClean ? 256 : 128, DMA_TO_DEVICE);
    },
    text: /frees DMA memory with different size \[device address=0x\w{16}\] \[map size=256 bytes\] \[unmap size=128 bytes\]$/,
  },
  {
    bug: "wrong function",
    driver: (w, dev, buffer, isClean) => {
      const sgl = asPhys(buffer + 4096);
      w.dma.sgSet(sgl, 0, buffer, 256);
      expect(w.dma.mapSg(w.ctx, dev, sgl, 1, DMA_TO_DEVICE)).toBe(1);
      if (isClean) w.dma.unmapSg(w.ctx, dev, sgl, 1, DMA_TO_DEVICE);
      else unmap(w, dev, w.dma.sgDmaAddress(sgl, 0), 256, DMA_TO_DEVICE);
    },
    text: /with wrong function \[device address=0x\w{16}\] \[size=256 bytes\] \[mapped as scatter-gather\] \[unmapped as single\]$/,
  },
  {
    bug: "different CPU address",
    driver: (w, dev, _buffer, isClean) => {
      const memory = coherent(w, dev, 4096);
      if (memory === null) throw new Error("no memory");
      const cpu = isClean ? memory.cpu : asPhys(memory.cpu + 4096);
      w.dma.freeCoherent(w.ctx, dev, 4096, cpu, memory.dma);
    },
    text: /with different CPU address \[device address=0x\w{16}\] \[size=4096 bytes\] \[cpu alloc address=0x\w{16}\] \[cpu free address=0x\w{16}\]$/,
  },
  {
    bug: "different direction",
    driver: (w, dev, buffer, isClean) => {
      const dma = map(w, dev, buffer, 256, DMA_TO_DEVICE);
      unmap(w, dev, dma, 256, isClean ? DMA_TO_DEVICE : DMA_BIDIRECTIONAL);
    },
    text: /with different direction \[device address=0x\w{16}\] \[size=256 bytes\] \[mapped with DMA_TO_DEVICE\] \[unmapped with DMA_BIDIRECTIONAL\]$/,
  },
  {
    bug: "different number of entries",
    driver: (w, dev, buffer, isClean) => {
      const sgl = asPhys(buffer + 4096);
      w.dma.sgSet(sgl, 0, buffer, 256);
      w.dma.sgSet(sgl, 1, asPhys(buffer + 1024), 256);
      expect(w.dma.mapSg(w.ctx, dev, sgl, 2, DMA_TO_DEVICE)).toBe(2);
      w.dma.unmapSg(w.ctx, dev, sgl, isClean ? 2 : 1, DMA_TO_DEVICE);
      if (!isClean) unmap(w, dev, w.dma.sgDmaAddress(sgl, 1), 256, DMA_TO_DEVICE);
    },
    text: /: device driver frees DMA sg list with different entry count \[map count=2\] \[unmap count=1\]$/,
  },
  {
    bug: "map error not checked",
    driver: (w, dev, buffer, isClean) => {
      const dma = w.dma.mapSingle(w.ctx, dev, buffer, 256, DMA_TO_DEVICE);
      if (isClean) w.dma.mappingError(dev, dma);
      unmap(w, dev, dma, 256, DMA_TO_DEVICE);
    },
    text: /: device driver failed to check map error\[device address=0x\w{16}\] \[size=256 bytes\] \[mapped as single\]$/,
  },
  {
    bug: "maps from the stack",
    driver: (w, dev, buffer, isClean) => {
      becomeTask(w, asPhys(buffer + (isClean ? 4096 : 0)));
      unmap(w, dev, map(w, dev, buffer, 256, DMA_TO_DEVICE), 256, DMA_TO_DEVICE);
    },
    text: /: device driver maps memory from stack \[addr=0x\w{16}\]$/,
  },
  {
    bug: "maps from the kernel image",
    driver: (w, dev, buffer, isClean) => {
      const addr = isClean ? buffer : asPhys(0x10_0040);
      unmap(w, dev, map(w, dev, addr, 64, DMA_TO_DEVICE), 64, DMA_TO_DEVICE);
    },
    text: /: device driver maps memory from kernel text or rodata \[addr=0x0{10}100040\] \[len=64\]$/,
  },
  {
    bug: "maps what is no RAM",
    driver: (w, dev, buffer, isClean) => {
      const dma = map(w, dev, isClean ? buffer : asPhys(0xa_0000), 64, DMA_TO_DEVICE);
      if (isClean) unmap(w, dev, dma, 64, DMA_TO_DEVICE);
    },
    text: /: device driver maps memory from invalid area \[addr=0x0{11}a0000\] \[len=64\]$/,
  },
  {
    bug: "syncs what it has not allocated",
    driver: (w, dev, buffer, isClean) => {
      const dma = isClean ? map(w, dev, buffer, 256, DMA_FROM_DEVICE) : buffer;
      w.dma.syncSingleForCpu(w.ctx, dev, asDma(dma), 64, DMA_FROM_DEVICE);
      if (isClean) unmap(w, dev, dma, 256, DMA_FROM_DEVICE);
    },
    text: /tries to sync DMA memory it has not allocated \[device address=0x\w{16}\] \[size=64 bytes\]$/,
  },
  {
    bug: "syncs outside the range",
    driver: (w, dev, buffer, isClean) => {
      const dma = map(w, dev, buffer, 256, DMA_FROM_DEVICE);
      w.dma.syncSingleForCpu(w.ctx, dev, asDma(dma + 128), isClean ? 128 : 192, DMA_FROM_DEVICE);
      unmap(w, dev, dma, 256, DMA_FROM_DEVICE);
    },
    text: /syncs DMA memory outside allocated range \[device address=0x\w{16}\] \[allocation size=256 bytes\] \[sync offset\+size=320\]$/,
  },
  {
    bug: "syncs with another direction",
    driver: (w, dev, buffer, isClean) => {
      const dma = map(w, dev, buffer, 256, DMA_FROM_DEVICE);
      w.dma.syncSingleForCpu(w.ctx, dev, asDma(dma), 256, isClean ? DMA_FROM_DEVICE : DMA_TO_DEVICE);
      unmap(w, dev, dma, 256, DMA_FROM_DEVICE);
    },
    text: /syncs DMA memory with different direction \[device address=0x\w{16}\] \[size=256 bytes\] \[mapped with DMA_FROM_DEVICE\] \[synced with DMA_TO_DEVICE\]$/,
  },
  {
    bug: "syncs what the device only reads, for the CPU, as if it had written",
    driver: (w, dev, buffer, isClean) => {
      const dma = map(w, dev, buffer, 256, isClean ? DMA_FROM_DEVICE : DMA_TO_DEVICE);
      w.dma.syncSingleForCpu(w.ctx, dev, asDma(dma), 256, DMA_FROM_DEVICE);
      unmap(w, dev, dma, 256, isClean ? DMA_FROM_DEVICE : DMA_TO_DEVICE);
    },
    text: /syncs device read-only DMA memory for cpu \[device address=0x\w{16}\] \[size=256 bytes\] \[mapped with DMA_TO_DEVICE\] \[synced with DMA_FROM_DEVICE\]$/,
  },
  {
    bug: "syncs what the device only writes, to the device",
    driver: (w, dev, buffer, isClean) => {
      const dma = map(w, dev, buffer, 256, isClean ? DMA_TO_DEVICE : DMA_FROM_DEVICE);
      w.dma.syncSingleForDevice(w.ctx, dev, asDma(dma), 256, DMA_TO_DEVICE);
      unmap(w, dev, dma, 256, isClean ? DMA_TO_DEVICE : DMA_FROM_DEVICE);
    },
    text: /syncs device write-only DMA memory to device \[device address=0x\w{16}\] \[size=256 bytes\] \[mapped with DMA_FROM_DEVICE\] \[synced with DMA_TO_DEVICE\]$/,
  },
  {
    bug: "overlapping mappings",
    driver: (w, dev, buffer, isClean) => {
      const first = map(w, dev, buffer, 256, DMA_FROM_DEVICE);
      const second = map(w, dev, asPhys(buffer + (isClean ? 256 : 224)), 256, DMA_FROM_DEVICE);
      unmap(w, dev, first, 256, DMA_FROM_DEVICE);
      unmap(w, dev, second, 256, DMA_FROM_DEVICE);
    },
    text: /: cacheline tracking EEXIST, overlapping mappings aren't supported$/,
  },
  {
    bug: "pending at release",
    driver: (w, dev, buffer, isClean) => {
      const dma = map(w, dev, buffer, 256, DMA_FROM_DEVICE);
      if (isClean) unmap(w, dev, dma, 256, DMA_FROM_DEVICE);
    },
    text: /: device driver has pending DMA allocations while released from device \[count=1\]$/,
  },
  {
    bug: "segment too long",
    spec: { maxSegmentBytes: 1024 },
    driver: (w, dev, buffer, isClean) => {
      const sgl = asPhys(buffer + 4096);
      w.dma.sgSet(sgl, 0, buffer, isClean ? 1024 : 2048);
      expect(w.dma.mapSg(w.ctx, dev, sgl, 1, DMA_TO_DEVICE)).toBe(1);
      w.dma.unmapSg(w.ctx, dev, sgl, 1, DMA_TO_DEVICE);
    },
    text: /: mapping sg segment longer than device claims to support \[len=2048\] \[max=1024\]$/,
  },
  {
    bug: "segment across the boundary",
    spec: { boundaryBytes: 1024 },
    driver: (w, dev, buffer, isClean) => {
      const sgl = asPhys(buffer + 4096);
      w.dma.sgSet(sgl, 0, asPhys(buffer + (isClean ? 0 : 512)), 1024);
      expect(w.dma.mapSg(w.ctx, dev, sgl, 1, DMA_TO_DEVICE)).toBe(1);
      w.dma.unmapSg(w.ctx, dev, sgl, 1, DMA_TO_DEVICE);
    },
    text: /: mapping sg segment across boundary \[start=0x\w{16}\] \[end=0x\w{16}\] \[boundary=0x0{13}3ff\]$/,
  },
];

const run = (row: Row, isClean: boolean): string[] => {
  const w = createDmaWorld({ nrCpus: 1, ramBytes: 16 << 20 });
  const { dev } = w.device({ name: "eth7", driver: "e1000", ...row.spec });
  w.takeLog();
  row.driver(w, dev, w.lowPages(1), isClean);
  w.dma.releaseDevice(w.ctx, dev);
  expect(w.dma.check()).toBeNull();
  return w
    .takeLog()
    .split("\n")
    .filter((line) => line.startsWith("DMA-API:"));
};

describe("D4 each mistake is caught with its text, and its clean twin is silent", () => {
  for (const row of ROWS) {
    it(row.bug, () => {
      const lines = run(row, false);
      expect(lines[0]).toMatch(/^DMA-API: e1000 eth7: /);
      expect(lines.some((line) => row.text.test(line)) ? "" : lines.join("\n")).toBe("");
      expect(run(row, true)).toEqual([]);
    });
  }
});

describe("DBG-4 what overlaps", () => {
  // Regression: fuzzed machines MB1-799 and MB1-2024, reading a disk with iommu=on. A segment of three pages from
  // anywhere counted as three pages of memory from the first one on.
  it("behind an IOMMU a segment is its pieces, wherever they lie", () => {
    const w = createDmaWorld({ nrCpus: 1, ramBytes: 16 << 20, isIommu: true });
    const { dev } = w.device();
    const [pages, lists] = [w.lowPages(2), w.lowPages(0)];
    const [page0, page1, page2, page3] = [0, 4096, 8192, 12_288].map((offset) => asPhys(pages + offset));
    const mapAll = (sgl: PhysAddr, ...addrs: (PhysAddr | undefined)[]): void => {
      for (const [i, addr] of addrs.entries()) w.dma.sgSet(sgl, i, addr as PhysAddr, 4096);
      expect(w.dma.mapSg(w.ctx, dev, sgl, addrs.length, DMA_FROM_DEVICE)).toBe(1);
    };
    const [first, second, third] = [lists, asPhys(lists + 512), asPhys(lists + 1024)];
    mapAll(first, page0, page2);
    w.takeLog();
    mapAll(second, page1, page3);
    expect(w.takeLog()).toBe("");
    // A piece that is not the first of its own list, and lies in the first of a live one.
    mapAll(third, asPhys(w.lowPages(0)), page1);
    expect(w.takeLog()).toContain("cacheline tracking EEXIST, overlapping mappings aren't supported");
    w.dma.unmapSg(w.ctx, dev, third, 2, DMA_FROM_DEVICE);
    w.dma.unmapSg(w.ctx, dev, second, 2, DMA_FROM_DEVICE);
    w.dma.unmapSg(w.ctx, dev, first, 2, DMA_FROM_DEVICE);
    expect(w.takeLog()).toBe("");
    expect(w.dma.check()).toBeNull();
  });
});

describe("the layer itself", () => {
  it("DBG-2 num_errors, all_errors and driver_filter decide what is printed; error_count counts all", () => {
    const w = createDmaWorld({ nrCpus: 1, ramBytes: 16 << 20 });
    const { dev } = w.device({ driver: "e1000" });
    const debug = w.system.debug;
    if (debug === null) throw new Error("off");
    const mistake = (): number => {
      w.takeLog();
      unmap(w, dev, 0x20_0000, 64, DMA_TO_DEVICE);
      return w.takeLog().split("it has not allocated").length - 1;
    };
    debug.setSetting("num_errors", 2);
    expect([mistake(), mistake(), mistake()]).toEqual([1, 1, 0]);
    debug.setSetting("all_errors", 1);
    expect(mistake()).toBe(1);
    debug.setFilter("sata\n");
    expect(w.takeLog()).toContain("DMA-API: enable driver filter for driver [sata]");
    expect(mistake()).toBe(0);
    debug.setFilter("e1000 more");
    expect(mistake()).toBe(1);
    debug.setFilter("\n");
    expect(w.takeLog()).toContain("DMA-API: switching off dma-debug driver filter");
    expect(debug.errorCount()).toBe(6);
  });

  it("D4 dump prints live mappings as Linux does", () => {
    const w = createDmaWorld({ nrCpus: 1, ramBytes: 16 << 20 });
    const { dev } = w.device({ name: "eth0", driver: "e1000" });
    const buffer = w.lowPages(0);
    map(w, dev, asPhys(buffer + 64), 1536, DMA_FROM_DEVICE);
    w.dma.mapSingle(w.ctx, dev, asPhys(buffer + 2048), 64, DMA_TO_DEVICE);
    const pages = finishSleeping(w.dma.allocPages(w.ctx, dev, 4096, DMA_BIDIRECTIONAL, GFP_KERNEL));
    const lines = w.system.debug?.dumpText().split("\n") ?? [];
    expect(lines).toHaveLength(4);
    const hex16 = (n: number): string => n.toString(16).padStart(16, "0");
    const [phys, line] = [buffer + 64, (buffer + 64) / 64];
    expect(lines).toContain(
      `e1000 eth0 single idx ${Math.floor(phys / 8192) % 16_384} P=0x${hex16(phys)} D=${phys.toString(16)} L=600 ` +
        `cln=0x${hex16(line)} DMA_FROM_DEVICE dma map error checked`,
    );
    expect(lines.filter((text) => text.endsWith("DMA_TO_DEVICE dma map error not checked"))).toHaveLength(1);
    expect(lines.filter((text) => text.includes("noncoherent"))[0]).toContain("error check not applicable");
    expect(pages).not.toBeNull();
  });

  it("DBG-3 without memory for entries it switches itself off and DMA goes on", () => {
    const w = createDmaWorld({ nrCpus: 1, ramBytes: 16 << 20 });
    const { dev } = w.device();
    const buffer = w.lowPages(0);
    w.failPages(1, true);
    const dma = map(w, dev, buffer, 64, DMA_TO_DEVICE);
    expect(w.takeLog()).toContain("DMA-API: debugging out of memory - disabling");
    expect(w.system.debug?.isDisabled()).toBe(true);
    unmap(w, dev, dma, 64, DMA_TO_DEVICE);
    expect(w.dma.nrLive()).toBe(0);
  });

  // Regression: a fault sweep over insmod nic; rmmod nic. The entries of before kept their page for ever.
  it("DBG-3 when the second page of entries is refused, those of the first are forgotten and the page goes", () => {
    const w = createDmaWorld({ nrCpus: 1, ramBytes: 16 << 20 });
    const { dev } = w.device();
    const buffer = w.lowPages(0);
    const mapped = [map(w, dev, buffer, 64, DMA_TO_DEVICE)];
    expect(w.system.debug?.entries.nrPages()).toBe(1);
    w.failPages(1, true);
    for (let i = 1; w.system.debug?.isDisabled() === false && i < 200; i++) {
      mapped.push(map(w, dev, buffer, 64, DMA_TO_DEVICE));
    }
    expect(w.system.debug?.isDisabled()).toBe(true);
    expect(w.system.debug?.entries.numFree()).toBe(w.system.debug?.entries.nrTotal());
    for (const dma of mapped) unmap(w, dev, dma, 64, DMA_TO_DEVICE);
    expect(w.dma.check()).toBeNull();
    w.system.debug?.drop(w.ctx);
    expect(w.system.debug?.entries.nrPages()).toBe(0);
  });

  it("D4 D5 D2 the files below /sys", () => {
    const w = createDmaWorld({ nrCpus: 1, ramBytes: 32 << 20 });
    const registry = createFileRegistry();
    registerDmaFiles(registry, w.system);
    const read = (path: string): string | undefined => registry.text(path)?.read();
    const api = "/sys/kernel/debug/dma-api";
    const write = (name: string, text: string): number => {
      const onWrite = registry.text(`${api}/${name}`)?.write;
      return onWrite === undefined ? -1 : finishSleeping(onWrite({} as never, text));
    };
    const { dev } = w.device({ name: "hda", maskBits: 24 });
    map(w, dev, w.highPages(0), 3000, DMA_TO_DEVICE);
    expect(read(`${api}/dump`)).toMatch(/^testdrv hda single idx \d+ P=0x/);
    expect([read(`${api}/disabled`), read(`${api}/error_count`)]).toEqual(["N\n", "0\n"]);
    expect(Number(read(`${api}/num_free_entries`)) + 1).toBe(Number(read(`${api}/nr_total_entries`)));
    expect([write("num_errors", "7\n"), read(`${api}/num_errors`)]).toEqual([0, "7\n"]);
    expect([write("all_errors", "x"), write("all_errors", "-1"), read(`${api}/all_errors`)]).toEqual([-22, -22, "0\n"]);
    expect([write("driver_filter", "e1000\n"), read(`${api}/driver_filter`)]).toEqual([0, "e1000\n"]);
    expect(read("/sys/kernel/debug/swiotlb/io_tlb_nslabs")).toBe("256\n");
    expect(read("/sys/kernel/debug/swiotlb/io_tlb_used")).toBe("2\n");
    const pool = w.dma.poolCreate(w.ctx, "cmds", dev, 64, 64, 0);
    expect(read("/sys/devices/hda/pools")).toBe(`poolinfo - 0.1\ncmds${" ".repeat(12)}    0    0   64  0\n`);
    w.dma.poolDestroy(w.ctx, pool);
    w.dma.releaseDevice(w.ctx, dev);
    expect(read("/sys/devices/hda/pools")).toBeUndefined();
  });

  it("DBG-1 off: nothing is kept, nothing is said", () => {
    const w = createDmaWorld({ nrCpus: 1, ramBytes: 16 << 20, isDebug: false });
    const { dev } = w.device();
    w.takeLog();
    unmap(w, dev, 0x20_0000, 64, DMA_TO_DEVICE);
    expect(w.takeLog()).toBe("");
    expect(w.system.debug).toBeNull();
  });
});
