// The timelines by keyboard: everything that the mouse can do.

import type { List } from "./list.js";
import { msg } from "./messages.en.js";
import type { Row } from "./row.js";

export function attachKeys(list: List, rows: HTMLElement): void {
  rows.addEventListener("focusin", (e) => {
    const row = rowOf(list, e.target);
    if (row && row.cursor === null && (e.target as Element).matches(":focus-visible")) list.moveCursor(row, start(list));
  });
  rows.addEventListener("focusout", (e) => {
    const row = rowOf(list, e.target);
    if (!row) return;
    row.cursor = null;
    list.unpoint();
    list.redraw();
  });
  rows.addEventListener("keydown", (e) => {
    const row = rowOf(list, e.target);
    if (row && !e.ctrlKey && !e.metaKey && !e.altKey && press(list, row, e)) e.preventDefault();
  });
}

function rowOf(list: List, target: EventTarget | null): Row | undefined {
  const timeline = (target as Element | null)?.closest<HTMLElement>(".timeline");
  return timeline ? list.row(timeline.dataset["stream"] ?? "") : undefined;
}

/** Where the mark begins: what plays, otherwise the middle or now. */
function start(list: List): number {
  const { view, model } = list;
  const p = model.playing?.t;
  if (p !== undefined && p > view.from && p < view.to) return p;
  return Math.min(Date.now(), (view.from + view.to) / 2);
}

function press(list: List, row: Row, e: KeyboardEvent): boolean {
  const { view, actions } = list;
  const at = row.cursor ?? start(list);
  const step = (view.span / list.layout.width) * (e.shiftKey ? 80 : 8);
  const move = (t: number): true => {
    list.moveCursor(row, Math.min(t, Date.now()));
    return true;
  };
  switch (e.key) {
    case "ArrowLeft":
      return move(at - step);
    case "ArrowRight":
      return move(at + step);
    case "ArrowUp":
      list.neighbour(row.status.name, -1);
      return true;
    case "ArrowDown":
      list.neighbour(row.status.name, 1);
      return true;
    case "PageUp":
      view.pan(-view.span / 2);
      return move(at - view.span / 2);
    case "PageDown":
      view.pan(view.span / 2);
      return move(at + view.span / 2);
    case "Home":
      return move(view.from);
    case "End":
      view.follow();
      return move(Date.now());
    case "+":
    case "=":
      view.zoom(0.5, at);
      return move(at);
    case "-":
    case "_":
      view.zoom(2, at);
      return move(at);
    case "n":
    case "N":
    case "p":
    case "P":
      return trouble(list, row, at, e.key.toLowerCase() === "n" ? 1 : -1);
    case "Enter":
    case " ":
      actions.play(row.status.name, at);
      return true;
    case "[":
    case "]":
      mark(list, row, at, e.key === "[");
      return true;
    case "k":
    case "K":
      actions.keep();
      return true;
    case "d":
    case "D":
      actions.download();
      return true;
    case "Escape":
      actions.escape();
      return true;
  }
  return false;
}

function trouble(list: List, row: Row, at: number, direction: 1 | -1): true {
  const t = list.nextTrouble(row, at, direction);
  if (t === null) list.actions.announce(msg.noTrouble);
  else list.moveCursor(row, t);
  return true;
}

function mark(list: List, row: Row, at: number, begin: boolean): void {
  const stream = row.status.name;
  const m = list.model.marked;
  const other = m?.stream === stream ? (begin ? m.to : m.from) : null;
  const beside = Math.min(60_000, list.view.span / 10);
  if (begin) list.model.mark({ stream, from: at, to: other !== null && other > at ? other : at + beside });
  else list.model.mark({ stream, from: other !== null && other < at ? other : at - beside, to: at });
}
