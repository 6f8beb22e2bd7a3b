/**
 * Heap columns: the columns of a heap recording while a text reader fills them.
 *
 * Owns the growth (by doubling) and the liveness of ids. Readers hand over facts; what an operation does to the set
 * of live ids is decided here, so that every reader's rows obey the same rules:
 *
 *   malloc, calloc, memalign   the id must be dead, and is live afterwards
 *   realloc                    the id is live afterwards, whatever it was before (also after a realloc to 0 bytes)
 *   free                       the id must be live, and is dead afterwards; `HEAP_NULL_ID` is always fine
 *   write                      the id must be live, and stays so
 *
 * Dense ids: `push()` wants ids `0 … n−1` without large holes. The file's own ids are translated by the reader.
 */

import { HEAP_FREE, HEAP_NULL_ID, HEAP_REALLOC, HEAP_WRITE, type HeapRecording } from "../../kernel/uapi/recording.ts";

const FIRST_CAPACITY = 1024;

/** Builds a `HeapRecording` row by row. */
export class HeapColumns {
  nrOps = 0;
  /** Live ids at this point of the recording. */
  nrLive = 0;
  #op = new Uint8Array(FIRST_CAPACITY);
  #thread = new Uint8Array(FIRST_CAPACITY);
  #id = new Int32Array(FIRST_CAPACITY);
  #size = new Float64Array(FIRST_CAPACITY);
  #alignShift = new Uint8Array(FIRST_CAPACITY);
  #live = new Uint8Array(FIRST_CAPACITY);

  isLive(id: number): boolean {
    return this.#live[id] === 1;
  }

  /** Appends a row. False, and no row, if the rules above forbid it. */
  push(op: number, thread: number, id: number, size: number, alignShift = 0): boolean {
    if (!this.#account(op, id)) return false;
    if (this.nrOps === this.#op.length) this.#grow();
    const row = this.nrOps++;
    this.#op[row] = op;
    this.#thread[row] = thread;
    this.#id[row] = id;
    this.#size[row] = size;
    this.#alignShift[row] = alignShift;
    return true;
  }

  /** The finished recording. The columns are cut to length; this builder is not to be used again. */
  finish(name: string, nrIds: number, nrThreads: number, warnings: readonly string[]): HeapRecording {
    const n = this.nrOps;
    return {
      kind: "heap",
      name,
      nrOps: n,
      nrIds,
      nrThreads,
      op: this.#op.slice(0, n),
      thread: this.#thread.slice(0, n),
      id: this.#id.slice(0, n),
      size: this.#size.slice(0, n),
      alignShift: this.#alignShift.slice(0, n),
      warnings,
    };
  }

  #account(op: number, id: number): boolean {
    if (id === HEAP_NULL_ID) return op === HEAP_FREE;
    if (id >= this.#live.length) this.#growLive(id);
    const wasLive = this.#live[id] === 1;
    if (op === HEAP_REALLOC) {
      this.#live[id] = 1;
      if (!wasLive) this.nrLive++;
      return true;
    }
    if (op === HEAP_WRITE) return wasLive;
    if (wasLive !== (op === HEAP_FREE)) return false;
    this.#live[id] = wasLive ? 0 : 1;
    this.nrLive += wasLive ? -1 : 1;
    return true;
  }

  #grow(): void {
    const capacity = this.#op.length * 2;
    this.#op = copyInto(new Uint8Array(capacity), this.#op);
    this.#thread = copyInto(new Uint8Array(capacity), this.#thread);
    this.#id = copyInto(new Int32Array(capacity), this.#id);
    this.#size = copyInto(new Float64Array(capacity), this.#size);
    this.#alignShift = copyInto(new Uint8Array(capacity), this.#alignShift);
  }

  #growLive(id: number): void {
    this.#live = copyInto(new Uint8Array(Math.max(this.#live.length * 2, id + 1)), this.#live);
  }
}

interface Column<T> {
  set(source: T): void;
}

function copyInto<T extends Column<T>>(target: T, source: T): T {
  target.set(source);
  return target;
}
