// From what a node answers to what is shown. No element is touched here.

// Who has been asked for so long without an answer has fallen silent.
const SILENT_SECONDS = 1.5;

export const ROLES = {
  leader: "Leader",
  follower: "Follower",
  learner: "Learner",
  pre_candidate: "Pre-candidate",
  candidate: "Candidate",
  silent: "Not answering",
  unknown: "Asking",
};

/** The members in the order of their names, with what can be said of each. */
export function membersOf(cluster) {
  const reports = cluster.members.map((member) => member.report).filter(Boolean);
  const leaderReport = cluster.members.find((member) => member.id === cluster.leader)?.report;
  const newest = leaderReport?.last_log_index ?? Math.max(0, ...reports.map((report) => report.last_log_index));
  const members = cluster.members.map((member) => {
    const report = member.report;
    const match = member.match_index ?? report?.match_index ?? null;
    const open = member.unanswered_seconds;
    // Who led, and leads no more, has most likely fallen silent.
    const wasLeader = report?.role === "leader" && member.id !== cluster.leader;
    const isSilent = member.healthy === false || open > (wasLeader ? SILENT_SECONDS / 2 : SILENT_SECONDS);
    // A new leader does not know yet what others have; what they know to be committed they do have.
    const held = match === null && !report ? null : Math.max(match ?? 0, report?.commit_index ?? 0);
    return {
      id: member.id,
      name: member.name,
      url: member.client_url,
      role: isSilent ? "silent" : roleOf(member, cluster),
      isVoter: member.voter,
      isLeaving: cluster.voters_outgoing.includes(member.id) && !cluster.voters.includes(member.id),
      isJoining: cluster.joint && cluster.voters.includes(member.id) && !cluster.voters_outgoing.includes(member.id),
      promotes: cluster.auto_promote.includes(member.id),
      diverged: member.diverged,
      term: report?.term ?? null,
      last: report?.last_log_index ?? null,
      durable: report?.durable_index ?? null,
      match: match || null,
      commit: report?.commit_index ?? null,
      applied: report?.applied_index ?? null,
      lag: held === null ? null : Math.max(0, newest - held),
      heardSeconds: report?.age_seconds ?? null,
      rttSeconds: member.rtt_seconds,
    };
  });
  return members.sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
}

function roleOf(member, cluster) {
  if (member.id === cluster.leader) return "leader";
  const report = member.report;
  if (report === null) return member.role === "learner" ? "learner" : "unknown";
  // A leader of an older term does not know yet that it was deposed.
  if (report.role === "leader" && (cluster.leader !== null || report.term < cluster.term)) return "follower";
  return report.role;
}

/** How many voters may still fail, in the worse half of a joint configuration. */
export function tolerance(cluster, members) {
  const silent = new Set(members.filter((member) => member.role === "silent").map((member) => member.id));
  const halves = [cluster.voters, cluster.voters_outgoing].filter((half) => half.length);
  if (!halves.length) return null;
  return Math.min(...halves.map((half) => half.filter((id) => !silent.has(id)).length - (Math.floor(half.length / 2) + 1)));
}

/** What a change of role of the node `name` says. */
export function sentence(change, name) {
  const term = `term ${change.term}`;
  if (change.role === "leader") return { kind: "leader", text: `${name} leads ${term}` };
  if (change.role === "candidate") return { kind: "candidate", text: `${name} stands for election in ${term}` };
  if (change.role === "pre_candidate") return { kind: "candidate", text: `${name} asks whether it could win an election, ${term}` };
  if (change.leader_name !== null) return { kind: "leader", text: `${change.leader_name} leads ${term}` };
  return { kind: "none", text: `${name} knows no leader in ${term}` };
}

const WATCHED = /^\/v1\/(kv|k|txn|leases|locks)(\/|$)/;

/** Of a scrape of /metrics: how often and how long this node served calls of keys, as totals. */
export function served(text) {
  const total = { count: 0, seconds: 0, buckets: new Map() };
  for (const line of text.split("\n")) {
    const found = /^raftkv_http_request_seconds_(bucket|sum|count)\{(.*)\} (\S+)$/.exec(line);
    if (!found || !WATCHED.test(/route="([^"]*)"/.exec(found[2])?.[1] ?? "")) continue;
    const value = Number(found[3]);
    if (found[1] === "count") total.count += value;
    else if (found[1] === "sum") total.seconds += value;
    else {
      const edge = Number(/le="([^"]*)"/.exec(found[2])[1].replace("+Inf", "Infinity"));
      total.buckets.set(edge, (total.buckets.get(edge) ?? 0) + value);
    }
  }
  return total;
}

/** Between two scrapes: requests, their mean and 99th percentile in ms; null without requests. */
export function latency(before, now) {
  const requests = now.count - before.count;
  if (requests <= 0) return null;
  let p99 = null;
  let lower = 0;
  let below = 0;
  for (const [edge, value] of [...now.buckets].sort(([one], [other]) => one - other)) {
    const inside = value - (before.buckets.get(edge) ?? 0);
    if (inside >= 0.99 * requests) {
      const share = inside > below ? (0.99 * requests - below) / (inside - below) : 1;
      p99 = edge === Infinity ? lower : lower + share * (edge - lower);
      break;
    }
    [lower, below] = [edge, inside];
  }
  return { requests, mean: ((now.seconds - before.seconds) / requests) * 1000, p99: p99 === null ? null : p99 * 1000 };
}
