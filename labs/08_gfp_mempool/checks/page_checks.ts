/**
 * Lab 8, the checks about masks and allocPage.
 */

import type { Check } from "../../kit/lab_code.ts";
import {
  __GFP_HIGH,
  __GFP_KSWAPD_RECLAIM,
  __GFP_MEMALLOC,
  __GFP_NOFAIL,
  GFP_ATOMIC,
  GFP_KERNEL,
  GFP_NOFS,
  GFP_NOIO,
  GFP_NOWAIT,
} from "../given/api.ts";
import { ATOMIC, anyMask, atomic, BLOCKING, Builder, blocking, NEVER_FAILS } from "./programs.ts";

export const PAGES: readonly Check[] = [
  {
    id: "may-block",
    rule: "GFP-1",
    title: "a mask may sleep if and only if it has __GFP_DIRECT_RECLAIM",
    cause: "other flags that those masks happen to have are asked for",
    kinds: ["may-block"],
    program(random) {
      const builder = new Builder(8, 2, 4);
      for (const mask of [...ATOMIC, ...BLOCKING, GFP_NOFS, NEVER_FAILS, anyMask(random)]) builder.op("may", mask);
      return builder.build();
    },
  },
  {
    id: "keeps",
    rule: "GFP-4",
    title: "who may use the reserve: half of min for HIGH, three eighths in atomic context too, all of it for MEMALLOC",
    cause: "half is rounded the wrong way, every atomic request gets a share, or NOMEMALLOC is not asked for",
    kinds: ["keeps"],
    program(_random, nr) {
      const builder = new Builder(20, 3 + nr, 9 + nr);
      for (const mask of [...ATOMIC, ...BLOCKING]) builder.op("leaves", mask);
      return builder.build();
    },
  },
  {
    id: "might-sleep",
    rule: "GFP-2",
    title: "whoever may sleep says so first and always; who must not sleep never says so",
    cause: "mightSleep is called where the sleeping begins: then the bug shows only when memory is short",
    kinds: ["might"],
    program(_random, nr) {
      const builder = new Builder(nr % 3 === 0 ? 9 : 4, 2, 4, [2]);
      if (nr % 2 === 1) builder.op("pool", 1);
      for (let i = 0; i < 3; i++) {
        builder.page(blocking(nr + i));
        builder.page(atomic(nr + i), i % 2 === 0);
        if (nr % 2 === 1) builder.take(blocking(nr + i));
        if (nr % 2 === 1) builder.take(atomic(nr + i), true);
      }
      return builder.build();
    },
  },
  {
    id: "fast-path",
    rule: "GFP-3",
    title: "with more pages than low a request takes one and does nothing else",
    cause: "kswapd is woken, or memory is reclaimed, before the pages are looked at",
    kinds: ["early-work"],
    program(_random, nr) {
      const builder = new Builder(9, 2, 4, [2]);
      for (let i = 0; i < 4; i++) builder.page(i % 2 === 0 ? blocking(nr + i) : atomic(nr + i));
      return builder.build();
    },
  },
  {
    id: "kswapd",
    rule: "GFP-5",
    title: "at the low mark kswapd is woken, once for each request that may wake it",
    cause: "it is woken for every mask, in every round, or only when the request fails",
    kinds: ["kswapd"],
    program(_random, nr) {
      const builder = new Builder(nr % 2 === 0 ? 5 : 1, 2, 4, [1, 1]);
      builder.page(GFP_ATOMIC);
      builder.page([GFP_ATOMIC, GFP_NOWAIT, __GFP_HIGH, 0][nr % 4] as number);
      builder.page(blocking(nr));
      builder.page(blocking(nr + 1));
      return builder.build();
    },
  },
  {
    id: "reserve-guard",
    rule: "GFP-4",
    title: "below the mark pages go to those only whose mask is entitled to them",
    cause: "the mark of the mask is not asked for, or compared with >= instead of >",
    kinds: ["takes-reserve"],
    program(random, nr) {
      const builder = new Builder(9, 5, 6);
      for (let i = 0; i < 4; i++) builder.page([GFP_NOWAIT, GFP_KERNEL, 0, GFP_NOIO][(nr + i) % 4] as number);
      for (let i = 0; i < 4; i++) builder.page([GFP_NOFS | __GFP_HIGH, GFP_ATOMIC][nr % 2] as number);
      for (let i = 0; i < 3; i++) builder.page(anyMask(random));
      return builder.build();
    },
  },
  {
    id: "refused",
    rule: "GFP-6",
    title: "a request is refused only below its mark",
    cause: "masks with a share in the reserve are treated as others, or the mark is compared too strictly",
    kinds: ["refused"],
    program(random, nr) {
      const builder = new Builder(9, 5, 6);
      for (let i = 0; i < 5; i++) builder.page([GFP_NOWAIT, GFP_KERNEL][nr % 2] as number);
      for (let i = 0; i < 3; i++)
        builder.page([GFP_ATOMIC, GFP_NOFS | __GFP_HIGH, GFP_ATOMIC | 0x40][nr % 3] as number);
      for (let i = 0; i < 4; i++) builder.page([__GFP_MEMALLOC, GFP_NOIO | __GFP_MEMALLOC][random.below(2)] as number);
      return builder.build();
    },
  },
  {
    id: "reclaim",
    rule: "GFP-7",
    title:
      "who may sleep reclaims with its own mask, as long as that helps; NORETRY once, NOFAIL until there is a page",
    cause: "one round for everybody, rounds without end, another mask, or no look at the pages between two rounds",
    kinds: ["reclaim", "nofail", "bad-claim"],
    program(random, nr) {
      const plans: readonly (readonly number[])[] = [[], [1], [1, 1, 2], [0, 3], [3], [1, 0, 1, 1]];
      const min = 2 + (nr % 3);
      const builder = new Builder(min - 1 - (nr % 2), min, min + 1, plans[nr % plans.length] as readonly number[]);
      const masks = [GFP_KERNEL, GFP_NOIO, GFP_KERNEL | 0x1_0000, GFP_KERNEL & ~__GFP_KSWAPD_RECLAIM];
      builder.page(nr % 4 === 3 && builder.config.reclaim.length > 2 ? NEVER_FAILS : (masks[nr % 4] as number));
      builder.page(masks[random.below(4)] as number);
      builder.page(GFP_ATOMIC | __GFP_NOFAIL);
      return builder.build();
    },
  },
  {
    id: "sleep-in-irq",
    rule: "CTX-1",
    title: "with a mask that must not sleep nothing sleeps: interrupts call it",
    cause: "the context is guessed, or the mask is widened on the way to the allocator",
    kinds: ["sleep-irq"],
    program(_random, nr) {
      const builder = new Builder(5, 2, 4, [2]);
      if (nr % 2 === 1) builder.op("pool", 2);
      builder.exhaust(3);
      for (let i = 0; i < 3; i++) {
        builder.page(atomic(nr + i), true);
        if (nr % 2 === 1) builder.take(atomic(nr + i), true);
      }
      return builder.build();
    },
  },
];
