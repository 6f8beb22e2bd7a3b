/**
 * Memory calls of a syscall replay: one recorded call carried over to the address space of the process that plays it.
 *
 *   recorded addresses ─▶ segments (recorded_space.ts) ─▶ our addresses ─▶ system call ─▶ segments, stamps, touching
 *
 * What the recording does not say, and how it is filled in:
 *
 *   which pages a program touches    touch model: `all` pages of writable private memory, at most 4,096 a call; the
 *                                    `first` and last of each range; `none`. The kernel sees them when they are
 *                                    obtained or become writable
 *   what the image of a program is   a range that no call has mapped is mapped, readable and writable, when the first
 *                                    call names it; unmapping such a range has nothing to do
 *   what is in a mapped file         zeros: one file, as long as the farthest mapping reaches, stands for all; where it
 *                                    cannot be mapped, anonymous private memory of the same size
 *
 * Every touched page is stamped, and read again before it is unmapped, moved, protected or dropped. The other words of
 * a page that is touched for the first time have to be zero.
 *
 * Context: plain functions of user code; a call that would sleep here is a bug of this file.
 */

import { PAGE_SIZE } from "../kernel/params.ts";
import { EFAULT, ENOSYS } from "../kernel/uapi/errno.ts";
import {
  MADV_DONTNEED,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_FIXED_NOREPLACE,
  MAP_PRIVATE,
  MAP_SHARED,
  MREMAP_MAYMOVE,
  PROT_READ,
  PROT_WRITE,
} from "../kernel/uapi/mman.ts";
import type { ProgramEnv } from "../kernel/uapi/program.ts";
import {
  SC_BRK,
  SC_MADVISE,
  SC_MLOCK,
  SC_MLOCKALL,
  SC_MMAP,
  SC_MPROTECT,
  SC_MREMAP,
  SC_MUNLOCK,
  SC_MUNLOCKALL,
  SC_MUNMAP,
  type SyscallRecording,
} from "../kernel/uapi/recording.ts";
import {
  SYS_brk,
  SYS_madvise,
  SYS_mlock,
  SYS_mlockall,
  SYS_mmap,
  SYS_mprotect,
  SYS_mremap,
  SYS_munlock,
  SYS_munlockall,
  SYS_munmap,
} from "../kernel/uapi/syscall.ts";
import type { TouchModel } from "./heap_replay.ts";
import { forget, gapsOf, pageUp, partsOf, type RecordedSpace, remember, type Segment } from "./recorded_space.ts";

/** Pages that one call makes us touch at most: 16 MiB. */
export const MAX_TOUCHED_PAGES = 4096;
const LAST_WORD = PAGE_SIZE - 4;
const RW = PROT_READ | PROT_WRITE;
const ANON = MAP_PRIVATE | MAP_ANONYMOUS;
const FIXED = MAP_FIXED | MAP_FIXED_NOREPLACE;

/** What all processes of a replay count together. */
export interface MemoryCounters {
  nrTouched: number;
  nrChecked: number;
  nrCorrupt: number;
  /** Ranges mapped because a call named what no call had mapped. */
  nrImpliedRanges: number;
  /** Mappings of files, and those of them that anonymous memory stands for. */
  nrFileMappings: number;
  nrFilesAnonymous: number;
  nextStamp: number;
}

export const newMemoryCounters = (): MemoryCounters => ({
  nrTouched: 0,
  nrChecked: 0,
  nrCorrupt: 0,
  nrImpliedRanges: 0,
  nrFileMappings: 0,
  nrFilesAnonymous: 0,
  nextStamp: 1,
});

/** The file that stands for all files: its descriptor, −1 for none, and its length. */
export interface BackingFile {
  readonly fd: number;
  readonly bytes: number;
}

export const NO_FILE: BackingFile = { fd: -1, bytes: 0 };

/** Longest file; mappings that reach farther are anonymous. */
const MAX_FILE_BYTES = 2 ** 30;

/** How far the mappings of files reach. */
export function backingBytes({ nrEvents, call, fd, extra, bytes }: SyscallRecording): number {
  let end = 0;
  for (let i = 0; i < nrEvents; i++) {
    const reach = (extra[i] as number) + (bytes[i] as number);
    if (call[i] === SC_MMAP && fd[i] !== -1 && reach <= MAX_FILE_BYTES) end = Math.max(end, reach);
  }
  return pageUp(end);
}

export interface MemoryPlayer {
  /** Carries out row `i`, a call about memory: 0 or an address like the recorded one, or −errno. */
  play(space: RecordedSpace, i: number): number;
  /** Reads every stamped page again. */
  checkAll(space: RecordedSpace): void;
  /** Writes anew into every eighth touched page, from the last: what a child does with what it shares. */
  rewrite(space: RecordedSpace): void;
}

export function createMemoryPlayer(
  env: ProgramEnv,
  recording: SyscallRecording,
  touch: TouchModel,
  counters: MemoryCounters,
  backing: BackingFile,
): MemoryPlayer {
  const { mem } = env;
  const { call, addr, bytes, extra, arg, flags, fd, result } = recording;

  const sys = (nr: number, a0: number, a1 = 0, a2 = 0, a3 = 0, a4 = 0, a5 = 0): number => {
    const got = env.syscall(nr, a0, a1, a2, a3, a4, a5);
    if (typeof got !== "number") throw new Error("strace_memory: a memory call wants to sleep");
    return got;
  };
  const mapAnonymous = (at: number, size: number, prot: number, extraFlags: number): number =>
    sys(SYS_mmap, at, size, prot, ANON | extraFlags, -1, 0);

  // ── Stamps ───────────────────────────────────────────────────────────────────────────────────────────────────────

  const isStamped = (va: number, stamp: number): boolean =>
    mem.ld32(va) === stamp && mem.ld32(va + LAST_WORD) === ~stamp >>> 0;

  const stampPage = (space: RecordedSpace, page: number): void => {
    const va = page * PAGE_SIZE;
    const old = space.stamps.get(page);
    if (old !== undefined) {
      counters.nrChecked++;
      if (!isStamped(va, old)) counters.nrCorrupt++;
    }
    const stamp = counters.nextStamp++ >>> 0;
    mem.st32(va, stamp);
    // Nobody had it before: nothing but zeros.
    if (old === undefined && (mem.ld32(va + PAGE_SIZE / 2) | mem.ld32(va + LAST_WORD)) !== 0) counters.nrCorrupt++;
    mem.st32(va + LAST_WORD, ~stamp >>> 0);
    space.stamps.set(page, stamp);
    counters.nrTouched++;
  };

  const touchRange = (space: RecordedSpace, start: number, end: number): void => {
    const [first, last] = [Math.ceil(start / PAGE_SIZE), Math.floor(end / PAGE_SIZE) - 1];
    if (touch === "none" || last < first) return;
    stampPage(space, first);
    if (touch === "first" && last > first) stampPage(space, last);
    if (touch !== "all") return;
    for (let page = first + 1; page <= last && page < first + MAX_TOUCHED_PAGES; page++) stampPage(space, page);
  };

  /** Calls `visit` for each stamped page of `[start, end)`, in whichever way is shorter. */
  const forEachStamped = (
    { stamps }: RecordedSpace,
    start: number,
    end: number,
    visit: (page: number, stamp: number) => void,
  ): void => {
    const [first, last] = [Math.floor(start / PAGE_SIZE), Math.ceil(end / PAGE_SIZE)];
    if (last - first <= stamps.size) {
      for (let page = first; page < last; page++) {
        const stamp = stamps.get(page);
        if (stamp !== undefined) visit(page, stamp);
      }
    } else for (const [page, stamp] of [...stamps]) if (page >= first && page < last) visit(page, stamp);
  };

  /** Reads the stamped pages of a part again; without the right to read nothing can be said. */
  const checkPart = (space: RecordedSpace, { at, start, end, prot }: Segment): void => {
    if ((prot & RW) === 0) return;
    forEachStamped(space, at, at + end - start, (page, stamp) => {
      counters.nrChecked++;
      if (!isStamped(page * PAGE_SIZE, stamp)) counters.nrCorrupt++;
    });
  };
  const dropStamps = (space: RecordedSpace, { at, start, end }: Segment): void =>
    forEachStamped(space, at, at + end - start, (page) => space.stamps.delete(page));

  /** A part is about to lose its pages. */
  const leave = (space: RecordedSpace, segment: Segment): void => {
    checkPart(space, segment);
    dropStamps(space, segment);
  };

  // ── Calls ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The parts of a range, with the image of the program mapped where no call has mapped anything. */
  const wholeRange = (space: RecordedSpace, start: number, end: number): Segment[] => {
    for (const [from, to] of gapsOf(partsOf(space, start, end), start, end)) {
      const at = mapAnonymous(0, to - from, RW, 0);
      if (at < 0) continue;
      counters.nrImpliedRanges++;
      remember(space, { start: from, end: to, at, prot: RW, isPrivate: true });
      touchRange(space, at, at + to - from);
    }
    return partsOf(space, start, end);
  };

  /** `perform` on each part; the first error, or 0. */
  const onParts = (parts: readonly Segment[], perform: (part: Segment) => number): number => {
    let worst = 0;
    for (const segment of parts) {
      const got = perform(segment);
      if (got < 0 && worst === 0) worst = got;
    }
    return worst;
  };

  const firstBreak = (space: RecordedSpace, recorded: number): void => {
    const now = sys(SYS_brk, 0);
    const inPage = recorded % PAGE_SIZE;
    space.brkReplayed = inPage === 0 ? now : sys(SYS_brk, now + inPage);
    space.brkRecorded = recorded;
    space.brkEnd = recorded;
  };

  /** What is asked for may be refused by both: then the break is where it was. */
  const brk = (space: RecordedSpace, i: number): number => {
    const [asked, recorded] = [addr[i] as number, result[i] as number];
    if (space.brkRecorded === 0) firstBreak(space, asked === 0 ? recorded : Math.min(asked, recorded));
    const shift = space.brkReplayed - space.brkRecorded;
    if (asked === 0) return sys(SYS_brk, 0) - shift;
    const wanted = Math.max(0, asked + shift);
    const old = space.brkEnd;
    const [above, below] = [pageUp(old), pageUp(asked)];
    if (asked < old) for (const segment of partsOf(space, below, above)) leave(space, segment);
    const got = sys(SYS_brk, wanted);
    if (got !== wanted) return got - shift;
    space.brkEnd = asked;
    if (below > above) {
      const segment = { start: above, end: below, at: above + shift, prot: RW, isPrivate: true };
      remember(space, segment);
      touchRange(space, segment.at, segment.at + below - above);
    } else forget(space, below, above);
    return got - shift;
  };

  /** What row `i` maps, `at` an address of ours or 0. */
  const mapRow = (i: number, at: number, fixed: number): number => {
    const [size, prot, how, offset] = [bytes[i] as number, arg[i] as number, flags[i] as number, extra[i] as number];
    if (fd[i] === -1 || (how & MAP_ANONYMOUS) !== 0) return mapAnonymous(at, size, prot, fixed);
    counters.nrFileMappings++;
    if (backing.fd >= 0 && offset + size <= backing.bytes) {
      return sys(SYS_mmap, at, size, prot, (how & MAP_SHARED ? MAP_SHARED : MAP_PRIVATE) | fixed, backing.fd, offset);
    }
    counters.nrFilesAnonymous++;
    return mapAnonymous(at, size, prot, fixed);
  };

  const mmap = (space: RecordedSpace, i: number): number => {
    const [hint, size, prot, how] = [addr[i] as number, bytes[i] as number, arg[i] as number, flags[i] as number];
    const recorded = result[i] as number;
    const isPrivate = (how & MAP_SHARED) === 0;
    let at = 0;
    if ((how & FIXED) !== 0) {
      const old = partsOf(space, hint, pageUp(hint + size));
      const [only] = old;
      // Inside one older mapping it stays at its offset in that; elsewhere our own neighbours are others.
      if (old.length === 1 && only !== undefined && only.end - only.start === pageUp(hint + size) - hint) {
        leave(space, only);
        at = mapRow(i, only.at, how & FIXED);
      } else {
        for (const segment of old) {
          leave(space, segment);
          sys(SYS_munmap, segment.at, segment.end - segment.start);
        }
        forget(space, hint, pageUp(hint + size));
        at = mapRow(i, 0, 0);
      }
    } else at = mapRow(i, 0, 0);
    if (at < 0) return at;
    if (recorded < 0) {
      sys(SYS_munmap, at, size);
      return at;
    }
    const end = recorded + pageUp(size);
    remember(space, { start: recorded, end, at, prot, isPrivate });
    if (isPrivate && (prot & PROT_WRITE) !== 0) touchRange(space, at, at + end - recorded);
    return recorded;
  };

  const munmap = (space: RecordedSpace, start: number, end: number): number => {
    const got = onParts(partsOf(space, start, end), (segment) => {
      leave(space, segment);
      return sys(SYS_munmap, segment.at, segment.end - segment.start);
    });
    if (got === 0) forget(space, start, end);
    return got;
  };

  const mprotect = (space: RecordedSpace, i: number, start: number, end: number): number => {
    const prot = arg[i] as number;
    return onParts(wholeRange(space, start, end), (segment) => {
      checkPart(space, segment);
      const got = sys(SYS_mprotect, segment.at, segment.end - segment.start, prot);
      if (got < 0) return got;
      remember(space, { ...segment, prot });
      const isNew = (segment.prot & PROT_WRITE) === 0 && (prot & PROT_WRITE) !== 0 && segment.isPrivate;
      if (isNew) touchRange(space, segment.at, segment.at + segment.end - segment.start);
      return 0;
    });
  };

  const madvise = (space: RecordedSpace, i: number, start: number, end: number): number => {
    const advice = arg[i] as number;
    return onParts(wholeRange(space, start, end), (segment) => {
      checkPart(space, segment);
      const got = sys(SYS_madvise, segment.at, segment.end - segment.start, advice);
      if (advice !== MADV_DONTNEED || got < 0) return got;
      forEachStamped(space, segment.at, segment.at + segment.end - segment.start, (page) => {
        if ((segment.prot & RW) !== 0 && mem.ld32(page * PAGE_SIZE) !== 0) counters.nrCorrupt++;
      });
      dropStamps(space, segment);
      return 0;
    });
  };

  /** mlock and munlock take whole pages, wherever in them the range begins and ends. */
  const lock = (space: RecordedSpace, i: number, nr: number): number => {
    const start = Math.floor((addr[i] as number) / PAGE_SIZE) * PAGE_SIZE;
    const end = pageUp((addr[i] as number) + (bytes[i] as number));
    return onParts(wholeRange(space, start, end), (segment) => sys(nr, segment.at, segment.end - segment.start));
  };

  const mremap = (space: RecordedSpace, i: number): number => {
    const start = addr[i] as number;
    const end = start + pageUp(bytes[i] as number);
    const newSize = pageUp(extra[i] as number);
    const [old, ...others] = wholeRange(space, start, end);
    if (old === undefined || others.length > 0) return -EFAULT;
    const recorded = result[i] as number;
    checkPart(space, old);
    const at = sys(SYS_mremap, old.at, end - start, newSize, (flags[i] as number) & MREMAP_MAYMOVE);
    if (at < 0) return at;
    const moved: [number, number][] = [];
    forEachStamped(space, old.at, old.at + end - start, (page, stamp) => {
      space.stamps.delete(page);
      const offset = page * PAGE_SIZE - old.at;
      if (offset < newSize) moved.push([(at + offset) / PAGE_SIZE, stamp]);
    });
    for (const [page, stamp] of moved) space.stamps.set(page, stamp);
    forget(space, start, end);
    const now = recorded > 0 ? recorded : start;
    const segment = { ...old, start: now, end: now + newSize, at };
    remember(space, segment);
    checkPart(space, segment);
    if (newSize > end - start && (old.prot & PROT_WRITE) !== 0) touchRange(space, at + end - start, at + newSize);
    return now;
  };

  return {
    play(space, i) {
      const start = addr[i] as number;
      const end = start + pageUp(bytes[i] as number);
      switch (call[i]) {
        case SC_BRK:
          return brk(space, i);
        case SC_MMAP:
          return mmap(space, i);
        case SC_MUNMAP:
          return munmap(space, start, end);
        case SC_MPROTECT:
          return mprotect(space, i, start, end);
        case SC_MREMAP:
          return mremap(space, i);
        case SC_MADVISE:
          return madvise(space, i, start, end);
        case SC_MLOCK:
          return lock(space, i, SYS_mlock);
        case SC_MUNLOCK:
          return lock(space, i, SYS_munlock);
        case SC_MLOCKALL:
          return sys(SYS_mlockall, arg[i] as number);
        case SC_MUNLOCKALL:
          return sys(SYS_munlockall, 0);
        default:
          return -ENOSYS;
      }
    },
    checkAll(space) {
      for (const segment of space.segments) checkPart(space, segment);
    },
    rewrite(space) {
      const pages = [...space.stamps.keys()];
      for (let i = pages.length - 1; i >= 0; i -= 8) {
        const page = pages[i] as number;
        const segment = space.segments.find(
          ({ at, start, end }) => at <= page * PAGE_SIZE && page * PAGE_SIZE < at + end - start,
        );
        if (segment !== undefined && (segment.prot & PROT_WRITE) !== 0) stampPage(space, page);
      }
    },
  };
}
