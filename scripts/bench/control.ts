/**
 * The control block: how the threads of one machine meet, besides the machine's RAM.
 *
 * A few words of shared memory that belong to the host, not to the machine: barriers, stopping, progress, and which
 * lock a thread waits for. Threads block on these words only between operations of the kernel, with no lock held.
 *
 *   | word      | meaning                                                                       |
 *   |-----------|-------------------------------------------------------------------------------|
 *   | 0         | stop: 0 run, 1 end soon (Ctrl-C), 2 give up (a thread failed)                  |
 *   | 1, 2      | barrier: threads that arrived, generation                                     |
 *   | 3, 4      | stopped machine: 1 + the thread that stopped it, −1 while the others leave,   |
 *   |           | else 0; threads that are parked                                              |
 *   | 5         | 1 + a CPU that is offline, −1 while another one drains it, else 0             |
 *   | 6, 7      | free for the workload                                                         |
 *   | 16 · t …  | of thread t (from 1 on): operations done, lock it waits for, holder, its state |
 *
 * `poll()` is to a thread what an interrupt is to a CPU: between two operations it looks whether somebody wants the
 * machine stopped, and parks until that is over (Linux: stop_machine).
 */

const STOP = 0;
const ARRIVED = 1;
const GENERATION = 2;
const STOPPER = 3;
const PARKED = 4;
export const OFFLINE = 5;
export const FREE_WORD = 6;
const THREAD_WORDS = 16;
const OPERATIONS = 0;
const WAITS_FOR = 1;
const HOLDER = 2;
const STATE = 3;

/** In STOPPER: the machine goes on, and nobody may stop it before all others have left. */
const LEAVING = -1;

export const RUN = 0;
export const END_SOON = 1;
export const GIVE_UP = 2;

export const THREAD_IDLE = 0;
export const THREAD_RUNNING = 1;
export const THREAD_PARKED = 2;
const STATE_NAMES: readonly string[] = ["idle", "running", "parked"];

/** Looks before a thread sleeps on a word: some microseconds, for another thread that is about to arrive. */
const LOOKS = 500;
const SLEEP_MS = 1;

/** Thrown in a thread whose machine is given up because another one failed. */
export class GivenUp extends Error {
  override readonly name = "GivenUp";
}

export interface ThreadStatus {
  readonly operations: number;
  readonly state: string;
  /** Address of the lock word that the thread sleeps on, and the CPU in it; 0 and −1 if it does not. */
  readonly waitsFor: number;
  readonly holder: number;
}

export interface Control {
  readonly words: Int32Array;
  /** RUN, END_SOON or GIVE_UP. */
  stop(): number;
  setStop(value: number): void;
  status(thread: number): ThreadStatus;
}

export const controlBytes = (nrThreads: number): number => 4 * THREAD_WORDS * (nrThreads + 1);

/** A view of the control block; the host's side. */
export function createControl(buffer: SharedArrayBuffer): Control {
  const words = new Int32Array(buffer);
  const at = (thread: number): number => THREAD_WORDS * (thread + 1);
  return {
    words,
    stop: () => Atomics.load(words, STOP),
    setStop(value) {
      Atomics.store(words, STOP, value);
    },
    status: (thread) => ({
      operations: Atomics.load(words, at(thread) + OPERATIONS) >>> 0,
      state: STATE_NAMES[Atomics.load(words, at(thread) + STATE)] ?? "?",
      waitsFor: Atomics.load(words, at(thread) + WAITS_FOR) >>> 0,
      holder: Atomics.load(words, at(thread) + HOLDER) - 1,
    }),
  };
}

export interface ThreadControl extends Control {
  /** Adds to the operations that the host sees; false when the thread should end soon. Throws GivenUp. */
  advance(operations: number): boolean;
  setState(state: number): void;
  waitsForLock(lock: number, holder: number): void;
  /** Between two operations: parks while another thread has the machine stopped. */
  poll(): void;
  /** Waits until a word of the block satisfies `isDone`. Polls. */
  waitFor(word: number, isDone: (value: number) => boolean): void;
  /** Stores a word and wakes who waits for it. */
  set(word: number, value: number): void;
  /** Waits until `nrThreads` threads are here. Polls. */
  barrier(nrThreads: number): void;
  /** Runs `work` while all other `nrThreads − 1` threads are parked. */
  whileStopped(nrThreads: number, work: () => void): void;
}

/** The control block as thread `thread` uses it. */
export function createThreadControl(buffer: SharedArrayBuffer, thread: number): ThreadControl {
  const control = createControl(buffer);
  const { words } = control;
  const own = THREAD_WORDS * (thread + 1);

  const checkStop = (): void => {
    if (words[STOP] === GIVE_UP) throw new GivenUp("another thread failed");
  };
  const set = (word: number, value: number): void => {
    Atomics.store(words, word, value);
    Atomics.notify(words, word);
  };
  const setState = (state: number): void => {
    Atomics.store(words, own + STATE, state);
  };

  const waitQuietly = (word: number, isDone: (value: number) => boolean, poll: () => void): void => {
    for (let look = 0; ; look++) {
      const value = Atomics.load(words, word);
      if (isDone(value)) return;
      checkStop();
      poll();
      if (look > LOOKS) Atomics.wait(words, word, value, SLEEP_MS);
    }
  };

  const nothing = (): void => {};
  const poll = (): void => {
    const stopper = words[STOPPER] as number;
    if (stopper <= 0 || stopper === thread + 1) return;
    if (Atomics.load(words, STOPPER) <= 0) return;
    const before = Atomics.load(words, own + STATE);
    setState(THREAD_PARKED);
    Atomics.add(words, PARKED, 1);
    Atomics.notify(words, PARKED);
    waitQuietly(STOPPER, (value) => value <= 0, nothing);
    Atomics.sub(words, PARKED, 1);
    Atomics.notify(words, PARKED);
    setState(before);
  };

  return {
    ...control,
    advance(operations) {
      const word = own + OPERATIONS;
      Atomics.store(words, word, ((words[word] as number) + operations) | 0);
      words[own + WAITS_FOR] = 0;
      checkStop();
      poll();
      return words[STOP] === RUN;
    },
    setState,
    waitsForLock(lock, holder) {
      Atomics.store(words, own + WAITS_FOR, lock | 0);
      Atomics.store(words, own + HOLDER, holder + 1);
      checkStop();
    },
    poll,
    waitFor: (word, isDone) => waitQuietly(word, isDone, poll),
    set,
    barrier(nrThreads) {
      const generation = Atomics.load(words, GENERATION);
      if (Atomics.add(words, ARRIVED, 1) + 1 === nrThreads) {
        Atomics.store(words, ARRIVED, 0);
        set(GENERATION, generation + 1);
      } else {
        waitQuietly(GENERATION, (value) => value !== generation, poll);
      }
    },
    whileStopped(nrThreads, work) {
      while (Atomics.compareExchange(words, STOPPER, 0, thread + 1) !== 0) poll();
      waitQuietly(PARKED, (value) => value === nrThreads - 1, nothing);
      try {
        work();
      } finally {
        set(STOPPER, LEAVING);
      }
      // The next stop must neither count those that are still waking up nor catch them asleep.
      waitQuietly(PARKED, (value) => value === 0, nothing);
      set(STOPPER, 0);
    },
  };
}
