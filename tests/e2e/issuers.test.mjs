// Whom the gateway lets in on somebody else's word: issuers that publish their keys. And where a key of its own may be
// used from, and for what.

import assert from "node:assert/strict";
import crypto from "node:crypto";
import { after, before, describe, test } from "node:test";

import { mintKey } from "./harness.mjs";
import {
  KEY_HASH_SECRET,
  PATHS,
  ask,
  assertErrorBody,
  assertNothingLeaked,
  config,
  send,
  start,
  startUpstream,
} from "./support.mjs";

const now = () => Math.floor(Date.now() / 1000);
const base64 = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** A key pair with an id, as an issuer has it. */
function pair(kid) {
  const { publicKey, privateKey } = crypto.generateKeyPairSync("ed25519");
  return { kid, privateKey, jwk: { ...publicKey.export({ format: "jwk" }), kid, alg: "EdDSA", use: "sig" } };
}

function token(issuer, { kid, privateKey }, claims = {}) {
  const body = { iss: issuer, aud: "gateway", sub: "user-1", team: "blue", exp: now() + 600, ...claims };
  const input = `${base64({ alg: "EdDSA", typ: "JWT", kid })}.${base64(body)}`;
  return `${input}.${crypto.sign(null, Buffer.from(input), privateKey).toString("base64url")}`;
}

describe("issuers that publish their keys", () => {
  const [first, second, stranger] = ["k1", "k2", "k3"].map(pair);
  const published = { good: [first.jwk], admin: [first.jwk], moved: [first.jwk], large: [first.jwk] };
  const issuers = ["good", "admin", "moved", "large", "down", "slow"];
  const name = (issuer) => `https://${issuer}.example`;
  let at, keys;

  before(async () => {
    keys = await startUpstream(async (request, response) => {
      const issuer = request.url.slice(1);
      if (issuer === "moved") return response.writeHead(302, { location: "/good" }).end();
      if (issuer === "slow") return;
      if (!published[issuer]) return response.writeHead(503).end();
      const padding = issuer === "large" ? "x".repeat(10_000) : "";
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify({ keys: published[issuer], padding }));
    });
    at = await start({
      config: config({
        auth: {
          jwks_refresh_min_seconds: 1,
          jwks_timeout_ms: 500,
          jwks_max_bytes: 4096,
          issuers: issuers.map((issuer) => ({
            issuer: name(issuer),
            audiences: ["gateway"],
            algorithms: ["EdDSA"],
            jwks_uri: `${keys.url}/${issuer}`,
            account_claim: "team",
            ...(issuer === "admin" && { planes: ["admin"] }),
          })),
        },
      }),
      vars: { PRIVATE_UPSTREAM_HOSTS: "127.0.0.1" },
    });
  });

  after(async () => {
    await at?.stop();
    await keys?.stop();
  });

  const models = (bearer) => send({ url: `${at.url}/v1/models`, headers: { authorization: `Bearer ${bearer}` } });
  const asked = (issuer) => keys.requests.filter(({ path }) => path === `/${issuer}`).length;

  test("are asked for them once", async () => {
    for (let n = 0; n < 5; n += 1) {
      const reply = await models(token(name("good"), first));
      assert.equal(reply.status, 200, reply.text);
    }
    assert.equal(asked("good"), 1);
  });

  test("are asked again when a token names a key that is new", async () => {
    published.good = [first.jwk, second.jwk];
    await new Promise((resolve) => setTimeout(resolve, 1100));
    assert.equal((await models(token(name("good"), second))).status, 200);
    assert.equal((await models(token(name("good"), first))).status, 200);
    assert.equal(asked("good"), 2);
  });

  test("are not asked for each key id that somebody makes up", async () => {
    const before = asked("good");
    for (let n = 0; n < 30; n += 1) {
      assert.equal((await models(token(name("good"), { ...stranger, kid: `made-up-${n}` }))).status, 401);
    }
    assert.ok(asked("good") - before <= 10, `${asked("good") - before} requests`);
  });

  test("are not asked for tokens that could not be good", async () => {
    const before = keys.requests.length;
    for (const claims of [{ exp: now() - 600 }, { aud: "other" }, { team: "" }]) {
      assert.equal((await models(token(name("down"), first, claims))).status, 401);
    }
    assert.equal((await models(token(name("admin"), first))).status, 401, "not for this API");
    assert.equal((await models(token(name("unknown"), first))).status, 401);
    assert.equal(keys.requests.length, before);
  });

  test("are refused when another key signed", async () => {
    assert.equal((await models(token(name("good"), { ...stranger, kid: "k1" }))).status, 401);
  });

  for (const [issuer, why] of [
    ["down", "answer with an error"],
    ["slow", "do not answer"],
    ["moved", "redirect"],
    ["large", "answer with too much"],
  ]) {
    test(`that ${why} make their tokens uncheckable, not invalid`, async () => {
      const reply = await models(token(name(issuer), first));
      assert.equal(reply.status, 503, reply.text);
      assertErrorBody(reply.json, "chat", /cannot be checked/);
    });
  }
});

describe("a key that is bound", () => {
  let at;

  before(async () => {
    at = await start({ config: config({ auth: { key_cache_ms: 0 } }) });
  });

  after(() => at?.stop());

  /** Makes a key whose record has more in it. */
  async function bound(more) {
    const { key, entry } = await mintKey({ name: "bound" }, KEY_HASH_SECRET);
    await at.gateway.kv.put(entry.name, JSON.stringify({ ...JSON.parse(entry.value), ...more }));
    return key;
  }

  const call = (key, path, headers = {}) =>
    send({
      url: `${at.url}${path}`,
      method: path === "/v1/models" ? "GET" : "POST",
      headers: { "x-api-key": key, "content-type": "application/json", ...headers },
      body: path === "/v1/models" ? undefined : JSON.stringify({ model: "gpt-test", messages: ask() }),
    });

  test("to paths calls no others", async () => {
    const key = await bound({ endpoints: ["/v1/models*"] });
    assert.equal((await call(key, "/v1/models")).status, 200);
    const reply = await call(key, PATHS.chat);
    assert.equal(reply.status, 403);
    assertErrorBody(reply.json, "chat", /may not call/);
    assert.equal(reply.json.error.code, "endpoint_not_allowed");
  });

  test("to addresses is good from there alone", async () => {
    const key = await bound({ ip_ranges: ["192.0.2.0/24", "2001:db8::/32"] });
    for (const [address, status] of [
      ["192.0.2.7", 200],
      ["::ffff:192.0.2.7", 200],
      ["2001:db8::1", 200],
      ["198.51.100.1", 403],
      ["2001:db9::1", 403],
      ["nonsense", 403],
      [undefined, 403],
    ]) {
      const headers = { "x-forwarded-for": "192.0.2.7", ...(address && { "cf-connecting-ip": address }) };
      assert.equal((await call(key, "/v1/models", headers)).status, status, String(address));
    }
  });

  test("in a way that cannot be read is no key", async () => {
    const key = await bound({ ip_ranges: ["192.0.2.0/99"] });
    assert.equal((await call(key, "/v1/models", { "cf-connecting-ip": "192.0.2.7" })).status, 401);
  });
});

test("no secret stands in any gateway's log", () => assertNothingLeaked());
