// The view of the cluster: tiles, members, roles over time, events.

import { api } from "./api.js";
import { announce, byId, clock, count, el, milliseconds, plural, setAttribute, setText, size, svg, sync } from "./dom.js";
import { ROLES, latency, membersOf, sentence, served, tolerance } from "./model.js";

const LANE_MS = 120_000;
const EVENTS_MAX = 80;
const SPARKS_MAX = 90;
const SCRAPE_MS = 2000;

let samples = []; // {at, roles: name -> role}
let events = []; // {at, kind, text, key}
const told = new Set(); // which changes of roles, by node and number
let last = null; // what was seen before: {cluster, members, base}
let revisions = []; // {at, revision} of the last seconds
const trips = []; // ms of this page's own requests
const nodeMs = []; // mean ms of the node, a number each scrape
let scraped = null;
let node = null; // between the last two scrapes: {perSecond, mean, p99}

/** Show what was just seen. */
export function showCluster(seen) {
  const { cluster, status, at } = seen;
  const members = membersOf(cluster);
  keep(trips, seen.ms);
  if (last && last.name !== status.name) revisions = [];
  revisions = [...revisions.filter((each) => at - each.at < 5000), { at, revision: status.revision }];
  samples = [...samples.filter((each) => at - each.at < LANE_MS), { at, roles: new Map(members.map((m) => [m.name, m.role])) }];
  tell(seen, members);
  last = { cluster, members, name: status.name };
  showTiles(cluster, status, members);
  showChange(cluster, members);
  showMembers(members, cluster, status);
  showLanes(members, at);
  showEvents(status);
}

function keep(list, value) {
  list.push(value);
  if (list.length > SPARKS_MAX) list.shift();
}

// ---- events ---------------------------------------------------------------------------------

function add(at, kind, text, isNew = true) {
  events.push({ at, kind, text, key: `${at}-${text}` });
  if (isNew && kind !== "none" && kind !== "candidate") announce(text);
}

function tell(seen, members) {
  const { cluster, status, at } = seen;
  for (const change of cluster.role_changes) {
    const when = at - change.seconds_ago * 1000;
    const { kind, text } = sentence(change, status.name);
    const name = [status.name, change.number, change.term, change.role].join(" ");
    // The same election is told by each node that is asked.
    if (!told.has(name) && !(kind === "leader" && events.some((each) => each.text === text))) add(when, kind, text, last !== null);
    told.add(name);
  }
  if (last) {
    const before = new Map(last.members.map((member) => [member.id, member]));
    for (const member of members) {
      const was = before.get(member.id);
      if (!was) add(at, "config", `${member.name} was added as a ${member.isVoter ? "voter" : "learner"}`);
      else if (was.role !== "silent" && member.role === "silent") add(at, "silent", `${member.name} does not answer`);
      else if (was.role === "silent" && member.role !== "silent") add(at, "back", `${member.name} answers again`);
      else if (member.role === "candidate" && was.role !== "candidate" && member.name !== status.name) {
        add(at, "candidate", `${member.name} stands for election in term ${member.term}`);
      }
      if (was && !was.isVoter && member.isVoter) add(at, "config", `${member.name} votes now`);
      before.delete(member.id);
    }
    for (const gone of before.values()) add(at, "config", `${gone.name} was removed`);
    if (cluster.joint && !last.cluster.joint) add(at, "config", "A joint change of the members began");
    if (!cluster.joint && last.cluster.joint) add(at, "config", "The joint change is complete");
    if (last.name !== status.name) add(at, "none", `${status.name} shows the cluster now`);
  }
  events.sort((one, other) => other.at - one.at);
  events = events.slice(0, EVENTS_MAX);
}

function showEvents(status) {
  setText(byId("events-by"), `as ${status.name} sees them`);
  sync(byId("events"), events, (event) => event.key,
    (event) => el("li", { "data-kind": event.kind }, el("time", {}, clock(event.at)), el("i", { class: "dot", "aria-hidden": "true" }), el("span", {}, event.text)));
}

// ---- tiles -----------------------------------------------------------------------------------

function showTiles(cluster, status, members) {
  const answering = members.filter((member) => member.role !== "silent").length;
  const spare = tolerance(cluster, members);
  const [first] = revisions;
  const seconds = (revisions.at(-1).at - first.at) / 1000;
  const writes = seconds > 0 ? (status.revision - first.revision) / seconds : 0;
  const health = cluster.leader === null ? "bad" : spare === null || spare < 0 ? "bad" : spare === 0 && members.length > 1 ? "warn" : "ok";
  const words = cluster.leader === null ? "No leader is known" : spare > 0 ? `${plural(spare, "more may fail", "more may fail")}` : members.length === 1 ? "A single member" : "None may fail now";
  const tiles = [
    { key: "leader", title: "Leader", value: cluster.leader_name ?? "none", note: `term ${cluster.term}`, state: cluster.leader === null ? "bad" : "lead" },
    { key: "health", title: "Answering", value: `${answering} of ${members.length}`, note: words, state: health },
    { key: "revision", title: "Revision", value: count(status.revision), note: `${writes < 10 ? writes.toFixed(1) : count(Math.round(writes))} changes/s` },
    { key: "commit", title: "Commit index", value: count(status.commit_index), note: `applied ${count(status.applied_index)}` },
    { key: "keys", title: "Keys", value: count(status.keys), note: `${size(status.logical_bytes)} of ${size(status.quota_bytes)}` },
    {
      key: "node", title: `Requests at ${status.name}`, sparks: nodeMs,
      value: node ? milliseconds(node.mean) : "idle",
      note: node ? `99 % within ${milliseconds(node.p99)}, ${count(Math.round(node.perSecond))}/s` : "no key asked for just now",
    },
    { key: "page", title: "This page's looks", sparks: trips, value: milliseconds(trips.at(-1)), note: `median ${milliseconds(median(trips))}` },
  ];
  sync(byId("tiles"), tiles, (tile) => tile.key,
    () => el("div", { class: "tile" }, el("h2"), el("b"), svg("svg", { class: "spark", viewBox: "0 0 100 28", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("path")), el("span", { class: "muted" })),
    (node, tile) => {
      const [title, value, chart, note] = node.children;
      setText(title, tile.title);
      setText(value, tile.value);
      setText(note, tile.note);
      setAttribute(node, "data-state", tile.state ?? "plain");
      setAttribute(chart, "display", tile.sparks ? "inline" : "none");
      if (tile.sparks) setAttribute(chart.firstChild, "d", sparkline(tile.sparks));
    });
}

function median(values) {
  return values.length ? [...values].sort((one, other) => one - other)[Math.floor(values.length / 2)] : null;
}

/** A path in 100 x 28, its height the largest value. */
function sparkline(values) {
  const top = Math.max(1, ...values);
  const step = 100 / (SPARKS_MAX - 1);
  const start = 100 - (values.length - 1) * step;
  return values.map((value, at) => `${at ? "L" : "M"}${(start + at * step).toFixed(1)} ${(26 - (24 * value) / top).toFixed(1)}`).join("");
}

/** What the node measures, from time to time. */
export function startScraping() {
  const scrape = async () => {
    if (!document.hidden && !byId("view-cluster").hidden) {
      try {
        const now = { at: performance.now(), ...served(await (await api.ask("metrics", { timeout: 1500 })).text()) };
        if (scraped && scraped.count <= now.count) {
          const found = latency(scraped, now);
          node = found && { ...found, perSecond: (found.requests * 1000) / (now.at - scraped.at) };
          keep(nodeMs, found ? found.mean : 0);
        }
        scraped = now;
      } catch {
        [node, scraped] = [null, null];
      }
    }
    setTimeout(scrape, SCRAPE_MS);
  };
  scrape();
}

// ---- members ---------------------------------------------------------------------------------

function showChange(cluster, members) {
  const names = (ids) => ids.map((id) => members.find((member) => member.id === id)?.name ?? id).sort().join(", ");
  const texts = [];
  if (cluster.joint) {
    texts.push(`A joint change is under way: each decision needs a majority of ${names(cluster.voters_outgoing)} and one of ${names(cluster.voters)}.`);
  }
  for (const member of members.filter((each) => cluster.learners.includes(each.id))) {
    const behind = member.lag === null ? "" : member.lag ? `, ${plural(member.lag, "entry", "entries")} behind` : ", has caught up";
    texts.push(`${member.name} learns without a vote${behind}${member.promotes ? "; it will vote once it has caught up" : ""}.`);
  }
  for (const member of members.filter((each) => each.diverged)) {
    texts.push(`${member.name} holds another state than it should. This needs a person: see the documentation of the state machine.`);
  }
  const box = byId("change");
  box.hidden = !texts.length;
  sync(box, texts, (text) => text, (text) => el("p", {}, text));
}

const COLUMNS = ["term", "last", "durable", "match", "commit", "applied"];
const LABELS = { term: "Term", last: "Last", durable: "On disk", match: "Match", commit: "Commit", applied: "Applied" };

function showMembers(members, cluster, status) {
  setText(byId("config"), `configuration ${count(cluster.config_index)} · ${plural(cluster.voters.length, "voter")}${cluster.learners.length ? ` · ${plural(cluster.learners.length, "learner")}` : ""}${cluster.joint ? " · joint" : ""}`);
  sync(byId("members"), members, (member) => member.id, makeMember, (row, member) => {
    setAttribute(row, "data-role", member.role);
    setText(row.querySelector(".name"), member.name);
    const here = member.name === status.name ? "shows this" : "";
    setText(row.querySelector(".tag"), [here, member.isLeaving && "leaving", member.isJoining && "joining", !member.isVoter && member.role !== "learner" && "learner", member.diverged && "state differs"].filter(Boolean).join(", "));
    setText(row.querySelector(".role span"), ROLES[member.role] ?? member.role);
    for (const column of COLUMNS) setText(row.querySelector(`.c-${column}`), count(member[column]));
    const lag = member.lag;
    setText(row.querySelector(".lag span"), lag === null ? "–" : lag === 0 ? "nothing" : plural(lag, "entry", "entries"));
    // Each factor of ten takes as much of the bar: 1 is to be seen beside 100,000.
    const share = lag === null ? 0 : lag === 0 ? 100 : Math.max(4, 92 - 18 * Math.log10(lag));
    const bar = row.querySelector(".lag progress");
    if (bar.value !== share) bar.value = share;
    const heard = member.heardSeconds;
    setText(row.querySelector(".c-heard"), heard === null ? "–" : member.name === status.name ? "itself" : heard < 1 ? "now" : `${Math.floor(heard)} s ago`);
  });
}

function makeMember() {
  const cell = (column) => el("td", { class: `n c-${column}`, "data-label": LABELS[column] });
  return el("tr", {},
    el("th", { scope: "row" }, el("span", { class: "name" }), " ", el("span", { class: "tag" })),
    el("td", { class: "role", "data-label": "Role" }, el("i", { class: "dot", "aria-hidden": "true" }), el("span")),
    ...COLUMNS.map(cell),
    el("td", { class: "lag", "data-label": "Behind" }, el("progress", { max: 100, "aria-hidden": "true" }), el("span")),
    el("td", { class: "n c-heard", "data-label": "Heard" }));
}

// ---- roles over time --------------------------------------------------------------------------

function showLanes(members, now) {
  const names = members.map((member) => member.name);
  sync(byId("lanes"), names, (name) => name,
    (name) => el("div", { class: "lane" }, el("span", { class: "name" }, name), svg("svg", { viewBox: "0 0 1000 18", preserveAspectRatio: "none", role: "img" })),
    (lane, name) => {
      const chart = lane.lastElementChild;
      const parts = segments(name, now);
      setAttribute(chart, "aria-label", `${name}: ${parts.slice(-6).map((part) => ROLES[part.role]).join(", then ")}`);
      chart.replaceChildren(...parts.map((part) => {
        const x = 1000 * (1 - (now - part.from) / LANE_MS);
        const width = Math.max(3, (1000 * (part.to - part.from)) / LANE_MS);
        const title = svg("title");
        title.textContent = `${ROLES[part.role]}, ${clock(part.from)} to ${clock(part.to)}`;
        return svg("rect", { x: x.toFixed(1), y: 0, width: width.toFixed(1), height: 18, class: `r-${part.role}` }, title);
      }));
    });
  sync(byId("legend"), ["leader", "follower", "candidate", "learner", "silent"], (role) => role,
    (role) => el("li", {}, svg("svg", { width: 14, height: 10, "aria-hidden": "true" }, svg("rect", { width: 14, height: 10, class: `r-${role}` })), ROLES[role]));
}

function segments(name, now) {
  const parts = [];
  for (const [at, sample] of samples.entries()) {
    const role = sample.roles.get(name);
    const until = samples[at + 1]?.at ?? now;
    // What lies between two looks is known only if they are close.
    const to = until - sample.at > 4000 ? sample.at + 500 : until;
    if (role === undefined) continue;
    const before = parts.at(-1);
    if (before && before.role === role && sample.at - before.to < 50) before.to = to;
    else parts.push({ role, from: sample.at, to });
  }
  return parts;
}
