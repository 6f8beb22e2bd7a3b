/**
 * `slabtown run FILE --seeds N`: is a run a function of its seed, and of nothing else?
 *
 * Each of N seeds is run twice in this process, and the two machines are compared at their end: every page of RAM, the
 * registers, the random streams, virtual time, and what was printed. That the seeds give different machines is counted
 * as well: a seed that changes nothing would prove nothing.
 *
 *   SED-1  two runs of one seed end with the same machine and have printed the same
 */

import { createRam, type RamBuffer } from "../kernel/arch/port.ts";
import { type CommonOptions, paintFor } from "./command_options.ts";
import { type HostOutput, stoppable } from "./host_output.ts";
import { EXIT_FAILED, EXIT_INTERRUPT, EXIT_OK } from "./metrics.ts";
import { type MachineOptions, shellQuote } from "./options.ts";
import { createProgress, NO_PROGRESS } from "./progress.ts";
import { runWorkloads, type StopRequest, withHostMemory } from "./run_workloads.ts";
import { differences, type Mark, ramHex, takeMark } from "./snapshots/mark.ts";
import type { WorkloadSet } from "./workloads.ts";

export interface SeedsRequest {
  readonly set: WorkloadSet;
  readonly machine: MachineOptions;
  readonly nrSeeds: number;
  readonly cycles: number | undefined;
  readonly stop: StopRequest;
  readonly onProgress: (nrDone: number, nrTotal: number, cycles: number) => void;
}

export interface SeedsResult {
  /** Seeds that were run twice. */
  readonly nrSeeds: number;
  /** Different contents of RAM at the end, among them. */
  readonly nrMachines: number;
  readonly nrCycles: number;
  readonly findings: readonly { readonly seed: string; readonly differences: readonly string[] }[];
}

interface End {
  readonly mark: Mark;
  readonly printed: string;
}

async function runOnce({ set, cycles, stop }: SeedsRequest, machine: MachineOptions, ram: RamBuffer): Promise<End> {
  new Uint8Array(ram).fill(0);
  let printed = "";
  const console = (text: string): void => {
    printed += text;
  };
  const { kernel } = await runWorkloads({ machine, set, cyclesLimit: cycles, stop, console, bootLog: console, ram });
  return { mark: takeMark(kernel, { number: 0, name: "" }), printed };
}

/** Runs `nrSeeds` seeds twice: those of the machine with `.1`, `.2`, … behind. */
export async function compareSeeds(request: SeedsRequest): Promise<SeedsResult> {
  const { machine, nrSeeds, stop } = request;
  const machines = new Set<string>();
  const findings: SeedsResult["findings"][number][] = [];
  // One RAM for all runs: memory of this computer for each machine anew would cost more than the run.
  const ram = withHostMemory(() => createRam(machine.ramBytes));
  let [nrDone, nrCycles] = [0, 0];
  while (nrDone < nrSeeds) {
    const seed = `${machine.seed}.${nrDone + 1}`;
    const once = await runOnce(request, { ...machine, seed }, ram);
    const again = await runOnce(request, { ...machine, seed }, ram);
    if (stop.reason !== "none") break;
    const found = [
      ...differences(once.mark, again.mark),
      ...(once.printed === again.printed ? [] : ["what was printed"]),
    ];
    if (found.length > 0) findings.push({ seed, differences: found });
    machines.add(ramHex(once.mark));
    nrCycles += once.mark.cycle + again.mark.cycle;
    request.onProgress(++nrDone, nrSeeds, nrCycles);
  }
  return { nrSeeds: nrDone, nrMachines: machines.size, nrCycles, findings };
}

export interface SeedsCommand {
  readonly set: WorkloadSet;
  readonly machine: MachineOptions;
  readonly nrSeeds: number;
  /** The command line of the run. */
  readonly replay: string;
  readonly options: CommonOptions;
  readonly host: HostOutput;
}

/** Compares and reports; the exit code. */
export async function seedsCommand({ set, machine, nrSeeds, replay, options, host }: SeedsCommand): Promise<number> {
  const isSilent = options.quiet === true;
  const progress = isSilent ? NO_PROGRESS : createProgress(process.stderr, undefined, "seeds");
  const { stop } = host;
  const request = { set, machine, nrSeeds, cycles: options.cycles, stop, onProgress: progress.update };
  const result = await stoppable(stop, () => compareSeeds(request));
  progress.end();
  const isSame = result.findings.length === 0;
  if (options.json === true)
    host.out(`${JSON.stringify({ schema: "slabtown/seeds/v1", machine, ...result }, null, 2)}\n`);
  else {
    const paint = paintFor(options);
    const verdict = isSame
      ? paint.good("each twice the same")
      : paint.bad(`${result.findings.length} not twice the same`);
    host.out(
      `${result.nrSeeds} seeds, ${2 * result.nrSeeds} runs: ${verdict}; ${result.nrMachines} different machines\n`,
    );
  }
  for (const { seed, differences: lines } of result.findings.slice(0, 10)) {
    host.err(`slabtown: seed ${seed}: ${lines.join("; ")}\n  to see it: ${replay} --seed ${shellQuote(seed)}\n`);
  }
  if (stop.reason === "interrupt") return EXIT_INTERRUPT;
  return isSame || stop.reason === "closed" ? EXIT_OK : EXIT_FAILED;
}
