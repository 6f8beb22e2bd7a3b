/**
 * Signals with handlers: numbers, flags and layouts of Linux (riscv64), as far as this kernel has them.
 *
 * struct sigaction:  0 handler u64 (a text address, SIG_DFL or SIG_IGN) · 8 flags u64 · 16 mask u64: 24 bytes
 * siginfo:           0 si_signo i32 · 4 si_errno i32 · 8 si_code i32 · 16 si_addr u64, or si_pid u32, si_uid u32,
 *                    si_status i32: 128 bytes, of which the rest is 0
 * stack_t:           0 ss_sp u64 · 8 ss_flags i32 · 16 ss_size u64: 24 bytes
 *
 * A signal frame is a siginfo, then the mask to go back to (u64) and a magic word (u64).
 */

export const SIGILL = 4;
export const SIGABRT = 6;
export const SIGUSR1 = 10;
export const SIGUSR2 = 12;
export const SIGALRM = 14;
export const SIGSTOP = 19;
export const SIGTSTP = 20;
export const SIGTTIN = 21;
export const SIGTTOU = 22;
export const NR_SIGNALS = 64;

export const SIG_DFL = 0;
export const SIG_IGN = 1;

export const SA_NOCLDSTOP = 0x1;
export const SA_NOCLDWAIT = 0x2;
export const SA_SIGINFO = 0x4;
export const SA_ONSTACK = 0x0800_0000;
export const SA_RESTART = 0x1000_0000;
export const SA_NODEFER = 0x4000_0000;
export const SA_RESETHAND = 0x8000_0000;

export const SIG_BLOCK = 0;
export const SIG_UNBLOCK = 1;
export const SIG_SETMASK = 2;

export const SI_USER = 0;
export const SEGV_MAPERR = 1;
export const SEGV_ACCERR = 2;
export const BUS_ADRERR = 2;
export const CLD_EXITED = 1;
export const CLD_KILLED = 2;
export const CLD_STOPPED = 5;
export const CLD_CONTINUED = 6;

/** wait4's word: the low byte of a stopped process, whose signal is in the next; that of one that goes on. */
export const STATUS_STOPPED = 0x7f;
export const STATUS_CONTINUED = 0xffff;

export const SIGACTION_BYTES = 24;
export const SIGINFO_BYTES = 128;
export const SI_CODE = 8;
export const SI_ADDR = 16;
export const SI_PID = 16;
export const SI_STATUS = 24;
export const STACK_T_BYTES = 24;
export const SS_DISABLE = 2;
export const MINSIGSTKSZ = 2048;
