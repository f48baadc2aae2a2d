// A bare gateway connection for the drivers in this folder: it opens a WebSocket, keeps every frame in order,
// and lets a driver wait for answers and events. It knows framing and device proofs, and no client policy at all.
//
// Packages come from the peer cache: PEER_MODULES names its node_modules folder.

import { createHash, generateKeyPairSync, randomUUID, sign } from "node:crypto";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.env.PEER_MODULES + "/");

/** A CommonJS or ESM package of the cache, by its name. */
export const load = (name) => import(pathToFileURL(require.resolve(name)).href);

/** How long any single answer or event may take. Generous: the real gateway pauses for seconds under load. */
export const PATIENCE_MS = 20_000;

const base64url = (bytes) => Buffer.from(bytes).toString("base64url");

/** A fresh Ed25519 device: `id` is the SHA-256 of the raw public key, in hex. */
export class Device {
  constructor(keys = generateKeyPairSync("ed25519")) {
    this.keys = keys;
    const spki = keys.publicKey.export({ type: "spki", format: "der" });
    const raw = spki.subarray(spki.length - 32);
    this.id = createHash("sha256").update(raw).digest("hex");
    this.publicKey = base64url(raw);
  }

  /** The `device` block of a connect, signed over the v3 payload (v2 for gateways of protocol 3). */
  proof(connect, nonce, signedAt, version) {
    const { client, auth = {} } = connect;
    const token = auth.token ?? auth.deviceToken ?? auth.bootstrapToken ?? "";
    const lower = (text) => (text ?? "").trim().toLowerCase();
    const fields = [version, this.id, client.id, client.mode, connect.role ?? "operator"];
    fields.push((connect.scopes ?? []).join(","), String(signedAt), token, nonce);
    if (version === "v3") fields.push(lower(client.platform), lower(client.deviceFamily));
    const signature = base64url(sign(null, Buffer.from(fields.join("|")), this.keys.privateKey));
    return { id: this.id, publicKey: this.publicKey, signature, signedAt, nonce };
  }
}

export class Wire {
  constructor(socket, label) {
    this.socket = socket;
    this.label = label;
    this.received = [];
    this.waiting = new Set();
    this.closed = null;
    this.onFrame = () => {};
    socket.on("message", (data) => {
      const frame = JSON.parse(data.toString("utf8"));
      this.received.push(frame);
      this.onFrame(frame, this);
      this.wake();
    });
    socket.on("close", (code, reason) => {
      this.closed = { code, reason: reason.toString("utf8") };
      this.wake();
    });
    socket.on("error", (error) => {
      this.failure = error;
      this.wake();
    });
  }

  /** Opens a socket. Frames are recorded from the first byte on, so a challenge sent with the 101 is not lost. */
  static async open(url, label, { headers, onFrame } = {}) {
    const { default: WebSocket } = await load("ws");
    const wire = new Wire(new WebSocket(url, { headers, perMessageDeflate: true }), label);
    if (onFrame) wire.onFrame = onFrame;
    await new Promise((resolve, reject) => {
      wire.socket.once("open", resolve);
      wire.socket.once("error", reject);
      wire.socket.once("unexpected-response", (_, answer) => reject(new Error(`HTTP ${answer.statusCode}`)));
    });
    return wire;
  }

  wake() {
    for (const check of [...this.waiting]) check();
  }

  /** Resolves with the first non-empty value `look` gives; rejects when the time is up or the socket is gone. */
  until(what, look, patience = PATIENCE_MS) {
    return new Promise((resolve, reject) => {
      const settle = (how, value) => {
        clearTimeout(timer);
        this.waiting.delete(check);
        how(value);
      };
      const check = () => {
        const value = look();
        if (value !== undefined && value !== null && value !== false) settle(resolve, value);
        else if (this.closed && what !== "close")
          settle(reject, new Error(`${this.label}: closed (${this.closed.code} ${this.closed.reason}) before ${what}`));
        else if (this.failure && what !== "close") settle(reject, this.failure);
      };
      const late = () => settle(reject, new Error(`${this.label}: no ${what} within ${patience} ms`));
      const timer = setTimeout(late, patience);
      this.waiting.add(check);
      check();
    });
  }

  /** The first event of that name after position `from`; `from` defaults to the beginning. */
  event(name, { from = 0, where = () => true, patience } = {}) {
    const look = () =>
      this.received.slice(from).find((f) => f.type === "event" && f.event === name && where(f.payload, f));
    return this.until(`event ${name}`, look, patience);
  }

  mark() {
    return this.received.length;
  }

  /** Sends a request and resolves with the whole response frame, ok or not. `params` undefined means none. */
  async request(method, params, { id = randomUUID(), patience } = {}) {
    const from = this.mark();
    this.socket.send(JSON.stringify({ type: "req", id, method, params }));
    return this.until(
      `answer to ${method}`,
      () => this.received.slice(from).find((f) => f.type === "res" && f.id === id),
      patience,
    );
  }

  /** Waits for the challenge, then connects; `device` adds the signed proof. Resolves with the response frame. */
  async connect(params, device, proofVersion = "v3") {
    const challenge = await this.event("connect.challenge");
    const { nonce, ts } = challenge.payload;
    const proof = device && { device: device.proof(params, nonce, ts, proofVersion) };
    return this.request("connect", { ...params, ...proof });
  }

  async close() {
    this.socket.close(1000);
    await this.until("close", () => this.closed).catch(() => {});
  }
}
