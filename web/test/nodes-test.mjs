// The page in Chromium against two real nodes: what is recorded is shown and
// played, through a gap, while the source changes and a node is killed.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { loaded, open, quit, said, timeline, waitFor } from "./chromium.mjs";
import { twins, until } from "./nodes.mjs";

describe("two nodes", { timeout: 600_000 }, () => {
  let t, w, dir, gap, cut;

  // Each step goes on from where the one before ended.
  let failed = "";
  const step = (name, run) =>
    test(name, async (context) => {
      if (failed) return context.skip(`after “${failed}”`);
      try {
        await run(context);
      } catch (err) {
        failed = name;
        context.diagnostic(`${t.log()}\n--- page\n${JSON.stringify(await played().catch(() => null))}\n${w?.problems.join("\n")}`);
        throw err;
      }
    });

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "twindvr-page-test-"));
    t = await twins();
    await until("the node records", async () => (await t.status())?.archive.segments >= 4);
    // Both are cut off from the source: a gap that nobody can fill.
    t.heard.a = t.heard.b = false;
    cut = Date.now();
    await until("it is noticed", async () => (await t.status()).mode === "offline");
    w = await open(t.url + "/#last=240&stream=" + encodeURIComponent(t.name));
    await loaded(w.page, t.name);
  });
  after(async () => {
    await quit();
    await t?.end();
    await rm(dir, { recursive: true, force: true });
  });

  const played = () =>
    w.page.evaluate(() => {
      const v = document.querySelector(".video");
      return { at: v.currentTime, frames: v.getVideoPlaybackQuality().totalVideoFrames, error: v.error?.message ?? "", clock: document.querySelector(".player-time").textContent };
    });
  /** Clicks on the timeline at a moment. */
  const click = async (time) => {
    const el = timeline(w.page, t.name);
    const [box, from, to] = [await el.boundingBox(), Number(await el.getAttribute("aria-valuemin")), Number(await el.getAttribute("aria-valuemax"))];
    await w.page.mouse.click(box.x + (box.width * (time / 1000 - from)) / (to - from), box.y + 18);
  };
  const clockReaches = (time, slack = 30_000) =>
    waitFor(w.page, ([from, to]) => {
      const at = new Date(document.querySelector(".player-time").textContent.replace(" ", "T")).getTime();
      return at >= from && at < to;
    }, [time, time + slack]);

  step("the page is the node's own and says what it may load", async () => {
    const answer = await fetch(t.url + "/");
    assert.match(answer.headers.get("content-security-policy"), /default-src 'none'/);
    assert.equal((await fetch(t.url + "/", { headers: { "if-none-match": answer.headers.get("etag") } })).status, 304);
    const script = /src="([^"]+)"/.exec(await answer.text())[1];
    const asset = await fetch(t.url + script);
    assert.match(asset.headers.get("cache-control"), /immutable/);
    assert.equal(asset.headers.get("content-encoding"), "gzip");
  });

  step("a lost source is seen at once, and that it is back", async () => {
    const row = w.page.locator(".row").first();
    await row.getByText("offline").waitFor();
    assert.equal(await row.getAttribute("data-rank"), "bad");
    await w.page.getByRole("button", { name: "needs attention" }).waitFor();
    await w.page.locator(".event .kind", { hasText: "source lost" }).first().waitFor();
    await until("some seconds are missing", async () => Date.now() - cut > 9000);
    t.heard.a = t.heard.b = true;
    await row.getByText("normal").waitFor();
    const found = await until("the gap is told of", async () => (await (await fetch(`${t.url}/api/v1/gaps?stream=${encodeURIComponent(t.name)}`)).json()).gaps.find((g) => g.seconds > 5));
    gap = { from: Date.parse(found.from), to: Date.parse(found.to) };
  });

  step("a gap is found by the keys, and why it is there", async () => {
    await timeline(w.page, t.name).focus();
    await w.page.keyboard.press("Home");
    await until("the mark is on the gap", async () => {
      await w.page.keyboard.press("Home");
      await w.page.keyboard.press("n");
      return /this node: missing/.test(await said(w.page, t.name));
    });
    await waitFor(w.page, () => /Why: /.test(document.querySelector(".timeline").getAttribute("aria-valuetext")));
    await w.page.keyboard.press("Escape");
  });

  step("a click plays from there: time goes on and frames are decoded", async () => {
    await click(gap.from - 4000);
    await waitFor(w.page, () => document.querySelector(".video").getVideoPlaybackQuality().totalVideoFrames > 5);
    const a = await played();
    await waitFor(w.page, (at) => document.querySelector(".video").currentTime > at + 0.5, a.at);
    const b = await played();
    assert.ok(b.frames > a.frames && !b.error, JSON.stringify([a, b]));
  });

  step("it plays across the gap, and says so", async () => {
    await w.page.getByText("Nothing was recorded from").waitFor();
    await clockReaches(gap.to - 1000);
    const { frames } = await played();
    await waitFor(w.page, (n) => document.querySelector(".video").getVideoPlaybackQuality().totalVideoFrames > n + 10, frames);
  });

  step("another click seeks, and so do the buttons", async () => {
    const to = gap.from - 6000;
    await click(to);
    await clockReaches(to - 1500, 4000);
    await waitFor(w.page, () => !document.querySelector(".video").paused && document.querySelector(".video").readyState >= 3);
    await w.page.getByRole("button", { name: "+10 s" }).click();
    await clockReaches(gap.to - 1000);
  });

  step("a click into the gap plays what comes behind it", async () => {
    await click(gap.from + (gap.to - gap.from) / 2);
    await clockReaches(gap.to - 1000);
  });

  step("a decoder that damage has ended begins anew behind it", async () => {
    await click(gap.from - 9000);
    await waitFor(w.page, () => !document.querySelector(".video").paused && document.querySelector(".video").readyState >= 3);
    // What ends it differs between browsers and releases: the end itself is made.
    await w.page.evaluate(() => {
      const v = document.querySelector(".video");
      Object.defineProperty(v, "error", { configurable: true, get: () => ({ code: 3, message: "made" }) });
      v.addEventListener("emptied", () => delete v.error, { once: true });
      v.dispatchEvent(new Event("error"));
    });
    await w.page.getByText("too damaged for this browser").waitFor();
    const { frames, at } = await played();
    await waitFor(w.page, ([n, t]) => document.querySelector(".video").getVideoPlaybackQuality().totalVideoFrames > 10 && document.querySelector(".video").currentTime !== t && n >= 0, [frames, at]);
    await clockReaches(gap.from - 6000);
  });

  step("live plays what is recorded now", async () => {
    await w.page.getByRole("button", { name: "Live", exact: true }).click();
    await clockReaches(Date.now() - 40_000);
    const { frames } = await played();
    await waitFor(w.page, (n) => document.querySelector(".video").getVideoPlaybackQuality().totalVideoFrames > n + 10, frames);
    await w.page.getByRole("button", { name: "Close the player" }).click();
  });

  step("a marked span is downloaded as MP4 and kept", async () => {
    await timeline(w.page, t.name).focus();
    const stamp = (at) => new Date(at - new Date(at).getTimezoneOffset() * 60e3).toISOString().slice(0, 19).replace("T", " ");
    await w.page.keyboard.press("[");
    const [from, to] = [w.page.getByLabel("From"), w.page.getByLabel("To", { exact: true })];
    await from.fill(stamp(gap.to + 1000));
    await from.blur();
    await to.fill(stamp(gap.to + 9000));
    await to.blur();
    await from.fill(stamp(gap.to + 1000));
    await from.blur();
    await w.page.getByText("all of it is here, undamaged").waitFor();
    const [file] = await Promise.all([w.page.waitForEvent("download"), w.page.getByRole("link", { name: "Download MP4" }).click()]);
    assert.match(file.suggestedFilename(), /\.mp4$/);
    const path = join(dir, "span.mp4");
    await file.saveAs(path);
    assert.ok((await stat(path)).size > 50_000);
    const probe = JSON.parse(execFileSync("ffprobe", ["-v", "error", "-of", "json", "-show_format", path], { encoding: "utf8" }));
    assert.ok(Math.abs(Number(probe.format.duration) - 8) < 4.5, `${probe.format.duration} s`);
    await w.page.getByRole("textbox", { name: "Name (optional)" }).fill("goal");
    await w.page.getByRole("button", { name: "Keep", exact: true }).click();
    await w.page.getByText("Kept as “goal”").waitFor();
    await w.page.locator(".kept-list").getByText("goal").waitFor();
    w.page.once("dialog", (d) => d.accept());
    await w.page.getByRole("button", { name: "Release" }).click();
    await w.page.locator(".kept-list").getByText("goal").waitFor({ state: "detached" });
    await w.page.getByRole("button", { name: "Clear" }).click();
  });

  step("it plays across a change of the encoder", async () => {
    const changed = Date.now();
    await t.change();
    await until("the new one is recorded", async () => {
      const s = await t.status();
      return s.mode === "normal" && Date.parse(s.archive.newest) > changed + 9000;
    });
    await w.page.getByRole("button", { name: "Now", exact: true }).click();
    await click(changed - 4000);
    await waitFor(w.page, () => document.querySelector(".video").videoWidth === 640);
    await waitFor(w.page, () => document.querySelector(".video").videoWidth === 320);
    const { frames } = await played();
    await waitFor(w.page, (n) => document.querySelector(".video").getVideoPlaybackQuality().totalVideoFrames > n + 10, frames);
    assert.equal((await played()).error, "");
    await w.page.getByRole("button", { name: "Close the player" }).click();
  });

  step("failover is shown as it happens", async () => {
    const row = w.page.locator(".row").first();
    await row.getByText("normal").waitFor();
    t.heard.a = false;
    await row.getByText("emergency").waitFor();
    assert.equal(await row.getAttribute("data-rank"), "warn");
    await w.page.locator(".event .kind", { hasText: "switch" }).first().waitFor();
    t.heard.a = true;
    await row.getByText("normal").waitFor({ timeout: 90_000 });
  });

  step("a node that is killed is missed, and what it missed is healed", async () => {
    await t.a.kill();
    await w.page.getByText("The node has not answered since").waitFor();
    t.a.start();
    await w.page.getByText("The node has not answered since").waitFor({ state: "hidden" });
    await until("it is healed", async () => (await t.status()).mode === "normal", 90);
    await waitFor(w.page, () => document.querySelector(".row")?.dataset.mode === "normal");
    assert.deepEqual(w.problems.filter((p) => !/net::|fetch/.test(p)), []);
  });
});
