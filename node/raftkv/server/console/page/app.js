// Starts the console: views, connection, sign-in, colours, shortcuts.

import { Poller, Problem, api } from "./api.js";
import { showCluster, startScraping } from "./cluster.js";
import { byId, clock, el, setAttribute, setText } from "./dom.js";
import { keys } from "./keys.js";

const POLL_MS = 500;
const VIEWS = ["cluster", "keys"];

// ---- views -----------------------------------------------------------------------------------

function show(view) {
  for (const each of VIEWS) {
    const isShown = each === view;
    byId(`view-${each}`).hidden = !isShown;
    const tab = byId(`tab-${each}`);
    setAttribute(tab, "aria-selected", String(isShown));
    tab.tabIndex = isShown ? 0 : -1;
  }
  history.replaceState(null, "", `#${view}`);
  keys.setShown(view === "keys");
}

for (const view of VIEWS) {
  const tab = byId(`tab-${view}`);
  tab.addEventListener("click", () => show(view));
  tab.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = VIEWS[1 - VIEWS.indexOf(view)];
    show(other);
    byId(`tab-${other}`).focus();
  });
}

// ---- the connection ----------------------------------------------------------------------------

let served = null; // the name of the node that served the page, or answers in its place

function link(state, text) {
  setAttribute(byId("link"), "data-state", state);
  setText(byId("link-text"), text);
}

function banner(...parts) {
  const box = byId("banner");
  const text = parts.map((part) => part.textContent ?? part).join("");
  if (box.textContent !== text) box.replaceChildren(...parts);
  box.hidden = !parts.length;
}

const poller = new Poller(POLL_MS);
poller.addEventListener("seen", ({ detail: seen }) => {
  const { status, isHome, base } = seen;
  document.title = `${seen.cluster.leader_name ?? "no leader"} · RaftKV`;
  if (isHome) {
    served = status.name;
    const isWell = status.state === "running";
    link(isWell ? "ok" : "warn", isWell ? `live from ${status.name}` : `${status.name}: ${status.state}`);
    banner(...status.warnings.length ? [`${status.name}: ${status.warnings.join("; ")}`] : []);
  } else {
    link("warn", `live from ${status.name}`);
    banner(`${served}, which served this page, does not answer. ${status.name} shows the cluster instead; for keys, `, el("a", { href: base }, `open its console`), ".");
  }
  keys.setReachable(isHome);
  showCluster(seen);
  if (byId("sign-in").open && isHome) byId("sign-in").close();
  byId("sign-out").hidden = api.token === null;
});
poller.addEventListener("unseen", ({ detail }) => {
  link("bad", "not answering");
  banner(`${served ?? "The node"} has not answered since ${clock(detail.since)}, and no other member can be reached from here. What is shown is from before. Trying again.`);
  keys.setReachable(false);
});
poller.addEventListener("refused", ({ detail: problem }) => {
  link("bad", problem.status === 401 ? "signed out" : "refused");
  if (problem.status !== 401) banner(`The node refuses: ${problem.message}`);
});
poller.addEventListener("paused", () => link("wait", "paused"));
startScraping();

// ---- sign-in ---------------------------------------------------------------------------------

const dialog = byId("sign-in");
api.addEventListener("token-needed", () => {
  if (dialog.open) return;
  setText(byId("sign-in-error"), api.token === null ? "" : "This token is not accepted.");
  byId("token").value = "";
  dialog.showModal();
});
dialog.addEventListener("cancel", (event) => event.preventDefault());
dialog.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = byId("token").value.trim();
  if (!/^[\x21-\x7e]+$/.test(token)) return setText(byId("sign-in-error"), "A token is made of visible ASCII characters.");
  setText(byId("sign-in-error"), "");
  const before = api.token;
  api.token = token;
  try {
    await api.json("v1/status");
    api.sign(token);
    byId("token").value = "";
    dialog.close();
  } catch (error) {
    api.token = before;
    setText(byId("sign-in-error"), error instanceof Problem && error.status === 401 ? "This token is not accepted." : error.message);
  }
});
byId("sign-out").addEventListener("click", () => {
  api.sign(null);
  location.reload(); // nothing that was read with the token stays on the page
});

// ---- colours ---------------------------------------------------------------------------------

const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };

function paint(theme) {
  if (theme === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", theme);
  setText(byId("theme"), THEMES[theme]);
  setAttribute(byId("theme"), "aria-label", `Colours: ${THEMES[theme]}`);
}

const kept = localStorage.getItem("raftkv-theme");
let theme = kept in THEMES ? kept : "auto";
paint(theme);
byId("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  theme = names[(names.indexOf(theme) + 1) % names.length];
  localStorage.setItem("raftkv-theme", theme);
  paint(theme);
});

// ---- keyboard ----------------------------------------------------------------------------------

const SHORTCUTS = {
  1: ["cluster and members", () => show("cluster")],
  2: ["keys", () => show("keys")],
  "/": ["look for a prefix", () => (show("keys"), byId("prefix").focus())],
  n: ["new key", () => (show("keys"), keys.create())],
  u: ["to the folder above", () => keys.up()],
  e: ["edit the value", () => keys.edit()],
  t: ["colours: as the system, light, dark", () => byId("theme").click()],
  "?": ["this list", () => byId("shortcuts").showModal()],
};
const MORE = { "↑ ↓": "go through the list", Enter: "open a key or folder", "Ctrl S": "save the value", Esc: "close the key, leave a field" };

for (const [key, [text]] of Object.entries(SHORTCUTS)) byId("shortcut-list").append(el("dt", {}, el("kbd", {}, key)), el("dd", {}, text));
for (const [key, text] of Object.entries(MORE)) byId("shortcut-list").append(el("dt", {}, el("kbd", {}, key)), el("dd", {}, text));
byId("help").addEventListener("click", () => byId("shortcuts").showModal());

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s" && keys.isShown) {
    event.preventDefault();
    keys.save();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isField = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) && event.target.type !== "checkbox";
  if (event.key === "Escape") {
    if (isField) event.target.blur();
    else keys.close();
    return;
  }
  if (isField || !Object.hasOwn(SHORTCUTS, event.key)) return;
  event.preventDefault();
  SHORTCUTS[event.key][1]();
});

show(location.hash === "#keys" ? "keys" : "cluster");
