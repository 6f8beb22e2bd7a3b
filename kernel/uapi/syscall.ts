/**
 * System call numbers: Linux's generic table (riscv64) where Linux has the call; from 1000 on, our own.
 *
 * Arguments are listed behind each number. Results are ≥ 0 or −errno.
 */

/** getcwd(buf, bytes) → bytes with the NUL */
export const SYS_getcwd = 17;
/** chdir(path) */
export const SYS_chdir = 49;
/** openat(dirfd ignored, path, flags, mode) → fd */
export const SYS_openat = 56;
/** close(fd) */
export const SYS_close = 57;
/** pipe2(int fds[2], flags) */
export const SYS_pipe2 = 59;
/** getdents(fd, buf, bytes) → bytes; names separated by NUL, directories with a trailing slash (simplified). */
export const SYS_getdents64 = 61;
/** ftruncate(fd, bytes): what is beyond goes, also from memory that maps it */
export const SYS_ftruncate = 46;
/** lseek(fd, offset, whence) → position */
export const SYS_lseek = 62;
/** read(fd, buf, bytes) → bytes read, 0 at the end */
export const SYS_read = 63;
/** write(fd, buf, bytes) → bytes written */
export const SYS_write = 64;
/** sync(): what is dirty now is on its disk afterwards */
export const SYS_sync = 81;
/** fsync(fd), fdatasync(fd): what was written is on the disk; −EIO, once, if something could not be written */
export const SYS_fsync = 82;
export const SYS_fdatasync = 83;
/** personality(persona, or 0xffffffff to ask) → the one before; of its bits, ADDR_NO_RANDOMIZE has a meaning */
export const SYS_personality = 92;
export const ADDR_NO_RANDOMIZE = 0x004_0000;
/** exit(status): ends the calling thread */
export const SYS_exit = 93;
/** exit_group(status): ends the process */
export const SYS_exit_group = 94;
/** futex(u32 *addr, FUTEX_WAIT | FUTEX_WAKE | FUTEX_LOCK_PI | FUTEX_UNLOCK_PI, value or number to wake) */
export const SYS_futex = 98;
export const FUTEX_WAIT = 0;
export const FUTEX_WAKE = 1;
export const FUTEX_LOCK_PI = 6;
export const FUTEX_UNLOCK_PI = 7;
/** Of the word of such a lock: others wait; its owner ended as owner; the thread that owns it, 0 for none. */
export const FUTEX_WAITERS = 0x8000_0000;
export const FUTEX_OWNER_DIED = 0x4000_0000;
export const FUTEX_TID_MASK = 0x3fff_ffff;
/** nanosleep(cycles): sleeps in virtual time; a plain number instead of a struct timespec. */
export const SYS_nanosleep = 101;
/** init_module(name, args): loads a driver by its name; parameters as `name=value` words (a name, not an image). */
export const SYS_init_module = 105;
/** delete_module(name, flags ignored) */
export const SYS_delete_module = 106;
export const SYS_sched_yield = 124;
/** kill(pid, signal) */
export const SYS_kill = 129;
/** tgkill(pid, tid, signal) */
export const SYS_tgkill = 131;
/** sigaltstack(const stack_t *new or NULL, stack_t *old or NULL) */
export const SYS_sigaltstack = 132;
/** rt_sigsuspend(const sigset_t *set, 8) → −EINTR */
export const SYS_rt_sigsuspend = 133;
/** rt_sigaction(signal, const struct sigaction *new or NULL, struct sigaction *old or NULL, 8) */
export const SYS_rt_sigaction = 134;
/** rt_sigprocmask(how, const sigset_t *set or NULL, sigset_t *old or NULL, 8) */
export const SYS_rt_sigprocmask = 135;
/** rt_sigpending(sigset_t *set, 8) */
export const SYS_rt_sigpending = 136;
/** rt_sigreturn(): what the return of a handler does; called by anybody else it kills (SIGSEGV). */
export const SYS_rt_sigreturn = 139;
/** uname(buf[6 × 65]) */
export const SYS_uname = 160;
export const SYS_getpid = 172;
export const SYS_getppid = 173;
export const SYS_gettid = 178;
/** brk(addr) → the break after the call; brk(0) asks. Never −errno: an unchanged break is the failure. */
export const SYS_brk = 214;
/** munmap(addr, bytes) */
export const SYS_munmap = 215;
/** mremap(addr, old bytes, new bytes, flags, new addr) → addr */
export const SYS_mremap = 216;
/** clone(flags ignored, stack ignored, entry, arg): starts a thread of the calling process, argc 0, argv = arg → tid */
export const SYS_clone = 220;
/** execve(path, argv pointer, argc) → −errno, or it does not come back (no environment). */
export const SYS_execve = 221;
/** mmap(addr, bytes, prot, flags, fd, offset) → addr */
export const SYS_mmap = 222;
/** mprotect(addr, bytes, prot) */
export const SYS_mprotect = 226;
/** msync(addr, bytes, flags) */
export const SYS_msync = 227;
/** mlock(addr, bytes); munlock(addr, bytes); mlockall(flags); munlockall() */
export const SYS_mlock = 228;
export const SYS_munlock = 229;
export const SYS_mlockall = 230;
export const SYS_munlockall = 231;
/** mincore(addr, bytes, u8 vec[pages]): bit 0 of each: the page is in memory */
export const SYS_mincore = 232;
/** madvise(addr, bytes, advice) */
export const SYS_madvise = 233;
/** wait4(pid or −1, int *status, options) → pid */
export const SYS_wait4 = 260;
/** prlimit64(pid or 0, resource, const struct rlimit64 *new or NULL, struct rlimit64 *old or NULL) */
export const SYS_prlimit64 = 261;
/** swapon(path, flags): the disk becomes a swap area; its priority is in the flags with SWAP_FLAG_PREFER */
export const SYS_swapon = 224;
export const SWAP_FLAG_PREFER = 0x8000;
export const SWAP_FLAG_PRIO_MASK = 0x7fff;
/** swapoff(path) */
export const SYS_swapoff = 225;
/** spawn(path, argv pointer, argc, fds[3]) → pid: a child running another program. */
export const SYS_spawn = 1000;
/** reboot(0 power off, 1 restart) */
export const SYS_reboot = 1001;
/** thread_join(tid) → its exit status; waits for a thread of the same process. */
export const SYS_thread_join = 1002;
/** sched_setscheduler(tid, policy 0 fair | 1 real time, priority) */
export const SYS_sched_setscheduler = 1003;
/** unlink(path) in the ramfs */
export const SYS_unlink = 1004;
/** fork(entry) → pid of a child that goes on at `entry` with a copy of everything (process_start.ts says why). */
export const SYS_fork = 1010;
/** vfork(entry) → pid: the same in the caller's address space; comes back when the child has left it. */
export const SYS_vfork = 1011;
/** eventcount() → fd of a new eventcount that stands at 0. */
export const SYS_eventcount = 1012;
/** eventcount_await(fd, value, cycles): sleeps until the count is `value`; −ETIMEDOUT after `cycles`, 0: never. */
export const SYS_eventcount_await = 1013;
/** eventcount_advance(fd, value): raises the count to `value` and wakes who waits for it. */
export const SYS_eventcount_advance = 1014;
