// The scale above the timelines.

import { dayLabel, clock, fromParts, minuteLabel, monthLabel, parts } from "./format.js";

export interface Tick {
  t: number;
  label: string;
  /** Begins a day, or a month where days are the small ticks. */
  major: boolean;
}

const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;
const day = 24 * hour;

const steps = [1, 2, 5, 10, 15, 30].map((n) => n * second)
  .concat([1, 2, 5, 10, 15, 30].map((n) => n * minute))
  .concat([1, 2, 3, 6, 12].map((n) => n * hour))
  .concat([1, 2, 7].map((n) => n * day));

/** Ticks of a span, no closer than some pixels. */
export function ticks(from: number, to: number, width: number, closest = 76): Tick[] {
  const least = ((to - from) / width) * closest;
  const step = steps.find((s) => s >= least);
  if (step === undefined) return monthTicks(from, to, least);
  return step >= day ? dayTicks(from, to, step / day) : clockTicks(from, to, step);
}

function clockTicks(from: number, to: number, step: number): Tick[] {
  const out: Tick[] = [];
  const p = parts(from);
  const put = (t: number, midnight: number): void => {
    if (t >= from && t <= to && t > (out.at(-1)?.t ?? 0)) out.push({ t, label: step < minute ? clock(t) : minuteLabel(t), major: t === midnight });
  };
  for (let d = 0; ; d++) {
    const midnight = fromParts(p.y, p.mo, p.d + d);
    if (midnight > to) return out;
    const next = fromParts(p.y, p.mo, p.d + d + 1);
    if (step >= hour) {
      // By the clock on the wall: on a day of 23 or 25 hours, too, 06:00 is 06:00.
      for (let h = 0; h < 24; h += step / hour) put(fromParts(p.y, p.mo, p.d + d, h), midnight);
      continue;
    }
    const skip = Math.max(0, Math.floor((from - midnight) / step)) * step;
    for (let t = midnight + skip; t < Math.min(next, to + 1); t += step) put(t, midnight);
  }
}

function dayTicks(from: number, to: number, every: number): Tick[] {
  const out: Tick[] = [];
  const p = parts(from);
  for (let d = 0; ; d++) {
    const t = fromParts(p.y, p.mo, p.d + d);
    if (t > to) return out;
    const q = parts(t);
    const first = q.d === 1;
    const shown = every === 7 ? q.wd === 1 : (q.d - 1) % every === 0 && !(every > 1 && q.d === 31);
    if (t >= from && shown) out.push({ t, label: dayLabel(t), major: first });
  }
}

function monthTicks(from: number, to: number, least: number): Tick[] {
  const out: Tick[] = [];
  const every = least < 31 * day ? 1 : least < 93 * day ? 3 : 12;
  const p = parts(from);
  for (let m = 0; ; m++) {
    const t = fromParts(p.y, p.mo + m, 1);
    if (t > to) return out;
    const q = parts(t);
    if (t >= from && q.mo % every === 0) out.push({ t, label: monthLabel(t), major: q.mo === 0 });
  }
}

/** What stands at the left end: the day or the month that the small ticks do not tell. */
export function headline(from: number, to: number): string {
  return to - from < 3 * day ? dayLabel(from) + " " + parts(from).y : monthLabel(from);
}
