/**
 * The balloon, as the simulated host has it: it asks the machine for memory, and keeps book of what it was given.
 *
 * | register | name          | meaning                                                                          |
 * |----------|---------------|----------------------------------------------------------------------------------|
 * | 0x00     | ID            | what is here                                                                     |
 * | 0x04     | STATUS        | bit 0: the target has changed; bit 1: the host wants statistics; reading clears  |
 * |          |               | both and releases the line                                                       |
 * | 0x08     | TARGET        | pages that the host wants                                                        |
 * | 0x0c     | ACTUAL        | pages that the driver says it has given                                          |
 * | 0x10     | QUEUE         | bus address of an array of frame numbers, u32 each                               |
 * | 0x14     | INFLATE       | storing n: the n frames of the array are the host's from here on                 |
 * | 0x18     | DEFLATE       | storing n: they are the machine's again                                          |
 * | 0x1c     | INFLATE_PFN   | the same for one frame, without the array                                        |
 * | 0x20     | DEFLATE_PFN   |                                                                                  |
 * | 0x24     | HELD          | pages that the host has                                                          |
 * | 0x28     | ERRORS        | frames given twice, taken back without having been given, arrays not to be read  |
 * | 0x2c     | STATS_QUEUE   | bus address of an array of statistics (balloon_stats.ts)                         |
 * | 0x34     | STATS         | storing n: the array has n bytes                                                 |
 * | 0x38     | FEATURES      | bit 0: free memory may be reported                                               |
 * | 0x3c     | REPORT_QUEUE  | bus address of an array of blocks, u32 each: first frame · 16 + order             |
 * | 0x50     | REPORT        | storing n: the n blocks of the array are free, and their content may be lost      |
 * | 0x54     | HOST_RSS      | pages of the machine's RAM that the host has to back (its own book, for /sys)     |
 * | 0x30     | CONTROL       | storing 1: the host begins; 0: it lets go of everything                          |
 * | 0x40     | HOST_TARGET   | the host's own knob (not for drivers of real machines): sets the target          |
 * | 0x44     | HOST_POLL     | another: cycles between two questions for statistics, 0: none                    |
 * | 0x48 0x4c| HOST_SELECT   | and its book: store a tag, load the low word here and the high word behind it    |
 *
 * A command is done when the store returns, as a virtual machine is stopped while its host acts. A host that was asked
 * to (`swing`, `period`, `moves`) changes its mind by itself: target, target + swing, target, … One that was given
 * `poll` asks for statistics, and with `keep` steers by them: it wants all pages that the machine does not need, and
 * leaves it `keep` available ones; it moves when it is off by an eighth of that, so as not to move for ever.
 *
 * With `reporting` it takes reports of free memory, and throws the content away as a host does: what is read there
 * before it is written is DISCARDED bytes, so that whoever relies on free memory is found out. It backs a page again
 * when it is touched; a simulated host cannot see reads, so it looks whether the page is still as it left it.
 *
 * Like virtio-balloon (virtio 1.2, section 5.5), with registers in place of queues.
 */

import { readStats, STAT_AVAILABLE } from "./balloon_stats.ts";
import { type DeviceEnv, type DeviceKind, type DeviceModel, numberSetting } from "./hardware.ts";

export const BALLOON_ID = 0x00;
export const BALLOON_STATUS = 0x04;
export const BALLOON_TARGET = 0x08;
export const BALLOON_ACTUAL = 0x0c;
export const BALLOON_QUEUE = 0x10;
export const BALLOON_INFLATE = 0x14;
export const BALLOON_DEFLATE = 0x18;
export const BALLOON_INFLATE_PFN = 0x1c;
export const BALLOON_DEFLATE_PFN = 0x20;
export const BALLOON_HELD = 0x24;
export const BALLOON_ERRORS = 0x28;
export const BALLOON_STATS_QUEUE = 0x2c;
export const BALLOON_CONTROL = 0x30;
export const BALLOON_STATS = 0x34;
export const BALLOON_FEATURES = 0x38;
export const BALLOON_REPORT_QUEUE = 0x3c;
export const BALLOON_REPORT = 0x50;
export const BALLOON_HOST_RSS = 0x54;
export const BALLOON_HOST_TARGET = 0x40;
export const BALLOON_HOST_POLL = 0x44;
export const BALLOON_HOST_SELECT = 0x48;
export const BALLOON_HOST_HIGH = 0x4c;
export const BALLOON_MAGIC = 0x0b41_1004;
export const BALLOON_CHANGED = 1;
export const BALLOON_ASKED = 2;
export const BALLOON_F_REPORTING = 1;

const MAX_PAGES = 2 ** 20;
const MAX_ARRAY = 1024;
const MAX_REPORT_ORDER = 10;
const PAGE_BYTES = 4096;
/** The finest that a host looks: 1 ms. */
const MIN_POLL = 1_000_000;

function createBalloonModel(env: DeviceEnv): DeviceModel {
  const held = new Set<number>();
  let [isOn, status, target, actual, queue, nrErrors, nrMoves] = [false, 0, 0, 0, 0, 0, 0];
  let [statsQueue, poll, selected, pollRound] = [0, 0, 0, 0];
  let guest: ReadonlyMap<number, number> = new Map();
  let reportQueue = 0;
  /** By frame: 1 if the host has thrown it away. */
  const discarded = new Uint8Array(env.guest.nrFrames);

  const raise = (bit: number): void => {
    if (!isOn) return;
    status |= bit;
    if (!env.faults.strikes("lost_irq")) env.setIrq(true);
  };

  const setTarget = (pages: number): void => {
    target = Math.min(pages, MAX_PAGES);
    raise(BALLOON_CHANGED);
  };

  /** Asks every `poll` cycles; a new interval ends the old round. */
  const setPoll = (cycles: number): void => {
    poll = cycles === 0 ? 0 : Math.max(cycles, MIN_POLL);
    const round = ++pollRound;
    const ask = (): void => {
      if (!isOn || round !== pollRound) return;
      raise(BALLOON_ASKED);
      env.after(poll, ask);
    };
    if (isOn && poll > 0) env.after(poll, ask);
  };

  const steer = (): void => {
    const keep = env.setting("keep");
    const off = Math.floor((guest.get(STAT_AVAILABLE) ?? 0) / PAGE_BYTES) - keep;
    if (keep > 0 && Math.abs(off) > keep / 8) setTarget(Math.max(0, actual + off));
  };

  const receive = (nrBytes: number): void => {
    const bytes = nrBytes > 0 && nrBytes <= MAX_ARRAY ? env.master.read(statsQueue, nrBytes) : null;
    if (bytes === null) {
      nrErrors++;
      return;
    }
    guest = readStats(bytes);
    steer();
  };

  const plan = (): void => {
    if (nrMoves >= env.setting("moves")) return;
    const late = env.faults.strikes("late") ? env.setting("late_cycles") : 0;
    env.after(env.setting("period") + late, () => {
      if (!isOn) return;
      if (env.faults.strikes("vanish")) {
        env.vanish();
        return;
      }
      nrMoves++;
      setTarget(env.setting("target") + (nrMoves % 2) * env.setting("swing"));
      plan();
    });
  };

  const give = (pfn: number): void => {
    if (held.has(pfn)) nrErrors++;
    held.add(pfn);
  };
  const takeBack = (pfn: number): void => {
    if (!held.delete(pfn)) nrErrors++;
  };
  const discard = (block: number): void => {
    const [first, order] = [block >>> 4, block & 15];
    const isSensible = order <= MAX_REPORT_ORDER && first % 2 ** order === 0 && first + 2 ** order <= discarded.length;
    if (!isSensible) {
      nrErrors++;
      return;
    }
    env.guest.discard(first, 2 ** order);
    discarded.fill(1, first, first + 2 ** order);
  };

  /** Pages that the host backs: all but those in the balloon, and those thrown away and not written since. */
  const rss = (): number => {
    let nr = 0;
    for (let pfn = 0; pfn < discarded.length; pfn++) {
      if (discarded[pfn] === 1 && !env.guest.isDiscarded(pfn)) discarded[pfn] = 0;
      if (discarded[pfn] === 0 && !held.has(pfn)) nr++;
    }
    return nr;
  };

  const each = (nr: number, act: (entry: number) => void, array = queue): void => {
    const bytes = nr > 0 && nr <= MAX_ARRAY ? env.master.read(array, nr * 4) : null;
    if (bytes === null) nrErrors++;
    else for (let i = 0; i < nr; i++) act(new DataView(bytes.buffer, bytes.byteOffset).getUint32(i * 4, true));
  };

  const control = (value: number): void => {
    const wasOn = isOn;
    isOn = (value & 1) !== 0;
    if (isOn === wasOn) return;
    if (!isOn) {
      held.clear();
      env.setIrq(false);
      return;
    }
    nrMoves = 0;
    setTarget(env.setting("target"));
    setPoll(env.setting("poll"));
    plan();
  };

  return {
    ld32(register) {
      if (register === BALLOON_STATUS) {
        const value = status;
        status = 0;
        env.setIrq(false);
        return value;
      }
      if (register === BALLOON_HOST_RSS) return rss();
      const values: Readonly<Record<number, number>> = {
        [BALLOON_ID]: BALLOON_MAGIC,
        [BALLOON_TARGET]: target,
        [BALLOON_ACTUAL]: actual,
        [BALLOON_HELD]: held.size,
        [BALLOON_ERRORS]: nrErrors,
        [BALLOON_CONTROL]: isOn ? 1 : 0,
        [BALLOON_FEATURES]: env.setting("reporting") === 0 ? 0 : BALLOON_F_REPORTING,
        [BALLOON_HOST_POLL]: poll,
        [BALLOON_HOST_SELECT]: (guest.get(selected) ?? 0) % 2 ** 32,
        [BALLOON_HOST_HIGH]: Math.floor((guest.get(selected) ?? 0) / 2 ** 32),
      };
      return values[register] ?? 0;
    },
    st32(register, value) {
      if (register === BALLOON_ACTUAL) actual = value;
      if (register === BALLOON_QUEUE) queue = value;
      if (register === BALLOON_INFLATE) each(value, give);
      if (register === BALLOON_DEFLATE) each(value, takeBack);
      if (register === BALLOON_INFLATE_PFN) give(value);
      if (register === BALLOON_DEFLATE_PFN) takeBack(value);
      if (register === BALLOON_CONTROL) control(value);
      if (register === BALLOON_REPORT_QUEUE) reportQueue = value;
      if (register === BALLOON_REPORT) each(value, discard, reportQueue);
      if (register === BALLOON_STATS_QUEUE) statsQueue = value;
      if (register === BALLOON_STATS) receive(value);
      if (register === BALLOON_HOST_TARGET) setTarget(value);
      if (register === BALLOON_HOST_POLL) setPoll(value);
      if (register === BALLOON_HOST_SELECT) selected = value;
    },
    reset() {
      held.clear();
      [isOn, status, target, actual, queue, nrErrors, nrMoves] = [false, 0, 0, 0, 0, 0, 0];
      [statsQueue, poll, selected, reportQueue] = [0, 0, 0, 0];
      pollRound++;
      guest = new Map();
    },
  };
}

export const BALLOON_KIND: DeviceKind = {
  compatible: "balloon",
  settings: {
    target: numberSetting(0, MAX_PAGES, 0, "pages that the host wants from the start"),
    swing: numberSetting(0, MAX_PAGES, 0, "pages that it wants on top at every other move"),
    period: numberSetting(1000, 10_000_000_000, 50_000_000, "cycles between two moves"),
    moves: numberSetting(0, 1_000_000, 0, "how often the host changes its mind"),
    reporting: numberSetting(0, 1, 0, "1: the host takes reports of free memory"),
    poll: numberSetting(0, 10_000_000_000, 0, "cycles between two questions for statistics, 0: none"),
    keep: numberSetting(
      0,
      MAX_PAGES,
      0,
      "available pages that a host that asks leaves to the machine; 0: it only asks",
    ),
  },
  faults: ["lost_irq", "late", "vanish"],
  create: createBalloonModel,
};
