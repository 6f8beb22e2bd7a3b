/**
 * Goal: who reclaims when: RCM-1 … RCM-3, RCL-1, RCL-5, apart from which page and how.
 * Method: createReclaim over a scanner that the test plays: it frees what it is told, and the marks follow.
 */
import { describe, expect, it } from "vitest";
import { createKthreads } from "../../kernel/kthread.ts";
import { PF_MEMALLOC, TASK_FLAGS } from "../../kernel/task_struct.ts";
import type { TaskContext } from "../../kernel/types.ts";
import {
  __GFP_NORETRY,
  __GFP_RETRY_MAYFAIL,
  GFP_HIGHUSER_MOVABLE,
  GFP_KERNEL,
  GFP_NOFS,
  type Gfp,
} from "../../mm/gfp.ts";
import { createReclaim, RECLAIM_BYTES } from "../../mm/reclaim.ts";
import { createShrinkers } from "../../mm/shrinker.ts";
import type { Scan, Vmscan } from "../../mm/vmscan.ts";
import type { VmStat } from "../../mm/vmstat.ts";
import { bootTaskLevel } from "../support/task_level.ts";

interface Play {
  /** What a round frees, by its priority. */
  frees: (priority: number) => number;
  nrReclaimable: number;
  isAbove: boolean;
  /** Of zone 0. */
  boost?: number;
  /** Has compaction memory enough? */
  canCompact?: () => boolean;
}

function world(play: Play) {
  const m = bootTaskLevel();
  const scans: Scan[] = [];
  const vmscan: Vmscan = {
    shrinkInPlace(ctx, scan) {
      scans.push(scan);
      inside?.(ctx);
      return play.frees(scan.priority);
    },
    *shrink(_task, scan) {
      scans.push(scan);
      return play.frees(scan.priority);
    },
    nrReclaimable: () => play.nrReclaimable,
    isAbove: () => play.isAbove,
    swappiness: () => 60,
    setSwappiness() {},
  };
  let inside: ((ctx: TaskContext) => void) | undefined;
  const kills: number[] = [];
  const wakes: number[] = [];
  const vmstat = { countEvents() {} } as unknown as VmStat;
  const shrinkers = createShrinkers(vmstat);
  const task = m.start("hungry", function* () {});
  const reclaim = createReclaim({
    ...m,
    port: m.machine.port,
    vmstat,
    vmscan,
    shrinkers,
    kthreads: createKthreads(m.machine, m.contexts, m.tasks, m.scheduler),
    taskOf: () => task,
    drainAllPages: () => 0,
    wakeCompactor: () => void wakes.push(1),
    zones: {
      field: (zone) => (zone === 0 ? (play.boost ?? 0) : 0),
      unboost(zone, nr) {
        if (zone === 0) play.boost = Math.max(0, (play.boost ?? 0) - nr);
      },
      onBoost() {},
    },
    canCompact: () => play.canCompact?.() === true,
    state: m.alloc(RECLAIM_BYTES),
  });
  reclaim.onOutOfMemory((_ctx, order) => kills.push(order) > 0);
  const ask = (order = 0, gfp: Gfp = GFP_HIGHUSER_MOVABLE): boolean => reclaim.makeRoom(m.ctx, order, gfp);
  return {
    ...m,
    reclaim,
    shrinkers,
    scans,
    kills,
    wakes,
    ask,
    task,
    during(act: (ctx: TaskContext) => void) {
      inside = act;
    },
  };
}

describe("direct reclaim", () => {
  it("RCM-1 looks deeper until 32 pages are free, and says that there is room", () => {
    const w = world({ frees: (priority) => (priority > 9 ? 0 : 20), nrReclaimable: 1000, isAbove: false });
    expect(w.ask()).toBe(true);
    expect(w.scans.map(({ priority }) => priority)).toEqual([12, 11, 10, 9, 8]);
    expect(w.kills).toEqual([]);
  });

  it("RCM-3 sixteen times nothing, then the OOM killer, once", () => {
    const w = world({ frees: () => 0, nrReclaimable: 1000, isAbove: false });
    expect(w.ask()).toBe(true);
    expect(w.scans.length).toBe(16 * 13);
    expect(w.kills).toEqual([0]);
  });

  it("RCM-3 nothing left to reclaim: no second look", () => {
    const w = world({ frees: () => 0, nrReclaimable: 0, isAbove: false });
    expect(w.ask()).toBe(true);
    expect([w.scans.length, w.kills.length]).toEqual([13, 1]);
  });

  it("RCM-3 large blocks and __GFP_NORETRY kill nobody", () => {
    const w = world({ frees: () => 0, nrReclaimable: 0, isAbove: false });
    expect(w.ask(4, GFP_KERNEL)).toBe(false);
    for (const modifier of [__GFP_NORETRY, __GFP_RETRY_MAYFAIL]) {
      expect(w.ask(0, (GFP_KERNEL | modifier) as Gfp)).toBe(false);
    }
    expect(w.ask(0, GFP_NOFS)).toBe(false);
    expect(w.kills).toEqual([]);
  });

  it("RCM-4 a large block: until compaction can work, or twice the block is free; without a page once", () => {
    const play: Play = { frees: () => 40, nrReclaimable: 1000, isAbove: false };
    const w = world(play);
    expect(w.ask(9)).toBe(true);
    expect(w.scans.map(({ priority }) => priority)).toEqual(new Array(26).fill(12));
    play.canCompact = () => w.scans.length >= 30;
    expect([w.ask(9), w.scans.length]).toEqual([true, 30]);
    play.frees = () => 0;
    expect([w.ask(9), w.scans.length]).toEqual([false, 30 + 13]);
    expect([w.ask(9, (GFP_KERNEL | __GFP_RETRY_MAYFAIL) as Gfp), w.scans.length]).toEqual([false, 30 + 13 + 16 * 13]);
    expect(w.kills).toEqual([]);
  });

  it("RCM-3 while memory is there nobody dies for a request that fails all the same", () => {
    const w = world({ frees: () => 0, nrReclaimable: 0, isAbove: true });
    expect(w.ask()).toBe(false);
    expect(w.kills).toEqual([]);
  });

  it("RCL-1 RCM-2 asking inside reclaim is refused, and PF_MEMALLOC is gone afterwards", () => {
    const w = world({ frees: () => 32, nrReclaimable: 1000, isAbove: false });
    const flags = (): number => w.machine.port.ld32(w.task.struct + TASK_FLAGS) & PF_MEMALLOC;
    const answers: unknown[] = [];
    w.during(() => answers.push(w.ask(), flags()));
    expect(w.ask()).toBe(true);
    expect(answers).toEqual([false, PF_MEMALLOC]);
    expect(flags()).toBe(0);
  });

  it("SHR-1 shrinkers are asked for a share that grows with the urgency", () => {
    const w = world({ frees: () => 0, nrReclaimable: 1000, isAbove: false });
    const asked: number[] = [];
    w.shrinkers.register({ name: "empty", count: () => 0, scan: () => Number.NaN });
    w.shrinkers.register({ name: "cache", count: () => 4096, scan: (_ctx, nr) => (asked.push(nr) > 3 ? 40 : 0) });
    expect(w.ask()).toBe(true);
    expect(asked).toEqual([1, 2, 4, 8]);
    expect(w.shrinkers.names()).toEqual(["empty", "cache"]);
  });
});

describe("kswapd", () => {
  it("RCL-5 works until the high mark, then sleeps; gives up after sixteen rounds without a page", () => {
    const play: Play = { frees: () => 40, nrReclaimable: 1000, isAbove: false };
    const w = world(play);
    w.reclaim.wakeKswapd(w.ctx, 3);
    expect(w.scans).toEqual([]);
    w.reclaim.startKswapd();
    w.reclaim.startKswapd();
    w.run();
    let nr = 0;
    play.frees = () => {
      play.isAbove = ++nr === 5;
      return 40;
    };
    w.reclaim.wakeKswapd(w.ctx, 3);
    w.run();
    expect(w.scans.map(({ priority, isKswapd }) => [priority, isKswapd])).toEqual(new Array(5).fill([12, true]));
    play.isAbove = false;
    play.frees = () => 0;
    for (let i = 0; i < 20; i++) {
      w.reclaim.wakeKswapd(w.ctx, 3);
      w.run();
    }
    expect(w.scans.length).toBe(5 + 16 * 12);
  });

  it("B11 frees as much as was boosted, writing nothing, wakes kcompactd and takes the boost back", () => {
    const play: Play = { frees: () => 40, nrReclaimable: 1000, isAbove: true, boost: 512 };
    const w = world(play);
    w.reclaim.startKswapd();
    w.run();
    const balance = (): [nrScans: number, allForBoost: boolean] => {
      w.scans.length = 0;
      w.reclaim.wakeKswapd(w.ctx, 3);
      w.run();
      return [w.scans.length, w.scans.every(({ isForBoost }) => isForBoost === true)];
    };
    expect([balance(), play.boost, w.wakes]).toEqual([[13, true], 0, [1]]);
    // Nothing to be had without writing; and nothing boosted, nothing to do.
    [play.frees, play.boost] = [() => 0, 512];
    expect([balance(), play.boost, balance(), w.wakes]).toEqual([[1, true], 0, [0, true], [1, 1]]);
    // Out of balance: reclaim as ever, and the boost goes all the same.
    [play.frees, play.boost, play.isAbove] = [() => 40, 512, false];
    play.frees = () => {
      play.isAbove = w.scans.length >= 3;
      return 40;
    };
    expect([balance(), play.boost]).toEqual([[3, false], 0]);
  });
});
