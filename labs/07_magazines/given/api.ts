/**
 * What lab 7 gives you: a memory that several CPUs share, its locks, each CPU's interrupt flag, and the functions
 * that you have to write.
 *
 * Do not change this file: the grader uses its own copy.
 */

export interface Memory {
  /** Words are numbered from 0; all of them are yours. They hold whole numbers from 0 to 2^32 − 1, at first 0. */
  readonly nrWords: number;
  load(word: number): number;
  store(word: number, value: number): void;
  /** Locks are numbered from 0 to nrCpus; what each protects is up to you. Waits while another CPU has it. */
  lock(lock: number): void;
  /** Gives back a lock that this CPU has taken. */
  unlock(lock: number): void;
  /** Switches this CPU's interrupts off; true if they were on. */
  irqSave(): boolean;
  /** Switches them on again if `wereOn`, what irqSave() has returned. */
  irqRestore(wereOn: boolean): void;
  /** The CPU that this runs on, from 0. Only with interrupts off: else it might be another one when you use it. */
  cpu(): number;
}

export interface Layout {
  readonly nrCpus: number;
  /** Objects are numbered 1 … nrObjects; 0 is none. */
  readonly nrObjects: number;
  /** Objects that a magazine holds. */
  readonly magazineSize: number;
  /** More magazines than can ever hold something, and two for each CPU: nrObjects + 2 · nrCpus. */
  readonly nrMagazines: number;
}

/**
 * Made anew whenever something is called: variables do not last from one call to the next, words do. There are
 * nrMagazines · (magazineSize + 2) + nrObjects + 4 · nrCpus + 16 words.
 */
export interface Magazines {
  /** Called once, before all else, on CPU 0: all objects are free. */
  init(): void;
  /** An object that was free and is now the caller's; 0 if there was none. */
  alloc(): number;
  /** An object of the caller's becomes free. */
  free(object: number): void;
  /** This CPU is about to be switched off: what it has at hand goes to the depot. */
  drain(): void;
}
