/**
 * The judge of lab 3: walks through claims and events in order and says which rule the first wrong one breaks.
 *
 * | kind          | the claim, or what the machine was asked for                                  |
 * |---------------|-------------------------------------------------------------------------------|
 * | bad-claim     | is no number; a call to the machine that makes no sense                       |
 * | reserve       | reserveOf() is wrong                                                  (ZON-1) |
 * | too-high, zone-order   | frames of a zone above; of a lower zone without need         (ZON-2) |
 * | below-mark, urgent   | frames below a mark and reserve; in the second round of an urgent request (ZON-3, ZON-4) |
 * | refused       | no frames although a zone may give some                               (ZON-3) |
 * | wake          | reclaim not woken, or without need                                    (ZON-5) |
 * | bad-free, free-kept, return   | of freePages, and of what the zone gets back          (ZON-6) |
 * | busy          | frames freed while they are mapped                                    (MAP-9) |
 * | pool-create … | see pools.ts                                                                  |
 * | above-mask …  | see mappings.ts                                                               |
 */

import type { Violation } from "../../kit/lab_code.ts";
import { namesOf } from "../../kit/names.ts";
import { type Observation, type Op, type Program, valueOfArg } from "../../kit/program.ts";
import { EBUSY, EINVAL, FRAME_BYTES, NO_ADDRESS, NO_FRAME } from "../given/api.ts";
import { Mappings } from "./mappings.ts";
import {
  type DmaConfig,
  Frames,
  isEnough,
  keepOf,
  outcomeOf,
  type Request,
  reserveOf,
  ZONE_NAMES,
  zonesOf,
} from "./model.ts";
import { Pools } from "./pools.ts";
import { count, type Event, fail, type Seen, seenOf, show, type Verdict } from "./verdict.ts";

/** Blocks, pools and mappings have letters. */
export const hasName = (op: Op): boolean => ["pages", "pool", "take", "mapPart"].includes(op[0]);

interface Block {
  readonly order: number;
  readonly op: number;
}

/** One walk through a program: the model as far as the claims were right. */
export class Walk {
  readonly frames: Frames;
  readonly pools: Pools;
  readonly mappings: Mappings;
  /** Blocks that allocPages gave, by their first frame. */
  readonly blocks = new Map<number, Block>();
  readonly #program: Program;
  readonly #observation: Observation;
  readonly #name: (index: number) => string;

  constructor(program: Program, observation: Observation) {
    const config = program.config as unknown as DmaConfig;
    this.frames = new Frames(zonesOf(config));
    this.#program = program;
    this.#observation = observation;
    this.#name = namesOf(program, hasName);
    const name = (op: number): string => `${this.#name(op)} (op ${op + 1})`;
    this.pools = new Pools(this.frames, (request, events, what) => this.#judgeTake(request, events, what), name);
    this.mappings = new Mappings(this.frames.nrFrames, config.slots, name);
  }

  /** Judges operation `index`, and moves the model on if its claim is right. */
  step(index: number): Verdict {
    const op = this.#program.ops[index] as Op;
    const seen = seenOf(this.#observation.claims[index]);
    const steps = this.#observation.steps[index] as number;
    const arg = (at: number): number | null => this.#usable(op, at);
    const numbers = op.slice(1).map((value) => (typeof value === "number" ? value : 0));
    const [, b = 0, c = 0, d = 0, e = 0] = numbers;
    const it = arg(1);
    switch (op[0]) {
      case "reserve":
        return this.#judgeReserve(numbers[0] ?? 0, b, seen);
      case "pages":
        return this.#judgePages({ highest: numbers[0] ?? 0, order: b, isUrgent: op[3] === true }, index, seen);
      case "pool":
        return this.pools.create(numbers as [number, number, number, number], seen);
      default:
        if (it === null) return null;
    }
    switch (op[0]) {
      case "back":
        return this.#judgeBack(it + c, b, seen);
      case "take":
        return this.pools.take(it, index, seen, steps);
      case "put": {
        const block = arg(2);
        return block === null ? null : this.pools.put(it, block + c, seen, steps);
      }
      case "end":
        return this.pools.end(it, seen);
      case "mapPart":
        return this.mappings.map({ address: it * FRAME_BYTES + b, size: c, direction: d, mask: e, op: index }, seen);
      case "unmapPart":
        return this.mappings.unmap(it + d, b, c, seen);
      case "syncCpu":
        return this.mappings.syncForCpu(it + b, seen);
      case "syncDevice":
        return this.mappings.syncForDevice(it + b, seen);
      case "owner":
        return this.mappings.owner(it * FRAME_BYTES + b, seen);
      case "write":
        this.mappings.cpuWrites(it * FRAME_BYTES + b, c);
        return null;
      case "read":
        return this.mappings.cpuReads(it * FRAME_BYTES + b, seen);
      case "deviceWrites":
        this.mappings.deviceWrites(it, b, c);
        return null;
      case "deviceReads":
        return this.mappings.deviceReads(it, b, seen);
      default:
        return null;
    }
  }

  /** What the driver takes for an argument; null if it does nothing. */
  #usable(op: Op, at: number): number | null {
    const given = valueOfArg(op[at], this.#observation);
    const value = Array.isArray(given) ? given[0] : given;
    return typeof value === "number" && value !== NO_ADDRESS && value >= 0 ? value : null;
  }

  // ── Zones ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #judgeReserve(zone: number, highest: number, seen: Seen): Verdict {
    const expected = reserveOf(this.frames.zones, zone, highest);
    if (seen.value === expected) return this.#none(seen, "reserveOf");
    const call = `reserveOf(${ZONE_NAMES[zone]},${ZONE_NAMES[highest]})`;
    return fail("reserve", `${call} returns ${show(seen.value)}, and must be ${expected}`);
  }

  #judgePages(request: Request, index: number, seen: Seen): Verdict {
    const taken = this.#judgeTake(request, seen.events, "allocPages");
    if ("kind" in taken) return taken;
    const { value } = seen;
    if (value !== taken.frame)
      return fail("bad-claim", `allocPages took frame ${taken.frame} and returns ${show(value)}`);
    if (taken.frame !== NO_FRAME) this.blocks.set(taken.frame, { order: request.order, op: index });
    return null;
  }

  /** Judges what a request made the machine do, and does it in the model: the first frame, or NO_FRAME. */
  #judgeTake(request: Request, events: readonly Event[], what: string): NonNullable<Verdict> | { frame: number } {
    const { frames } = this;
    const { zones } = frames;
    const expected = outcomeOf(frames, request);
    const strange = events.find(([kind]) => kind !== "take" && kind !== "wake");
    if (strange !== undefined) return fail("bad-claim", `${what} calls ${show(strange[0])} of the machine`);
    const takes = events.filter((event) => event[0] === "take" && event[3] !== NO_FRAME);
    const [take] = takes;
    if (takes.length > 1) return fail("bad-claim", `${what} takes ${takes.length} blocks from the zones`);
    const zone = take === undefined ? -1 : Number(take[1]);
    if (take !== undefined && (zones[zone] === undefined || take[2] !== request.order))
      return fail("bad-claim", `${what} takes order ${show(take[2])} from zone ${show(take[1])}`);
    if (zone > request.highest) return fail(what === "poolAlloc" ? "pool-mask" : "too-high", tooHigh(request, zone));
    if (zone !== expected.zone) return this.#wrongZone(request, zone, expected.zone, expected.isFirst);
    const nrWakes = events.filter(([kind]) => kind === "wake").length;
    if (nrWakes !== (expected.isFirst ? 0 : 1)) {
      const why = expected.isFirst ? "a zone is above its low mark" : "no zone is above its low mark";
      return fail("wake", `${what} wakes reclaim ${count(nrWakes, "time")} although ${why}`);
    }
    return { frame: zone < 0 ? NO_FRAME : frames.take(zone, request.order) };
  }

  #wrongZone(request: Request, zone: number, right: number, isFirst: boolean): NonNullable<Verdict> {
    const { frames } = this;
    const wants = wish(request);
    const state = (z: number, first: boolean): string => {
      const left = `${frames.nrFree(z)} − ${(1 << request.order) - 1} frames`;
      const is = isEnough(frames, z, request, first) ? "are above" : "are not above";
      const reserve = reserveOf(frames.zones, z, request.highest);
      const mark = keepOf(frames.zones, z, request, first) - reserve;
      return `there ${left} ${is} the mark ${mark} + reserve ${reserve}`;
    };
    const kind = request.isUrgent && !isFirst ? "urgent" : zone < 0 ? "refused" : "below-mark";
    if (zone < 0) return fail(kind, `${wants} is refused, but in ${ZONE_NAMES[right]}: ${state(right, isFirst)}`);
    if (isEnough(frames, zone, request, isFirst))
      return fail(
        "zone-order",
        `${wants} gets frames of ${ZONE_NAMES[zone]} although ${ZONE_NAMES[right]} may give them`,
      );
    return fail(kind, `${wants} gets frames of ${ZONE_NAMES[zone]}, but ${state(zone, isFirst)}`);
  }

  #judgeBack(frame: number, order: number, seen: Seen): Verdict {
    const { value } = seen;
    const block = this.blocks.get(frame);
    const call = `freePages(${frame},${order}) returns ${show(value)}`;
    if (block?.order !== order) {
      if (value === -EINVAL) return this.#none(seen, "a refused freePages");
      const why = block === undefined ? "allocPages gave no block there" : `that block has order ${block.order}`;
      return fail("bad-free", `${call} instead of −EINVAL (−22): ${why}`);
    }
    const mapping = this.mappings.overlapping(frame * FRAME_BYTES, (frame + (1 << order)) * FRAME_BYTES);
    if (mapping !== undefined) {
      if (value === -EBUSY) return this.#none(seen, "a refused freePages");
      return fail(
        "busy",
        `${call} instead of −EBUSY (−16): ${this.#name(mapping.op)} maps ${mapping.size} bytes of it`,
      );
    }
    if (value !== 0) return fail("free-kept", `${call}, but it is ${this.#name(block.op)} and not mapped`);
    this.blocks.delete(frame);
    const [event, ...more] = seen.events;
    const isBack = event !== undefined && more.length === 0 && event[0] === "return" && event[2] === frame;
    if (isBack && event[3] === order && this.frames.giveBack(Number(event[1]), frame, order)) return null;
    const did = event === undefined ? "nothing" : `${seen.events.map((each) => show(each)).join(" ")}`;
    return fail("return", `freePages(${frame},${order}) must give that block back to its zone, and does ${did}`);
  }

  #none(seen: Seen, what: string): Verdict {
    const [event] = seen.events;
    return event === undefined ? null : fail("bad-claim", `${what} calls ${show(event[0])} of the machine`);
  }
}

function wish({ highest, order }: Request): string {
  return `a request for ${ZONE_NAMES[highest]} with ${count(1 << order, "frame")}`;
}

function tooHigh(request: Request, zone: number): string {
  return `${wish(request)} gets frames of ${ZONE_NAMES[zone]}`;
}

/** The first violation of a program, or null. */
export function judge(program: Program, observation: Observation): Violation | null {
  const walk = new Walk(program, observation);
  for (let op = 0; op < observation.claims.length; op++) {
    const verdict = walk.step(op);
    if (verdict !== null) return { ...verdict, op };
  }
  return null;
}
