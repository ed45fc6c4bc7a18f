// The list of streams. Only the rows in view are in the document, so that two
// hundred streams are as quick as two.

import type { StreamStatus } from "./api.js";
import { ticks, headline } from "./axis.js";
import { levelFor, type CoverageStore } from "./coverage.js";
import { eachFrame, fill, h, text } from "./dom.js";
import { explain, sentence, type Causes } from "./explain.js";
import { moment } from "./format.js";
import { msg } from "./messages.en.js";
import { byTrouble, compareNames, nodesOf, rank, type Model } from "./model.js";
import { rowHeight, Row, type Layout } from "./row.js";
import { onTheme } from "./theme.js";
import type { Tip } from "./tip.js";
import { attachPointer } from "./pointer.js";
import { attachKeys } from "./keys.js";
import type { Viewport } from "./viewport.js";

export type Show = "all" | "trouble" | "offline" | "emergency" | "recovery" | "gaps";

export const shows: Record<Show, (s: StreamStatus) => boolean> = {
  all: () => true,
  trouble: (s) => rank(s) === "bad" || rank(s) === "warn",
  offline: (s) => s.mode === "offline" && !s.retired,
  emergency: (s) => s.mode === "emergency",
  recovery: (s) => s.mode === "recovery",
  gaps: (s) => s.archive.gap_seconds > 0 || s.archive.damaged > 0,
};

export interface Actions {
  play(stream: string, t: number): void;
  choose(stream: string): void;
  download(): void;
  keep(): void;
  escape(): void;
  announce(text: string): void;
}

export class List {
  readonly el = h("section", { class: "list", "aria-label": msg.streams });
  readonly axis = h("div", { class: "axis" });
  private readonly head = h("div", { class: "axis-head" });
  private readonly scale = h("div", { class: "axis-scale", title: "" });
  private readonly rows = h("ul", { class: "rows", role: "list" });
  private readonly hair = h("div", { class: "hair", hidden: true, "aria-hidden": "true" });
  private readonly hairTime = h("div", { class: "hair-time", hidden: true, "aria-hidden": "true" });
  private readonly empty = h("p", { class: "empty", hidden: true });
  private readonly shown = new Map<string, Row>();
  private order: StreamStatus[] = [];
  private tops: number[] = [];
  private total = 0;
  layout: Layout = { narrow: false, width: 600 };
  private pointerInside = false;
  filter = "";
  show: Show = "all";
  sortByName = false;
  readonly redraw: () => void;
  private readonly relayout: () => void;

  constructor(
    readonly model: Model,
    readonly view: Viewport,
    readonly store: CoverageStore,
    readonly causes: Causes,
    readonly tip: Tip,
    readonly actions: Actions,
  ) {
    this.axis.append(this.head, this.scale, this.hairTime);
    this.el.append(this.axis, this.empty, this.rows);
    this.rows.append(this.hair);
    this.redraw = eachFrame(() => this.drawAll());
    this.relayout = eachFrame(() => this.place());
    store.wanted = () => this.wanted();
    store.onLoad = (lane) => (this.lastTip?.row.status.name === lane.stream ? this.repeatTip() : this.redraw());
    causes.onLoad = () => this.repeatTip();
    view.onChange(() => {
      this.redraw();
      store.pump();
    });
    for (const s of ["marked", "playing", "zone"] as const) model.on(s, () => this.redraw());
    model.on("status", () => this.refresh());
    model.on("chosen", () => this.refresh());
    onTheme(() => this.redraw());
    this.el.addEventListener("scroll", this.relayout, { passive: true });
    window.addEventListener("scroll", this.relayout, { passive: true });
    new ResizeObserver(() => this.measure()).observe(this.el);
    window.addEventListener("resize", () => this.measure());
    this.rows.addEventListener("pointerenter", () => (this.pointerInside = true));
    this.rows.addEventListener("pointerleave", () => (this.pointerInside = false));
    attachPointer(this, this.rows, this.scale);
    attachKeys(this, this.rows);
  }

  /** Sorts and filters again; called when the status or the choice has changed. */
  refresh(force = false): void {
    const all = this.model.status?.streams ?? [];
    const needle = this.filter.trim().toLowerCase();
    const kept = all.filter((s) => shows[this.show](s) && (!needle || s.name.toLowerCase().includes(needle) || s.inputs.some((i) => i.url.toLowerCase().includes(needle))));
    const same = kept.length === this.order.length && kept.every((s) => this.order.some((o) => o.name === s.name));
    if (same && !force && this.busy()) {
      // Nothing moves away under a pointer or the focus.
      const now = new Map(kept.map((s) => [s.name, s]));
      this.order = this.order.map((s) => now.get(s.name) ?? s);
    } else {
      this.order = kept.sort(this.sortByName ? (a, b) => compareNames(a.name, b.name) : byTrouble);
    }
    this.empty.hidden = this.order.length > 0;
    text(this.empty, !this.model.status ? msg.loading : all.length === 0 ? msg.noStreams : msg.filterNone);
    this.heights();
    this.place();
  }

  private busy(): boolean {
    return this.pointerInside || this.rows.contains(document.activeElement);
  }

  private heights(): void {
    this.tops = [];
    let y = 0;
    for (const s of this.order) {
      this.tops.push(y);
      y += rowHeight(this.layout, s);
    }
    this.total = y;
    this.rows.style.height = `${y}px`;
  }

  private measure(): void {
    const width = this.el.clientWidth;
    if (width === 0) return;
    const narrow = width < 720;
    this.el.classList.toggle("narrow", narrow);
    const scale = this.scale.clientWidth;
    if (narrow === this.layout.narrow && scale === this.layout.width) {
      this.relayout();
      return;
    }
    this.layout = { narrow, width: scale };
    this.heights();
    this.place();
  }

  /** Puts the rows in view into the document and takes the others out. */
  private place(): void {
    const box = this.rows.getBoundingClientRect();
    const frame = this.el.getBoundingClientRect();
    const top = Math.max(0, Math.max(frame.top, 0) - box.top) - 120;
    const bottom = Math.min(frame.bottom, window.innerHeight) - box.top + 120;
    const seen = new Set<string>();
    this.order.forEach((s, i) => {
      const y = this.tops[i] ?? 0;
      const height = (this.tops[i + 1] ?? this.total) - y;
      const row = this.shown.get(s.name);
      const focused = row?.el.contains(document.activeElement) ?? false;
      if ((y > bottom || y + height < top) && !focused) return;
      seen.add(s.name);
      this.placeRow(s, i, y, height, row);
    });
    for (const [name, row] of this.shown) {
      if (seen.has(name)) continue;
      row.el.remove();
      this.shown.delete(name);
    }
    this.redraw();
    this.store.pump();
  }

  private placeRow(s: StreamStatus, i: number, y: number, height: number, row: Row | undefined): void {
    if (!row) {
      row = new Row(s, this.model, this.view, this.store, (name) => this.actions.choose(name));
      this.shown.set(s.name, row);
    }
    row.update(s, this.layout);
    row.el.style.transform = `translateY(${y}px)`;
    row.el.style.height = `${height}px`;
    row.el.setAttribute("aria-posinset", String(i + 1));
    row.el.setAttribute("aria-setsize", String(this.order.length));
    // In the order of the list, so that the Tab key goes down it.
    const before = [...this.rows.children].find((c) => Number(c.getAttribute("aria-posinset")) > i + 1 && c !== row.el) ?? null;
    if (row.el.parentElement !== this.rows) this.rows.insertBefore(row.el, before);
  }

  private level(): number {
    return levelFor(this.view.span, this.layout.width);
  }

  private wanted(): { lane: { stream: string; node: string }; from: number; to: number; level: number }[] {
    const level = this.level();
    const { from, to } = this.view;
    const names = this.order.filter((s) => this.shown.has(s.name));
    const lanes = (own: boolean) =>
      names.flatMap((s) => nodesOf(s).filter((n) => (n === "") === own).map((node) => ({ lane: { stream: s.name, node }, from, to, level })));
    // This node's archives answer at once; peers may not.
    return [...lanes(true), ...lanes(false)];
  }

  private drawAll(): void {
    if (this.lastTip) this.hairAt(this.pointed(this.lastTip));
    const marks = ticks(this.view.from, this.view.to, this.layout.width, this.layout.narrow ? 58 : 76);
    const grid = marks.map((m) => m.t);
    const level = this.level();
    for (const row of this.shown.values()) {
      this.describe(row);
      row.draw(this.layout, level, grid);
    }
    text(this.head, headline(this.view.from, this.view.to));
    fill(
      this.scale,
      marks.map((m) => {
        const el = h("span", { class: m.major ? "tick major" : "tick" }, m.label);
        el.style.left = `${this.view.x(m.t, this.layout.width)}px`;
        return el;
      }),
    );
    const now = h("span", { class: "tick-now" });
    now.style.left = `${this.view.x(Date.now(), this.layout.width)}px`;
    this.scale.append(now);
  }

  // ---- pointing at a moment

  slack(): number {
    return (this.view.span / this.layout.width) * 3;
  }

  row(stream: string): Row | undefined {
    return this.shown.get(stream);
  }

  private lastTip: { row: Row; x: number; y: number; node: string } | null = null;

  point(row: Row, t: number, x: number, y: number, node: string): void {
    this.lastTip = { row, x, y, node };
    const now = Date.now();
    const all = explain(row.status, this.store, this.causes, t, this.view, this.level(), this.slack(), now);
    if (all[0]?.state === "missing") this.causes.want(row.status.name, t, this.slack());
    this.tip.show(x, y, t, all, node, now, msg.clickPlays);
    const there = all.some((s) => s.state !== "missing" && s.state !== "outside" && s.state !== "pending" && s.state !== "error");
    this.tip.picture(row.status.name, there ? t : null);
    this.hairAt(t);
  }

  private repeatTip(): void {
    const l = this.lastTip;
    if (l) this.point(l.row, this.pointed(l), l.x, l.y, l.node);
    this.redraw();
  }

  /** The moment that is pointed at: the mark of the keys, or what is under the pointer by now. */
  private pointed(l: { row: Row; x: number }): number {
    return l.row.cursor ?? this.view.time(l.x - l.row.timeline.getBoundingClientRect().left, this.layout.width);
  }

  unpoint(): void {
    this.lastTip = null;
    this.tip.hide();
    this.hair.hidden = this.hairTime.hidden = true;
  }

  private hairAt(t: number): void {
    const left = this.scale.offsetLeft + this.view.x(t, this.layout.width);
    this.hair.hidden = this.hairTime.hidden = false;
    this.hair.style.transform = `translateX(${left}px)`;
    text(this.hairTime, moment(t, Date.now()));
    const most = this.axis.clientWidth - this.hairTime.offsetWidth - 4;
    this.hairTime.style.transform = `translateX(${Math.max(0, Math.min(most, left - this.hairTime.offsetWidth / 2))}px)`;
  }

  /** Moves the mark of the keys. */
  moveCursor(row: Row, t: number): void {
    for (const other of this.shown.values()) if (other !== row) other.cursor = null;
    row.cursor = t;
    this.view.reveal(t);
    const box = row.timeline.getBoundingClientRect();
    this.point(row, t, box.left + this.view.x(t, this.layout.width), box.bottom - 18, "");
    this.redraw();
  }

  private describe(row: Row): void {
    const at = row.cursor ?? Math.min(Date.now(), this.view.to);
    const el = row.timeline;
    el.setAttribute("aria-valuemin", String(Math.round(this.view.from / 1000)));
    el.setAttribute("aria-valuemax", String(Math.round(this.view.to / 1000)));
    el.setAttribute("aria-valuenow", String(Math.round(at / 1000)));
    const now = Date.now();
    if (row.cursor !== null || document.activeElement === el) {
      el.setAttribute("aria-valuetext", sentence(at, explain(row.status, this.store, this.causes, at, this.view, this.level(), this.slack(), now), now));
    } else {
      el.setAttribute("aria-valuetext", moment(at, now));
    }
  }

  nextTrouble(row: Row, t: number, direction: 1 | -1): number | null {
    return row.nextTrouble(this.level(), t, direction);
  }

  /** Focuses the timeline of the stream above or below. */
  neighbour(stream: string, step: number): void {
    const i = this.order.findIndex((s) => s.name === stream) + step;
    this.focus(i);
  }

  private focus(i: number): void {
    const s = this.order[i];
    if (!s) return;
    this.reveal(i);
    const t = [...this.shown.values()].find((r) => r.cursor !== null)?.cursor ?? null;
    const row = this.shown.get(s.name);
    row?.timeline.focus({ preventScroll: true });
    if (row && t !== null) this.moveCursor(row, t);
  }

  /** Scrolls a row into view. */
  reveal(i: number): void {
    const y = this.tops[i] ?? 0;
    const height = (this.tops[i + 1] ?? this.total) - y;
    const scroller = this.el.scrollHeight > this.el.clientHeight + 1 ? this.el : document.scrollingElement;
    if (!scroller) return;
    const box = this.rows.getBoundingClientRect();
    const frame = this.el.getBoundingClientRect();
    const top = box.top + y - Math.max(0, frame.top) - this.axis.offsetHeight;
    const bottom = box.top + y + height - Math.min(frame.bottom, window.innerHeight);
    if (top < 0) scroller.scrollTop += top;
    else if (bottom > 0) scroller.scrollTop += bottom;
    this.place();
  }

  /** Shows a stream, whatever is filtered or scrolled to. */
  go(stream: string): void {
    let i = this.order.findIndex((s) => s.name === stream);
    if (i < 0) {
      this.show = "all";
      this.filter = "";
      this.refresh(true);
      i = this.order.findIndex((s) => s.name === stream);
    }
    if (i >= 0) this.reveal(i);
  }
}
