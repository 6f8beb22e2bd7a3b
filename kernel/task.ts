/**
 * Tasks: a task_struct in RAM, and on the host the generator that is its program.
 *
 * What the kernel decides by (state, priority, times, parent, address space) is in the task_struct; the host keeps
 * what cannot be written into RAM, the suspended code. A pid finds both.
 *
 *   TSK-1  every live pid has one task_struct and one body; pids are not reused within a run
 *   TSK-2  a task is on a runqueue exactly when it is TASK_RUNNING and not on a CPU
 *   TSK-3  pid 1 is kept for the first process: init, even if kernel threads were made before
 */

import type { Machine } from "./arch/machine.ts";
import { bugOn } from "./bug.ts";
import type { ContextTracking } from "./context.ts";
import {
  PF_KTHREAD,
  setTaskComm,
  TASK_CPU,
  TASK_FLAGS,
  TASK_PARENT,
  TASK_PID,
  TASK_RUNNING,
  TASK_STATE,
  TASK_TGID,
} from "./task_struct.ts";
import { type Context, NULL, type PhysAddr, type Sleeping, type TaskContext } from "./types.ts";

/** The code of a task; what it returns is its exit status. */
export type TaskBody = (ctx: TaskContext) => Sleeping<number>;

export interface Task {
  readonly pid: number;
  /** Address of its task_struct. */
  readonly struct: PhysAddr;
  readonly ctx: TaskContext;
  readonly code: Sleeping<number>;
}

export interface NewTask {
  readonly comm: string;
  readonly tgid?: number;
  readonly parent: PhysAddr;
  readonly flags: number;
  readonly body: TaskBody;
}

export interface Tasks {
  /** A new task, not yet on a runqueue; undefined without memory. */
  create(ctx: Context, task: NewTask): Task | undefined;
  get(pid: number): Task | undefined;
  /** Task of a task_struct address. */
  at(struct: PhysAddr): Task | undefined;
  /** Forgets a dead task and frees its task_struct. */
  release(ctx: Context, task: Task): void;
  /** `task` goes on under the pid of `leader`, the dead first thread of its process, which is forgotten (de_thread). */
  takePid(ctx: Context, task: Task, leader: Task): void;
  /** Ascending by pid. */
  all(): readonly Task[];
  lastPid(): number;
  field(task: Task, offset: number): number;
  setField(task: Task, offset: number, value: number): void;
}

/** Where task_structs come from: a slab cache, given by boot. */
export interface TaskMemory {
  /** A zeroed task_struct with its kernel stack; NULL without memory. */
  alloc(ctx: Context): PhysAddr;
  free(ctx: Context, struct: PhysAddr): void;
}

export function createTasks(machine: Machine, contexts: ContextTracking, memory: TaskMemory): Tasks {
  const { port } = machine;
  const byPid = new Map<number, Task>();
  const byStruct = new Map<number, Task>();
  let lastPid = 0;
  let hasProcess = false;

  /** TSK-3. */
  const takePid = (isThread: boolean): number => {
    if (isThread && lastPid === 0) lastPid = 1;
    if (isThread || hasProcess) return ++lastPid;
    hasProcess = true;
    lastPid = Math.max(lastPid, 1);
    return 1;
  };
  /** Keeps the map ascending: what was made before has higher pids. */
  const putFirst = (task: Task): void => {
    const others = [...byPid];
    byPid.clear();
    for (const [pid, other] of [[1, task] as const, ...others]) byPid.set(pid, other);
  };

  return {
    create(ctx, { comm, tgid, parent, flags, body }) {
      const struct = memory.alloc(ctx);
      if (struct === NULL) return undefined;
      const pid = takePid((flags & PF_KTHREAD) !== 0);
      port.st32(struct + TASK_PID, pid);
      port.st32(struct + TASK_TGID, tgid ?? pid);
      port.st32(struct + TASK_STATE, TASK_RUNNING);
      port.st32(struct + TASK_CPU, ctx.cpu);
      port.st32(struct + TASK_PARENT, parent / 8);
      port.st32(struct + TASK_FLAGS, flags);
      setTaskComm(port, struct, comm);
      const taskCtx = contexts.createTaskContext(ctx.cpu);
      const task: Task = { pid, struct, ctx: taskCtx, code: body(taskCtx) };
      if (pid === 1) putFirst(task);
      else byPid.set(pid, task);
      byStruct.set(struct, task);
      return task;
    },
    get: (pid) => byPid.get(pid),
    at: (struct) => byStruct.get(struct),
    release(ctx, task) {
      bugOn(byPid.get(task.pid) !== task, "TSK-1: task released twice", task.pid);
      byPid.delete(task.pid);
      byStruct.delete(task.struct);
      memory.free(ctx, task.struct);
    },
    takePid(ctx, task, leader) {
      bugOn(byPid.get(leader.pid) !== leader || byPid.get(task.pid) !== task, "TSK-1: a pid is handed on that is gone");
      byPid.delete(task.pid);
      byStruct.delete(leader.struct);
      // In its place: the map stays ascending.
      byPid.set(leader.pid, task);
      (task as { pid: number }).pid = leader.pid;
      port.st32(task.struct + TASK_PID, leader.pid);
      memory.free(ctx, leader.struct);
    },
    all: () => [...byPid.values()],
    lastPid: () => lastPid,
    field: (task, offset) => port.ld32(task.struct + offset),
    setField: (task, offset, value) => port.st32(task.struct + offset, value),
  };
}
