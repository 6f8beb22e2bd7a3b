/**
 * Address map: address → number, for addresses of up to 53 bits.
 *
 * Owns the hash table behind the ledger: open addressing with linear probing over two typed arrays, at most half full.
 *
 *   keys    │  –  │ A │ B │  –  │ C │     A, B and C hash to A's place or later ones before a gap
 *   values  │     │ 7 │ 3 │     │ 9 │
 *
 * Deletion shifts the followers of the gap back instead of leaving a tombstone: a kernel frees as often as it
 * allocates, and tombstones would fill the table. A `Map` with double keys took a third of the reader's time for the
 * same job (2025, Node 20): it calls out of compiled code for the hash of every key that is no small integer.
 *
 * Invariant (MAP-1): between a key's home place and its actual one there is no gap.
 *
 * Source: Knuth, The Art of Computer Programming 3, section 6.4, algorithms L and R.
 */

const FIRST_CAPACITY = 1024;
/** No address: keys are never negative. */
const GAP = -1;
const TWO_32 = 4_294_967_296;

/** A map from non-negative integers below 2^53 to int32 values. */
export class AddressMap {
  size = 0;
  #mask = FIRST_CAPACITY - 1;
  #keys = new Float64Array(FIRST_CAPACITY).fill(GAP);
  #values = new Int32Array(FIRST_CAPACITY);

  /** The value at `key`, −1 if there is none. */
  get(key: number): number {
    const place = this.#find(key);
    return this.#keys[place] === key ? (this.#values[place] as number) : -1;
  }

  set(key: number, value: number): void {
    const place = this.#find(key);
    if (this.#keys[place] !== key) {
      this.#keys[place] = key;
      this.size++;
    }
    this.#values[place] = value;
    if (this.size * 2 > this.#mask) this.#grow();
  }

  delete(key: number): void {
    let gap = this.#find(key);
    if (this.#keys[gap] !== key) return;
    this.size--;
    const mask = this.#mask;
    for (let place = (gap + 1) & mask; this.#keys[place] !== GAP; place = (place + 1) & mask) {
      const home = this.#home(this.#keys[place] as number);
      // A follower may move into the gap unless that would put it before its home.
      if (((place - home) & mask) >= ((place - gap) & mask)) {
        this.#keys[gap] = this.#keys[place] as number;
        this.#values[gap] = this.#values[place] as number;
        gap = place;
      }
    }
    this.#keys[gap] = GAP;
  }

  /** Where `key` is, or the gap where it would go. */
  #find(key: number): number {
    const keys = this.#keys;
    const mask = this.#mask;
    let place = this.#home(key);
    while (keys[place] !== key && keys[place] !== GAP) place = (place + 1) & mask;
    return place;
  }

  #home(key: number): number {
    // `| 0` takes a double modulo 2^32, exactly: the low and the high half of the key.
    const mixed = Math.imul((key | 0) ^ Math.imul((key / TWO_32) | 0, 0x85ebca6b), 0x9e3779b1);
    return (mixed ^ (mixed >>> 15)) & this.#mask;
  }

  #grow(): void {
    const keys = this.#keys;
    const values = this.#values;
    const capacity = keys.length * 2;
    this.#keys = new Float64Array(capacity).fill(GAP);
    this.#values = new Int32Array(capacity);
    this.#mask = capacity - 1;
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i] as number;
      if (key === GAP) continue;
      const place = this.#find(key);
      this.#keys[place] = key;
      this.#values[place] = values[i] as number;
    }
  }
}
