// Plays an archive from a moment on: by hls.js, or by the browser itself where
// that can. A playlist is of an hour, or grows up to now; behind its end the next
// one follows. Gaps are passed over, and told of.

import type { default as HlsClass, ErrorData, Fragment, LevelDetails } from "hls.js";
import * as api from "./api.js";
import { fill, h, text } from "./dom.js";
import { duration, moment, stamp } from "./format.js";
import { msg } from "./messages.en.js";
import type { Model } from "./model.js";

type Hls = InstanceType<typeof HlsClass>;

/** Of one playlist, ms. */
const windowLength = 3600_000;
/** So much before the moment it begins, to step back into. */
const lead = 30_000;
/** A playlist that ends so close to now grows. */
const nearNow = 30_000;
/** Silence between two segments that is told of, ms. */
const gapTold = 1500;

let library: Promise<typeof HlsClass> | null = null;

/** Loads hls.js, once. */
export function loadLibrary(): Promise<typeof HlsClass> {
  library ??= import("hls.js").then((m) => m.default);
  return library;
}

export interface PlayerActions {
  markFrom(stream: string, t: number): void;
  markTo(stream: string, t: number): void;
}

export class Player {
  readonly video = h("video", { class: "video", controls: true, playsInline: true, preload: "auto" });
  readonly el: HTMLElement;
  private readonly title = h("h2", { class: "player-title" });
  private readonly time = h("div", { class: "player-time", "aria-live": "off" });
  private readonly note = h("p", { class: "note", role: "status", hidden: true });
  private readonly problem = h("div", { class: "player-problem", role: "alert", hidden: true });
  private readonly sound = h("select", { class: "small", "aria-label": msg.audioTrack, hidden: true });
  private hls: Hls | null = null;
  private details: LevelDetails | null = null;
  private last: Fragment | null = null;
  private stream = "";
  private wanted: number | null = null;
  private live = false;
  private round = 0;
  private recovered = 0;
  /** Where it went on behind what could not be decoded. */
  private resumed = -1;
  private noteTimer = 0;

  constructor(
    private readonly model: Model,
    actions: PlayerActions,
  ) {
    this.video.setAttribute("aria-label", msg.player);
    const button = (label: string, run: () => void, help = label): HTMLButtonElement =>
      h("button", { type: "button", class: "small", title: help, onclick: run }, label);
    const speed = h("select", { class: "small", "aria-label": msg.speed, title: msg.speed }, ...[0.25, 0.5, 1, 1.5, 2, 4].map((n) => h("option", { value: String(n), selected: n === 1 }, `${n}×`)));
    speed.addEventListener("change", () => {
      this.video.playbackRate = Number(speed.value);
    });
    this.sound.addEventListener("change", () => {
      if (this.hls) this.hls.audioTrack = Number(this.sound.value);
    });
    this.el = h(
      "section",
      { class: "player", "aria-label": msg.player, hidden: true },
      h("div", { class: "player-head" }, this.title, this.time, h("button", { type: "button", class: "icon", "aria-label": msg.closePlayer, title: msg.closePlayer, onclick: () => this.close() }, "✕")),
      this.video,
      this.problem,
      this.note,
      h(
        "div",
        { class: "player-bar" },
        button("−10 s", () => this.skip(-10), msg.back10),
        button("+10 s", () => this.skip(10), msg.forward10),
        button(msg.goLive, () => void this.play(this.stream, "live"), msg.playLive),
        speed,
        this.sound,
        button(msg.markFromHere, () => this.withTime((t) => actions.markFrom(this.stream, t)), msg.markFromHelp),
        button(msg.markToHere, () => this.withTime((t) => actions.markTo(this.stream, t)), msg.markToHelp),
      ),
    );
    this.video.addEventListener("timeupdate", () => this.tick());
    this.video.addEventListener("seeked", () => this.tick());
    this.video.addEventListener("ended", () => void this.goOn());
    this.video.addEventListener("error", () => this.undecodable());
  }

  get isOpen(): boolean {
    return !this.el.hidden;
  }

  /** The moment that is shown; null while nothing is. */
  now(): number | null {
    const f = this.fragmentAt(this.video.currentTime);
    if (f?.programDateTime != null) return f.programDateTime + (this.video.currentTime - f.start) * 1000;
    const native = (this.video as HTMLVideoElement & { getStartDate?: () => Date }).getStartDate?.().getTime();
    return native && !Number.isNaN(native) ? native + this.video.currentTime * 1000 : null;
  }

  /** Plays a stream from a moment on. */
  async play(stream: string, at: number | "live"): Promise<void> {
    this.el.hidden = false;
    text(this.title, stream);
    this.say("");
    this.fail(null);
    if (at !== "live" && stream === this.stream && this.seekWithin(at)) {
      this.start();
      return;
    }
    const round = ++this.round;
    this.stream = stream;
    this.live = at === "live";
    this.wanted = at === "live" ? null : at;
    this.recovered = 0;
    this.resumed = -1;
    this.tell(at === "live" ? Date.now() : at);
    await this.load(this.address(stream, at), round);
  }

  private address(stream: string, at: number | "live"): string {
    if (at === "live") return api.liveURL(stream);
    const from = at - lead;
    const to = at + windowLength;
    return api.archiveURL(stream, from, to > Date.now() - nearNow ? "now" : to, "m3u8");
  }

  private async load(url: string, round: number): Promise<void> {
    this.unload();
    const Hls = await loadLibrary().catch(() => null);
    if (round !== this.round) return;
    if (!Hls?.isSupported()) {
      if (this.video.canPlayType("application/vnd.apple.mpegurl")) {
        this.video.src = url;
        this.start();
      } else this.fail(msg.noHls, url);
      return;
    }
    // Fragments are MP4 already: there is nothing for a worker to do, and the
    // page's policy needs no exception for it.
    const hls = new Hls({ enableWorker: false, startPosition: this.live ? -1 : 0, backBufferLength: 60, maxBufferLength: 30, lowLatencyMode: false });
    this.hls = hls;
    hls.on(Hls.Events.LEVEL_UPDATED, (_, data) => this.gotDetails(data.details));
    hls.on(Hls.Events.LEVEL_LOADED, (_, data) => this.gotDetails(data.details));
    hls.on(Hls.Events.FRAG_CHANGED, (_, data) => this.entered(data.frag));
    hls.on(Hls.Events.AUDIO_TRACKS_UPDATED, () => this.listSound());
    hls.on(Hls.Events.ERROR, (_, data) => void this.wrong(data, url, round, Hls));
    hls.loadSource(url);
    hls.attachMedia(this.video);
    this.start();
  }

  private start(): void {
    this.video.play().catch((err: unknown) => {
      // Without a click beforehand a browser plays only without sound.
      if (err instanceof DOMException && err.name === "NotAllowedError") {
        this.video.muted = true;
        this.video.play().catch(() => {});
      }
    });
  }

  private unload(): void {
    this.hls?.destroy();
    this.hls = null;
    this.details = null;
    this.last = null;
    this.video.removeAttribute("src");
  }

  close(): void {
    this.round++;
    this.unload();
    this.video.load();
    this.stream = "";
    this.el.hidden = true;
    this.model.playing = null;
    this.model.emit("playing");
  }

  private gotDetails(d: LevelDetails): void {
    this.details = d;
    if (this.wanted === null || d.fragments.length === 0) return;
    const t = this.wanted;
    this.wanted = null;
    const first = d.fragments.find((f) => f.programDateTime != null && f.programDateTime + f.duration * 1000 > t);
    if (!first?.programDateTime) {
      void this.goOn(t);
      return;
    }
    if (first.programDateTime > t + gapTold) this.sayGap(t, first.programDateTime);
    this.video.currentTime = this.place(first, t);
  }

  private place(f: Fragment, t: number): number {
    return f.start + Math.max(0, (t - (f.programDateTime ?? t)) / 1000) + 0.01;
  }

  private seekWithin(t: number): boolean {
    const f = this.details?.fragments.find((x) => x.programDateTime != null && x.programDateTime <= t && t < x.programDateTime + x.duration * 1000);
    if (!f || !this.hls || this.live) return false;
    this.video.currentTime = this.place(f, t);
    return true;
  }

  private fragmentAt(position: number): Fragment | null {
    const all = this.details?.fragments;
    if (!all?.length) return null;
    return all.find((f) => f.start <= position && position < f.start + f.duration) ?? (position >= (all.at(-1)?.start ?? 0) ? (all.at(-1) ?? null) : null);
  }

  /** Another segment plays: was there a gap before it? */
  private entered(f: Fragment): void {
    const before = this.last;
    this.last = f;
    if (!before || f.sn === before.sn || typeof f.sn !== "number" || f.sn !== Number(before.sn) + 1) return;
    if (before.programDateTime == null || f.programDateTime == null) return;
    const end = before.programDateTime + before.duration * 1000;
    if (f.programDateTime - end > gapTold) this.sayGap(end, f.programDateTime);
  }

  private sayGap(from: number, to: number): void {
    const now = Date.now();
    this.say(msg.skipped(moment(from, now), moment(to, now), duration((to - from) / 1000)));
  }

  /** The playlist has ended, or has nothing from a moment on: what comes next? */
  private async goOn(from?: number): Promise<void> {
    const round = this.round;
    const last = this.details?.fragments.at(-1);
    const end = from ?? (last?.programDateTime != null ? last.programDateTime + last.duration * 1000 : null);
    if (end === null) return;
    const next = await this.nextRecorded(this.stream, end + 500);
    if (round !== this.round) return;
    if (next === null) {
      this.say(from === undefined ? msg.atEnd : msg.nothingThere);
      return;
    }
    await this.play(this.stream, next);
    if (next > end + gapTold) this.sayGap(end, next);
  }

  private async nextRecorded(stream: string, t: number): Promise<number | null> {
    try {
      const c = await api.coverage(stream, "", t, Date.now() + 60_000, 0);
      const next = c.spans.find((s) => s.state !== "missing" && s.to > t + 1000);
      return next ? Math.max(t, next.from) : null;
    } catch {
      return null;
    }
  }

  private async wrong(data: ErrorData, url: string, round: number, Hls: typeof HlsClass): Promise<void> {
    if (round !== this.round) return;
    const d = Hls.ErrorDetails;
    if (data.details === d.BUFFER_ADD_CODEC_ERROR || data.details === d.MANIFEST_INCOMPATIBLE_CODECS_ERROR || data.details === d.BUFFER_INCOMPATIBLE_CODECS_ERROR) {
      this.fail(msg.cannotDecode(data.mimeType ?? data.level?.toString() ?? data.details), url);
      return;
    }
    if (!data.fatal) return;
    if (data.response?.code === 404 && this.wanted !== null) {
      const t = this.wanted;
      this.wanted = null;
      await this.goOn(t);
      return;
    }
    if (data.type === Hls.ErrorTypes.MEDIA_ERROR && !this.video.error && this.recovered++ < 3) {
      this.hls?.recoverMediaError();
      return;
    }
    if (data.type === Hls.ErrorTypes.MEDIA_ERROR && this.video.error && this.undecodable()) return;
    this.fail(msg.loadFailed(data.response?.code ? `${data.response.code} ${data.response.text}` : data.error.message || data.details), url);
  }

  /**
   * Damage can end a browser's decoder. Each segment opens at a keyframe, so it can begin anew with the next one;
   * false: it gives up.
   */
  private undecodable(): boolean {
    const { hls, video, details } = this;
    if (!hls || !details || video.error?.code !== MediaError.MEDIA_ERR_DECODE) return false;
    if (this.recovered++ > 30) {
      this.fail(msg.loadFailed(video.error.message));
      return false;
    }
    const from = Math.max(video.currentTime, this.resumed) + 0.3;
    const next = details.fragments.find((f) => f.start > from);
    if (!next) {
      void this.goOn();
      return true;
    }
    const rate = video.playbackRate;
    this.resumed = next.start;
    this.say(msg.undecodable);
    hls.detachMedia();
    hls.attachMedia(video);
    hls.startLoad(next.start + 0.01);
    video.addEventListener(
      "loadedmetadata",
      () => {
        video.currentTime = next.start + 0.01;
        video.playbackRate = rate;
        this.start();
      },
      { once: true },
    );
    return true;
  }

  private listSound(): void {
    const tracks = this.hls?.audioTracks ?? [];
    this.sound.hidden = tracks.length < 2;
    fill(this.sound, tracks.map((t, i) => h("option", { value: String(i), selected: i === this.hls?.audioTrack }, t.name || t.lang || String(i + 1))));
  }

  private fail(why: string | null, url = ""): void {
    this.problem.hidden = why === null;
    if (why === null) return;
    const address = new URL(url, location.href).href;
    const copy = h("button", { type: "button", class: "small" }, msg.copy);
    copy.addEventListener("click", () => void navigator.clipboard?.writeText(address).then(() => text(copy, msg.copied)));
    fill(this.problem, h("p", null, why), url && h("p", { class: "address" }, h("code", null, address), copy));
  }

  private say(s: string): void {
    window.clearTimeout(this.noteTimer);
    this.note.hidden = s === "";
    text(this.note, s);
    if (s) this.noteTimer = window.setTimeout(() => (this.note.hidden = true), 15_000);
  }

  private tick(): void {
    const t = this.now();
    if (t !== null && this.wanted === null) this.tell(t);
  }

  private tell(t: number): void {
    text(this.time, stamp(t));
    this.model.playing = { stream: this.stream, t };
    this.model.emit("playing");
  }

  private withTime(f: (t: number) => void): void {
    const t = this.now();
    if (t !== null) f(t);
  }

  private skip(seconds: number): void {
    const t = this.now();
    if (t === null) return;
    const to = t + seconds * 1000;
    if (!this.seekWithin(to)) void this.play(this.stream, Math.min(to, Date.now()));
  }
}
