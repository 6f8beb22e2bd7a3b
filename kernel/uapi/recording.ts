/**
 * Recordings: the operation streams that replay programs and kernel threads consume.
 *
 * A reader (scripts/readers/) turns a file of any supported format into one of the column sets below; the replayers
 * (userland/ for heaps and system calls, kernel/entry for kernel events) never see the file. Columns are typed arrays
 * of one length, row i being operation i in recorded order. They are input, not kernel memory: they stay on the host,
 * as a program's text would stay on disk.
 */

// ── Heap recordings: malloc, free and their family, of one process ─────────────────────────────────────────────────

export const HEAP_MALLOC = 0;
export const HEAP_CALLOC = 1;
export const HEAP_REALLOC = 2;
export const HEAP_FREE = 3;
export const HEAP_MEMALIGN = 4;
/** Touch `size` bytes of an allocation (the `w` line of MIT's dialect). */
export const HEAP_WRITE = 5;

/** The id column's value for a null pointer: `free(NULL)`. */
export const HEAP_NULL_ID = -1;

export interface HeapRecording {
  readonly kind: "heap";
  /** Short name, as a user would say it: `redis`. */
  readonly name: string;
  readonly nrOps: number;
  /** Ids are `0 ≤ id < nrIds`. */
  readonly nrIds: number;
  readonly nrThreads: number;
  readonly op: Uint8Array;
  /** Thread that performs the operation, `< nrThreads`. */
  readonly thread: Uint8Array;
  /** Allocation made or acted upon, or `HEAP_NULL_ID`. A realloc keeps its id; on an id not live it allocates. */
  readonly id: Int32Array;
  /**
   * Bytes requested; 0 for a free. A double: recordings may ask for absurd sizes, and the allocator has to refuse
   * them.
   */
  readonly size: Float64Array;
  /** log2 of the alignment for HEAP_MEMALIGN, else 0. */
  readonly alignShift: Uint8Array;
  /** What the reader noticed and went on after, one line each, with line or byte positions. */
  readonly warnings: readonly string[];
}

// ── Kernel recordings: ftrace `kmem:` events ───────────────────────────────────────────────────────────────────────

export const KMEM_PAGE_ALLOC = 0;
export const KMEM_PAGE_FREE = 1;
export const KMEM_KMALLOC = 2;
export const KMEM_KFREE = 3;
export const KMEM_CACHE_ALLOC = 4;
export const KMEM_CACHE_FREE = 5;

/** Context levels, as `interrupt_context_level()` numbers them. */
export const KMEM_IN_TASK = 0;
export const KMEM_IN_SOFTIRQ = 1;
export const KMEM_IN_HARDIRQ = 2;

export interface RecordedCache {
  readonly name: string;
  /** Largest `bytes_req` seen, or the size guessed from `bytes_alloc`; 0 if only frees were seen. */
  readonly objectSizeBytes: number;
  /** Bytes the recorded kernel handed out per object. */
  readonly slotSizeBytes: number;
}

export interface KernelRecording {
  readonly kind: "kernel";
  readonly name: string;
  readonly nrEvents: number;
  /**
   * Slots name live allocations: an alloc row defines its slot, the matching free row carries it. Slots are reused
   * after their free, so `nrSlots` is the recording's peak of live allocations.
   */
  readonly nrSlots: number;
  readonly nrCpus: number;
  readonly event: Uint8Array;
  readonly cpu: Uint8Array;
  /** KMEM_IN_TASK, KMEM_IN_SOFTIRQ or KMEM_IN_HARDIRQ. */
  readonly context: Uint8Array;
  /** 1 where the recorded CPU had interrupts off. */
  readonly irqsOff: Uint8Array;
  readonly pid: Int32Array;
  readonly slot: Int32Array;
  /** KMEM_PAGE_*: log2 of pages. */
  readonly order: Uint8Array;
  readonly migratetype: Uint8Array;
  /** GFP mask in the bit layout of mm/gfp.ts (the recording's names are translated). */
  readonly gfp: Uint32Array;
  /** `bytes_req` and `bytes_alloc` of KMEM_KMALLOC and KMEM_CACHE_ALLOC. */
  readonly sizeBytes: Uint32Array;
  readonly allocBytes: Uint32Array;
  /** Index into `caches` of KMEM_CACHE_*, else 0. */
  readonly cache: Uint16Array;
  readonly caches: readonly RecordedCache[];
  /**
   * Slots live before the first event (their free is recorded, their allocation is not). Row i of the prelude is an
   * allocation event to perform first so that the recorded free has something to free.
   */
  readonly preludeEvent: Uint8Array;
  readonly preludeSlot: Int32Array;
  readonly preludeOrder: Uint8Array;
  readonly preludeCache: Uint16Array;
  /** Rows dropped: a free whose object's size cannot be known (kfree of an older object). */
  readonly nrUnknownFrees: number;
  /** Frees inserted because an address was allocated again while still live (bulk and RCU frees have no tracepoint). */
  readonly nrImpliedFrees: number;
  readonly warnings: readonly string[];
}

// ── System call recordings: what processes did to memory and to each other ─────────────────────────────────────────

export const SC_BRK = 0;
export const SC_MMAP = 1;
export const SC_MUNMAP = 2;
export const SC_MPROTECT = 3;
export const SC_MREMAP = 4;
export const SC_MADVISE = 5;
export const SC_FORK = 6;
export const SC_VFORK = 7;
/** clone with CLONE_THREAD. */
export const SC_THREAD = 8;
export const SC_EXECVE = 9;
/** Ends a thread that is not its process's first. */
export const SC_EXIT = 10;
export const SC_EXIT_GROUP = 11;
export const SC_WAIT = 12;
/** A signal ended the process here. */
export const SC_KILLED = 13;
/** mlock and its family are calls about memory, like those before SC_FORK. */
export const SC_MLOCK = 14;
export const SC_MUNLOCK = 15;
export const SC_MLOCKALL = 16;
export const SC_MUNLOCKALL = 17;
/** A signal was sent; what it did to the receiver is a row of that. */
export const SC_KILL = 18;
export const NR_RECORDED_CALLS = 19;

/** In `target` and `child`: no task, or one that the recording does not know. */
export const SC_NOBODY = -1;

export type Recording = HeapRecording | KernelRecording | SyscallRecording;

/** A thread of a recorded process; its first thread stands for the process. */
export interface RecordedTask {
  readonly pid: number;
  /** Index of the first thread of its process; its own for that thread. */
  readonly leader: number;
}

/**
 * Row i is the i-th call in the order in which they took effect. Memory is given back when a call begins and obtained
 * when it returns; processes are made, replaced and ended when a call begins, waited for when it returns.
 */
export interface SyscallRecording {
  readonly kind: "syscall";
  readonly name: string;
  readonly nrEvents: number;
  /** Task 0 is there from the start; every other one is the `child` of an earlier row. */
  readonly tasks: readonly RecordedTask[];
  readonly call: Uint8Array;
  /** Index into `tasks` of who calls. */
  readonly task: Int32Array;
  /** Recorded address; 0 asks (brk) or leaves the choice to the kernel (mmap). */
  readonly addr: Float64Array;
  readonly bytes: Float64Array;
  /** SC_MREMAP: the new size. SC_MMAP: the offset in the file. */
  readonly extra: Float64Array;
  /** prot; advice; flags of mlockall; options of a wait; exit status; signal. */
  readonly arg: Int32Array;
  readonly flags: Int32Array;
  /** SC_MMAP: a file descriptor, −1 for anonymous memory. */
  readonly fd: Int32Array;
  /** SC_WAIT: the child waited for, or SC_NOBODY for any. SC_KILL: the receiver. */
  readonly target: Int32Array;
  /** Task made by SC_FORK, SC_VFORK, SC_THREAD; reaped by SC_WAIT; else, and if there was none, SC_NOBODY. */
  readonly child: Int32Array;
  /** SC_EXECVE: index into `names` of the program. */
  readonly nameIndex: Int32Array;
  readonly names: readonly string[];
  /** What the recorded kernel answered: ≥ 0, or −errno. Recorded addresses for brk, mmap and mremap; 0 for pids. */
  readonly result: Float64Array;
  /** Rows that the recording does not have: ends of processes that ran on, starts of those that it found running. */
  readonly nrImplied: number;
  readonly warnings: readonly string[];
}
