// A node that is made up, to work on the page without one: STREAMS=200 node mock.mjs
// serves the page as it is built, and an API whose archives are computed. Nothing
// of it is shipped.
import { createServer } from "node:http";
import { readFile, readdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const dist = process.env.PAGE_DIST ?? join(here, "../pkg/serve/web/dist");
const day = 86400e3;

/** Numbers between 0 and 1 that follow from a seed. */
function random(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const iso = (t) => new Date(t).toISOString();

/** Thirty days of one node's archive, as spans that follow each other. */
function archive(seed, begin, end, busy) {
  const r = random(seed);
  const spans = [];
  const put = (state, length) => {
    const from = spans.at(-1)?.to ?? begin;
    if (from < end) spans.push({ from, to: Math.min(end, from + length), state });
  };
  while ((spans.at(-1)?.to ?? begin) < end) {
    put(r() < 0.85 ? "live" : "replicated", (0.2 + r() * busy) * day);
    const x = r();
    if (x < 0.25) put("missing", (4 + r() * 900) * 1000);
    else if (x < 0.6) put("healed", (4 + r() * 7200) * 1000);
    else if (x < 0.8) put("damaged", (4 + r() * 60) * 1000);
  }
  return spans;
}

export function mock({ count = 12, now = () => Date.now(), delay = 0, live = true } = {}) {
  const began = now() - 30 * day;
  const modes = ["offline", "emergency", "recovery", "recovery"];
  const names = Array.from({ length: count }, (_, i) => ["news", "sport/hd", "sport/uhd", "film", "music", "kids", "regional/north", "regional/south"][i % 8] + (i < 8 ? "" : `-${Math.floor(i / 8)}`));
  const own = names.map((_, i) => archive(i * 7 + 1, began, now(), 4));
  const twin = names.map((_, i) => archive(i * 7 + 2, began, now(), 4));
  const keeps = new Map([["news", [{ name: "final", from: now() - 3 * 3600e3, to: now() - 1.5 * 3600e3 }]]]);
  const clients = new Set();
  let changedMode = null;

  const status = (name, i) => {
    const mode = changedMode && i === 0 ? changedMode : i < 4 && count > 4 ? modes[i] : "normal";
    const lag = mode === "offline" ? 340 : 3.2;
    const gap = own[i].filter((s) => s.state === "missing").reduce((n, s) => n + (s.to - s.from) / 1000, 0);
    const port = 1234 + i;
    const bad = mode === "offline" || mode === "emergency";
    const inputs = [
      { url: `udp://239.1.${Math.floor(i / 250)}.${i % 250}:${port}`, state: bad ? "silent" : "good", active: !bad, error: bad ? "no packet for 340 s" : undefined, packets: 91231231, lost: i % 5 === 0 ? 117 : 0, errored: 0, dropped: 0 },
      { url: `m4f://b.example.com/${name}`, state: mode === "offline" ? "failed" : "good", active: mode === "emergency", standby: "cold", packets: 0, lost: 0, errored: 0, dropped: 0, error: mode === "offline" ? "connection refused" : undefined },
    ];
    const peers = [{ url: `m4f://b.example.com/${name}`, reachable: mode !== "offline", replicates: true, error: mode === "offline" ? "connection refused" : undefined, mode: "normal", pending: 0, lag_seconds: 0.4, reconciling: mode === "recovery", backlog_bytes: mode === "recovery" ? 812345678 : 0, eta_seconds: mode === "recovery" ? 95 : undefined, bytes: 1, unfilled: 0 }];
    return {
      name, mode, healthy: !bad, unreplicated: mode === "offline", retired: false, inputs, peers,
      problems: mode === "offline" ? ["no input works: udp://239.1.0.0:1234 is silent since 340 s, the peer b.example.com refuses connections", "no peer can be reached"] : mode === "emergency" ? ["the first input does not work: no packet for 340 s; the peer is recorded"] : [],
      archive: { dir: "/storage/" + name, oldest: iso(began), newest: iso(now() - lag * 1000), horizon: iso(began), depth_seconds: 30 * 86400, lag_seconds: lag, gaps: own[i].filter((s) => s.state === "missing").length, gap_seconds: i % 3 ? gap : 0, damaged: i % 4 ? 0 : 3, partial: 0, segments: 648000, bytes: 1.9e12, bytes_per_second: 750000, depth_reached_seconds: 30 * 86400, kept: 0, disk_free_bytes: 4.1e12, days_until_full: 41 },
    };
  };

  const coverage = (q) => {
    const i = names.indexOf(q.get("stream"));
    const [from, to, step] = ["from", "to", "step"].map((k) => Number(q.get(k)) * 1000);
    if (q.get("node") && i === 0 && count > 4) return { status: 502, body: { title: "Bad Gateway", status: 502, detail: "b.example.com: connection refused" } };
    const spans = (q.get("node") ? twin : own)[i];
    const last = spans.at(-1);
    const newest = q.get("node") ? now() - 3000 : Date.parse(status(q.get("stream"), i).archive.newest);
    const all = last.to < newest ? [...spans, { from: last.to, to: newest, state: "live" }] : spans;
    const cut = all.filter((s) => s.to > from && s.from < to && s.from < newest).map((s) => ({ from: iso(Math.max(s.from, from)), to: iso(Math.min(s.to, to, newest)), state: s.state, segments: 1, bytes: 1 }));
    return { body: { stream: q.get("stream"), from: iso(from), to: iso(to), step, oldest: iso(began), newest: iso(newest), horizon: iso(began), spans: cut, kept: (keeps.get(q.get("stream")) ?? []).map((k) => ({ name: k.name, from: iso(k.from), to: iso(k.to) })) } };
  };

  const gaps = (q) => {
    const i = names.indexOf(q.get("stream"));
    const [from, to] = ["from", "to"].map((k) => Number(q.get(k)) * 1000);
    const found = own[i].filter((s) => s.state === "missing" && s.to > from && s.from < to);
    const fills = ["peer", "nobody", "filling", "nobody"];
    return { body: { stream: names[i], from: iso(from), to: iso(to), more: false, peers: [], gaps: found.map((s, n) => ({ from: iso(s.from), to: iso(s.to), seconds: (s.to - s.from) / 1000, cause: { msg: ["udp://239.1.0.0:1234 delivered nothing for 40 s", "the node was stopped", "disk full: /storage has 0 bytes free"][n % 3], kind: "source-lost" }, fill: fills[n % 4], peer: n % 4 === 0 ? `m4f://b.example.com/${names[i]}` : undefined })) } };
  };

  const kinds = [["source-lost", "udp://239.1.0.0:1234 delivers nothing any more"], ["switch", "recording m4f://b.example.com from now on"], ["source-back", "udp://239.1.0.0:1234 delivers again"], ["heal", "12 segments were fetched from b.example.com, 48 s of gaps filled"], ["bad-input", "3 packets lost on PID 256"], ["prune", "1 hour removed: older than 30 d"]];
  const event = (n, t) => ({ time: iso(t), stream: names[n % names.length], kind: kinds[n % kinds.length][0], msg: kinds[n % kinds.length][1] });

  const answers = {
    streams: () => ({ body: { node: "5f3a", host: "a.example.com", version: "v0.5.0", started: iso(began), supervised: true, healthy: false, streams: names.map(status) } }),
    coverage, gaps,
    events: () => ({ body: { from: iso(began), to: iso(now()), more: false, events: Array.from({ length: 40 }, (_, n) => event(n, now() - (40 - n) * 77e3)) } }),
    keeps: (q) => ({ body: { keeps: (keeps.get(q.get("stream")) ?? []).map((k) => ({ stream: q.get("stream"), name: k.name, from: iso(k.from), to: iso(k.to), created: iso(now()), seconds: 1, bytes: 1 })) } }),
  };

  async function file(res, name) {
    const files = await readdir(dist);
    if (!files.includes(name + ".gz")) return false;
    const kind = { html: "text/html; charset=utf-8", js: "text/javascript", css: "text/css", svg: "image/svg+xml" }[name.split(".").at(-1)];
    res.writeHead(200, { "Content-Type": kind, "Content-Encoding": "gzip" }).end(await readFile(join(dist, name + ".gz")));
    return true;
  }

  const server = createServer(async (req, res) => {
    const url = new URL(req.url, "http://x");
    if (url.pathname === "/" && (await file(res, "index.html"))) return;
    if (url.pathname.startsWith("/.web/") && (await file(res, url.pathname.slice("/.web/".length)))) return;
    const name = url.pathname.replace("/api/v1/", "");
    if (name === "events/live" && live) {
      res.writeHead(200, { "Content-Type": "text/event-stream" }).write(":\n\n");
      clients.add(res);
      req.on("close", () => clients.delete(res));
      return;
    }
    const send = ({ status: code = 200, body }) => setTimeout(() => res.writeHead(code, { "Content-Type": "application/json" }).end(JSON.stringify(body)), delay);
    if (name === "events/live") return send({ status: 501, body: { detail: "this is no supervised node" } });
    if (req.method === "POST" && name === "keeps") {
      let text = "";
      for await (const c of req) text += c;
      const k = JSON.parse(text);
      if (req.headers.authorization !== "Bearer secret") return send({ status: 401, body: { detail: "this needs the write key" } });
      const kept = { name: k.name ?? "kept-1", from: Date.parse(k.from), to: Date.parse(k.to) };
      keeps.set(k.stream, [...(keeps.get(k.stream) ?? []), kept]);
      return send({ status: 201, body: kept });
    }
    if (answers[name]) return send(answers[name](url.searchParams));
    send({ status: 404, body: { detail: "nothing is served at this address" } });
  });
  return {
    server,
    names,
    /** Something happens. */
    tell: (e) => {
      for (const c of clients) c.write(`data: ${JSON.stringify({ time: iso(now()), ...e })}\n\n`);
    },
    setMode: (m) => (changedMode = m),
    async listen(port = 0) {
      await new Promise((done) => server.listen(port, "127.0.0.1", done));
      return `http://127.0.0.1:${server.address().port}`;
    },
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const m = mock({ count: Number(process.env.STREAMS ?? 12) });
  console.log(await m.listen(Number(process.env.PORT ?? 8099)));
  let n = 0;
  setInterval(() => m.tell({ stream: m.names[n % m.names.length], kind: n % 3 ? "heal" : "source-lost", msg: `number ${n++} since the start` }), 3000);
}
