/**
 * Lab 3, the checks about zones.
 */

import type { Check } from "../../kit/lab_code.ts";
import { ZONE_DMA, ZONE_DMA32, ZONE_NORMAL } from "../given/api.ts";
import { anyMachine, Builder, machineOf } from "./programs.ts";

export const ZONES: readonly Check[] = [
  {
    id: "reserve",
    rule: "ZON-1",
    title: "the reserve is the frames of the zones above, up to the one asked for, divided by the zone's own ratio",
    cause: "the wrong zones are added, each is divided by itself, or ratio 0 is not looked at",
    kinds: ["reserve"],
    program(random, nr) {
      const builder = new Builder(nr === 0 ? machineOf([4, 11, 10]) : anyMachine(random));
      for (let zone = ZONE_DMA; zone <= ZONE_NORMAL; zone++) {
        for (let highest = zone; highest <= ZONE_NORMAL; highest++) builder.op("reserve", zone, highest);
      }
      return builder.build();
    },
  },
  {
    id: "zone-order",
    rule: "ZON-2",
    title: "zones are asked from the highest one allowed downwards, never one above",
    cause: "the walk starts at the lowest zone, or at the highest of the machine",
    kinds: ["zone-order", "too-high"],
    program(_random, nr) {
      const builder = new Builder(machineOf(nr % 3 === 2 ? [8, 0, 8] : [8, 6, 8]));
      const highest = [ZONE_NORMAL, ZONE_DMA32, ZONE_DMA][nr % 3] as number;
      builder.pages(highest, nr % 2);
      builder.pages(ZONE_DMA, 0);
      builder.drain(ZONE_NORMAL, 6 + (nr % 4));
      builder.back(0);
      builder.pages(highest, 0);
      return builder.build();
    },
  },
  {
    id: "low-mark",
    rule: "ZON-3",
    title: "a zone gives frames only as long as it stays above its mark and its reserve against this request",
    cause: "the frames of the request but one, the reserve or the mark itself is left out of the comparison",
    kinds: ["below-mark"],
    program(random, nr) {
      const builder = new Builder(nr < 4 ? machineOf([10, 6, 8]) : anyMachine(random));
      const highest = nr % 3 === 0 ? ZONE_NORMAL : (nr + 1) % 3;
      for (let i = 0; i < 24; i++) builder.pages(highest, nr % 2 === 0 ? 0 : random.below(3));
      return builder.build();
    },
  },
  {
    id: "refusal",
    rule: "ZON-3",
    title: "a request is refused only if no allowed zone has a block and stays above its min mark",
    cause: "the second round is missing, a zone without a block ends the walk, or > is taken for >=",
    kinds: ["refused"],
    program(random, nr) {
      const few: readonly (readonly [number, number, number])[] = [
        [1, 2, 0],
        [1, 2, 0],
        [0, 1, 0],
      ];
      const builder = new Builder(
        nr % 2 === 0
          ? machineOf([nr === 0 ? 3 : 8, nr % 4 === 2 ? 0 : 2, nr === 0 ? 5 : 9])
          : machineOf([8, 6, 6], 4, few),
      );
      if (nr % 2 === 1) {
        // Every other frame of the highest zone: enough frames, and no two side by side.
        builder.drain(ZONE_NORMAL, 5);
        for (const index of [0, 1, 2]) builder.back(index);
        builder.pages(ZONE_NORMAL, 1 + random.below(2));
      }
      builder.drain([ZONE_NORMAL, ZONE_DMA, ZONE_DMA32][(nr >>> 1) % 3] as number, 22);
      return builder.build();
    },
  },
  {
    id: "urgent",
    rule: "ZON-4",
    title: "an urgent request may use half of min, rounded up, and the reserve stays",
    cause: "urgent requests get no more than others, or everything; or half is rounded the wrong way",
    kinds: ["urgent"],
    program(random, nr) {
      const min = 3 + (nr % 3);
      const marks = [1, 2, 3].map((by): [number, number, number] => [min, min + by, by === 3 ? 0 : 5]);
      const builder = new Builder(machineOf([min + 1 + (nr % 4), 2, 4], 4, marks));
      const highest = nr % 2 === 0 ? ZONE_DMA : random.below(3);
      builder.drain(highest, 1 + random.below(4));
      for (let i = 0; i < 10; i++) builder.pages(highest, 0, true);
      return builder.build();
    },
  },
  {
    id: "wake",
    rule: "ZON-5",
    title: "reclaim is woken once when no zone stays above its low mark, and only then",
    cause: "it is woken for each zone, for each request, or only for a request that is refused",
    kinds: ["wake"],
    program(random, nr) {
      const builder = new Builder(nr < 4 ? machineOf([6, 4, 6]) : anyMachine(random));
      for (let i = 0; i < 18; i++) builder.pages([ZONE_NORMAL, ZONE_DMA, ZONE_DMA32][nr % 3] as number, 0);
      return builder.build();
    },
  },
  {
    id: "free-pages",
    rule: "ZON-6",
    title: "a block is freed once and with its order; it goes back to the zone that it came from",
    cause: "the zone is taken for the one that was asked for, or a second free is not noticed",
    kinds: ["bad-free", "free-kept", "return"],
    program(random, nr) {
      const builder = new Builder(machineOf([8, 6, 9]));
      const a = builder.pages(ZONE_NORMAL, 2);
      const b = builder.pages(ZONE_NORMAL, 1);
      const c = builder.pages(ZONE_DMA, 1);
      const bad = [
        () => builder.on("back", a, 1),
        () => builder.on("back", c, 1, 1),
        () => builder.op("back", 1, 0),
        () => builder.on("back", b, 0, 0.5),
        () => builder.op("back", 2 ** 20, 0),
      ];
      bad[nr % bad.length]?.();
      const ref = builder.blocks[random.below(3)]?.ref ?? a;
      builder.back(builder.blocks.findIndex((block) => block.ref === ref));
      builder.on("back", ref, [2, 1, 1][[a, b, c].indexOf(ref)] as number);
      while (builder.blocks.length > 0) builder.back(0);
      if (nr % 2 === 1) {
        const pool = builder.op("pool", 1000, 8, 0, 2 ** 32);
        builder.op("pages", ZONE_NORMAL, 0, false);
        builder.take(pool);
        // The first frame of each zone, one of which is the pool's.
        for (const [start] of builder.config.zones) for (const i of [0, 1, 2]) builder.op("back", start + i, 0);
      }
      return builder.build();
    },
  },
];
