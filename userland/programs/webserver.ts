/**
 * webserver: a request loop without an arena, the way a simple server uses malloc.
 *
 *   receive buffer → request head, parsed byte by byte → one node per header → body → response → all of it freed
 *
 * Requests are made up from a seed: few paths that many ask for, bodies of a few hundred bytes and now and then some
 * tens of KiB. Each request's memory is gone before the next, but for the session table, whose entries live for many
 * requests and so lie between the short-lived ones: that is what makes the heap of a server fragment.
 *
 * With --nic the requests come as packets from /dev/nic0, until the wire is silent or N have been served; each is
 * answered with one packet, the beginning of the response.
 */

import { PREEMPTED, type Sleeping } from "../../kernel/types.ts";
import { strerror } from "../../kernel/uapi/errno.ts";
import { O_RDWR } from "../../kernel/uapi/mman.ts";
import { buildPacket, PACKET_HEADER_BYTES, PACKET_MAX_BYTES, readPacket } from "../../kernel/uapi/packet.ts";
import type { ProgramEnv } from "../../kernel/uapi/program.ts";
import { decodeUtf8, encodeUtf8 } from "../../kernel/uapi/utf8.ts";
import { createUmalloc, type Umalloc } from "../umalloc.ts";
import { parseCount, parseOptions } from "./arguments.ts";
import { NIC_PATH } from "./network.ts";
import { createRandom, type Random } from "./random.ts";
import { EXIT_FAILED, EXIT_OK, type Tool, type ToolDefinition } from "./tool.ts";

const RECEIVE_BYTES = 2048;
const MAX_BODY_BYTES = 32 * 1024;
const NR_SESSIONS = 128;
const SESSION_BYTES = 96;

/** A header in memory: next, name, value; pointers as 64-bit words. */
const NODE_BYTES = 24;
const NODE_NAME = 8;
const NODE_VALUE = 16;

const LF = 10;
const COLON = 58;
const NOTHING = 0;
/** Headers that a whole request has. */
const MADE_UP_HEADERS = 3;
const WIRE_HEADERS = 1;

const storePointer = (env: ProgramEnv, at: number, p: number): void => {
  env.mem.st32(at, p % 2 ** 32);
  env.mem.st32(at + 4, Math.floor(p / 2 ** 32));
};
const loadPointer = (env: ProgramEnv, at: number): number => env.mem.ld32(at) + env.mem.ld32(at + 4) * 2 ** 32;

/** The text of request `nr`. */
function requestText(nr: number, random: Random): string {
  const agent = "x".repeat(random.size(120));
  const cookie = random.below(2) === 0 ? `Cookie: session=${random.below(NR_SESSIONS)}\n` : "";
  const line = `GET /page/${random.size(64)}?n=${nr} HTTP/1.1\n`;
  return `${line}Host: slabtown\nUser-Agent: ${agent}\n${cookie}Accept: */*\n\n`;
}

/** A copy of `bytes` bytes at `from`, with a NUL; NOTHING without memory. */
function duplicate(env: ProgramEnv, heap: Umalloc, from: number, bytes: number): number {
  const p = heap.malloc(bytes + 1);
  if (p === NOTHING) return NOTHING;
  env.mem.copy(p, from, bytes);
  env.mem.st8(p + bytes, 0);
  return p;
}

/** Parses `bytes` bytes of request into a list of header nodes; its head, NOTHING for none or without memory. */
function parseHeaders(env: ProgramEnv, heap: Umalloc, text: number, bytes: number): number {
  let head = NOTHING;
  let start = text;
  let colon = NOTHING;
  for (let at = text; at < text + bytes; at++) {
    const c = env.mem.ld8(at);
    if (c === COLON && colon === NOTHING) colon = at;
    if (c !== LF) continue;
    if (colon !== NOTHING) {
      const node = heap.calloc(1, NODE_BYTES);
      if (node === NOTHING) return head;
      storePointer(env, node, head);
      head = node;
      storePointer(env, node + NODE_NAME, duplicate(env, heap, start, colon - start));
      storePointer(env, node + NODE_VALUE, duplicate(env, heap, colon + 2, at - colon - 2));
    }
    start = at + 1;
    colon = NOTHING;
  }
  return head;
}

function freeHeaders(env: ProgramEnv, heap: Umalloc, head: number): number {
  let nrHeaders = 0;
  for (let node = head; node !== NOTHING; ) {
    const next = loadPointer(env, node);
    heap.free(loadPointer(env, node + NODE_NAME));
    heap.free(loadPointer(env, node + NODE_VALUE));
    heap.free(node);
    node = next;
    nrHeaders++;
  }
  return nrHeaders;
}

interface Server {
  readonly env: ProgramEnv;
  readonly heap: Umalloc;
  readonly random: Random;
  readonly sessions: Float64Array;
}

/** Serves a request: bytes of the response, or −1 when there was no memory for it. */
function serve({ env, heap, random, sessions }: Server, request: Uint8Array, minHeaders: number): number {
  const buffer = heap.malloc(RECEIVE_BYTES);
  if (buffer === NOTHING) return -1;
  env.mem.write(buffer, request);
  const headers = parseHeaders(env, heap, buffer, request.length);
  const session = random.below(NR_SESSIONS);
  if (random.below(8) === 0) {
    heap.free(sessions[session] as number);
    sessions[session] = heap.calloc(1, SESSION_BYTES);
  }
  // Most pages are small, one in sixteen is not.
  const bodyBytes = random.below(16) === 0 ? random.size(MAX_BODY_BYTES) : 200 + random.below(800);
  const body = heap.malloc(bodyBytes);
  if (body !== NOTHING) env.mem.fill(body, 0x2e, bodyBytes);
  const head = encodeUtf8(`HTTP/1.1 200 OK\nContent-Length: ${bodyBytes}\n\n`);
  const response = body === NOTHING ? NOTHING : heap.malloc(head.length + bodyBytes);
  if (response !== NOTHING) {
    env.mem.write(response, head);
    env.mem.copy(response + head.length, body, bodyBytes);
  }
  heap.free(response);
  heap.free(body);
  const isWhole = freeHeaders(env, heap, headers) >= minHeaders && response !== NOTHING;
  // The line that was parsed is still in the buffer: a server would log it.
  const isGet = decodeUtf8(env.mem.read(buffer, 3)) === "GET";
  heap.free(buffer);
  return isWhole && isGet ? head.length + bodyBytes : -1;
}

interface Served {
  nrRequests: number;
  nrFailed: number;
  sentBytes: number;
}

const noteServed = (served: Served, bytes: number): void => {
  served.nrRequests++;
  if (bytes < 0) served.nrFailed++;
  else served.sentBytes += bytes;
};

/** Serves `nr` requests that it makes up itself. */
function* serveMadeUp(server: Server, nr: number, served: Served): Sleeping<void> {
  for (let i = 0; i < nr; i++) {
    noteServed(served, serve(server, encodeUtf8(requestText(i, server.random)), MADE_UP_HEADERS));
    if (server.env.timeIsUp()) yield PREEMPTED;
  }
}

/** Serves the packets of /dev/nic0: 0 at the end of the traffic, or −errno. */
function* serveNic(tool: Tool, server: Server, limit: number, served: Served): Sleeping<number> {
  const fd = yield* tool.libc.open(NIC_PATH, O_RDWR);
  if (fd < 0) return fd;
  let result = 0;
  while (served.nrRequests < limit) {
    const packet = yield* tool.libc.read(fd, PACKET_MAX_BYTES);
    if (typeof packet === "number" || packet.length === 0) {
      result = typeof packet === "number" ? packet : 0;
      break;
    }
    const header = readPacket(packet);
    const bytes = header === null ? -1 : serve(server, packet.subarray(PACKET_HEADER_BYTES), WIRE_HEADERS);
    noteServed(served, bytes);
    if (header !== null && bytes > 0) {
      const length = Math.min(PACKET_HEADER_BYTES + bytes, PACKET_MAX_BYTES);
      yield* tool.libc.writeAll(fd, buildPacket({ ...header, length }, encodeUtf8("HTTP/1.1 200 OK\n")));
    }
    if (server.env.timeIsUp()) yield PREEMPTED;
  }
  yield* tool.libc.close(fd);
  return result;
}

export const WEBSERVER: ToolDefinition = {
  name: "webserver",
  synopsis: "--requests N [--seed S] | --nic [--requests N]",
  summary: "serve N made-up requests, or the packets of /dev/nic0; malloc and free for each",
  *main(tool): Sleeping<number> {
    const values = { "--requests": parseCount, "--seed": parseCount };
    const options = parseOptions(tool.args, { values, flags: ["--nic"] });
    const isNic = options?.flags.has("--nic") === true;
    const limit = options?.values.get("--requests") ?? (isNic ? Number.POSITIVE_INFINITY : undefined);
    if (options === null || limit === undefined) return yield* tool.usage();
    const random = createRandom(options.values.get("--seed") ?? 1);
    const heap = createUmalloc(tool.env);
    const server = { env: tool.env, heap, random, sessions: new Float64Array(NR_SESSIONS) };
    const start = tool.env.now();
    const served: Served = { nrRequests: 0, nrFailed: 0, sentBytes: 0 };
    const error = isNic ? yield* serveNic(tool, server, limit, served) : 0;
    if (!isNic) yield* serveMadeUp(server, limit, served);
    const { nrRequests, nrFailed, sentBytes } = served;
    if (error < 0) yield* tool.complain(`${NIC_PATH}: ${strerror(error)}`);
    const cycles = tool.env.now() - start;
    for (const session of server.sessions) heap.free(session);
    const { peakBytes } = heap.stats();
    yield* tool.out(
      `webserver: ${nrRequests} requests, ${nrFailed} failed, ${Math.floor(sentBytes / 1024)} KiB sent, ` +
        `heap peak ${Math.ceil(peakBytes / 1024)} KiB, ${Math.floor(cycles / Math.max(nrRequests, 1))} cycles each\n`,
    );
    return nrFailed === 0 && error === 0 ? EXIT_OK : EXIT_FAILED;
  },
};
