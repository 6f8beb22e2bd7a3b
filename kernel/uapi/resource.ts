/**
 * Resource limits, with Linux's numbers, and the layout of struct rlimit64: two 64-bit words, soft and hard.
 */

export const RLIMIT_CPU = 0;
export const RLIMIT_FSIZE = 1;
export const RLIMIT_DATA = 2;
export const RLIMIT_STACK = 3;
export const RLIMIT_CORE = 4;
export const RLIMIT_RSS = 5;
export const RLIMIT_NPROC = 6;
export const RLIMIT_NOFILE = 7;
export const RLIMIT_MEMLOCK = 8;
export const RLIMIT_AS = 9;
export const RLIMIT_SIGPENDING = 11;
export const RLIM_NLIMITS = 16;

/** No limit: 2^64 − 1 in memory. Numbers of 2^53 and more mean the same. */
export const RLIM_INFINITY = Number.POSITIVE_INFINITY;
export const RLIMIT_BYTES = 16;
