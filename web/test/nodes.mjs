// Two real nodes on this machine that record one test source, for the tests of
// the page.
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
export const program = process.env.TWINDVR ?? join(root, "bin/twindvr");

export const freeTCP = () =>
  new Promise((done, fail) => {
    const s = createServer().once("error", fail).listen(0, "127.0.0.1", () => {
      const { port } = s.address();
      s.close(() => done(port));
    });
  });

const freeUDP = () =>
  new Promise((done, fail) => {
    const s = createSocket("udp4").once("error", fail).bind(0, "127.0.0.1", () => {
      const { port } = s.address();
      s.close(() => done(port));
    });
  });

/** Waits until something holds; says what, if it does not in time. */
export async function until(what, holds, seconds = 60) {
  for (const end = Date.now() + seconds * 1000; ; ) {
    const value = await holds().catch(() => null);
    if (value) return value;
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((done) => setTimeout(done, 200));
  }
}

export class Process {
  constructor(args, file = program) {
    this.args = args;
    this.file = file;
    this.log = "";
  }

  start() {
    this.child = spawn(this.file, this.args, { stdio: ["ignore", "ignore", "pipe"] });
    this.child.stderr.on("data", (b) => (this.log = (this.log + b).slice(-20000)));
    this.ended = new Promise((done) => this.child.once("exit", done));
    return this;
  }

  /** Without a word, as a power cut. */
  async kill() {
    this.child.kill("SIGKILL");
    await this.ended;
  }
}

/** Streams is how many further streams there are whose source never sends. */
export async function twins({ streams = 0 } = {}) {
  const dir = await mkdtemp(join(tmpdir(), "twindvr-page-"));
  const [port, a, b] = [await freeUDP(), await freeTCP(), await freeTCP()];
  const name = "sport/hd";
  // Between the source and the nodes, so that each can be cut off from it.
  const relay = createSocket("udp4");
  const heard = { a: true, b: true };
  const config = (own, other, node) => {
    const block = (stream, url) => `stream ${stream} {\n  url ${url} source_timeout=3s return_after=3s;\n  url m4f://127.0.0.1:${other}/${stream};\n  dvr ${dir}/${node} 3d replicate;\n}\n`;
    const idle = Array.from({ length: streams }, (_, i) => block(`idle-${i}`, `file:${dir}/none-${i}.ts`));
    return `http 127.0.0.1:${own};\n${block(name, `udp://127.0.0.1:${port}`)}${idle.join("")}`;
  };
  const second = await freeUDP();
  relay.on("message", (m) => {
    if (heard.a) relay.send(m, port, "127.0.0.1");
    if (heard.b) relay.send(m, second, "127.0.0.1");
  });
  await new Promise((done) => relay.bind(0, "127.0.0.1", done));
  await writeFile(join(dir, "a.conf"), config(a, b, "a"));
  await writeFile(join(dir, "b.conf"), config(b, a, "b").replaceAll(`:${port} `, `:${second} `));
  let source = new Process(["testsrc", `udp://127.0.0.1:${relay.address().port}`]).start();
  const nodes = ["a", "b"].map((n) => new Process(["supervise", join(dir, n + ".conf")]).start());
  const url = `http://127.0.0.1:${a}`;
  const status = async () => (await (await fetch(url + "/api/v1/streams")).json()).streams.find((s) => s.name === name);
  return {
    name,
    url,
    other: `http://127.0.0.1:${b}`,
    /** Which nodes hear the source. */
    heard,
    a: nodes[0],
    b: nodes[1],
    status,
    /** From now on the source is another one, of another size. */
    async change() {
      await source.kill();
      const av = ["-f", "lavfi", "-i", "testsrc2=s=320x240:r=25", "-f", "lavfi", "-i", "sine=f=440:r=48000"];
      const to = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "50", "-c:a", "aac", "-f", "mpegts", `udp://127.0.0.1:${relay.address().port}?pkt_size=1316`];
      source = new Process(["-nostdin", "-loglevel", "error", "-re", ...av, ...to], "ffmpeg").start();
    },
    log: () => `--- node a\n${nodes[0].log}\n--- node b\n${nodes[1].log}`,
    async end() {
      await Promise.all([source, ...nodes].map((p) => p.kill()));
      relay.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

// By hand: node test/nodes.mjs runs until it is stopped. SIGUSR1 cuts both nodes off
// from the source for a while, SIGUSR2 kills the first one.
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const t = await twins({ streams: Number(process.env.STREAMS ?? 0) });
  console.log(t.url, t.other, process.pid);
  for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => void t.end().then(() => process.exit()));
  process.on("SIGUSR1", () => {
    t.heard.a = t.heard.b = false;
    setTimeout(() => (t.heard.a = t.heard.b = true), 20000);
  });
  process.on("SIGUSR2", () => void t.a.kill().then(() => setTimeout(() => t.a.start(), 15000)));
}
