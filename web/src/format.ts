// Times, lengths of time and sizes as people read them.

export type Zone = "local" | "utc";

let zone: Zone = "local";

export function setZone(z: Zone): void {
  zone = z;
}

export const getZone = (): Zone => zone;

interface Parts {
  y: number;
  mo: number;
  d: number;
  h: number;
  mi: number;
  s: number;
  wd: number;
}

const weekdays = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

export function parts(t: number): Parts {
  const d = new Date(t);
  if (zone === "utc") {
    return { y: d.getUTCFullYear(), mo: d.getUTCMonth(), d: d.getUTCDate(), h: d.getUTCHours(), mi: d.getUTCMinutes(), s: d.getUTCSeconds(), wd: d.getUTCDay() };
  }
  return { y: d.getFullYear(), mo: d.getMonth(), d: d.getDate(), h: d.getHours(), mi: d.getMinutes(), s: d.getSeconds(), wd: d.getDay() };
}

/** The moment that a clock in the chosen zone shows so. */
export function fromParts(y: number, mo: number, d: number, h = 0, mi = 0, s = 0): number {
  return zone === "utc" ? Date.UTC(y, mo, d, h, mi, s) : new Date(y, mo, d, h, mi, s).getTime();
}

const two = (n: number): string => String(n).padStart(2, "0");

/** 20:15:03 */
export function clock(t: number): string {
  const p = parts(t);
  return `${two(p.h)}:${two(p.mi)}:${two(p.s)}`;
}

/** 2026-11-22 20:15:03 */
export function stamp(t: number): string {
  const p = parts(t);
  return `${p.y}-${two(p.mo + 1)}-${two(p.d)} ${two(p.h)}:${two(p.mi)}:${two(p.s)}`;
}

/** 20:15:03 today, otherwise with the day: Sun 22 Nov 20:15:03 */
export function moment(t: number, now: number): string {
  const p = parts(t);
  const n = parts(now);
  if (p.y === n.y && p.mo === n.mo && p.d === n.d) return clock(t);
  const year = p.y === n.y ? "" : ` ${p.y}`;
  return `${weekdays[p.wd]} ${p.d} ${months[p.mo]}${year} ${clock(t)}`;
}

export function dayLabel(t: number): string {
  const p = parts(t);
  return `${weekdays[p.wd]} ${p.d} ${months[p.mo]}`;
}

export function monthLabel(t: number): string {
  const p = parts(t);
  return `${months[p.mo]} ${p.y}`;
}

export function minuteLabel(t: number): string {
  const p = parts(t);
  return `${two(p.h)}:${two(p.mi)}`;
}

/** What stamp writes; also with T between, without seconds, and as ISO 8601 with Z. Null: it is no time. */
export function parseStamp(text: string): number | null {
  const m = /^\s*(\d{4})-(\d{1,2})-(\d{1,2})[T\s]+(\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?\s*(Z)?\s*$/i.exec(text);
  if (!m) return null;
  const n = m.slice(1, 7).map((x) => Number(x ?? "0"));
  const [y = 0, mo = 0, d = 0, h = 0, mi = 0, s = 0] = n;
  if (mo < 1 || mo > 12 || d < 1 || d > 31 || h > 23 || mi > 59 || s > 59) return null;
  const t = m[7] ? Date.UTC(y, mo - 1, d, h, mi, s) : fromParts(y, mo - 1, d, h, mi, s);
  return Number.isNaN(t) ? null : t;
}

/** A length of time given in seconds: 4 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. */
export function duration(seconds: number): string {
  const s = Math.abs(seconds);
  if (s < 9.95) return `${Number(s.toFixed(1))} s`;
  if (s < 59.5) return `${Math.round(s)} s`;
  const pair = (big: number, small: number, a: string, b: string): string => {
    const n = Math.round(s / small);
    const per = big / small;
    const whole = Math.floor(n / per);
    const rest = n % per;
    return rest ? `${whole} ${a} ${rest} ${b}` : `${whole} ${a}`;
  };
  if (s < 3600 - 0.5) return pair(60, 1, "min", "s");
  if (s < 86400 - 30) return pair(3600, 60, "h", "min");
  if (s < 86400 * 60) return pair(86400, 3600, "d", "h");
  return `${Math.round(s / 86400)} d`;
}

function scaled(n: number, units: string[]): string {
  let i = 0;
  while (n >= 999.5 && i < units.length - 1) {
    n /= 1000;
    i++;
  }
  const digits = n < 9.95 && i > 0 ? 1 : 0;
  return `${n.toFixed(digits)} ${units[i]}`;
}

export const bytes = (n: number): string => scaled(n, ["B", "kB", "MB", "GB", "TB", "PB"]);
export const bitrate = (bytesPerSecond: number): string => scaled(bytesPerSecond * 8, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"]);

export const count = (n: number): string => String(n).replace(/\B(?=(\d{3})+(?!\d))/g, " ");

/** A peer's address as a label: without its scheme, and without the stream where it has the same name. */
export function peerName(url: string, stream: string): string {
  const m = /^[a-z0-9+.-]+:\/\/(?:[^@/]*@)?([^/?]+)(\/[^?]*)?/i.exec(url);
  if (!m) return url;
  const path = (m[2] ?? "").replace(/^\//, "").replace(/\/m4f\/.*$/, "");
  let name = path;
  try {
    name = decodeURIComponent(path);
  } catch {
    // Not percent-encoded after all.
  }
  return name === "" || name === stream ? (m[1] ?? url) : `${m[1]}/${name}`;
}
