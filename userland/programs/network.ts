/**
 * pktgen and pktsink: packets through /dev/nic0, sent and received.
 *
 *   pktgen N               sends N packets of a mix of sizes            pktgen --wire N   asks the wire for N packets
 *   pktsink                reads until the wire is silent, or --packets N have come: checks sum and order, counts
 *
 * A gap in the sequence is a packet that was lost on its way (the card's counters say where); a packet whose checksum
 * does not hold, or that is older than one of its flow before it, is an error and makes the exit status 1.
 */

import { CYCLES_PER_SECOND } from "../../kernel/params.ts";
import { PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import { strerror } from "../../kernel/uapi/errno.ts";
import { O_WRONLY } from "../../kernel/uapi/mman.ts";
import {
  buildPacket,
  IMIX,
  IMIX_TOTAL,
  PACKET_HEADER_BYTES,
  PACKET_MAX_BYTES,
  readPacket,
} from "../../kernel/uapi/packet.ts";
import { encodeUtf8 } from "../../kernel/uapi/utf8.ts";
import { parseCount, parseOptions } from "./arguments.ts";
import { createRandom, type Random } from "./random.ts";
import { EXIT_FAILED, EXIT_OK, type Tool, type ToolDefinition } from "./tool.ts";

export const NIC_PATH = "/dev/nic0";
const TRAFFIC_PATH = "/sys/devices/nic0/traffic";
const NR_FLOWS = 16;

/** `12.3 kpps` for packets in cycles of virtual time. */
function rateText(packets: number, cycles: number): string {
  const perSecond = cycles > 0 ? (packets * CYCLES_PER_SECOND) / cycles : 0;
  return perSecond >= 1000 ? `${(perSecond / 1000).toFixed(1)} kpps` : `${Math.round(perSecond)} pps`;
}

function mixedSize(random: Random): number {
  let draw = random.below(IMIX_TOTAL);
  for (const [bytes, share] of IMIX) {
    if (draw < share) return bytes;
    draw -= share;
  }
  return PACKET_MAX_BYTES;
}

function* sendPackets(tool: Tool, nr: number, size: number, seed: number): Sleeping<number> {
  const fd = yield* tool.libc.open(NIC_PATH, O_WRONLY);
  if (fd < 0) {
    yield* tool.complain(`${NIC_PATH}: ${strerror(fd)}`);
    return EXIT_FAILED;
  }
  const random = createRandom(seed);
  const text = encodeUtf8(`pktgen ${seed} `);
  const start = tool.env.now();
  let [nrSent, sentBytes, nrRefused] = [0, 0, 0];
  for (let sequence = 0; sequence < nr; sequence++) {
    const length = size > 0 ? size : mixedSize(random);
    const flow = random.below(NR_FLOWS);
    const sentMicros = Math.floor(tool.env.now() / 1000);
    const result = yield* tool.libc.writeAll(fd, buildPacket({ length, flow, sequence, sentMicros }, text));
    if (result < 0) nrRefused++;
    else {
      nrSent++;
      sentBytes += length;
    }
    if (tool.env.timeIsUp()) yield PREEMPTED;
  }
  yield* tool.libc.close(fd);
  yield* tool.out(
    `pktgen: ${nrSent} packets, ${Math.floor(sentBytes / 1024)} KiB sent, ${nrRefused} refused, ` +
      `${rateText(nrSent, tool.env.now() - start)}\n`,
  );
  return nrRefused === 0 ? EXIT_OK : EXIT_FAILED;
}

function* askWire(tool: Tool, words: readonly string[]): Sleeping<number> {
  const result = yield* tool.libc.writeFile(TRAFFIC_PATH, `${words.join(" ")}\n`);
  if (result >= 0) return EXIT_OK;
  yield* tool.complain(`${TRAFFIC_PATH}: ${strerror(result)}`);
  return EXIT_FAILED;
}

const pktgen: ToolDefinition = {
  name: "pktgen",
  synopsis: "N [--size BYTES] [--seed S] | --wire N [--rate PPS] [--burst N]",
  summary: "send N packets, or let the wire bring N",
  *main(tool) {
    const names = ["--size", "--seed", "--wire", "--rate", "--burst"];
    const values = Object.fromEntries(names.map((name) => [name, parseCount]));
    const options = parseOptions(tool.args, { values, maxOperands: 1 });
    if (options === null) return yield* tool.usage();
    const wire = options.values.get("--wire");
    const [operand] = options.operands;
    if (wire !== undefined && operand === undefined) {
      const optional = ["rate", "burst"].flatMap((name) => {
        const value = options.values.get(`--${name}`);
        return value === undefined ? [] : [`${name}=${value}`];
      });
      return yield* askWire(tool, [`count=${wire}`, ...optional]);
    }
    const nr = parseCount(operand ?? "");
    const size = options.values.get("--size") ?? 0;
    const isSize = size === 0 || (size >= PACKET_HEADER_BYTES && size <= PACKET_MAX_BYTES);
    if (nr === null || wire !== undefined || !isSize) return yield* tool.usage();
    return yield* sendPackets(tool, nr, size, options.values.get("--seed") ?? 1);
  },
};

interface Received {
  nrPackets: number;
  bytes: number;
  nrCorrupt: number;
  nrDisordered: number;
  highest: number;
  lowest: number;
}

/** Checks one packet against what came before. */
function note(received: Received, lastOfFlow: Map<number, number>, bytes: Uint8Array): void {
  const header = readPacket(bytes);
  if (header === null) {
    received.nrCorrupt++;
    return;
  }
  received.nrPackets++;
  received.bytes += header.length;
  received.highest = Math.max(received.highest, header.sequence);
  received.lowest = Math.min(received.lowest, header.sequence);
  if (header.sequence <= (lastOfFlow.get(header.flow) ?? -1)) received.nrDisordered++;
  lastOfFlow.set(header.flow, header.sequence);
}

const pktsink: ToolDefinition = {
  name: "pktsink",
  synopsis: "[--packets N]",
  summary: "receive packets, check sums and order",
  *main(tool) {
    const options = parseOptions(tool.args, { values: { "--packets": parseCount } });
    if (options === null) return yield* tool.usage();
    const limit = options.values.get("--packets") ?? Number.POSITIVE_INFINITY;
    const fd = yield* tool.libc.open(NIC_PATH);
    if (fd < 0) {
      yield* tool.complain(`${NIC_PATH}: ${strerror(fd)}`);
      return EXIT_FAILED;
    }
    const received: Received = {
      nrPackets: 0,
      bytes: 0,
      nrCorrupt: 0,
      nrDisordered: 0,
      highest: -1,
      lowest: Number.POSITIVE_INFINITY,
    };
    const lastOfFlow = new Map<number, number>();
    const start = tool.env.now();
    let error = 0;
    while (received.nrPackets < limit) {
      const bytes = yield* tool.libc.read(fd, PACKET_MAX_BYTES);
      if (typeof bytes === "number") error = bytes;
      if (typeof bytes === "number" || bytes.length === 0) break;
      note(received, lastOfFlow, bytes);
      if (tool.env.timeIsUp()) yield PREEMPTED;
    }
    yield* tool.libc.close(fd);
    if (error < 0) yield* tool.complain(`${NIC_PATH}: ${strerror(error)}`);
    const { nrPackets, nrCorrupt, nrDisordered, highest, lowest } = received;
    const nrMissing = nrPackets === 0 ? 0 : highest - lowest + 1 - nrPackets;
    yield* tool.out(
      `pktsink: ${nrPackets} packets, ${Math.floor(received.bytes / 1024)} KiB, ` +
        `${rateText(nrPackets, tool.env.now() - start)}, ${nrMissing} not seen here, ${nrCorrupt} corrupt, ` +
        `${nrDisordered} out of order\n`,
    );
    return error === 0 && nrCorrupt === 0 && nrDisordered === 0 ? EXIT_OK : EXIT_FAILED;
  },
};

export const NETWORK_TOOLS: readonly ToolDefinition[] = [pktgen, pktsink];
