// The marked span: its ends, what is in it, download and keep.

import * as api from "./api.js";
import { isTrouble } from "./coverage.js";
import { h, settled, text } from "./dom.js";
import { bytes, duration, parseStamp, stamp } from "./format.js";
import { askForKey } from "./key.js";
import { msg } from "./messages.en.js";
import type { Model } from "./model.js";

export interface SelectionActions {
  play(stream: string, t: number): void;
  zoomTo(from: number, to: number): void;
  announce(s: string): void;
  changed(stream: string): void;
}

export class Selection {
  readonly el: HTMLElement;
  private readonly stream = h("strong", { class: "selection-stream" });
  private readonly from = h("input", { type: "text", class: "stamp", inputMode: "text", autocomplete: "off", spellcheck: false, "aria-label": msg.from });
  private readonly to = h("input", { type: "text", class: "stamp", inputMode: "text", autocomplete: "off", spellcheck: false, "aria-label": msg.to });
  private readonly length = h("output", { class: "length" });
  private readonly what = h("p", { class: "selection-what" });
  private readonly note = h("p", { class: "note", role: "status", hidden: true });
  private readonly name = h("input", { type: "text", class: "keep-name", placeholder: msg.keepName, maxLength: 100, "aria-label": msg.keepName });
  private readonly mp4 = h("a", { class: "button primary" }, msg.download);
  private readonly ts = h("a", { class: "button" }, msg.downloadTS);
  private readonly keepButton = h("button", { type: "button", title: msg.keepHelp }, msg.keep);
  private readonly look: () => void;
  private looked = "";

  constructor(
    private readonly model: Model,
    private readonly actions: SelectionActions,
  ) {
    this.look = settled(250, () => void this.lookInside());
    const button = (label: string, run: () => void): HTMLButtonElement => h("button", { type: "button", onclick: run }, label);
    this.keepButton.addEventListener("click", () => void this.keep());
    for (const input of [this.from, this.to]) {
      input.addEventListener("change", () => this.typed());
      input.addEventListener("keydown", (e) => {
        if (e.key === "Enter") this.typed();
      });
    }
    this.el = h(
      "section",
      { class: "selection", "aria-label": msg.selection, hidden: true },
      h("div", { class: "selection-line" }, h("span", { class: "selection-title" }, msg.selection), this.stream, button(msg.clear, () => model.mark(null))),
      h("div", { class: "selection-line ends" }, h("label", null, msg.from, this.from), h("label", null, msg.to, this.to), this.length),
      this.what,
      h(
        "div",
        { class: "selection-line" },
        this.mp4,
        this.ts,
        button(msg.playSpan, () => model.marked && actions.play(model.marked.stream, model.marked.from)),
        button(msg.zoomSpan, () => model.marked && actions.zoomTo(model.marked.from, model.marked.to)),
      ),
      h("div", { class: "selection-line" }, this.name, this.keepButton),
      this.note,
    );
    model.on("marked", () => this.show());
    model.on("zone", () => this.show());
  }

  private show(): void {
    const m = this.model.marked;
    this.el.hidden = m === null;
    if (!m) return;
    const key = `${m.stream} ${m.from} ${m.to}`;
    if (key !== this.looked) this.say("");
    text(this.stream, m.stream);
    if (document.activeElement !== this.from) this.from.value = stamp(m.from);
    if (document.activeElement !== this.to) this.to.value = stamp(m.to);
    text(this.length, duration((m.to - m.from) / 1000));
    this.mp4.href = api.archiveURL(m.stream, m.from, m.to, "mp4");
    this.ts.href = api.archiveURL(m.stream, m.from, m.to, "ts");
    this.mp4.download = this.ts.download = "";
    this.look();
  }

  private typed(): void {
    const m = this.model.marked;
    if (!m) return;
    const from = parseStamp(this.from.value);
    const to = parseStamp(this.to.value);
    if (from === null || to === null) {
      (from === null ? this.from : this.to).setAttribute("aria-invalid", "true");
      this.say(msg.badTime);
      return;
    }
    for (const input of [this.from, this.to]) input.removeAttribute("aria-invalid");
    if (to <= from) {
      this.to.setAttribute("aria-invalid", "true");
      this.say(msg.badOrder);
      return;
    }
    this.model.mark({ ...m, from, to });
  }

  /** Says what the span lacks, and about how large it is. */
  private async lookInside(): Promise<void> {
    const m = this.model.marked;
    if (!m) return;
    this.looked = `${m.stream} ${m.from} ${m.to}`;
    const step = Math.floor((m.to - m.from) / 1000 / 2000);
    const c = await api.coverage(m.stream, "", m.from, m.to, step).catch(() => null);
    if (!c || this.model.marked !== m) return;
    const sums: Partial<Record<api.State, number>> = {};
    let covered = 0;
    for (const s of c.spans) {
      const length = Math.max(0, Math.min(s.to, m.to) - Math.max(s.from, m.from)) / 1000;
      covered += length;
      const parts = s.seconds && isTrouble(s.state) ? s.seconds : { [s.state]: length };
      for (const [state, n] of Object.entries(parts)) sums[state as api.State] = (sums[state as api.State] ?? 0) + n;
    }
    const missing = (sums.missing ?? 0) + Math.max(0, (m.to - m.from) / 1000 - covered);
    const bad: string[] = [];
    if (missing > 0.5) bad.push(msg.missingShort(duration(missing)));
    if (sums.damaged) bad.push(msg.partOf(msg.state.damaged, duration(sums.damaged)));
    const rate = this.model.byName.get(m.stream)?.archive.bytes_per_second ?? 0;
    const size = rate * Math.max(0, (m.to - m.from) / 1000 - missing);
    this.what.classList.toggle("lacks", bad.length > 0);
    text(this.what, [bad.length ? msg.lacks(bad.join(", ")) : msg.wholeSpan, size > 0 ? msg.aboutBytes(bytes(size)) : ""].filter(Boolean).join("; "));
  }

  download(): void {
    if (this.model.marked) this.mp4.click();
    else this.actions.announce(msg.selectionHint);
  }

  async keep(): Promise<void> {
    const m = this.model.marked;
    if (!m) {
      this.actions.announce(msg.selectionHint);
      return;
    }
    this.say(msg.keeping);
    this.keepButton.disabled = true;
    try {
      const name = await askForKey(this.el, () => api.keep(m.stream, m.from, m.to, this.name.value.trim()));
      this.name.value = "";
      this.say(msg.keptAs(name));
      this.actions.changed(m.stream);
    } catch (err) {
      this.say(msg.keepFailed(err instanceof Error ? err.message : String(err)));
    } finally {
      this.keepButton.disabled = false;
    }
  }

  private say(s: string): void {
    this.note.hidden = s === "";
    text(this.note, s);
  }
}
