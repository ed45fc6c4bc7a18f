// Colours and patterns of the timelines, as the style sheet gives them: it knows
// light and dark, and what the reader asked for.

import type { State } from "./api.js";

export interface Theme {
  state: Record<State, string | CanvasPattern>;
  plain: Record<State, string>;
  kept: string;
  ground: string;
  outside: CanvasPattern | string;
  pending: string;
  grid: string;
  playhead: string;
  cursor: string;
  mark: string;
  markEdge: string;
  text: string;
  muted: string;
  font: string;
}

let cached: Theme | null = null;
const listeners: (() => void)[] = [];

export const states: State[] = ["live", "replicated", "healed", "damaged", "missing"];

/** A pattern of slanted stripes, `on` pixels of one colour in each `every`. */
function stripes(base: string, ink: string, every: number, on: number): CanvasPattern | string {
  const scale = window.devicePixelRatio || 1;
  const n = Math.round(every * scale);
  const c = document.createElement("canvas");
  c.width = c.height = n;
  const g = c.getContext("2d");
  if (!g) return base;
  g.fillStyle = base;
  g.fillRect(0, 0, n, n);
  g.strokeStyle = ink;
  g.lineWidth = on * scale;
  for (const shift of [-n, 0, n]) {
    g.beginPath();
    g.moveTo(shift - 1, n + 1);
    g.lineTo(shift + n + 1, -1);
    g.stroke();
  }
  const p = g.createPattern(c, "repeat");
  p?.setTransform(new DOMMatrix().scale(1 / scale));
  return p ?? base;
}

export function theme(): Theme {
  if (cached) return cached;
  const css = getComputedStyle(document.documentElement);
  const v = (name: string): string => css.getPropertyValue(name).trim();
  const plain = Object.fromEntries(states.map((s) => [s, v(`--${s}`)])) as Record<State, string>;
  cached = {
    plain,
    state: {
      ...plain,
      healed: stripes(plain.healed, v("--healed-ink"), 6, 1),
      damaged: stripes(plain.damaged, v("--damaged-ink"), 7, 2.2),
    },
    kept: v("--kept"),
    ground: v("--lane"),
    outside: stripes(v("--panel"), v("--outside"), 8, 1),
    pending: v("--pending"),
    grid: v("--grid"),
    playhead: v("--playhead"),
    cursor: v("--cursor"),
    mark: v("--mark"),
    markEdge: v("--mark-edge"),
    text: v("--text"),
    muted: v("--muted"),
    font: css.fontFamily || "system-ui, sans-serif",
  };
  return cached;
}

export function onTheme(f: () => void): void {
  listeners.push(f);
}

function changed(): void {
  cached = null;
  for (const f of listeners) f();
}

for (const q of ["(prefers-color-scheme: dark)", "(prefers-contrast: more)", "(forced-colors: active)"]) {
  matchMedia(q).addEventListener("change", changed);
}
