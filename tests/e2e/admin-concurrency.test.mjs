// Many changes at the same time: the same one, contradicting ones, different ones.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { PASSWORD, startAdmin } from "./admin.mjs";

const V1 = "/admin/v1";

let admin, owner, db;
before(async () => {
  admin = await startAdmin();
  ({ owner, db } = admin);
});
after(() => admin?.stop());

let count = 0;
const fresh = (name) => `${name}-${++count}`;
const times = (n, call) => Promise.all(Array.from({ length: n }, (_, nth) => call(nth)));
const one = async (sql, ...bound) => (await db.prepare(sql).bind(...bound).first()).n;

/** That each entry of the audit log follows on the one before, with none missing. */
async function assertChain() {
  assert.equal(await one("SELECT COUNT(*) AS n FROM audit_log"), await one("SELECT MAX(sequence) AS n FROM audit_log"));
  const verified = await owner.get(`${V1}/audit/verify`);
  assert.equal(verified.broken_at, null, JSON.stringify(verified));
}

/** That nothing is left to be told to objects and KV. */
const assertDelivered = async () => assert.equal(await one("SELECT COUNT(*) AS n FROM outbox"), 0);

const CREATIONS = {
  "an account with an id of its own": () => ({ path: `${V1}/accounts`, body: { id: fresh("team"), name: "Team" } }),
  "a user": () => ({ path: `${V1}/users`, body: { email: `${fresh("user")}@example.com`, name: "User", password: PASSWORD } }),
  "a role": () => ({ path: `${V1}/roles`, body: { name: fresh("role"), permissions: [] } }),
  "a key": async () => {
    const { id } = await owner.post(`${V1}/accounts`, { name: "Team" });
    return { path: `${V1}/accounts/${id}/keys`, body: { name: "key" } };
  },
};

for (const [what, request] of Object.entries(CREATIONS)) {
  test(`of forty equal requests with one idempotency key one creates ${what}`, async () => {
    const { path, body } = await request();
    const before = await one("SELECT COUNT(*) AS n FROM audit_log");
    const headers = { "idempotency-key": fresh("same") };
    const replies = await times(40, () => owner.call("POST", path, { body, headers, expected: [201, 409] }));
    const made = replies.filter((reply) => reply.status === 201);
    assert.ok(made.length >= 1);
    for (const reply of made) assert.deepEqual([reply.data, reply.etag], [made[0].data, made[0].etag]);
    for (const reply of replies.filter((reply) => reply.status === 409)) {
      assert.equal(reply.data.code, "in_progress", "none is told that somebody else has taken the name");
    }
    assert.equal(made.filter((reply) => !reply.headers["idempotency-replayed"]).length, 1, "one was the first");
    assert.equal(await one("SELECT COUNT(*) AS n FROM audit_log"), before + 1);
    const later = await owner.call("POST", path, { body, headers, expected: 201 });
    assert.deepEqual(later.data, made[0].data);
    assert.equal((await owner.all(path, 200)).filter((entry) => entry.id === made[0].data.id).length, 1);
    await assertDelivered();
  });
}

test("of thirty changes of the same state one succeeds", async () => {
  const { id } = await owner.post(`${V1}/accounts`, { name: "Team" });
  const at = `${V1}/accounts/${id}`;
  const user = await owner.post(`${V1}/users`, { kind: "service", name: "Robot" });
  const key = await owner.post(`${at}/keys`, { name: "key" });
  for (const path of [at, `${at}/keys/${key.id}`, `${V1}/users/${user.id}`]) {
    const { etag } = await owner.call("GET", path, { expected: 200 });
    const change = (nth) => owner.call("PATCH", path, { body: { name: `n${nth}` }, headers: { "if-match": etag }, expected: [200, 412] });
    const replies = await times(30, change);
    const won = replies.filter((reply) => reply.status === 200);
    assert.equal(won.length, 1, path);
    const now = await owner.get(path);
    assert.deepEqual([now.name, now.revision], [won[0].data.name, won[0].data.revision]);
    assert.deepEqual([...new Set(replies.filter((reply) => reply.status === 412).map((reply) => reply.data.code))], ["outdated"]);
  }
  const rotations = await times(10, () =>
    owner.call("POST", `${at}/keys/${key.id}/rotate`, { body: {}, headers: { "if-match": '"2"' }, expected: [200, 412] }),
  );
  assert.equal(rotations.filter((reply) => reply.status === 200).length, 1, "a key is not rotated twice");
  await assertDelivered();
  await assertChain();
});

test("thirty different creations all succeed, and the audit log has them in a row", async () => {
  const before = await one("SELECT COUNT(*) AS n FROM audit_log");
  const began = performance.now();
  const replies = await times(30, (nth) => owner.call("POST", `${V1}/accounts`, { body: { name: `Team ${nth}` } }));
  const took = performance.now() - began;
  assert.deepEqual([...new Set(replies.map((reply) => reply.status))], [201]);
  assert.equal(new Set(replies.map((reply) => reply.data.id)).size, 30);
  assert.equal(await one("SELECT COUNT(*) AS n FROM audit_log"), before + 30);
  console.log(`30 creations at the same time took ${Math.round(took)} ms`);
  await assertDelivered();
  await assertChain();
});

test("changes of an account and its limits at the same time: its ledger ends with what the database has", async () => {
  const { id } = await owner.post(`${V1}/accounts`, { name: "Team" });
  const at = `${V1}/accounts/${id}`;
  await times(24, (nth) =>
    nth % 2 === 0
      ? owner.call("PATCH", at, { body: { status: nth % 4 === 0 ? "suspended" : "active" }, expected: [200, 412] })
      : owner.call("POST", `${at}/limits`, { body: { dimension: "requests", period: "day", model: `m${nth}`, amount: nth }, expected: 201 }),
  );
  await assertDelivered();
  const account = await owner.get(at);
  const status = await (await (await admin.object("LEDGER", id)).fetch("https://object/status")).json();
  assert.equal(status.suspended, account.status === "suspended");
  await assertChain();
});

test("of twenty limits of the same kind one is made, and no account gets more limits than it may have", async () => {
  const { id } = await owner.post(`${V1}/accounts`, { name: "Team" });
  const at = `${V1}/accounts/${id}/limits`;
  const create = (body) => owner.call("POST", at, { body, expected: [201, 409] });
  const terms = { dimension: "cost", period: "month", amount: 5 };
  const same = await times(20, () => create(terms));
  const [made] = same.filter((reply) => reply.status === 201);
  assert.equal(same.filter((reply) => reply.status === 201).length, 1);
  for (const { data } of same.filter((reply) => reply.status === 409)) {
    assert.equal(data.code, "already_exists");
    assert.ok(data.detail.includes(made.data.id), data.detail);
  }
  await db
    .prepare(
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 497) INSERT INTO limits " +
        "(id, account_id, model, dimension, period, amount, created_at, updated_at) " +
        "SELECT 'filler-' || i, ?1, 'filler-' || i, 'requests', 'day', 1, 0, 0 FROM n",
    )
    .bind(id)
    .run();
  const more = await times(6, (nth) => create({ ...terms, model: `m${nth}` }));
  assert.deepEqual(more.map((reply) => reply.status).sort(), [201, 201, 409, 409, 409, 409]);
  for (const { data } of more.filter((reply) => reply.status === 409)) assert.equal(data.code, "too_many_limits");
  assert.equal(await one("SELECT COUNT(*) AS n FROM limits WHERE account_id = ?1", id), 500);
  await owner.call("POST", `${V1}/accounts/${id}/keys`, { body: { name: "k", limits: [terms] }, expected: 409 });
  assert.equal(await one("SELECT COUNT(*) AS n FROM api_keys WHERE account_id = ?1", id), 0);
  await owner.delete(`${at}/filler-1`);
  await create({ ...terms, period: "day" });
  await assertDelivered();
});

test("the last thing that keeps another from being deleted does not slip in beside the deletion", async () => {
  for (let round = 0; round < 5; round += 1) {
    const { id } = await owner.post(`${V1}/accounts`, { name: "Team" });
    const at = `${V1}/accounts/${id}`;
    const [made, gone] = await Promise.all([
      owner.call("POST", `${at}/keys`, { body: { name: "key" }, expected: [201, 404, 409] }),
      owner.call("DELETE", at, { expected: [204, 409] }),
    ]);
    assert.ok(!(made.status === 201 && gone.status === 204), "a key without an account");

    const account = await owner.post(`${V1}/accounts`, { name: "Team" });
    const user = await owner.post(`${V1}/users`, { kind: "service", name: "Member" });
    const member = `${V1}/accounts/${account.id}/members/${user.id}`;
    await owner.put(member, { role_id: "developer" });
    const body = { name: "key", user_id: user.id };
    const [key, removed] = await Promise.all([
      owner.call("POST", `${V1}/accounts/${account.id}/keys`, { body, expected: [201, 400, 412] }),
      owner.call("DELETE", member, { expected: [204, 409, 412] }),
    ]);
    assert.ok(!(key.status === 201 && removed.status === 204), "a key of somebody who is no member");
  }
  await assertChain();
});
