// Signing in: passwords, lock-out, sessions, service tokens, the bootstrap, external issuers.

import assert from "node:assert/strict";
import { createHmac, generateKeyPairSync, sign } from "node:crypto";
import { after, before, describe, test } from "node:test";

import { BOOTSTRAP_TOKEN, Caller, PASSWORD, startAdmin, userWith } from "./admin.mjs";
import { startGateway } from "./harness.mjs";
import { KEY_HASH_SECRET, send, sleep, startUpstream } from "./support.mjs";

let admin;
before(async () => (admin = await startAdmin()));
after(() => admin?.stop());

const claimsOf = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url"));

describe("the first administrator", () => {
  test("is made once", async () => {
    const body = { token: BOOTSTRAP_TOKEN, email: "second@example.com", name: "Second", password: PASSWORD };
    const reply = await admin.nobody.call("POST", "/admin/v1/bootstrap", { body, expected: 409 });
    assert.equal(reply.data.code, "bootstrap_done");
  });

  test("needs the deployment's token, and guessing it is slowed down", async (t) => {
    const secrets = { MASTER_SECRET: "m".repeat(40), BOOTSTRAP_TOKEN, KEY_HASH_SECRET };
    const gateway = await startGateway({ config: null, secrets });
    t.after(() => gateway.stop());
    const nobody = new Caller(gateway.url);
    const body = { token: "wrong", email: "a@example.com", name: "A", password: PASSWORD };
    const statuses = [];
    for (let n = 0; n < 8; n++) statuses.push((await nobody.call("POST", "/admin/v1/bootstrap", { body })).status);
    assert.deepEqual([...new Set(statuses)], [401, 429]);
    assert.equal(statuses.at(-1), 429);
  });

  test("is refused a wrong token as often as the same request is repeated", async (t) => {
    const secrets = { MASTER_SECRET: "m".repeat(40), BOOTSTRAP_TOKEN, KEY_HASH_SECRET };
    const gateway = await startGateway({ config: null, secrets });
    t.after(() => gateway.stop());
    const nobody = new Caller(gateway.url);
    const body = { token: "wrong", email: "a@example.com", name: "A", password: PASSWORD };
    const headers = { "idempotency-key": "again" };
    for (let n = 0; n < 2; n++) await nobody.call("POST", "/admin/v1/bootstrap", { body, headers, expected: 401 });
    const right = { ...body, token: BOOTSTRAP_TOKEN };
    await nobody.call("POST", "/admin/v1/bootstrap", { body: right, headers, expected: 201 });
  });

  test("of two who try at the same time only one succeeds", async (t) => {
    const secrets = { MASTER_SECRET: "m".repeat(40), BOOTSTRAP_TOKEN, KEY_HASH_SECRET };
    const gateway = await startGateway({ config: null, secrets });
    t.after(() => gateway.stop());
    const nobody = new Caller(gateway.url);
    const body = (n) => ({ token: BOOTSTRAP_TOKEN, email: `a${n}@example.com`, name: "A", password: PASSWORD });
    const replies = await Promise.all([1, 2, 3].map((n) => nobody.call("POST", "/admin/v1/bootstrap", { body: body(n) })));
    assert.deepEqual(replies.map((reply) => reply.status).sort(), [201, 409, 409]);
  });
});

describe("passwords", () => {
  test("must be long, not common, not the e-mail address", async () => {
    for (const password of ["short", "password1234", "new.person@example.com"]) {
      const body = { email: "new.person@example.com", name: "N", password };
      const reply = await admin.owner.call("POST", "/admin/v1/users", { body, expected: 400 });
      assert.equal(reply.data.errors[0].path, "password", password);
    }
  });

  test("a wrong one and an unknown user get the same answer, and about the same time", async () => {
    const { email } = await userWith(admin.owner, "viewer");
    const attempt = async (body) => {
      const started = process.hrtime.bigint();
      const reply = await admin.nobody.call("POST", "/admin/v1/auth/sign-in", { body, expected: 401 });
      return { text: reply.data, ms: Number(process.hrtime.bigint() - started) / 1e6 };
    };
    const known = [];
    const unknown = [];
    for (let n = 0; n < 4; n++) {
      known.push(await attempt({ email, password: "not this one, sorry" }));
      unknown.push(await attempt({ email: `nobody-${email}`, password: "not this one, sorry" }));
    }
    const same = ({ request_id: _, ...rest }) => rest;
    assert.deepEqual(same(known[0].text), same(unknown[0].text));
    const fastest = (list) => Math.min(...list.map((one) => one.ms));
    const ratio = fastest(known) / fastest(unknown);
    assert.ok(ratio > 0.5 && ratio < 2, `known ${fastest(known)} ms, unknown ${fastest(unknown)} ms`);
  });

  test("guessing locks the identity, whether or not it exists, and says for how long", async () => {
    const { email } = await userWith(admin.owner, "viewer");
    for (const who of [email, "never-seen@example.com"]) {
      const statuses = [];
      for (let n = 0; n < 7; n++) {
        const body = { email: who, password: "wrong wrong wrong" };
        const reply = await admin.nobody.call("POST", "/admin/v1/auth/sign-in", { body });
        statuses.push(reply.status);
        if (reply.status === 429) assert.ok(Number(reply.headers["retry-after"]) >= 1);
      }
      assert.deepEqual(statuses.slice(0, 4), [401, 401, 401, 401], who);
      assert.equal(statuses.at(-1), 429, who);
    }
    const right = { email, password: PASSWORD };
    await admin.nobody.call("POST", "/admin/v1/auth/sign-in", { body: right, expected: 429 });
  });

  test("guesses sent at the same time are all counted", async () => {
    const { email } = await userWith(admin.owner, "viewer");
    const body = { email, password: "wrong wrong wrong" };
    const replies = await Promise.all(
      Array.from({ length: 12 }, () => admin.nobody.call("POST", "/admin/v1/auth/sign-in", { body })),
    );
    const tried = replies.filter((reply) => reply.status === 401).length;
    assert.ok(tried <= 5, `${tried} of 12 guesses were looked at`);
  });

  test("one that somebody else set must be changed before anything else works", async () => {
    const who = await userWith(admin.owner, "viewer");
    await admin.owner.put(`/admin/v1/users/${who.user.id}/password`, { password: "set by somebody else" });
    await who.call("GET", "/admin/v1/me", { expected: 401 });
    const again = await admin.nobody.signIn(who.email, "set by somebody else");
    const refused = await again.call("GET", "/admin/v1/accounts", { expected: 403 });
    assert.equal(refused.data.code, "password_change_required");
    await again.get("/admin/v1/me");
    const wrong = { current: "not it", new: "a fresh and long one" };
    await again.call("PUT", "/admin/v1/me/password", { body: wrong, expected: 400 });
    await again.put("/admin/v1/me/password", { current: "set by somebody else", new: "a fresh and long one" });
    await again.get("/admin/v1/accounts");
  });
});

describe("sessions", () => {
  test("access tokens are short, signed with a published key, and say whose they are", async () => {
    const jwks = await admin.nobody.get("/admin/v1/auth/jwks");
    const { access_token: token, expires_in: seconds } = admin.owner.tokens;
    const header = JSON.parse(Buffer.from(token.split(".")[0], "base64url"));
    assert.equal(header.alg, "EdDSA");
    assert.ok(jwks.keys.some((key) => key.kid === header.kid && !("d" in key)));
    const claims = claimsOf(token);
    assert.equal(claims.exp - claims.iat, seconds);
    assert.equal(claims.aud, "llm-gateway:admin");
  });

  test("a refresh token works once; used twice, the session is over", async () => {
    const who = await userWith(admin.owner, "viewer");
    const renew = (refresh_token) => admin.nobody.call("POST", "/admin/v1/auth/refresh", { body: { refresh_token } });
    const first = await renew(who.tokens.refresh_token);
    assert.equal(first.status, 200);
    const renewed = new Caller(admin.url, first.data.access_token);
    await renewed.get("/admin/v1/me");
    assert.equal((await renew(who.tokens.refresh_token)).status, 401, "spent");
    await renewed.call("GET", "/admin/v1/me", { expected: 401 });
    assert.equal((await renew(first.data.refresh_token)).status, 401, "the thief's and the owner's both end");
  });

  test("of parallel uses of a refresh token one wins at most", async () => {
    const who = await userWith(admin.owner, "viewer");
    const body = { refresh_token: who.tokens.refresh_token };
    const replies = await Promise.all([1, 2, 3, 4].map(() => admin.nobody.call("POST", "/admin/v1/auth/refresh", { body })));
    assert.ok(replies.filter((reply) => reply.status === 200).length <= 1);
  });

  test("end by signing out, by their user, by an administrator; at once", async () => {
    const who = await userWith(admin.owner, "viewer");
    await who.post("/admin/v1/auth/sign-out", undefined);
    await who.call("GET", "/admin/v1/me", { expected: 401 });
    const [a, b] = [await admin.nobody.signIn(who.email), await admin.nobody.signIn(who.email)];
    const sessions = await a.all("/admin/v1/me/sessions", 1);
    assert.ok(sessions.length >= 3);
    await a.delete(`/admin/v1/me/sessions/${b.tokens.session_id}`);
    await b.call("GET", "/admin/v1/me", { expected: 401 });
    const other = admin.owner.tokens.session_id;
    await a.call("DELETE", `/admin/v1/me/sessions/${other}`, { expected: 404 });
    await admin.owner.delete(`/admin/v1/users/${who.user.id}/sessions`);
    await a.call("GET", "/admin/v1/me", { expected: 401 });
    const c = await admin.nobody.signIn(who.email);
    await admin.owner.patch(`/admin/v1/users/${who.user.id}`, { status: "disabled" });
    await c.call("GET", "/admin/v1/me", { expected: 401 });
    const body = { email: who.email, password: PASSWORD };
    await admin.nobody.call("POST", "/admin/v1/auth/sign-in", { body, expected: 401 });
  });
});

describe("service tokens", () => {
  test("act as their user until they are revoked or end", async () => {
    const robot = await admin.owner.post("/admin/v1/users", { kind: "service", name: "deploys" });
    await admin.owner.put(`/admin/v1/users/${robot.id}/roles/operator`);
    const made = await admin.owner.post(`/admin/v1/users/${robot.id}/tokens`, { name: "ci" });
    assert.match(made.token, /^st-lgw-/);
    const caller = new Caller(admin.url, made.token);
    const me = await caller.get("/admin/v1/me");
    assert.deepEqual([me.kind, me.id], ["service", robot.id]);
    await caller.get("/admin/v1/providers");
    await caller.call("GET", "/admin/v1/users", { expected: 403 });
    const [listed] = await admin.owner.all(`/admin/v1/users/${robot.id}/tokens`);
    assert.ok(listed.last_used_at > 0 && !JSON.stringify(listed).includes(made.token.split("-").at(-1)));
    await admin.owner.delete(`/admin/v1/users/${robot.id}/tokens/${made.id}`);
    await caller.call("GET", "/admin/v1/me", { expected: 401 });
    const soon = Math.floor(Date.now() / 1000) + 2;
    const short = await admin.owner.post(`/admin/v1/users/${robot.id}/tokens`, { name: "short", expires_at: soon });
    const brief = new Caller(admin.url, short.token);
    await brief.get("/admin/v1/me");
    await sleep(2100);
    await brief.call("GET", "/admin/v1/me", { expected: 401 });
    const forged = made.token.slice(0, -1) + (made.token.endsWith("a") ? "b" : "a");
    await new Caller(admin.url, forged).call("GET", "/admin/v1/me", { expected: 401 });
  });
});

describe("external issuers", () => {
  const b64 = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

  /** An issuer with a key set that can change. */
  async function startIssuer() {
    const make = (kid) => {
      const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
      return { kid, ...pair, jwk: { ...pair.publicKey.export({ format: "jwk" }), kid, alg: "ES256", use: "sig" } };
    };
    const issuer = { keys: [make("one")], fetches: 0, make };
    const server = await startUpstream((request, response) => {
      issuer.fetches += 1;
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ keys: issuer.keys.map((key) => key.jwk) }));
    });
    const token = (claims, key = issuer.keys[0], header = {}) => {
      const head = b64({ alg: "ES256", typ: "JWT", kid: key.kid, ...header });
      const now = Math.floor(Date.now() / 1000);
      const body = b64({ iss: "https://id.example", aud: "gateway", sub: "ada", exp: now + 300, nbf: now - 5, ...claims });
      const signature = sign("sha256", Buffer.from(`${head}.${body}`), { key: key.privateKey, dsaEncoding: "ieee-p1363" });
      return `${head}.${body}.${signature.toString("base64url")}`;
    };
    return Object.assign(issuer, { url: server.url, stop: server.stop, token });
  }

  test("vouch for callers of both planes, by claims; everything that is off is refused", async (t) => {
    const issuer = await startIssuer();
    const config = {
      auth: {
        jwks_refresh_min_seconds: 1,
        issuers: [
          {
            issuer: "https://id.example",
            audiences: ["gateway"],
            algorithms: ["ES256"],
            jwks_uri: `${issuer.url}/jwks`,
            planes: ["models", "admin"],
            account_claim: "team",
            roles_claim: "realm.groups",
            roles: { "gw-audit": [{ role: "auditor" }], "gw-dev": [{ role: "developer", account: "team-a" }] },
            required_claims: { tenant: "acme" },
          },
        ],
      },
    };
    const vars = { PRIVATE_UPSTREAM_HOSTS: new URL(issuer.url).host };
    const there = await startAdmin({ config, vars });
    t.after(async () => {
      await there.stop();
      await issuer.stop();
    });
    await there.owner.post("/admin/v1/accounts", { id: "team-a", name: "A" });
    const good = { tenant: "acme", team: "team-a", realm: { groups: ["gw-audit", "unknown"] } };
    const caller = (token) => new Caller(there.url, token);
    const me = await caller(issuer.token(good)).get("/admin/v1/me");
    assert.deepEqual([me.kind, me.id, me.user], ["external", "https://id.example#ada", null]);
    assert.ok(me.permissions.includes("audit:read") && !me.permissions.some((one) => one.endsWith(":write")));
    const dev = caller(issuer.token({ ...good, realm: { groups: "gw-dev" } }));
    await dev.post("/admin/v1/accounts/team-a/keys", { name: "made from outside" });
    await dev.call("GET", "/admin/v1/users", { expected: 403 });
    const nothing = await caller(issuer.token({ ...good, realm: {} })).get("/admin/v1/me");
    assert.deepEqual([nothing.permissions, nothing.accounts], [[], {}]);
    const models = (token) => send({ url: `${there.url}/v1/models`, headers: { authorization: `Bearer ${token}` } });
    assert.equal((await models(issuer.token(good))).status, 200);

    const [key] = issuer.keys;
    const stranger = { ...issuer.make("one") };
    const now = Math.floor(Date.now() / 1000);
    const bad = {
      "the wrong audience": issuer.token({ ...good, aud: "gateway2" }),
      "the wrong issuer": issuer.token({ ...good, iss: "https://id.example/" }),
      expired: issuer.token({ ...good, exp: now - 120 }),
      "not valid yet": issuer.token({ ...good, nbf: now + 120 }),
      "without expiry": issuer.token({ ...good, exp: undefined }),
      "a required claim missing": issuer.token({ ...good, tenant: "other" }),
      "somebody else's key under a known id": issuer.token(good, stranger),
      "alg none": `${b64({ alg: "none", typ: "JWT" })}.${issuer.token(good).split(".")[1]}.`,
      "RSA claimed": issuer.token(good, key, { alg: "RS256" }),
      "a critical extension": issuer.token(good, key, { crit: ["x"], x: 1 }),
      "an embedded key": issuer.token(good, stranger, { jwk: stranger.jwk, kid: undefined }),
      "an array as key id": issuer.token(good, key, { kid: ["one"] }),
      oversized: issuer.token({ ...good, padding: "x".repeat(10_000) }),
    };
    const message = `${b64({ alg: "HS256", typ: "JWT", kid: "one" })}.${issuer.token(good).split(".")[1]}`;
    const pem = key.publicKey.export({ type: "spki", format: "pem" });
    bad["the public key as an HMAC secret"] = `${message}.${createHmac("sha256", pem).update(message).digest("base64url")}`;
    for (const [name, token] of Object.entries(bad)) {
      const reply = await caller(token).call("GET", "/admin/v1/me");
      assert.equal(reply.status, 401, `${name}: ${reply.text}`);
      assert.equal((await models(token)).status, 401, name);
    }

    // A new key is fetched when a token names it; unknown ones do not make the gateway fetch again and again.
    const second = issuer.make("two");
    issuer.keys.push(second);
    await sleep(1100);
    assert.equal((await caller(issuer.token(good, second)).call("GET", "/admin/v1/me")).status, 200);
    const fetched = issuer.fetches;
    for (let n = 0; n < 20; n++) await caller(issuer.token(good, { ...second, kid: `made-up-${n}` })).call("GET", "/admin/v1/me");
    assert.ok(issuer.fetches - fetched <= 2, `${issuer.fetches - fetched} fetches for 20 made-up key ids`);
  });
});
