/**
 * Allocators of the JavaScript world, each behind the same two functions: peers that run in our own process.
 *
 *   @thi.ng/malloc        first fit over one free list, in an ArrayBuffer
 *   malloc                codemix: a skip list of free blocks, in an ArrayBuffer
 *   AssemblyScript        the TLSF of its runtime, compiled when the bench starts
 *   emscripten dlmalloc   what emscripten links into C programs, taken out of libsodium's build
 *   V8 Uint8Array         one typed array per block, and the collector
 *   V8 array              one JavaScript array of words per block, and the collector
 *
 * None of them is a dependency: they are loaded by name when they are there, and said to be missing when they are not.
 */

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Subject } from "./replay.ts";

export interface JsPeer {
  readonly name: string;
  /** npm package, or null: always there. */
  readonly needs: string | null;
  /** Hands out objects instead of addresses. */
  readonly holdsObjects?: boolean;
  /** Makes one with room for `arenaBytes`. `compiled`: the file that `compileAssemblyScript` wrote. */
  readonly create: (arenaBytes: number, compiled: string | null) => Promise<Subject>;
}

const require = createRequire(import.meta.url);

/** Folder of npm package `name`, as Node would find it from here; undefined if it is not installed. */
export function packageFolder(name: string): string | undefined {
  const folders = require.resolve.paths(name) ?? [];
  return folders.map((folder) => join(folder, name)).find((folder) => existsSync(join(folder, "package.json")));
}

/** What `import` gets from a file of a package that is there. Typed by the caller: the package may be missing. */
async function load<T>(name: string, file: string): Promise<T> {
  const folder = packageFolder(name);
  if (folder === undefined) throw new Error(`bench: the package ${name} is not installed`);
  return (await import(pathToFileURL(join(folder, file)).href)) as T;
}

interface ThingMalloc {
  readonly MemPool: new (options: object) => { malloc(bytes: number): number; free(addr: number): boolean };
}

async function createThing(arenaBytes: number): Promise<Subject> {
  const { MemPool } = await load<ThingMalloc>("@thi.ng/malloc", "index.js");
  const pool = new MemPool({ size: arenaBytes, compact: true, split: true });
  return { alloc: (size) => pool.malloc(size), free: (addr) => void pool.free(addr as number) };
}

interface CodemixMalloc {
  readonly default: { readonly default?: CodemixAllocator } & CodemixAllocator;
}
type CodemixAllocator = new (buffer: ArrayBuffer) => { alloc(bytes: number): number; free(addr: number): number };

async function createCodemix(arenaBytes: number): Promise<Subject> {
  const { default: exported } = await load<CodemixMalloc>("malloc", "lib/index.js");
  const allocator = new (exported.default ?? exported)(new ArrayBuffer(arenaBytes));
  return { alloc: (size) => allocator.alloc(size), free: (addr) => void allocator.free(addr as number) };
}

const ASSEMBLY_SCRIPT = `
export function alloc(bytes: usize): usize { return heap.alloc(bytes); }
export function release(block: usize): void { heap.free(block); }
`;

interface AssemblyCompiler {
  readonly main: (
    argv: readonly string[],
    host: {
      readFile(name: string): string | null;
      writeFile(name: string, contents: string | Uint8Array): void;
      listFiles(): readonly string[];
    },
  ) => Promise<{ readonly error: Error | null }>;
}

/** Compiles AssemblyScript's allocator to WebAssembly in `path`. Takes a second or two. */
export async function compileAssemblyScript(path: string): Promise<void> {
  const { main } = await load<AssemblyCompiler>("assemblyscript", "dist/asc.js");
  const argv = ["peer.ts", "--runtime", "minimal", "-O3", "--noAssert", "--outFile", "peer.wasm"];
  const { error } = await main(argv, {
    readFile: (name) => (name === "peer.ts" ? ASSEMBLY_SCRIPT : null),
    writeFile: (name, contents) => {
      if (name === "peer.wasm") writeFileSync(path, contents);
    },
    listFiles: () => [],
  });
  if (error !== null) throw error;
}

/** Node has it; its types do not. */
declare const WebAssembly: {
  instantiate(bytes: Uint8Array, imports: object): Promise<{ readonly instance: { readonly exports: object } }>;
};

async function createAssemblyScript(_arenaBytes: number, compiled: string | null): Promise<Subject> {
  if (compiled === null) throw new Error("bench: AssemblyScript's allocator was not compiled");
  const abort = (): never => {
    throw new Error("out of memory");
  };
  const { instance } = await WebAssembly.instantiate(readFileSync(compiled), { env: { abort } });
  const { alloc, release } = instance.exports as {
    alloc(size: number): number;
    release(block: number): void;
  };
  return { alloc, free: (addr) => release(addr as number) };
}

interface EmscriptenModule {
  readonly ready: Promise<unknown>;
  _malloc(bytes: number): number;
  _free(addr: number): void;
}

async function createEmscripten(): Promise<Subject> {
  const name = "libsodium";
  const folder = packageFolder(name);
  if (folder === undefined) throw new Error(`bench: the package ${name} is not installed`);
  const module = require(folder) as EmscriptenModule;
  await module.ready;
  const { _malloc, _free } = module;
  return { alloc: (size) => _malloc(size) >>> 0, free: (addr) => _free(addr as number) };
}

const createTypedArrays = async (): Promise<Subject> => ({ alloc: (size) => new Uint8Array(size), free: () => {} });
/** An array of words has as many bytes as the block; its header comes on top, as an allocator's would. */
const createArrays = async (): Promise<Subject> => ({ alloc: (size) => new Array(size >>> 3).fill(0), free: () => {} });

export const JS_PEERS: readonly JsPeer[] = [
  { name: "@thi.ng/malloc", needs: "@thi.ng/malloc", create: createThing },
  { name: "codemix malloc", needs: "malloc", create: createCodemix },
  { name: "AssemblyScript TLSF", needs: "assemblyscript", create: createAssemblyScript },
  { name: "emscripten dlmalloc", needs: "libsodium", create: createEmscripten },
  { name: "V8 Uint8Array", needs: null, holdsObjects: true, create: createTypedArrays },
  { name: "V8 array", needs: null, holdsObjects: true, create: createArrays },
];
