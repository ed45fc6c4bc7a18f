// The node's API (GET /api/v1/openapi.json), as far as the page uses it. Times
// are turned into milliseconds since 1970 where they come in.

export type Mode = "normal" | "recovery" | "emergency" | "offline";
export type State = "live" | "replicated" | "healed" | "damaged" | "missing";
export type Fill = "peer" | "asked" | "filling" | "nobody" | "unknown";

export interface InputStatus {
  url: string;
  program?: number;
  state: string;
  active: boolean;
  standby?: string;
  error?: string;
  since?: string;
  packets: number;
  lost: number;
  errored: number;
  dropped: number;
}

export interface PeerStatus {
  url: string;
  reachable: boolean;
  replicates: boolean;
  error?: string;
  heard?: string;
  mode?: string;
  pending: number;
  lag_seconds: number;
  reconciling: boolean;
  backlog_bytes: number;
  eta_seconds?: number;
  bytes: number;
  unfilled: number;
}

export interface ArchiveStatus {
  dir: string;
  error?: string;
  oldest?: string;
  newest?: string;
  horizon?: string;
  depth_seconds: number;
  lag_seconds?: number;
  gaps: number;
  gap_seconds: number;
  damaged: number;
  segments: number;
  bytes: number;
  bytes_per_second: number;
  depth_reached_seconds: number;
  kept: number;
  disk_free_bytes: number;
  days_until_full?: number;
}

export interface BackfillStatus {
  state: "waiting" | "running" | "done" | "failed";
  left_bytes: number;
  left_segments: number;
  segments: number;
  eta_seconds?: number;
  error?: string;
}

export interface StreamStatus {
  name: string;
  mode: Mode | "";
  healthy: boolean;
  unreplicated: boolean;
  problems: string[];
  inputs: InputStatus[];
  peers: PeerStatus[];
  archive: ArchiveStatus;
  retired: boolean;
  backfill?: BackfillStatus;
}

export interface NodeStatus {
  node: string;
  host?: string;
  version: string;
  started: string;
  supervised?: boolean;
  healthy: boolean;
  streams: StreamStatus[];
  sources?: { url: string; reachable: boolean; problems: string[] }[];
}

/** A stretch of time in one state. */
export interface Span {
  from: number;
  to: number;
  state: State;
  /** Of a span merged of several: seconds in each state. */
  seconds?: Partial<Record<State, number>>;
}

export interface Kept {
  name: string;
  from: number;
  to: number;
}

/** What one node has of a span of time. */
export interface Coverage {
  from: number;
  to: number;
  oldest: number | null;
  newest: number | null;
  horizon: number | null;
  spans: Span[];
  kept: Kept[];
}

export interface Gap {
  from: number;
  to: number;
  cause: string;
  causeKind: string;
  fill: Fill;
  peer: string;
}

export interface NodeEvent {
  time: number;
  stream: string;
  kind: string;
  msg: string;
}

/** An error that the node explained (RFC 9457), or that kept it from answering. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    detail: string,
  ) {
    super(detail);
  }
}

const root = "/api/v1/";
const timeout = 20_000;

let apiKey = "";

/** A key of the API, where the node wants one; it is forgotten with the page. */
export function setKey(key: string): void {
  apiKey = key;
}

// A token that opened the page opens what it asks for, too.
const token = new URLSearchParams(globalThis.location?.search ?? "").get("token");

/** An address of this node, with the token that opened the page. */
function address(path: string): string {
  return token ? `${path}${path.includes("?") ? "&" : "?"}token=${encodeURIComponent(token)}` : path;
}

async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  const headers = { ...init.headers, ...(apiKey ? { Authorization: `Bearer ${apiKey}` } : {}) };
  try {
    response = await fetch(address(root + path), { signal: AbortSignal.timeout(timeout), ...init, headers });
  } catch (err) {
    throw new ApiError(0, err instanceof Error ? err.message : String(err));
  }
  if (response.ok) return response;
  let detail = response.statusText;
  try {
    detail = ((await response.json()) as { detail?: string }).detail ?? detail;
  } catch {
    // Not from the node itself; the status has to do.
  }
  throw new ApiError(response.status, detail);
}

async function getJSON<T>(path: string): Promise<T> {
  return (await (await ask(path)).json()) as T;
}

function change(method: string, path: string, body?: unknown): Promise<Response> {
  const headers: Record<string, string> = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return ask(path, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
}

const ms = (time: string): number => Date.parse(time);
const msOr = (time: string | undefined): number | null => (time ? Date.parse(time) : null);
const seconds = (t: number): string => (t / 1000).toFixed(3);

export const streams = (): Promise<NodeStatus> => getJSON("streams");

/** Node is a peer's URL, or empty for the node that serves the page. */
export async function coverage(stream: string, node: string, from: number, to: number, step: number): Promise<Coverage> {
  const q = new URLSearchParams({ stream, from: seconds(from), to: seconds(to), step: String(step) });
  if (node) q.set("node", node);
  const c = await getJSON<{
    oldest?: string;
    newest?: string;
    horizon?: string;
    spans: { from: string; to: string; state: State; seconds?: Partial<Record<State, number>> }[];
    kept: { name: string; from: string; to: string }[];
  }>("coverage?" + q.toString());
  return {
    from,
    to,
    oldest: msOr(c.oldest),
    newest: msOr(c.newest),
    horizon: msOr(c.horizon),
    spans: c.spans.map((s) => ({ ...s, from: ms(s.from), to: ms(s.to) })),
    kept: c.kept.map((k) => ({ name: k.name, from: ms(k.from), to: ms(k.to) })),
  };
}

export async function gaps(stream: string, from: number, to: number, limit: number): Promise<{ gaps: Gap[]; more: boolean }> {
  const q = new URLSearchParams({ stream, from: seconds(from), to: seconds(to), limit: String(limit) });
  const g = await getJSON<{
    more: boolean;
    gaps: { from: string; to: string; cause: { msg: string; kind?: string }; fill: Fill; peer?: string }[];
  }>("gaps?" + q.toString());
  return {
    more: g.more,
    gaps: g.gaps.map((x) => ({
      from: ms(x.from),
      to: ms(x.to),
      cause: x.cause.msg,
      causeKind: x.cause.kind ?? "",
      fill: x.fill,
      peer: x.peer ?? "",
    })),
  };
}

interface RawEvent {
  time: string;
  stream?: string;
  kind: string;
  msg: string;
}

const toEvent = (e: RawEvent): NodeEvent => ({ time: ms(e.time), stream: e.stream ?? "", kind: e.kind, msg: e.msg });

export async function events(limit: number): Promise<NodeEvent[]> {
  const answer = await getJSON<{ events: RawEvent[] }>("events?" + new URLSearchParams({ limit: String(limit) }).toString());
  return answer.events.map(toEvent);
}

export interface LiveHandlers {
  event(e: NodeEvent): void;
  /** An archive has changed elsewhere than at its end. */
  changed(stream: string, from: number, to: number): void;
  open(): void;
  /** none: what is asked only serves archives, and has nothing to tell. */
  closed(none: boolean): void;
}

/** So long a silence means that nobody is there: a comment comes every ten seconds. */
const deadAfter = 30_000;

/** Follows what happens (server-sent events), and connects again when that breaks off. */
export async function follow(h: LiveHandlers): Promise<never> {
  let lastID = "";
  for (;;) {
    const gone = new AbortController();
    let none = false;
    let timer = 0;
    const alive = (): void => {
      clearTimeout(timer);
      timer = setTimeout(() => gone.abort(), deadAfter) as unknown as number;
    };
    try {
      alive();
      const response = await ask("events/live", { signal: gone.signal, headers: lastID ? { "Last-Event-ID": lastID } : {} });
      h.open();
      const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
      const parse = eventParser((type, data, id) => {
        if (id) lastID = id;
        dispatch(h, type, data);
      });
      for (let chunk = await reader?.read(); chunk && !chunk.done; chunk = await reader?.read()) {
        alive();
        parse(chunk.value);
      }
    } catch (e) {
      // What else is wrong is told with the next status.
      none = e instanceof ApiError && e.status === 501;
    }
    clearTimeout(timer);
    gone.abort();
    h.closed(none);
    await new Promise((done) => setTimeout(done, none ? 60_000 : 2000));
  }
}

function dispatch(h: LiveHandlers, type: string, data: string): void {
  try {
    if (type === "coverage") {
      const c = JSON.parse(data) as { stream: string; from: string; to: string };
      h.changed(c.stream, ms(c.from), ms(c.to));
    } else if (type === "message") h.event(toEvent(JSON.parse(data) as RawEvent));
  } catch {
    // Of a later version of the node, perhaps; the page goes on without.
  }
}

/** Reads a stream of events as HTML, 9.2.6, has it, in pieces cut anywhere. */
export function eventParser(emit: (type: string, data: string, id: string) => void): (piece: string) => void {
  let rest = "";
  let type = "";
  let id = "";
  let data: string[] = [];
  const line = (l: string): void => {
    if (l === "") {
      if (data.length) emit(type || "message", data.join("\n"), id);
      type = "";
      data = [];
      return;
    }
    const [, name = "", value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(l) ?? [];
    if (name === "data") data.push(value);
    else if (name === "event") type = value;
    else if (name === "id") id = value;
  };
  return (piece) => {
    const lines = (rest + piece).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? "";
    for (const l of lines) line(l);
  };
}

export async function keeps(stream: string): Promise<Kept[]> {
  const answer = await getJSON<{ keeps: { name: string; from: string; to: string }[] }>(
    "keeps?" + new URLSearchParams({ stream }).toString(),
  );
  return answer.keeps.map((k) => ({ name: k.name, from: ms(k.from), to: ms(k.to) }));
}

const iso = (t: number): string => new Date(t).toISOString();

export async function keep(stream: string, from: number, to: number, name: string): Promise<string> {
  const r = await change("POST", "keeps", { stream, from: iso(from), to: iso(to), ...(name ? { name } : {}) });
  return ((await r.json()) as { name: string }).name;
}

export async function release(stream: string, name: string): Promise<void> {
  await change("DELETE", `keeps/${encodeURIComponent(name)}?` + new URLSearchParams({ stream }).toString());
}

export async function backfill(stream: string, from: number, to: number): Promise<void> {
  await change("POST", "backfill", { stream, from: iso(from), to: iso(to) });
}

/** A stream's name as the beginning of a path. */
export const streamPath = (name: string): string => "/" + name.split("/").map(encodeURIComponent).join("/");

/** A file of a stream: kind is m3u8, mp4, ts or mpd; from is rounded down to a second. */
export function archiveURL(stream: string, from: number, to: number | "now", kind: string): string {
  const begin = Math.floor(from / 1000);
  const length = to === "now" ? "now" : String(Math.max(1, Math.ceil(to / 1000) - begin));
  return address(`${streamPath(stream)}/archive-${begin}-${length}.${kind}`);
}

export const liveURL = (stream: string): string => address(`${streamPath(stream)}/index.m3u8`);
export const previewURL = (stream: string, at: number): string => address(`${streamPath(stream)}/preview-${Math.floor(at / 1000)}.mp4`);
