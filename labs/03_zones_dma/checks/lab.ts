/**
 * Lab 3: all checks, the hidden ones among them, and how an operation is written.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import type { Check, LabCode } from "../../kit/lab_code.ts";
import type { Json, Op, Program } from "../../kit/program.ts";
import { BIDIRECTIONAL, FROM_DEVICE, TO_DEVICE, ZONE_NORMAL } from "../given/api.ts";
import { hasName, judge } from "./judge.ts";
import { MAPPINGS, SLOT_BOOKS } from "./map_checks.ts";
import { DIRECTION_NAMES } from "./mappings.ts";
import { type DmaConfig, ZONE_NAMES } from "./model.ts";
import { picture } from "./picture.ts";
import { POOL_BOOKS, POOLS, requestOf } from "./pool_checks.ts";
import { anyMachine, Builder, lastByteOf, machineOf } from "./programs.ts";
import { question } from "./question.ts";
import { ZONES } from "./zone_checks.ts";

const VISIBLE = [...ZONES, ...POOLS, ...MAPPINGS, ...POOL_BOOKS, ...SLOT_BOOKS];
const ALL_KINDS = [...new Set(VISIBLE.flatMap(({ kinds }) => kinds))];

/** A transfer, as a driver would do it. */
function transfer(builder: Builder, random: Prng, block: number, bytes: number): void {
  const size = 1 + random.below(bytes - 1);
  const start = random.below(bytes - size + 1);
  const direction = [TO_DEVICE, FROM_DEVICE, BIDIRECTIONAL][random.below(3)] as number;
  const at = (): number => random.below(size);
  const [a, b] = [at(), at()];
  builder.on("write", block, start + a, 1 + random.below(255));
  const mapping = builder.map(block, start, size, direction, lastByteOf(builder.config, random.below(3)));
  if (direction !== FROM_DEVICE) builder.on("deviceReads", mapping, a);
  if (direction !== TO_DEVICE) builder.on("deviceWrites", mapping, b, 1 + random.below(255));
  if (random.below(3) === 0) {
    builder.on("syncCpu", mapping);
    builder.on("read", block, start + b);
    builder.on("syncDevice", mapping);
  }
  builder.on("owner", block, start + a);
  if (random.below(4) > 0) builder.unmapRef(mapping);
  builder.on("read", block, start + a);
  builder.on("read", block, start + b);
}

const HIDDEN: readonly Check[] = [
  {
    id: "long-run",
    rule: "ZON-1 to MAP-10",
    title: "all rules hold in long runs over zones, pools and mappings",
    cause: "one of the rules above, in a state that the visible programs do not reach",
    kinds: ALL_KINDS,
    isSweep: true,
    runs: { quick: 1, full: 10 },
    program(random, nr) {
      const builder = new Builder(nr % 2 === 0 ? machineOf([10, 8, 20], 6) : anyMachine(random));
      const pools = [0, 1].map((i) =>
        builder.op("pool", ...requestOf(nr + 3 * i), lastByteOf(builder.config, (nr + i) % 3)),
      );
      for (let round = 0; round < 40; round++) {
        const kind = random.below(6);
        if (kind === 0 && builder.blocks.length > 1) builder.back(random.below(builder.blocks.length));
        else if (kind <= 2) {
          const order = random.below(2);
          transfer(builder, random, builder.pages(random.below(3), order, random.below(4) === 0), 4096 << order);
        } else if (kind === 3 && builder.taken.length > 0) builder.put(random.below(builder.taken.length));
        else if (kind === 4 && builder.mapped.length > 0) builder.unmap(random.below(builder.mapped.length));
        else builder.take(pools[random.below(2)] as number);
      }
      while (builder.mapped.length > 0) builder.unmap(0);
      while (builder.taken.length > 0) builder.put(random.below(builder.taken.length));
      for (const pool of pools) builder.on("end", pool);
      while (builder.blocks.length > 0) builder.back(0);
      return builder.build();
    },
  },
  {
    id: "exhaustion",
    rule: "ZON-1 to MAP-10",
    title: "all rules hold when frames and slots run out again and again",
    cause: "a refused request has changed something, or what was freed is not found again",
    kinds: ALL_KINDS,
    isSweep: true,
    runs: { quick: 1, full: 10 },
    program(random, nr) {
      const builder = new Builder(anyMachine(random));
      const pool = builder.op("pool", ...requestOf(nr), lastByteOf(builder.config, nr % 3));
      for (let round = 0; round < 3; round++) {
        for (let i = 0; i < 14; i++) builder.pages(random.below(3), random.below(3), random.below(3) === 0);
        builder.takeSome(pool, 5);
        for (let i = 0; i < 6; i++) {
          const { ref = 0 } = builder.blocks[random.below(builder.blocks.length)] ?? {};
          builder.map(
            ref,
            random.below(1000),
            1 + random.below(3000),
            1 + random.below(3),
            lastByteOf(builder.config, 0),
          );
        }
        for (let i = 0; i < 4; i++) builder.put(random.below(builder.taken.length));
        while (builder.mapped.length > round) builder.unmap(random.below(builder.mapped.length));
        for (let i = 0; i < 10; i++) builder.back(random.below(builder.blocks.length));
      }
      return builder.build();
    },
  },
];

function describe(op: Op, index: number, name: (index: number) => string): string {
  const [kind, a, b, c, d] = op;
  const it = typeof a === "object" && a !== null ? name(a.ref) : String(a);
  const behind = (delta: unknown): string =>
    Number(delta ?? 0) === 0 ? "" : `${Number(delta) > 0 ? "+" : ""}${delta}`;
  const result = name(index) === "" ? "" : `${name(index)}=`;
  const zone = (at: unknown): string => ZONE_NAMES[Number(at)] ?? String(at);
  const way = (at: unknown): string => DIRECTION_NAMES[Number(at)] ?? String(at);
  const texts: Readonly<Record<string, () => string>> = {
    reserve: () => `reserveOf(${zone(a)},${zone(b)})`,
    pages: () => `${result}allocPages(${zone(a)},${b}${c === true ? ",urgent" : ""})`,
    back: () => `freePages(${it}${behind(c)},${b})`,
    pool: () => `${result}createPool(${a},${b},${c},mask ${d})`,
    take: () => `${result}poolAlloc(${it})`,
    put: () => `poolFree(${it},${typeof b === "object" && b !== null ? name(b.ref) : String(b)}${behind(c)})`,
    end: () => `destroyPool(${it})`,
    mapPart: () => `${result}map(${it}${behind(b)},${c},${way(d)},mask ${op[5]})`,
    unmapPart: () => `unmap(${it}${behind(d)},${b},${way(c)})`,
    syncCpu: () => `syncForCpu(${it}${behind(b)})`,
    syncDevice: () => `syncForDevice(${it}${behind(b)})`,
    owner: () => `isDevices(${it}${behind(b)})`,
    write: () => `CPU:${it}[${b}]=${c}`,
    read: () => `CPU:read(${it}[${b}])`,
    deviceWrites: () => `device:${it}[${b}]=${c}`,
    deviceReads: () => `device:read(${it}[${b}])`,
  };
  return texts[kind]?.() ?? kind;
}

/** Smaller orders and mappings. */
function simpler(program: Program): readonly Program[] {
  return program.ops.flatMap((op, i): Program[] => {
    const replaced = (other: Op): Program => ({
      config: program.config,
      ops: program.ops.map((old, at) => (at === i ? other : old)),
    });
    if (op[0] === "pages" && Number(op[2]) > 0) return [replaced(["pages", op[1] ?? ZONE_NORMAL, 0, op[3] ?? false])];
    return [];
  });
}

export const lab: LabCode = {
  checks: [...VISIBLE, ...HIDDEN],
  judge,
  hasName,
  describe,
  describeConfig(config: Json) {
    const { zones, slots } = config as unknown as DmaConfig;
    const parts = zones.map(
      ([start, end, min, low, ratio], i) => `${ZONE_NAMES[i]} ${start}..${end} ${min}/${low}/${ratio}`,
    );
    return `${parts.join(", ")} (frames min/low/ratio), ${slots} slots`;
  },
  picture,
  simpler,
  question,
};
