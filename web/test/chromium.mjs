// A page in Chromium, and what the tests ask of it.
import { chromium } from "playwright-core";
import { browser } from "./browser-path.mjs";

const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required"];

let shared = null;

export async function launch() {
  shared ??= await chromium.launch({ executablePath: browser(), args: flags });
  return shared;
}

export async function quit() {
  await shared?.close();
  shared = null;
}

/** Opens an address in a new window; what goes wrong there is in problems. */
export async function open(url, options = {}) {
  const context = await (await launch()).newContext({ viewport: { width: 1440, height: 900 }, colorScheme: "light", acceptDownloads: true, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const problems = [];
  page.on("pageerror", (e) => problems.push(`error: ${e.message}`));
  page.on("console", (m) => {
    if (m.type() === "error" && !/Failed to load resource/.test(m.text())) problems.push(`console: ${m.text()}`);
  });
  await page.goto(url);
  return { page, problems, close: () => context.close() };
}

export const timeline = (page, stream) => page.locator(`.timeline[data-stream="${stream}"]`);

/** Waits until the timelines of a stream are drawn from what is loaded. */
export async function loaded(page, stream) {
  await page.locator(`.timeline[data-stream="${stream}"][data-loaded="true"]`).waitFor();
}

/** What a screen reader says of the mark on a timeline. */
export const said = (page, stream) => timeline(page, stream).getAttribute("aria-valuetext");

/** Waits for something in the page to hold. */
export const waitFor = (page, holds, arg, timeout = 60_000) => page.waitForFunction(holds, arg, { timeout, polling: 100 });

/** The lowest contrast (WCAG 2.2, 1.4.3) of the texts in view, and where it is. */
export function contrast(page) {
  return page.evaluate(() => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1;
    const g = canvas.getContext("2d", { willReadFrequently: true });
    const rgb = (color, under) => {
      g.clearRect(0, 0, 1, 1);
      if (under) {
        g.fillStyle = `rgb(${under.join(",")})`;
        g.fillRect(0, 0, 1, 1);
      }
      g.fillStyle = color;
      g.fillRect(0, 0, 1, 1);
      return [...g.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const light = (c) => {
      const [r, gr, b] = c.map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * gr + 0.0722 * b;
    };
    const ground = (el) => {
      const all = [];
      for (let e = el; e; e = e.parentElement) all.unshift(getComputedStyle(e).backgroundColor);
      return all.reduce((under, c) => rgb(c, under), [255, 255, 255]);
    };
    let worst = { ratio: 99, text: "" };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const el = walker.currentNode.parentElement;
      const text = walker.currentNode.textContent.trim();
      if (!text || !el.checkVisibility() || el.closest(".sr-only, noscript, script, :disabled")) continue;
      const under = ground(el);
      const [a, b] = [light(rgb(getComputedStyle(el).color, under)), light(under)];
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (ratio < worst.ratio) worst = { ratio, text: `${text.slice(0, 40)} (${el.className})` };
    }
    return worst;
  });
}
