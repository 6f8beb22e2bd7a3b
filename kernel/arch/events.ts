/**
 * Device time: what hardware will do at a later moment of virtual time.
 *
 * A device model is a host object; between two accesses of its driver it acts by itself: a frame arrives, a transfer
 * ends, a sensor has a sample. Such an act is an event: a moment and a function. Events fire in order of time, equal
 * times in order of their making. The kernel fires what is due at its checkpoints (kernel/irq.ts), on the CPU that gets
 * there first; when nothing is runnable, the scheduler lets time jump to the next event.
 *
 *   EVT-1  events fire in order of (time, making), each once, never before its time
 *   EVT-2  while an event fires, now() is its own time, however late the CPU is that fires it
 *
 * A binary heap; at and cancel O(log events). Host state: a device's plans are part of the device, not of RAM.
 */

export type EventId = number;

export interface DeviceEvents {
  /** The time of the event that is firing; between events, of the latest that fired. */
  now(): number;
  /** True while an event fires: what happens then happens at now(), not at the clock of a CPU. */
  isFiring(): boolean;
  /** `fire` is called once, at `time` cycles, or as soon as possible after it. */
  at(time: number, fire: () => void): EventId;
  /** `planned` learns the time of each event that is added: whoever runs until the next one must look again. */
  onPlan(planned: (time: number) => void): void;
  /** Forgets an event that has not fired; nothing if it has. */
  cancel(id: EventId): void;
  /** Time of the next event; Infinity when there is none. */
  nextTime(): number;
  /** Fires everything up to `time`, also what is added meanwhile. */
  runDue(time: number): void;
  /** Events that wait. */
  nrPending(): number;
  /** Device time is `time`, which may be earlier: a saved machine is put back. Nothing waits. */
  restart(time: number): void;
}

interface DeviceEvent {
  readonly time: number;
  readonly id: EventId;
  readonly fire: () => void;
}

const isBefore = (a: DeviceEvent, b: DeviceEvent): boolean => a.time < b.time || (a.time === b.time && a.id < b.id);

export function createDeviceEvents(): DeviceEvents {
  const heap: DeviceEvent[] = [];
  let lastId = 0;
  let now = 0;
  let isFiring = false;
  let planned: (time: number) => void = () => {};

  const siftUp = (event: DeviceEvent, from: number): void => {
    let slot = from;
    while (slot > 0) {
      const parent = (slot - 1) >>> 1;
      const above = heap[parent] as DeviceEvent;
      if (!isBefore(event, above)) break;
      heap[slot] = above;
      slot = parent;
    }
    heap[slot] = event;
  };

  const siftDown = (event: DeviceEvent, from: number): void => {
    let slot = from;
    for (;;) {
      let child = 2 * slot + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1] as DeviceEvent, heap[child] as DeviceEvent)) child++;
      const below = heap[child] as DeviceEvent;
      if (!isBefore(below, event)) break;
      heap[slot] = below;
      slot = child;
    }
    heap[slot] = event;
  };

  const removeAt = (slot: number): void => {
    const last = heap.pop() as DeviceEvent;
    if (slot >= heap.length) return;
    siftDown(last, slot);
    if (heap[slot] === last) siftUp(last, slot);
  };

  return {
    now: () => now,
    isFiring: () => isFiring,
    at(time, fire) {
      const event = { time: Math.max(time, now), id: ++lastId, fire };
      heap.push(event);
      siftUp(event, heap.length - 1);
      planned(event.time);
      return event.id;
    },
    onPlan(hook) {
      planned = hook;
    },
    cancel(id) {
      const slot = heap.findIndex((event) => event.id === id);
      if (slot >= 0) removeAt(slot);
    },
    nextTime: () => heap[0]?.time ?? Number.POSITIVE_INFINITY,
    runDue(time) {
      for (let next = heap[0]; next !== undefined && next.time <= time; next = heap[0]) {
        removeAt(0);
        now = next.time;
        const isInside = isFiring;
        isFiring = true;
        next.fire();
        isFiring = isInside;
      }
    },
    nrPending: () => heap.length,
    restart(time) {
      now = time;
    },
  };
}
