/**
 * Who may import whom: the rooms of the kernel as rules, [rooms-look-down] and [front-door].
 *
 *   scripts/                 may import every room; labs/ and test/ are imported by scripts/ and test/ only
 *   explore/                 interleavings over kernel and mm: labs, scripts and tests use it by its front door
 *   kernel/entry/            boot: the composition root       userland/  sees the floor only; scripts/ hands
 *   drivers/                                                             its programs in, boot never imports them
 *   mm/
 *   kernel/*.ts              core
 *   kernel/arch/
 *   kernel/lib/              also kernel/arch/port.ts, but as a type
 *   kernel/uapi/ kernel/types.ts kernel/params.ts              the floor
 *
 * Type-only imports count (tsPreCompilationDeps). test/layers.test.ts plants one violation of each rule.
 */

const FLOOR = ["^kernel/uapi/", "^kernel/(types|params)\\.ts$"];
const LIB = [...FLOOR, "^kernel/lib/"];
const ARCH = [...LIB, "^kernel/arch/"];
const CORE = [...ARCH, "^kernel/[^/]+\\.ts$"];
const MM = [...CORE, "^mm/"];
const DRIVERS = [...MM, "^drivers/"];
const ENTRY = [...DRIVERS, "^kernel/entry/"];

const PORT = "^kernel/arch/port\\.ts$";
const PORTABLE = "^(kernel|mm|drivers|userland|explore)/";
const ON_TOP = "^(labs|test)/";

/** A room imports, of all local files, only what `allowed` names. labs/ and test/ have a rule of their own. */
function looksDown(name, from, allowed, comment) {
  return {
    name,
    severity: "error",
    comment,
    from,
    to: { dependencyTypes: ["local"], pathNot: [...allowed, ON_TOP] },
  };
}

/** Of `room`, other rooms import index.ts and nothing else (labs: grading.ts, where there is one); tests may look inside. */
function frontDoor(room) {
  return {
    name: `${room}-front-door`,
    severity: "error",
    comment: `Import ${room}/index.ts, never a file inside ${room}/; let the front door re-export what you need.`,
    from: { pathNot: [`^${room}/`, "^test/"] },
    to: { path: `^${room}/`, pathNot: `^${room}/(index|grading)\\.ts$` },
  };
}

/** @type {import("dependency-cruiser").IConfiguration} */
module.exports = {
  forbidden: [
    looksDown("floor-looks-down", { path: FLOOR }, FLOOR, "kernel/uapi, types and params stand on nothing."),
    looksDown("lib-looks-down", { path: "^kernel/lib/" }, [...LIB, PORT], "lib holds pure helpers over the floor."),
    {
      name: "lib-sees-port-as-type",
      severity: "error",
      comment: "kernel/lib takes a MemoryPort as a parameter: `import type` of kernel/arch/port.ts, nothing that runs.",
      from: { path: "^kernel/lib/" },
      to: { path: PORT, dependencyTypesNot: ["type-only"] },
    },
    looksDown("arch-looks-down", { path: "^kernel/arch/" }, ARCH, "The machine knows no kernel: let core register."),
    looksDown(
      "core-looks-down",
      { path: "^kernel/[^/]+\\.ts$", pathNot: FLOOR },
      CORE,
      "Core declares the hook and a registration call; the upper room registers.",
    ),
    looksDown("mm-looks-down", { path: "^mm/" }, MM, "mm stands on core; drivers and entry register with it."),
    looksDown("drivers-look-down", { path: "^drivers/" }, DRIVERS, "Drivers stand on mm and core, entry above them."),
    looksDown(
      "entry-looks-down",
      { path: "^kernel/entry/" },
      ENTRY,
      "boot is handed its programs by scripts/; it imports neither userland/ nor scripts/.",
    ),
    looksDown(
      "userland-sees-floor",
      { path: "^userland/" },
      [...FLOOR, "^userland/"],
      "A program knows the system calls and nothing else of the kernel.",
    ),
    looksDown(
      "explore-looks-down",
      { path: "^explore/" },
      [...MM, "^explore/"],
      "Exploration composes its machines from kernel/ and mm/; it needs neither drivers nor boot.",
    ),
    {
      name: "labs-and-tests-on-top",
      severity: "error",
      comment: "labs/ and test/ are imported by scripts/ and test/ only.",
      from: { path: PORTABLE },
      to: { path: ON_TOP },
    },
    {
      name: "labs-look-down",
      severity: "error",
      comment: "A lab knows the kit and the kernel; scripts/ runs labs and finds them by name.",
      from: { path: "^labs/" },
      to: { path: "^(scripts|test)/" },
    },
    {
      name: "labs-stand-alone",
      severity: "error",
      comment: "A lab is a folder: it imports itself and the kit, never another lab. The kit knows no lab.",
      from: { path: "^labs/([^/]+)/" },
      to: { path: "^labs/", pathNot: ["^labs/$1/", "^labs/kit/"] },
    },
    frontDoor("mm"),
    frontDoor("drivers"),
    frontDoor("userland"),
    frontDoor("explore"),
    {
      name: "portable-no-npm",
      severity: "error",
      comment: "Portable rooms run in a browser page: no npm package but seedrandom.",
      from: { path: PORTABLE },
      to: {
        dependencyTypes: ["npm", "npm-dev", "npm-optional", "npm-peer", "npm-bundled", "npm-no-pkg", "npm-unknown"],
        pathNot: "(^|/)node_modules/(@types/)?seedrandom/",
      },
    },
    {
      name: "portable-no-node",
      severity: "error",
      comment: "Portable rooms run in a browser page: no node: module. scripts/ hands in what touches the host.",
      from: { path: PORTABLE },
      to: { dependencyTypes: ["core"] },
    },
    {
      name: "no-cycles",
      severity: "error",
      comment: "Two files that need each other are one noun, or the lower one lacks a hook. Type-only imports count.",
      from: {},
      to: { circular: true },
    },
    {
      name: "no-orphans",
      severity: "error",
      comment: "This file imports nothing and nobody imports it.",
      from: {
        orphan: true,
        pathNot: ["^(mm|drivers|userland|explore)/index\\.ts$", "^scripts/slabtown\\.ts$", "^labs/"],
      },
      to: {},
    },
    {
      name: "no-unresolved",
      severity: "error",
      comment: "The import leads nowhere, so no other rule can judge it.",
      from: {},
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: "(^|/)node_modules/" },
    exclude: { path: ["^scripts/samples/"] },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["import", "node", "default", "types"],
      extensions: [".ts", ".js", ".mjs", ".cjs", ".json", ".d.ts"],
    },
  },
};
