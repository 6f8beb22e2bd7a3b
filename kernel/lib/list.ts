/**
 * Intrusive lists: circular, doubly linked, with the links inside the things listed (Linux `struct list_head`).
 *
 *          ┌──────────────────────────────────────────────┐
 *          ▼                                              │
 *        head ──next──▶ node A ──next──▶ node B ──next────┘
 *          ▲ ◀──prev───    ▲ ◀──prev───
 *          └── prev of head is the last node
 *
 * The head is a node like the others; an empty list is a head that points to itself. So adding and deleting have no
 * special case, take no memory and cost O(1), and a thing leaves its list without knowing which list it is on.
 *
 *   offset  width  field   meaning
 *   +0      u32    next    granule (address / 8) of the next node
 *   +4      u32    prev    granule of the previous node
 *
 *   LST-1  next(prev(n)) = n and prev(next(n)) = n for each node n of a list.
 *   LST-2  A node on no list points to itself: listDel leaves it so, a second listDel changes nothing, and
 *          listIsEmpty(node) tells whether it is on a list.
 *   LST-3  Following `next` from the head comes back to the head.
 *
 * Node addresses are 8-aligned and not 0. Lock: the caller's; nothing here is atomic. Context: any.
 * Linux's plain list_del poisons the links instead (a second deletion faults); ours is its list_del_init.
 */

import type { MemoryPort } from "../arch/port.ts";
import { GRANULE } from "../params.ts";
import { fromGranule, NULL, type PhysAddr, toGranule } from "../types.ts";

/** Bytes of a node. */
export const LIST_HEAD_BYTES = 8;

const NEXT = 0;
const PREV = 4;

/** Makes `node` an empty list, or a node on no list (LST-2). Required before its first use. */
export function initListHead(port: MemoryPort, node: PhysAddr): void {
  const granule = toGranule(node);
  port.st32(node + NEXT, granule);
  port.st32(node + PREV, granule);
}

/** The node after `node`; the head when `node` is the last, the first when `node` is the head. */
export function listNext(port: MemoryPort, node: PhysAddr): PhysAddr {
  return fromGranule(port.ld32(node + NEXT));
}

/** The node before `node`; the head when `node` is the first, the last when `node` is the head. */
export function listPrev(port: MemoryPort, node: PhysAddr): PhysAddr {
  return fromGranule(port.ld32(node + PREV));
}

/** Puts `node`, which is on no list, right after `head`: lists used so are stacks. */
export function listAdd(port: MemoryPort, node: PhysAddr, head: PhysAddr): void {
  link(port, node, head, fromGranule(port.ld32(head + NEXT)));
}

/** Puts `node`, which is on no list, right before `head`, at the end: lists used so are queues. */
export function listAddTail(port: MemoryPort, node: PhysAddr, head: PhysAddr): void {
  link(port, node, fromGranule(port.ld32(head + PREV)), head);
}

/** Takes `node` off its list and leaves it pointing to itself. On a node that is on no list: no effect. */
export function listDel(port: MemoryPort, node: PhysAddr): void {
  const next = port.ld32(node + NEXT);
  const prev = port.ld32(node + PREV);
  port.st32(fromGranule(prev) + NEXT, next);
  port.st32(fromGranule(next) + PREV, prev);
  initListHead(port, node);
}

/** Has the list no nodes besides its head? */
export function listIsEmpty(port: MemoryPort, head: PhysAddr): boolean {
  return port.ld32(head + NEXT) === toGranule(head);
}

/** First node, or NULL when the list is empty. */
export function listFirst(port: MemoryPort, head: PhysAddr): PhysAddr {
  const first = listNext(port, head);
  return first === head ? NULL : first;
}

/** Last node, or NULL when the list is empty. */
export function listLast(port: MemoryPort, head: PhysAddr): PhysAddr {
  const last = listPrev(port, head);
  return last === head ? NULL : last;
}

/** Number of nodes without the head. O(n); does not return on a list that violates LST-3. */
export function listCount(port: MemoryPort, head: PhysAddr): number {
  let nrNodes = 0;
  for (let node = listNext(port, head); node !== head; node = listNext(port, node)) nrNodes++;
  return nrNodes;
}

function link(port: MemoryPort, node: PhysAddr, prev: PhysAddr, next: PhysAddr): void {
  const granule = toGranule(node);
  port.st32(node + NEXT, toGranule(next));
  port.st32(node + PREV, toGranule(prev));
  port.st32(prev + NEXT, granule);
  port.st32(next + PREV, granule);
}

/**
 * Walks the list and returns what is wrong with it, or null. O(n).
 *
 * Ends on any content of memory: two nodes with the same `next` cannot both be its `prev`, so a walk that does not
 * lead back to the head breaks LST-1 at the first node it meets twice.
 */
export function checkList(port: MemoryPort, head: PhysAddr): string | null {
  let node = head;
  do {
    const next = listNext(port, node);
    if (next === NULL || next + LIST_HEAD_BYTES > port.sizeBytes) {
      return `LST-1 node ${hex(node)} points out of RAM, to ${hex(next)}`;
    }
    const back = listPrev(port, next);
    if (back !== node) return `LST-1 next of ${hex(node)} is ${hex(next)}, whose prev is ${hex(back)}`;
    node = next;
  } while (node !== head);
  return null;
}

const hex = (addr: PhysAddr): string => `0x${addr.toString(16)}`;

if (LIST_HEAD_BYTES !== GRANULE) throw new Error("list: a node is one granule");
