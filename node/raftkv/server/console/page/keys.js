// The view of the keys: folders, pages, live changes; the editor is in editor.js.

import { Problem, api, watch, withBytes } from "./api.js";
import { decode, encode, fromJson, hex, percent, startsWith } from "./bytes.js";
import { byId, clock, count, el, plural, printable, setText, sync } from "./dom.js";
import { Editor } from "./editor.js";

const PAGE = 100;
const RELOAD_MAX = 1000; // entries that are read again when something changed
const FEED_MAX = 100;
const SLASH = "/";

/** How a key is shown: text if it is, else hex with a mark. */
export function label(bytes) {
  const text = decode(bytes);
  return text === null ? `0x${hex(bytes)}` : printable(text);
}

class Keys {
  isShown = false;
  #prefix = encode("");
  #entries = []; // {kind: "folder" | "key", bytes, id}
  #cursor = null;
  #request = null; // of the list, to be given up for a newer one
  #watching = null;
  #reload = null;
  #feed = [];
  #paused = false;
  #isReachable = true;
  #number = 0;

  constructor() {
    this.editor = new Editor(byId("detail"), () => this.load(), (isOpen) => byId("browser").classList.toggle("open", isOpen));
    const prefix = byId("prefix");
    let typing = null;
    prefix.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.go(encode(prefix.value), false), 200);
    });
    prefix.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.go(encode(prefix.value), false);
      if (event.key === "ArrowDown") this.#focus(0);
    });
    byId("folders").addEventListener("change", () => this.load());
    byId("more").addEventListener("click", () => this.#more());
    byId("new-key").addEventListener("click", () => this.create());
    byId("list").addEventListener("keydown", (event) => this.#move(event));
    byId("feed-pause").addEventListener("click", () => {
      this.#paused = !this.#paused;
      byId("feed-pause").setAttribute("aria-pressed", String(this.#paused));
      setText(byId("feed-pause"), this.#paused ? "Go on" : "Pause");
      this.#showFeed();
    });
    document.addEventListener("visibilitychange", () => this.#rewatch());
    api.addEventListener("signed", () => this.isShown && this.go(this.#prefix));
  }

  // ---- what the page tells ---------------------------------------------------------------------

  setShown(isShown) {
    if (isShown === this.isShown) return;
    this.isShown = isShown;
    if (isShown) this.load();
    this.#rewatch();
  }

  setReachable(isReachable) {
    if (isReachable && !this.#isReachable && this.isShown) this.load();
    this.#isReachable = isReachable;
  }

  create() {
    this.editor.create(this.#prefix);
  }

  edit() {
    this.editor.focus();
  }

  save() {
    this.editor.save();
  }

  close() {
    const id = this.editor.id;
    this.editor.close();
    byId("list").querySelector(`[data-key="${CSS.escape(id ?? "")}"] button`)?.focus();
  }

  /** To the folder above. */
  up() {
    const bytes = this.#prefix;
    const end = bytes.at(-1) === 47 ? bytes.length - 1 : bytes.length;
    this.go(bytes.slice(0, bytes.subarray(0, end).lastIndexOf(47) + 1));
  }

  /** Show what begins with `prefix`. */
  go(prefix, isTyped = true) {
    this.#prefix = prefix;
    if (isTyped) byId("prefix").value = decode(prefix) ?? "";
    this.load();
    this.#rewatch();
  }

  // ---- the list ----------------------------------------------------------------------------------

  async load() {
    clearTimeout(this.#reload);
    this.#reload = null;
    const limit = Math.min(RELOAD_MAX, Math.max(PAGE, this.#entries.length));
    await this.#fetch(null, limit);
  }

  async #more() {
    const had = this.#entries.length;
    await this.#fetch(this.#cursor, PAGE);
    this.#focus(had);
  }

  async #fetch(cursor, limit) {
    this.#request?.abort();
    const request = (this.#request = new AbortController());
    const folders = byId("folders").checked ? `&delimiter=${encodeURIComponent(SLASH)}` : "";
    const after = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
    try {
      const page = await api.json(`v1/kv?prefix=${percent(this.#prefix)}&keys_only=true&limit=${limit}${folders}${after}`, { signal: request.signal });
      if (request.signal.aborted) return;
      const found = [
        ...page.prefixes.map((each) => ({ kind: "folder", bytes: fromJson(each.prefix, each.prefix_encoding) })),
        ...page.items.map((item) => ({ kind: "key", bytes: withBytes(item).key, revision: item.mod_revision })),
      ].map((entry) => ({ ...entry, id: `${entry.kind}-${hex(entry.bytes)}` }));
      this.#entries = cursor ? [...this.#entries, ...found] : found;
      this.#cursor = page.next_cursor;
      this.#show(`${count(this.#entries.length)}${this.#cursor ? "+" : ""} at revision ${count(page.revision)}`);
    } catch (error) {
      if (request.signal.aborted) return;
      if (!cursor && error instanceof Problem) this.#entries = [];
      this.#cursor = null;
      this.#show(error instanceof Problem ? error.message : "the node does not answer");
    }
  }

  #show(text) {
    setText(byId("list-count"), text);
    byId("more").hidden = this.#cursor === null;
    this.#showCrumbs();
    const rows = this.#entries.length ? this.#entries : [{ kind: "none", id: "none" }];
    sync(byId("list"), rows, (entry) => entry.id, (entry) => this.#row(entry), (row, entry) => {
      if (entry.kind === "key") setText(row.querySelector(".revision"), count(entry.revision));
      row.querySelector("button")?.setAttribute("aria-current", String(entry.id === this.editor.id));
    });
  }

  #row(entry) {
    if (entry.kind === "none") return el("li", { class: "empty muted" }, "Nothing here.");
    const base = this.#prefix.subarray(0, this.#prefix.lastIndexOf(47) + 1);
    const name = startsWith(entry.bytes, base) && entry.bytes.length > base.length ? entry.bytes.subarray(base.length) : entry.bytes;
    const open = () => (entry.kind === "folder" ? this.go(entry.bytes) : this.#open(entry));
    return el("li", {}, el("button", { class: entry.kind, onclick: open, title: label(entry.bytes) },
      el("span", { class: "hidden" }, entry.kind === "folder" ? "folder " : "key "),
      el("span", { class: "name" }, label(name)),
      entry.kind === "key" ? el("span", { class: "revision muted", title: "Changed last at this revision" }) : null));
  }

  #open(entry) {
    this.editor.open(entry.bytes);
    for (const button of byId("list").querySelectorAll("button")) button.setAttribute("aria-current", "false");
    byId("list").querySelector(`[data-key="${CSS.escape(entry.id)}"] button`)?.setAttribute("aria-current", "true");
  }

  #showCrumbs() {
    const parts = [{ text: "all keys", bytes: encode("") }];
    let start = 0;
    for (const [at, byte] of this.#prefix.entries()) {
      if (byte !== 47) continue;
      parts.push({ text: label(this.#prefix.subarray(start, at + 1)), bytes: this.#prefix.slice(0, at + 1) });
      start = at + 1;
    }
    byId("crumbs").replaceChildren(...parts.map((part) => el("button", { onclick: () => this.go(part.bytes) }, part.text)));
  }

  #focus(at) {
    const buttons = byId("list").querySelectorAll("button");
    buttons[Math.max(0, Math.min(at, buttons.length - 1))]?.focus();
  }

  #move(event) {
    const buttons = [...byId("list").querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (to < 0) byId("prefix").focus();
    else this.#focus(to);
  }

  // ---- live changes --------------------------------------------------------------------------------

  #rewatch() {
    this.#watching?.abort();
    this.#watching = null;
    if (!this.isShown || document.hidden) return setText(byId("feed-state"), "paused");
    const watching = (this.#watching = new AbortController());
    const where = this.#prefix.length ? `below ${label(this.#prefix)}` : "of all keys";
    watch(percent(this.#prefix), watching.signal,
      (event, data) => this.#changed(event, withBytes(data)),
      (state) => watching.signal.aborted || setText(byId("feed-state"), state === "live" ? `${where}, live` : state));
  }

  #changed(event, item) {
    const before = event === "delete" ? null : item.value;
    const what = event === "delete" ? "deleted" : item.version === 1 ? "created" : "changed";
    this.#feed.unshift({ id: String(++this.#number), at: Date.now(), what, key: item.key, value: before, revision: item.mod_revision });
    this.#feed.length = Math.min(this.#feed.length, FEED_MAX);
    if (!this.#paused) this.#showFeed();
    this.editor.changedElsewhere(item.key, event === "delete" ? null : item.mod_revision, item.mod_revision);
    // Many changes, one look: and never more often than the eye follows.
    this.#reload ??= setTimeout(() => this.load(), 400);
  }

  #showFeed() {
    setText(byId("feed-pause"), this.#paused ? "Go on" : "Pause");
    if (this.#paused) return;
    sync(byId("feed"), this.#feed, (each) => each.id, (each) => el("li", { "data-kind": each.what },
      el("time", {}, clock(each.at)), el("i", { class: "dot", "aria-hidden": "true" }),
      el("span", {}, el("button", { class: "link", onclick: () => this.editor.open(each.key) }, label(each.key)), ` ${each.what} `,
        el("code", {}, each.value === null ? "" : preview(each.value)), el("span", { class: "muted" }, ` revision ${count(each.revision)}`))));
  }
}

function preview(bytes) {
  const text = decode(bytes);
  if (text === null) return `${plural(bytes.length, "byte")}: 0x${hex(bytes.subarray(0, 12))}${bytes.length > 12 ? "…" : ""}`;
  return printable(text.length > 60 ? `${text.slice(0, 60)}…` : text);
}

export const keys = new Keys();
