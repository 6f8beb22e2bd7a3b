/**
 * The judge of lab 3 about pools.
 *
 * | kind          | the claim                                                            |
 * |---------------|----------------------------------------------------------------------|
 * | pool-create   | createPool accepts, refuses or numbers wrongly              (POOL-7) |
 * | pool-mask     | a frame that the device does not reach                      (POOL-4) |
 * | outside, off-grid   | a block in no frame of the pool; where none starts    (POOL-1) |
 * | misaligned, boundary   | a block at no multiple; across a boundary          (POOL-1) |
 * | twice         | a block that is out, or overlaps one that is                (POOL-1) |
 * | early, pool-refused   | a frame asked for without need; no block although there is one (POOL-2, POOL-6) |
 * | pool-kept, double, interior, foreign   | of poolFree                        (POOL-5) |
 * | pool-page, destroy   | frames given back before the end; of destroyPool     (POOL-3) |
 * | slow          | too many steps                                              (POOL-8) |
 */

import type { Json } from "../../kit/program.ts";
import { EBUSY, EINVAL, ENOMEM, FRAME_BYTES, MAX_POOLS, NO_ADDRESS, NO_FRAME } from "../given/api.ts";
import { type Frames, highestFor, layoutOf, type PoolLayout, type Request } from "./model.ts";
import { count, type Event, fail, type Seen, show, type Verdict } from "./verdict.ts";

/** Steps of an alloc or a free; more for each block of a frame that is taken. */
export const STEPS = 48;
export const STEPS_EACH = 12;
/** Taking a frame: the walk over the zones. */
const STEPS_WALK = 100;

export interface Pool extends PoolLayout {
  readonly id: number;
  readonly highest: number;
  readonly frames: number[];
  /** Operation that took each block which is out. */
  readonly out: Map<number, number>;
}

type JudgeTake = (request: Request, events: readonly Event[], what: string) => NonNullable<Verdict> | { frame: number };

export class Pools {
  readonly byId = new Map<number, Pool>();
  readonly #frames: Frames;
  readonly #judgeTake: JudgeTake;
  readonly #name: (op: number) => string;

  constructor(frames: Frames, judgeTake: JudgeTake, name: (op: number) => string) {
    this.#frames = frames;
    this.#judgeTake = judgeTake;
    this.#name = name;
  }

  create([size, align, boundary, mask]: readonly [number, number, number, number], { value, events }: Seen): Verdict {
    const call = `createPool(${size},${align},${boundary})`;
    const layout = layoutOf(size, align, boundary);
    const highest = highestFor(this.#frames.zones, mask);
    const expected = layout === null || highest < 0 ? -EINVAL : this.byId.size >= MAX_POOLS ? -ENOMEM : 0;
    if (events.length > 0) return fail("early", `${call} calls ${show(events[0]?.[0])} of the machine`);
    if (layout === null || expected < 0) {
      if (value === expected) return null;
      return fail("pool-create", `${call} returns ${show(value)}, and must return ${expected} here`);
    }
    const isNumber = typeof value === "number" && Number.isInteger(value) && value >= 0 && value < MAX_POOLS;
    if (!isNumber) return fail("pool-create", `${call} returns ${show(value)}, which is no number of a pool`);
    if (this.byId.has(value)) return fail("pool-create", `${call} returns ${value}, which is another pool's number`);
    this.byId.set(value, { ...layout, id: value, highest, frames: [], out: new Map() });
    return null;
  }

  take(id: number, op: number, { value, events }: Seen, steps: number): Verdict {
    const pool = this.byId.get(id);
    if (pool === undefined) {
      if (value === NO_ADDRESS && events.length === 0) return null;
      return fail("pool-refused", `poolAlloc(${id}) returns ${show(value)}, but there is no such pool`);
    }
    if (typeof value !== "number" || !Number.isInteger(value) || value < 0)
      return fail("bad-claim", `poolAlloc returns ${show(value)}, which is no address`);
    const nrFree = pool.frames.length * pool.offsets.length - pool.out.size;
    let allowed = STEPS;
    if (nrFree > 0 && events.length > 0)
      return fail("early", `poolAlloc asks for a frame although ${count(nrFree, "block")} of the pool are free`);
    if (nrFree === 0) {
      const taken = this.#judgeTake({ highest: pool.highest, order: 0, isUrgent: false }, events, "poolAlloc");
      if ("kind" in taken) return taken;
      allowed += STEPS_WALK;
      if (taken.frame !== NO_FRAME) {
        pool.frames.push(taken.frame);
        allowed += STEPS_EACH * pool.offsets.length;
      } else if (value === NO_ADDRESS) return null;
    }
    if (value === NO_ADDRESS)
      return fail("pool-refused", "poolAlloc finds nothing although a block of the pool is free");
    const verdict = this.#judgeBlock(pool, value);
    if (verdict !== null) return verdict;
    pool.out.set(value, op);
    return steps <= allowed ? null : fail("slow", `poolAlloc takes ${steps} steps; ${allowed} are allowed here`);
  }

  #judgeBlock(pool: Pool, address: number): Verdict {
    const { size, align, boundary, offsets } = pool;
    const what = `the block at ${address}`;
    if (address % align !== 0) return fail("misaligned", `${what} is at no multiple of ${align}`);
    if (Math.floor(address / boundary) !== Math.floor((address + size - 1) / boundary)) {
      const at = (Math.floor(address / boundary) + 1) * boundary;
      return fail("boundary", `${what} has ${size} bytes and crosses ${at}, a multiple of ${boundary}`);
    }
    if (!pool.frames.includes(Math.floor(address / FRAME_BYTES)))
      return fail("outside", `${what} is in frame ${Math.floor(address / FRAME_BYTES)}, which is none of the pool's`);
    for (const [other, op] of pool.out) {
      if (other < address + size && address < other + size)
        return fail("twice", `${what} overlaps ${this.#name(op)} at ${other}, which is out`);
    }
    if (offsets.includes(address % FRAME_BYTES)) return null;
    return fail(
      "off-grid",
      `${what} starts at byte ${address % FRAME_BYTES}; blocks of ${size} bytes do not start there`,
    );
  }

  put(id: number, address: number, { value, events }: Seen, steps: number): Verdict {
    const pool = this.byId.get(id);
    const call = `poolFree(${address}) returns ${show(value)}`;
    const [event] = events;
    if (event !== undefined) return fail("pool-page", `poolFree calls ${show(event[0])} of the machine`);
    if (pool?.out.has(address) !== true) {
      if (value === -EINVAL) return null;
      return this.#badFree(pool, address, call, value);
    }
    if (value !== 0) return fail("pool-kept", `${call}, but that block is out`);
    pool.out.delete(address);
    return steps <= STEPS ? null : fail("slow", `poolFree takes ${steps} steps; ${STEPS} are allowed here`);
  }

  #badFree(pool: Pool | undefined, address: number, call: string, value: Json): Verdict {
    if (typeof value === "number" && value < 0) return fail("foreign", `${call} instead of −EINVAL (−22)`);
    if (pool === undefined) return fail("foreign", `${call}, but there is no such pool`);
    const frame = Math.floor(address / FRAME_BYTES);
    if (!pool.frames.includes(frame)) return fail("foreign", `${call}, but frame ${frame} is none of the pool's`);
    if (pool.offsets.includes(address % FRAME_BYTES)) return fail("double", `${call}, but that block is free already`);
    return fail("interior", `${call}, but no block of ${pool.size} bytes starts at byte ${address % FRAME_BYTES}`);
  }

  end(id: number, { value, events }: Seen): Verdict {
    const pool = this.byId.get(id);
    const expected = pool === undefined ? -EINVAL : pool.out.size > 0 ? -EBUSY : 0;
    if (value !== expected) {
      const why = pool === undefined ? "there is no such pool" : `${count(pool.out.size, "block")} of it are out`;
      return fail("destroy", `destroyPool returns ${show(value)} instead of ${expected}: ${why}`);
    }
    const left = new Set(expected === 0 ? pool?.frames : []);
    for (const event of events) {
      const [kind, zone, frame, order] = event;
      const isPools = kind === "return" && typeof frame === "number" && left.delete(frame) && order === 0;
      if (!isPools || !this.#frames.giveBack(Number(zone), Number(frame), 0))
        return fail("destroy", `destroyPool does ${show(event)}, which gives no frame of the pool back to its zone`);
    }
    if (left.size > 0) return fail("destroy", `destroyPool keeps ${count(left.size, "frame")} of the pool`);
    if (expected === 0) this.byId.delete(id);
    return null;
  }
}
