/**
 * An address space, VMA by VMA: /proc/<pid>/maps, smaps, smaps_rollup. Source: fs/proc/task_mmu.c.
 */

import {
  noPages,
  PSS_PER_PAGE,
  VM_LOCKED,
  VM_SHARED,
  VMA_HEAP,
  VMA_STACK,
  type VmaPages,
  type VmaReport,
} from "../../../mm/index.ts";
import { PAGE_SIZE } from "../../params.ts";
import { NULL, type PhysAddr, toGranule } from "../../types.ts";
import { PROT_EXEC, PROT_READ, PROT_WRITE } from "../../uapi/mman.ts";
import { pagesToKib, right } from "./columns.ts";

const NAME_COLUMN = 73;
const KIB_PER_PSS = PAGE_SIZE / 1024 / PSS_PER_PAGE;

const rangeText = (start: number, end: number): string =>
  [start, end].map((page) => (page * PAGE_SIZE).toString(16).padStart(8, "0")).join("-");

export type FileName = (mapping: PhysAddr) => string;

/** Devices of the two file systems that mappings come from, in Linux's numbers: tmpfs inside the kernel, the ramfs. */
const SHMEM_DEVICE = "00:01";
const RAMFS_DEVICE = "00:02";
/** Linux's name for shared memory without a file. */
const SHMEM_NAME = "/dev/zero (deleted)";

function nameOf({ kind, mapping, isShmem }: VmaReport, fileName: FileName): string {
  if (mapping !== NULL) return isShmem ? SHMEM_NAME : fileName(mapping);
  return kind === VMA_HEAP ? "[heap]" : kind === VMA_STACK ? "[stack]" : "";
}

/** Offset, device, inode; zeros for private anonymous memory. */
function placeOf({ mapping, isShmem, pgoff }: VmaReport): string {
  if (mapping === NULL) return "00000000 00:00 0";
  const offset = (pgoff * PAGE_SIZE).toString(16).padStart(8, "0");
  return `${offset} ${isShmem ? SHMEM_DEVICE : RAMFS_DEVICE} ${toGranule(mapping)}`;
}

function mapsLine(vma: VmaReport, fileName: FileName): string {
  const { start, end, prot, flags } = vma;
  const bit = (mask: number, letter: string): string => ((prot & mask) !== 0 ? letter : "-");
  const sharing = (flags & VM_SHARED) !== 0 ? "s" : "p";
  const rights = bit(PROT_READ, "r") + bit(PROT_WRITE, "w") + bit(PROT_EXEC, "x") + sharing;
  const name = nameOf(vma, fileName);
  return `${`${rangeText(start, end)} ${rights} ${placeOf(vma)} `.padEnd(name === "" ? 0 : NAME_COLUMN)}${name}\n`;
}

export const formatMaps = (vmas: readonly VmaReport[], fileName: FileName): string =>
  vmas.map((vma) => mapsLine(vma, fileName)).join("");

const row = (name: string, kib: number): string => `${`${name}:`.padEnd(16)}${right(kib, 8)} kB\n`;
const pssKib = (pss: number): number => Math.floor(pss * KIB_PER_PSS);

/** The rows that smaps and smaps_rollup have in common, from Shared_Clean on. */
function commonRows(pages: VmaPages): string {
  const kib: readonly (readonly [string, number])[] = [
    ["Shared_Clean", pages.sharedClean],
    ["Shared_Dirty", pages.sharedDirty],
    ["Private_Clean", pages.privateClean],
    ["Private_Dirty", pages.privateDirty],
    ["Referenced", pages.referenced],
    ["Anonymous", pages.anonymous],
    ["KSM", 0],
    ["LazyFree", pages.lazyFree],
    ["AnonHugePages", pages.huge],
    ["ShmemPmdMapped", 0],
    ["FilePmdMapped", 0],
    ["Shared_Hugetlb", 0],
    ["Private_Hugetlb", 0],
    ["Swap", pages.swap],
  ];
  const rows = kib.map(([name, nr]) => row(name, pagesToKib(nr))).join("");
  return rows + row("SwapPss", pssKib(pages.swapPss)) + row("Locked", pssKib(pages.lockedPss));
}

/** Rights, the rights that mprotect may give, growth, locks, accounting: Linux's two letters each. */
function vmFlags({ prot, kind, flags }: VmaReport): string {
  const words: string[] = [];
  if ((prot & PROT_READ) !== 0) words.push("rd");
  if ((prot & PROT_WRITE) !== 0) words.push("wr");
  if ((prot & PROT_EXEC) !== 0) words.push("ex");
  if ((flags & VM_SHARED) !== 0) words.push("sh");
  words.push("mr", "mw", "me");
  if (kind === VMA_STACK) words.push("gd");
  if ((flags & VM_LOCKED) !== 0) words.push("lo");
  return `VmFlags: ${words.map((word) => `${word} `).join("")}\n`;
}

export function formatSmaps(vmas: readonly VmaReport[], fileName: FileName): string {
  return vmas
    .map((vma) => {
      const { pages } = vma;
      return (
        mapsLine(vma, fileName) +
        row("Size", pagesToKib(vma.end - vma.start)) +
        row("KernelPageSize", 4) +
        row("MMUPageSize", 4) +
        row("Rss", pagesToKib(pages.rss)) +
        row("Pss", pssKib(pages.pss)) +
        row("Pss_Dirty", pssKib(pages.pssDirty)) +
        commonRows(pages) +
        `THPeligible:    ${right(0, 8)}\n` +
        vmFlags(vma)
      );
    })
    .join("");
}

export function formatSmapsRollup(vmas: readonly VmaReport[]): string {
  const [first, last] = [vmas[0], vmas[vmas.length - 1]];
  if (first === undefined || last === undefined) return "";
  const sum = noPages();
  for (const { pages } of vmas) {
    for (const name of Object.keys(sum) as (keyof VmaPages)[]) sum[name] += pages[name];
  }
  return (
    `${`${rangeText(first.start, last.end)} ---p 00000000 00:00 0 `.padEnd(NAME_COLUMN)}[rollup]\n` +
    row("Rss", pagesToKib(sum.rss)) +
    row("Pss", pssKib(sum.pss)) +
    row("Pss_Dirty", pssKib(sum.pssDirty)) +
    row("Pss_Anon", pssKib(sum.pssAnon)) +
    row("Pss_File", pssKib(sum.pssFile)) +
    row("Pss_Shmem", pssKib(sum.pssShmem)) +
    commonRows(sum)
  );
}
