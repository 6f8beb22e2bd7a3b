/**
 * VMAs of one address space: a tree of ranges, found, put in, cut and joined.
 *
 *      ├── heap ──┤        ├ r-- ┤├─── rw- ───┤                    ├ stack ┤
 *      start    end        a mapping that mprotect has split: same file or anonymous memory, other rights
 *
 * Each VMA remembers the gap below it, and in the tree the largest gap of its subtree: the highest gap that is large
 * enough is found by walking down, always to the right if there is one there. A growing stack keeps a guard gap below
 * it that no mapping gets.
 *
 * Nothing here touches page tables: who takes pages away calls the zapper (memory.ts) before or after.
 *
 *   VMA-1 … VMA-3 (mm_struct.ts)
 *   VMA-4  splitting and joining keep the index of every page: pgoff moves with start
 *   VMA-5  gap = start − end of the VMA below (or 0); subtree gap = the largest in the subtree
 *
 * Context: process; the address space is the caller's. Linux: mm/vma.c.
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { createRbTree, type RbTree } from "../kernel/lib/rbtree.ts";
import { asPhys, type Context, fromGranule, NULL, type PhysAddr, toGranule } from "../kernel/types.ts";
import type { FileMap } from "./filemap.ts";
import {
  MAX_MAP_COUNT,
  MM_MAP_COUNT,
  MM_VMA_ROOT,
  STACK_GUARD_GAP,
  VM_GROWSDOWN,
  VMA_ANON_VMA,
  VMA_BYTES,
  VMA_END,
  VMA_FLAGS,
  VMA_GAP,
  VMA_KIND,
  VMA_MAPPING,
  VMA_MM,
  VMA_PGOFF,
  VMA_PROT,
  VMA_START,
  VMA_SUBTREE_GAP,
} from "./mm_struct.ts";
import type { Rmap } from "./rmap.ts";

/** What a VMA is, besides where. */
export interface VmaSpec {
  readonly prot: number;
  readonly kind: number;
  readonly flags: number;
  /** Index of its first page. */
  readonly pgoff: number;
  /** address_space; NULL: private anonymous memory. */
  readonly mapping: PhysAddr;
}

export interface Vmas {
  /** First VMA that ends above page `page`, or NULL. O(log n). */
  find(mm: PhysAddr, page: number): PhysAddr;
  /** The VMA that contains page `page`, or NULL. O(log n). */
  at(mm: PhysAddr, page: number): PhysAddr;
  first(mm: PhysAddr): PhysAddr;
  next(vma: PhysAddr): PhysAddr;
  prev(vma: PhysAddr): PhysAddr;
  specOf(vma: PhysAddr): VmaSpec;
  /** The pages without a VMA around page `start`, which has none. */
  holeAround(mm: PhysAddr, start: number): readonly [floor: number, ceiling: number];
  /** Is some page of `[start, end)` in a VMA? */
  isTaken(mm: PhysAddr, start: number, end: number): boolean;
  /** Do VMAs cover all of `[start, end)`? */
  isCovered(mm: PhysAddr, start: number, end: number): boolean;
  /** A VMA over `[start, end)`, where nothing is; NULL without memory or over the limit. Does not join. */
  add(ctx: Context, mm: PhysAddr, start: number, end: number, spec: VmaSpec): PhysAddr;
  /** The same with the anon_vma of `like`: its pages may move there. */
  addLike(ctx: Context, mm: PhysAddr, start: number, end: number, spec: VmaSpec, like: PhysAddr): PhysAddr;
  /** Joins neighbours that nothing sets apart, from the VMA below `start` to the one above `end` (VMA-2). */
  joinAround(ctx: Context, mm: PhysAddr, start: number, end: number): void;
  remove(ctx: Context, mm: PhysAddr, vma: PhysAddr): void;
  /** Cuts the VMA that covers both sides of `page` in two; false without memory. */
  splitAt(ctx: Context, mm: PhysAddr, page: number): boolean;
  /** Moves the ends of a VMA to where nothing is. */
  resize(vma: PhysAddr, start: number, end: number): void;
  /** First page of the highest gap of `nrPages` in `[low, top)`; −1 if there is none. O(log n). */
  findGap(mm: PhysAddr, nrPages: number, low: number, top: number): number;
  check(mm: PhysAddr): string | null;
}

export interface VmaDeps {
  readonly port: MemoryPort;
  readonly rmap: Rmap;
  readonly files: FileMap;
  readonly allocVma: (ctx: Context) => PhysAddr;
  readonly freeVma: (ctx: Context, vma: PhysAddr) => void;
}

export function createVmas({ port, rmap, files, allocVma, freeVma }: VmaDeps): Vmas {
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);
  const setField = (base: PhysAddr, offset: number, value: number): void => port.st32(base + offset, value);
  const gapBelow = (vma: PhysAddr): number => (vma === NULL ? 0 : field(vma, VMA_SUBTREE_GAP));
  const augment = (vma: PhysAddr): boolean => {
    const largest = Math.max(field(vma, VMA_GAP), gapBelow(tree.left(vma)), gapBelow(tree.right(vma)));
    if (largest === field(vma, VMA_SUBTREE_GAP)) return false;
    setField(vma, VMA_SUBTREE_GAP, largest);
    return true;
  };
  const tree: RbTree = createRbTree(port, {
    less: (a, b) => field(a, VMA_START) < field(b, VMA_START),
    augment,
  });
  const rootOf = (mm: PhysAddr): PhysAddr => asPhys(mm + MM_VMA_ROOT);

  const find = (mm: PhysAddr, page: number): PhysAddr =>
    tree.lowerBound(rootOf(mm), (vma) => field(vma, VMA_END) > page);

  /** VMA-5, after the VMA below has changed. */
  const renewGap = (vma: PhysAddr): void => {
    if (vma === NULL) return;
    const below = tree.prev(vma);
    setField(vma, VMA_GAP, field(vma, VMA_START) - (below === NULL ? 0 : field(below, VMA_END)));
    tree.propagate(vma);
  };

  const specOf = (vma: PhysAddr): VmaSpec => ({
    prot: field(vma, VMA_PROT),
    kind: field(vma, VMA_KIND),
    flags: field(vma, VMA_FLAGS),
    pgoff: field(vma, VMA_PGOFF),
    mapping: fromGranule(field(vma, VMA_MAPPING)),
  });

  const add: Vmas["add"] = (ctx, mm, start, end, spec) => {
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
    if (spec.mapping !== NULL) files.join(vma, spec.mapping);
    tree.insert(rootOf(mm), vma);
    renewGap(vma);
    renewGap(tree.next(vma));
    setField(mm, MM_MAP_COUNT, field(mm, MM_MAP_COUNT) + 1);
    return vma;
  };

  const remove: Vmas["remove"] = (ctx, mm, vma) => {
    rmap.leaveAnonVma(ctx, vma);
    files.leave(ctx, vma);
    const next = tree.next(vma);
    tree.erase(rootOf(mm), vma);
    renewGap(next);
    setField(mm, MM_MAP_COUNT, field(mm, MM_MAP_COUNT) - 1);
    freeVma(ctx, vma);
  };

  const addLike: Vmas["addLike"] = (ctx, mm, start, end, spec, like) => {
    const vma = add(ctx, mm, start, end, spec);
    if (vma !== NULL) rmap.shareAnonVma(vma, like);
    return vma;
  };

  const splitAt: Vmas["splitAt"] = (ctx, mm, page) => {
    const vma = find(mm, page);
    if (vma === NULL || field(vma, VMA_START) >= page) return true;
    const end = field(vma, VMA_END);
    setField(vma, VMA_END, page);
    const spec = specOf(vma);
    const pgoff = spec.pgoff + page - field(vma, VMA_START);
    if (addLike(ctx, mm, page, end, { ...spec, pgoff }, vma) !== NULL) return true;
    setField(vma, VMA_END, end);
    return false;
  };

  /** Do the two, which are neighbours, differ in nothing but the place? */
  const isJoinable = (below: PhysAddr, above: PhysAddr): boolean => {
    if (field(below, VMA_END) !== field(above, VMA_START)) return false;
    const isSame = (offset: number): boolean => field(below, offset) === field(above, offset);
    if (!isSame(VMA_FLAGS) || !isSame(VMA_PROT) || !isSame(VMA_MAPPING) || !isSame(VMA_KIND)) return false;
    const pgoff = field(below, VMA_PGOFF) + field(below, VMA_END) - field(below, VMA_START);
    const [anonBelow, anonAbove] = [field(below, VMA_ANON_VMA), field(above, VMA_ANON_VMA)];
    return field(above, VMA_PGOFF) === pgoff && (anonBelow === anonAbove || anonBelow === 0 || anonAbove === 0);
  };

  const joinAround: Vmas["joinAround"] = (ctx, mm, start, end) => {
    let vma = find(mm, Math.max(0, start - 1));
    while (vma !== NULL && field(vma, VMA_START) <= end) {
      const above = tree.next(vma);
      if (above === NULL) return;
      if (!isJoinable(vma, above)) vma = above;
      else {
        if (field(vma, VMA_ANON_VMA) === 0) rmap.shareAnonVma(vma, above);
        const newEnd = field(above, VMA_END);
        remove(ctx, mm, above);
        setField(vma, VMA_END, newEnd);
        renewGap(tree.next(vma));
      }
    }
  };

  /** Highest gap below `node`'s right-most VMA, led by the summaries. */
  const gapIn = (node: PhysAddr, nrPages: number, low: number, top: number): number => {
    if (node === NULL || gapBelow(node) < nrPages) return -1;
    const right = gapIn(tree.right(node), nrPages, low, top);
    if (right >= 0) return right;
    const start = field(node, VMA_START);
    const guard = (field(node, VMA_FLAGS) & VM_GROWSDOWN) !== 0 ? STACK_GUARD_GAP : 0;
    const end = Math.min(start - guard, top);
    if (end - Math.max(low, start - field(node, VMA_GAP)) >= nrPages) return end - nrPages;
    return gapIn(tree.left(node), nrPages, low, top);
  };

  const orderProblem = (mm: PhysAddr, vma: PhysAddr, below: PhysAddr): string | null => {
    const [start, end] = [field(vma, VMA_START), field(vma, VMA_END)];
    const last = below === NULL ? 0 : field(below, VMA_END);
    if (start < last || end <= start) return `VMA-1: [${start}, ${end}) after ${last}`;
    if (field(vma, VMA_MM) !== toGranule(mm)) return `VMA-1: the VMA at ${start} belongs to another address space`;
    if (below !== NULL && isJoinable(below, vma))
      return `VMA-2: nothing sets the VMA at ${start} apart from the one below`;
    const largest = Math.max(start - last, gapBelow(tree.left(vma)), gapBelow(tree.right(vma)));
    const isRight = field(vma, VMA_GAP) === start - last && gapBelow(vma) === largest;
    return isRight
      ? null
      : `VMA-5: gap ${field(vma, VMA_GAP)}, subtree ${gapBelow(vma)} at ${start}, not ${start - last}`;
  };

  return {
    find,
    at(mm, page) {
      const vma = find(mm, page);
      return vma !== NULL && field(vma, VMA_START) <= page ? vma : NULL;
    },
    first: (mm) => tree.first(rootOf(mm)),
    next: (vma) => tree.next(vma),
    prev: (vma) => tree.prev(vma),
    specOf,
    holeAround(mm, start) {
      const above = find(mm, start);
      const below = above === NULL ? tree.last(rootOf(mm)) : tree.prev(above);
      const floor = below === NULL ? 0 : field(below, VMA_END);
      return above === NULL ? [floor, Number.POSITIVE_INFINITY] : [floor, field(above, VMA_START)];
    },
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
    add,
    addLike,
    joinAround,
    remove,
    splitAt,
    resize(vma, start, end) {
      setField(vma, VMA_PGOFF, field(vma, VMA_PGOFF) + start - field(vma, VMA_START));
      setField(vma, VMA_START, start);
      setField(vma, VMA_END, end);
      renewGap(vma);
      renewGap(tree.next(vma));
    },
    findGap(mm, nrPages, low, top) {
      const last = tree.last(rootOf(mm));
      if (last === NULL || field(last, VMA_END) <= top - nrPages) return top - nrPages >= low ? top - nrPages : -1;
      return gapIn(tree.top(rootOf(mm)), nrPages, low, top);
    },
    check(mm) {
      const broken = tree.check(rootOf(mm));
      if (broken !== null) return broken;
      let nr = 0;
      let below: PhysAddr = NULL;
      for (let vma = tree.first(rootOf(mm)); vma !== NULL; vma = tree.next(vma)) {
        const problem = orderProblem(mm, vma, below);
        if (problem !== null) return problem;
        below = vma;
        nr++;
      }
      return nr === field(mm, MM_MAP_COUNT) ? null : `VMA-1: ${nr} VMAs, map count ${field(mm, MM_MAP_COUNT)}`;
    },
  };
}
