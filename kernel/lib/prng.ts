/**
 * Named random streams: one generator per subsystem, all derived from the run's seed.
 *
 * A draw in one subsystem must not move another's sequence, else adding a device would change every later decision
 * of the scheduler. So each has its own stream, seeded with `seed:name`. The state of a stream can be taken and put
 * back: a saved machine continues with the same numbers.
 *
 * Generator: Alea (Johannes Baagøe), from the `seedrandom` package: 32-bit multiplications and doubles only, so the
 * sequence is the same on every machine.
 */

import seedrandom from "seedrandom";

export interface Prng {
  /** Uniform in [0, 1). */
  next(): number;
  /** Uniform integer in [0, n), for an integer 1 ≤ n ≤ 2^32. */
  below(n: number): number;
}

export interface RandomStreams {
  /** The stream called `name`; the same object each time. */
  stream(name: string): Prng;
  /** State of every stream used so far. */
  save(): RandomState;
  restore(state: RandomState): void;
}

export type RandomState = ReadonlyMap<string, seedrandom.State.Alea>;

/** All streams of one run. Any text is a seed. */
export function createRandomStreams(seed: string): RandomStreams {
  const generators = new Map<string, seedrandom.StatefulPRNG<seedrandom.State.Alea>>();
  const streams = new Map<string, Prng>();

  const stream = (name: string): Prng => {
    const known = streams.get(name);
    if (known) return known;
    generators.set(name, seedrandom.alea(`${seed}:${name}`, { state: true }));
    // The generator is looked up at each draw because restore() replaces it.
    const draw = (): number => (generators.get(name) as seedrandom.PRNG)();
    const prng: Prng = { next: draw, below: (n) => Math.floor(draw() * n) };
    streams.set(name, prng);
    return prng;
  };

  return {
    stream,
    save: () => new Map([...generators].map(([name, generator]) => [name, generator.state()])),
    restore: (state) => {
      for (const name of streams.keys()) {
        const saved = state.get(name);
        generators.set(
          name,
          saved ? seedrandom.alea("", { state: saved }) : seedrandom.alea(`${seed}:${name}`, { state: true }),
        );
      }
      for (const name of state.keys()) stream(name);
    },
  };
}
