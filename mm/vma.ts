/**
 * VMAs of one address space: a tree of ranges, found, put in, cut and joined.
 *
 *      ├── heap ──┤        ├ r-- ┤├─── rw- ───┤                    ├ stack ┤
 *      start    end        a mapping that mprotect has split: same file or anonymous memory, other rights
 *
 * Nothing here touches page tables: who takes pages away calls the zapper (memory.ts) before or after.
 *
 *   VMA-1, VMA-2, VMA-3 (mm_struct.ts)
 *   VMA-4  splitting and joining keep the index of every page: pgoff moves with start
 *
 * Context: process; the address space is the caller's. Linux: mm/vma.c.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { createRbTree, type RbTree } from "../kernel/lib/rbtree.ts";
import { PAGE_SIZE, USER_HEAP_BASE, USER_MMAP_TOP } from "../kernel/params.ts";
import { asPhys, type Context, NULL, type PhysAddr, toGranule } from "../kernel/types.ts";
import {
  MAX_MAP_COUNT,
  MM_MAP_COUNT,
  MM_VMA_ROOT,
  VMA_ANON_VMA,
  VMA_BYTES,
  VMA_END,
  VMA_FLAGS,
  VMA_KIND,
  VMA_MM,
  VMA_PGOFF,
  VMA_PROT,
  VMA_START,
} from "./mm_struct.ts";
import type { Rmap } from "./rmap.ts";

/** What a VMA is, besides where. */
export interface VmaSpec {
  readonly prot: number;
  readonly kind: number;
  readonly flags: number;
  /** Index of its first page. */
  readonly pgoff: number;
}

export interface Vmas {
  /** First VMA that ends above page `page`, or NULL. O(log n). */
  find(mm: PhysAddr, page: number): PhysAddr;
  /** The VMA that contains page `page`, or NULL. O(log n). */
  at(mm: PhysAddr, page: number): PhysAddr;
  first(mm: PhysAddr): PhysAddr;
  next(vma: PhysAddr): PhysAddr;
  /** Is some page of `[start, end)` in a VMA? */
  isTaken(mm: PhysAddr, start: number, end: number): boolean;
  /** Do VMAs cover all of `[start, end)`? */
  isCovered(mm: PhysAddr, start: number, end: number): boolean;
  /** Covers `[start, end)`, where nothing is, and joins equal neighbours; false without memory or over the limit. */
  insert(ctx: Context, mm: PhysAddr, start: number, end: number, spec: VmaSpec): boolean;
  /** A VMA in `mm` like `vma` of another address space, with its anon_vma; NULL without memory. Does not join. */
  duplicate(ctx: Context, mm: PhysAddr, vma: PhysAddr): PhysAddr;
  remove(ctx: Context, mm: PhysAddr, vma: PhysAddr): void;
  /** Cuts the VMA that covers both sides of `page` in two; false without memory. */
  splitAt(ctx: Context, mm: PhysAddr, page: number): boolean;
  /** First page of the highest gap of `nrPages` below the mmap top; −1 if there is none. */
  findGap(mm: PhysAddr, nrPages: number): number;
  check(mm: PhysAddr): string | null;
}

export interface VmaDeps {
  readonly port: MemoryPort;
  readonly rmap: Rmap;
  readonly allocVma: (ctx: Context) => PhysAddr;
  readonly freeVma: (ctx: Context, vma: PhysAddr) => void;
}

export function createVmas({ port, rmap, allocVma, freeVma }: VmaDeps): Vmas {
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);
  const setField = (base: PhysAddr, offset: number, value: number): void => port.st32(base + offset, value);
  const tree: RbTree = createRbTree(port, { less: (a, b) => field(a, VMA_START) < field(b, VMA_START) });
  const rootOf = (mm: PhysAddr): PhysAddr => asPhys(mm + MM_VMA_ROOT);

  const find = (mm: PhysAddr, page: number): PhysAddr =>
    tree.lowerBound(rootOf(mm), (vma) => field(vma, VMA_END) > page);

  const specOf = (vma: PhysAddr): VmaSpec => ({
    prot: field(vma, VMA_PROT),
    kind: field(vma, VMA_KIND),
    flags: field(vma, VMA_FLAGS),
    pgoff: field(vma, VMA_PGOFF),
  });

  const addVma = (ctx: Context, mm: PhysAddr, start: number, end: number, spec: VmaSpec): PhysAddr => {
    if (field(mm, MM_MAP_COUNT) >= MAX_MAP_COUNT) return NULL;
    const vma = allocVma(ctx);
    if (vma === NULL) return NULL;
    port.fill(vma, 0, VMA_BYTES);
    setField(vma, VMA_START, start);
    setField(vma, VMA_END, end);
    setField(vma, VMA_PROT, spec.prot);
    setField(vma, VMA_KIND, spec.kind);
    setField(vma, VMA_FLAGS, spec.flags);
    setField(vma, VMA_PGOFF, spec.pgoff);
    setField(vma, VMA_MM, toGranule(mm));
    tree.insert(rootOf(mm), vma);
    setField(mm, MM_MAP_COUNT, field(mm, MM_MAP_COUNT) + 1);
    return vma;
  };

  const remove = (ctx: Context, mm: PhysAddr, vma: PhysAddr): void => {
    rmap.leaveAnonVma(ctx, vma);
    tree.erase(rootOf(mm), vma);
    setField(mm, MM_MAP_COUNT, field(mm, MM_MAP_COUNT) - 1);
    freeVma(ctx, vma);
  };

  /** Nothing but the place sets `vma` apart from a range with `spec` whose first page has index `pgoff`. */
  const isLike = (vma: PhysAddr, spec: VmaSpec, pgoff: number): boolean =>
    field(vma, VMA_PROT) === spec.prot &&
    field(vma, VMA_KIND) === spec.kind &&
    field(vma, VMA_FLAGS) === spec.flags &&
    field(vma, VMA_PGOFF) === pgoff;

  const insert: Vmas["insert"] = (ctx, mm, start, end, spec) => {
    const below = start === 0 ? NULL : find(mm, start - 1);
    const above = find(mm, end);
    const joinsBelow =
      below !== NULL &&
      field(below, VMA_END) === start &&
      isLike(below, spec, spec.pgoff - (start - field(below, VMA_START)));
    const joinsAbove =
      above !== NULL && field(above, VMA_START) === end && isLike(above, spec, spec.pgoff + end - start);
    const anonBelow = joinsBelow ? field(below, VMA_ANON_VMA) : 0;
    const anonAbove = joinsAbove ? field(above, VMA_ANON_VMA) : 0;
    if (joinsBelow && joinsAbove && (anonBelow === anonAbove || anonBelow === 0 || anonAbove === 0)) {
      if (anonBelow === 0) rmap.shareAnonVma(below, above);
      const newEnd = field(above, VMA_END);
      remove(ctx, mm, above);
      setField(below, VMA_END, newEnd);
    } else if (joinsBelow) setField(below, VMA_END, end);
    else if (joinsAbove) {
      setField(above, VMA_START, start);
      setField(above, VMA_PGOFF, spec.pgoff);
    } else return addVma(ctx, mm, start, end, spec) !== NULL;
    return true;
  };

  const splitAt: Vmas["splitAt"] = (ctx, mm, page) => {
    const vma = find(mm, page);
    if (vma === NULL || field(vma, VMA_START) >= page) return true;
    const end = field(vma, VMA_END);
    setField(vma, VMA_END, page);
    const spec = specOf(vma);
    const pgoff = spec.pgoff + page - field(vma, VMA_START);
    const above = addVma(ctx, mm, page, end, { ...spec, pgoff });
    if (above === NULL) setField(vma, VMA_END, end);
    else rmap.shareAnonVma(above, vma);
    return above !== NULL;
  };

  const check: Vmas["check"] = (mm) => {
    const broken = tree.check(rootOf(mm));
    if (broken !== null) return broken;
    let last = 0;
    let nr = 0;
    for (let vma = tree.first(rootOf(mm)); vma !== NULL; vma = tree.next(vma)) {
      const [start, end] = [field(vma, VMA_START), field(vma, VMA_END)];
      if (start < last || end <= start) return `VMA-1: [${start}, ${end}) after ${last}`;
      if (field(vma, VMA_MM) !== toGranule(mm)) return `VMA-1: the VMA at ${start} belongs to another address space`;
      last = end;
      nr++;
    }
    return nr === field(mm, MM_MAP_COUNT) ? null : `VMA-1: ${nr} VMAs, map count ${field(mm, MM_MAP_COUNT)}`;
  };

  return {
    find,
    at(mm, page) {
      const vma = find(mm, page);
      return vma !== NULL && field(vma, VMA_START) <= page ? vma : NULL;
    },
    first: (mm) => tree.first(rootOf(mm)),
    next: (vma) => tree.next(vma),
    isTaken(mm, start, end) {
      const vma = find(mm, start);
      return vma !== NULL && field(vma, VMA_START) < end;
    },
    isCovered(mm, start, end) {
      let covered = start;
      for (let vma = find(mm, covered); vma !== NULL && covered < end; vma = tree.next(vma)) {
        if (field(vma, VMA_START) > covered) break;
        covered = field(vma, VMA_END);
      }
      return covered >= end;
    },
    insert,
    duplicate(ctx, mm, vma) {
      const copy = addVma(ctx, mm, field(vma, VMA_START), field(vma, VMA_END), specOf(vma));
      if (copy !== NULL) rmap.shareAnonVma(copy, vma);
      return copy;
    },
    remove,
    splitAt,
    findGap(mm, nrPages) {
      let top = USER_MMAP_TOP / PAGE_SIZE;
      let vma = tree.last(rootOf(mm));
      while (vma !== NULL && field(vma, VMA_START) >= top) vma = tree.prev(vma);
      while (vma !== NULL) {
        if (top - field(vma, VMA_END) >= nrPages) return top - nrPages;
        top = Math.min(top, field(vma, VMA_START));
        vma = tree.prev(vma);
      }
      return top - nrPages >= USER_HEAP_BASE / PAGE_SIZE ? top - nrPages : -1;
    },
    check,
  };
}
