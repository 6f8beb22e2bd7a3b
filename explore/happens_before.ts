/**
 * Happens-before: finds accesses to the same bytes that nothing orders, on whatever schedule they were made.
 *
 * 1. Each CPU is a *thread*, and so are the interrupts of each CPU: a handler comes between any two accesses of what it
 *    interrupts, so sharing a CPU orders nothing. Thread t has a clock vector: entry u says how much of thread u is
 *    known to lie before t's next access.
 *
 * 2. Order comes from atomic accesses: what reads a word after an atomic store of it (a lock after its release, a
 *    compare-and-swap after another one) takes over the writer's vector. And from the interrupt flag: a stretch with
 *    interrupts off, and the handlers of that CPU, are critical sections of one lock that the flag is.
 *
 *      CPU 0        st x ─ release L ┐                          irqs off ─ st y ─ irqs on ┐
 *      CPU 1                         └▶ acquire L ─ ld x  fine        interrupt on CPU 0   └▶ ld y  fine
 *
 * 3. Two accesses of one byte from two threads race if neither vector covers the other, one of them stores, and
 *
 *      | first, second     | plain load | plain store | atomic load | atomic store |
 *      |-------------------|------------|-------------|-------------|--------------|
 *      | plain load        | –          | race        | –           | a hint       |
 *      | plain store       | race       | race        | a hint      | race         |
 *
 *    A *hint* is a look without the lock that is repeated under it (thread_port.ts): aligned words are not torn, so the
 *    look may be old, never wrong. This is what Linux's KCSAN reports by default.
 *
 * What is exempt: words that a handler leaves as it found them (preempt_count), and words that are declared hints.
 *
 *   HPB-1  a reported pair is a race: some schedule has the two accesses next to each other, in either order
 *   HPB-2  vectors only grow; an epoch (thread, clock) names one stretch of one thread
 *
 * Source: L. Lamport, CACM 1978; C. Flanagan, S. Freund, "FastTrack", PLDI 2009 (epochs for the last write).
 */

import { ATOMIC_LOAD, ATOMIC_RMW, ATOMIC_STORE, LOAD, STORE } from "../kernel/arch/explore_port.ts";

/** Words are shadowed by cells; a word that is used by the byte has one cell for each byte. */
const SPLIT = -1;
const FREE_OF_RACES = 1;
const HINT = 2;

/** The other half of a race that was found. */
export interface Race {
  readonly addr: number;
  readonly thread: number;
  readonly other: number;
  /** The earlier access was a store. */
  readonly isOtherStore: boolean;
}

export interface HappensBefore {
  /** A new run: all vectors start again. */
  reset(): void;
  /** A live access by `thread`; the race it makes, or null. */
  access(thread: number, kind: number, addr: number, bytes: number): Race | null;
  /** Has a word been accessed atomically in this run? */
  isSync(addr: number): boolean;
  /** The interrupt flag of the CPU of task thread `cpu` as it is at an access. */
  flagSeen(cpu: number, isOn: boolean): void;
  /** A handler begins on `cpu`, or ends. */
  enterIrq(cpu: number): void;
  leaveIrq(cpu: number): void;
  /** Words in which races are not looked for, `[addr, bytes]` each; hints: not between plain loads and stores. */
  exempt(ranges: readonly (readonly [number, number])[], isHint: boolean): void;
}

/** For `nrCpus` CPUs over RAM of `ramBytes`; threads n … 2n − 1 are their interrupts, if there are any. */
export function createHappensBefore(nrCpus: number, ramBytes: number, hasIrqs: boolean): HappensBefore {
  const nrThreads = hasIrqs ? nrCpus * 2 : nrCpus;
  /** Word → cell, or SPLIT − first cell of four. 0: never touched. */
  const cellOfWord = new Int32Array(ramBytes >>> 2);
  let nrCells = 1;
  let capacity = 1024;
  let run = 1;
  let runOf = new Int32Array(capacity);
  let flags = new Uint8Array(capacity);
  let writeThread = new Int8Array(capacity);
  let writeClock = new Int32Array(capacity);
  let isWriteAtomic = new Uint8Array(capacity);
  let isSyncCell = new Uint8Array(capacity);
  let readClock = new Int32Array(capacity * nrThreads);
  let released = new Int32Array(capacity * nrThreads);
  const vectors = new Int32Array(nrThreads * nrThreads);
  const irqReleased = new Int32Array(nrCpus * nrThreads);
  const flagWasOn = new Uint8Array(nrCpus);

  const larger = <T extends Int8Array | Uint8Array | Int32Array>(old: T, length: number): T => {
    const made = new (old.constructor as new (n: number) => T)(length);
    made.set(old);
    return made;
  };
  const newCells = (nr: number): number => {
    if (nrCells + nr > capacity) {
      capacity *= 2;
      runOf = larger(runOf, capacity);
      flags = larger(flags, capacity);
      writeThread = larger(writeThread, capacity);
      writeClock = larger(writeClock, capacity);
      isWriteAtomic = larger(isWriteAtomic, capacity);
      isSyncCell = larger(isSyncCell, capacity);
      readClock = larger(readClock, capacity * nrThreads);
      released = larger(released, capacity * nrThreads);
    }
    nrCells += nr;
    return nrCells - nr;
  };

  /** A cell of this run: what an earlier one left is forgotten when it is first touched. */
  const current = (cell: number): number => {
    if (runOf[cell] !== run) {
      runOf[cell] = run;
      writeClock[cell] = 0;
      isSyncCell[cell] = 0;
      const from = cell * nrThreads;
      for (let i = from; i < from + nrThreads; i++) {
        readClock[i] = 0;
        released[i] = 0;
      }
    }
    return cell;
  };

  const wholeCell = (word: number): number => {
    const cell = cellOfWord[word] as number;
    if (cell !== 0) return cell;
    const made = newCells(1);
    cellOfWord[word] = made;
    return made;
  };

  /** Four cells for a word, each with what the word's one had. */
  const split = (word: number): number => {
    const whole = cellOfWord[word] as number;
    if (whole < 0) return SPLIT - whole;
    const first = newCells(4);
    cellOfWord[word] = SPLIT - first;
    if (whole === 0) return first;
    for (let cell = first; cell < first + 4; cell++) {
      runOf[cell] = runOf[whole] as number;
      flags[cell] = flags[whole] as number;
      writeThread[cell] = writeThread[whole] as number;
      writeClock[cell] = writeClock[whole] as number;
      isWriteAtomic[cell] = isWriteAtomic[whole] as number;
      isSyncCell[cell] = isSyncCell[whole] as number;
      for (let i = 0; i < nrThreads; i++) {
        readClock[cell * nrThreads + i] = readClock[whole * nrThreads + i] as number;
        released[cell * nrThreads + i] = released[whole * nrThreads + i] as number;
      }
    }
    return first;
  };

  const join = (into: Int32Array, at: number, from: Int32Array, start: number): void => {
    for (let i = 0; i < nrThreads; i++) {
      const clock = from[start + i] as number;
      if (clock > (into[at + i] as number)) into[at + i] = clock;
    }
  };
  const tick = (thread: number): void => {
    const own = thread * nrThreads + thread;
    vectors[own] = (vectors[own] as number) + 1;
  };

  const race = (thread: number, other: number, isOtherStore: boolean): Race => ({
    addr: 0,
    thread,
    other,
    isOtherStore,
  });

  /** Is the last store of `cell` not before this access of `thread`? */
  const isWriteLoose = (cell: number, thread: number): boolean => {
    const clock = writeClock[cell] as number;
    const by = writeThread[cell] as number;
    return clock !== 0 && by !== thread && clock > (vectors[thread * nrThreads + by] as number);
  };

  const looseReader = (cell: number, thread: number): number => {
    const from = cell * nrThreads;
    for (let u = 0; u < nrThreads; u++) {
      if (u !== thread && (readClock[from + u] as number) > (vectors[thread * nrThreads + u] as number)) return u;
    }
    return -1;
  };

  const load = (cell: number, thread: number): Race | null => {
    const known = flags[cell] as number;
    if ((known & FREE_OF_RACES) !== 0) return null;
    if (known === 0 && isWriteAtomic[cell] === 0 && isWriteLoose(cell, thread)) {
      return race(thread, writeThread[cell] as number, true);
    }
    readClock[cell * nrThreads + thread] = vectors[thread * nrThreads + thread] as number;
    return null;
  };

  const store = (cell: number, thread: number): Race | null => {
    const known = flags[cell] as number;
    if ((known & FREE_OF_RACES) !== 0) return null;
    if (isWriteLoose(cell, thread)) return race(thread, writeThread[cell] as number, true);
    if (known === 0) {
      const reader = looseReader(cell, thread);
      if (reader >= 0) return race(thread, reader, false);
    }
    writeThread[cell] = thread;
    writeClock[cell] = vectors[thread * nrThreads + thread] as number;
    isWriteAtomic[cell] = 0;
    return null;
  };

  const acquire = (cell: number, thread: number): null => {
    isSyncCell[cell] = 1;
    join(vectors, thread * nrThreads, released, cell * nrThreads);
    return null;
  };

  const atomicStore = (cell: number, thread: number): Race | null => {
    isSyncCell[cell] = 1;
    const isLoose = isWriteAtomic[cell] === 0 && flags[cell] === 0 && isWriteLoose(cell, thread);
    if (isLoose) return race(thread, writeThread[cell] as number, true);
    writeThread[cell] = thread;
    writeClock[cell] = vectors[thread * nrThreads + thread] as number;
    isWriteAtomic[cell] = 1;
    join(released, cell * nrThreads, vectors, thread * nrThreads);
    tick(thread);
    return null;
  };

  const one = (cell: number, thread: number, kind: number): Race | null => {
    current(cell);
    if (kind === LOAD) return load(cell, thread);
    if (kind === STORE) return store(cell, thread);
    return kind === ATOMIC_STORE ? atomicStore(cell, thread) : acquire(cell, thread);
  };

  /** Bytes `[from, to)` of a word. */
  const partOfWord = (word: number, from: number, to: number, thread: number, kind: number): Race | null => {
    const isWhole = to - from === 4;
    if (isWhole && (cellOfWord[word] as number) >= 0) return one(wholeCell(word), thread, kind);
    const first = split(word);
    for (let byte = from; byte < to; byte++) {
      const found = one(first + byte, thread, kind);
      if (found !== null) return { ...found, addr: word * 4 + byte };
    }
    return null;
  };

  return {
    reset() {
      run++;
      vectors.fill(0);
      irqReleased.fill(0);
      flagWasOn.fill(1);
      for (let thread = 0; thread < nrThreads; thread++) tick(thread);
    },
    access(thread, kind, addr, bytes) {
      const word = addr >>> 2;
      if (bytes === 4 && (cellOfWord[word] as number) >= 0) {
        const found = one(wholeCell(word), thread, kind);
        return found === null ? null : { ...found, addr };
      }
      for (let at = addr; at < addr + bytes; at = (at | 3) + 1) {
        const found = partOfWord(at >>> 2, at & 3, Math.min(4, addr + bytes - (at & ~3)), thread, kind);
        if (found !== null) return found.addr === 0 ? { ...found, addr: at } : found;
      }
      return null;
    },
    isSync(addr) {
      const cell = cellOfWord[addr >>> 2] as number;
      return cell > 0 && runOf[cell] === run && isSyncCell[cell] === 1;
    },
    flagSeen(cpu, isOn) {
      if ((flagWasOn[cpu] === 1) === isOn) return;
      flagWasOn[cpu] = isOn ? 1 : 0;
      if (!isOn) join(vectors, cpu * nrThreads, irqReleased, cpu * nrThreads);
      else {
        join(irqReleased, cpu * nrThreads, vectors, cpu * nrThreads);
        tick(cpu);
      }
    },
    enterIrq(cpu) {
      if (flagWasOn[cpu] === 0) {
        flagWasOn[cpu] = 1;
        join(irqReleased, cpu * nrThreads, vectors, cpu * nrThreads);
        tick(cpu);
      }
      join(vectors, (nrCpus + cpu) * nrThreads, irqReleased, cpu * nrThreads);
    },
    leaveIrq(cpu) {
      join(irqReleased, cpu * nrThreads, vectors, (nrCpus + cpu) * nrThreads);
      tick(nrCpus + cpu);
    },
    exempt(ranges, isHint) {
      for (const [addr, bytes] of ranges) {
        for (let at = addr; at < addr + bytes; at = (at | 3) + 1) {
          const cell = wholeCell(at >>> 2);
          for (let i = 0; i < (cell < 0 ? 4 : 1); i++) {
            flags[cell < 0 ? SPLIT - cell + i : cell] = isHint ? HINT : FREE_OF_RACES;
          }
        }
      }
    },
  };
}

if (LOAD !== 0 || STORE !== 1 || ATOMIC_LOAD > ATOMIC_RMW) throw new Error("happens_before: kinds of access changed");
