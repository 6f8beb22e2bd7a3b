/**
 * Lab 3, the checks about pools of small blocks.
 */

import type { Check } from "../../kit/lab_code.ts";
import { FRAME_BYTES, ZONE_NORMAL } from "../given/api.ts";
import { highestFor, layoutOf, zonesOf } from "./model.ts";
import { Builder, lastByteOf, machineOf } from "./programs.ts";

export type PoolRequest = readonly [size: number, align: number, boundary: number];

/** Few blocks in a frame first, so that the first programs can be read. */
export const REQUESTS: readonly PoolRequest[] = [
  [1500, 8, 2048],
  [1000, 8, 0],
  [600, 64, 1024],
  [1200, 512, 0],
  [512, 8, 1024],
  [900, 4, 2048],
  [300, 8, 1024],
  [2048, 8, 2048],
  [68, 32, 0],
  [4096, 8, 0],
  [340, 16, 1024],
  [20, 4, 64],
];
export const requestOf = (nr: number): PoolRequest => REQUESTS[nr % REQUESTS.length] as PoolRequest;

const LARGE = machineOf([8, 8, 16]);
const ALL = lastByteOf(LARGE, ZONE_NORMAL);

function perFrame([size, align, boundary]: PoolRequest): number {
  return layoutOf(size, align, boundary)?.offsets.length ?? 1;
}

/** A builder with one pool. */
function withPool(nr: number, mask = ALL): { builder: Builder; pool: number; per: number } {
  const builder = new Builder(LARGE);
  const request = requestOf(nr);
  return { builder, pool: builder.op("pool", ...request, mask), per: perFrame(request) };
}

export const POOLS: readonly Check[] = [
  {
    id: "pool-create",
    rule: "POOL-7",
    title: "createPool refuses what makes no sense and gives every pool a number of its own",
    cause: "a bound that is off by one, or the size is compared with the boundary before it is rounded up",
    kinds: ["pool-create"],
    program(_random, nr) {
      const builder = new Builder(LARGE);
      const bad: readonly PoolRequest[] = [
        [0, 8, 0],
        [4097, 8, 0],
        [100, 12, 0],
        [1000, 8, 1000],
        [1020, 16, 512],
        [500, 64, 256],
        [1.5, 8, 0],
        [100, 0, 0],
        [1025, 8, 1024],
        [8, 8, 8],
      ];
      builder.op("pool", ...(bad[nr % bad.length] as PoolRequest), ALL);
      builder.op("pool", 100, 8, 0, lastByteOf(LARGE, 0) - 1 - (nr % 3));
      const good: readonly PoolRequest[] = [[1, 1, 0], [4096, 4096, 4096], [1024, 8, 1024], requestOf(nr)];
      builder.op("pool", ...(good[nr % good.length] as PoolRequest), lastByteOf(LARGE, nr % 3));
      const other = builder.op("pool", 64, 8, 0, ALL);
      for (let i = 0; i < 3 && nr % 2 === 1; i++) builder.op("pool", 64, 8, 0, ALL);
      if (nr % 2 === 1) builder.on("end", other);
      builder.op("pool", 64, 8, 0, ALL);
      return builder.build();
    },
  },
  {
    id: "pool-aligned",
    rule: "POOL-1",
    title: "a block of a pool starts at a multiple of the pool's alignment",
    cause: "the size is not rounded up to the alignment, so that only the first block is aligned",
    kinds: ["misaligned"],
    program(random, nr) {
      const builder = new Builder(LARGE);
      const align = 8 << (nr % 9);
      const pool = builder.op(
        "pool",
        align < 1024 ? align + 1 + random.below(align - 1) : 1 + random.below(600),
        align,
        0,
        ALL,
      );
      builder.takeSome(pool, 3);
      return builder.build();
    },
  },
  {
    id: "boundary",
    rule: "POOL-1",
    title: "no block of a pool crosses a multiple of its boundary",
    cause: "blocks are laid side by side through the whole frame, or the size is compared with the boundary only once",
    kinds: ["boundary"],
    program(_random, nr) {
      const { builder, pool, per } = withPool([0, 2, 5, 6, 10, 11][nr % 6] as number);
      builder.takeSome(pool, Math.min(70, per + 1));
      return builder.build();
    },
  },
  {
    id: "pool-overlap",
    rule: "POOL-1",
    title: "blocks that are out lie in frames of the pool and overlap no other",
    cause: "a block stays on the free list when it is handed out, or the last one does not fit into the frame",
    kinds: ["twice", "outside", "off-grid", "bad-claim"],
    program(random, nr) {
      const { builder, pool, per } = withPool(nr);
      builder.takeSome(pool, Math.min(20, per + 1));
      for (let i = 0; i < 3; i++) builder.put(random.below(builder.taken.length));
      builder.takeSome(pool, 4);
      return builder.build();
    },
  },
  {
    id: "pool-capacity",
    rule: "POOL-2",
    title: "a pool asks for a frame only when every block of its frames is out",
    cause: "a frame is thought to have one block less than fits, or freed blocks are not used again",
    kinds: ["early"],
    program(random, nr) {
      const { builder, pool, per } = withPool(nr);
      const nrBlocks = Math.min(70, per);
      builder.takeSome(pool, nrBlocks);
      builder.put(random.below(nrBlocks));
      builder.takeSome(pool, 2);
      return builder.build();
    },
  },
  {
    id: "pool-refusal",
    rule: "POOL-6",
    title: "poolAlloc fails only for no pool, or if all blocks are out and the zones give no frame",
    cause: "a refusal leaves something behind, or the pool is not told from one with free blocks",
    kinds: ["pool-refused"],
    program(random, nr) {
      const builder = new Builder(machineOf([3, 2, 3]));
      const request = requestOf(nr % 3);
      const pool = builder.op("pool", ...request, lastByteOf(builder.config, 0));
      builder.op("take", [9, 1, 4, 2.5][nr % 4] as number);
      builder.takeSome(pool, 2 * perFrame(request) + 1);
      for (let i = 0; i < 2; i++) builder.put(random.below(3));
      builder.takeSome(pool, 3);
      return builder.build();
    },
  },
  {
    id: "pool-mask",
    rule: "POOL-4",
    title: "every block of a pool lies where the pool's device reaches it",
    cause: "frames come from the highest zone, or from one whose first byte the device reaches",
    kinds: ["pool-mask"],
    program(random, nr) {
      const zone = (nr + 1) % 3;
      const slack = zone === 2 ? 0 : [0, 1, FRAME_BYTES, 3 * FRAME_BYTES - 1][nr % 4];
      const mask = lastByteOf(LARGE, zone) + (slack ?? 0) - (zone > 0 && nr % 5 === 4 ? 1 : 0);
      const { builder, pool, per } = withPool([0, 1, 9][nr % 3] as number, mask);
      if (highestFor(zonesOf(LARGE), mask) >= 0) builder.takeSome(pool, per + 1 + random.below(3));
      return builder.build();
    },
  },
  {
    id: "pool-free",
    rule: "POOL-5",
    title: "poolFree takes a block of this pool that is out and refuses everything else",
    cause: "the address is rounded down to a block, the state is not asked for, or the frame may be another pool's",
    kinds: ["double", "foreign", "interior", "pool-kept"],
    program(random, nr) {
      const { builder, pool, per } = withPool(nr);
      const other = builder.op("pool", ...requestOf(nr + (nr % 2)), ALL);
      const blocks = builder.takeSome(pool, Math.min(6, per + 1));
      const theirs = builder.take(other);
      const block = blocks[random.below(blocks.length)] as number;
      builder.on("put", pool, { ref: block }, [8, 1, 0.5, -8, 16, 4, 64][nr % 7] as number);
      // Beside a block that is out: one of the same frame that never was.
      const stride = layoutOf(...requestOf(nr))?.size ?? 0;
      const fresh = builder.op("pool", ...requestOf(nr), ALL);
      const only = builder.take(fresh);
      for (const delta of [stride, -stride]) builder.on("put", fresh, { ref: only }, delta);
      builder.on("put", pool, { ref: theirs });
      builder.on("put", pool, [0, 2 ** 40, FRAME_BYTES, 7][nr % 4] as number);
      for (const again of [false, true]) {
        builder.on("put", pool, { ref: block });
        if (again) break;
      }
      builder.on("put", pool, { ref: theirs }, 3);
      for (const ref of blocks) if (ref !== block) builder.on("put", pool, { ref });
      return builder.build();
    },
  },
];

export const POOL_BOOKS: readonly Check[] = [
  {
    id: "pool-pages",
    rule: "POOL-3",
    title: "frames of a pool go back when it is destroyed, all of them, and it is not destroyed with blocks out",
    cause: "only the last frame is given back, one goes back too early, or blocks that are out are not counted",
    kinds: ["destroy", "pool-page"],
    program(random, nr) {
      const { builder, pool, per } = withPool(nr % 5);
      builder.takeSome(pool, 2 * per + 1);
      builder.put(random.below(per));
      builder.on("end", pool);
      while (builder.taken.length > 0) builder.put(0);
      builder.on("end", pool);
      builder.on("end", pool);
      const again = builder.op("pool", ...requestOf(nr), ALL);
      builder.take(again);
      builder.on("end", again);
      return builder.build();
    },
  },
  {
    id: "steps",
    rule: "POOL-8",
    title: "poolAlloc and poolFree take few steps, however many blocks there are",
    cause: "a free block, or the frame of an address, is searched for instead of found",
    kinds: ["slow"],
    program(random, nr) {
      const builder = new Builder(LARGE);
      const request: PoolRequest = nr % 2 === 0 ? [32, 8, 0] : [60, 4, 256];
      const pool = builder.op("pool", ...request, ALL);
      builder.takeSome(pool, 60);
      for (let i = 0; i < 20; i++) builder.put(random.below(builder.taken.length));
      builder.takeSome(pool, perFrame(request) - 20);
      for (let i = 0; i < 4; i++) builder.put(builder.taken.length - 1);
      return builder.build();
    },
  },
];
