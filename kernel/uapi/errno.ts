/**
 * Error numbers, as every Unix has them. A system call or kernel function that fails returns the negative number.
 */

export const EPERM = 1;
export const ENOENT = 2;
export const ESRCH = 3;
export const EINTR = 4;
export const EIO = 5;
export const ENXIO = 6;
export const E2BIG = 7;
export const ENOEXEC = 8;
export const EBADF = 9;
export const ECHILD = 10;
export const EAGAIN = 11;
export const ENOMEM = 12;
export const EACCES = 13;
export const EFAULT = 14;
export const EBUSY = 16;
export const EEXIST = 17;
export const ENODEV = 19;
export const ENOTDIR = 20;
export const EISDIR = 21;
export const EINVAL = 22;
export const ENFILE = 23;
export const EMFILE = 24;
export const EFBIG = 27;
export const ENOSPC = 28;
export const EPIPE = 32;
export const ERANGE = 34;
export const EDEADLK = 35;
export const ENAMETOOLONG = 36;
export const ENOSYS = 38;
export const EOVERFLOW = 75;
export const ETIMEDOUT = 110;

const NAMES: Readonly<Record<number, readonly [name: string, text: string]>> = {
  [EPERM]: ["EPERM", "Operation not permitted"],
  [ENOENT]: ["ENOENT", "No such file or directory"],
  [ESRCH]: ["ESRCH", "No such process"],
  [EINTR]: ["EINTR", "Interrupted system call"],
  [EIO]: ["EIO", "Input/output error"],
  [ENXIO]: ["ENXIO", "No such device or address"],
  [E2BIG]: ["E2BIG", "Argument list too long"],
  [ENOEXEC]: ["ENOEXEC", "Exec format error"],
  [EBADF]: ["EBADF", "Bad file descriptor"],
  [ECHILD]: ["ECHILD", "No child processes"],
  [EAGAIN]: ["EAGAIN", "Resource temporarily unavailable"],
  [ENOMEM]: ["ENOMEM", "Cannot allocate memory"],
  [EACCES]: ["EACCES", "Permission denied"],
  [EFAULT]: ["EFAULT", "Bad address"],
  [EBUSY]: ["EBUSY", "Device or resource busy"],
  [EEXIST]: ["EEXIST", "File exists"],
  [ENODEV]: ["ENODEV", "No such device"],
  [ENOTDIR]: ["ENOTDIR", "Not a directory"],
  [EISDIR]: ["EISDIR", "Is a directory"],
  [EINVAL]: ["EINVAL", "Invalid argument"],
  [ENFILE]: ["ENFILE", "Too many open files in system"],
  [EMFILE]: ["EMFILE", "Too many open files"],
  [EFBIG]: ["EFBIG", "File too large"],
  [ENOSPC]: ["ENOSPC", "No space left on device"],
  [EPIPE]: ["EPIPE", "Broken pipe"],
  [ERANGE]: ["ERANGE", "Numerical result out of range"],
  [EDEADLK]: ["EDEADLK", "Resource deadlock avoided"],
  [ENAMETOOLONG]: ["ENAMETOOLONG", "File name too long"],
  [ENOSYS]: ["ENOSYS", "Function not implemented"],
  [EOVERFLOW]: ["EOVERFLOW", "Value too large for defined data type"],
  [ETIMEDOUT]: ["ETIMEDOUT", "Connection timed out"],
};

/** `EINVAL` for 22 or -22; the number itself where it has no name. */
export const errnoName = (errno: number): string => NAMES[Math.abs(errno)]?.[0] ?? String(errno);

/** `Invalid argument` for 22 or -22. */
export const strerror = (errno: number): string => NAMES[Math.abs(errno)]?.[1] ?? `Unknown error ${Math.abs(errno)}`;

/** 22 for `EINVAL`; undefined for a name that this kernel does not use. */
export function errnoNumber(name: string): number | undefined {
  const found = Object.entries(NAMES).find(([, [known]]) => known === name);
  return found === undefined ? undefined : Number(found[0]);
}
