// Asking the nodes: this one, and another member while this one does not answer.

import { fromJson } from "./bytes.js";

const TOKEN = "raftkv-token"; // in sessionStorage: this tab only, gone when it is closed
// How long a node may take to answer a look: more for one that is slow, or if none is quicker.
const PATIENCE_MS = 900;
const PATIENCE_MS_MAX = 8000;
const ELECTION_MS = 150; // between two looks while there is no leader: elections are short

/** What a node answered instead of what was asked for (problem+json), or that none answered. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? `HTTP ${status}`);
    this.status = status;
    this.code = body.code ?? "";
    this.outcome = body.outcome ?? "unknown";
  }
}

class Api extends EventTarget {
  token = sessionStorage.getItem(TOKEN);
  home = new URL(".", document.baseURI).href;

  /** Keep a token for this tab; null forgets it. */
  sign(token) {
    this.token = token;
    if (token === null) sessionStorage.removeItem(TOKEN);
    else sessionStorage.setItem(TOKEN, token);
    this.dispatchEvent(new Event("signed"));
  }

  /** A response that is no problem. `base`: another member's address. */
  async ask(path, { base = this.home, method = "GET", headers = {}, body, signal, timeout = 10_000 } = {}) {
    const limit = timeout ? AbortSignal.timeout(timeout) : null;
    const signals = [limit, signal].filter(Boolean);
    const response = await fetch(new URL(path, base), {
      method,
      body,
      headers: this.token ? { ...headers, Authorization: `Bearer ${this.token}` } : headers,
      signal: signals.length ? AbortSignal.any(signals) : undefined,
      cache: "no-store",
      credentials: "same-origin",
      referrerPolicy: "no-referrer",
    });
    if (response.ok || response.status === 304) return response;
    let problem = {};
    try {
      problem = await response.json();
    } catch {
      // A proxy's page, perhaps: the status has to do.
    }
    if (response.status === 401) this.dispatchEvent(new Event("token-needed"));
    throw new Problem(response.status, problem);
  }

  async json(path, options) {
    return (await this.ask(path, options)).json();
  }
}

export const api = new Api();

/** Polls what there is to see. Events: `seen` {cluster, status, base, ms}, `unseen` {since}. */
export class Poller extends EventTarget {
  #timer = null;
  #others = [];
  #clusterId = null;
  #failingSince = null;
  #hasLeader = true;
  #patience = PATIENCE_MS;
  #round = 0;

  constructor(period) {
    super();
    this.period = period;
    document.addEventListener("visibilitychange", () => this.#schedule(0));
    api.addEventListener("signed", () => this.#schedule(0));
    this.#schedule(0);
  }

  #schedule(delay) {
    clearTimeout(this.#timer);
    // Nobody looks at a hidden tab: the nodes need not be asked.
    if (document.hidden) this.dispatchEvent(new Event("paused"));
    else this.#timer = setTimeout(() => this.#poll(), delay);
  }

  async #poll() {
    const round = ++this.#round;
    const began = performance.now();
    // A node that is paused takes long to be given up: do not wait for it each time.
    const elsewhere = this.#failingSince ? this.#lookElsewhere() : null;
    try {
      const seen = await this.#look(api.home, this.#patience);
      this.#failingSince = null;
      this.#patience = Math.min(PATIENCE_MS_MAX, Math.max(PATIENCE_MS, 3 * seen.ms));
      this.#tell(round, seen);
    } catch (error) {
      if (error instanceof Problem) {
        this.dispatchEvent(new CustomEvent("refused", { detail: error }));
      } else {
        this.#failingSince ??= Date.now();
        const seen = await (elsewhere ?? this.#lookElsewhere());
        if (!seen) this.#patience = Math.min(PATIENCE_MS_MAX, 2 * this.#patience);
        if (seen) this.#tell(round, seen);
        else if (round === this.#round) this.dispatchEvent(new CustomEvent("unseen", { detail: { since: this.#failingSince } }));
      }
    }
    const period = this.#hasLeader ? this.period : ELECTION_MS;
    if (round === this.#round) this.#schedule(Math.max(50, period - (performance.now() - began)));
  }

  async #look(base, timeout) {
    const began = performance.now();
    const [cluster, status] = await Promise.all([
      api.json("v1/cluster", { base, timeout }),
      api.json("v1/status", { base, timeout }),
    ]);
    return { cluster, status, base, ms: performance.now() - began, at: Date.now() };
  }

  /** The first answer of another member, if the browser reaches any. */
  async #lookElsewhere() {
    const looks = this.#others.map(async (base) => {
      const seen = await this.#look(base, this.#patience);
      if (seen.cluster.cluster_id !== this.#clusterId) throw new Error("another cluster");
      return seen;
    });
    return Promise.any(looks).catch(() => null);
  }

  #tell(round, seen) {
    if (round !== this.#round) return;
    const { cluster, base } = seen;
    this.#hasLeader = cluster.leader !== null;
    if (base === api.home) this.#clusterId = cluster.cluster_id;
    const here = seen.status.name;
    if (base === api.home) this.#others = cluster.members.filter((m) => m.name !== here).map((m) => `${m.client_url.replace(/\/$/, "")}/`);
    this.dispatchEvent(new CustomEvent("seen", { detail: { ...seen, isHome: base === api.home } }));
  }
}

/**
 * Follow the changes of a prefix until `signal`; goes on after breaks where it was cut off.
 * `onEvent(event, item)` for each put and delete, `onState(text)` when it comes and goes.
 */
export async function watch(prefix, signal, onEvent, onState) {
  let lastId = null;
  let pause = 0;
  while (!signal.aborted) {
    try {
      onState("connecting");
      const headers = lastId ? { "Last-Event-ID": lastId } : {};
      const response = await api.ask(`v1/watch?prefix=${prefix}&prev=true`, { headers, signal, timeout: 0 });
      onState("live");
      pause = 0;
      for await (const { event, data, id } of events(response.body)) {
        if (id) lastId = id;
        if (event === "put" || event === "delete") onEvent(event, data);
        if (event === "compacted") lastId = null;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem) {
        if (error.status === 410) lastId = null; // what came between is gone: from now on
        else if (error.status === 401 || error.status === 403) return onState(error.message);
      }
    }
    onState("interrupted, trying again");
    pause = Math.min(5000, pause ? pause * 2 : 250);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** Server-Sent Events of a body. (EventSource cannot send a token.) */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const fields = Object.fromEntries(block.split("\n").map((line) => {
          const colon = line.indexOf(": ");
          return [line.slice(0, colon), line.slice(colon + 2)];
        }));
        if (fields.event) yield { event: fields.event, id: fields.id, data: JSON.parse(fields.data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** An item of the API with its bytes. */
export function withBytes(item) {
  return {
    ...item,
    key: fromJson(item.key, item.key_encoding),
    value: item.value === undefined ? null : fromJson(item.value, item.value_encoding),
  };
}
