// What the page shows and what the reader has chosen; the parts of the page hear
// of changes here.

import type { NodeStatus, StreamStatus } from "./api.js";
import { msg } from "./messages.en.js";

export interface Marked {
  stream: string;
  from: number;
  to: number;
}

interface Signals {
  status: void;
  marked: void;
  playing: void;
  chosen: void;
  zone: void;
}

type Signal = keyof Signals;

export class Model {
  status: NodeStatus | null = null;
  byName = new Map<string, StreamStatus>();
  marked: Marked | null = null;
  /** Where playing has come to. */
  playing: { stream: string; t: number } | null = null;
  /** The stream whose details are shown. */
  chosen = "";
  /** Dragging marks. */
  marking = false;

  private readonly listeners = new Map<Signal, (() => void)[]>();

  on(s: Signal, f: () => void): void {
    const all = this.listeners.get(s) ?? [];
    all.push(f);
    this.listeners.set(s, all);
  }

  emit(s: Signal): void {
    for (const f of this.listeners.get(s) ?? []) f();
  }

  setStatus(s: NodeStatus): void {
    this.status = s;
    this.byName = new Map(s.streams.map((x) => [x.name, x]));
    this.emit("status");
  }

  mark(m: Marked | null): void {
    this.marked = m && m.to < m.from ? { ...m, from: m.to, to: m.from } : m;
    this.emit("marked");
  }

  choose(stream: string): void {
    this.chosen = stream;
    this.emit("chosen");
  }
}

export type Rank = "bad" | "warn" | "note" | "good";

/** Behind by more than this, seconds, nothing is coming. */
export const silentAfter = 30;

/** How urgent a stream is. */
export function rank(s: StreamStatus): Rank {
  if (s.archive.error || (s.mode === "offline" && !s.retired)) return "bad";
  if (s.mode === "emergency" || !s.healthy || s.unreplicated) return "warn";
  if (s.mode === "recovery" || s.archive.gap_seconds > 0 || s.archive.damaged > 0) return "note";
  return "good";
}

const rankOrder: Record<Rank, number> = { bad: 0, warn: 1, note: 2, good: 3 };

export const byTrouble = (a: StreamStatus, b: StreamStatus): number =>
  rankOrder[rank(a)] - rankOrder[rank(b)] || compareNames(a.name, b.name);

const collator = new Intl.Collator("en", { numeric: true });
export const compareNames = (a: string, b: string): number => collator.compare(a, b);

export const modeName = (s: StreamStatus): string => s.mode ? msg.mode[s.mode] : msg.mode.archive;
export const modeHelp = (s: StreamStatus): string => s.mode ? msg.modeHelp[s.mode] : msg.modeHelp.archive;

/** Nothing comes to a node's archive, although it should: this node's where node is empty, or a peer's. */
export function isSilent(s: StreamStatus, node: string, newest: number | null, now: number): boolean {
  const mode = node === "" ? s.mode : s.peers.find((p) => p.url === node)?.mode;
  return !s.retired && mode === "offline" && newest !== null && now - newest > silentAfter * 1000;
}

/** The nodes that have the stream: this one first, as an empty name. */
export const nodesOf = (s: StreamStatus): string[] => ["", ...new Set(s.peers.map((p) => p.url))];
