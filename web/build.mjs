// Builds the page into pkg/serve/web/dist: files named by their content and
// compressed, which the Go program embeds. --watch builds again on a change.
import { build, context } from "esbuild";
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.env.PAGE_DIST ?? join(here, "../pkg/serve/web/dist");
const base = "/.web/";

const hashed = (name, content) => {
  const ext = extname(name);
  return `${name.slice(0, -ext.length)}-${createHash("sha256").update(content).digest("hex").slice(0, 10).toUpperCase()}${ext}`;
};

async function write(files) {
  await rm(out, { recursive: true, force: true });
  await mkdir(out, { recursive: true });
  for (const [name, content] of files) await writeFile(join(out, name + ".gz"), gzipSync(content, { level: 9 }));
  const total = (await Promise.all((await readdir(out)).map((f) => readFile(join(out, f))))).reduce((n, b) => n + b.length, 0);
  console.log(`page: ${files.size} files, ${Math.round(total / 1000)} kB compressed`);
}

async function assemble(result) {
  const files = new Map();
  const names = {};
  for (const f of result.outputFiles) {
    const name = f.path.split("/").at(-1);
    files.set(name, f.contents);
    const entry = /^(main|style)-[A-Z0-9]+\.(js|css)$/.exec(name);
    if (entry) names[`${entry[1]}.${entry[2]}`] = name;
  }
  const icon = await readFile(join(here, "src/icon.svg"));
  names["icon.svg"] = hashed("icon.svg", icon);
  files.set(names["icon.svg"], icon);
  const page = (await readFile(join(here, "src/index.html"), "utf8")).replace(/\{\{(.+?)\}\}/g, (_, name) => {
    if (!names[name]) throw new Error(`index.html names ${name}, which is not built`);
    return base + names[name];
  });
  files.set("index.html", page);
  files.set("licenses.txt", await licenses());
  await write(files);
}

// The licences of what is bundled, as they ask for.
async function licenses() {
  const text = await readFile(join(here, "node_modules/hls.js/LICENSE"), "utf8");
  return `hls.js, https://github.com/video-dev/hls.js\n\n${text}`;
}

const options = {
  entryPoints: [join(here, "src/main.ts"), join(here, "src/style.css")],
  bundle: true,
  splitting: true,
  format: "esm",
  target: ["chrome111", "firefox115", "safari16.4"],
  minify: true,
  write: false,
  outdir: out,
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  legalComments: "none",
  define: { __USE_VARIABLE_SUBSTITUTION__: "false" },
  logLevel: "warning",
};

if (process.argv.includes("--watch")) {
  const again = { name: "again", setup: (b) => b.onEnd((r) => (r.errors.length ? undefined : assemble(r))) };
  await (await context({ ...options, plugins: [again] })).watch();
} else {
  await assemble(await build(options));
}
