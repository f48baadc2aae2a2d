// Validates what a gateway sends, frame by frame, and remembers every violation once.

import { load } from "./wire.mjs";

const str = { type: "string" };
const text = { type: "string", minLength: 1 };
const num = { type: "number" };
const time = { type: "integer", minimum: 1 };
const bool = { type: "boolean" };
const list = (items) => ({ type: "array", items });
const nullable = (schema) => ({ anyOf: [schema, { type: "null" }] });

/** An object that has at least these fields; a name ending in "?" may be missing. More fields are fine. */
const has = (fields) => ({
  type: "object",
  required: Object.keys(fields).filter((name) => !name.endsWith("?")),
  properties: Object.fromEntries(Object.entries(fields).map(([name, schema]) => [name.replace(/\?$/, ""), schema])),
});

const ref = (name) => ({ $ref: `#/definitions/${name}` });

/** Definitions of answers in which the 2026.9.6 gateway itself sends fields they do not know (`statusIssues`). */
const OUTGROWN = ["ChannelsStatusResult"];

const tokenSummary = has({ role: text, scopes: list(text), createdAtMs: time });
const pendingDevice = has({
  requestId: text, deviceId: text, publicKey: text, role: text, roles: list(text), scopes: list(text), isRepair: bool, ts: time,
});
const pairedDevice = has({
  deviceId: text, publicKey: text, clientId: text, clientMode: text, platform: text, role: text, roles: list(text),
  "scopes?": list(text), createdAtMs: time, approvedAtMs: time, tokens: list(tokenSummary),
});
const pendingNode = has({
  requestId: text, nodeId: text, caps: list(text), commands: list(text), requiredApproveScopes: list(text), ts: time,
});
const pairedNode = has({ nodeId: text, caps: list(text), commands: list(text), createdAtMs: time, approvedAtMs: time });
const node = has({ nodeId: text, "approvalState?": text, caps: list(text), commands: list(text), paired: bool, connected: bool });
const configWrite = has({ ok: { const: true }, path: text, config: { type: "object" } });
const approvalOutcome = has({ id: text, decision: nullable(ref("ApprovalDecision")), createdAtMs: time, expiresAtMs: time });
const approvalRequest = has({
  command: text, cwd: nullable(str), nodeId: nullable(str), host: nullable(str), security: nullable(str), ask: nullable(str),
  agentId: nullable(str), sessionKey: nullable(str),
});
const pendingApproval = has({ id: text, request: approvalRequest, createdAtMs: time, expiresAtMs: time });
const chatMessage = has({ role: text, content: {}, timestamp: time });
const chatHistory = has({
  sessionKey: text, sessionId: text, messages: list(chatMessage), pendingInputs: has({ items: list({}), total: num }),
  hasMore: bool, totalMessages: num, defaults: has({ modelProvider: text, model: text, contextTokens: num }),
  sessionInfo: ref("SessionRow"),
});
const sessionEntry = has({ sessionId: text, updatedAt: time });
const tasksByStatus = { type: "object", additionalProperties: num };

/** Results: the published definition where one exists, otherwise what real gateways were seen to answer. */
const RESULTS = {
  health: { allOf: [{ $ref: "#/definitions/Snapshot/properties/health" }, has({
    ok: { const: true }, ts: time, durationMs: num, channels: { type: "object" }, channelOrder: list(text),
    channelLabels: { type: "object" }, heartbeatSeconds: num, defaultAgentId: text,
    agents: { type: "array", minItems: 1 }, sessions: { type: "object" },
  })] },
  status: has({
    "runtimeVersion?": text, heartbeat: has({ defaultAgentId: text, agents: list({ type: "object" }) }),
    channelSummary: list({}), queuedSystemEvents: list({}),
    sessions: has({
      paths: list(str), count: num, defaults: has({ model: nullable(str), contextTokens: nullable(num) }),
      recent: list({}), byAgent: list(has({ agentId: text, path: str, count: num, recent: list({}) })),
    }),
    "tasks?": has({ total: num, active: num, terminal: num, failures: num, byStatus: tasksByStatus, byRuntime: tasksByStatus }),
  }),
  "system-presence": list(ref("PresenceEntry")),
  "system-event": has({ ok: { const: true } }),
  "last-heartbeat": nullable(has({ ts: time, status: text })),
  "set-heartbeats": has({ ok: { const: true }, enabled: bool }),
  "gateway.identity.get": has({ deviceId: { type: "string", pattern: "^[0-9a-f]{64}$" }, publicKey: { type: "string", pattern: "^[A-Za-z0-9_-]{43}$" } }),
  "config.get": has({
    path: text, exists: bool, valid: bool, hash: text, raw: nullable(str), parsed: { type: "object" },
    resolved: { type: "object" }, config: { type: "object" }, issues: list({}),
  }),
  "config.set": configWrite,
  "config.patch": configWrite,
  "config.apply": configWrite,
  "config.schema": ref("ConfigSchemaResponse"),
  "logs.tail": ref("LogsTailResult"),
  "secrets.reload": has({ ok: { const: true } }),
  "device.pair.list": has({ pending: list(pendingDevice), paired: list(pairedDevice) }),
  "device.pair.approve": has({ requestId: text, device: pairedDevice }),
  "device.pair.reject": has({ requestId: text, deviceId: text }),
  "device.pair.remove": has({ deviceId: text }),
  "device.pair.rename": { type: "object" },
  "device.pair.setupCode": ref("DevicePairSetupCodeResult"),
  "device.pair.setupStatus": ref("DevicePairSetupStatusResult"),
  "device.token.rotate": ref("DeviceTokenRotateResult"),
  "device.token.revoke": has({ deviceId: text, role: text, revokedAtMs: time }),
  "node.pair.list": has({ pending: list(pendingNode), paired: list(pairedNode) }),
  "node.pair.approve": has({ requestId: text, node: pairedNode }),
  "node.pair.remove": has({ nodeId: text }),
  "node.rename": has({ nodeId: text, displayName: text }),
  "node.list": has({ ts: time, nodes: list(node) }),
  "node.describe": { allOf: [has({ ts: time }), node] },
  "node.invoke": has({ ok: { const: true }, nodeId: text, command: text, "payload?": {}, "payloadJSON?": nullable(str) }),
  "node.invoke.result": has({ ok: { const: true }, "ignored?": bool }),
  "node.event": has({ ok: bool, "event?": text, "handled?": bool, "reason?": text }),
  "skills.bins": ref("SkillsBinsResult"),
  "voicewake.get": has({ triggers: list(text) }),
  "voicewake.set": has({ triggers: list(text) }),
  "exec.approvals.get": ref("ExecApprovalsSnapshot"),
  "exec.approvals.set": ref("ExecApprovalsSnapshot"),
  "exec.approval.request": approvalOutcome,
  "exec.approval.waitDecision": approvalOutcome,
  "exec.approval.resolve": has({ ok: { const: true } }),
  "exec.approval.list": list(pendingApproval),
  "exec.approval.get": has({
    id: text, commandText: text, commandPreview: nullable(str), allowedDecisions: list(ref("ApprovalDecision")),
    host: nullable(str), nodeId: nullable(str), agentId: nullable(str), expiresAtMs: time,
  }),
  "approval.get": ref("ApprovalGetResult"),
  "chat.send": has({ runId: text, status: text }),
  "chat.history": chatHistory,
  "chat.startup": chatHistory,
  "chat.abort": has({ ok: { const: true }, aborted: bool, runIds: list(text) }),
  "chat.inject": has({ ok: { const: true }, messageId: text }),
  "chat.metadata": has({ models: list(ref("ModelChoice")), commands: list(ref("CommandEntry")) }),
  "chat.message.get": ref("ChatMessageGetResult"),
  agent: has({ runId: text, status: text }),
  "agent.wait": has({ runId: text, status: text }),
  "agent.identity.get": ref("AgentIdentityResult"),
  "agents.list": ref("AgentsListResult"),
  "models.list": ref("ModelsListResult"),
  "commands.list": ref("CommandsListResult"),
  "tools.catalog": ref("ToolsCatalogResult"),
  "tools.effective": ref("ToolsEffectiveResult"),
  "tools.invoke": ref("ToolsInvokeResult"),
  "channels.status": ref("ChannelsStatusResult"),
  "channels.pairing.list": ref("ChannelsPairingListResult"),
  wake: has({ ok: { const: true } }),
  "sessions.list": has({
    ts: time, path: str, count: num, totalCount: num, limitApplied: num, nextOffset: nullable(num), hasMore: bool,
    owners: list({}), defaults: has({ modelProvider: text, model: text, contextTokens: num }), sessions: list(ref("SessionRow")),
  }),
  "sessions.subscribe": has({ subscribed: { const: true } }),
  "sessions.unsubscribe": has({ subscribed: { const: false } }),
  "sessions.messages.subscribe": has({ subscribed: { const: true }, key: text }),
  "sessions.messages.unsubscribe": has({ subscribed: { const: false }, key: text }),
  "sessions.describe": has({ session: nullable(ref("SessionRow")) }),
  "sessions.preview": has({ ts: time, previews: list(has({ key: text, status: text, items: list({}) })) }),
  "sessions.resolve": ref("SessionsResolveResult"),
  "sessions.create": ref("SessionsCreateResult"),
  "sessions.send": has({ runId: text, status: text }),
  "sessions.abort": has({ ok: { const: true } }),
  "sessions.patch": has({ ok: { const: true }, path: str, key: text, entry: sessionEntry }),
  "sessions.reset": has({ ok: { const: true }, key: text, entry: sessionEntry }),
  "sessions.delete": ref("SessionsDeleteResult"),
  "sessions.compact": has({ ok: bool, key: text, compacted: bool }),
  "sessions.search": ref("SessionsSearchResult"),
  "sessions.usage": { type: "object" },
  "approval.resolve": ref("ApprovalResolveResult"),
};

const SHAPES = {
  "status.cliProjection": has({
    agents: has({ defaultId: text, ownership: text, selectionRequired: bool, rows: list(has({ id: text })) }),
    updateChannel: nullable(str), memoryPlugin: { type: "object" },
  }),
};

const EVENTS = {
  "connect.challenge": has({ nonce: text, ts: time, "capabilities?": list(text) }),
  tick: ref("TickEvent"),
  health: { $ref: "#/definitions/Snapshot/properties/health" },
  presence: { type: "object", required: ["presence"], properties: { presence: list(ref("PresenceEntry")) }, additionalProperties: false },
  shutdown: ref("ShutdownEvent"),
  heartbeat: has({ ts: time, status: text }),
  "device.pair.requested": ref("DevicePairRequestedEvent"),
  "device.pair.resolved": ref("DevicePairResolvedEvent"),
  "device.pair.setup.completed": ref("DevicePairSetupCompletedEvent"),
  "device.pair.setup.deliveryUncertain": ref("DevicePairSetupDeliveryUncertainEvent"),
  "node.pair.requested": pendingNode,
  "node.pair.resolved": has({ requestId: str, nodeId: text, decision: text, ts: time }),
  chat: ref("ChatEvent"),
  // The published definition lacks the session of a run, which all real ones send.
  agent: has({ runId: text, seq: num, stream: text, ts: time, data: { type: "object" } }),
  "session.message": has({ sessionKey: text, agentId: text, message: chatMessage, messageId: text, messageSeq: num }),
  "sessions.changed": has({ ts: time, "sessionKey?": text, "reason?": text, "phase?": text, "session?": ref("SessionRow") }),
  "session.operation": ref("SessionOperationEvent"),
  "node.invoke.request": ref("NodeInvokeRequestEvent"),
  "voicewake.changed": has({ triggers: list(text) }),
  "exec.approval.requested": pendingApproval,
  "exec.approval.resolved": has({
    id: text, decision: ref("ApprovalDecision"), resolvedBy: nullable(str), ts: time, request: approvalRequest,
  }),
};

/**
 * Fields the 2026.9.6 gateway sends that the published schema (2026.9.1, closed objects) does not know yet. The run
 * against the real gateway keeps this list honest: it may hold nothing that gateway does not send.
 */
const NEWER_THAN_SCHEMA = [
  ["HelloOk", "controlUiLinkReaders"],
  ["HelloOk/properties/auth", "method"],
  ["PresenceEntry", "clientId"],
  ["EventFrame", "recipientProfileId"],
  ["Snapshot/properties/health", "modelRuntime"],
  ["Snapshot/properties/health/properties/eventLoop", "cpuBreakdown"],
  ["ConfigSchemaResponse/properties/uiHints/patternProperties/^.*$", "groups"],
];

/** Params definitions are named after the method: `device.pair.list` is DevicePairListParams. */
const paramsName = (method) =>
  method.split(/[.-]/).map((word) => word[0].toUpperCase() + word.slice(1)).join("") + "Params";

export class Checker {
  static async create(schema, { closed }) {
    const { default: Ajv } = await load("ajv");
    return new Checker(schema, new Ajv({ strict: false, allErrors: true, logger: false }), closed);
  }

  constructor(schema, ajv, closed) {
    this.definitions = structuredClone(schema.definitions);
    admitNewer(this.definitions);
    for (const name of OUTGROWN) delete this.definitions[name].additionalProperties;
    if (!closed) loosen(this.definitions);
    this.newerSeen = new Set();
    ajv.addKeyword({ keyword: "newerThanSchema", validate: (field) => Boolean(this.newerSeen.add(field)) });
    this.ajv = ajv;
    this.compiled = new Map();
    this.problems = [];
    this.checked = {};
    this.frames = 0;
  }

  validate(name, schema, value, where) {
    if (!this.compiled.has(name))
      this.compiled.set(name, this.ajv.compile({ ...schema, definitions: this.definitions }));
    const validator = this.compiled.get(name);
    this.checked[name] = (this.checked[name] ?? 0) + 1;
    if (validator(value)) return;
    for (const error of validator.errors) {
      const extra = error.params.additionalProperty ?? error.params.allowedValue ?? "";
      const line = `${where} is not a ${name}: ${error.instancePath || "/"} ${error.message} ${extra}`.trim();
      if (!this.problems.includes(line)) this.problems.push(line);
    }
  }

  /** Every frame, as it arrives: its envelope, and for events the payload. */
  frame(frame, wire) {
    this.frames += 1;
    const envelope = frame.type === "res" ? "ResponseFrame" : "EventFrame";
    this.validate(envelope, ref(envelope), frame, `${wire.label}: ${frame.event ?? "answer"}`);
    if (frame.type === "res") {
      if (frame.ok && frame.error) this.problems.push(`${wire.label}: an ok answer with an error`);
      if (!frame.ok && !frame.error) this.problems.push(`${wire.label}: a failed answer without an error`);
      if (frame.error?.details?.code === "MISSING_SCOPE")
        this.schema("MissingScopeErrorDetails", frame.error.details, "error details");
      return;
    }
    const schema = EVENTS[frame.event];
    if (schema) this.validate(`event ${frame.event}`, schema, frame.payload, `${wire.label}: event`);
  }

  hello(payload, label) {
    this.validate("HelloOk", ref("HelloOk"), payload, `${label}: hello`);
  }

  schema(name, value, where) {
    this.validate(name, ref(name), value, where);
  }

  shape(name, value) {
    this.validate(name, SHAPES[name], value, name);
  }

  result(method, payload) {
    if (!RESULTS[method]) throw new Error(`no expectation for the result of ${method}`);
    this.validate(`result of ${method}`, RESULTS[method], payload, method);
  }

  /** What a driver sends has to be right too, or an answer proves nothing. */
  params(method, params) {
    const name = paramsName(method);
    if (this.definitions[name]) this.schema(name, params, `params of ${method}`);
  }

  /** Numbered events: from 1 without a gap on protocol 4, only growing on protocol 3. */
  sequence(wire, { perConnection }) {
    let last = 0;
    for (const frame of wire.received) {
      if (frame.seq === undefined) continue;
      if (perConnection ? frame.seq !== last + 1 : frame.seq <= last)
        this.problems.push(`${wire.label}: event ${frame.event} has seq ${frame.seq} after ${last}`);
      last = frame.seq;
    }
  }

  report() {
    const newerUnseen = NEWER_THAN_SCHEMA.map((entry) => entry.join(": ")).filter((field) => !this.newerSeen.has(field));
    return { frames: this.frames, checked: this.checked, problems: this.problems, newerUnseen };
  }
}

/** Lets the newer fields in, wherever the published definitions spell that same object out. */
function admitNewer(definitions) {
  for (const [path, field] of NEWER_THAN_SCHEMA) {
    const target = path.split("/").reduce((value, key) => value[key], definitions);
    const names = Object.keys(target.properties).join();
    const visit = (value) => {
      if (!value || typeof value !== "object") return;
      Object.values(value).forEach(visit);
      if (value.properties && Object.keys(value.properties).join() === names)
        value.properties[field] = { newerThanSchema: `${path}: ${field}` };
    };
    visit(definitions);
  }
}

/** Protocol 3 has no published schema: that of protocol 4 applies, open, and with what protocol 3 leaves out. */
function loosen(definitions) {
  const unclose = (value) => {
    if (!value || typeof value !== "object") return;
    delete value.additionalProperties;
    Object.values(value).forEach(unclose);
  };
  unclose(definitions);
  definitions.HelloOk.required = definitions.HelloOk.required.filter((name) => name !== "auth");
  definitions.ShutdownEvent.properties.restartExpectedMs = nullable(num);
}
