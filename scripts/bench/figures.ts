/**
 * Figures: what is measured of which subjects, and the loop that measures them.
 *
 * Samples go round: the first sample of every subject, then the second of every subject, …  A computer that is slower
 * for a while is slower for all, and ratios stay. What is shown is the median of a subject's samples.
 */

import type { BenchRun } from "./bench_run.ts";
import type { Sample } from "./child_tasks.ts";
import { median } from "./statistics.ts";

export type SubjectRole = "slabtown" | "loop" | "peer";

export interface FigureSubject {
  readonly name: string;
  readonly role: SubjectRole;
  /** One sample; null if the bench was stopped. */
  measure(): Promise<Sample | null>;
}

/** A peer that is not here. */
export interface SkippedPeer {
  readonly name: string;
  readonly needs: string;
  /** The command that brings it. */
  readonly install: string;
}

export interface Figure {
  readonly id: string;
  readonly title: string;
  readonly unit: string;
  /** What the project wants to stay within, or reach. */
  readonly bar: number;
  readonly better: "lower" | "higher";
  /** What the number is and is not. */
  readonly note?: string;
  readonly isCounted?: boolean;
  /** Readies what all samples share; the subjects. */
  prepare(): Promise<readonly FigureSubject[]>;
}

export interface SubjectResult {
  readonly name: string;
  readonly role: SubjectRole;
  /** Medians. */
  readonly value: number;
  readonly cpu: number | null;
  /** Median of the samples' worst chunks. */
  readonly worst: number | null;
  readonly failures: number;
  readonly fault: string | null;
  /** How often Slabtown's value contains this one: below 1, Slabtown is ahead. By CPU time where both have it. */
  readonly ratio: number | null;
  /** Operations of a sample. */
  readonly nrOps: number;
  readonly samples: readonly number[];
}

export interface FigureResult {
  readonly id: string;
  readonly title: string;
  readonly unit: string;
  readonly bar: number;
  readonly better: "lower" | "higher";
  readonly note: string | null;
  readonly isReached: boolean | null;
  /** The fastest peer, or null without one. */
  readonly bestPeer: string | null;
  readonly subjects: readonly SubjectResult[];
}

export const figureName = ({ id, title }: { readonly id: string; readonly title: string }): string => `${id} ${title}`;

type Unrated = Omit<SubjectResult, "ratio">;

function summarize({ name, role }: FigureSubject, samples: readonly Sample[]): Unrated {
  const numbers = (of: (sample: Sample) => number | null): number | null => {
    const values = samples.map(of).filter((value) => value !== null);
    return values.length === 0 ? null : median(values);
  };
  return {
    name,
    role,
    value: median(samples.map(({ value }) => value)),
    cpu: numbers(({ cpu }) => cpu),
    worst: numbers(({ worst }) => worst),
    failures: Math.max(...samples.map(({ failures }) => failures)),
    fault: samples.find(({ fault }) => fault !== null)?.fault ?? null,
    nrOps: median(samples.map(({ nrOps }) => nrOps)),
    samples: samples.map(({ value }) => value),
  };
}

/** How many times `of` a subject takes as long as `than`; rates the other way round. */
export function ratioOf(of: Unrated, than: Unrated, better: Figure["better"]): number {
  const [a, b] = of.cpu !== null && than.cpu !== null ? [of.cpu, than.cpu] : [of.value, than.value];
  return better === "lower" ? a / b : b / a;
}

/** What the samples of a figure's subjects say together. */
export function figureResult(figure: Omit<Figure, "prepare">, subjects: readonly Unrated[]): FigureResult {
  const { id, title, unit, bar, better, note = null } = figure;
  const own = subjects.find(({ role }) => role === "slabtown");
  const rated = subjects.map((subject) => ({
    ...subject,
    ratio: own === undefined || subject.role !== "peer" ? null : ratioOf(own, subject, better),
  }));
  const peers = rated.filter(({ role }) => role === "peer").sort((a, b) => (b.ratio ?? 0) - (a.ratio ?? 0));
  const isReached = own === undefined ? null : better === "lower" ? own.value <= bar : own.value >= bar;
  return { id, title, unit, bar, better, note, isReached, bestPeer: peers[0]?.name ?? null, subjects: rated };
}

/** Measures `figure`; null if the bench was stopped before there was a sample. */
export async function measureFigure(figure: Figure, run: BenchRun): Promise<FigureResult | null> {
  run.progress(figureName(figure));
  const subjects = await figure.prepare();
  const samples = subjects.map((): Sample[] => []);
  // What is counted and not timed is the same each time.
  const nrSamples = figure.isCounted === true ? 1 : run.nrSamples;
  for (let round = 0; round < nrSamples && !run.isStopped(); round++) {
    for (const [i, subject] of subjects.entries()) {
      if (run.isStopped()) break;
      run.detail(`${figureName(figure)}: ${subject.name}, sample ${round + 1} of ${nrSamples}`);
      const sample = await subject.measure();
      if (sample !== null) samples[i]?.push(sample);
    }
  }
  const measured = subjects.flatMap((subject, i) => {
    const own = samples[i] as Sample[];
    return own.length === 0 ? [] : [summarize(subject, own)];
  });
  return measured.length === 0 ? null : figureResult(figure, measured);
}
