/**
 * Changing the size of a file that may be mapped: what is beyond the end leaves page tables first, then the file.
 *
 * A private copy of a page beyond the end goes, too: its file page is no more, and a touch is SIGBUS (PFL-2). The rest
 * of the last page is cleared, so that a file that grows again reads zeros there.
 *
 *   FMAP-4 (filemap.ts)
 *
 * Context: process. Linux: mm/truncate.c (truncate_setsize), mm/memory.c (unmap_mapping_range).
 */

import type { MemoryPort } from "../kernel/arch/port.ts";
import { listFirst, listNext } from "../kernel/lib/list.ts";
import { PAGE_SIZE } from "../kernel/params.ts";
import { asPfn, asPhys, type Context, fromGranule, NO_PFN, NULL, type PhysAddr } from "../kernel/types.ts";
import { EFBIG } from "../kernel/uapi/errno.ts";
import { type FileMap, fileByte, MAX_FILE_BYTES } from "./filemap.ts";
import type { UserPages } from "./memory.ts";
import { AS_LIST, VMA_END, VMA_FILE_LINK, VMA_MM, VMA_PGOFF, VMA_START } from "./mm_struct.ts";

export interface TruncateDeps {
  readonly port: MemoryPort;
  readonly files: FileMap;
  readonly userPages: UserPages;
}

export function createTruncate({ port, files, userPages }: TruncateDeps) {
  const field = (base: PhysAddr, offset: number): number => port.ld32(base + offset);

  /** Takes the pages from `index` on out of every mapping of the file. */
  const unmapFrom = (ctx: Context, mapping: PhysAddr, index: number): void => {
    const head = asPhys(mapping + AS_LIST);
    for (let link = listFirst(port, head); link !== NULL && link !== head; link = listNext(port, link)) {
      const vma = asPhys(link - VMA_FILE_LINK);
      const first = field(vma, VMA_START) + Math.max(0, index - field(vma, VMA_PGOFF));
      if (first < field(vma, VMA_END)) userPages.zap(ctx, fromGranule(field(vma, VMA_MM)), first, field(vma, VMA_END));
    }
  };

  return (ctx: Context, mapping: PhysAddr, bytes: number): number => {
    if (bytes > MAX_FILE_BYTES) return -EFBIG;
    const isSmaller = bytes < files.sizeBytes(mapping);
    const index = Math.ceil(bytes / PAGE_SIZE);
    // The last page may be in swap: it is brought back first, as that can fail.
    const isCut = isSmaller && bytes % PAGE_SIZE !== 0 && !files.isHole(mapping, index - 1);
    const last = isCut ? files.obtain(ctx, mapping, index - 1) : NO_PFN;
    if (last < 0) return last;
    files.setSize(mapping, bytes);
    if (!isSmaller) return 0;
    unmapFrom(ctx, mapping, index);
    files.removeFrom(ctx, mapping, index);
    if (last !== NO_PFN) port.fill(fileByte(asPfn(last), bytes), 0, PAGE_SIZE - (bytes % PAGE_SIZE));
    return 0;
  };
}
