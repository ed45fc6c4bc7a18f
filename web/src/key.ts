// The API may want a key. It is asked for when the node says so.

import { ApiError, setKey } from "./api.js";
import { h } from "./dom.js";
import { msg } from "./messages.en.js";

/** Asks the node for something; asks for its key where one is wanted, and does it again. */
export async function askForKey<T>(near: HTMLElement, run: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await run();
    } catch (err) {
      if (!(err instanceof ApiError) || err.status !== 401) throw err;
      const key = await prompt(near, err.message);
      if (key === null) throw err;
      setKey(key);
    }
  }
}

function prompt(near: HTMLElement, why: string): Promise<string | null> {
  return new Promise((resolve) => {
    const input = h("input", { type: "password", autocomplete: "off", id: "write-key" });
    const done = (value: string | null): void => {
      form.remove();
      resolve(value);
    };
    const form = h(
      "div",
      { class: "key-form", role: "group", "aria-label": msg.writeKey },
      h("p", null, why),
      h("label", { for: "write-key" }, msg.writeKey),
      input,
      h("button", { type: "button", class: "primary", onclick: () => done(input.value) }, msg.use),
      h("button", { type: "button", onclick: () => done(null) }, msg.close),
      h("p", { class: "dim" }, msg.writeKeyHelp),
    );
    input.addEventListener("keydown", (e) => {
      if (e.key === "Enter") done(input.value);
      if (e.key === "Escape") done(null);
    });
    near.append(form);
    input.focus();
  });
}
