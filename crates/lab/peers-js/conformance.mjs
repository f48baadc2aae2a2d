// Talks to a gateway as several raw clients, records every frame it sends, and validates them all against the
// published JSON Schema; where the schema has no result for a method, against the shape observed on a real gateway.
//
//   GATEWAY_TOKEN=… node conformance.mjs '{"url":…, "generation":"v4"|"v3", "ours":bool}'
//
// Prints "READY-TO-STOP" once and then wants the gateway to be shut down; the last line is a JSON report:
//   {frames, checked:{<schema>: count}, problems:[text], notAdvertised:[method]}

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Checker } from "./checker.mjs";
import { Device, Wire } from "./wire.mjs";

const options = JSON.parse(process.argv[2]);
const token = process.env.GATEWAY_TOKEN;
const v4 = options.generation === "v4";
const version = v4 ? 4 : 3;
const proof = v4 ? "v3" : "v2";
const schema = JSON.parse(
  readFileSync(join(process.env.PEER_MODULES, "@openclaw/gateway-protocol/protocol.schema.json"), "utf8"),
);
const checker = await Checker.create(schema, { closed: v4 });
const ALL_SCOPES = ["operator.admin", "operator.read", "operator.write", "operator.approvals", "operator.pairing"];
const wires = [];

const problem = (text) => checker.problems.push(text);
const equal = (where, got, wanted) => {
  if (JSON.stringify(got) !== JSON.stringify(wanted))
    problem(`${where}: got ${JSON.stringify(got)}, expected ${JSON.stringify(wanted)}`);
};

/** A part of the run that may fail without taking the rest with it. */
async function step(name, action) {
  try {
    return await action();
  } catch (error) {
    problem(`${name}: ${error.message}`);
  }
}

async function open(label, extra) {
  const wire = await Wire.open(options.url, label, { ...extra, onFrame: (frame, from) => checker.frame(frame, from) });
  wires.push(wire);
  return wire;
}

const client = (id, mode, more) => ({ id, mode, version: "2026.9.6", platform: "linux", ...more });
const connectParams = (who, scopes, more = {}) => ({
  minProtocol: version,
  maxProtocol: version,
  client: who,
  role: "operator",
  scopes,
  caps: [],
  auth: { token },
  ...more,
});

/** Connects, insists on hello-ok and returns {wire, hello}. */
async function join_(label, params, device) {
  const wire = await open(label);
  const answer = await wire.connect(params, device, proof);
  if (!answer.ok) throw new Error(`${label}: connect refused: ${JSON.stringify(answer.error)}`);
  checker.hello(answer.payload, label);
  equal(`${label}: hello protocol`, answer.payload.protocol, version);
  return { wire, hello: answer.payload };
}

/** Calls a method, validates params and result, and returns the payload; an error answer is a problem. */
async function call(wire, method, params) {
  if (params !== undefined) checker.params(method, params);
  const answer = await wire.request(method, params);
  if (!answer.ok) {
    problem(`${method} ${JSON.stringify(params)}: refused: ${JSON.stringify(answer.error)}`);
    return undefined;
  }
  checker.result(method, answer.payload);
  return answer.payload;
}

/** Calls a method that must be refused with this code and a message that starts so. */
async function refused(wire, method, params, code, message, details) {
  const answer = await wire.request(method, params);
  const where = `${method} ${JSON.stringify(params)}`;
  if (answer.ok) return problem(`${where}: accepted, expected ${code}`);
  equal(`${where}: error code`, answer.error.code, code);
  if (!answer.error.message.startsWith(message))
    problem(`${where}: message ${JSON.stringify(answer.error.message)}, expected ${JSON.stringify(message)}…`);
  if (details) equal(`${where}: details`, answer.error.details, details);
  return answer.error;
}

// --- the operator ---------------------------------------------------------------------------------------------------

const owner = new Device();
const { wire: operator, hello } = await join_("operator", connectParams(client("cli", "cli"), ALL_SCOPES), owner);
const offered = new Set(hello.features.methods);

equal("hello auth.role", hello.auth.role, "operator");
equal("hello auth.scopes", hello.auth.scopes, v4 ? ALL_SCOPES : [...ALL_SCOPES].sort());
equal("hello policy.maxPayload", hello.policy.maxPayload, 26214400);
equal("hello policy.tickIntervalMs", hello.policy.tickIntervalMs, 30000);
if (!/^[A-Za-z0-9_-]{43}$/.test(hello.auth.deviceToken ?? "")) problem("hello auth.deviceToken: not 32 bytes of base64url");

const tierA = [
  "health", "status", "system-presence", "system-event", "last-heartbeat", "set-heartbeats",
  "config.get", "config.set", "config.patch", "config.apply", "config.schema", "logs.tail", "secrets.reload",
  "device.pair.list", "device.pair.approve", "device.pair.reject", "device.pair.remove",
  "device.token.rotate", "device.token.revoke",
  "node.pair.list", "node.pair.approve", "node.pair.reject", "node.rename", "node.list", "node.describe",
  "node.invoke", "node.invoke.result", "node.event", "skills.bins", "voicewake.get", "voicewake.set",
  ...(v4 ? ["gateway.identity.get", "node.pair.remove", "device.pair.rename"] : []),
];
const notAdvertised = tierA.filter((method) => !offered.has(method));

for (const event of ["connect.challenge", "tick", "health", "heartbeat", "presence", "shutdown",
  "device.pair.requested", "device.pair.resolved", "node.pair.requested", "node.pair.resolved",
  "node.invoke.request", "voicewake.changed"])
  if (!hello.features.events.includes(event)) problem(`hello features.events: no ${event}`);

await step("reads", async () => {
  await call(operator, "health");
  await call(operator, "health", {});
  await call(operator, "health", { probe: true });
  await call(operator, "status");
  if (v4) {
    const status = await call(operator, "status", { includeChannelSummary: false, includeCliProjection: true });
    checker.shape("status.cliProjection", status?.cliProjection);
  }
  await call(operator, "system-presence", {});
  await call(operator, "last-heartbeat", {});
  if (v4) await call(operator, "gateway.identity.get", {});
  await call(operator, "config.schema", {});
  await call(operator, "device.pair.list", {});
  await call(operator, "node.pair.list", {});
  await call(operator, "node.list", {});
  await call(operator, "voicewake.get", {});
});

await step("logs", async () => {
  const first = await call(operator, "logs.tail", { limit: 5 });
  if (!first) return;
  if (first.lines.length > 5) problem(`logs.tail limit 5 gave ${first.lines.length} lines`);
  for (const line of first.lines) JSON.parse(line);
  const next = await call(operator, "logs.tail", { cursor: first.cursor, limit: 100, maxBytes: 250000 });
  if (next && next.cursor < first.cursor) problem("logs.tail: the cursor went back");
  const beyond = await call(operator, "logs.tail", { cursor: 1_000_000_000, limit: 2 });
  if (beyond) equal("logs.tail past the end: reset", beyond.reset, true);
});

await step("system events", async () => {
  const from = operator.mark();
  await call(operator, "system-event", { text: "conformance run" });
  await call(operator, "set-heartbeats", { enabled: false });
  await call(operator, "set-heartbeats", { enabled: true });
  await call(operator, "voicewake.set", { triggers: ["openclaw", "lobster"] });
  await operator.event("voicewake.changed", { from });
});

await step("refusals", async () => {
  await refused(operator, "no.such.method", {}, "INVALID_REQUEST", "unknown method: no.such.method");
  await refused(operator, "device.pair.approve", {}, "INVALID_REQUEST", "invalid device.pair.approve params: ");
  await refused(operator, "device.pair.approve", { requestId: "nope" }, "INVALID_REQUEST", "unknown requestId");
  await refused(operator, "device.pair.reject", { requestId: "nope" }, "INVALID_REQUEST", "unknown requestId");
  await refused(operator, "device.pair.remove", { deviceId: "nope" }, "INVALID_REQUEST", "unknown deviceId");
  const stranger = { deviceId: "0".repeat(64), role: "operator" };
  if (v4)
    await refused(operator, "device.token.rotate", stranger, "INVALID_REQUEST", "device token rotation denied");
  await refused(operator, "node.pair.approve", { requestId: "nope" }, "INVALID_REQUEST", "unknown requestId");
  await refused(operator, "node.describe", { nodeId: "nope" }, "INVALID_REQUEST", "unknown nodeId");
  await refused(operator, "node.rename", { nodeId: "nope", displayName: "x" }, "INVALID_REQUEST", "unknown nodeId");
  await refused(operator, "node.event", { event: "x" }, "INVALID_REQUEST", "unauthorized role: operator");
  await refused(operator, "connect", connectParams(client("cli", "cli"), []), "INVALID_REQUEST", "");

  const from = operator.mark();
  operator.socket.send(JSON.stringify({ type: "req", id: "bad-frame", method: "" }));
  const answer = await operator.until("answer to a bad frame", () =>
    operator.received.slice(from).find((f) => f.type === "res" && f.id === "bad-frame"));
  equal("bad frame: code", answer.error?.code, "INVALID_REQUEST");
  if (!answer.error?.message.startsWith("invalid request frame:")) problem(`bad frame: ${answer.error?.message}`);
  operator.socket.send("this is no JSON");
  await call(operator, "health", {});
});

await step("read-only operator", async () => {
  const { wire } = await join_("reader", connectParams(client("cli", "cli"), ["operator.read"]), new Device());
  await call(wire, "health", {});
  await call(wire, "status", {});
  await call(wire, "logs.tail", { limit: 1 });
  const missing = "missing scope: operator.pairing";
  const details = { code: "MISSING_SCOPE", missingScope: "operator.pairing", requiredScopes: ["operator.pairing"] };
  if (v4) await refused(wire, "device.pair.list", {}, "FORBIDDEN", missing, details);
  else await refused(wire, "device.pair.list", {}, "INVALID_REQUEST", missing);
  await wire.close();
});

// --- devices without and with pairing -------------------------------------------------------------------------------

await step("the command line without a device", async () => {
  const params = connectParams(client("gateway-client", "backend"), ["operator.read"]);
  const { wire, hello: seen } = await join_("backend", params);
  equal("backend: scopes", seen.auth?.scopes ?? ["operator.read"], ["operator.read"]);
  if (seen.auth?.deviceToken) problem("backend: a device token without a device");
  await call(wire, "status", {});
  await wire.close();
});

if (v4)
  await step("a probe without a device", async () => {
    const params = connectParams(client("cli", "probe"), ["operator.read"], { minProtocol: 3, maxProtocol: 4 });
    const { wire, hello: seen } = await join_("probe", params);
    await call(wire, "health", {});
    if (options.ours) {
      // Not the id a client gives itself decides, but the proven secret on a direct local connection.
      equal("probe: scopes", seen.auth.scopes, ["operator.read"]);
      await call(wire, "status", {});
    } else {
      equal("probe: scopes", seen.auth.scopes, []);
      await refused(wire, "status", {}, "FORBIDDEN", "missing scope: operator.read");
    }
    await wire.close();
  });

await step("presence of an app", async () => {
  const device = new Device();
  const about = (reason) => ({ presence }) => presence.some((entry) => entry.deviceId === device.id && entry.reason === reason);
  let from = operator.mark();
  const who = client("openclaw-macos", "ui", { instanceId: "app-1", displayName: "App" });
  const { wire } = await join_("app", connectParams(who, ["operator.read"]), device);
  // Protocol 3 tells of an arrival only through the hello of the next client.
  if (v4) await operator.event("presence", { from, where: about("connect") });
  else await call(operator, "system-presence", {});
  from = operator.mark();
  await wire.close();
  const event = await operator.event("presence", { from, where: about("disconnect") });
  checker.schema("StateVersion", event.stateVersion, "presence event: stateVersion");
});

/** A device whose platform changed must be approved by hand, even on loopback. */
async function changedDevice(device, platform) {
  const wire = await open(`changed to ${platform}`);
  const answer = await wire.connect(connectParams(client("cli", "cli", { platform }), ["operator.read"]), device, proof);
  if (answer.ok) throw new Error(`a device that became ${platform} was let in`);
  equal("changed device: code", answer.error.code, "NOT_PAIRED");
  equal("changed device: details.code", answer.error.details?.code, "PAIRING_REQUIRED");
  equal("changed device: reason", answer.error.details?.reason, "metadata-upgrade");
  const closed = await wire.until("close", () => wire.closed);
  equal("changed device: close code", closed.code, 1008);
  return answer.error.details.requestId;
}

/** Makes a setup code that leads to this gateway; returns the answer and what the code says. */
async function setupCode(params) {
  const made = await call(operator, "device.pair.setupCode", { publicUrl: options.url, includeQr: false, ...params });
  const payload = JSON.parse(Buffer.from(made.setupCode, "base64url").toString("utf8"));
  equal("setup code: url", payload.url.replace(/\/$/, ""), options.url);
  equal("setup code: end", payload.expiresAtMs, made.expiresAtMs);
  return { made, auth: { bootstrapToken: payload.bootstrapToken } };
}

if (v4)
  await step("setup codes", async () => {
    const loopback = "Gateway is only bound to loopback. Set gateway.bind=lan, enable tailscale serve, or configure ";
    await refused(operator, "device.pair.setupCode", {}, "INVALID_REQUEST", loopback);
    const phone = client("openclaw-ios", "node", { platform: "ios 18.4", deviceFamily: "iPhone" });
    for (const [profile, access, who, handed] of [
      ["node", "node", client("node-host", "node", { deviceFamily: "Linux" }), []],
      [undefined, "full", phone, ["operator"]],
      ["limited", "limited", phone, ["operator"]],
    ]) {
      const { made, auth } = await setupCode(profile ? { bootstrapProfile: profile } : {});
      equal("setup code: access", made.access, access);
      const from = operator.mark();
      const device = new Device();
      const params = connectParams(who, [], { role: "node", auth });
      const { wire, hello: seen } = await join_(`${access} setup code`, params, device);
      equal(`${access}: method`, seen.auth.method, "bootstrap-token");
      equal(`${access}: role`, seen.auth.role, "node");
      if (!seen.auth.deviceToken) problem(`${access}: no device token`);
      equal(`${access}: handed over`, (seen.auth.deviceTokens ?? []).map((entry) => entry.role), handed);
      for (const { scopes } of seen.auth.deviceTokens ?? []) {
        equal(`${access}: admin`, scopes.includes("operator.admin"), access === "full");
        equal(`${access}: pairing`, scopes.includes("operator.pairing"), false);
      }
      const done = await operator.event("device.pair.setup.completed", { from });
      equal(`${access}: completed`, [done.payload.setupId, done.payload.deviceId], [made.setupId, device.id]);
      const status = await call(operator, "device.pair.setupStatus", { setupId: made.setupId });
      equal(`${access}: status`, status?.completion?.deviceId, device.id);
      await wire.close();
      const again = await open(`${access} again`);
      const answer = await again.connect(params, new Device(), proof);
      equal(`${access} again: code`, answer.error?.details?.code, "AUTH_BOOTSTRAP_TOKEN_INVALID");
      await again.until("close", () => again.closed);
    }
  });

await step("pairing by hand", async () => {
  const device = new Device();
  const first = await join_("device", connectParams(client("cli", "cli"), ["operator.read"]), device);
  await first.wire.close();

  let from = operator.mark();
  let requestId = await changedDevice(device, "windows");
  const requested = await operator.event("device.pair.requested", { from });
  equal("device.pair.requested: requestId", requested.payload.requestId, requestId);
  equal("device.pair.requested: deviceId", requested.payload.deviceId, device.id);
  equal("the same request keeps its id", await changedDevice(device, "windows"), requestId);
  const list = await call(operator, "device.pair.list", {});
  equal("device.pair.list: pending", list?.pending.map((entry) => entry.requestId), [requestId]);
  from = operator.mark();
  const approved = await call(operator, "device.pair.approve", { requestId });
  equal("device.pair.approve: deviceId", approved?.device.deviceId, device.id);
  const resolved = await operator.event("device.pair.resolved", { from });
  equal("device.pair.resolved: decision", resolved.payload.decision, "approved");
  const again = await join_("device after approval", connectParams(client("cli", "cli", { platform: "windows" }), ["operator.read"]), device);

  if (v4) await call(operator, "device.pair.rename", { deviceId: device.id, label: "the other one" });
  const rotated = await call(operator, "device.token.rotate", { deviceId: device.id, role: "operator" });
  if (v4) equal("device.token.rotate: delivery", rotated?.tokenDelivery, "withheld-cross-device");
  await again.wire.close();

  from = operator.mark();
  requestId = await changedDevice(device, "macos");
  equal("device.pair.reject", await call(operator, "device.pair.reject", { requestId }), { requestId, deviceId: device.id });
  const rejected = await operator.event("device.pair.resolved", { from });
  equal("device.pair.resolved: decision", rejected.payload.decision, "rejected");

  await call(operator, "device.token.revoke", { deviceId: device.id, role: "operator" });
  equal("device.pair.remove", await call(operator, "device.pair.remove", { deviceId: device.id }), { deviceId: device.id });
});

// --- a node ---------------------------------------------------------------------------------------------------------

await step("a node", async () => {
  const device = new Device();
  const params = connectParams(client("node-host", "node", { deviceFamily: v4 ? "Linux" : undefined, displayName: "bench" }), [], {
    role: "node",
    caps: ["system"],
    commands: ["system.which", "system.run"],
  });
  let from = operator.mark();
  const node = await join_("node", params, device);
  const nodeId = device.id;
  if (v4) {
    const requested = await operator.event("node.pair.requested", { from });
    equal("node.pair.requested: nodeId", requested.payload.nodeId, nodeId);
    const { requestId } = requested.payload;
    const pending = await call(operator, "node.pair.list", {});
    equal("node.pair.list: pending", pending?.pending.some((entry) => entry.requestId === requestId), true);
    from = operator.mark();
    await call(operator, "node.pair.approve", { requestId });
    const resolved = await operator.event("node.pair.resolved", { from });
    equal("node.pair.resolved: decision", resolved.payload.decision, "approved");
  }
  const nodes = await call(operator, "node.list", {});
  equal("node.list: connected", nodes?.nodes.find((entry) => entry.nodeId === nodeId)?.connected, true);
  const described = await call(operator, "node.describe", { nodeId });
  equal("node.describe: commands", [...(described?.commands ?? [])].sort(), ["system.run", "system.which"]);
  // Protocol 3 keeps approved nodes in a store of their own, which pairing alone does not fill.
  if (v4) await call(operator, "node.rename", { nodeId, displayName: "renamed" });

  await refused(node.wire, "device.pair.list", {}, "INVALID_REQUEST", "unauthorized role: node");
  await call(node.wire, "health", {});
  await call(node.wire, "skills.bins", {});
  const stats = { cpuCount: 2, loadAverage: [0.1, 0.2, 0.3], memoryTotalBytes: 1024, memoryFreeBytes: 512, diskTotalBytes: 1024, diskAvailableBytes: 512 };
  await call(node.wire, "node.event", { event: "node.host.stats", payloadJSON: JSON.stringify(stats) });
  const unknown = await call(node.wire, "node.event", { event: "no.such.event" });
  if (v4) equal("node.event unknown: handled", unknown?.handled, false);

  from = node.wire.mark();
  const invocation = { nodeId, command: "system.which", params: { bins: ["sh"] }, timeoutMs: 20000, idempotencyKey: "conformance-1" };
  const answer = call(operator, "node.invoke", invocation);
  const request = await node.wire.event("node.invoke.request", { from });
  equal("node.invoke.request: command", request.payload.command, "system.which");
  equal("node.invoke.request: params", JSON.parse(request.payload.paramsJSON), { bins: ["sh"] });
  const given = { id: request.payload.id, nodeId, ok: true, payloadJSON: JSON.stringify({ bins: { sh: "/bin/sh" } }) };
  equal("node.invoke.result", await call(node.wire, "node.invoke.result", given), { ok: true });
  equal("node.invoke: payload", (await answer)?.payload, { bins: { sh: "/bin/sh" } });
  const late = await call(node.wire, "node.invoke.result", given);
  equal("node.invoke.result, late: ignored", late?.ignored, true);

  await node.wire.close();
  for (let gone = false; !gone; ) gone = (await call(operator, "node.list", {})).nodes.every((entry) => entry.nodeId !== nodeId || !entry.connected);
  await refused(operator, "node.invoke", { ...invocation, idempotencyKey: "conformance-2" }, "UNAVAILABLE", "node not connected");
  if (v4) await call(operator, "node.pair.remove", { nodeId });
});

// --- leave to run a command ------------------------------------------------------------------------------------------

await step("approvals", async () => {
  const params = connectParams(client("cli", "cli"), ALL_SCOPES, { caps: ["exec-approvals"] });
  const { wire: reviewer } = await join_("reviewer", params, new Device());
  const argv = ["/bin/sh", "-c", "echo hi"];
  const command = '/bin/sh -c "echo hi"';
  const where = { cwd: "/tmp", agentId: "main", sessionKey: "agent:main:main" };
  const asked = {
    command, commandArgv: argv, nodeId: "0".repeat(64), host: "node", timeoutMs: 30_000, ...where,
    ...(v4 && { systemRunPlan: { argv, cwd: where.cwd, commandText: command, commandPreview: "echo hi", agentId: where.agentId, sessionKey: where.sessionKey } }),
  };
  for (const decision of ["allow-once", "allow-always", "deny"]) {
    let from = reviewer.mark();
    const answer = call(operator, "exec.approval.request", asked);
    const { payload: requested } = await reviewer.event("exec.approval.requested", { from });
    const { id, request } = requested;
    equal("exec.approval.requested: command", request.command, command);
    equal("exec.approval.requested: cwd", request.cwd, "/tmp");
    equal("exec.approval.requested: timeout", requested.expiresAtMs - requested.createdAtMs, 30_000);
    if (v4) {
      equal("exec.approval.requested: kind", requested.approvalKind, "exec");
      equal("exec.approval.requested: plan", request.systemRunPlan, asked.systemRunPlan);
      equal("exec.approval.requested: binding", request.systemRunBinding, { argv, ...where, envHash: null });
      equal("exec.approval.requested: choices", request.allowedDecisions, ["allow-once", "allow-always", "deny"]);
      const listed = await call(operator, "exec.approval.list", {});
      equal("exec.approval.list", listed?.map(({ approvalKind, ...rest }) => ({ approvalKind, ...rest })), [requested]);
      const shown = await call(operator, "exec.approval.get", { id });
      equal("exec.approval.get: texts", [shown?.commandText, shown?.commandPreview], [command, "echo hi"]);
      equal("approval.get: status", (await call(operator, "approval.get", { id }))?.approval.status, "pending");
    }
    from = reviewer.mark();
    if (v4 && decision === "deny") {
      const resolved = await call(operator, "approval.resolve", { id, kind: "exec", decision });
      equal("approval.resolve", [resolved?.applied, resolved?.approval.status], [true, "denied"]);
      const again = await call(operator, "approval.resolve", { id, kind: "exec", decision });
      equal("approval.resolve, again", again?.applied, false);
    } else {
      await call(operator, "exec.approval.resolve", { id, decision });
    }
    const { payload: resolved } = await reviewer.event("exec.approval.resolved", { from });
    equal("exec.approval.resolved", [resolved.id, resolved.decision], [id, decision]);
    equal("exec.approval.request: decision", (await answer)?.decision, decision);
    const waited = await call(operator, "exec.approval.waitDecision", { id });
    equal("exec.approval.waitDecision", [waited?.id, waited?.decision], [id, decision]);
  }
  if (v4) {
    await refused(operator, "exec.approval.resolve", { id: "nope", decision: "deny" }, "INVALID_REQUEST", "unknown or expired approval id");
    await refused(operator, "exec.approval.request", { host: "node", nodeId: "n", command }, "INVALID_REQUEST", "systemRunPlan is required for host=node");
    await refused(operator, "exec.approval.request", { id: "plugin:x", command }, "INVALID_REQUEST", "approval ids starting with plugin: are reserved");
  }
  await refused(operator, "exec.approval.request", { host: "node", command }, "INVALID_REQUEST", "nodeId is required for host=node");
  await refused(operator, "exec.approval.resolve", { id: "nope", decision: "maybe" }, "INVALID_REQUEST", "invalid decision");
  await refused(operator, "exec.approval.waitDecision", { id: "nope" }, "INVALID_REQUEST", "approval expired or not found");

  const before = await call(operator, "exec.approvals.get", {});
  const file = { version: 1, defaults: { security: "allowlist", ask: "on-miss" }, agents: { main: { allowlist: [{ pattern: "/usr/bin/rg" }] } } };
  const after = await call(operator, "exec.approvals.set", { file, baseHash: before?.hash });
  equal("exec.approvals.set: defaults", [after?.file.defaults.security, after?.file.defaults.ask], ["allowlist", "on-miss"]);
  equal("exec.approvals.set: allowlist", after?.file.agents.main.allowlist[0].pattern, "/usr/bin/rg");
  if (after?.file.socket?.token) problem("exec.approvals.set: shows the socket's token");
  const changed = "exec approvals changed since last load; re-run exec.approvals.get and retry";
  await refused(operator, "exec.approvals.set", { file, baseHash: before?.hash }, "INVALID_REQUEST", changed);
  const required = "exec approvals base hash required; re-run exec.approvals.get and retry";
  await refused(operator, "exec.approvals.set", { file }, "INVALID_REQUEST", required);
  await reviewer.close();
});

await step("tick", () => operator.event("tick", { patience: 45_000 }));

// --- configuration, last: protocol 3 restarts for it ------------------------------------------------------------------

await step("configuration", async () => {
  const before = await call(operator, "config.get", {});
  const redactPatterns = [`conformance-${Date.now()}`];
  const merge = JSON.stringify({ logging: { redactPatterns } });
  await refused(operator, "config.patch", { raw: merge, baseHash: "stale" }, "INVALID_REQUEST", "config changed since last load");
  await refused(operator, "config.set", { raw: "{}" }, "INVALID_REQUEST", "config base hash required");
  await call(operator, "config.patch", { raw: merge, baseHash: before?.hash });
  const after = await call(operator, "config.get", {});
  equal("config.get after the patch", after?.parsed?.logging?.redactPatterns, redactPatterns);
  if (after && before && after.hash === before.hash) problem("config.get: the hash did not change with the content");
  await call(operator, "config.set", { raw: after.raw, baseHash: after.hash });
  if (v4) {
    // Protocol 3 allows three such writes a minute, an empty patch without a hash is refused there, and apply restarts.
    await call(operator, "config.patch", { raw: "{}" });
    await refused(operator, "config.apply", { raw: after.raw, baseHash: "stale" }, "INVALID_REQUEST", "config changed since last load");
    await call(operator, "config.apply", { raw: after.raw, baseHash: (await call(operator, "config.get", {})).hash });
  }
  await call(operator, "secrets.reload", {});
});

await step("every advertised method exists", async () => {
  // The list of the real one is long, and its methods have effects.
  if (!options.ours) return;
  for (const method of offered) {
    if (method === "connect") continue;
    const answer = await operator.request(method, { conformanceProbe: true });
    if (answer.error?.message.startsWith("unknown method")) problem(`advertised, but unknown: ${method}`);
  }
});

// --- shutdown -------------------------------------------------------------------------------------------------------

console.log("READY-TO-STOP");
await step("shutdown", async () => {
  const event = await operator.event("shutdown", { patience: 60_000 });
  checker.schema("ShutdownEvent", event.payload, "shutdown event");
  const closed = await operator.until("close", () => operator.closed);
  equal("close at shutdown", closed, { code: 1012, reason: "service restart" });
});

for (const wire of wires) checker.sequence(wire, { perConnection: v4 });
for (const wire of wires) wire.socket.terminate();
console.log(JSON.stringify({ ...checker.report(), notAdvertised }));
