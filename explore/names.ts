/**
 * Names of places in RAM, for reports: "depot of explore-64 (empty list)" instead of 0x1a2340.
 */

export interface Names {
  /** `[addr, addr + bytes)` is called `name`; `fields`: offset → what is there. Later names win. */
  add(addr: number, bytes: number, name: string, fields?: ReadonlyMap<number, string>): void;
  nameOf(addr: number): string;
  /** The same without the field: what a place as a whole is called. */
  placeOf(addr: number): string;
}

interface Place {
  readonly start: number;
  readonly end: number;
  readonly name: string;
  readonly fields: ReadonlyMap<number, string>;
}

const hex = (n: number): string => `0x${n.toString(16)}`;

export function createNames(): Names {
  const places: Place[] = [];
  const find = (addr: number): Place | undefined => places.find(({ start, end }) => addr >= start && addr < end);
  return {
    add(addr, bytes, name, fields = new Map()) {
      places.unshift({ start: addr, end: addr + bytes, name, fields });
    },
    nameOf(addr) {
      const place = find(addr);
      if (place === undefined) return hex(addr);
      const offset = addr - place.start;
      const field = place.fields.get(offset);
      if (field !== undefined) return `${place.name}.${field}`;
      return offset === 0 ? place.name : `${place.name}+${offset}`;
    },
    placeOf: (addr) => find(addr)?.name ?? hex(addr),
  };
}
