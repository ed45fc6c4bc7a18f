// MPEG-DASH in dash.js, in Chromium: an archive with a gap and a change of the encoder.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { open, quit, waitFor } from "./chromium.mjs";
import { freeTCP, Process, program, until } from "./nodes.mjs";

const player = fileURLToPath(new URL("../node_modules/dashjs/dist/modern/umd/dash.all.min.js", import.meta.url));

describe("dash.js", { timeout: 120_000 }, () => {
  const begin = Date.parse("2026-11-22T12:00:00Z") / 1000;
  let dir, node, url;

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "twindvr-dash-test-"));
    const run = (file, args, input) => execFileSync(file, args, { input, maxBuffer: 64 << 20, stdio: ["pipe", "pipe", "ignore"] });
    const testsrc = (...args) => run(program, ["testsrc", "--realtime=false", ...args]);
    const size = (s) => run("ffmpeg", ["-nostdin", "-f", "lavfi", "-i", `testsrc2=s=${s}:r=25:d=8`, "-f", "lavfi", "-i", "sine=f=440:r=48000:d=8", "-c:v", "libx264", "-preset", "ultrafast", "-g", "50", "-c:a", "aac", "-f", "mpegts", "-"]);
    // 8 s, a gap, 8 s of the same source, and right behind them 8 s of another size.
    for (const [at, ts] of [[0, testsrc("--duration=8s")], [30, testsrc("--duration=8s", `--start-pts=${30 * 90000}`)], [38, size("320x240")]]) {
      await writeFile(join(dir, "source.ts"), ts);
      const m4f = run(program, ["ingest", join(dir, "source.ts"), "--start", String(begin + at)]);
      run(program, ["record", join(dir, "root/sport/hd")], m4f);
    }
    const port = await freeTCP();
    url = `http://127.0.0.1:${port}/sport/hd/`;
    node = new Process(["serve-m4f", join(dir, "root"), "--listen", `127.0.0.1:${port}`]).start();
    await until("it listens", async () => (await fetch(url + "index.mpd")).status !== 0);
  });
  after(async () => {
    await quit();
    await node?.kill();
    await rm(dir, { recursive: true, force: true });
  });

  /** Plays a span to its end, four times as fast as it was recorded. */
  async function play(from, length) {
    const { page, problems, close } = await open(`${new URL(url).origin}/api/v1/openapi.json`, { bypassCSP: true });
    await page.setContent("<video muted></video>");
    await page.addScriptTag({ path: player });
    await page.evaluate((manifest) => {
      const v = document.querySelector("video");
      window.seen = { sizes: [], errors: [] };
      v.addEventListener("resize", () => window.seen.sizes.push(v.videoWidth));
      const p = window.dashjs.MediaPlayer().create();
      p.on("error", (e) => window.seen.errors.push(`${e.error?.code} ${e.error?.message}`));
      p.on("playbackPlaying", () => p.setPlaybackRate(4));
      p.initialize(v, manifest, true);
    }, `${url}archive-${begin + from}-${length}.mpd`);
    await waitFor(page, () => document.querySelector("video").ended || window.seen.errors.length > 0, null, 30_000).catch((err) => problems.push(err.message));
    const seen = await page.evaluate(() => {
      const v = document.querySelector("video");
      return { ...window.seen, ended: v.ended, at: v.currentTime, length: v.duration, frames: v.getVideoPlaybackQuality().totalVideoFrames };
    });
    await close();
    assert.deepEqual([...seen.errors, ...problems], [], node.log);
    assert.ok(seen.ended && Math.abs(seen.at - seen.length) < 0.2, JSON.stringify(seen));
    assert.ok(seen.frames > seen.length * 20, JSON.stringify(seen));
    return seen;
  }

  test("plays across a gap", async () => {
    const { length } = await play(0, 38);
    assert.ok(length > 15 && length < 17, `${length} s`);
  });

  test("plays across a change of the encoder", async () => {
    const { sizes } = await play(30, 16);
    assert.deepEqual(sizes, [640, 320]);
  });
});
