// What somebody who has some rights, or knows where to knock, must not get by them.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";

import { BOOTSTRAP_TOKEN, Caller, MASTER_SECRET, PASSWORD, startAdmin, userWith } from "./admin.mjs";
import { startGateway } from "./harness.mjs";
import { KEY_HASH_SECRET, linesWith } from "./support.mjs";

const V1 = "/admin/v1";

let admin, owner;
before(async () => {
  admin = await startAdmin();
  owner = admin.owner;
});
after(() => admin?.stop());

const refusals = async (action) =>
  (await admin.db.prepare("SELECT target_id, actor_id FROM audit_log WHERE action = ? AND outcome = 'refused' ORDER BY sequence").bind(action).all()).results;

test("whoever may publish the configuration does not become an owner by an issuer of his own", async () => {
  const operator = await userWith(owner, "operator");
  const issuer = (roles, more = {}) => ({
    issuer: "https://id.example", audiences: ["gateway"], algorithms: ["ES256"], jwks_uri: "https://id.example/jwks",
    planes: ["admin"], roles_claim: "groups", roles, ...more,
  });
  const draft = (issuers) => operator.patch(`${V1}/settings`, { auth: { issuers } });
  const publish = (caller, expected) => caller.call("POST", `${V1}/config/publish`, { body: {}, expected });
  for (const roles of [{ all: [{ role: "owner" }] }, { all: [{ role: "admin" }] }, { all: [{ role: "viewer" }, { role: "admin", account: "a" }] }]) {
    await draft([issuer(roles)]);
    const refused = await publish(operator, 403);
    assert.deepEqual([refused.data.code, refused.data.errors[0].path], ["role_is_more_powerful", "auth.issuers"]);
  }
  await publish(owner, 201);
  // What is there already stays publishable, but with another key the same roles would be somebody else's.
  await operator.patch(`${V1}/settings`, { http: { max_json_depth: 30 } });
  const first = await publish(operator, 201);
  await draft([issuer({ all: [{ role: "viewer" }, { role: "admin", account: "a" }] }, { jwks_uri: "https://elsewhere.example/jwks" })]);
  await publish(operator, 403);
  await draft([issuer({ all: [{ role: "viewer" }] })]);
  await publish(operator, 201);
  const back = { version: first.data.version };
  await operator.call("POST", `${V1}/config/rollback`, { body: back, expected: 403 });
  await owner.call("POST", `${V1}/config/rollback`, { body: back, expected: 201 });
});

test("guessing the own password in a session that was left open is counted, locked and written down", async () => {
  const who = await userWith(owner, "viewer");
  const statuses = [];
  for (let n = 0; n < 7; n += 1) {
    const body = { current: `guess ${n}`, new: "what the finder would like" };
    statuses.push((await who.call("PUT", `${V1}/me/password`, { body })).status);
  }
  assert.deepEqual([statuses[0], statuses.at(-1)], [400, 429]);
  const written = (await refusals("users:change_own_password")).filter((entry) => entry.actor_id === who.user.id);
  assert.equal(written.length, statuses.filter((status) => status === 400).length);
  await admin.nobody.call("POST", `${V1}/auth/sign-in`, { body: { email: who.email, password: PASSWORD }, expected: 429 });
});

test("a password in the field of the address is not written down", async () => {
  const slip = "my pass phrase, in the wrong field";
  for (const email of [slip, ` ${slip.toUpperCase()} `, "someone@example.com"]) {
    await admin.nobody.call("POST", `${V1}/auth/sign-in`, { body: { email, password: "x" }, expected: 401 });
  }
  const told = (await refusals("sessions:sign_in")).map((entry) => entry.target_id);
  assert.deepEqual(told, ["", "", "someone@example.com"]);
  const rows = (await admin.db.prepare("SELECT * FROM audit_log").all()).results.map((row) => JSON.stringify(row).toLowerCase());
  assert.deepEqual(linesWith([slip], rows), []);
});

test("a token for models is as small as what it allows", async () => {
  const { id } = await owner.post(`${V1}/accounts`, { name: "Team" });
  for (const models of [[""], ["x".repeat(257)]]) {
    const reply = await owner.call("POST", `${V1}/accounts/${id}/model-tokens`, { body: { models }, expected: 400 });
    assert.equal(reply.data.errors[0].path, "models[0]");
  }
});

test("nobody's headers or query make him somebody else", async () => {
  const who = await userWith(owner, "viewer");
  const { id } = await owner.get(`${V1}/me`);
  const headers = {
    "x-user-id": id, "x-forwarded-user": id, "x-http-method-override": "DELETE", "x-original-url": `${V1}/users`,
    "cf-access-authenticated-user-email": "owner@example.com", cookie: `authorization=Bearer ${owner.token}`,
  };
  const me = await who.call("GET", `${V1}/me`, { headers, expected: 200 });
  assert.equal(me.data.id, who.user.id);
  await who.call("GET", `${V1}/users`, { headers, expected: 403 });
  await admin.nobody.call("GET", `${V1}/me?access_token=${owner.token}`, { headers, expected: 401 });
  for (const authorization of [`bearer  ${who.token}`, `Bearer ${who.token}, Bearer ${owner.token}`, `Basic ${owner.token}`, owner.token]) {
    const reply = await admin.nobody.call("GET", `${V1}/me`, { headers: { authorization } });
    assert.ok(reply.status === 401 || reply.data.id === who.user.id, authorization.slice(0, 12));
  }
});

test("a session's end, a withdrawn role and a new password are known with the next call", async () => {
  const who = await userWith(owner, "admin");
  await who.get(`${V1}/users`);
  await owner.delete(`${V1}/users/${who.user.id}/roles/admin`);
  await who.call("GET", `${V1}/users`, { expected: 403 });
  const other = await admin.nobody.signIn(who.email);
  await other.put(`${V1}/me/password`, { current: PASSWORD, new: `changed ${PASSWORD}` });
  await who.call("GET", `${V1}/me`, { expected: 401 });
  await other.get(`${V1}/me`);
  const renew = { refresh_token: who.tokens.refresh_token };
  await admin.nobody.call("POST", `${V1}/auth/refresh`, { body: renew, expected: 401 });
});

test("the addresses that may call it are those of the deployment's variables before anything is published", async (t) => {
  const vars = { GATEWAY__ADMIN__ALLOWED_IP_RANGES: '["192.0.2.0/24"]' };
  const secrets = { KEY_HASH_SECRET, MASTER_SECRET, BOOTSTRAP_TOKEN };
  const gateway = await startGateway({ config: null, vars, secrets });
  t.after(() => gateway.stop());
  const call = (ip, expected) =>
    new Caller(gateway.url).call("GET", `${V1}/auth/jwks`, { headers: ip ? { "cf-connecting-ip": ip } : {}, expected });
  await call("192.0.2.9", 200);
  for (const ip of [undefined, "192.0.3.9", "nonsense"]) await call(ip, 403);
});

test("the addresses that may call it do not become all addresses while Hub and KV cannot be reached", async (t) => {
  const persist = await mkdtemp(path.join(tmpdir(), "llm-gateway-abuse-"));
  t.after(() => rm(persist, { recursive: true, force: true }));
  const inside = { "cf-connecting-ip": "192.0.2.9" };
  const first = await startAdmin({ persist });
  try {
    await first.owner.patch(`${V1}/settings`, { admin: { allowed_ip_ranges: ["192.0.2.0/24"] } });
    await first.owner.post(`${V1}/config/publish`, {});
  } finally {
    await first.stop();
  }
  const script = "export class Hanging { async fetch() { await scheduler.wait(20000); return new Response('late'); } } export default {}";
  const gateway = await startGateway({
    config: null,
    persist,
    secrets: { KEY_HASH_SECRET, MASTER_SECRET, BOOTSTRAP_TOKEN },
    override: {
      durableObjects: {
        LEDGER: { className: "AccountLedger", useSQLite: true },
        HUB: { className: "Hanging", scriptName: "hanging" },
      },
    },
    others: [{ name: "hanging", modules: true, script, durableObjects: { HANGING: { className: "Hanging" } }, compatibilityDate: "2026-07-30" }],
  });
  t.after(() => gateway.stop());
  await gateway.kv.delete("config:current");
  const body = { email: "owner@example.com", password: PASSWORD };
  const nobody = new Caller(gateway.url);
  const outside = await nobody.call("POST", `${V1}/auth/sign-in`, { body, expected: 403 });
  assert.equal(outside.data.code, "address_not_allowed");
  await nobody.call("POST", `${V1}/auth/sign-in`, { body, headers: inside, expected: 200 });
});
