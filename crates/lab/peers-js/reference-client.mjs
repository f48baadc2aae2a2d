// The reference client (@openclaw/gateway-client) by remote control: one JSON command per line on stdin, one JSON
// line on stdout for every answer and for everything the client reports. All judgement is the caller's.
//
//   {"do":"start", "url":…, "token"?, "deviceToken"?, "identity": <file>, "mode"?, "clientName"?, "role"?, "scopes"?, …}
//   {"do":"request", "id":…, "method":…, "params":…}        -> {"answer":id, "ok":…, "payload"|"error":…}
//   {"do":"stop"}                                            -> {"stopped":true}
//
// Reports: {"hello":…}, {"event":…}, {"closed":{code,reason}}, {"connectError":…}, {"gap":…}, {"paused":…}.
// The identity file keeps the key and the device tokens between runs, as the host of a real client would.

import { createHash, createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { load } from "./wire.mjs";

const { GatewayClient } = await load("@openclaw/gateway-client");
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const describe = (error) => ({ message: error.message, code: error.gatewayCode ?? error.code, details: error.details });
const rawKey = (pem) => createPublicKey(pem).export({ type: "spki", format: "der" }).subarray(-32);

function identityIn(file) {
  if (existsSync(file)) return JSON.parse(readFileSync(file, "utf8"));
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const publicKeyPem = publicKey.export({ type: "spki", format: "pem" });
  const privateKeyPem = privateKey.export({ type: "pkcs8", format: "pem" });
  const deviceId = createHash("sha256").update(rawKey(publicKeyPem)).digest("hex");
  return { deviceId, publicKeyPem, privateKeyPem, tokens: {} };
}

let client;

function start({ url, token, deviceToken, identity: file, mode = "cli", clientName = "cli", ...more }) {
  const identity = identityIn(file);
  const keep = () => writeFileSync(file, JSON.stringify(identity), { mode: 0o600 });
  keep();
  const { deviceId, publicKeyPem, privateKeyPem } = identity;
  client = new GatewayClient({
    url, token, deviceToken, mode, clientName, clientVersion: "2026.9.1", platform: "linux",
    deviceIdentity: { deviceId, publicKeyPem, privateKeyPem },
    hostDeps: {
      signDevicePayload: (pem, payload) => sign(null, Buffer.from(payload), pem).toString("base64url"),
      publicKeyRawBase64UrlFromPem: (pem) => rawKey(pem).toString("base64url"),
      loadDeviceAuthToken: ({ role }) => identity.tokens[role] ?? null,
      storeDeviceAuthToken: ({ role, token: issued, scopes }) => {
        identity.tokens[role] = { token: issued, scopes };
        keep();
      },
      clearDeviceAuthToken: ({ role }) => {
        delete identity.tokens[role];
        keep();
        say({ tokenCleared: role });
      },
    },
    onHelloOk: (hello) => say({ hello }),
    onEvent: (event) => say({ event }),
    onConnectError: (error) => say({ connectError: describe(error) }),
    onReconnectPaused: (paused) => say({ paused }),
    onClose: (code, reason) => say({ closed: { code, reason } }),
    onGap: (gap) => say({ gap }),
    ...more,
  });
  client.start();
}

async function obey(command) {
  if (command.do === "start") return start(command);
  if (command.do === "stop") {
    await client.stopAndWait({ timeoutMs: 5000 });
    return say({ stopped: true });
  }
  try {
    say({ answer: command.id, ok: true, payload: await client.request(command.method, command.params) });
  } catch (error) {
    say({ answer: command.id, ok: false, error: describe(error) });
  }
}

createInterface({ input: process.stdin }).on("line", (line) => obey(JSON.parse(line))).on("close", () => process.exit(0));
