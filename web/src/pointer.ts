// Mouse, pen and fingers on the timelines: point, click, drag, pinch, wheel.

import type { List } from "./list.js";
import type { Row } from "./row.js";

interface Down {
  id: number;
  x: number;
  y: number;
  /** Where it went down. */
  startX: number;
  startY: number;
}

type Doing = "nothing" | "pan" | "mark" | "pinch";

/** So far a pointer may move and still click, px. */
const clickSlack = 5;
/** So near the edge of the marked span it is taken, px. */
const edgeSlack = 8;

export function attachPointer(list: List, rows: HTMLElement, scale: HTMLElement): void {
  new Pointers(list, rows, true);
  new Pointers(list, scale, false);
}

class Pointers {
  private readonly downs = new Map<number, Down>();
  private doing: Doing = "nothing";
  private row: Row | null = null;
  /** The end of the marked span that stays. */
  private anchor = 0;
  private moved = false;

  constructor(
    private readonly list: List,
    private readonly el: HTMLElement,
    private readonly hasRows: boolean,
  ) {
    el.addEventListener("pointerdown", (e) => this.down(e));
    el.addEventListener("pointermove", (e) => this.move(e));
    el.addEventListener("pointerup", (e) => this.up(e));
    el.addEventListener("pointercancel", (e) => this.cancel(e));
    el.addEventListener("pointerleave", () => {
      if (!this.downs.size) list.unpoint();
    });
    el.addEventListener("wheel", (e) => this.wheel(e), { passive: false });
  }

  /** The time under a point, and the row. */
  private at(clientX: number, target: EventTarget | null): { t: number; row: Row | null; inside: boolean } {
    const timeline = this.hasRows ? (target as Element | null)?.closest<HTMLElement>(".timeline") : null;
    const row = timeline ? (this.list.row(timeline.dataset["stream"] ?? "") ?? null) : null;
    const box = (timeline ?? this.row?.timeline ?? this.el).getBoundingClientRect();
    const inside = !this.hasRows || timeline !== null;
    return { t: this.list.view.time(clientX - box.left, this.list.layout.width), row, inside };
  }

  private down(e: PointerEvent): void {
    const { row, inside } = this.at(e.clientX, e.target);
    if (!inside || (e.pointerType === "mouse" && e.button !== 0)) return;
    this.downs.set(e.pointerId, { id: e.pointerId, x: e.clientX, y: e.clientY, startX: e.clientX, startY: e.clientY });
    if (this.downs.size === 1) {
      this.row = row;
      this.moved = false;
      this.doing = "nothing";
    } else {
      this.doing = "pinch";
      this.moved = true;
    }
    this.el.setPointerCapture?.(e.pointerId);
  }

  private move(e: PointerEvent): void {
    const d = this.downs.get(e.pointerId);
    if (!d) {
      if (e.pointerType !== "touch") this.hover(e);
      return;
    }
    const before = { x: d.x, y: d.y };
    if (this.doing === "nothing" && Math.abs(e.clientX - d.startX) > clickSlack) this.begin(e, d);
    if (this.doing === "nothing") return;
    if (this.doing === "pinch") this.pinch(d, e);
    d.x = e.clientX;
    d.y = e.clientY;
    const view = this.list.view;
    if (this.doing === "pan") view.pan(((before.x - e.clientX) / this.list.layout.width) * view.span);
    else if (this.doing === "mark" && this.row) {
      const { t } = this.at(e.clientX, null);
      this.list.model.mark({ stream: this.row.status.name, from: this.anchor, to: t });
      if (t < this.anchor) this.list.model.mark({ stream: this.row.status.name, from: t, to: this.anchor });
    }
  }

  /** A drag begins: is it to move, or to mark? */
  private begin(e: PointerEvent, d: Down): void {
    this.moved = true;
    this.list.unpoint();
    this.doing = "pan";
    if (!this.row) return;
    const start = this.at(d.startX, null).t;
    const m = this.list.model.marked;
    const slack = (this.list.view.span / this.list.layout.width) * edgeSlack;
    if (m?.stream === this.row.status.name && Math.min(Math.abs(m.from - start), Math.abs(m.to - start)) < slack) {
      this.anchor = Math.abs(m.from - start) < Math.abs(m.to - start) ? m.to : m.from;
      this.doing = "mark";
    } else if (e.shiftKey || this.list.model.marking) {
      this.anchor = start;
      this.doing = "mark";
    }
  }

  private pinch(d: Down, e: PointerEvent): void {
    const other = [...this.downs.values()].find((o) => o.id !== d.id);
    if (!other) return;
    const view = this.list.view;
    const before = Math.max(20, Math.abs(d.x - other.x));
    const after = Math.max(20, Math.abs(e.clientX - other.x));
    const at = this.at((e.clientX + other.x) / 2, null).t;
    view.zoom(before / after, at);
    view.pan(-((e.clientX - d.x) / 2 / this.list.layout.width) * view.span);
  }

  private up(e: PointerEvent): void {
    const d = this.downs.get(e.pointerId);
    this.downs.delete(e.pointerId);
    if (!d || this.downs.size) return;
    if (!this.moved && this.row) {
      const { t } = this.at(e.clientX, null);
      this.list.unpoint(); // the tip would cover the player
      this.list.actions.play(this.row.status.name, t);
      if (e.pointerType === "touch") this.list.moveCursor(this.row, t);
    }
    this.doing = "nothing";
    this.row = null;
  }

  private cancel(e: PointerEvent): void {
    this.downs.delete(e.pointerId);
    if (this.downs.size) return;
    this.doing = "nothing";
    this.row = null;
  }

  private hover(e: PointerEvent): void {
    const { t, row } = this.at(e.clientX, e.target);
    if (!row) {
      this.list.unpoint();
      return;
    }
    const box = row.timeline.getBoundingClientRect();
    this.list.point(row, t, e.clientX, e.clientY, row.nodeAt(this.list.layout, e.clientY - box.top));
  }

  private wheel(e: WheelEvent): void {
    const { t, inside } = this.at(e.clientX, e.target);
    if (!inside) return;
    const view = this.list.view;
    const pixels = e.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
    const sideways = Math.abs(e.deltaX) > Math.abs(e.deltaY);
    if (e.ctrlKey || e.metaKey || e.altKey || (!this.hasRows && !sideways && !e.shiftKey)) {
      e.preventDefault();
      view.zoom(Math.exp(Math.max(-1, Math.min(1, e.deltaY * pixels * (e.ctrlKey ? 0.006 : 0.003)))), t);
    } else if (sideways || e.shiftKey) {
      e.preventDefault();
      const delta = sideways ? e.deltaX : e.deltaY;
      view.pan(((delta * pixels) / this.list.layout.width) * view.span);
    }
  }
}
