// One key: its value as text or bytes, its past, and writes that never overwrite unseen changes.

import { Problem, api, withBytes } from "./api.js";
import { base64url, decode, encode, fromHex, hex, hexLines, same } from "./bytes.js";
import { announce, byId, count, el, printable, setText, size } from "./dom.js";

const SHOWN_BYTES_MAX = 256 * 1024; // of a value in the conflict view

export class Editor {
  id = null; // of the entry in the list
  #box;
  #onChange;
  #onOpen;
  #key = null; // bytes; null: nothing is open, or a key that is to be made
  #item = null; // as it was read; null: the key does not exist
  #format = "text";
  #past = null; // an item as of an earlier revision that is shown instead
  #isWriting = false;
  #attempt = null; // {signature, id}: one Idempotency-Key for one intention
  #parts = {};
  #number = 0; // of what is open: a late answer of another key is dropped

  constructor(box, onChange, onOpen) {
    this.#box = box;
    this.#onChange = onChange;
    this.#onOpen = onOpen;
    this.close();
  }

  // ---- open and close ----------------------------------------------------------------------------

  close() {
    this.#number += 1;
    this.id = this.#key = this.#item = this.#past = null;
    this.#parts = {};
    this.#onOpen(false);
    this.#box.replaceChildren(el("header", {}, el("h2", { id: "detail-title" }, "No key is open")),
      el("p", { class: "muted" }, "Choose a key to see its value, its revisions and its past, or press n to make a new one."));
  }

  create(prefix) {
    this.close();
    this.id = "new";
    this.#format = "text";
    this.#onOpen(true);
    this.#draw();
    this.#parts.name.value = decode(prefix) ?? "";
    this.#parts.name.focus();
    this.#parts.name.setSelectionRange(9999, 9999);
  }

  async open(key) {
    this.close();
    const number = this.#number;
    this.id = `key-${hex(key)}`;
    this.#key = key;
    this.#onOpen(true);
    try {
      const item = await this.#read(key);
      if (number !== this.#number) return;
      this.#show(item);
      this.#box.focus({ preventScroll: true });
    } catch (error) {
      if (number !== this.#number) return;
      this.#draw();
      this.#say("error", error instanceof Problem ? error.message : "The node does not answer.");
    }
  }

  focus() {
    this.#parts.value?.focus();
  }

  /** A watch tells that a key has changed: at `revision`, null if it was removed at `at`. */
  changedElsewhere(key, revision, at) {
    // What this page itself writes is shown when it is answered.
    if (this.#isWriting || !this.#key || !same(key, this.#key) || !this.#item || at <= this.#item.mod_revision) return;
    // A conflict that is shown stays, with its choice: overwriting is then a conflict again.
    if (this.#parts.notice?.querySelector("#theirs")) return;
    const text = revision === null ? `Deleted meanwhile, at revision ${count(at)}.` : `Changed meanwhile: it is at revision ${count(at)} now.`;
    if (this.#isTouched()) this.#say("warn", `${text} Saving will show both values.`);
    else if (revision === null) this.#say("warn", text);
    else this.open(this.#key);
  }

  /** The item with its bytes, or null; `revision`: as it was then. */
  async #read(key, revision = null) {
    try {
      const then = revision === null ? "" : `?revision=${revision}`;
      return withBytes(await api.json(`v1/k/${base64url(key)}${then}`, { headers: { Accept: "application/json" } }));
    } catch (error) {
      if (error instanceof Problem && error.code === "key_not_found") return null;
      throw error;
    }
  }

  #show(item) {
    this.#item = item;
    this.#past = null;
    this.#format = item === null || decode(item.value) !== null ? "text" : "hex";
    this.#draw();
    if (item === null) this.#say("warn", "This key does not exist, or no more. Saving makes it.");
  }

  // ---- the form --------------------------------------------------------------------------------------

  #draw() {
    const shown = this.#past ?? this.#item;
    const isPast = this.#past !== null;
    const value = el("textarea", { id: "value", spellcheck: "false", autocapitalize: "off", "aria-label": "Value", rows: 10 });
    value.readOnly = isPast;
    value.value = shown ? this.#asText(shown.value) : "";
    const isText = !shown || decode(shown.value) !== null;
    const format = (name, text) => el("button", {
      class: "quiet", "aria-pressed": String(this.#format === name), disabled: name === "text" && !isText,
      onclick: () => this.#setFormat(name),
    }, text);
    const parts = (this.#parts = {
      value,
      name: this.#key === null ? el("input", { id: "name", "aria-label": "Key", placeholder: "key", spellcheck: "false", autocapitalize: "off", autocomplete: "off" }) : null,
      notice: el("div", { id: "notice", role: "status", hidden: true }),
      save: el("button", { id: "save", class: "primary", onclick: () => this.save(), disabled: isPast, title: "Ctrl S" }, this.#item || this.#key ? "Save" : "Create"),
    });
    this.#box.replaceChildren(
      el("header", {},
        el("button", { class: "quiet back", onclick: () => this.close() }, "‹ Keys"),
        el("h2", { id: "detail-title", class: "key" }, this.#key === null ? "New key" : nameOf(this.#key)),
        el("span", { class: "spacer" }), el("button", { class: "quiet", onclick: () => this.close(), "aria-label": "Close", title: "Close (Esc)" }, "✕")),
      parts.name ?? "",
      ...(shown ? [facts(shown)] : []),
      ...(isPast ? [el("p", { class: "note warn" }, `This is the value as of revision ${count(this.#past.mod_revision)}, not the present one.`)] : []),
      el("div", { class: "formats", role: "group", "aria-label": "Show as" }, format("text", "Text"), format("hex", "Hex"),
        el("span", { class: "muted" }, !isText ? "These bytes are not UTF-8 text: shown in hex." : ""), el("span", { class: "spacer" }),
        ...this.#pastButtons()),
      value,
      parts.notice,
      el("div", { class: "actions" },
        this.#item && !isPast ? el("button", { id: "delete", class: "danger", onclick: () => this.#remove() }, "Delete") : "",
        isPast ? el("button", { onclick: () => this.#restore() }, "Edit from this value") : "",
        el("span", { class: "spacer" }), parts.save),
    );
  }

  #pastButtons() {
    if (!this.#item) return [];
    const shown = this.#past ?? this.#item;
    const back = shown.version > 1 || shown.create_revision < shown.mod_revision;
    return [
      el("button", { class: "quiet", disabled: !back, onclick: () => this.#older(), title: "The value before this one" }, "‹ Older"),
      el("button", { class: "quiet", disabled: this.#past === null, onclick: () => this.#show(this.#item) }, "Present"),
    ];
  }

  async #older() {
    const shown = this.#past ?? this.#item;
    const number = this.#number;
    try {
      const past = await this.#read(this.#key, shown.mod_revision - 1);
      if (number !== this.#number) return;
      if (past === null) return this.#say("warn", "Before this the key did not exist.");
      this.#past = past;
      this.#format = decode(past.value) === null ? "hex" : "text";
      this.#draw();
    } catch (error) {
      if (number !== this.#number) return;
      this.#say("warn", error.status === 410 ? "The history before this revision was compacted: it is gone." : error.message);
    }
  }

  #restore() {
    const bytes = this.#past.value;
    this.#show(this.#item);
    this.#format = decode(bytes) === null ? "hex" : "text";
    this.#draw();
    this.#parts.value.value = this.#asText(bytes);
    this.focus();
  }

  #asText(bytes) {
    return this.#format === "hex" ? hexLines(bytes) : decode(bytes) ?? "";
  }

  #setFormat(name) {
    const bytes = this.#bytes();
    if (bytes === null) return this.#say("error", "These are not hexadecimal digits, two a byte.");
    if (name === "text" && decode(bytes) === null) return this.#say("error", "These bytes are not UTF-8 text.");
    this.#format = name;
    this.#draw();
    this.#parts.value.value = this.#asText(bytes);
  }

  /** What the field holds; null if it is no hex. A text field has only line feeds, as it got them. */
  #bytes() {
    const text = this.#parts.value.value;
    if (this.#format === "hex") return fromHex(text);
    // A text field turns CR LF into LF: what was not touched is what was read.
    const shown = this.#past ?? this.#item;
    if (shown && text === (decode(shown.value) ?? "").replace(/\r\n?/g, "\n")) return shown.value;
    return encode(text);
  }

  #isTouched() {
    const bytes = this.#bytes();
    return bytes === null || !same(bytes, this.#item ? this.#item.value : encode(""));
  }

  // ---- writing ------------------------------------------------------------------------------------------

  /** Store the value, if the key is still as it was read. */
  async save() {
    if (!this.#parts.save || this.#parts.save.disabled) return;
    const key = this.#key ?? encode(this.#parts.name.value);
    const value = this.#bytes();
    if (!key.length) return this.#say("error", "A key has at least one byte.");
    if (value === null) return this.#say("error", "These are not hexadecimal digits, two a byte.");
    await this.#store(key, value, this.#item);
  }

  async #store(key, value, item) {
    this.#isWriting = true;
    try {
      await this.#storeAndShow(key, value, item);
    } finally {
      this.#isWriting = false;
    }
  }

  async #storeAndShow(key, value, item) {
    const condition = item ? { "If-Match": `"${item.mod_revision}"` } : { "If-None-Match": "*" };
    const done = await this.#write("PUT", key, condition, value);
    if (!done) return;
    const number = this.#number;
    const now = await this.#read(key).catch(() => null);
    if (number !== this.#number) return;
    this.id = `key-${hex(key)}`;
    this.#key = key;
    if (now) this.#show(now);
    this.#say("ok", `Saved at revision ${count(done.revision)}.`);
    announce(`Saved at revision ${done.revision}`);
    this.#onChange();
  }

  async #remove() {
    const button = byId("delete");
    if (button.dataset.sure === undefined) {
      button.dataset.sure = "";
      setText(button, "Really delete?");
      setTimeout(() => (delete button.dataset.sure, setText(button, "Delete")), 4000);
      return;
    }
    const [key, item] = [this.#key, this.#item];
    const done = await this.#write("DELETE", key, { "If-Match": `"${item.mod_revision}"` }, undefined);
    if (!done) return;
    this.close();
    announce(`Deleted at revision ${done.revision}`);
    this.#onChange();
  }

  /** The answer of a write that took effect, else null after saying why not. */
  async #write(method, key, condition, value) {
    const number = this.#number;
    const signature = JSON.stringify([method, hex(key), condition, value ? hex(value) : null]);
    // Pressed again after an unknown outcome it is the same write, and happens once.
    if (this.#attempt?.signature !== signature) this.#attempt = { signature, id: hex(crypto.getRandomValues(new Uint8Array(16))) };
    this.#parts.save.disabled = true;
    try {
      const headers = { ...condition, "Idempotency-Key": this.#attempt.id };
      const answer = await api.json(`v1/k/${base64url(key)}`, { method, headers, body: value });
      this.#attempt = null;
      return number === this.#number ? answer : null;
    } catch (error) {
      if (number !== this.#number) return null;
      if (error instanceof Problem && error.code === "condition_failed") {
        this.#attempt = null;
        await this.#conflict(key, value);
      } else if (error instanceof Problem) {
        if (error.outcome !== "unknown") this.#attempt = null;
        const unknown = error.outcome === "unknown" ? " Nobody can say whether it took effect. Trying again is safe: it will not happen twice." : "";
        this.#say("error", `Not saved: ${error.message}.${unknown}`);
      } else {
        this.#say("error", "The node did not answer: whether it took effect is unknown. Trying again is safe: it will not happen twice.");
      }
      return null;
    } finally {
      if (this.#parts.save && this.#past === null) this.#parts.save.disabled = false;
    }
  }

  /** Somebody else wrote first: both values, and the choice. */
  async #conflict(key, mine) {
    const number = this.#number;
    const now = await this.#read(key).catch(() => undefined);
    if (number !== this.#number) return;
    if (now === undefined) return this.#say("error", "The key was changed by somebody else, and cannot be read just now.");
    const title = now ? `Stored now, at revision ${count(now.mod_revision)}` : "Stored now: the key was deleted";
    const choose = (text, act, kind = "") => el("button", { class: kind, onclick: act }, text);
    this.#say("warn",
      el("p", {}, el("b", {}, "Conflict. "), this.#item ? "Somebody else changed this key after you read it. Nothing was written." : "This key exists already. Nothing was written."),
      el("div", { class: "both" },
        el("div", {}, el("h3", {}, mine ? "Yours, not saved" : "Yours: delete it"), el("pre", { id: "mine" }, mine ? shortly(mine) : "")),
        el("div", {}, el("h3", {}, title), el("pre", { id: "theirs" }, now ? shortly(now.value) : ""))),
      el("div", { class: "actions" },
        choose("Take what is stored", () => ((this.#key = key), (this.id = `key-${hex(key)}`), this.#show(now))),
        el("span", { class: "spacer" }),
        mine ? choose(now ? `Overwrite revision ${count(now.mod_revision)}` : "Make it again", () => this.#store(key, mine, now), "danger") : ""));
    announce("Conflict: the key was changed by somebody else. Both values are shown.");
    this.#parts.notice.querySelector("button").focus();
  }

  #say(kind, ...parts) {
    const box = this.#parts.notice;
    if (!box) return;
    box.className = `note ${kind}`;
    box.hidden = false;
    box.replaceChildren(...parts);
  }
}

function nameOf(bytes) {
  const text = decode(bytes);
  return text === null ? `0x${hex(bytes)} (not UTF-8)` : printable(text);
}

function shortly(bytes) {
  const part = bytes.subarray(0, SHOWN_BYTES_MAX);
  const text = decode(bytes) === null ? hexLines(part) : new TextDecoder().decode(part);
  return part.length < bytes.length ? `${text}\n… ${size(bytes.length)} in all` : text;
}

function facts(item) {
  const pairs = [
    ["Revision", count(item.mod_revision)], ["Created at", count(item.create_revision)], ["Version", count(item.version)],
    ["Size", size(item.value.length)], ["Lease", item.lease === "0" ? "none" : item.lease],
  ];
  return el("dl", { class: "facts" }, ...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}
