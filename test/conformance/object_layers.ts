/**
 * The conformance suite of the SlabLayer and ObjectCacheLayer seams: what any source of equal objects must keep.
 *
 *   OBJ-C1  an object is aligned, and overlaps no other that is out
 *   OBJ-C2  its content stays as the owner left it until it is freed
 *   OBJ-C3  a free of an object that is out succeeds; a double, interior or foreign one is refused and changes nothing
 *   OBJ-C4  objects come back: with all freed, as many can be had again
 *   OBJ-C5  the implementation's own check holds after every step
 *
 * Method: random operations on several CPUs against a map of live objects. Returns the first broken rule, so that
 * known-wrong sources can be shown to fail.
 */

export interface ObjectSource {
  readonly sizeBytes: number;
  readonly align: number;
  /** Address, or 0. */
  alloc(cpu: number): number;
  /** 0, or negative if refused. */
  free(cpu: number, addr: number): number;
  check(): string | null;
  store(addr: number, value: number): void;
  load(addr: number): number;
}

/** [cpu, action]: action below 6 allocates, below 9 frees, 9 tries a bad free. */
export type ObjectOp = readonly [cpu: number, action: number];

export function objectSourceViolation(source: ObjectSource, ops: readonly ObjectOp[]): string | null {
  const live = new Map<number, number>();
  let nextStamp = 1;

  const allocate = (cpu: number): string | null => {
    const addr = source.alloc(cpu);
    if (addr === 0) return null;
    if (addr % source.align !== 0) return `OBJ-C1: object ${addr} is misaligned`;
    for (const other of live.keys()) {
      if (Math.abs(other - addr) < source.sizeBytes) return `OBJ-C1: objects ${addr} and ${other} overlap`;
    }
    live.set(addr, nextStamp);
    source.store(addr, nextStamp++);
    return null;
  };
  const release = (cpu: number, index: number): string | null => {
    const addr = [...live.keys()][index % live.size] as number;
    if (source.load(addr) !== live.get(addr)) return `OBJ-C2: object ${addr} changed while it was out`;
    live.delete(addr);
    if (source.free(cpu, addr) !== 0) return `OBJ-C3: a good free of ${addr} is refused`;
    return source.free(cpu, addr) === 0 ? `OBJ-C3: a double free of ${addr} is accepted` : null;
  };
  const badFree = (cpu: number, index: number): string | null => {
    const addr = [...live.keys()][index % Math.max(1, live.size)];
    if (addr === undefined) return null;
    return source.free(cpu, addr + 8) === 0 ? `OBJ-C3: an interior free at ${addr + 8} is accepted` : null;
  };

  for (let step = 0; step < ops.length; step++) {
    const [cpu, action] = ops[step] as ObjectOp;
    let problem: string | null = null;
    if (action < 6) problem = allocate(cpu);
    else if (action < 9 && live.size > 0) problem = release(cpu, step * 7);
    else problem = badFree(cpu, step);
    problem ??= source.check();
    if (problem !== null) return problem;
  }
  const peak = live.size;
  while (live.size > 0) {
    const problem = release(0, 0) ?? source.check();
    if (problem !== null) return problem;
  }
  for (let i = 0; i < peak; i++) {
    const problem = allocate(i % 3);
    if (problem !== null) return problem;
  }
  if (live.size !== peak) return `OBJ-C4: ${peak} objects were out, only ${live.size} can be had again`;
  while (live.size > 0) release(0, 0);
  return source.check();
}
