// One stream in words: problems, inputs, peers, archive, gaps, kept spans.

import * as api from "./api.js";
import { fill, h, settled, text } from "./dom.js";
import { bitrate, bytes, count, duration, moment, peerName } from "./format.js";
import { askForKey } from "./key.js";
import { msg } from "./messages.en.js";
import { modeHelp, modeName, rank, type Model } from "./model.js";
import type { Viewport } from "./viewport.js";

export interface DetailActions {
  show(stream: string, from: number, to: number): void;
  play(stream: string, t: number): void;
  changed(stream: string): void;
}

const mostGaps = 200;

export class Detail {
  readonly el: HTMLElement;
  private readonly body = h("div", { class: "detail-body" });
  private readonly status = h("div", null);
  private readonly gapTitle = h("h3", null, msg.gaps);
  private readonly gapList = h("ul", { class: "gaps" });
  private readonly keptList = h("ul", { class: "kept-list" });
  private readonly note = h("p", { class: "note", role: "status", hidden: true });
  private readonly fillButton = h("button", { type: "button", class: "small" }, msg.fillNow);
  private shownText = "";
  private gapsOf = "";
  private readonly loadSoon: () => void;

  constructor(
    private readonly model: Model,
    private readonly view: Viewport,
    private readonly actions: DetailActions,
  ) {
    this.el = h("section", { class: "detail", "aria-label": msg.detail }, this.body);
    this.fillButton.addEventListener("click", () => void this.fillNow());
    this.loadSoon = settled(400, () => void this.loadLists());
    model.on("status", () => this.show());
    model.on("zone", () => {
      this.shownText = "";
      this.show();
      this.loadSoon();
    });
    model.on("chosen", () => {
      this.shownText = "";
      this.gapsOf = "";
      this.say("");
      fill(this.gapList);
      fill(this.keptList);
      this.show();
      this.loadSoon();
    });
    view.onChange(() => {
      if (model.chosen && !view.following) this.loadSoon();
    });
    window.setInterval(() => model.chosen && !document.hidden && this.loadSoon(), 15_000);
    this.show();
  }

  private get stream(): api.StreamStatus | undefined {
    return this.model.byName.get(this.model.chosen);
  }

  /** The gaps or kept spans have changed. */
  again(): void {
    this.loadSoon();
  }

  private show(): void {
    const s = this.stream;
    if (!s) {
      this.shownText = "";
      fill(this.body, h("p", { class: "dim pad" }, msg.choose));
      return;
    }
    // Written anew only where something is different: a reader may be in it.
    const now = JSON.stringify(s, (k, v: unknown) => (k === "heard" || k === "last_data" || k === "last_segment_completed" || k === "packets" || k === "datagrams" ? undefined : v));
    if (now === this.shownText) return;
    this.shownText = now;
    fill(this.status, this.top(s), this.inputs(s), this.peers(s), this.archive(s));
    if (this.gapList.parentElement !== this.body) {
      fill(
        this.body,
        this.status,
        this.note,
        h("div", { class: "title-line" }, this.gapTitle, this.fillButton),
        this.gapList,
        h("h3", null, msg.keptSpans),
        this.keptList,
      );
    }
    this.fillButton.hidden = s.peers.length === 0 || s.retired || this.model.status?.supervised === false;
  }

  private top(s: api.StreamStatus): (Node | null)[] {
    return [
      h("h2", { class: "detail-title" }, h("span", { class: "dot", "aria-hidden": "true" }), h("span", null, s.name), h("span", { class: "mode" }, s.retired ? msg.retired : modeName(s))),
      h("p", { class: "dim" }, modeHelp(s)),
      s.problems.length ? h("ul", { class: "problems" }, s.problems.map((p) => h("li", null, p))) : null,
    ].map((el) => {
      if (el instanceof HTMLHeadingElement) {
        el.dataset["rank"] = rank(s);
        el.dataset["mode"] = s.mode;
      }
      return el;
    });
  }

  private inputs(s: api.StreamStatus): Node[] {
    if (!s.inputs.length) return [];
    const rows = s.inputs.map((i) => {
      const state = i.active ? msg.inputActive : (msg.inputStates[i.state] ?? i.state);
      const lost = i.lost > 0 ? msg.packetsLost(count(i.lost), count(i.packets)) : "";
      return h(
        "li",
        { class: i.active ? "active" : i.state === "good" || i.state === "waiting" ? "" : "failed" },
        h("span", { class: "url" }, i.url + (i.program ? ` (${i.program})` : "")),
        h("span", { class: "tag" }, state),
        i.standby && !i.active && h("span", { class: "dim" }, msg.inputStandby(i.standby)),
        lost && h("span", { class: "warn-text" }, lost),
        i.dropped > 0 && h("span", { class: "warn-text" }, msg.kernelDropped(count(i.dropped))),
        i.error && h("div", { class: "why" }, i.error),
      );
    });
    return [h("h3", null, msg.inputs), h("ul", { class: "inputs" }, rows)];
  }

  private peers(s: api.StreamStatus): Node[] {
    if (!s.peers.length) return [];
    const rows = s.peers.map((p) => {
      const eta = p.eta_seconds !== undefined ? duration(p.eta_seconds) : "";
      const work = p.backlog_bytes > 0 ? msg.backlog(bytes(p.backlog_bytes), eta) : p.reconciling ? msg.comparing : msg.upToDate;
      return h(
        "li",
        { class: p.reachable ? "active" : "failed" },
        h("span", { class: "url" }, peerName(p.url, s.name)),
        h("span", { class: "tag" }, p.reachable ? msg.peerReachable : msg.peerUnreachable),
        !p.replicates && h("span", { class: "dim" }, msg.peerFollowed),
        p.reachable && p.replicates && h("span", { class: "dim" }, work),
        p.mode && h("span", { class: "dim" }, msg.peerMode(p.mode)),
        p.error && h("div", { class: "why" }, p.error),
      );
    });
    return [h("h3", null, msg.peers), h("ul", { class: "inputs" }, rows)];
  }

  private archive(s: api.StreamStatus): Node[] {
    const a = s.archive;
    const facts = [
      msg.depth(duration(a.depth_reached_seconds), duration(a.depth_seconds)),
      msg.onDisk(bytes(a.bytes)),
      a.bytes_per_second > 0 ? bitrate(a.bytes_per_second) : "",
      a.gap_seconds > 0 ? msg.missingShort(duration(a.gap_seconds)) : "",
      a.damaged > 0 ? msg.damagedShort(a.damaged) : "",
      msg.diskFree(bytes(a.disk_free_bytes)),
      a.days_until_full !== undefined ? msg.full(duration(a.days_until_full * 86400)) : "",
    ].filter(Boolean);
    const b = s.backfill;
    const runs = b && (b.state === "running" || b.state === "waiting") ? msg.backfillRuns(bytes(b.left_bytes), b.eta_seconds !== undefined ? duration(b.eta_seconds) : "") : "";
    return [
      h("h3", null, msg.archive),
      h("p", { class: "facts-line" }, facts.join(" · ")),
      ...(a.error ? [h("p", { class: "why" }, a.error)] : []),
      ...(runs ? [h("p", null, runs)] : []),
    ];
  }

  private async loadLists(): Promise<void> {
    const stream = this.model.chosen;
    if (!stream) return;
    const { from, to } = this.view;
    const [found, kept] = await Promise.all([
      api.gaps(stream, from, Math.min(to, Date.now()), mostGaps).catch(() => null),
      api.keeps(stream).catch(() => null),
    ]);
    if (stream !== this.model.chosen) return;
    if (found) this.showGaps(stream, found.gaps, found.more);
    if (kept) this.showKept(stream, kept);
  }

  private showGaps(stream: string, gaps: api.Gap[], more: boolean): void {
    const now = JSON.stringify([gaps, more]);
    if (now === this.gapsOf) return;
    this.gapsOf = now;
    const rows = [...gaps].reverse().map((g) =>
      h(
        "li",
        { class: g.fill === "nobody" ? "gap lost" : "gap" },
        h(
          "button",
          { type: "button", class: "link", onclick: () => this.actions.show(stream, g.from, g.to), title: msg.showThere(moment(g.from, Date.now())) },
          `${moment(g.from, Date.now())}`,
        ),
        h("strong", null, duration((g.to - g.from) / 1000)),
        h("span", { class: "gap-why" }, g.cause),
        h("span", { class: "dim" }, msg.fill[g.fill](g.peer ? peerName(g.peer, stream) : "")),
      ),
    );
    fill(this.gapList, rows.length ? rows : h("li", { class: "dim" }, msg.noGaps), more && h("li", { class: "dim" }, msg.moreGaps));
  }

  private showKept(stream: string, kept: api.Kept[]): void {
    const rows = kept.map((k) =>
      h(
        "li",
        null,
        h("button", { type: "button", class: "link", onclick: () => this.actions.show(stream, k.from, k.to), title: msg.showThere(k.name) }, k.name),
        h("span", { class: "dim" }, `${moment(k.from, Date.now())} – ${moment(k.to, Date.now())} (${duration((k.to - k.from) / 1000)})`),
        h("button", { type: "button", class: "small", onclick: () => void this.release(stream, k.name) }, msg.release),
      ),
    );
    fill(this.keptList, rows.length ? rows : h("li", { class: "dim" }, msg.noKept));
  }

  private async release(stream: string, name: string): Promise<void> {
    if (!window.confirm(msg.releaseConfirm(name))) return;
    try {
      await askForKey(this.el, () => api.release(stream, name));
      this.say(msg.released(name));
      this.actions.changed(stream);
    } catch (err) {
      this.say(msg.releaseFailed(err instanceof Error ? err.message : String(err)));
    }
    await this.loadLists();
  }

  private async fillNow(): Promise<void> {
    const s = this.stream;
    if (!s) return;
    try {
      await askForKey(this.el, () => api.backfill(s.name, this.view.from, Math.min(this.view.to, Date.now())));
      this.say(msg.fillStarted);
    } catch (err) {
      this.say(msg.fillFailed(err instanceof Error ? err.message : String(err)));
    }
  }

  private say(s: string): void {
    this.note.hidden = s === "";
    text(this.note, s);
  }
}
