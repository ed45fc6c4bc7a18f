// The tip at the pointer: what each node has at that moment, why a gap is there,
// and a picture.

import * as api from "./api.js";
import { fill, h } from "./dom.js";
import type { Said } from "./explain.js";
import { moment } from "./format.js";
import { msg } from "./messages.en.js";

export class Tip {
  readonly el = h("div", { class: "tip", role: "tooltip", id: "tip", hidden: true });
  private readonly words = h("div", { class: "tip-words" });
  private readonly video = h("video", { class: "tip-picture", muted: true, playsInline: true, preload: "auto", "aria-hidden": "true", hidden: true });
  private timer = 0;
  private shown = "";

  constructor() {
    this.el.append(this.video, this.words);
    this.video.addEventListener("loadeddata", () => (this.video.hidden = false));
    this.video.addEventListener("error", () => (this.video.hidden = true));
  }

  /** Shows what is said about a moment, near a point of the window. */
  show(x: number, y: number, t: number, all: Said[], focus: string, now: number, hint: string): void {
    const lanes = all.map((s) =>
      h(
        "div",
        { class: `said ${s.node === focus ? "said-focus" : ""}` },
        h("span", { class: `swatch is-${s.state}`, "aria-hidden": "true" }),
        h(
          "div",
          null,
          h("strong", null, s.label),
          ` ${s.what}`,
          s.kept && h("span", { class: "tag is-kept" }, `${msg.kept}: ${s.kept}`),
          s.when && h("div", { class: "dim" }, s.when),
          s.parts && h("div", { class: "dim" }, s.parts),
          s.why && h("div", { class: "why" }, s.why),
          s.fill && h("div", null, s.fill),
        ),
      ),
    );
    fill(this.words, h("div", { class: "tip-time" }, moment(t, now)), lanes, hint && h("div", { class: "dim" }, hint));
    this.el.hidden = false;
    this.place(x, y);
  }

  private place(x: number, y: number): void {
    const { innerWidth: w, innerHeight: height } = window;
    const box = this.el.getBoundingClientRect();
    const left = Math.max(8, Math.min(w - box.width - 8, x + 16));
    const below = y + 20 + box.height < height;
    this.el.style.left = `${left}px`;
    this.el.style.top = `${below ? y + 20 : Math.max(8, y - box.height - 16)}px`;
  }

  /** Loads the picture of a moment, once the pointer has come to rest there. */
  picture(stream: string, t: number | null): void {
    window.clearTimeout(this.timer);
    if (t === null) {
      this.dropPicture();
      return;
    }
    const url = api.previewURL(stream, t);
    if (url === this.shown) return;
    this.dropPicture();
    this.timer = window.setTimeout(() => {
      this.shown = url;
      this.video.src = url;
    }, 250);
  }

  private dropPicture(): void {
    this.video.hidden = true;
    if (!this.shown) return;
    this.shown = "";
    this.video.removeAttribute("src");
    this.video.load();
  }

  hide(): void {
    this.el.hidden = true;
    window.clearTimeout(this.timer);
    this.dropPicture();
  }
}
