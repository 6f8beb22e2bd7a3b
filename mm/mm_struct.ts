/**
 * mm_struct, vm_area_struct, anon_vma: the layout of an address space in RAM.
 *
 * mm_struct (slab cache of that name). All words are u32 and count pages unless it says otherwise.
 *
 * | offset | field       | meaning                                                            |
 * |--------|-------------|--------------------------------------------------------------------|
 * | 0      | list        | neighbours on the list of all address spaces (granules, lib/list)  |
 * | 8      | vma root    | root of the tree of VMAs, ordered by start                         |
 * | 12     | pgd         | frame of the root page table                                       |
 * | 16     | users       | threads that live in it                                            |
 * | 20     | asid        | tag of its TLB entries                                             |
 * | 24     | cpus        | u32 ×2, bit mask of CPUs whose TLB may hold entries                |
 * | 32     | rss anon    | entries that map anonymous pages                                   |
 * | 36     | rss file    | entries that map pages of files                                    |
 * | 40     | rss shmem   | entries that map pages of shared memory                            |
 * | 44     | swap ents   | entries that name a swap slot                                      |
 * | 48     | total vm    | pages covered by VMAs                                              |
 * | 52     | data vm     | of these: private and writable, no stack                           |
 * | 56     | stack vm    | of these: stack                                                    |
 * | 60     | locked vm   | of these: locked into memory                                       |
 * | 64     | committed   | pages promised: its part of NR_COMMITTED                           |
 * | 68     | map count   | number of VMAs                                                     |
 * | 72     | brk         | f64, the program break, bytes                                      |
 * | 80     | faults      | page faults served without I/O                                     |
 * | 84     | maj faults  | page faults that waited for a device                               |
 * | 88     | cow faults  | of all: those that copied a page                                   |
 * | 92     | peak rss    | largest sum of the three rss counters                              |
 * | 96     | peak vm     | largest total vm                                                   |
 * | 100    | def flags   | VM_ flags that every new mapping gets (mlockall)                   |
 * | 104    | limits      | u32 ×4, pages: address space, data, stack, locked; all ones: none  |
 * | 120    | heap start  | f64, where the break began, bytes                                  |
 * | 128    | mmap top    | mappings are searched downwards from this page                     |
 * | 132    | stack top   | page after the stack                                               |
 *
 * vm_area_struct covers the virtual pages `[start, end)`:
 *
 * | offset | field       | meaning                                                            |
 * |--------|-------------|--------------------------------------------------------------------|
 * | 0      | node        | of the tree (lib/rbtree), 16 bytes                                 |
 * | 16     | start, end  | u32 ×2, virtual page numbers                                       |
 * | 24     | prot        | PROT_READ, PROT_WRITE, PROT_EXEC                                   |
 * | 28     | kind        | VMA_ANON, VMA_HEAP, VMA_STACK: what it is for                      |
 * | 32     | flags       | VM_ bits below                                                     |
 * | 36     | pgoff       | the `index` of a page in it is pgoff + page − start                |
 * | 40     | mm          | granule of its mm_struct                                           |
 * | 44     | anon_vma    | granule; 0 before the first anonymous page                         |
 * | 48     | anon links  | neighbours on the anon_vma's list                                  |
 * | 56     | mapping     | granule of its address_space; 0: private anonymous memory          |
 * | 64     | file links  | neighbours on the address_space's list                             |
 * | 72     | gap         | free pages below it, down to the next VMA (or page 0)              |
 * | 76     | subtree gap | largest gap among it and its children: leads the search            |
 *
 * address_space: what is mapped when it is not private anonymous memory. A file, a disk, or a piece of shared memory.
 * Offsets: 0 head of the list of VMAs · 8 radix tree of pages (radix.ts) · 16 number of pages · 20 users (the file,
 * open files, VMAs) · 24 flags AS_ · 28 pages promised · 32 size in bytes, f64 · 40 write errors so far · 44 of these,
 * those that somebody was told of · 48 writes of its disk, ever · 52 shadows in the tree · 56 when it became
 * dirty, f64 · 64 write-outs asked for · 68 write-outs done · 72 neighbours on the list of those that swap can take ·
 * 80 its pages in swap · 84 where the next write-out goes on · 88, 92 pages from and to before
 * which somebody waits for, and no write-out has begun with; 92 is 0 for none.
 *
 * anon_vma: the head of the list of VMAs that may map its pages, and how many they are.
 *
 *   VMA-1  VMAs are disjoint, in order, not empty, inside user space
 *   VMA-2  neighbours that nothing sets apart are one VMA
 *   VMA-3  total vm = Σ (end − start); rss ≤ total vm
 *
 * Linux keeps VMAs in a maple tree since 6.1; a red-black tree was used before and is what a student can follow.
 */

export const MM_LIST = 0;
export const MM_VMA_ROOT = 8;
export const MM_PGD = 12;
export const MM_USERS = 16;
export const MM_ASID = 20;
export const MM_CPUS = 24;
export const MM_RSS_ANON = 32;
export const MM_RSS_FILE = 36;
export const MM_RSS_SHMEM = 40;
export const MM_SWAPENTS = 44;
export const MM_TOTAL_VM = 48;
export const MM_DATA_VM = 52;
export const MM_STACK_VM = 56;
export const MM_LOCKED_VM = 60;
export const MM_COMMITTED = 64;
export const MM_MAP_COUNT = 68;
export const MM_BRK = 72;
export const MM_FAULTS = 80;
export const MM_MAJ_FAULTS = 84;
export const MM_COW_FAULTS = 88;
export const MM_PEAK_RSS = 92;
export const MM_PEAK_VM = 96;
export const MM_DEF_FLAGS = 100;
export const MM_LIM_AS = 104;
export const MM_LIM_DATA = 108;
export const MM_LIM_STACK = 112;
export const MM_LIM_MEMLOCK = 116;
export const MM_START_BRK = 120;
export const MM_MMAP_TOP = 128;
export const MM_STACK_TOP = 132;
export const MM_STRUCT_BYTES = 192;

export const VMA_NODE = 0;
export const VMA_START = 16;
export const VMA_END = 20;
export const VMA_PROT = 24;
export const VMA_KIND = 28;
export const VMA_FLAGS = 32;
export const VMA_PGOFF = 36;
export const VMA_MM = 40;
export const VMA_ANON_VMA = 44;
export const VMA_ANON_LINK = 48;
export const VMA_MAPPING = 56;
export const VMA_FILE_LINK = 64;
export const VMA_GAP = 72;
export const VMA_SUBTREE_GAP = 76;
export const VMA_BYTES = 128;

export const AS_LIST = 0;
export const AS_RADIX = 8;
export const AS_NR_PAGES = 16;
export const AS_USERS = 20;
export const AS_FLAGS = 24;
export const AS_COMMITTED = 28;
export const AS_SIZE = 32;
export const AS_ERRORS = 40;
export const AS_ERRORS_SEEN = 44;
export const AS_WRITES = 48;
export const AS_NR_SHADOWS = 52;
export const AS_DIRTIED_WHEN = 56;
export const AS_SYNC_WANTED = 64;
export const AS_SYNC_DONE = 68;
export const AS_SWAP_LINK = 72;
export const AS_NR_SWAPPED = 80;
export const AS_CURSOR = 84;
export const AS_SYNC_FROM = 88;
export const AS_SYNC_TO = 92;
export const ADDRESS_SPACE_BYTES = 96;
/** Shared memory without a file: its pages go to swap. */
export const AS_SHMEM = 1;
/** A disk: its pages are read from there and written back. */
export const AS_DISK = 2;
/** A file of a tmpfs: its pages go to swap. */
export const AS_TMPFS = 4;

export const AV_LIST = 0;
export const AV_USERS = 8;
export const ANON_VMA_BYTES = 16;

/** What a VMA is for; only equal kinds merge. */
export const VMA_ANON = 0;
export const VMA_HEAP = 1;
export const VMA_STACK = 2;

/** Flags of a VMA, with Linux's values. */
export const VM_SHARED = 0x8;
/** PROT_WRITE may be given: the file was opened for writing, or it is no shared file. */
export const VM_MAYWRITE = 0x20;
export const VM_GROWSDOWN = 0x100;
export const VM_LOCKED = 0x2000;
export const VM_SEQ_READ = 0x8000;
export const VM_RAND_READ = 0x1_0000;
export const VM_DONTCOPY = 0x2_0000;
/** Its pages are in the account of promises. */
export const VM_ACCOUNT = 0x10_0000;
export const VM_HUGEPAGE = 0x2000_0000;
export const VM_NOHUGEPAGE = 0x4000_0000;

/** No limit. */
export const PAGES_UNLIMITED = 0xffff_ffff;
/** Pages below a growing stack that are never given to a mapping. */
export const STACK_GUARD_GAP = 256;

/** vm.max_map_count. */
export const MAX_MAP_COUNT = 65_530;
