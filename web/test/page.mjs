// The page in Chromium against a node that is made up: many streams, much time,
// keys, a phone, light and dark, a node that goes away.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { mock } from "../mock.mjs";
import { contrast, loaded, open, quit, said, timeline, waitFor } from "./chromium.mjs";

after(quit);

describe("two hundred streams", () => {
  let node, url;
  before(async () => {
    node = mock({ count: 200, delay: 5 });
    url = await node.listen();
  });
  after(() => node.close());

  test("only what is in view is there and asked for", async (t) => {
    const w = await open("about:blank");
    const asked = [];
    w.page.on("request", (r) => asked.push(r.url()));
    const begin = Date.now();
    await w.page.goto(url + "/#last=2592000");
    await w.page.locator('.timeline[data-loaded]:not([data-loaded="false"])').first().waitFor();
    t.diagnostic(`first timeline after ${Date.now() - begin} ms`);
    await loaded(w.page, "news");
    const rows = await w.page.locator(".row").count();
    assert.ok(rows > 5 && rows < 30, `${rows} rows in the document`);
    await waitFor(w.page, () => document.querySelectorAll('.timeline[data-loaded="false"]').length <= 1);
    const coverage = asked.filter((u) => u.includes("/coverage?"));
    assert.ok(coverage.length <= rows * 2 * 2 + 8, `${coverage.length} questions for ${rows} rows`);
    assert.deepEqual(asked.filter((u) => !u.startsWith(url)), [], "something is loaded from elsewhere");

    // Scrolling to the end shows the last ones.
    await w.page.locator(".list").evaluate((el) => (el.scrollTop = el.scrollHeight));
    await waitFor(w.page, () => [...document.querySelectorAll(".row")].some((r) => r.getAttribute("aria-posinset") === "200"));
    assert.ok((await w.page.locator(".row").count()) < 30);
    assert.deepEqual(w.problems, []);
    await w.close();
  });

  test("trouble comes first, and can be shown alone", async () => {
    const w = await open(url);
    await loaded(w.page, "news");
    const ranks = await w.page.locator(".row").evaluateAll((all) => all.map((r) => r.dataset.rank));
    assert.deepEqual(ranks.slice(0, 3), ["bad", "warn", "note"]);
    assert.match(await w.page.title(), /^\(2\) a\.example\.com/);
    await w.page.getByRole("button", { name: "2 of 200 streams need attention" }).click();
    await waitFor(w.page, () => document.querySelectorAll(".row").length === 2);
    await w.page.getByRole("button", { name: "200 streams", exact: true }).click();
    await w.page.getByRole("searchbox").fill("regional/north-1");
    await waitFor(w.page, () => [...document.querySelectorAll(".name")].every((n) => n.textContent.includes("north-1")));
    await w.page.getByRole("searchbox").fill("no such stream");
    await w.page.getByText("No stream matches").waitFor();
    assert.deepEqual(w.problems, []);
    await w.close();
  });
});

describe("a dozen streams", () => {
  let node, url;
  before(async () => {
    node = mock({ count: 12 });
    url = await node.listen();
  });
  after(() => node.close());

  test("without a mouse: find a gap, hear why, mark and keep it", async () => {
    const w = await open(url + "/#last=2592000&stream=film");
    await loaded(w.page, "film");
    await w.page.keyboard.press("/");
    await w.page.keyboard.type("film");
    await waitFor(w.page, () => document.querySelectorAll(".row").length === 2);
    // Down the page by the Tab key to the first timeline.
    for (let i = 0; i < 40 && !(await w.page.evaluate(() => document.activeElement.classList.contains("timeline"))); i++) await w.page.keyboard.press("Tab");
    assert.equal(await w.page.evaluate(() => document.activeElement.dataset.stream), "film");
    const ring = await timeline(w.page, "film").evaluate((el) => getComputedStyle(el).outlineWidth);
    assert.notEqual(ring, "0px", "the focus is not seen");
    await w.page.keyboard.press("Home");
    for (let i = 0; i < 60 && !/this node: missing/.test(await said(w.page, "film")); i++) await w.page.keyboard.press("n");
    assert.match(await said(w.page, "film"), /this node: missing/);
    await waitFor(w.page, () => /Why: \S+/.test(document.querySelector('[data-stream="film"]').getAttribute("aria-valuetext")));
    await w.page.locator(".tip").getByText("Why:").waitFor();
    await w.page.keyboard.press("[");
    await w.page.keyboard.press("ArrowRight");
    await w.page.keyboard.press("ArrowRight");
    await w.page.keyboard.press("]");
    await w.page.getByRole("region", { name: "Marked span" }).waitFor();
    const [from, to] = [await w.page.getByLabel("From").inputValue(), await w.page.getByLabel("To", { exact: true }).inputValue()];
    assert.ok(from < to, `${from} to ${to}`);
    // Keeping needs the write key here, and says so.
    await w.page.keyboard.press("k");
    const key = w.page.locator("#write-key");
    await key.waitFor();
    assert.equal(await key.evaluate((el) => el === document.activeElement), true);
    await w.page.keyboard.type("wrong");
    await w.page.keyboard.press("Enter");
    await waitFor(w.page, () => document.querySelector("#write-key")?.value === "");
    await w.page.keyboard.type("secret");
    await w.page.keyboard.press("Enter");
    await w.page.getByText("Kept as").waitFor();
    assert.deepEqual(w.problems, []);
    await w.close();
  });

  test("wheel, buttons, dragging and the address move in time", async () => {
    const w = await open(url + "/#last=86400");
    await loaded(w.page, "film");
    const shown = async () => {
      const el = timeline(w.page, "film");
      return [Number(await el.getAttribute("aria-valuemin")), Number(await el.getAttribute("aria-valuemax"))];
    };
    const length = async () => (await shown()).reduce((a, b) => b - a);
    const before = await length();
    const box = await timeline(w.page, "film").boundingBox();
    await w.page.mouse.move(box.x + box.width / 2, box.y + 15);
    await w.page.keyboard.down("Control");
    await w.page.mouse.wheel(0, -300);
    await w.page.keyboard.up("Control");
    await waitFor(w.page, (n) => { const e = document.querySelector('[data-stream="film"]'); return e.getAttribute("aria-valuemax") - e.getAttribute("aria-valuemin") < n * 0.9; }, before);
    await w.page.getByRole("button", { name: "Zoom out" }).click();
    await w.page.getByRole("button", { name: "Earlier" }).click();
    const [from] = await shown();
    await w.page.mouse.move(box.x + 200, box.y + 15);
    await w.page.mouse.down();
    await w.page.mouse.move(box.x + 500, box.y + 15, { steps: 5 });
    await w.page.mouse.up();
    await waitFor(w.page, (n) => Number(document.querySelector('[data-stream="film"]').getAttribute("aria-valuemin")) < n, from);
    assert.equal(await w.page.locator(".player").isVisible(), false, "a drag is no click");
    // Shift and drag marks.
    await w.page.keyboard.down("Shift");
    await w.page.mouse.move(box.x + 200, box.y + 15);
    await w.page.mouse.down();
    await w.page.mouse.move(box.x + 300, box.y + 15, { steps: 5 });
    await w.page.mouse.up();
    await w.page.keyboard.up("Shift");
    await w.page.getByRole("region", { name: "Marked span" }).waitFor();
    await waitFor(w.page, () => location.hash.includes("mark="));
    // The address shows the same to somebody else.
    const second = await open(w.page.url());
    await loaded(second.page, "film");
    await waitFor(second.page, (n) => Number(document.querySelector('[data-stream="film"]').getAttribute("aria-valuemin")) === n, (await shown())[0]);
    await second.close();
    assert.deepEqual(w.problems, []);
    await w.close();
  });

  for (const colorScheme of ["light", "dark"]) {
    test(`${colorScheme}: texts can be read, everything has a name`, async () => {
      const w = await open(url + "/#last=604800&stream=news", { colorScheme });
      await loaded(w.page, "film");
      await w.page.locator(".gaps li").first().waitFor();
      const worst = await contrast(w.page);
      assert.ok(worst.ratio >= 4.5, `${worst.ratio.toFixed(2)}: ${worst.text}`);
      const unnamed = await w.page.evaluate(() =>
        [...document.querySelectorAll("button, input, select, a[href], video, [role=slider]")]
          .filter((e) => e.checkVisibility() && !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length))
          .map((e) => e.outerHTML.slice(0, 80)));
      assert.deepEqual(unnamed, []);
      await w.close();
    });
  }

  test("on a phone: nothing sticks out, each part by its button, a tap plays", async () => {
    const w = await open(url + "/#last=86400", { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
    await loaded(w.page, "film");
    const wide = () => w.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.equal(await wide(), 0);
    const small = await w.page.evaluate(() => [...document.querySelectorAll("button, select, input")].filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 24).map((e) => e.outerHTML.slice(0, 60)));
    assert.deepEqual(small, [], "too small for a finger (WCAG 2.2, 2.5.8)");
    await w.page.getByRole("button", { name: "Details", exact: true }).tap();
    assert.equal(await wide(), 0);
    await w.page.getByRole("button", { name: "Events" }).tap();
    await w.page.locator(".event").first().waitFor();
    assert.equal(await wide(), 0);
    await w.page.getByRole("button", { name: "Streams", exact: true }).tap();
    await timeline(w.page, "film").tap({ position: { x: 120, y: 30 } });
    await w.page.locator(".player").waitFor();
    assert.equal(await wide(), 0);
    assert.deepEqual(w.problems, []);
    await w.close();
  });

  test("what happens is told as it happens, and is only text", async () => {
    const w = await open(url);
    await loaded(w.page, "film");
    await w.page.locator(".event").first().waitFor();
    node.tell({ stream: "film", kind: "source-lost", msg: "<img src=x onerror=alert(1)> <b>gone</b>" });
    const first = w.page.locator(".event").first();
    await first.getByText("<b>gone</b>").waitFor();
    assert.match(await first.textContent(), /source lost/);
    assert.equal(await w.page.locator(".event img, .event b").count(), 0);
    assert.deepEqual(w.problems, []);
    await w.close();
  });

  test("less motion where that is asked for", async () => {
    const w = await open(url, { reducedMotion: "reduce" });
    await loaded(w.page, "film");
    const moving = await w.page.evaluate(() => document.getAnimations().length);
    assert.equal(moving, 0);
    await w.close();
  });
});

test("a node that goes away is told of, and what is shown is not taken for now", async () => {
  const first = mock({ count: 3 });
  const url = await first.listen();
  const w = await open(url);
  await loaded(w.page, "news");
  first.close();
  await w.page.getByText("The node has not answered since").waitFor();
  const again = mock({ count: 3 });
  await again.listen(Number(new URL(url).port));
  await w.page.getByText("The node has not answered since").waitFor({ state: "hidden" });
  again.close();
  await w.close();
});

test("what only serves archives has no log that is interrupted", async () => {
  const node = mock({ count: 3, live: false });
  const w = await open(await node.listen());
  await w.page.getByText("This server only shows archives").waitFor();
  await w.page.locator(".event").first().waitFor();
  assert.equal(await w.page.getByText("The log is interrupted").count(), 0);
  node.close();
  await w.close();
});
