/**
 * task_struct: what the kernel keeps of a task, in RAM (an object of the slab cache `task_struct`).
 *
 * | offset | field      | width  | meaning, who writes it                                                        |
 * |--------|------------|--------|-------------------------------------------------------------------------------|
 * | 0      | rq node    | 16     | node of a runqueue's tree (fair) or list (real time); scheduler, runqueue lock |
 * | 16     | vruntime   | f64    | weighted cycles run; scheduler                                                |
 * | 24     | wait node  | 8      | list node of the wait queue it sleeps on                                      |
 * | 32     | tasks node | 8      | list of all tasks                                                             |
 * | 40     | pid        | u32    | of the thread                                                                 |
 * | 44     | tgid       | u32    | of the process                                                                |
 * | 48     | state      | u32    | TASK_RUNNING …                                                                |
 * | 52     | cpu        | u32    | where it runs or ran last                                                     |
 * | 56     | policy     | u32    | SCHED_NORMAL or SCHED_FIFO                                                    |
 * | 60     | priority   | u32    | real time: 1-99, higher first; 0 for a fair task                              |
 * | 64     | mm         | u32    | granule of its mm_struct; 0 for kernel threads                                |
 * | 68     | exit code  | u32    | once TASK_DEAD                                                                |
 * | 72     | parent     | u32    | granule of the parent's task_struct                                           |
 * | 76     | signal     | u32    | pending fatal signal, 0 if none                                               |
 * | 80     | preempt    | u32    | preempt_count while it is not running                                         |
 * | 84     | on queue   | u32    | 1 while on a runqueue                                                         |
 * | 88     | run cycles | f64    | CPU time used                                                                 |
 * | 96     | wake time  | f64    | nanosleep: clock value to wake at                                             |
 * | 104    | flags      | u32    | PF_KTHREAD, PF_MEMALLOC                                                       |
 * | 108    | nr faults  | u32    | minor faults                                                                  |
 * | 112    | comm       | 16     | name, NUL-padded                                                              |
 * | 128    | switches   | u32    | context switches                                                              |
 * | 132    | stack      | u32    | lowest page of its kernel stack, counted in the vmalloc window                |
 * | 136    | base policy| u32    | policy as it was set; `policy` may be above it by inheritance; scheduler      |
 * | 140    | base prio  | u32    | priority as it was set; `priority` is what counts                             |
 * | 144    | boost      | u32    | priority inherited through mutexes, 0 for none; scheduler                     |
 * | 148    | blocked on | u32    | granule of the mutex that it waits for, 0 for none; mutex.ts                  |
 * | 152    | held       | u32    | granule of the mutex it took last, 0 for none; mutex.ts                       |
 * | 156    | home       | u32    | PF_NO_SETAFFINITY: where it belongs while that CPU is online                  |
 * | 160    | ready time | f64    | when it was put on its queue: no CPU runs it before; scheduler                |
 * | 168    | stack used | u32    | bytes of its kernel stack that are in use; kernel_stack.ts                    |
 */

import type { MemoryPort } from "./arch/port.ts";

export const TASK_RQ_NODE = 0;
export const TASK_VRUNTIME = 16;
export const TASK_WAIT_NODE = 24;
export const TASK_TASKS_NODE = 32;
export const TASK_PID = 40;
export const TASK_TGID = 44;
export const TASK_STATE = 48;
export const TASK_CPU = 52;
export const TASK_POLICY = 56;
export const TASK_PRIORITY = 60;
export const TASK_MM = 64;
export const TASK_EXIT_CODE = 68;
export const TASK_PARENT = 72;
export const TASK_SIGNAL = 76;
export const TASK_PREEMPT = 80;
export const TASK_ON_QUEUE = 84;
export const TASK_RUN_CYCLES = 88;
export const TASK_WAKE_TIME = 96;
export const TASK_FLAGS = 104;
export const TASK_MIN_FLT = 108;
export const TASK_COMM = 112;
export const TASK_SWITCHES = 128;
export const TASK_STACK = 132;
export const TASK_BASE_POLICY = 136;
export const TASK_BASE_PRIORITY = 140;
export const TASK_BOOST = 144;
export const TASK_BLOCKED_ON = 148;
export const TASK_HELD = 152;
export const TASK_HOME = 156;
export const TASK_READY_TIME = 160;
export const TASK_STACK_USED = 168;
export const TASK_STRUCT_BYTES = 176;

export const TASK_COMM_LEN = 16;

/** States; the letters are those of ps. */
export const TASK_RUNNING = 0;
export const TASK_INTERRUPTIBLE = 1;
export const TASK_DEAD = 2;
/** Its process is stopped (job_control.ts): it is blocked until that is continued. */
export const TASK_STOPPED = 3;
export const TASK_STATE_LETTERS: readonly string[] = ["R", "S", "Z", "T"];

export const SCHED_NORMAL = 0;
export const SCHED_FIFO = 1;

export const PF_KTHREAD = 0x0020_0000;
/** Bound to one CPU: the scheduler does not move it. */
export const PF_NO_SETAFFINITY = 0x0400_0000;
export const PF_MEMALLOC = 0x0000_0800;

/** The name of the task at `task`; `swapper` for 0, the idle loop. */
export function taskComm(port: MemoryPort, task: number): string {
  if (task === 0) return "swapper";
  let name = "";
  for (let i = 0; i < TASK_COMM_LEN; i++) {
    const code = port.ld8(task + TASK_COMM + i);
    if (code === 0) break;
    name += String.fromCharCode(code);
  }
  return name;
}

export function setTaskComm(port: MemoryPort, task: number, name: string): void {
  for (let i = 0; i < TASK_COMM_LEN; i++) {
    port.st8(task + TASK_COMM + i, i < TASK_COMM_LEN - 1 ? name.charCodeAt(i) & 0xff || 0 : 0);
  }
}
