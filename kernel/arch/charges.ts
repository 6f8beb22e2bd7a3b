/**
 * What operations cost in virtual cycles: the documented price list of the default clock.
 *
 * One cycle is one nanosecond of a 1 GHz machine (params.ts). The prices are round numbers of the size that such
 * operations have on real hardware; they are charged where the operation happens, so a latency histogram shows the
 * path that was taken, not the speed of the host. A later `timed` machine replaces the memory prices by a cache model.
 */

// ── Hardware ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** A load or store of a user program that hits the TLB. */
export const CYC_USER_ACCESS = 2;
/** A TLB miss: three dependent loads of page-table entries. */
export const CYC_TLB_WALK = 40;
export const CYC_TLB_FLUSH = 200;
/** A load or store of a device register: over the bus and not cached. */
export const CYC_MMIO = 150;
/** What a network driver does for a packet, beside memory: descriptor, header, checksum. */
export const CYC_PACKET = 500;
/** Interrupt entry and return. */
export const CYC_IRQ = 400;
/** Entering the handler of one softirq, one tasklet or one kernel timer, and leaving it. */
export const CYC_SOFTIRQ = 150;
/** Writing the request for an interrupt on another CPU. */
export const CYC_IPI = 150;
/** Switching tasks: registers, runqueue, address space. */
export const CYC_CONTEXT_SWITCH = 900;
/** Choosing the next task, even if it is the same. */
export const CYC_PICK_NEXT = 250;
/** Entry into the kernel and back. */
export const CYC_SYSCALL = 120;
/** Exception entry and return of a page fault, without the work inside. */
export const CYC_FAULT = 600;
/** Taking and releasing an uncontended lock. */
export const CYC_LOCK = 25;

// ── Moving bytes ───────────────────────────────────────────────────────────────────────────────────────────────────

export const CYC_ZERO_PAGE = 256;
export const CYC_COPY_PAGE = 400;
/** Copying or clearing less than a page: per 64-byte line, rounded up. */
export const CYC_PER_LINE = 6;

// ── Page allocator ─────────────────────────────────────────────────────────────────────────────────────────────────

/** A page from, or to, a per-CPU list. */
export const CYC_PCP_HIT = 18;
/** Per block moved between a per-CPU list and the buddy. */
export const CYC_PCP_MOVE = 12;
/** Finding a free list with a block. */
export const CYC_BUDDY_FIND = 30;
/** Each halving of a block, each merge of two. */
export const CYC_BUDDY_STEP = 14;
/** Entering the slow path. */
export const CYC_SLOWPATH = 500;

/** A frame that a scanner of compaction looks at. */
export const CYC_COMPACT_FRAME = 2;
/** Looking at a page on the LRU lists: flags, entries, what to do with it. */
export const CYC_RECLAIM_PAGE = 150;

// ── Object caches ──────────────────────────────────────────────────────────────────────────────────────────────────

/** An object from, or to, the loaded magazine. */
export const CYC_MAGAZINE_HIT = 8;
/** Exchanging loaded and previous. */
export const CYC_MAGAZINE_SWAP = 6;
/** A magazine from or to the depot, its lock included. */
export const CYC_DEPOT = 60;
/** An object from, or to, a slab. */
export const CYC_SLAB_OBJECT = 35;
/** Laying out a new slab, per object. */
export const CYC_SLAB_SETUP_OBJECT = 3;

// ── DMA ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Mapping or unmapping memory for a device, without copies and page tables. */
export const CYC_DMA_MAP = 40;

/** Telling the IOMMU to forget, and waiting until it has. */
export const CYC_IOTLB_FLUSH = 300;

// ── Boot ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Initialising one row of `struct page`. */
export const CYC_MEMMAP_ROW = 4;
/** Bringing up a secondary CPU. */
export const CYC_CPU_UP = 2_000_000;
/** Taking one offline. */
export const CYC_CPU_DOWN = 500_000;
/** One line of the console. */
export const CYC_PRINTK = 1_500;
