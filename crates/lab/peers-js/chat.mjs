// Talks to the agent of a gateway as a raw client and compares what comes with what real gateways were seen to send: the
// fields of every event, their order, and every answer against the published JSON Schema.
//
//   GATEWAY_TOKEN=… node chat.mjs '{"url":…, "generation":"v4"|"v3", "ours":bool}'
//
// The model behind the gateway has to say HELLO to anything with "hello", and to stream SLOW piece by piece to anything
// with "SLOW". The last line is a JSON report: {frames, checked, problems:[text]}.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Checker } from "./checker.mjs";
import { Device, Wire } from "./wire.mjs";

const options = JSON.parse(process.argv[2]);
const v4 = options.generation === "v4";
const HELLO = "Hello from the fake model.";
const MAIN = "agent:main:main";
const schema = JSON.parse(
  readFileSync(join(process.env.PEER_MODULES, "@openclaw/gateway-protocol/protocol.schema.json"), "utf8"),
);
const checker = await Checker.create(schema, { closed: v4 });
const problem = (text) => checker.problems.includes(text) || checker.problems.push(text);
const equal = (where, got, wanted) => {
  if (JSON.stringify(got) !== JSON.stringify(wanted))
    problem(`${where}: got ${JSON.stringify(got)}, expected ${JSON.stringify(wanted)}`);
};

/** Fields every event of a kind had on the real gateways; `a.b` is b inside a. */
const SEEN = v4
  ? {
      "chat status": "agentId phase runId seq sessionKey state",
      "agent run_status": "agentId data.phase isHeartbeat runId seq sessionKey stream ts",
      "agent lifecycle start": "agentId data.phase data.startedAt runId seq sessionId sessionKey stream ts",
      "agent lifecycle model": "agentId data.model data.phase data.provider runId seq sessionId sessionKey stream ts",
      "agent assistant": "agentId data.delta data.itemId data.text runId seq sessionKey stream ts",
      "chat delta": "agentId deltaText message.role message.content message.timestamp runId seq sessionKey state",
      "agent usage": "agentId data.outputTokens runId seq sessionKey stream ts",
      "agent lifecycle finishing": "agentId data.aborted data.endedAt data.livenessState data.phase data.stopReason runId seq sessionId sessionKey stream ts",
      "agent lifecycle end": "agentId data.endedAt data.phase data.startedAt runId seq sessionId sessionKey stream ts",
      "chat final": "agentId runId seq sessionKey state",
      "chat aborted": "agentId message.role message.content message.timestamp runId seq sessionKey state stopReason",
      "sessions.changed": "agentId session sessionId sessionKey ts archived createdVia kind pinned unread visibility",
      "session.message": "agentId message messageId messageSeq session sessionId sessionKey archived kind pinned unread updatedAt visibility",
    }
  : {
      "agent lifecycle start": "data.phase data.startedAt runId seq sessionKey stream ts",
      "agent assistant": "data.delta data.text runId seq sessionKey stream ts",
      "chat delta": "message.role message.content message.timestamp runId seq sessionKey state",
      "agent lifecycle end": "data.endedAt data.phase runId seq sessionKey stream ts",
      "chat final": "message.role message.content message.timestamp runId seq sessionKey state",
      "chat aborted": "message.role message.content message.timestamp runId seq sessionKey state stopReason",
    };

const kind = ({ event, payload }) => {
  if (event === "chat") return `chat ${payload.state}`;
  if (event !== "agent") return event;
  return payload.stream === "lifecycle" ? `agent lifecycle ${payload.data.phase}` : `agent ${payload.stream}`;
};

const seen = new Set();
function onFrame(frame, wire) {
  checker.frame(frame, wire);
  if (frame.type !== "event") return;
  const name = kind(frame);
  seen.add(name);
  // A conversation that is gone has no row, there neither.
  if (name === "sessions.changed" && ["delete", undefined].includes(frame.payload.reason ?? frame.payload.phase)) return;
  for (const path of (SEEN[name] ?? "").split(" ").filter(Boolean)) {
    const value = path.split(".").reduce((at, key) => at?.[key], frame.payload);
    if (value === undefined) problem(`${name}: ${path} is missing`);
  }
  if (!v4 && name === "chat status") problem("chat status: unknown to protocol 3");
}

async function step(name, action) {
  try {
    return await action();
  } catch (error) {
    problem(`${name}: ${error.message}`);
  }
}

const wire = await Wire.open(options.url, "operator", { onFrame });
const version = v4 ? 4 : 3;
const connected = await wire.connect({
  minProtocol: version, maxProtocol: version, role: "operator", caps: ["tool-events"],
  client: { id: "cli", mode: "cli", version: "2026.9.6", platform: "linux" },
  scopes: ["operator.admin", "operator.read", "operator.write", "operator.approvals", "operator.pairing"],
  auth: { token: process.env.GATEWAY_TOKEN },
}, new Device(), v4 ? "v3" : "v2");
if (!connected.ok) throw new Error(`connect refused: ${JSON.stringify(connected.error)}`);
checker.hello(connected.payload, "operator");
const offered = new Set(connected.payload.features.methods);

/** Calls a method, validates params and result, and returns the payload; an error answer is a problem. */
async function call(method, params) {
  checker.params(method, params);
  const answer = await wire.request(method, params);
  if (!answer.ok) {
    problem(`${method} ${JSON.stringify(params)}: refused: ${JSON.stringify(answer.error)}`);
    return undefined;
  }
  if (v4) checker.result(method, answer.payload);
  return answer.payload;
}

async function refused(method, params, message) {
  const answer = await wire.request(method, params);
  const where = `${method} ${JSON.stringify(params)}`;
  if (answer.ok) return problem(`${where}: accepted`);
  equal(`${where}: code`, answer.error.code, "INVALID_REQUEST");
  if (!answer.error.message.startsWith(message)) problem(`${where}: ${answer.error.message}, expected ${message}…`);
}

/** What came of a run, in order, without what repeats. */
const eventsOf = (runId, from) =>
  wire.received.slice(from).filter((f) => f.type === "event" && (f.event === "chat" || f.event === "agent") && f.payload.runId === runId);
const ended = (runId, state, from) => wire.event("chat", { from, where: (p) => p.runId === runId && p.state === state });

if (v4) {
  await step("subscriptions", async () => {
    equal("sessions.subscribe", await call("sessions.subscribe", {}), { subscribed: true });
    equal("sessions.messages.subscribe", await call("sessions.messages.subscribe", { key: MAIN }), { subscribed: true, key: MAIN });
  });
}

const sent = { sessionKey: "main", message: "Say hello please", idempotencyKey: "idem-1" };

await step("chat.send", async () => {
  const from = wire.mark();
  equal("chat.send", await call("chat.send", sent), { runId: "idem-1", status: "started" });
  const final = await ended("idem-1", "final", from);
  equal("final text", final.payload.message.content, [{ type: "text", text: HELLO }]);
  equal("final session", final.payload.sessionKey, MAIN);
  if (v4) equal("final reason", final.payload.stopReason, "stop");
  const events = eventsOf("idem-1", from);
  const kinds = events.map(kind);
  const order = kinds.filter((name, at) => name !== kinds[at - 1]).join(", ").replaceAll(/(agent assistant, |chat delta, )+/g, "assistant+delta, ");
  const wanted = v4
    ? "chat status, agent run_status, chat status, agent run_status, agent lifecycle start, chat status, agent run_status, agent lifecycle model, assistant+delta, agent usage, agent lifecycle finishing, agent lifecycle model, agent lifecycle end, chat final"
    : "agent lifecycle start, assistant+delta, agent lifecycle end, chat final";
  equal("order of events", order, wanted);
  let last = 0;
  let said = "";
  for (const { event, payload } of events) {
    if (payload.seq < last) problem(`inner seq ${payload.seq} after ${last}`);
    last = payload.seq;
    if (event === "agent" && payload.stream === "assistant") {
      said += payload.data.delta;
      equal("assistant text is cumulative", payload.data.text, said);
    }
    if (event === "chat" && payload.state === "delta" && !HELLO.startsWith(payload.message.content[0].text))
      problem(`a delta that is not the beginning of the answer: ${payload.message.content[0].text}`);
  }
  equal("assistant text", said, HELLO);
  if (v4) {
    const deltas = events.filter((f) => kind(f) === "chat delta").map((f) => f.payload.deltaText).join("");
    equal("delta texts", deltas, HELLO);
    const changed = (where) => wire.event("sessions.changed", { from, where });
    await changed((p) => p.reason === "send");
    for (const phase of ["start", "model", "end"]) await changed((p) => p.phase === phase && p.runId === "idem-1");
    for (const role of ["user", "assistant"])
      await wire.event("session.message", { from, where: (p) => p.message.role === role && p.sessionKey === MAIN });
  }
});

await step("chat.history", async () => {
  const history = await call("chat.history", { sessionKey: "main", limit: 20 });
  equal("history: key", history.sessionKey, "main");
  equal("history: roles", history.messages.map((m) => m.role), ["user", "assistant"]);
  const [asked, answer] = history.messages;
  const words = (message) => (typeof message.content === "string" ? message.content : message.content.map((p) => p.text).join(""));
  equal("history: texts", [words(asked), words(answer)], [sent.message, HELLO]);
  for (const field of ["api", "provider", "model", "stopReason", "timestamp"])
    if (answer[field] === undefined) problem(`chat.history: an assistant message without ${field}`);
  if (!v4) return equal("history: thinkingLevel", typeof history.thinkingLevel, "string");
  equal("history: idempotencyKey", asked.idempotencyKey, "idem-1:user");
  for (const field of ["id", "seq", "recordTimestampMs"])
    if (asked.__openclaw?.[field] === undefined) problem(`chat.history: a message without __openclaw.${field}`);
  equal("history: totals", [history.totalMessages, history.hasMore, history.pendingInputs], [2, false, { items: [], total: 0 }]);
});

await step("chat.abort", async () => {
  const from = wire.mark();
  await call("chat.send", { sessionKey: "main", message: "SLOW please", idempotencyKey: "idem-2" });
  const first = await wire.event("chat", { from, where: (p) => p.runId === "idem-2" && p.state === "delta" });
  equal("chat.abort", await call("chat.abort", { sessionKey: "main", runId: "idem-2" }), { ok: true, aborted: true, runIds: ["idem-2"] });
  const answered = wire.received.findLastIndex((f) => f.type === "res");
  const aborted = wire.received.findIndex((f) => f.event === "chat" && f.payload.runId === "idem-2" && f.payload.state === "aborted");
  if (aborted < 0 || aborted > answered) problem("chat aborted comes before the answer to chat.abort");
  const { payload } = wire.received[aborted];
  equal("aborted: reason", payload.stopReason, "rpc");
  const partial = payload.message.content[0].text;
  if (!partial.startsWith(first.payload.message.content[0].text)) problem(`aborted: the partial answer is ${partial}`);
  if (!options.ours) return;
  // The end of a run may be written after the answer.
  let kept;
  for (let tries = 0; tries < 100 && kept === undefined; tries++) {
    const history = await call("chat.history", { sessionKey: "main", limit: 20 });
    kept = history.messages.slice(2).find((m) => m.role === "assistant");
  }
  if (!kept?.content[0]?.text?.startsWith(partial.slice(0, 10))) problem(`the partial answer was not kept: ${JSON.stringify(kept)}`);
  equal("nothing left to abort", await call("chat.abort", { sessionKey: "main" }), { ok: true, aborted: false, runIds: [] });
});

await step("agent", async () => {
  const from = wire.mark();
  const params = { message: "agent method hello", sessionKey: "main", idempotencyKey: "idem-3" };
  checker.params("agent", params);
  const id = "agent-call";
  const accepted = await wire.request("agent", params, { id });
  equal("agent: accepted", [accepted.payload?.runId, accepted.payload?.status, typeof accepted.payload?.acceptedAt], ["idem-3", "accepted", "number"]);
  const waited = await call("agent.wait", { runId: "idem-3", timeoutMs: 20000 });
  equal("agent.wait", [waited.runId, waited.status, typeof waited.startedAt, typeof waited.endedAt], ["idem-3", "ok", "number", "number"]);
  if (v4) {
    equal("agent.wait: end", [waited.stopReason, waited.livenessState, waited.terminalReply], ["stop", "working", { disposition: "visible", text: HELLO }]);
    const receipt = Object.keys(waited.terminalReceipt ?? {}).sort().join(" ");
    equal("agent.wait: receipt", receipt, "effective requested rerouted runId sessionId successfulToolNames terminalDisposition turnId");
  }
  const done = await wire.until("second answer to agent", () =>
    wire.received.slice(from).find((f) => f.type === "res" && f.id === id && f.payload?.status !== "accepted"));
  const { status, summary, result } = done.payload;
  equal("agent: end", [status, summary, result?.payloads], ["ok", "completed", [{ text: HELLO, mediaUrl: null }]]);
  equal("agent: meta", [typeof result?.meta?.durationMs, typeof result?.meta?.agentMeta?.sessionId], ["number", "string"]);
  const again = await wire.request("agent.wait", { runId: "idem-3", timeoutMs: 0 });
  equal("agent.wait, long after", again.payload?.status, "ok");
});

await step("repeated and wrong requests", async () => {
  const from = wire.mark();
  const again = await call("chat.send", sent);
  equal("the same request is the same run", again?.runId, "idem-1");
  equal("and runs once", eventsOf("idem-1", from).length, 0);
  const dup = { ...sent, message: "dup" };
  if (v4) await refused("chat.send", dup, "This message ID was already used for different input");
  else equal("chat.send with a used id", (await call("chat.send", dup))?.runId, "idem-1");
  await refused("chat.send", { bogus: 1 }, v4 ? "session mutation target is unavailable" : "invalid chat.send params");
});

await step("lists", async () => {
  const sessions = await call("sessions.list", { limit: 5 });
  equal("sessions.list", [sessions.count, sessions.sessions[0].key, sessions.sessions[0].kind], [1, MAIN, "direct"]);
  const fields = v4
    ? "key kind chatType updatedAt sessionId systemSent abortedLastRun modelProvider model contextTokens totalTokens isMain classification lastInteractionAt thinkingDefault"
    : "key kind chatType updatedAt sessionId systemSent abortedLastRun inputTokens outputTokens totalTokens totalTokensFresh modelProvider model contextTokens";
  for (const field of fields.split(" "))
    if (sessions.sessions[0][field] === undefined) problem(`sessions.list: a row without ${field}`);
  const models = await call("models.list", {});
  equal("models.list", models.models.filter((m) => m.provider === "double").map((m) => m.id), ["one", "two"]);
  const agents = await call("agents.list", {});
  equal("agents.list", [agents.defaultId, agents.mainKey, agents.scope, agents.agents[0].id], ["main", "main", "per-sender", "main"]);
});

await step("the rest", async () => {
  if (!v4) return;
  const sweep = async (method, params) => (options.ours || offered.has(method) ? call(method, params) : undefined);
  equal("agent.identity.get", (await sweep("agent.identity.get", {}))?.agentId, "main");
  for (const view of ["default", "configured", "provider-config", "all"]) await sweep("models.list", { view });
  for (const scope of ["text", "native", "both"]) await sweep("commands.list", { scope, includeArgs: true });
  const commands = (await sweep("commands.list", {}))?.commands.map((c) => c.name) ?? [];
  for (const name of ["status", "help", "new", "stop", "model"])
    if (!commands.includes(name)) problem(`commands.list lacks ${name}`);
  await sweep("tools.catalog", {});
  await sweep("tools.effective", { sessionKey: MAIN });
  await sweep("channels.status", {});
  await sweep("channels.status", { probe: true, timeoutMs: 2000 });
  await sweep("chat.metadata", {});
  await sweep("chat.metadata", { sessionKey: "main" });
  await sweep("chat.startup", { sessionKey: "main", limit: 5 });

  await sweep("sessions.list", { includeDerivedTitles: true, includeLastMessage: true, sortBy: "lastInteractionAt" });
  await sweep("sessions.list", { limit: 1, offset: 1 });
  await sweep("sessions.subscribe", {});
  const described = await sweep("sessions.describe", { key: MAIN, includeDerivedTitles: true, includeLastMessage: true });
  equal("sessions.describe", described?.session?.key, MAIN);
  equal("sessions.describe, unknown", await sweep("sessions.describe", { key: "agent:main:nowhere" }), { session: null });
  const preview = await sweep("sessions.preview", { keys: [MAIN, "agent:main:nowhere"], limit: 4, maxChars: 100 });
  equal("sessions.preview", preview?.previews.map((p) => p.status), ["ok", "missing"]);
  await sweep("sessions.resolve", { key: "main" });
  await sweep("sessions.search", { query: "hello", sessionKeys: [MAIN] });
  await sweep("sessions.usage", {});

  const key = "agent:main:sweep";
  const made = await sweep("sessions.create", { key, label: "Sweep" });
  equal("sessions.create", made?.key, key);
  const patched = await sweep("sessions.patch", { key, label: "Swept", pinned: true });
  equal("sessions.patch", [patched?.key, patched?.entry.label], [key, "Swept"]);
  const from = wire.mark();
  const send = await sweep("sessions.send", { key, message: "hello there", idempotencyKey: "sweep-1" });
  equal("sessions.send", send?.runId, "sweep-1");
  await ended("sweep-1", "final", from);
  await sweep("sessions.abort", { key });
  const history = await sweep("chat.history", { sessionKey: key, limit: 1 });
  equal("chat.history: one of more", [history?.messages.length, history?.hasMore], [1, true]);
  const messageId = history?.messages[0].__openclaw.id;
  await sweep("chat.message.get", { sessionKey: key, messageId });
  await sweep("chat.inject", { sessionKey: key, message: "a note", label: "note" });
  await sweep("sessions.messages.unsubscribe", { key: MAIN });
  await sweep("sessions.compact", { key, maxLines: 2 });
  const before = (await sweep("sessions.describe", { key }))?.session.sessionId;
  const reset = await sweep("sessions.reset", { key, reason: "new" });
  if (reset?.entry.sessionId === before) problem("sessions.reset: the same session id");
  const gone = await sweep("sessions.delete", { key });
  equal("sessions.delete", [gone?.ok, gone?.deleted], [true, true]);
  await sweep("wake", { mode: "next-heartbeat", text: "nothing happened" });
  if (options.ours) {
    const read = await sweep("tools.invoke", { name: "list", args: { path: "." } });
    equal("tools.invoke", [read?.ok, read?.toolName, read?.error], [true, "list", undefined]);
    const unknown = await sweep("tools.invoke", { name: "no_such_tool", args: {} });
    equal("tools.invoke, unknown", [unknown?.ok, unknown?.error?.code], [false, "not_found"]);
  }
  await refused("send", { to: "1", message: "x", idempotencyKey: "send-1" }, "Error: Channel is required");
});

for (const name of Object.keys(SEEN)) if (!seen.has(name)) problem(`never seen: ${name}`);
checker.sequence(wire, { perConnection: v4 });
wire.socket.terminate();
console.log(JSON.stringify(checker.report()));
process.exit(0);
