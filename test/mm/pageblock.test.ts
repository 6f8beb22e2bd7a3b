/**
 * Pageblocks: one byte each, and what is remembered while a pageblock is isolated.
 *
 * Goal: the table of mm/pageblock.ts. Method: every type, every pageblock of a small machine, its neighbours read too.
 */

import { describe, expect, it } from "vitest";
import { asPfn } from "../../kernel/types.ts";
import { MIGRATE_ISOLATE, MIGRATE_MOVABLE, type Migratetype, NR_MIGRATETYPES } from "../../mm/migratetype.ts";
import { pageblockBytes } from "../../mm/pageblock.ts";
import { bareFrames } from "../support/bare_frames.ts";

const NR_BLOCKS = 8;
const rig = () => {
  const { pageblocks } = bareFrames(0, NR_BLOCKS * 512);
  const types = (): number[] => Array.from({ length: NR_BLOCKS }, (_, i) => pageblocks.migratetype(asPfn(i * 512)));
  return { pageblocks, types };
};
const allBut = (block: number, type: number): number[] =>
  Array.from({ length: NR_BLOCKS }, (_, i) => (i === block ? type : MIGRATE_MOVABLE));

describe("pageblocks", () => {
  it("a type is that of all 512 frames and of no other", () => {
    for (let type = 0; type < NR_MIGRATETYPES; type++) {
      const { pageblocks, types } = rig();
      pageblocks.setMigratetype(asPfn(3 * 512 + 100), type as Migratetype);
      expect(types()).toEqual(allBut(3, type));
      expect([0, 1, 511].map((i) => pageblocks.migratetype(asPfn(3 * 512 + i)))).toEqual([type, type, type]);
    }
    expect([0, 1, 512, 513, 4096].map(pageblockBytes)).toEqual([0, 1, 1, 2, 8]);
  });

  it("setRange() retags one pageblock for order 9, two for order 10", () => {
    const { pageblocks, types } = rig();
    pageblocks.setRange(asPfn(512), 9, 0 as Migratetype);
    expect(types()).toEqual([1, 0, 1, 1, 1, 1, 1, 1]);
    pageblocks.setRange(asPfn(4 * 512), 10, 2 as Migratetype);
    expect(types()).toEqual([1, 0, 1, 1, 2, 2, 1, 1]);
  });

  it("an isolated pageblock gets its type back, also when it was isolated twice", () => {
    for (let type = 0; type < MIGRATE_ISOLATE; type++) {
      const { pageblocks, types } = rig();
      pageblocks.setMigratetype(asPfn(512), type as Migratetype);
      for (let times = 1; times <= 2; times++) {
        for (let i = 0; i < times; i++) pageblocks.isolate(asPfn(512));
        expect(types()).toEqual(allBut(1, MIGRATE_ISOLATE));
        pageblocks.restore(asPfn(512));
        expect(types()).toEqual(allBut(1, type));
      }
    }
  });
});
