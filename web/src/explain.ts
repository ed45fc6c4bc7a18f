// What there is at a moment, in words: for the tip at the pointer, and for
// screen readers.

import * as api from "./api.js";
import { spanAt, type CoverageStore, type Picture } from "./coverage.js";
import { duration, moment, peerName } from "./format.js";
import { msg } from "./messages.en.js";
import { isSilent, nodesOf } from "./model.js";

export interface Said {
  node: string;
  label: string;
  /** A state, or another class of the style sheet: kept is told apart. */
  state: api.State | "pending" | "outside" | "error";
  what: string;
  when: string;
  parts: string;
  why: string;
  fill: string;
  kept: string;
}

/**
 * What every node has of a stream at a moment; slack is how far off trouble is still meant, ms. What reaches
 * beyond the view is told as far as it is in view, or loaded.
 */
export function explain(s: api.StreamStatus, store: CoverageStore, causes: Causes, t: number, view: { from: number; to: number }, level: number, slack: number, now: number): Said[] {
  return nodesOf(s).map((node) => {
    const lane = { stream: s.name, node };
    const p = store.picture(lane, t - slack, t + slack, level);
    const span = spanAt(store.picture(lane, Math.min(view.from, t - slack), Math.max(view.to, t + slack), level), t, slack);
    const said = sayLane(p, span, t, now, isSilent(s, node, p.newest, now));
    said.node = node;
    said.label = node === "" ? msg.thisNode : peerName(node, s.name);
    for (const piece of p.pieces) {
      for (const k of piece.kept) if (k.from - slack <= t && t < k.to + slack) said.kept = k.name;
    }
    if (node === "" && said.state === "missing") {
      const gap = causes.at(s.name, t, slack);
      if (gap) {
        said.why = msg.because(gap.cause);
        said.fill = msg.fill[gap.fill](gap.peer ? peerName(gap.peer, s.name) : "");
      }
    }
    return said;
  });
}

function sayLane(p: Picture, span: api.Span | null, t: number, now: number, silent: boolean): Said {
  const said: Said = { node: "", label: "", state: "pending", what: msg.notLoaded, when: "", parts: "", why: "", fill: "", kept: "" };
  if (span) {
    said.state = span.state;
    said.what = msg.state[span.state];
    said.when = `${moment(span.from, now)} – ${moment(span.to, now)} (${duration((span.to - span.from) / 1000)})`;
    said.parts = Object.entries(span.seconds ?? {})
      .filter(([, n]) => n > 0)
      .map(([state, n]) => msg.partOf(msg.state[state as api.State], duration(n)))
      .join(", ");
    return said;
  }
  if (p.error) {
    said.state = "error";
    said.what = msg.peerSilent(p.error);
  } else if (p.newest !== null && t >= p.newest) {
    said.state = silent && t < now ? "missing" : "outside";
    said.what = said.state === "missing" ? msg.state.missing : msg.nothingYet;
  } else if (p.oldest !== null && t < p.oldest) {
    said.state = "outside";
    said.what = msg.pruned;
  } else if (p.complete) {
    said.state = "outside";
    said.what = msg.emptyArchive;
  }
  return said;
}

/** One sentence for a screen reader. */
export function sentence(t: number, all: Said[], now: number): string {
  const lanes = all.map((s) => {
    const more = [s.when, s.parts, s.why, s.fill, s.kept && `${msg.kept} (${s.kept})`].filter(Boolean).join(", ");
    return `${s.label}: ${s.what}${more ? ", " + more : ""}`;
  });
  return `${moment(t, now)}. ${lanes.join(". ")}`;
}

interface Asked {
  from: number;
  to: number;
  gaps: api.Gap[];
  at: number;
}

/** Why gaps are there: asked for as somebody wants to know. */
export class Causes {
  private readonly known = new Map<string, Asked[]>();
  private readonly running = new Set<string>();
  onLoad: () => void = () => {};

  /** The gap at a moment, if it is known; slack in ms. */
  at(stream: string, t: number, slack: number): api.Gap | null {
    for (const a of this.known.get(stream) ?? []) {
      const gap = a.gaps.find((g) => g.from <= t && t < g.to) ?? a.gaps.find((g) => g.from - slack <= t && t < g.to + slack);
      if (gap) return gap;
    }
    return null;
  }

  /** Asks for the gaps around a moment, unless that was done just now. */
  want(stream: string, t: number, slack: number): void {
    const around = Math.max(60_000, slack);
    const list = this.known.get(stream) ?? [];
    if (list.some((a) => a.from <= t && t <= a.to && Date.now() - a.at < 30_000) || this.running.has(stream)) return;
    this.running.add(stream);
    api
      .gaps(stream, t - around, t + around, 100)
      .then(({ gaps }) => {
        const rest = list.filter((a) => a.to < t - around || a.from > t + around).slice(-50);
        this.known.set(stream, [...rest, { from: t - around, to: t + around, gaps, at: Date.now() }]);
        this.onLoad();
      })
      .catch(() => {
        // The tip does without; what is there is said all the same.
      })
      .finally(() => this.running.delete(stream));
  }

  forget(stream: string): void {
    this.known.delete(stream);
  }
}
