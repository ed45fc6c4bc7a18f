// Runs the tests: what needs no browser always, the rest where Chromium is.
import { spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { fileURLToPath } from "node:url";
import { browser } from "./browser-path.mjs";

const file = (name) => fileURLToPath(new URL(name, import.meta.url));
const files = [file("unit.mjs")];
const path = browser();
if (path) files.push(file("page.mjs"), file("nodes-test.mjs"), file("dash-test.mjs"));
else console.log("no Chromium: the tests of the page in a browser were skipped (apt-get install chromium, or set CHROMIUM)");
accessSync(files[0], constants.R_OK);
const run = spawnSync(process.execPath, ["--test", "--test-concurrency=1", "--test-reporter=spec", ...files], { stdio: "inherit" });
process.exit(run.status ?? 1);
