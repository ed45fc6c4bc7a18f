// What nodes have, loaded piece by piece: time is cut into tiles, each of a fixed
// number of steps, as a map is. Only what visible rows show is asked for.

import type { Coverage, Kept, Span } from "./api.js";

/** Steps of a tile. */
const tileSteps = 2048;
const maxTiles = 4000;
const atOnce = 4;

export interface Lane {
  stream: string;
  /** A peer's URL, or empty for this node. */
  node: string;
}

interface Tile {
  lane: Lane;
  level: number;
  index: number;
  coverage: Coverage | null;
  error: string;
  /** When it was asked for, and when the answer came. */
  asked: number;
  loaded: number;
  stale: boolean;
  busy: boolean;
  used: number;
}

/** What there is of a span: the best that is loaded. */
export interface Piece {
  from: number;
  to: number;
  spans: Span[];
  kept: Kept[];
}

export interface Picture {
  pieces: Piece[];
  oldest: number | null;
  newest: number | null;
  /** When newest was the newest. */
  asOf: number;
  error: string;
  complete: boolean;
}

export type Load = (lane: Lane, from: number, to: number, step: number) => Promise<Coverage>;

/** The level whose step, 2^level seconds, is no longer than a pixel. */
export function levelFor(span: number, width: number): number {
  return Math.max(0, Math.min(16, Math.floor(Math.log2(span / 1000 / Math.max(1, width)))));
}

const stepOf = (level: number): number => 2 ** level;
const tileLength = (level: number): number => tileSteps * stepOf(level) * 1000;

export class CoverageStore {
  private readonly tiles = new Map<string, Tile>();
  private readonly lanes = new Map<string, Set<Tile>>();
  private busy = 0;
  /** Rows in view, in the order in which they matter. */
  wanted: () => { lane: Lane; from: number; to: number; level: number }[] = () => [];
  onLoad: (lane: Lane) => void = () => {};

  constructor(
    private readonly load: Load,
    private readonly clock: () => number = Date.now,
  ) {}

  private static laneKey(l: Lane): string {
    return `${l.stream}\n${l.node}`;
  }

  private tile(lane: Lane, level: number, index: number): Tile {
    const laneKey = CoverageStore.laneKey(lane);
    const key = `${laneKey}\n${level}\n${index}`;
    let t = this.tiles.get(key);
    if (!t) {
      t = { lane, level, index, coverage: null, error: "", asked: 0, loaded: 0, stale: true, busy: false, used: 0 };
      this.tiles.set(key, t);
      let of = this.lanes.get(laneKey);
      if (!of) this.lanes.set(laneKey, (of = new Set()));
      of.add(t);
    }
    return t;
  }

  /** Something has changed in a stream's archive, or in all of it. */
  invalidate(stream: string, from = -Infinity, to = Infinity): void {
    for (const t of this.tiles.values()) {
      if (t.lane.stream !== stream) continue;
      const begin = t.index * tileLength(t.level);
      if (begin < to && begin + tileLength(t.level) > from) t.stale = true;
    }
  }

  /** Whether a tile should be asked for again: the end of the archive grows, the rest may be healed. */
  private due(t: Tile, now: number): boolean {
    if (t.busy) return false;
    if (t.error) return now - t.asked > 10_000;
    if (t.stale) return now - t.asked > 1_000;
    const length = tileLength(t.level);
    const open = (t.index + 1) * length > t.loaded - 60_000;
    return now - t.loaded > (open ? Math.min(60_000, Math.max(4_000, stepOf(t.level) * 1000)) : 300_000);
  }

  /** Asks for what is wanted, a few at once. To be called when something changes, and now and then. */
  pump(): void {
    const now = this.clock();
    for (const w of this.wanted()) {
      if (this.busy >= atOnce) return;
      const length = tileLength(w.level);
      for (let i = Math.floor(w.from / length); i * length < w.to; i++) {
        const t = this.tile(w.lane, w.level, i);
        t.used = now;
        if (i * length > now) break;
        if (this.due(t, now)) void this.fetch(t);
        if (this.busy >= atOnce) return;
      }
    }
  }

  private async fetch(t: Tile): Promise<void> {
    const length = tileLength(t.level);
    const from = t.index * length;
    t.busy = true;
    t.stale = false;
    t.asked = this.clock();
    this.busy++;
    try {
      t.coverage = await this.load(t.lane, from, from + length, t.level === 0 ? 0 : stepOf(t.level));
      t.error = "";
    } catch (err) {
      t.error = err instanceof Error ? err.message : String(err);
    }
    t.loaded = this.clock();
    t.busy = false;
    this.busy--;
    this.forget();
    this.onLoad(t.lane);
    this.pump();
  }

  /** Lets go of what has not been looked at for the longest time. */
  private forget(): void {
    if (this.tiles.size <= maxTiles) return;
    const old = [...this.tiles.entries()].filter(([, t]) => !t.busy).sort((a, b) => a[1].used - b[1].used);
    for (const [key, t] of old.slice(0, maxTiles / 4)) {
      this.tiles.delete(key);
      this.lanes.get(CoverageStore.laneKey(t.lane))?.delete(t);
    }
  }

  /** What is known of a lane in a span, at a level where that is loaded, otherwise at another. */
  picture(lane: Lane, from: number, to: number, level: number): Picture {
    const of = this.lanes.get(CoverageStore.laneKey(lane));
    const out: Picture = { pieces: [], oldest: null, newest: null, asOf: 0, error: "", complete: true };
    if (!of) return { ...out, complete: false };
    for (const t of of) {
      const c = t.coverage;
      if (!c || t.loaded < out.asOf) continue;
      out.oldest = c.oldest;
      out.newest = c.newest;
      out.asOf = t.loaded;
    }
    const length = tileLength(level);
    for (let i = Math.floor(from / length); i * length < to; i++) {
      const begin = i * length;
      if (begin > this.clock()) break;
      const t = this.tiles.get(`${CoverageStore.laneKey(lane)}\n${level}\n${i}`);
      if (t?.error) out.error = t.error;
      if (t?.coverage) {
        out.pieces.push({ from: begin, to: begin + length, spans: t.coverage.spans, kept: t.coverage.kept });
        continue;
      }
      out.complete = false;
      this.substitute(of, Math.max(from, begin), Math.min(to, begin + length), level, out.pieces);
    }
    return out;
  }

  /** Fills a hole from another level: the nearest one that has something of it. */
  private substitute(of: Set<Tile>, from: number, to: number, level: number, pieces: Piece[]): void {
    const near = [...of]
      .filter((t) => t.coverage && t.level !== level && t.index * tileLength(t.level) < to && (t.index + 1) * tileLength(t.level) > from)
      .sort((a, b) => Math.abs(a.level - level) - Math.abs(b.level - level));
    const best = near[0];
    if (!best) return;
    for (const t of near) {
      if (t.level !== best.level || !t.coverage) continue;
      const begin = Math.max(from, t.index * tileLength(t.level));
      const end = Math.min(to, (t.index + 1) * tileLength(t.level));
      pieces.push({ from: begin, to: end, spans: t.coverage.spans, kept: t.coverage.kept });
    }
  }
}

const severity = { live: 0, replicated: 1, healed: 2, damaged: 3, missing: 4 } as const;

export const worse = (a: Span["state"], b: Span["state"]): boolean => severity[a] > severity[b];
export const isTrouble = (s: Span["state"]): boolean => severity[s] >= 3;

/**
 * The span of a picture that a moment lies in; within some slack the worst of those near. Tiles cut spans at
 * their edges: it is put together again.
 */
export function spanAt(p: Picture, t: number, slack: number): Span | null {
  let found: Span | null = null;
  const all = p.pieces.flatMap((piece) => piece.spans);
  for (const s of all) {
    const inside = s.from <= t && t < s.to;
    const near = isTrouble(s.state) && s.from - slack <= t && t < s.to + slack;
    if ((inside || near) && (!found || worse(s.state, found.state))) found = s;
  }
  if (!found) return null;
  const whole: Span = { ...found };
  const same = all.filter((s) => s.state === whole.state).sort((a, b) => a.from - b.from);
  for (const s of same) if (s.from <= whole.to + 1 && s.to > whole.to) whole.to = s.to;
  for (const s of same.reverse()) if (s.to >= whole.from - 1 && s.from < whole.from) whole.from = s.from;
  return whole;
}

/** Trouble in order of time, each once: tiles cut spans at their edges. */
export function troubles(p: Picture): Span[] {
  const out: Span[] = [];
  const all = p.pieces.flatMap((x) => x.spans.filter((s) => isTrouble(s.state))).sort((a, b) => a.from - b.from || a.to - b.to);
  for (const s of all) {
    const last = out[out.length - 1];
    if (last && last.state === s.state && s.from <= last.to + 1) last.to = Math.max(last.to, s.to);
    else out.push({ ...s });
  }
  return out;
}
