// The log of events, as they happen.

import * as api from "./api.js";
import { fill, h, text } from "./dom.js";
import { moment } from "./format.js";
import { msg } from "./messages.en.js";
import type { Model } from "./model.js";

/** Lines that are kept. */
const most = 400;

const grave = new Set(["source-lost", "disk", "fault", "corrupt"]);
const odd = new Set(["bad-input", "clock", "switch", "stop", "verify", "peer-lost"]);
const good = new Set(["source-back", "disk-back", "heal", "start", "peer-back"]);

export const gravity = (kind: string): string => (grave.has(kind) ? "bad" : odd.has(kind) ? "warn" : good.has(kind) ? "good" : "note");

export interface LogActions {
  show(stream: string, t: number): void;
  happened(e: api.NodeEvent): void;
  changed(stream: string, from: number, to: number): void;
}

export class EventLog {
  readonly el: HTMLElement;
  private readonly list = h("ol", { class: "events", role: "log", "aria-label": msg.events, tabIndex: 0 });
  private readonly only = h("input", { type: "checkbox", id: "only" });
  private readonly state = h("p", { class: "note", role: "status", hidden: true });
  private events: api.NodeEvent[] = [];
  private waiting: api.NodeEvent[] = [];
  private timer = 0;

  constructor(
    private readonly model: Model,
    private readonly actions: LogActions,
  ) {
    this.only.addEventListener("change", () => this.draw());
    this.el = h(
      "section",
      { class: "log", "aria-label": msg.events },
      h("div", { class: "title-line" }, h("h2", null, msg.events), h("label", { for: "only" }, this.only, ` ${msg.eventsOf}`)),
      this.state,
      this.list,
    );
    model.on("chosen", () => this.only.checked && this.draw());
    model.on("zone", () => this.draw());
  }

  begin(): void {
    void api.follow({
      event: (e) => this.add(e),
      changed: (stream, from, to) => this.actions.changed(stream, from, to),
      open: () => {
        this.state.hidden = true;
        void this.load();
      },
      closed: (none) => {
        text(this.state, none ? msg.eventsOfArchives : msg.eventsLost);
        this.state.hidden = false;
        if (none) void this.load();
      },
    });
  }

  /** Loads what has happened up to now, once it is known that nothing is missed from here on. */
  private async load(): Promise<void> {
    const before = await api.events(200).catch(() => null);
    if (!before) return;
    const known = new Set(before.map(key));
    this.events = [...before, ...this.events.filter((e) => !known.has(key(e)))].sort((a, b) => a.time - b.time).slice(-most);
    this.draw();
  }

  /** Floods are shown at once, a few times a second. */
  private add(e: api.NodeEvent): void {
    this.actions.happened(e);
    this.waiting.push(e);
    if (this.timer) return;
    this.timer = window.setTimeout(() => {
      this.timer = 0;
      const fresh = this.waiting;
      this.waiting = [];
      const known = new Set(this.events.map(key));
      this.events.push(...fresh.filter((x) => !known.has(key(x))));
      this.events.sort((a, b) => a.time - b.time);
      this.events.splice(0, this.events.length - most);
      const lines = fresh.filter((x) => this.fits(x) && !known.has(key(x)));
      if (this.list.querySelector(".none")) this.draw();
      else for (const x of lines) this.list.prepend(this.line(x, true));
      while (this.list.children.length > most) this.list.lastElementChild?.remove();
    }, 200);
  }

  private fits(e: api.NodeEvent): boolean {
    return !this.only.checked || !this.model.chosen || e.stream === this.model.chosen;
  }

  private draw(): void {
    const shown = this.events.filter((e) => this.fits(e)).reverse();
    fill(this.list, shown.length ? shown.map((e) => this.line(e, false)) : h("li", { class: "dim none" }, msg.eventsNone));
  }

  private line(e: api.NodeEvent, fresh: boolean): HTMLLIElement {
    return h(
      "li",
      { class: `event is-${gravity(e.kind)} ${fresh ? "fresh" : ""}` },
      h("button", { type: "button", class: "link when", onclick: () => this.actions.show(e.stream, e.time), title: msg.showThere(moment(e.time, Date.now())) }, moment(e.time, Date.now())),
      h("span", { class: "kind" }, msg.eventKinds[e.kind] ?? e.kind),
      e.stream && h("span", { class: "event-stream" }, e.stream),
      h("span", { class: "event-msg" }, e.msg),
    );
  }
}

const key = (e: api.NodeEvent): string => `${e.time} ${e.stream} ${e.kind} ${e.msg}`;
