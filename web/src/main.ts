// The page: puts its parts together and asks the node how it is.

import * as api from "./api.js";
import { CoverageStore } from "./coverage.js";
import { Detail } from "./detail.js";
import { append, fill, h, settled, text } from "./dom.js";
import { Causes } from "./explain.js";
import { getZone, moment, setZone, type Zone } from "./format.js";
import { askForKey } from "./key.js";
import { List, shows, type Show } from "./list.js";
import { EventLog } from "./log.js";
import { msg } from "./messages.en.js";
import { Model, rank } from "./model.js";
import { loadLibrary, Player } from "./player.js";
import { Selection } from "./selection.js";
import { states } from "./theme.js";
import { Tip } from "./tip.js";
import { Viewport } from "./viewport.js";

const hour = 3600_000;
const ranges: [keyof typeof msg.ranges, number][] = [
  ["15m", hour / 4],
  ["1h", hour],
  ["6h", 6 * hour],
  ["24h", 24 * hour],
  ["7d", 7 * 24 * hour],
  ["30d", 30 * 24 * hour],
  ["all", 0],
];

/** What of the reader's choices outlives the page. */
const stored = {
  get(name: string): string | null {
    try {
      return localStorage.getItem("twindvr." + name);
    } catch {
      return null;
    }
  },
  set(name: string, value: string): void {
    try {
      localStorage.setItem("twindvr." + name, value);
    } catch {
      // Private browsing: it is forgotten.
    }
  },
};

setZone(stored.get("zone") === "utc" ? "utc" : "local");

const model = new Model();
const view = new Viewport(6 * hour);
const store = new CoverageStore((lane, from, to, step) => api.coverage(lane.stream, lane.node, from, to, step));
const causes = new Causes();
const tip = new Tip();
const live = h("div", { class: "sr-only", role: "status", "aria-live": "polite" });

function announce(s: string): void {
  live.textContent = "";
  window.setTimeout(() => (live.textContent = s), 50);
}

const player = new Player(model, {
  markFrom: (stream, t) => model.mark({ stream, from: t, to: model.marked?.stream === stream && model.marked.to > t ? model.marked.to : t + 60_000 }),
  markTo: (stream, t) => model.mark({ stream, from: model.marked?.stream === stream && model.marked.from < t ? model.marked.from : t - 60_000, to: t }),
});

function play(stream: string, t: number): void {
  const newest = Date.parse(model.byName.get(stream)?.archive.newest ?? "");
  if (model.chosen !== stream) model.choose(stream);
  document.body.classList.add("playing");
  announce(msg.playing(stream));
  // Behind the end of the archive there is only what comes.
  void player.play(stream, !Number.isNaN(newest) && t > newest - 8000 && t > Date.now() - 60_000 ? "live" : t);
}

function changed(stream: string): void {
  store.invalidate(stream);
  causes.forget(stream);
  store.pump();
  detail.again();
}

const selection = new Selection(model, { play, zoomTo: (from, to) => zoomTo(from, to), announce, changed });
const detail = new Detail(model, view, {
  show: (stream, from, to) => {
    zoomTo(from, to);
    list.go(stream);
    tab("streams");
  },
  play,
  changed,
});
const list = new List(model, view, store, causes, tip, {
  play,
  choose: (stream) => {
    model.choose(stream);
    tab("detail");
  },
  download: () => selection.download(),
  keep: () => void selection.keep(),
  escape: () => {
    if (model.marked) model.mark(null);
    else player.close();
  },
  announce,
});
const log = new EventLog(model, {
  show: (stream, t) => {
    view.reveal(t);
    if (view.span > 3 * hour) zoomTo(t - 5 * 60_000, t + 5 * 60_000);
    if (stream) {
      model.choose(stream);
      list.go(stream);
    }
    tab("streams");
  },
  happened: (e) => {
    pollSoon();
    if (e.stream && (e.kind === "heal" || e.kind === "corrupt" || e.kind === "verify" || e.kind === "prune" || e.kind === "source-lost")) {
      invalidateSoon(e.stream);
    }
  },
  changed: (stream, from, to) => {
    store.invalidate(stream, from, to);
    store.pump();
    if (stream === model.chosen) detail.again();
  },
});

const dirty = new Set<string>();
const invalidateNow = settled(1000, () => {
  for (const s of dirty) changed(s);
  dirty.clear();
});
function invalidateSoon(stream: string): void {
  dirty.add(stream);
  invalidateNow();
}

/** Shows a span with some room on both sides. */
function zoomTo(from: number, to: number): void {
  const room = Math.max(30_000, (to - from) * 0.6);
  view.show(from - room, to + room);
}

// ---- the head of the page

const health = h("button", { type: "button", class: "health", "aria-pressed": "false", title: msg.showTrouble }, msg.loading);
const counts = h("div", { class: "counts", role: "group", "aria-label": msg.filter });
const nodeName = h("span", { class: "node" });
const banner = h("div", { class: "banner", role: "alert", hidden: true });
const keyPlace = h("div", { class: "key-place" });
const search = h("input", { type: "search", placeholder: msg.filter, "aria-label": msg.filter, class: "search", autocomplete: "off", spellcheck: false });
const order = h("select", { "aria-label": msg.order, title: msg.order }, h("option", { value: "trouble" }, msg.orderTrouble), h("option", { value: "name" }, msg.orderName));
const zone = h("select", { "aria-label": msg.zoneHelp, title: msg.zoneHelp }, h("option", { value: "local" }, msg.zone.local), h("option", { value: "utc" }, msg.zone.utc));
const help = h("dialog", { class: "help", "aria-label": msg.helpTitle });
const rangeButtons = ranges.map(([name, span]) => {
  const b = h("button", { type: "button", "aria-pressed": "false" }, msg.ranges[name]);
  b.addEventListener("click", () => showRange(span));
  return b;
});
const nowButton = h("button", { type: "button", class: "now", title: msg.nowHelp, "aria-pressed": "true", onclick: () => view.follow() }, msg.now);
const markButton = h("button", { type: "button", title: msg.markHelp, "aria-pressed": "false" }, msg.mark);

markButton.addEventListener("click", () => {
  model.marking = !model.marking;
  markButton.setAttribute("aria-pressed", String(model.marking));
  document.body.classList.toggle("marking", model.marking);
});

function showRange(span: number): void {
  if (span > 0) {
    view.follow(span / 0.98);
    return;
  }
  const oldest = (model.status?.streams ?? []).map((s) => Date.parse(s.archive.oldest ?? "")).filter((t) => !Number.isNaN(t));
  const from = oldest.length ? Math.min(...oldest) : Date.now() - 24 * hour;
  view.follow((Date.now() - from) * 1.03);
}

const icon = (label: string, sign: string, run: () => void): HTMLButtonElement =>
  h("button", { type: "button", class: "icon", "aria-label": label, title: label, onclick: run }, sign);

function middle(): number {
  return view.following ? Date.now() : (view.from + view.to) / 2;
}

const header = h(
  "header",
  { class: "top" },
  h("div", { class: "brand" }, h("h1", null, msg.title), nodeName),
  health,
  counts,
  h("div", { class: "spring" }),
  search,
  order,
  zone,
  icon(msg.help, "?", () => help.showModal()),
);

const toolbar = h(
  "div",
  { class: "toolbar", role: "toolbar", "aria-label": msg.range },
  h("div", { class: "group" }, rangeButtons),
  h("div", { class: "group" }, icon(msg.zoomOut, "−", () => view.zoom(2, middle())), icon(msg.zoomIn, "+", () => view.zoom(0.5, middle()))),
  h("div", { class: "group" }, icon(msg.earlier, "‹", () => view.pan(-view.span / 2)), icon(msg.later, "›", () => view.pan(view.span / 2)), nowButton),
  h("div", { class: "group" }, markButton),
  h(
    "ul",
    { class: "legend", "aria-label": msg.legend },
    states.map((s) => h("li", { title: msg.stateHelp[s] }, h("span", { class: `swatch is-${s}` }), msg.state[s])),
    h("li", { title: msg.keptHelp }, h("span", { class: "swatch is-kept" }), msg.kept),
  ),
);

fill(
  help,
  h("h2", null, msg.helpTitle),
  h("dl", null, msg.helpText.flatMap(([a, b]) => [h("dt", null, a), h("dd", null, b)])),
  h("h3", null, msg.helpKeys),
  h("dl", { class: "keys" }, msg.keys.flatMap(([a, b]) => [h("dt", null, a.split(" ").map((k) => h("kbd", null, k))), h("dd", null, b)])),
  h("form", { method: "dialog" }, h("button", { class: "primary" }, msg.close)),
);

search.addEventListener("input", () => {
  list.filter = search.value;
  list.refresh(true);
});
order.addEventListener("change", () => {
  list.sortByName = order.value === "name";
  stored.set("order", order.value);
  list.refresh(true);
});
zone.addEventListener("change", () => {
  setZone(zone.value as Zone);
  stored.set("zone", zone.value);
  model.emit("zone");
});
zone.value = getZone();
order.value = stored.get("order") === "name" ? "name" : "trouble";
list.sortByName = order.value === "name";

document.addEventListener("keydown", (e) => {
  if (e.key === "/" && !(e.target instanceof HTMLInputElement) && !(e.target instanceof HTMLSelectElement)) {
    e.preventDefault();
    search.focus();
  }
});

// ---- on a narrow screen one part at a time

type Tab = keyof typeof msg.tabs;
const tabs = (Object.keys(msg.tabs) as Tab[]).map((name) => {
  const b = h("button", { type: "button", "aria-pressed": "false", onclick: () => tab(name) }, msg.tabs[name]);
  b.dataset["tab"] = name;
  return b;
});

function tab(name: Tab): void {
  document.body.dataset["tab"] = name;
  for (const b of tabs) b.setAttribute("aria-pressed", String(b.dataset["tab"] === name));
}

document.documentElement.lang = msg.lang;
append(document.body, [
  h("a", { class: "skip", href: "#streams" }, msg.streams),
  header,
  banner,
  keyPlace,
  toolbar,
  h("main", { class: "main" }, h("div", { class: "left", id: "streams" }, list.el, h("p", { id: "timeline-help", class: "sr-only" }, msg.timelineHelp)), h("aside", { class: "side" }, player.el, h("div", { class: "side-middle" }, selection.el, detail.el), log.el)),
  h("nav", { class: "tabs", "aria-label": msg.title }, tabs),
  tip.el,
  help,
  live,
]);
tab("streams");

// ---- asking the node

let lastAnswer = 0;
let polling = false;
let failures = 0;
/** How long the last answer took, ms: a node that is slow is asked less often. */
let took = 0;

async function poll(): Promise<void> {
  if (polling) return;
  polling = true;
  try {
    const asked = Date.now();
    const status = await askForKey(keyPlace, () => api.streams());
    took = Date.now() - asked;
    model.setStatus(status);
    lastAnswer = Date.now();
    failures = 0;
    banner.hidden = true;
    document.body.classList.remove("stale");
  } catch (err) {
    failures++;
    took = 0;
    if (err instanceof api.ApiError && (err.status === 403 || err.status === 401)) {
      text(banner, msg.refused(err.message));
      banner.hidden = false;
    } else if (failures > 1 || !lastAnswer) {
      text(banner, lastAnswer ? msg.stale(moment(lastAnswer, Date.now())) : msg.noAnswer);
      banner.hidden = false;
      document.body.classList.add("stale");
    }
  } finally {
    polling = false;
  }
}

const pollSoon = settled(250, () => void poll());

health.addEventListener("click", () => choose("trouble"));

/** Shows some of the streams, or all again. */
function choose(what: Show): void {
  list.show = list.show === what ? "all" : what;
  list.refresh(true);
  headline();
}

let said = "";

function headline(): void {
  const s = model.status;
  if (!s) return;
  const all = s.streams;
  const bad = all.filter(shows.trouble).length;
  text(health, all.length === 0 ? msg.noStreams : bad ? msg.someTrouble(bad, all.length) : msg.allWell(all.length));
  const worst = all.some((x) => rank(x) === "bad") ? "bad" : bad ? "warn" : "good";
  health.dataset["rank"] = worst;
  health.setAttribute("aria-pressed", String(list.show === "trouble"));
  health.disabled = bad === 0 && list.show !== "trouble";
  if (said !== health.textContent) announce((said = health.textContent ?? ""));
  text(nodeName, s.host ?? s.node);
  nodeName.title = s.version;
  document.title = `${bad ? `(${bad}) ` : ""}${s.host ? s.host + " – " : ""}${msg.title}`;
  const chips = (Object.keys(shows) as Show[]).map((name) => {
    const n = all.filter(shows[name]).length;
    if (name === "trouble" || (n === 0 && name !== list.show && name !== "all")) return null;
    const label = msg.counts[name](n);
    const b = h("button", { type: "button", class: `chip is-${name}`, "aria-pressed": String(list.show === name), title: name === "all" ? msg.showAll : msg.showOnly(label) }, label);
    b.addEventListener("click", () => choose(name));
    return b;
  });
  const focused = [...counts.children].indexOf(document.activeElement as Element);
  if (counts.textContent !== chips.map((c) => c?.textContent ?? "").join("") || counts.dataset["show"] !== list.show) {
    counts.dataset["show"] = list.show;
    fill(counts, chips);
    if (focused >= 0) (counts.children[focused] as HTMLElement | undefined)?.focus();
  }
}

model.on("status", headline);
model.on("playing", () => document.body.classList.toggle("playing", player.isOpen));

// ---- the address tells what is shown, so that it can be sent to somebody

const writeAddress = settled(400, () => {
  const q = new URLSearchParams();
  if (view.following) q.set("last", String(Math.round(view.span / 1000)));
  else {
    q.set("from", String(Math.round(view.from / 1000)));
    q.set("to", String(Math.round(view.to / 1000)));
  }
  if (model.chosen) q.set("stream", model.chosen);
  if (model.playing) q.set("at", String(Math.round(model.playing.t / 1000)));
  if (model.marked) q.set("mark", `${Math.round(model.marked.from / 1000)}-${Math.round(model.marked.to / 1000)}`);
  history.replaceState(null, "", "#" + q.toString());
});

function readAddress(): void {
  const q = new URLSearchParams(location.hash.slice(1));
  const number = (name: string): number | null => {
    const n = Number(q.get(name));
    return q.get(name) && Number.isFinite(n) && n > 0 ? n * 1000 : null;
  };
  const from = number("from");
  const to = number("to");
  const last = number("last");
  if (from !== null && to !== null && to > from) view.show(from, to);
  else if (last !== null) view.follow(last);
  const stream = q.get("stream");
  if (!stream) return;
  model.choose(stream);
  const mark = /^(\d+)-(\d+)$/.exec(q.get("mark") ?? "");
  if (mark) model.mark({ stream, from: Number(mark[1]) * 1000, to: Number(mark[2]) * 1000 });
  const at = number("at");
  if (at !== null) play(stream, at);
}

view.onChange(() => {
  nowButton.setAttribute("aria-pressed", String(view.following));
  ranges.forEach(([, span], i) => rangeButtons[i]?.setAttribute("aria-pressed", String(view.following && span > 0 && Math.abs(view.span * 0.98 - span) < span * 0.01)));
  writeAddress();
});
for (const s of ["marked", "chosen", "playing"] as const) model.on(s, writeAddress);

// ---- begin

function every(ms: () => number, run: () => void): void {
  window.setTimeout(() => {
    if (!document.hidden) run();
    every(ms, run);
  }, ms());
}

async function begin(): Promise<void> {
  readAddress();
  await poll();
  list.refresh(true);
  log.begin();
  every(() => Math.max((model.status?.streams.length ?? 0) > 50 ? 4000 : 2000, Math.min(20_000, 4 * took)), () => void poll());
  // The clock goes on: as often as a pixel is.
  every(() => Math.min(5000, Math.max(250, view.span / 2000)), () => view.tick());
  every(() => 2000, () => store.pump());
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) void poll();
  });
  (window.requestIdleCallback ?? window.setTimeout)(() => void loadLibrary().catch(() => {}));
}

view.follow();
void begin();
