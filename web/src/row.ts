// A stream in the list: what it is doing, and its timelines.

import type { StreamStatus } from "./api.js";
import { isTrouble, troubles, type CoverageStore, type Picture } from "./coverage.js";
import { fill, h, text } from "./dom.js";
import { draw, type LaneBox } from "./draw.js";
import { bitrate, duration, peerName } from "./format.js";
import { msg } from "./messages.en.js";
import { isSilent, modeHelp, modeName, nodesOf, rank, silentAfter, type Model } from "./model.js";
import type { Viewport } from "./viewport.js";

/** How a row is laid out: beside each other, or below each other on a narrow screen. */
export interface Layout {
  narrow: boolean;
  /** Of the timelines, px. */
  width: number;
}

const lane = { wide: 20, narrow: 18 };
const laneGap = 5;
const labelHeight = 15;
const edge = 9;
const headHeight = { wide: 70, narrow: 64, problem: 18 };

export function laneBoxes(layout: Layout, lanes: number): LaneBox[] {
  const height = layout.narrow ? lane.narrow : lane.wide;
  const above = layout.narrow ? labelHeight : 0;
  return Array.from({ length: lanes }, (_, i) => ({ top: edge + above + i * (height + laneGap + above), height }));
}

const timelineHeight = (layout: Layout, lanes: number): number => {
  const last = laneBoxes(layout, lanes).at(-1);
  return last ? last.top + last.height + edge : 2 * edge;
};

export function rowHeight(layout: Layout, s: StreamStatus): number {
  const bars = timelineHeight(layout, nodesOf(s).length);
  const more = s.problems.length || s.archive.error ? headHeight.problem : 0;
  return layout.narrow ? headHeight.narrow + more + bars : Math.max(headHeight.wide + more, bars);
}

export class Row {
  readonly el: HTMLLIElement;
  readonly timeline: HTMLDivElement;
  private readonly canvas = h("canvas", { "aria-hidden": "true" });
  private readonly name: HTMLButtonElement;
  private readonly mode = h("span", { class: "mode" });
  private readonly facts = h("div", { class: "facts" });
  private readonly trouble = h("div", { class: "trouble" });
  private readonly labels = h("div", { class: "labels", "aria-hidden": "true" });
  private said = "";
  status: StreamStatus;
  /** The mark that the keys move. */
  cursor: number | null = null;

  constructor(
    s: StreamStatus,
    private readonly model: Model,
    private readonly view: Viewport,
    private readonly store: CoverageStore,
    choose: (stream: string) => void,
  ) {
    this.status = s;
    this.name = h("button", { type: "button", class: "name", onclick: () => choose(s.name) }, s.name);
    this.name.setAttribute("aria-label", msg.details(s.name));
    this.name.title = s.name;
    this.timeline = h(
      "div",
      { class: "timeline", tabIndex: 0, role: "slider", "aria-label": msg.timelineOf(s.name), "aria-describedby": "timeline-help", "aria-orientation": "horizontal" },
      this.canvas,
    );
    this.timeline.dataset["stream"] = s.name;
    this.el = h(
      "li",
      { class: "row" },
      h("div", { class: "head" }, h("div", { class: "title" }, h("span", { class: "dot", "aria-hidden": "true" }), this.name, this.mode), this.facts, this.trouble),
      this.labels,
      this.timeline,
    );
  }

  update(s: StreamStatus, layout: Layout): void {
    this.status = s;
    const r = rank(s);
    this.el.dataset["rank"] = r;
    this.el.dataset["mode"] = s.mode;
    this.el.classList.toggle("chosen", this.model.chosen === s.name);
    text(this.mode, s.retired ? msg.retired : modeName(s));
    this.mode.title = modeHelp(s);
    this.say(s);
    this.label(s, layout);
  }

  private say(s: StreamStatus): void {
    const input = s.inputs.find((i) => i.active) ?? s.inputs.find((i) => i.state === "good");
    const a = s.archive;
    const facts = [
      input ? inputLabel(input.url, s.name) : s.inputs.length && !s.problems.length ? msg.noInput : "",
      a.bytes_per_second > 0 ? bitrate(a.bytes_per_second) : "",
      a.lag_seconds !== undefined && a.newest ? msg.lag(duration(a.lag_seconds)) : "",
    ];
    const trouble = s.problems[0] ?? (a.error || "");
    const small = [a.gap_seconds > 0 ? msg.missingShort(duration(a.gap_seconds)) : "", a.damaged > 0 ? msg.damagedShort(a.damaged) : ""];
    const now = JSON.stringify([facts, trouble, small]);
    if (now === this.said) return;
    this.said = now;
    const late = (a.lag_seconds ?? 0) > silentAfter && !s.retired && s.inputs.length > 0;
    fill(
      this.facts,
      facts[0] && h("span", { class: "fact input", title: input?.url ?? "" }, facts[0]),
      facts[1] && h("span", { class: "fact" }, facts[1]),
      facts[2] && h("span", { class: late ? "fact late" : "fact", title: msg.lagHelp }, facts[2]),
    );
    fill(
      this.trouble,
      small[0] && h("span", { class: "tag is-missing" }, small[0]),
      small[1] && h("span", { class: "tag is-damaged" }, small[1]),
      trouble && h("span", { class: "problem", title: s.problems.join("\n") }, trouble),
    );
  }

  private label(s: StreamStatus, layout: Layout): void {
    const nodes = nodesOf(s);
    const boxes = laneBoxes(layout, nodes.length);
    const labels = nodes.map((node, i) => {
      const el = h("span", { class: "lane-label" }, node === "" ? msg.thisNode : peerName(node, s.name));
      const peer = s.peers.find((p) => p.url === node);
      if (peer && !peer.reachable) {
        el.classList.add("unreachable");
        el.title = peer.error ?? msg.peerUnreachable;
        el.append(h("span", { class: "cross" }, " ✕"));
      }
      const box = boxes[i];
      if (box) el.style.top = `${layout.narrow ? box.top - labelHeight : box.top}px`;
      el.style.height = `${layout.narrow ? labelHeight : (box?.height ?? 0)}px`;
      return el;
    });
    if (this.labels.textContent !== labels.map((l) => l.textContent).join("") || this.labels.dataset["narrow"] !== String(layout.narrow)) {
      fill(this.labels, labels);
      this.labels.dataset["narrow"] = String(layout.narrow);
    }
    this.timeline.style.height = `${timelineHeight(layout, nodes.length)}px`;
  }

  pictures(level: number): Picture[] {
    return nodesOf(this.status).map((node) => this.store.picture({ stream: this.status.name, node }, this.view.from, this.view.to, level));
  }

  draw(layout: Layout, level: number, grid: number[]): void {
    const nodes = nodesOf(this.status);
    const boxes = laneBoxes(layout, nodes.length);
    const m = this.model.marked;
    const p = this.model.playing;
    const now = Date.now();
    const pictures = this.pictures(level);
    draw(this.canvas, {
      width: layout.width,
      height: timelineHeight(layout, nodes.length),
      view: this.view,
      lanes: pictures.map((picture, i) => ({ box: boxes[i] ?? { top: 0, height: 0 }, picture, tail: isSilent(this.status, nodes[i] ?? "", picture.newest, now) })),
      grid,
      marked: m?.stream === this.status.name ? m : null,
      playing: p?.stream === this.status.name ? p.t : null,
      cursor: this.cursor,
      now,
    });
    // For tests, and for those who look at the page from outside.
    const done = pictures.map((x) => x.complete || x.error !== "");
    this.timeline.dataset["loaded"] = done.every(Boolean) ? "true" : done[0] ? "own" : "false";
  }

  /** Which node's bar is at a height. */
  nodeAt(layout: Layout, y: number): string {
    const nodes = nodesOf(this.status);
    const boxes = laneBoxes(layout, nodes.length);
    const i = boxes.findIndex((b) => y < b.top + b.height + laneGap / 2);
    return nodes[i < 0 ? nodes.length - 1 : i] ?? "";
  }

  /** The next trouble of this node or a peer behind a moment, or before it. */
  nextTrouble(level: number, t: number, direction: 1 | -1): number | null {
    const all = this.pictures(level)
      .flatMap(troubles)
      .filter((s) => isTrouble(s.state))
      .map((s) => Math.max(s.from, this.view.from));
    const ahead = all.filter((x) => (direction > 0 ? x > t + 1 : x < t - 1));
    if (!ahead.length) return null;
    return direction > 0 ? Math.min(...ahead) : Math.max(...ahead);
  }
}

/** An input as a label: peers by their name, others by their address. */
function inputLabel(url: string, stream: string): string {
  return /^m4fs?:/.test(url) ? peerName(url, stream) : url.replace(/\?.*$/, "");
}
