// What needs no browser: times, the scale, the stretch of time that is shown, and
// what is loaded of archives.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";

process.env.TZ = "Europe/Berlin";
const here = dirname(fileURLToPath(import.meta.url));
let dir;
const m = {};

before(async () => {
  dir = await mkdtemp(join(tmpdir(), "twindvr-unit-"));
  const names = ["format", "axis", "viewport", "coverage", "explain", "api"];
  await build({ entryPoints: names.map((n) => join(here, "../src", n + ".ts")), bundle: true, format: "esm", platform: "neutral", outdir: dir, outExtension: { ".js": ".mjs" }, splitting: true, logLevel: "error" });
  for (const n of names) m[n] = await import(pathToFileURL(join(dir, n + ".mjs")).href);
});
after(() => rm(dir, { recursive: true, force: true }));

describe("times and sizes", () => {
  test("lengths of time", () => {
    const { duration } = m.format;
    const want = { 0: "0 s", 3.96: "4 s", 4.25: "4.3 s", 59: "59 s", 59.7: "1 min", 200: "3 min 20 s", 3599.8: "1 h", 7500: "2 h 5 min", 86399: "1 d", 90000: "1 d 1 h", 5270400: "61 d" };
    for (const [s, text] of Object.entries(want)) assert.equal(duration(Number(s)), text);
  });

  test("sizes and rates", () => {
    assert.equal(m.format.bytes(999), "999 B");
    assert.equal(m.format.bytes(1500), "1.5 kB");
    assert.equal(m.format.bytes(999_999), "1.0 MB");
    assert.equal(m.format.bitrate(750_000), "6.0 Mbit/s");
    assert.equal(m.format.count(1234567), "1 234 567");
  });

  test("what is written is read again, in either zone", () => {
    const { stamp, parseStamp, setZone } = m.format;
    for (const zone of ["utc", "local"]) {
      setZone(zone);
      for (let t = Date.UTC(2026, 0, 1); t < Date.UTC(2027, 0, 1); t += 86_399_000 * 3) assert.equal(parseStamp(stamp(t)), t, zone);
    }
    assert.equal(parseStamp("2026-11-22T20:15Z"), Date.UTC(2026, 10, 22, 20, 15));
    for (const bad of ["", "now", "2026-13-01 00:00", "2026-11-22", "2026-11-22 25:00:00", "x2026-11-22 20:15"]) assert.equal(parseStamp(bad), null, bad);
  });

  test("peers by their names", () => {
    const { peerName } = m.format;
    assert.equal(peerName("m4f://b.example.com/sport/hd", "sport/hd"), "b.example.com");
    assert.equal(peerName("m4fs://b:8081/other", "sport/hd"), "b:8081/other");
    assert.equal(peerName("m4f://[2001:db8::1]:8081/a%20b", "a b"), "[2001:db8::1]:8081");
    assert.equal(peerName("no url", "x"), "no url");
  });
});

describe("the scale", () => {
  test("ticks lie in the span, apart from each other, whatever it is", () => {
    for (const zone of ["utc", "local"]) {
      m.format.setZone(zone);
      // Over the change from summer time, too.
      for (const middle of [Date.UTC(2026, 9, 25, 1), Date.UTC(2026, 10, 22, 12, 34, 56)]) {
        for (let span = 20_000; span < 400 * 86400e3; span *= 1.7) {
          const [from, to] = [middle - span / 2, middle + span / 2];
          const all = m.axis.ticks(from, to, 800);
          assert.ok(all.length >= 1 && all.length <= 12, `${all.length} ticks in ${span / 1000} s`);
          for (let i = 0; i < all.length; i++) {
            assert.ok(all[i].t >= from && all[i].t <= to);
            if (i) assert.ok(all[i].t - all[i - 1].t >= (span / 800) * 30, `too close: ${all[i - 1].label}, ${all[i].label}`);
          }
        }
      }
    }
  });

  test("a day of 25 hours has its midnights", () => {
    m.format.setZone("local");
    const from = new Date(2026, 9, 24, 12).getTime();
    const all = m.axis.ticks(from, from + 3 * 86400e3, 900);
    const midnights = all.filter((x) => x.major).map((x) => new Date(x.t).getDate());
    assert.deepEqual(midnights, [25, 26, 27]);
  });
});

describe("the stretch of time shown", () => {
  const hour = 3600e3;
  const at = (t) => {
    const c = { t };
    const v = new m.viewport.Viewport(hour, () => c.t);
    return [v, c];
  };

  test("it follows the clock until somebody moves it, and again at its end", () => {
    const [v, c] = at(1e12);
    c.t += 60e3;
    v.tick();
    assert.ok(Math.abs(v.to - c.t - 0.02 * hour) < 1 && v.following);
    v.pan(-hour);
    assert.equal(v.following, false);
    const { from } = v;
    c.t += 60e3;
    v.tick();
    assert.equal(v.from, from);
    v.pan(10 * hour);
    assert.ok(v.to <= c.t + 0.1 * v.span + 1, "never far ahead of now");
    v.follow();
    assert.ok(v.following);
  });

  test("zooming keeps the moment under the pointer, within bounds", () => {
    const [v] = at(1e12);
    v.show(1e12 - 10 * hour, 1e12 - 4 * hour);
    const t = 1e12 - 6 * hour;
    const x = v.x(t, 1000);
    v.zoom(0.25, t);
    assert.ok(Math.abs(v.x(t, 1000) - x) < 0.001);
    for (let i = 0; i < 60; i++) v.zoom(0.5, t);
    assert.ok(v.span >= 20e3 - 1);
    for (let i = 0; i < 60; i++) v.zoom(3, t);
    assert.ok(v.span <= 400 * 86400e3 + 1);
  });
});

describe("what is loaded", () => {
  const lane = { stream: "news", node: "" };
  const make = (load) => {
    const c = { t: 1_800_000_000_000 };
    const store = new m.coverage.CoverageStore(load, () => c.t);
    return [store, c];
  };
  const answer = (from, to, spans = [{ from, to, state: "live" }]) => ({ from, to, oldest: 0, newest: to, horizon: 0, spans, kept: [] });
  /** Waits until nothing is being asked for. */
  const settle = async (store) => {
    do await new Promise((done) => setTimeout(done, 1));
    while (store.busy);
  };

  test("only what is wanted, a few at once, and each once", async () => {
    let running = 0, most = 0;
    const asked = [];
    const [store, c] = make(async (l, from, to, step) => {
      asked.push(`${l.stream} ${from} ${step}`);
      most = Math.max(most, ++running);
      await new Promise((done) => setTimeout(done, 1));
      running--;
      return answer(from, to);
    });
    store.wanted = () => Array.from({ length: 10 }, (_, i) => ({ lane: { stream: `s${i}`, node: "" }, from: c.t - 3600e3, to: c.t, level: 2 }));
    store.pump();
    await settle(store);
    assert.ok(most <= 4, `${most} at once`);
    assert.equal(new Set(asked).size, asked.length);
    assert.ok(asked.length >= 10 && asked.length <= 20);
  });

  test("a level whose step is no longer than a pixel", () => {
    for (let span = 20e3; span < 400 * 86400e3; span *= 1.5) {
      const level = m.coverage.levelFor(span, 900);
      assert.ok(level === 0 || level === 16 || 2 ** level <= span / 1000 / 900);
      assert.ok(level === 16 || 2 ** (level + 1) > span / 1000 / 900);
    }
  });

  test("another zoom fills in until the right one has come", async () => {
    const [store, c] = make(async (_, from, to) => answer(from, to));
    let level = 4;
    store.wanted = () => (level === 4 ? [{ lane, from: c.t - 3600e3, to: c.t, level }] : []);
    store.pump();
    await settle(store);
    level = 1;
    const p = store.picture(lane, c.t - 600e3, c.t, level);
    assert.equal(p.complete, false);
    assert.ok(p.pieces.length > 0, "nothing of level 4 is used");
  });

  test("what failed is asked for again, and what changed", async () => {
    let fail = true, n = 0;
    const [store, c] = make(async (_, from, to) => {
      n++;
      if (fail) throw new Error("connection refused");
      return answer(from, to);
    });
    const want = { lane, from: c.t - 600e3, to: c.t - 1, level: 3 };
    store.wanted = () => [want];
    store.pump();
    await settle(store);
    assert.match(store.picture(lane, want.from, want.to, 3).error, /refused/);
    const before = n;
    store.pump();
    await settle(store);
    assert.equal(n, before, "asked again at once");
    fail = false;
    c.t += 11_000;
    store.pump();
    await settle(store);
    assert.equal(store.picture(lane, want.from, want.to, 3).error, "");
    const loaded = n;
    store.invalidate("news");
    c.t += 2_000;
    store.pump();
    await settle(store);
    assert.ok(n > loaded);
  });

  test("a gap is told as long as it is, also where the pointer is far from its ends", async () => {
    const [store, c] = make(async (_, from, to) => answer(from, to, [{ from, to, state: "missing" }]));
    const tile = 2048_000;
    const edge = Math.floor(c.t / tile) * tile;
    const view = { from: edge - 1000e3, to: edge - 1 + 100e3 };
    c.t = edge + tile;
    store.wanted = () => [{ lane, ...view, level: 0 }];
    store.pump();
    await settle(store);
    for (const t of [edge - 900e3, edge + 50e3]) {
      const [said] = m.explain.explain({ name: "news", peers: [], mode: "normal" }, store, new m.explain.Causes(), t, view, 0, 1000, c.t);
      assert.match(said.when, /\(1 h 8 min\)/);
    }
  });

  test("spans that tiles cut are put together again", () => {
    const p = { pieces: [
      { from: 0, to: 100, spans: [{ from: 0, to: 60, state: "live" }, { from: 60, to: 100, state: "missing" }], kept: [] },
      { from: 100, to: 200, spans: [{ from: 100, to: 130, state: "missing" }, { from: 130, to: 200, state: "live" }], kept: [] },
    ] };
    assert.deepEqual({ ...m.coverage.spanAt(p, 90, 0) }, { from: 60, to: 130, state: "missing" });
    assert.equal(m.coverage.spanAt(p, 55, 10).state, "missing", "trouble near by is meant");
    assert.equal(m.coverage.spanAt(p, 10, 0).state, "live");
    assert.equal(m.coverage.spanAt(p, 300, 0), null);
    assert.deepEqual(m.coverage.troubles(p).map((s) => [s.from, s.to]), [[60, 130]]);
  });
});

test("server-sent events, cut anywhere", () => {
  const text = ':\n\nid: 7\ndata: {"a":1}\n\nevent: coverage\r\ndata:x\r\ndata: y\r\n\r\n: comment\nid: 8\n\ndata: last\n\ndata: cut';
  const want = [["message", '{"a":1}', "7"], ["coverage", "x\ny", "7"], ["message", "last", "8"]];
  for (let size = 1; size < text.length; size++) {
    const got = [];
    const parse = m.api.eventParser((...e) => got.push(e));
    for (let i = 0; i < text.length; i += size) parse(text.slice(i, i + size));
    assert.deepEqual(got, want, `in pieces of ${size}`);
  }
});

test("addresses of streams whose names need it", () => {
  assert.equal(m.api.archiveURL("a b/c?d", 1500, 4001, "mp4"), "/a%20b/c%3Fd/archive-1-4.mp4");
  assert.equal(m.api.archiveURL("x", 1999, "now", "m3u8"), "/x/archive-1-now.m3u8");
});
