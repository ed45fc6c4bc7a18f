// One stream's timelines on a canvas: a bar for each node, the marked span and
// what is being played.

import type { State } from "./api.js";
import type { Picture } from "./coverage.js";
import { msg } from "./messages.en.js";
import { theme, type Theme } from "./theme.js";
import type { Viewport } from "./viewport.js";

export interface LaneBox {
  top: number;
  height: number;
}

export interface Scene {
  width: number;
  height: number;
  view: Viewport;
  lanes: { box: LaneBox; picture: Picture; tail: boolean }[];
  grid: number[];
  marked: { from: number; to: number } | null;
  playing: number | null;
  cursor: number | null;
  now: number;
}

// Whole first, trouble last: it is drawn over what is around it.
const order: State[] = ["live", "replicated", "healed", "damaged", "missing"];
// The least width, so that four seconds in a month are seen.
const least: Record<State, number> = { live: 0, replicated: 0, healed: 1, damaged: 2, missing: 3 };

export function draw(canvas: HTMLCanvasElement, s: Scene): void {
  const scale = window.devicePixelRatio || 1;
  const w = Math.round(s.width * scale);
  const h = Math.round(s.height * scale);
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  const g = canvas.getContext("2d");
  if (!g) return;
  g.setTransform(scale, 0, 0, scale, 0, 0);
  g.clearRect(0, 0, s.width, s.height);
  const t = theme();
  for (const lane of s.lanes) drawLane(g, t, s, lane.box, lane.picture, lane.tail);
  drawGrid(g, t, s);
  if (s.marked) drawMark(g, t, s, s.marked);
  if (s.cursor !== null) line(g, s, s.cursor, t.cursor, 1);
  if (s.playing !== null) drawPlayhead(g, t, s, s.playing);
}

function drawLane(g: CanvasRenderingContext2D, t: Theme, s: Scene, box: LaneBox, p: Picture, tail: boolean): void {
  const x = (at: number): number => Math.max(-4, Math.min(s.width + 4, s.view.x(at, s.width)));
  const bar = (from: number, to: number, fill: string | CanvasPattern, wide = 0, inset = 0): void => {
    let a = x(from);
    let b = x(to);
    if (b <= -4 || a >= s.width + 4) return;
    if (b - a < wide) {
      a = Math.round((a + b - wide) / 2);
      b = a + wide;
    }
    g.fillStyle = fill;
    g.fillRect(a, box.top + inset, Math.max(b - a, 0.5), box.height - 2 * inset);
  };

  // What is not archive: before it begins, behind now.
  bar(s.view.from, s.view.to, t.outside, 0, 2);
  if (!p.complete && !p.error) bar(p.oldest ?? s.view.from, Math.min(s.view.to, s.now), t.pending, 0, 2);

  for (const state of order) {
    const inset = state === "missing" ? 0 : 2;
    for (const piece of p.pieces) {
      for (const span of piece.spans) {
        if (span.state !== state || span.to <= piece.from || span.from >= piece.to) continue;
        bar(Math.max(span.from, piece.from), Math.min(span.to, piece.to), t.state[state], least[state], inset);
      }
    }
  }
  if (p.error && p.pieces.length === 0) {
    g.fillStyle = t.muted;
    g.font = `12px ${t.font}`;
    g.textBaseline = "middle";
    g.fillText(msg.peerSilent(p.error), 6, box.top + box.height / 2 + 1, s.width - 12);
  }
  // Nothing comes any more: what is missing by now counts as missing.
  if (tail && p.newest !== null) bar(p.newest, s.now, t.state.missing, least.missing);
  for (const piece of p.pieces) {
    for (const k of piece.kept) {
      const a = x(k.from);
      const b = Math.max(x(k.to), a + 3);
      g.fillStyle = t.kept;
      g.fillRect(a, box.top, b - a, 3);
      g.fillRect(a, box.top + box.height - 3, b - a, 3);
    }
  }
}

function drawGrid(g: CanvasRenderingContext2D, t: Theme, s: Scene): void {
  g.fillStyle = t.grid;
  for (const at of s.grid) g.fillRect(Math.round(s.view.x(at, s.width)), 0, 1, s.height);
}

function drawMark(g: CanvasRenderingContext2D, t: Theme, s: Scene, m: { from: number; to: number }): void {
  const a = s.view.x(m.from, s.width);
  const b = s.view.x(m.to, s.width);
  g.fillStyle = t.mark;
  g.fillRect(a, 0, Math.max(1, b - a), s.height);
  g.fillStyle = t.markEdge;
  g.fillRect(a - 1, 0, 2, s.height);
  g.fillRect(b - 1, 0, 2, s.height);
  for (const at of [a, b]) {
    g.beginPath();
    g.arc(at, s.height / 2, 5, 0, 2 * Math.PI);
    g.fill();
  }
}

function line(g: CanvasRenderingContext2D, s: Scene, at: number, fill: string, wide: number): void {
  g.fillStyle = fill;
  g.fillRect(Math.round(s.view.x(at, s.width) - wide / 2), 0, wide, s.height);
}

function drawPlayhead(g: CanvasRenderingContext2D, t: Theme, s: Scene, at: number): void {
  const x = Math.round(s.view.x(at, s.width));
  g.fillStyle = t.ground;
  g.fillRect(x - 2, 0, 5, s.height);
  g.fillStyle = t.playhead;
  g.fillRect(x - 1, 0, 3, s.height);
  g.beginPath();
  g.moveTo(x - 6, 0);
  g.lineTo(x + 7, 0);
  g.lineTo(x + 0.5, 8);
  g.closePath();
  g.fill();
}
