import { existsSync } from "node:fs";

/** Where Chromium is; empty where there is none. */
export function browser() {
  const all = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
  return all.find((p) => p && existsSync(p)) ?? "";
}
