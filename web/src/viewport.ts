// The stretch of time that all timelines show.

export const minSpan = 20_000;
export const maxSpan = 400 * 86_400_000;

/** How much room there is behind now, as a share of the span. */
const ahead = 0.02;

export class Viewport {
  from: number;
  to: number;
  /** The end moves with the clock. */
  following = true;
  private readonly listeners: (() => void)[] = [];

  constructor(
    span: number,
    private readonly clock: () => number = Date.now,
  ) {
    this.to = clock() + span * ahead;
    this.from = this.to - span;
  }

  get span(): number {
    return this.to - this.from;
  }

  onChange(f: () => void): void {
    this.listeners.push(f);
  }

  private changed(): void {
    for (const f of this.listeners) f();
  }

  /** Shows a span; never shorter or longer than allowed, nor further ahead of now than a tenth of it. */
  show(from: number, to: number): void {
    let span = Math.min(maxSpan, Math.max(minSpan, to - from));
    const middle = (from + to) / 2;
    if (span !== to - from) {
      from = middle - span / 2;
      to = middle + span / 2;
    }
    span = to - from;
    const last = this.clock() + span * 0.1;
    if (to > last) {
      to = last;
      from = last - span;
    }
    this.from = from;
    this.to = to;
    this.following = to >= this.clock() && to - span * ahead * 2 <= this.clock();
    this.changed();
  }

  /** Zooms by a factor (below 1: in) so that a moment stays where it is. */
  zoom(factor: number, at: number): void {
    const span = Math.min(maxSpan, Math.max(minSpan, this.span * factor));
    if (this.following && at > this.clock() - this.span * 0.01) at = this.clock();
    const share = (at - this.from) / this.span;
    const from = at - share * span;
    this.show(from, from + span);
  }

  pan(ms: number): void {
    this.show(this.from + ms, this.to + ms);
  }

  /** Shows the newest span of a length and keeps up with it. */
  follow(span = this.span): void {
    span = Math.min(maxSpan, Math.max(minSpan, span));
    this.to = this.clock() + span * ahead;
    this.from = this.to - span;
    this.following = true;
    this.changed();
  }

  /** Brings a moment into view, if it is not. */
  reveal(t: number): void {
    if (t >= this.from && t <= this.to) return;
    this.show(t - this.span / 2, t + this.span / 2);
  }

  /** The clock has gone on. */
  tick(): void {
    if (this.following) this.follow();
  }

  x(t: number, width: number): number {
    return ((t - this.from) / this.span) * width;
  }

  time(x: number, width: number): number {
    return this.from + (x / width) * this.span;
  }
}
