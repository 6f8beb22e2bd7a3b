/**
 * Questions of lab 3: reserves, which zone serves, layout of a pool, direct or bounced.
 */

import type { Prng } from "../../../kernel/lib/prng.ts";
import type { Question } from "../../kit/lab_code.ts";
import { FRAME_BYTES, NO_FRAME } from "../given/api.ts";
import { Frames, isEnough, keepOf, layoutOf, nrSlotsOf, outcomeOf, reserveOf, ZONE_NAMES, zonesOf } from "./model.ts";
import { requestOf } from "./pool_checks.ts";
import { anyMachine } from "./programs.ts";

function zoneLines(frames: Frames): string[] {
  return frames.zones.map(
    ({ start, end, min, low, ratio }, i) =>
      `${ZONE_NAMES[i]}: ${end - start} frames, ${frames.nrFree(i)} free, min ${min}, low ${low}, ratio ${ratio}`,
  );
}

function reserveQuestion(random: Prng): Question {
  const frames = new Frames(zonesOf(anyMachine(random)));
  const zone = random.below(2);
  const highest = zone + 1 + random.below(2 - zone);
  const above = frames.zones.slice(zone + 1, highest + 1).reduce((sum, { start, end }) => sum + end - start, 0);
  return {
    text: [...zoneLines(frames), `reserveOf(${ZONE_NAMES[zone]}, ${ZONE_NAMES[highest]})?`],
    answer: String(reserveOf(frames.zones, zone, highest)),
    explanation: [`${above} frames above it, up to ${ZONE_NAMES[highest]}; ratio ${frames.zones[zone]?.ratio}.`],
  };
}

function walkQuestion(random: Prng): Question {
  const frames = new Frames(zonesOf(anyMachine(random)));
  frames.zones.forEach((_, zone) => {
    for (let nr = random.below(frames.nrFree(zone) + 1); nr > 0; nr--) frames.take(zone, 0);
  });
  const request = { highest: 1 + random.below(2), order: 0, isUrgent: random.below(3) === 0 };
  const { zone, isFirst } = outcomeOf(frames, request);
  const rounds = [true, false].map((first) => {
    const zones = Array.from({ length: request.highest + 1 }, (_, i) => request.highest - i);
    const parts = zones.map((z) => {
      const sign = isEnough(frames, z, request, first) && frames.find(z, 0) !== NO_FRAME ? ">" : "≤";
      return `${ZONE_NAMES[z]} ${frames.nrFree(z)} ${sign} ${keepOf(frames.zones, z, request, first)}`;
    });
    return `${first ? "First" : "Second"} round: ${parts.join(", ")}.`;
  });
  return {
    text: [
      ...zoneLines(frames),
      `allocPages(${ZONE_NAMES[request.highest]}, 0${request.isUrgent ? ", urgent" : ""}): which zone, or "refused"?`,
    ],
    answer: zone < 0 ? "refused" : (ZONE_NAMES[zone] as string),
    explanation: isFirst ? rounds.slice(0, 1) : rounds,
  };
}

function poolQuestion(random: Prng): Question {
  const [size, align, boundary] = requestOf(random.below(12));
  const layout = layoutOf(size, align, boundary);
  const offsets = layout?.offsets ?? [];
  const nr = random.below(offsets.length);
  return {
    text: [
      `createPool(${size}, ${align}, ${boundary}): how many blocks has a frame, and at which byte of it`,
      `is the last one of the first ${nr + 1}? Write 3 blocks 2048.`,
    ],
    answer: `${offsets.length} blocks ${offsets[nr]}`,
    explanation: [`Blocks of ${layout?.size} bytes; none crosses a multiple of ${layout?.boundary}.`],
  };
}

function mapQuestion(random: Prng): Question {
  const size = 1 + random.below(7000);
  const address = FRAME_BYTES * (16 + random.below(8)) + random.below(4096);
  const mask = address + size - 2 + random.below(3);
  const isDirect = address + size - 1 <= mask;
  return {
    text: [
      `map(${address}, ${size}, TO_DEVICE) for a device with the mask ${mask}:`,
      "how many slots of the bounce area does it take?",
    ],
    answer: String(isDirect ? 0 : nrSlotsOf(size)),
    explanation: [
      `The last byte is ${address + size - 1}: ${isDirect ? "the device reaches it" : "above the mask"}.`,
      `${size} bytes are ${nrSlotsOf(size)} slots of 2048.`,
    ],
  };
}

/** Four sorts of question. */
export function question(random: Prng, nr: number): Question {
  const sorts = [reserveQuestion, walkQuestion, poolQuestion, mapQuestion];
  return (sorts[nr % sorts.length] as (random: Prng) => Question)(random);
}
