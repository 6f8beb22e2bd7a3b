/**
 * Names of places in RAM, for reports: "depot of explore-64 (empty list)" instead of 0x1a2340.
 */

import type { ImageSymbol } from "../kernel/image.ts";

/** Offset → what is there. */
export type Fields = Readonly<Record<number, string>>;

export interface Names {
  /** `[addr, addr + bytes)` is called `name`. Later names win. */
  add(addr: number, bytes: number, name: string, fields?: Fields): void;
  nameOf(addr: number): string;
  /** The same without the field: what a place as a whole is called. */
  placeOf(addr: number): string;
}

interface Place {
  readonly start: number;
  readonly end: number;
  readonly name: string;
  readonly fields: Fields;
}

const hex = (n: number): string => `0x${n.toString(16)}`;

/** `symbols`: what places without a name of their own are called; read when a name is asked for. */
export function createNames(symbols: readonly ImageSymbol[]): Names {
  const places: Place[] = [];
  const isIn =
    (addr: number) =>
    ({ start, end }: { readonly start: number; readonly end: number }): boolean =>
      addr >= start && addr < end;
  const symbolAt = (addr: number): Place | undefined => {
    const symbol = symbols.find(isIn(addr));
    return symbol === undefined ? undefined : { ...symbol, fields: {} };
  };
  const find = (addr: number): Place | undefined => places.find(isIn(addr)) ?? symbolAt(addr);
  return {
    add(addr, bytes, name, fields = {}) {
      places.unshift({ start: addr, end: addr + bytes, name, fields });
    },
    nameOf(addr) {
      const place = find(addr);
      if (place === undefined) return hex(addr);
      const offset = addr - place.start;
      const field = place.fields[offset];
      if (field !== undefined) return `${place.name}.${field}`;
      return offset === 0 ? place.name : `${place.name}+${offset}`;
    },
    placeOf: (addr) => find(addr)?.name ?? hex(addr),
  };
}
