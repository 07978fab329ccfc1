// The gateway as an HTTP server: routes, methods, headers, compression, cross-origin access; and whom it lets in.

import assert from "node:assert/strict";
import crypto from "node:crypto";
import { after, before, describe, test } from "node:test";
import zlib from "node:zlib";

import { mintKey, startGateway, startMock } from "./harness.mjs";
import {
  KEY_HASH_SECRET,
  MOCK,
  PATHS,
  PROVIDER_SECRETS,
  ask,
  assertErrorBody,
  assertNothingLeaked,
  config,
  eventually,
  freshId,
  journalOf,
  linesWith,
  logOf,
  requestLines,
  send,
  start,
} from "./support.mjs";

// === Tokens ===

const base64 = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

/** The issuer's key pairs, by algorithm. */
const pairs = {
  EdDSA: crypto.generateKeyPairSync("ed25519"),
  RS256: crypto.generateKeyPairSync("rsa", { modulusLength: 2048 }),
  ES256: crypto.generateKeyPairSync("ec", { namedCurve: "P-256" }),
};

/** Keys of nobody the gateway knows. */
const strangers = {
  EdDSA: crypto.generateKeyPairSync("ed25519"),
  RS256: crypto.generateKeyPairSync("rsa", { modulusLength: 2048 }),
  ES256: crypto.generateKeyPairSync("ec", { namedCurve: "P-256" }),
};

const jwks = {
  keys: Object.entries(pairs).map(([alg, { publicKey }]) => ({
    ...publicKey.export({ format: "jwk" }),
    kid: `key-${alg}`,
    alg,
    use: "sig",
  })),
};

function sign(alg, input, key) {
  switch (alg) {
    case "EdDSA":
      return crypto.sign(null, input, key);
    case "RS256":
      return crypto.sign("sha256", input, key);
    case "ES256":
      return crypto.sign("sha256", input, { key, dsaEncoding: "ieee-p1363" });
    case "HS256":
      return crypto.createHmac("sha256", key).update(input).digest();
    case "none":
      return Buffer.alloc(0);
    default:
      throw new Error(alg);
  }
}

const now = () => Math.floor(Date.now() / 1000);

function token({ alg = "EdDSA", head = {}, claims = {}, key = pairs[alg]?.privateKey } = {}) {
  const header = { typ: "JWT", alg, kid: `key-${alg}`, ...head };
  const body = { iss: "https://id.example", aud: "gateway", sub: "user-1", team: "blue", exp: now() + 600, ...claims };
  const input = `${base64(header)}.${base64(body)}`;
  return `${input}.${sign(alg, Buffer.from(input), key).toString("base64url")}`;
}

// === The gateway under test ===

const ORIGIN = "https://app.example";

describe("HTTP", () => {
  let at, mock, gateway, keys;

  before(async () => {
    at = await start({
      config: config({
        providers: {
          "not-allowed": { dialect: "openai", base_url: "http://10.20.30.40:8080/v1", credential: "OPENAI_KEY" },
          "without-credential": { dialect: "openai", base_url: `${MOCK}/v1`, credential: "NEVER_SET" },
          "nobody-there": { dialect: "openai", base_url: "http://127.0.0.1:9/v1", credential: "OPENAI_KEY" },
        },
        models: {
          "org/gpt:latest": { provider: "openai", upstream_model: "mock-large" },
          "gpt-unreachable": { provider: "not-allowed" },
          "gpt-poor": { provider: "without-credential" },
          "gpt-void": { provider: "nobody-there" },
        },
        cors: { allowed_origins: [ORIGIN] },
        auth: {
          key_cache_ms: 0,
          issuers: [
            {
              issuer: "https://id.example",
              audiences: ["gateway"],
              algorithms: ["EdDSA", "RS256", "ES256"],
              jwks,
              account_claim: "team",
            },
            {
              issuer: "https://narrow.example",
              audiences: ["gateway"],
              algorithms: ["EdDSA"],
              jwks,
              models: ["claude-*"],
            },
          ],
        },
      }),
      vars: { PRIVATE_UPSTREAM_HOSTS: "127.0.0.1" },
      keys: [
        { name: "app", account: "red" },
        { name: "old", expires_at: now() - 1 },
        { name: "young", expires_at: now() + 3600 },
        { name: "off", disabled: true },
        { name: "one", models: ["claude-test"] },
        { name: "some", models: ["gpt-*"] },
      ],
    });
    ({ mock, gateway } = at);
    ({ keys } = gateway);
  });

  after(() => at?.stop());

  const bearer = (key = at.key) => ({ authorization: `Bearer ${key}` });
  const get = (path, headers = {}, method = "GET") => send({ url: `${at.url}${path}`, method, headers });
  const chat = (headers, body = { model: "gpt-test", messages: ask() }, path = PATHS.chat) =>
    send({
      url: `${at.url}${path}`,
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify(body),
    });

  // === Routes ===

  test("/health says that the gateway lives, without a credential", async () => {
    const reply = await get("/health");
    assert.deepEqual([reply.status, reply.json.status], [200, "ok"]);
  });

  test("/ready says that everything it needs can be reached", async () => {
    const reply = await get("/ready");
    assert.equal(reply.status, 200);
    assert.equal(reply.json.status, "ready");
    assert.ok(Object.values(reply.json.checks).every((check) => check === "ok"));
  });

  test("/ready and chat say 503 while there is no configuration; /health stays well", async () => {
    const bare = await startGateway({ config: null, keys: [{ name: "app" }] });
    try {
      const ready = await send({ url: `${bare.url}/ready` });
      assert.deepEqual([ready.status, ready.json.status, ready.json.checks.config], [503, "not_ready", "failed"]);
      assert.equal((await send({ url: `${bare.url}/health` })).status, 200);
      for (const [api, path] of Object.entries(PATHS)) {
        const reply = await send({
          url: `${bare.url}${path}`,
          method: "POST",
          headers: bearer(bare.keys.app),
          body: JSON.stringify({ model: "x", messages: ask() }),
        });
        assert.equal(reply.status, 503);
        assertErrorBody(reply.json, api);
      }
    } finally {
      await bare.stop();
    }
  });

  test("a gateway without its hash secret is not ready and lets nobody in", async () => {
    const bare = await startGateway({ keys: [], secrets: { KEY_HASH_SECRET: undefined } });
    try {
      const { key } = await mintKey({ name: "x" }, "some secret");
      const ready = await send({ url: `${bare.url}/ready` });
      assert.deepEqual([ready.status, ready.json.checks.key_hash_secret], [503, "failed"]);
      assert.equal((await send({ url: `${bare.url}/v1/models`, headers: bearer(key) })).status, 503);
    } finally {
      await bare.stop();
    }
  });

  test("an unknown path is a 404 in the caller's dialect", async () => {
    for (const [path, headers, api] of [
      ["/v1/nothing", bearer(), "chat"],
      ["/", {}, "chat"],
      ["/v1/messages/nothing", bearer(), "messages"],
      ["/v1/nothing", { ...bearer(), "anthropic-version": "2023-06-01" }, "messages"],
    ]) {
      const reply = await get(path, headers);
      assert.equal(reply.status, 404, path);
      assertErrorBody(reply.json, api);
      if (api === "messages") assert.equal(reply.json.error.type, "not_found_error");
      else assert.equal(reply.json.error.code, "unknown_url");
      assert.notEqual(reply.headers["x-request-id"] ?? "", "");
    }
    assert.match((await get("/chat/completions")).json.error.message, /\/v1/, "it says what is probably missing");
  });

  test("a wrong method is a 405 that says which would do", async () => {
    for (const [method, path, allow, api] of [
      ["GET", "/v1/chat/completions", "POST", "chat"],
      ["DELETE", "/v1/chat/completions", "POST", "chat"],
      ["PUT", "/v1/messages", "POST", "messages"],
      ["POST", "/v1/models", "GET", "chat"],
      ["DELETE", "/v1/models/gpt-test", "GET", "chat"],
      ["POST", "/health", "GET", "chat"],
      ["PATCH", "/ready", "GET", "chat"],
    ]) {
      const reply = await get(path, bearer(), method);
      assert.equal(reply.status, 405, `${method} ${path}`);
      assertErrorBody(reply.json, api);
      assert.ok(reply.headers.allow.split(", ").includes(allow), reply.headers.allow);
    }
  });

  test("a slash at the end of a path does no harm, nor does a query", async () => {
    for (const path of ["/v1/models/", "/v1/models?limit=20", "/health/"]) {
      assert.equal((await get(path, bearer())).status, 200, path);
    }
    assert.equal((await chat(bearer(), undefined, "/v1/chat/completions/?api-version=1")).status, 200);
  });

  test("HEAD is GET without the body", async () => {
    for (const path of ["/health", "/ready", "/v1/models", "/v1/models/gpt-test"]) {
      const reply = await get(path, bearer(), "HEAD");
      assert.equal(reply.status, 200, path);
      assert.equal(reply.bytes.length, 0);
      assert.match(reply.headers["content-type"], /^application\/json/);
    }
    assert.equal((await get("/v1/models", {}, "HEAD")).status, 401);
  });

  test("a model's name may have slashes and colons", async () => {
    for (const path of ["/v1/models/org/gpt:latest", "/v1/models/org%2Fgpt%3Alatest"]) {
      const reply = await get(path, bearer());
      assert.deepEqual([reply.status, reply.json.id], [200, "org/gpt:latest"]);
    }
    assert.equal((await chat(bearer(), { model: "org/gpt:latest", messages: ask() })).status, 200);
  });

  // === Headers ===

  test("every answer has a request id: the caller's if it is sane, else a fresh one", async () => {
    const id = freshId();
    assert.equal((await chat({ ...bearer(), "x-request-id": id })).headers["x-request-id"], id);
    const fresh = new Set();
    for (const sent of ["short", "with spaces in it", "x".repeat(129), "semi;colon-12345", undefined]) {
      const reply = await get("/v1/models", { ...bearer(), ...(sent && { "x-request-id": sent }) });
      const given = reply.headers["x-request-id"];
      assert.match(given, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/, "a UUIDv7");
      fresh.add(given);
    }
    assert.equal(fresh.size, 5);
  });

  test("errors in Anthropic's shape carry the request id in body and header", async () => {
    const id = freshId();
    const reply = await chat({ ...bearer(), "x-request-id": id }, { model: "none", messages: ask() }, PATHS.messages);
    assert.deepEqual([reply.json.request_id, reply.headers["request-id"], reply.headers["x-request-id"]], [id, id, id]);
  });

  test("every chat answer says what was done for it, streamed or not", async () => {
    for (const [model, provider, upstream] of [
      ["gpt-test", "openai", "mock-large"],
      ["gpt-loose", "loose", "mock-large"],
      ["claude-test", "anthropic", "mock-claude"],
    ]) {
      for (const stream of [false, true]) {
        const { headers, status } = await chat(bearer(), { model, messages: ask(), stream });
        assert.equal(status, 200);
        assert.equal(headers["x-gateway-provider"], provider);
        assert.equal(headers["x-gateway-model"], upstream);
        assert.equal(headers["x-gateway-attempts"], "1");
        assert.match(headers["x-gateway-overhead-ms"], /^\d+$/);
        assert.equal(headers["x-gateway-config-version"], gateway.version);
        assert.notEqual(headers["x-gateway-upstream-request-id"] ?? "", "");
      }
    }
    assert.equal((await get("/v1/models", bearer())).headers["x-gateway-config-version"], gateway.version);
  });

  test("`x-should-retry` keeps SDKs from repeating what will not change, and only that", async () => {
    const asked = async (headers, body) => (await chat(headers, body)).headers["x-should-retry"];
    assert.equal(await asked({}, undefined), "false", "no credential");
    assert.equal(await asked(bearer(), { model: "gpt-unreachable", messages: ask() }), "false", "address not allowed");
    assert.equal(
      await asked(bearer(), { model: "gpt-test", messages: ask({ status: 401 }) }),
      "false",
      "the provider's credential",
    );
    for (const status of [429, 500, 503]) {
      assert.notEqual(await asked(bearer(), { model: "gpt-test", messages: ask({ status }) }), "false", `${status}`);
      assert.notEqual(await asked(bearer(), { model: "claude-test", messages: ask({ status }) }), "false", `${status}`);
    }
    assert.notEqual(await asked(bearer(), { model: "gpt-void", messages: ask() }), "false", "nobody there");
    const told = { status: 500, "header.x-should-retry": "false" };
    assert.equal(await asked(bearer(), { model: "gpt-test", messages: ask(told) }), "false", "the provider's own word");
  });

  // === Compression ===

  test("large JSON is compressed if the caller accepts it", async () => {
    const big = { model: "gpt-test", messages: ask({ big_reply: 50_000 }) };
    const plain = await chat(bearer(), big);
    assert.equal(plain.headers["content-encoding"], undefined);
    for (const accept of ["gzip", "br;q=1.0, gzip;q=0.8", "*"]) {
      const reply = await chat({ ...bearer(), "accept-encoding": accept }, big);
      assert.equal(reply.headers["content-encoding"], "gzip", accept);
      assert.match(reply.headers.vary ?? "", /accept-encoding/i);
      const json = JSON.parse(zlib.gunzipSync(reply.bytes).toString());
      assert.equal(json.choices[0].message.content, plain.json.choices[0].message.content);
      assert.ok(reply.bytes.length < plain.bytes.length / 2);
    }
    for (const accept of ["identity", "gzip;q=0", "br", ""]) {
      const reply = await chat({ ...bearer(), "accept-encoding": accept }, big);
      assert.equal(reply.headers["content-encoding"], undefined, accept);
      assert.equal(reply.json.choices[0].finish_reason, "stop");
    }
    const translated = await chat({ ...bearer(), "accept-encoding": "gzip" }, { ...big, model: "claude-test" });
    assert.equal(translated.headers["content-encoding"], "gzip");
  });

  test("small JSON is not compressed", async () => {
    const reply = await chat(
      { ...bearer(), "accept-encoding": "gzip" },
      { model: "gpt-test", messages: ask({ text: "hi" }) },
    );
    assert.equal(reply.headers["content-encoding"], undefined);
    assert.equal(reply.json.choices[0].message.content, "hi");
  });

  test("a stream is never compressed", async () => {
    for (const [model, extra] of [
      ["gpt-test", { stream_options: { include_usage: true } }],
      ["gpt-test", {}],
      ["gpt-loose", {}],
      ["claude-test", {}],
    ]) {
      const body = { model, messages: ask({ chunks: 500 }), stream: true, ...extra };
      const reply = await chat({ ...bearer(), "accept-encoding": "gzip, br" }, body);
      assert.equal(reply.headers["content-encoding"], undefined);
      assert.match(reply.text, /data: \[DONE\]\n\n$/);
    }
  });

  // === Cross-origin access ===

  test("a browser's preflight is answered by the allow-list, without a credential", async () => {
    const asked = {
      "access-control-request-method": "POST",
      "access-control-request-headers": "authorization, x-stainless-os",
    };
    const good = await get("/v1/chat/completions", { origin: ORIGIN, ...asked }, "OPTIONS");
    assert.equal(good.status, 204);
    assert.equal(good.headers["access-control-allow-origin"], ORIGIN);
    assert.match(good.headers["access-control-allow-methods"], /POST/);
    assert.match(good.headers["access-control-allow-headers"], /x-stainless-os/);
    assert.match(good.headers.vary, /origin/i);
    for (const origin of ["https://evil.example", "https://app.example.evil.example", "http://app.example", "null"]) {
      const bad = await get("/v1/chat/completions", { origin, ...asked }, "OPTIONS");
      assert.equal(bad.headers["access-control-allow-origin"], undefined, origin);
      assert.equal(bad.headers["access-control-allow-methods"], undefined, origin);
      assert.match(bad.headers.vary, /origin/i);
    }
  });

  test("answers and errors can be read by pages of allowed origins, and only by them", async () => {
    for (const headers of [bearer(), {}]) {
      const good = await chat({ ...headers, origin: ORIGIN });
      assert.equal(good.headers["access-control-allow-origin"], ORIGIN);
      assert.notEqual(good.headers["access-control-expose-headers"] ?? "", "");
      const bad = await chat({ ...headers, origin: "https://evil.example" });
      assert.equal(bad.headers["access-control-allow-origin"], undefined);
      assert.equal(good.status, bad.status);
    }
    const stream = await chat({ ...bearer(), origin: ORIGIN }, { model: "gpt-test", messages: ask(), stream: true });
    assert.equal(stream.headers["access-control-allow-origin"], ORIGIN);
    assert.equal(stream.headers["access-control-allow-credentials"], undefined);
  });

  // === API keys ===

  describe("an API key", () => {
    const strip = ({ status, headers, text }) => {
      const { "x-request-id": _id, date: _date, "content-length": _length, ...rest } = headers;
      return { status, headers: rest, text };
    };

    test("lets in by either header, and names its account in the log", async () => {
      for (const headers of [bearer(), { "x-api-key": at.key }, { authorization: `bearer   ${at.key}` }]) {
        const id = freshId();
        assert.equal((await chat({ ...headers, "x-request-id": id })).status, 200);
        const line = await logOf(gateway, id);
        assert.equal(line.account, "red");
        assert.equal(line.key_id, /^sk-lgw-([^-]+)-/.exec(at.key)[1]);
      }
      assert.equal((await chat(bearer(keys.young))).status, 200);
    });

    test("that is missing is asked for", async () => {
      for (const api of ["chat", "messages"]) {
        const reply = await chat({}, { model: "claude-test", messages: ask() }, PATHS[api]);
        assert.equal(reply.status, 401);
        assertErrorBody(reply.json, api);
        assert.equal(reply.json.error.type, "authentication_error");
        assert.equal(reply.headers["www-authenticate"], "Bearer");
      }
    });

    test("that is bad in any way gets one and the same answer, from every route that needs one", async () => {
      const foreign = await mintKey({ name: "foreign", account: "red" }, "a hash secret of another deployment");
      const [, id] = /^sk-lgw-([^-]+)-/.exec(at.key);
      // Same public id, other secret, valid checksum: as if somebody had seen the id in a log.
      const forged = forge(id);
      const typo = at.key.slice(0, -1) + (at.key.endsWith("a") ? "b" : "a");
      const bad = {
        nonsense: "nonsense",
        "another provider's": "sk-proj-abcdefghijklmnopqrstuvwxyz",
        mistyped: typo,
        truncated: at.key.slice(0, -3),
        "of another deployment": foreign.key,
        "with the secret guessed": forged,
        expired: keys.old,
        disabled: keys.off,
      };
      for (const request of [
        (key) => chat(bearer(key)),
        (key) => chat({ "x-api-key": key }),
        (key) => get("/v1/models", bearer(key)),
        (key) => get("/v1/models/gpt-test", bearer(key)),
      ]) {
        const reference = strip(await request("nonsense"));
        assert.equal(reference.status, 401);
        assert.equal(reference.headers["x-should-retry"], "false");
        for (const [what, key] of Object.entries(bad)) assert.deepEqual(strip(await request(key)), reference, what);
      }
      assert.deepEqual(
        (await journalOf(mock)).filter(({ headers }) => Object.values(headers).includes(forged)),
        [],
      );
    });

    test("refusals tell the operator, in the log, what was wrong", async () => {
      for (const [key, word] of [
        [keys.old, /expired/],
        [keys.off, /disabled/],
        ["nonsense", /malformed/],
      ]) {
        const id = freshId();
        await chat({ ...bearer(key), "x-request-id": id });
        const line = await logOf(gateway, id);
        assert.deepEqual([line.status, line.outcome], [401, "failed"]);
        assert.match(line.error_detail, word);
      }
    });

    test("may be bound to models, by name or by prefix; others do not exist for it", async () => {
      const models = async (key) => (await get("/v1/models", bearer(key))).json.data.map(({ id }) => id);
      assert.deepEqual(await models(keys.one), ["claude-test"]);
      assert.deepEqual(await models(keys.some), [
        "gpt-inline",
        "gpt-loose",
        "gpt-poor",
        "gpt-test",
        "gpt-unreachable",
        "gpt-void",
      ]);
      assert.equal((await chat(bearer(keys.one), { model: "claude-test", messages: ask() })).status, 200);
      assert.equal((await chat(bearer(keys.some))).status, 200);
      for (const [key, forbidden] of [
        [keys.one, "gpt-test"],
        [keys.some, "claude-test"],
      ]) {
        const tag = freshId();
        const refused = await chat(bearer(key), { model: forbidden, messages: ask({ tag }) });
        const unknown = await chat(bearer(key), { model: "no-such-model", messages: ask({ tag }) });
        assert.equal(refused.status, 404);
        assert.equal(refused.text.replaceAll(forbidden, "M"), unknown.text.replaceAll("no-such-model", "M"));
        const looked = await get(`/v1/models/${forbidden}`, bearer(key));
        const absent = await get("/v1/models/no-such-model", bearer(key));
        assert.deepEqual(
          [looked.status, looked.text.replaceAll(forbidden, "M")],
          [404, absent.text.replaceAll("no-such-model", "M")],
        );
        assert.deepEqual(await journalOf(mock, tag), []);
      }
    });

    test("that is disabled later stops working once its record is looked at again", async () => {
      const made = await mintKey({ name: "soon-gone" }, KEY_HASH_SECRET);
      await gateway.kv.put(made.entry.name, made.entry.value);
      assert.equal((await chat(bearer(made.key))).status, 200);
      const off = await mintKey({ name: "soon-gone", key: made.key, disabled: true }, KEY_HASH_SECRET);
      await gateway.kv.put(off.entry.name, off.entry.value);
      await eventually(async () => (await chat(bearer(made.key))).status === 401, "the key is refused", {
        timeout: 45_000,
        interval: 250,
      });
    });

    /** A key with a given public id, any secret and the right checksum: SHA-256 over both, as base 62. */
    function forge(id) {
      const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
      const secret = "A".repeat(32);
      let number = crypto.createHash("sha256").update(`${id}-${secret}`).digest().readBigUInt64BE(0);
      let checksum = "";
      for (let n = 0; n < 6; n++) {
        checksum += alphabet[Number(number % 62n)];
        number /= 62n;
      }
      return `sk-lgw-${id}-${secret}${checksum}`;
    }

    test("with a valid checksum but a guessed secret really gets as far as the comparison", async () => {
      const id = freshId();
      await chat({ ...bearer(forge(/^sk-lgw-([^-]+)-/.exec(at.key)[1])), "x-request-id": id });
      assert.match((await logOf(gateway, id)).error_detail, /wrong secret/);
    });
  });

  // === Tokens of an issuer ===

  describe("a JSON Web Token", () => {
    for (const alg of ["EdDSA", "RS256", "ES256"]) {
      test(`signed with ${alg} by a configured issuer lets in`, async () => {
        const id = freshId();
        const reply = await chat({ ...bearer(token({ alg })), "x-request-id": id });
        assert.equal(reply.status, 200, reply.text);
        const line = await logOf(gateway, id);
        assert.equal(line.account, "blue");
        assert.match(line.key_id, /^jwt:[0-9a-f]{8}:user-1$/, "the issuer's mark and the subject");
      });
    }

    test("may have several audiences and a start in the past", async () => {
      const claims = { aud: ["other", "gateway"], nbf: now() - 10 };
      assert.equal((await chat(bearer(token({ claims })))).status, 200);
    });

    test("may be bound to models by its issuer", async () => {
      const narrow = token({ claims: { iss: "https://narrow.example" } });
      assert.equal((await chat(bearer(narrow))).status, 404);
      assert.equal((await chat(bearer(narrow), { model: "claude-test", messages: ask() })).status, 200);
    });

    const pem = (alg) => pairs[alg].publicKey.export({ type: "spki", format: "pem" });
    const raw = (alg) => Buffer.from(jwks.keys.find((key) => key.alg === alg).x ?? "", "base64url");
    const good = () => token();

    /** What must be refused, and why, in the log. */
    const refused = {
      "without a signature (alg none)": () => token({ alg: "none", head: { kid: "key-EdDSA" } }),
      "without a signature, spelt otherwise": () => {
        const [, claims] = good().split(".");
        return `${base64({ alg: "NoNe", kid: "key-EdDSA" })}.${claims}.`;
      },
      "with its signature cut off": () => `${good().split(".").slice(0, 2).join(".")}.`,
      "signed as HMAC with the public RSA key": () =>
        token({ alg: "HS256", head: { kid: "key-RS256" }, key: pem("RS256") }),
      "signed as HMAC with the public Ed25519 key": () =>
        token({ alg: "HS256", head: { kid: "key-EdDSA" }, key: raw("EdDSA") }),
      "signed by a stranger (EdDSA)": () => token({ key: strangers.EdDSA.privateKey }),
      "signed by a stranger (RS256)": () => token({ alg: "RS256", key: strangers.RS256.privateKey }),
      "signed by a stranger (ES256)": () => token({ alg: "ES256", key: strangers.ES256.privateKey }),
      "that brings its own key": () =>
        token({ key: strangers.EdDSA.privateKey, head: { jwk: strangers.EdDSA.publicKey.export({ format: "jwk" }) } }),
      "that says where its keys are": () =>
        token({ key: strangers.EdDSA.privateKey, head: { jku: `${mock.url}/jwks.json` } }),
      "with another key's id": () => token({ head: { kid: "key-RS256" } }),
      "with an unknown key id": () => token({ head: { kid: "unknown" } }),
      "without a key id where there are several keys": () => token({ head: { kid: undefined } }),
      "with an algorithm that the issuer does not use": () =>
        token({ alg: "RS256", claims: { iss: "https://narrow.example" } }),
      "of an unknown issuer": () => token({ claims: { iss: "https://evil.example" } }),
      "of an issuer spelt nearly right": () => token({ claims: { iss: "https://id.example/" } }),
      "without an issuer": () => token({ claims: { iss: undefined } }),
      "for another audience": () => token({ claims: { aud: "others" } }),
      "without an audience": () => token({ claims: { aud: undefined } }),
      "that has expired": () => token({ claims: { exp: now() - 120 } }),
      "that never expires": () => token({ claims: { exp: undefined } }),
      "that expires at no number": () => token({ claims: { exp: "tomorrow" } }),
      "that is not valid yet": () => token({ claims: { nbf: now() + 600 } }),
      "without an account": () => token({ claims: { team: undefined } }),
      "with an account that is no text": () => token({ claims: { team: { $ne: null } } }),
      "with a critical extension that nobody knows": () => token({ head: { crit: ["urn:x"], "urn:x": 1 } }),
      "whose claims were changed": () => {
        const [head, claims, signature] = good().split(".");
        const changed = { ...JSON.parse(Buffer.from(claims, "base64url")), team: "others" };
        return `${head}.${base64(changed)}.${signature}`;
      },
      "that is too long": () => token({ claims: { padding: "x".repeat(9000) } }),
      "that is no JSON": () => `${base64("{")}.${base64("{")}.AAAA`,
    };

    for (const [what, make] of Object.entries(refused)) {
      test(`${what} is refused, with the words for any bad key`, async () => {
        const tag = freshId();
        const reply = await chat(
          { ...bearer(make()), "x-request-id": tag },
          { model: "gpt-test", messages: ask({ tag }) },
        );
        assert.equal(reply.status, 401, reply.text);
        assert.equal(reply.text, (await chat(bearer("nonsense"))).text);
        assert.deepEqual(await journalOf(mock, tag), []);
        assert.notEqual((await logOf(gateway, tag)).error_detail ?? "", "", "the log says why");
      });
    }

    test("never stands in the log", async () => {
      const made = token();
      await chat(bearer(made));
      await chat(bearer(`${made}x`));
      assert.deepEqual(linesWith([made, made.split(".")[2]], gateway.logs), []);
    });
  });

  // === Where the gateway goes, and where it does not ===

  test("a provider at a private address that the deployment does not name is never called, and the log says which", async () => {
    const id = freshId();
    for (const stream of [false, true]) {
      const reply = await chat(
        { ...bearer(), "x-request-id": id },
        { model: "gpt-unreachable", messages: ask(), stream },
      );
      assert.equal(reply.status, 503);
      assertErrorBody(reply.json, "chat");
      assert.doesNotMatch(reply.text, /10\.20\.30\.40/, "the caller is not told the address");
    }
    const named = gateway.logs.filter((line) => line.includes("not-allowed") && line.includes("10.20.30.40"));
    assert.ok(named.length >= 1, "the log names provider and host");
  });

  test("without PRIVATE_UPSTREAM_HOSTS nothing local is reachable: the default refuses", async () => {
    const other = await startMock();
    const closed = await startGateway({
      mockUrl: other.url,
      config: config(),
      keys: [{ name: "app" }],
      vars: { PRIVATE_UPSTREAM_HOSTS: "" },
      secrets: PROVIDER_SECRETS,
    });
    try {
      for (const [api, model] of [
        ["chat", "gpt-test"],
        ["chat", "claude-test"],
        ["messages", "claude-test"],
      ]) {
        const reply = await send({
          url: `${closed.url}${PATHS[api]}`,
          method: "POST",
          headers: bearer(closed.keys.app),
          body: JSON.stringify({ model, messages: ask() }),
        });
        assert.equal(reply.status, 503);
        assertErrorBody(reply.json, api);
      }
      assert.deepEqual(await other.journal(), [], "nothing was sent");
      assert.ok(closed.logs.some((line) => line.includes("PRIVATE_UPSTREAM_HOSTS") && line.includes("127.0.0.1")));
      assert.equal((await send({ url: `${closed.url}/v1/models`, headers: bearer(closed.keys.app) })).status, 200);
    } finally {
      await closed.stop();
      await other.stop();
    }
  });

  test("a provider whose credential is not deployed is a 503 that tells the operator which, in the log alone", async () => {
    const tag = freshId();
    const reply = await chat(bearer(), { model: "gpt-poor", messages: ask({ tag }) });
    assert.equal(reply.status, 503);
    assert.doesNotMatch(reply.text, /NEVER_SET/);
    assert.ok(gateway.logs.some((line) => line.includes("NEVER_SET")));
    assert.deepEqual(await journalOf(mock, tag), []);
  });

  test("a provider that cannot be reached is a 502", async () => {
    for (const stream of [false, true]) {
      const id = freshId();
      const reply = await chat({ ...bearer(), "x-request-id": id }, { model: "gpt-void", messages: ask(), stream });
      assert.equal(reply.status, 502);
      assertErrorBody(reply.json, "chat");
      assert.doesNotMatch(reply.text, /127\.0\.0\.1/);
      assert.deepEqual([(await logOf(gateway, id)).outcome, (await logOf(gateway, id)).status], ["failed", 502]);
    }
  });

  // === The log ===

  test("the log is one JSON object a line, with what an operator needs and no body", async () => {
    const id = freshId();
    const words = `a-text-nobody-logs-${id}`;
    await chat(
      { ...bearer(), "x-request-id": id },
      { model: "gpt-test", messages: ask({ text: `answer-${words}` }, words) },
    );
    const line = await logOf(gateway, id);
    assert.deepEqual(
      {
        level: line.level,
        method: line.method,
        path: line.path,
        status: line.status,
        outcome: line.outcome,
        model: line.model,
        provider: line.provider,
        upstream_model: line.upstream_model,
        upstream_status: line.upstream_status,
        attempts: line.attempts,
        stream: line.stream,
        config_version: line.config_version,
      },
      {
        level: "info",
        method: "POST",
        path: "/v1/chat/completions",
        status: 200,
        outcome: "completed",
        model: "gpt-test",
        provider: "openai",
        upstream_model: "mock-large",
        upstream_status: 200,
        attempts: 1,
        stream: false,
        config_version: gateway.version,
      },
    );
    for (const field of ["bytes_in", "bytes_out", "total_ms", "upstream_ms", "overhead_ms"])
      assert.equal(typeof line[field], "number", field);
    assert.ok(line.bytes_in > 0 && line.bytes_out > 0);
    assert.deepEqual(linesWith([words], gateway.logs), []);
    for (const line of gateway.logs) assert.equal(typeof JSON.parse(line), "object", line);
  });

  test("every request has exactly one line, whatever became of it", async () => {
    const ids = [];
    const asked = async (make) => {
      ids.push(freshId());
      await make({ "x-request-id": ids.at(-1) });
    };
    await asked((headers) => get("/health", headers));
    await asked((headers) => get("/nowhere", headers));
    await asked((headers) => get("/v1/models", { ...headers, ...bearer() }));
    await asked((headers) => get("/v1/chat/completions", { ...headers, origin: ORIGIN }, "OPTIONS"));
    await asked((headers) => chat(headers));
    await asked((headers) => chat({ ...headers, ...bearer() }));
    await asked((headers) => chat({ ...headers, ...bearer() }, { model: "gpt-test", messages: ask(), stream: true }));
    await asked((headers) => chat({ ...headers, ...bearer(), "content-encoding": "gzip" }));
    for (const id of ids) await logOf(gateway, id);
    const all = requestLines(gateway).map(({ request_id }) => request_id);
    for (const id of ids) assert.equal(all.filter((other) => other === id).length, 1);
  });
});

test("no line of the log has a secret in it", assertNothingLeaked);
