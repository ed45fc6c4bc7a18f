// A little help with the document.

type Child = Node | string | null | undefined | false;
type Props = Record<string, unknown>;

/** Makes an element. Properties named on… are listeners, those with a dash are attributes. */
export function h<K extends keyof HTMLElementTagNameMap>(tag: K, props: Props | null = null, ...children: (Child | Child[])[]): HTMLElementTagNameMap[K] {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) el.addEventListener(name.slice(2), value as EventListener);
    else if (name === "class") el.className = String(value);
    else if (name.includes("-") || name === "role" || name === "for") el.setAttribute(name, String(value));
    else (el as unknown as Props)[name] = value;
  }
  append(el, children);
  return el;
}

export function append(el: Element, children: (Child | Child[])[]): void {
  for (const c of children.flat()) if (c !== null && c !== undefined && c !== false) el.append(c);
}

/** Puts new children in the place of the old ones. */
export function fill(el: Element, ...children: (Child | Child[])[]): void {
  el.replaceChildren();
  append(el, children);
}

/** Sets a text only where it changes: screen readers read changes. */
export function text(el: Element, s: string): void {
  if (el.textContent !== s) el.textContent = s;
}

export function need<T extends Element>(selector: string): T {
  const el = document.querySelector<T>(selector);
  if (!el) throw new Error(`the page lacks ${selector}`);
  return el;
}

/** A function that runs at most once a frame. */
export function eachFrame(run: () => void): () => void {
  let due = false;
  return () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      run();
    });
  };
}

/** A function that runs when it has not been called for some milliseconds. */
export function settled(ms: number, run: () => void): () => void {
  let timer = 0;
  return () => {
    window.clearTimeout(timer);
    timer = window.setTimeout(run, ms);
  };
}
