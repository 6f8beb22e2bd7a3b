/**
 * A program's environment without a kernel: for tests of userland alone.
 *
 * Memory is a page table over a pool of frames, as strict as the machine: an access has to be aligned, inside mapped
 * pages, and its value has to fit, or the test fails with `MemoryFault`. Frames are handed out zeroed and their
 * content is gone when they are unmapped. brk and mmap have Linux's manners (mmap places downwards from the top);
 * `refuse` makes any of them fail. Threads run round robin, a turn ending at each yield.
 */

import { PAGE_SIZE, TASK_SIZE, USER_HEAP_BASE, USER_MMAP_TOP } from "../../kernel/params.ts";
import { asUser, BLOCKED, type MaySleep, PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import { EBADF, ENOMEM, ENOSYS, ESRCH } from "../../kernel/uapi/errno.ts";
import { MAP_FIXED, MAP_FIXED_NOREPLACE } from "../../kernel/uapi/mman.ts";
import type { Program, ProgramEnv, ProgramObserver, UserMemory } from "../../kernel/uapi/program.ts";
import {
  SYS_brk,
  SYS_clone,
  SYS_close,
  SYS_exit,
  SYS_exit_group,
  SYS_mmap,
  SYS_munmap,
  SYS_pipe2,
  SYS_read,
  SYS_sched_yield,
  SYS_thread_join,
  SYS_write,
} from "../../kernel/uapi/syscall.ts";

export class MemoryFault extends Error {
  override readonly name = "MemoryFault";
}

/** Ends a thread from inside a system call. */
class ThreadExit extends Error {
  readonly status: number;
  readonly isGroup: boolean;
  constructor(status: number, isGroup: boolean) {
    super("exit");
    this.status = status;
    this.isGroup = isGroup;
  }
}

export type SyscallHook = (nr: number, args: readonly number[], mem: UserMemory) => MaySleep<number> | undefined;

export interface FakeOptions {
  /** Memory that the kernel has to give. */
  readonly limitBytes?: number;
  readonly argv?: readonly string[];
  /** Sees each system call first; `undefined` leaves it to the fake. */
  readonly hook?: SyscallHook;
  readonly observer?: ProgramObserver;
  /** timeIsUp() says so every that many calls; never by default. */
  readonly sliceCalls?: number;
  readonly heapBase?: number;
}

export interface FakeProcess {
  readonly env: ProgramEnv;
  /** The environment of one more thread. */
  threadEnv(): ProgramEnv;
  /** Runs `program` and the threads it starts; the exit status of the process. */
  run(program: Program): number;
  /** Called before each brk, mmap and munmap that would change something; true makes it fail. */
  refuse: (nr: number) => boolean;
  /** What was written, by file descriptor. */
  readonly written: Map<number, string>;
  nrMappedPages(): number;
  isMapped(va: number): boolean;
  readonly nrSyscalls: number;
}

interface PagedMemory extends UserMemory {
  map(page: number): void;
  unmap(page: number): void;
  isMapped(page: number): boolean;
  nrPages: number;
}

function createPagedMemory(limitBytes: number): PagedMemory {
  const frameOf = new Map<number, number>();
  const bytes = new Uint8Array(limitBytes);
  const view = new DataView(bytes.buffer);
  const freeFrames: number[] = [];
  let nrFrames = 0;
  // The page last looked up, as most accesses are to one near by.
  let lastPage = -1;
  let lastFrame = 0;

  const locate = (va: number, size: number): number => {
    if (!Number.isInteger(va) || va < 0 || va >= TASK_SIZE) throw new MemoryFault(`address ${va}`);
    if (va % size !== 0) throw new MemoryFault(`misaligned address 0x${va.toString(16)}`);
    const page = Math.floor(va / PAGE_SIZE);
    if (page !== lastPage) {
      const frame = frameOf.get(page);
      if (frame === undefined) throw new MemoryFault(`nothing is mapped at 0x${va.toString(16)}`);
      lastPage = page;
      lastFrame = frame;
    }
    return lastFrame * PAGE_SIZE + (va % PAGE_SIZE);
  };
  const fits = (value: number, limit: number): void => {
    if (!Number.isInteger(value) || value < 0 || value >= limit) throw new MemoryFault(`value ${value}`);
  };
  const mem: PagedMemory = {
    nrPages: 0,
    map(page) {
      const frame = freeFrames.pop() ?? nrFrames++;
      bytes.fill(0, frame * PAGE_SIZE, (frame + 1) * PAGE_SIZE);
      frameOf.set(page, frame);
      mem.nrPages++;
    },
    unmap(page) {
      const frame = frameOf.get(page);
      if (frame === undefined) return;
      freeFrames.push(frame);
      lastPage = -1;
      frameOf.delete(page);
      mem.nrPages--;
    },
    isMapped: (page) => frameOf.has(page),
    ld8: (va) => view.getUint8(locate(va, 1)),
    ld32: (va) => view.getUint32(locate(va, 4), true),
    st8(va, value) {
      fits(value, 256);
      view.setUint8(locate(va, 1), value);
    },
    st32(va, value) {
      fits(value, 2 ** 32);
      view.setUint32(locate(va, 4), value, true);
    },
    fill(va, byte, length) {
      mem.write(va, new Uint8Array(length).fill(byte));
    },
    copy(dst, src, length) {
      mem.write(dst, mem.read(src, length));
    },
    read(va, length) {
      const result = new Uint8Array(length);
      for (let done = 0; done < length; ) {
        const part = Math.min(length - done, PAGE_SIZE - ((va + done) % PAGE_SIZE));
        const at = locate(va + done, 1);
        result.set(bytes.subarray(at, at + part), done);
        done += part;
      }
      return result;
    },
    write(va, source) {
      for (let done = 0; done < source.length; ) {
        const part = Math.min(source.length - done, PAGE_SIZE - ((va + done) % PAGE_SIZE));
        bytes.set(source.subarray(done, done + part), locate(va + done, 1));
        done += part;
      }
    },
  };
  return mem;
}

interface AddressSpace {
  brk(to: number): number;
  mmap(hint: number, length: number, flags: number): number;
  munmap(va: number, length: number): number;
}

function createAddressSpace(mem: PagedMemory, limitPages: number, heapBase: number, refuses: (nr: number) => boolean) {
  let brk = heapBase;
  const pageOf = (va: number): number => Math.floor(va / PAGE_SIZE);
  const isFree = (page: number, nr: number): boolean => {
    for (let i = 0; i < nr; i++) if (mem.isMapped(page + i)) return false;
    return true;
  };
  /** The highest gap of `nr` pages below the top. */
  const search = (nr: number): number => {
    let page = USER_MMAP_TOP / PAGE_SIZE;
    for (let nrFree = 0; nrFree < nr; ) nrFree = mem.isMapped(--page) ? 0 : nrFree + 1;
    return page;
  };
  const space: AddressSpace = {
    brk(to) {
      if (to < heapBase || to === brk) return brk;
      const old = Math.ceil(brk / PAGE_SIZE);
      const wanted = Math.ceil(to / PAGE_SIZE);
      if (refuses(SYS_brk) || mem.nrPages + wanted - old > limitPages || !isFree(old, wanted - old)) return brk;
      for (let page = old; page < wanted; page++) mem.map(page);
      for (let page = wanted; page < old; page++) mem.unmap(page);
      brk = to;
      return brk;
    },
    mmap(hint, length, flags) {
      const nr = Math.ceil(length / PAGE_SIZE);
      if (refuses(SYS_mmap) || nr === 0 || mem.nrPages + nr > limitPages) return -ENOMEM;
      const isFixed = (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) !== 0;
      if (isFixed && (hint % PAGE_SIZE !== 0 || !isFree(pageOf(hint), nr))) return -ENOMEM;
      const page = isFixed ? pageOf(hint) : search(nr);
      for (let i = 0; i < nr; i++) mem.map(page + i);
      return page * PAGE_SIZE;
    },
    munmap(va, length) {
      if (refuses(SYS_munmap) || va % PAGE_SIZE !== 0) return -ENOMEM;
      for (let i = 0; i < Math.ceil(length / PAGE_SIZE); i++) {
        if (!mem.isMapped(pageOf(va) + i)) throw new MemoryFault(`munmap of nothing at 0x${va.toString(16)}`);
        mem.unmap(pageOf(va) + i);
      }
      return 0;
    },
  };
  return space;
}

/** Strings and their pointer array at `va`, as a kernel leaves them on the stack; the array's address. */
function writeArgv(mem: PagedMemory, argv: readonly string[]): number {
  const top = TASK_SIZE - PAGE_SIZE;
  const nrPages = 4;
  for (let i = 1; i <= nrPages; i++) mem.map(top / PAGE_SIZE - i);
  let at = top;
  const pointers = argv.map((text) => {
    const bytes = new TextEncoder().encode(`${text}\0`);
    at -= bytes.length;
    mem.write(at, bytes);
    return at;
  });
  at -= (at % 8) + pointers.length * 8;
  pointers.forEach((pointer, i) => {
    mem.st32(at + i * 8, pointer % 2 ** 32);
    mem.st32(at + i * 8 + 4, Math.floor(pointer / 2 ** 32));
  });
  return at;
}

interface Thread {
  readonly tid: number;
  readonly generator: Sleeping<number>;
  status: number | undefined;
}

/** A process with nothing in it yet. */
export function createFakeProcess(options: FakeOptions = {}): FakeProcess {
  const limitBytes = options.limitBytes ?? 64 * 1024 * 1024;
  const mem = createPagedMemory(limitBytes);
  const argv = options.argv ?? ["test"];
  const argvAddress = writeArgv(mem, argv);
  const space = createAddressSpace(mem, limitBytes / PAGE_SIZE, options.heapBase ?? USER_HEAP_BASE, (nr) =>
    self.refuse(nr),
  );
  const written = new Map<number, string>();
  const entries: Program[] = [];
  const threads: Thread[] = [];
  /** Pipes by either end's descriptor. */
  const pipes = new Map<number, number[]>();
  let nextFd = 3;
  let nrSyscalls = 0;
  let calls = 0;

  const start = (program: Program): number => {
    const tid = threads.length + 1;
    threads.push({ tid, generator: program(self.threadEnv()), status: undefined });
    return tid;
  };

  function* join(thread: Thread): Sleeping<number> {
    while (thread.status === undefined) yield BLOCKED;
    return thread.status;
  }

  /** Reads from a pipe: waits until something is in it. */
  function* readPipe(pipe: number[], buf: number, bytes: number): Sleeping<number> {
    while (pipe.length === 0) yield BLOCKED;
    const got = Uint8Array.from(pipe.splice(0, bytes));
    mem.write(buf, got);
    return got.length;
  }

  const openPipe = (fds: number): number => {
    const pipe: number[] = [];
    const readEnd = nextFd++;
    const writeEnd = nextFd++;
    pipes.set(readEnd, pipe);
    pipes.set(writeEnd, pipe);
    mem.st32(fds, readEnd);
    mem.st32(fds + 4, writeEnd);
    return 0;
  };

  const write = (fd: number, buf: number, bytes: number): number => {
    const content = mem.read(buf, bytes);
    const pipe = pipes.get(fd);
    if (pipe === undefined) written.set(fd, (written.get(fd) ?? "") + new TextDecoder().decode(content));
    else pipe.push(...content);
    return bytes;
  };

  function* yieldOnce(): Sleeping<number> {
    yield PREEMPTED;
    return 0;
  }

  const syscall = (nr: number, ...args: number[]): MaySleep<number> => {
    nrSyscalls++;
    const [a = 0, b = 0, c = 0, d = 0] = args;
    const hooked = options.hook?.(nr, args, mem);
    if (hooked !== undefined) return hooked;
    if (nr === SYS_brk) return space.brk(a);
    if (nr === SYS_mmap) return space.mmap(a, b, d);
    if (nr === SYS_munmap) return space.munmap(a, b);
    if (nr === SYS_sched_yield) return yieldOnce();
    if (nr === SYS_exit || nr === SYS_exit_group) throw new ThreadExit(a, nr === SYS_exit_group);
    if (nr === SYS_write) return write(a, b, c);
    if (nr === SYS_pipe2) return openPipe(a);
    if (nr === SYS_close) return pipes.delete(a) ? 0 : -EBADF;
    if (nr === SYS_read) {
      const pipe = pipes.get(a);
      return pipe === undefined ? -EBADF : readPipe(pipe, b, c);
    }
    if (nr === SYS_clone) {
      const entry = entries[c];
      return entry === undefined ? -ESRCH : start(entry);
    }
    if (nr === SYS_thread_join) {
      const thread = threads[a - 1];
      return thread === undefined ? -ESRCH : (thread.status ?? join(thread));
    }
    return -ENOSYS;
  };

  const turn = (thread: Thread): number | undefined => {
    try {
      const step = thread.generator.next();
      if (step.done) thread.status = step.value;
    } catch (error) {
      if (!(error instanceof ThreadExit)) throw error;
      thread.status = error.status;
      if (error.isGroup) return error.status;
    }
    return undefined;
  };

  const self: FakeProcess = {
    get env() {
      return self.threadEnv();
    },
    threadEnv: () => ({
      mem,
      syscall,
      timeIsUp: () => options.sliceCalls !== undefined && ++calls % options.sliceCalls === 0,
      now: () => nrSyscalls,
      argc: argv.length,
      argv: asUser(argvAddress),
      entryOf: (fn) => asUser(entries.push(fn) - 1),
      observer: options.observer,
    }),
    run(program) {
      start(program);
      for (;;) {
        for (let i = 0; i < threads.length; i++) {
          const thread = threads[i] as Thread;
          const status = thread.status === undefined ? turn(thread) : undefined;
          if (status !== undefined) return status;
        }
        if (threads.every((thread) => thread.status !== undefined)) return threads[0]?.status ?? 0;
      }
    },
    refuse: () => false,
    written,
    nrMappedPages: () => mem.nrPages,
    isMapped: (va) => mem.isMapped(Math.floor(va / PAGE_SIZE)),
    get nrSyscalls() {
      return nrSyscalls;
    },
  };
  return self;
}
