// What the checks look with.

import crypto from "node:crypto";

import { compileConfig, mintKey } from "../harness.mjs";
import {
  KEY_HASH_SECRET,
  PATHS,
  ask,
  eventually,
  freshId,
  logOf,
  open,
  readStream,
  received,
  requestLines,
  send,
  sleep,
} from "../support.mjs";

/** Asks for a model; the reply with the request's `id`. `fields` go into the body. */
export async function chat(at, model, { key = at.key, directives = {}, headers = {}, fields = {}, api = "chat" } = {}) {
  const id = freshId();
  const body = { model, messages: ask({ tag: id, ...directives }), ...fields };
  const reply = await send({
    url: `${at.url}${PATHS[api]}`,
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${key}`, "x-request-id": id, ...headers },
    body: JSON.stringify(body),
  });
  return Object.assign(reply, { id });
}

/** Asks for a stream and reads it, or the error that came instead. */
export async function stream(at, model, { directives = {}, fields = {} } = {}) {
  const id = freshId();
  const reply = await open({
    url: `${at.url}${PATHS.chat}`,
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${at.key}`, "x-request-id": id },
    body: JSON.stringify({ model, stream: true, messages: ask({ tag: id, ...directives }), ...fields }),
  });
  return { id, ...(await readStream(reply, "chat")) };
}

/** The list of models. */
export const models = (at, bearer = at.key, headers = {}) =>
  send({ url: `${at.url}/v1/models`, headers: { authorization: `Bearer ${bearer}`, ...headers } });

/** What the list of models says of one. */
export const listed = async (at, name) =>
  (await models(at)).json.data.find(({ id }) => id === name);

/** The log line of a successful request to a model. */
export async function logged(at, model, options) {
  const reply = await chat(at, model, options);
  return logOf(at.gateway, reply.id);
}

/** What the provider received of a request to a model. */
export async function arrived(at, model, options) {
  const reply = await chat(at, model, options);
  const entry = await received(at.mock, reply.id);
  return { ...entry, json: JSON.parse(entry.body) };
}

/** Whether a request leaves a line in the log. */
export async function isLogged(at, id) {
  return within(3_000, () => requestLines(at.gateway).some((line) => line.request_id === id));
}

/** Whether something comes true within so many milliseconds. */
export async function within(millis, found) {
  const end = Date.now() + millis;
  for (;;) {
    if (await found()) return true;
    if (Date.now() > end) return false;
    await sleep(50);
  }
}

/** A key of an account's own, known to KV alone; `put` stores its record with changes. */
export async function freshKey(at, account = "loose") {
  const { key, entry } = await mintKey({ name: "made", account }, KEY_HASH_SECRET);
  at.hidden.push(key);
  const record = JSON.parse(entry.value);
  const put = (more = {}) => at.gateway.kv.put(entry.name, JSON.stringify({ ...record, ...more }));
  return { key, id: entry.name.replace("key:", ""), record, put };
}

/** Asks an object, as the Worker does. */
export async function object(at, binding, name, method, where, body) {
  const stub = await at.gateway.object(binding, name);
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const reply = await stub.fetch(`https://object${where}`, { method, body: text });
  if (reply.status !== 200) throw new Error(`${method} ${where}: ${reply.status} ${await reply.text()}`);
  return reply.json();
}

let sequence = 0;

/** Publishes a configuration, and waits until it is in effect. */
export async function publish(at, document) {
  const compiled = await compileConfig(document, at.mock.url);
  sequence += 1;
  const where = `/config?number=${sequence}&version=${compiled.version}`;
  await object(at, "HUB", "hub-0", "PUT", where, compiled.entry.value);
  await at.gateway.kv.put(compiled.entry.name, compiled.entry.value);
  const known = async () => (await models(at)).headers["x-gateway-config-version"] === compiled.version;
  await eventually(known, "the new configuration", { interval: 100 });
}

// === Issuers of tokens ===

const base64 = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** A key pair with an id, as an issuer has it. */
export function pair(kid) {
  const { publicKey, privateKey } = crypto.generateKeyPairSync("ed25519");
  return { kid, privateKey, jwk: { ...publicKey.export({ format: "jwk" }), kid, alg: "EdDSA", use: "sig" } };
}

export const now = () => Math.floor(Date.now() / 1000);

/** A token of the issuer with a name of the tests'. */
export function token(name, { kid, privateKey }, claims = {}) {
  const usual = { iss: `https://${name}.example`, aud: "gateway", sub: "user-1", team: "blue", iat: now(), exp: now() + 600 };
  const input = `${base64({ alg: "EdDSA", typ: "JWT", kid })}.${base64({ ...usual, ...claims })}`;
  return `${input}.${crypto.sign(null, Buffer.from(input), privateKey).toString("base64url")}`;
}
