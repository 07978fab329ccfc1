// What a crash leaves behind: every kind of change fails, or panics, at every step between the database, the objects and
// KV. Afterwards either nothing has happened, or all of it has and what is still to be told to objects and KV is known.
// The same request repeated succeeds, and it has happened once.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { PASSWORD, startAdmin, userWith } from "./admin.mjs";
import { eventually, linesWith, send } from "./support.mjs";

const V1 = "/admin/v1";

/** The steps of a change at which it is interrupted; a kind of change passes those that its effects have. */
const POINTS = {
  "before-commit": ["none", "account", "key", "document"],
  "after-commit": ["none", "account", "key", "document"],
  "before-effect": ["account", "key", "document"],
  "after-object": ["key", "document"],
  "after-effect": ["account", "key", "document"],
};

let admin, owner, db, kv;
before(async () => {
  admin = await startAdmin({ build: "build-test" });
  ({ owner, db, kv } = admin);
});
after(() => admin?.stop());

let count = 0;
const fresh = (name) => `${name}-${++count}`;
const shown = [];

// === What is changed ===

const newAccount = async () => (await owner.post(`${V1}/accounts`, { id: fresh("team"), name: "Team" })).id;
async function newKey() {
  const account = await newAccount();
  const made = await owner.post(`${V1}/accounts/${account}/keys`, { name: "key" });
  shown.push(made.api_key);
  return { account, key: made.api_key, at: `${V1}/accounts/${account}/keys/${made.id}` };
}
const newUser = () =>
  owner.post(`${V1}/users`, { email: `${fresh("person")}@example.com`, name: "Person", password: PASSWORD });
const newRole = async () => (await owner.post(`${V1}/roles`, { name: fresh("Role"), permissions: ["keys:read"] })).id;
const newLimit = async () => {
  const account = await newAccount();
  const { id } = await owner.post(`${V1}/accounts/${account}/limits`, { dimension: "requests", period: "day", amount: 5 });
  return { account, at: `${V1}/accounts/${account}/limits/${id}` };
};
const newCredential = async () => (await owner.post(`${V1}/credentials`, { name: fresh("credential"), value: "a provider's secret" })).id;

/** Whether a key works on the data plane: the status of a request. */
async function use(key) {
  const reply = await send({ url: `${admin.url}/v1/models`, headers: { authorization: `Bearer ${key}` } });
  return reply.status;
}

/**
 * Every kind of change. `request` prepares what is changed and gives the request; `effects` says what it changes outside
 * the database; `works` gives the status that keys must get from the data plane afterwards.
 */
const CHANGES = {
  "create a key": {
    effects: "key",
    request: async () => {
      const account = await newAccount();
      return { account, method: "POST", path: `${V1}/accounts/${account}/keys`, body: { name: "new" } };
    },
    works: (_, reply) => ({ [reply.api_key]: 200 }),
  },
  "disable a key": {
    effects: "key",
    request: async () => {
      const made = await newKey();
      return { ...made, method: "PATCH", path: made.at, body: { disabled: true } };
    },
    works: ({ key }) => ({ [key]: 401 }),
  },
  "rotate a key": {
    effects: "key",
    request: async () => {
      const made = await newKey();
      return { ...made, method: "POST", path: `${made.at}/rotate`, body: {} };
    },
    works: ({ key }, reply) => ({ [key]: 401, [reply.api_key]: 200 }),
  },
  "rotate a key, overlapping": {
    effects: "key",
    request: async () => {
      const made = await newKey();
      return { ...made, method: "POST", path: `${made.at}/rotate`, body: { overlap_seconds: 600 } };
    },
    works: ({ key }, reply) => ({ [key]: 200, [reply.api_key]: 200 }),
  },
  "delete a key": {
    effects: "key",
    request: async () => {
      const made = await newKey();
      return { ...made, method: "DELETE", path: made.at };
    },
    works: ({ key }) => ({ [key]: 401 }),
  },
  "create an account": {
    effects: "account",
    request: async () => {
      const id = fresh("made");
      return { account: id, method: "POST", path: `${V1}/accounts`, body: { id, name: "Made" } };
    },
  },
  "suspend an account": {
    effects: "account",
    request: async () => {
      const made = await newKey();
      return { ...made, method: "PATCH", path: `${V1}/accounts/${made.account}`, body: { status: "suspended" } };
    },
    works: ({ key }) => ({ [key]: 403 }),
  },
  "delete an account": {
    effects: "account",
    request: async () => {
      const account = await newAccount();
      return { account, method: "DELETE", path: `${V1}/accounts/${account}` };
    },
  },
  "create a limit": {
    effects: "account",
    request: async () => {
      const account = await newAccount();
      const body = { dimension: "cost", period: "month", amount: 7 };
      return { account, method: "POST", path: `${V1}/accounts/${account}/limits`, body };
    },
  },
  "change a limit": {
    effects: "account",
    request: async () => {
      const limit = await newLimit();
      return { ...limit, method: "PATCH", path: limit.at, body: { amount: 6 } };
    },
  },
  "delete a limit": {
    effects: "account",
    request: async () => {
      const limit = await newLimit();
      return { ...limit, method: "DELETE", path: limit.at };
    },
  },
  "create a user": {
    effects: "none",
    request: async () => {
      const body = { email: `${fresh("made")}@example.com`, name: "Made", password: PASSWORD };
      return { method: "POST", path: `${V1}/users`, body };
    },
  },
  "disable a user": {
    effects: "none",
    request: async () => ({ method: "PATCH", path: `${V1}/users/${(await newUser()).id}`, body: { status: "disabled" } }),
  },
  "reset a password": {
    effects: "none",
    request: async () => ({ method: "PUT", path: `${V1}/users/${(await newUser()).id}/password`, body: { password: `reset ${PASSWORD}` } }),
  },
  "delete a user": {
    effects: "none",
    request: async () => ({ method: "DELETE", path: `${V1}/users/${(await newUser()).id}` }),
  },
  "delete a user who has limits": {
    effects: "account",
    request: async () => {
      const [account, { id }] = [await newAccount(), await newUser()];
      await owner.put(`${V1}/accounts/${account}/members/${id}`, { role_id: "viewer" });
      await owner.post(`${V1}/accounts/${account}/limits`, { user_id: id, dimension: "requests", period: "day", amount: 5 });
      return { account, method: "DELETE", path: `${V1}/users/${id}` };
    },
  },
  "change one's own password": {
    effects: "none",
    request: async () => {
      const caller = await userWith(owner, "viewer");
      return { caller, method: "PUT", path: `${V1}/me/password`, body: { current: PASSWORD, new: `changed ${PASSWORD}` } };
    },
  },
  "end a user's sessions": {
    effects: "none",
    request: async () => {
      const { user } = await userWith(owner, "viewer");
      return { method: "DELETE", path: `${V1}/users/${user.id}/sessions` };
    },
  },
  "create a service token": {
    effects: "none",
    request: async () => {
      const { id } = await owner.post(`${V1}/users`, { kind: "service", name: "Robot" });
      return { method: "POST", path: `${V1}/users/${id}/tokens`, body: { name: "token" } };
    },
  },
  "revoke a service token": {
    effects: "none",
    request: async () => {
      const { id } = await owner.post(`${V1}/users`, { kind: "service", name: "Robot" });
      const token = await owner.post(`${V1}/users/${id}/tokens`, { name: "token" });
      return { method: "DELETE", path: `${V1}/users/${id}/tokens/${token.id}` };
    },
  },
  "create a role": {
    effects: "none",
    request: async () => ({ method: "POST", path: `${V1}/roles`, body: { name: fresh("Made"), permissions: ["keys:read"] } }),
  },
  "change a role": {
    effects: "none",
    request: async () => ({ method: "PATCH", path: `${V1}/roles/${await newRole()}`, body: { permissions: ["users:read", "keys:write"] } }),
  },
  "delete a role": {
    effects: "none",
    request: async () => ({ method: "DELETE", path: `${V1}/roles/${await newRole()}` }),
  },
  "grant a role": {
    effects: "none",
    request: async () => ({ method: "PUT", path: `${V1}/users/${(await newUser()).id}/roles/viewer` }),
  },
  "withdraw a role": {
    effects: "none",
    request: async () => {
      const path = `${V1}/users/${(await newUser()).id}/roles/viewer`;
      await owner.put(path);
      return { method: "DELETE", path };
    },
  },
  "add a member": {
    effects: "none",
    request: async () => {
      const [account, { id }] = [await newAccount(), await newUser()];
      return { account, method: "PUT", path: `${V1}/accounts/${account}/members/${id}`, body: { role_id: "developer" } };
    },
  },
  "remove a member": {
    effects: "none",
    request: async () => {
      const [account, { id }] = [await newAccount(), await newUser()];
      const path = `${V1}/accounts/${account}/members/${id}`;
      await owner.put(path, { role_id: "developer" });
      return { account, method: "DELETE", path };
    },
  },
  "create a credential": {
    effects: "document",
    request: async () => ({ method: "POST", path: `${V1}/credentials`, body: { name: fresh("made"), value: "another provider's secret" } }),
  },
  "replace a credential": {
    effects: "document",
    request: async () => ({ method: "PUT", path: `${V1}/credentials/${await newCredential()}`, body: { name: fresh("replaced"), value: "a newer secret" } }),
  },
  "delete a credential": {
    effects: "document",
    request: async () => ({ method: "DELETE", path: `${V1}/credentials/${await newCredential()}` }),
  },
  "change the draft's settings": {
    effects: "none",
    request: async () => ({ method: "PATCH", path: `${V1}/settings`, body: { http: { max_json_depth: 20 + (++count % 40) } } }),
  },
  "publish the configuration": {
    effects: "document",
    request: async () => {
      await owner.patch(`${V1}/settings`, { http: { max_body_bytes: 2_000_000 + ++count } });
      return { method: "POST", path: `${V1}/config/publish`, body: { comment: fresh("publish") } };
    },
  },
};

// === What is looked at ===

/** Tables that say what is, as opposed to what happened or is under way. */
async function things() {
  const passing = ["d1_migrations", "sign_in_attempts", "audit_log", "idempotency_keys", "outbox"];
  const all = (await db.prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB '_cf*' AND name NOT GLOB 'sqlite*'").all()).results;
  const names = all.map((table) => table.name).filter((name) => !passing.includes(name) && !/^(usage|request_records)/.test(name));
  const answers = await db.batch(names.map((name) => db.prepare(`SELECT * FROM "${name}"`)));
  return JSON.stringify(names.map((name, at) => [name, answers[at].results]));
}

/** How many entries are in the audit log, the outbox, and the memory of idempotency keys. */
async function traces() {
  const counts = await db.batch(
    ["audit_log", "outbox", "idempotency_keys"].map((name) => db.prepare(`SELECT COUNT(*) AS n FROM ${name}`)),
  );
  const [audit, outbox, idempotency] = counts.map((answer) => answer.results[0].n);
  return { audit, outbox, idempotency };
}

const ledgerOf = async (account, method, path, body) =>
  (await (await admin.object("LEDGER", account)).fetch(`https://object${path}`, { method, body: body && JSON.stringify(body) })).json();

/** That KV and the objects tell what the database says. */
async function assertAgreement(account) {
  const rows = (
    await db.prepare("SELECT s.public_id, s.hash, k.account_id, k.disabled, k.revision FROM api_key_secrets s JOIN api_keys k ON k.id = s.key_id").all()
  ).results;
  const names = [];
  for (let cursor; ; ) {
    const page = await kv.list({ prefix: "key:", cursor });
    names.push(...page.keys.map((one) => one.name.slice(4)));
    if (page.list_complete) break;
    cursor = page.cursor;
  }
  assert.deepEqual(names.sort(), rows.map((row) => row.public_id).sort(), "KV has the keys that the database has");
  for (const row of rows.filter((row) => row.account_id === account)) {
    const record = await kv.get(`key:${row.public_id}`, "json");
    const told = [record.hash, record.account, record.disabled, record.revision];
    assert.deepEqual(told, [row.hash, account, row.disabled === 1, row.revision]);
    const { verdict } = await ledgerOf(account, "POST", "/check", { public_id: row.public_id, revision: row.revision });
    assert.equal(verdict, "current");
  }
  const credentials = (await db.prepare("SELECT id, sealed, revision FROM provider_credentials ORDER BY id").all()).results;
  const sealed = Object.entries((await kv.get("credentials", "json")) ?? {}).map(([id, one]) => ({ id, sealed: one.sealed, revision: one.revision }));
  assert.deepEqual(sealed.sort((a, b) => (a.id < b.id ? -1 : 1)), credentials);
  const version = await db.prepare("SELECT version FROM config_versions ORDER BY sequence DESC LIMIT 1").first();
  assert.equal((await kv.get("config:current", "json"))?.version, version?.version);
}

/** That the account's ledger has the limits and the status that the database has. */
async function assertLedger(account) {
  const status = await ledgerOf(account, "GET", "/status");
  const row = await db.prepare("SELECT status FROM accounts WHERE id = ?").bind(account).first();
  assert.equal(status.suspended, row === null || row.status === "suspended", JSON.stringify(status));
}

// === The matrix ===

const matrix = {};

for (const [name, change] of Object.entries(CHANGES)) {
  test(name, async () => {
    matrix[name] = {};
    for (const [point, effects] of Object.entries(POINTS)) {
      if (!effects.includes(change.effects)) continue;
      for (const how of ["error", "panic"]) {
        const column = `${point}${how === "panic" ? "!" : ""}`;
        matrix[name][column] = "failed";
        matrix[name][column] = await interrupt(change, point, how, `${name}, ${how} at ${point}`);
      }
    }
  });
}

/** Interrupts a change, looks at what is left of it, and repeats it. Tells in short what came of it. */
async function interrupt(change, point, how, what) {
  const { caller = owner, account, method, path, body, ...state } = await change.request();
  const headers = { "idempotency-key": fresh("attempt") };
  const [before, thingsBefore] = [await traces(), await things()];
  assert.equal(before.outbox, 0, `${what}: nothing is left over from before`);

  const fault = `${point}${how === "panic" ? "!" : ""}`;
  const first = await caller.call(method, path, { body, headers: { ...headers, "x-test-fault": fault } });
  const [broken, thingsBroken] = [await traces(), await things()];
  const committed = point !== "before-commit";
  if (how === "panic" || point.endsWith("-commit")) assert.equal(first.status, 500, `${what}: ${first.text}`);
  if (!committed) {
    assert.deepEqual([broken, thingsBroken], [before, thingsBefore], `${what}: no trace at all`);
  } else {
    const grown = { audit: broken.audit - before.audit, idempotency: broken.idempotency - before.idempotency };
    assert.deepEqual(grown, { audit: 1, idempotency: 1 }, `${what}: all of it`);
    assert.equal(broken.outbox > 0, change.effects !== "none", `${what}: what is still to be told is known`);
    if (how === "error" && !point.endsWith("-commit")) {
      // Whoever creates something gets it, and is told that it takes a moment; whoever revokes something must know.
      if (first.status === 201) assert.equal(first.headers["x-gateway-propagation"], "pending", what);
      else assert.deepEqual([first.status, first.data.code], [503, "propagation_pending"], what);
    }
  }

  // After an error the caller repeats the request; after a crash the gateway has looked after itself before that.
  if (how === "panic" && committed) {
    await admin.scheduled();
    assert.equal((await traces()).outbox, 0, `${what}: the cron has delivered it`);
    await assertAgreement(account);
  }
  const again = await caller.call(method, path, { body, headers, expected: [200, 201, 204] });
  assert.equal(again.headers["idempotency-replayed"], committed ? "true" : undefined, what);
  if (first.status === 201) assert.deepEqual(again.data, first.data, `${what}: the same answer, the same secret`);
  const [done, thingsDone] = [await traces(), await things()];
  const expected = { audit: before.audit + 1, outbox: 0, idempotency: before.idempotency + 1 };
  assert.deepEqual(done, expected, `${what}: it has happened once, and nothing is left to do`);
  if (committed) assert.equal(thingsDone, thingsBroken, `${what}: repeating it changed nothing`);
  else assert.ok(thingsDone !== thingsBefore || path.includes("token"), `${what}: it has happened`);
  await assertAgreement(account);
  if (change.effects === "account" || change.effects === "key") await assertLedger(account);

  const third = await caller.call(method, path, { body, headers, expected: again.status });
  assert.deepEqual([third.data, third.etag], [again.data, again.etag], what);
  assert.equal((await traces()).audit, done.audit, what);
  for (const secret of [again.data?.api_key, again.data?.token]) if (secret) shown.push(secret);
  for (const [key, status] of Object.entries(change.works?.(state, again.data) ?? {})) {
    assert.equal(await use(key), status, `${what}: the data plane`);
  }
  return `${first.status}${committed ? "" : "-"} ${again.status}`;
}

test("a published configuration that was interrupted is the one in use", async () => {
  const { version } = await db.prepare("SELECT version FROM config_versions ORDER BY sequence DESC LIMIT 1").first();
  const inUse = async (seen) => {
    const reply = await send({ url: `${admin.url}/v1/models`, headers: { authorization: `Bearer ${shown.at(-1)}` } });
    seen(reply.headers["x-gateway-config-version"]);
    return reply.headers["x-gateway-config-version"] === version;
  };
  await eventually(inUse, "the version is in use", { timeout: 3_000 });
});

test("the audit log has no holes, and no secret is anywhere", async () => {
  const { n, last } = await db.prepare("SELECT COUNT(*) AS n, MAX(sequence) AS last FROM audit_log").first();
  assert.equal(n, last);
  const verified = await owner.get(`${V1}/audit/verify`);
  assert.equal(verified.broken_at, null, JSON.stringify(verified));
  assert.deepEqual(linesWith([...shown, PASSWORD, "a provider's secret", "a newer secret"], [await things(), ...admin.logs]), []);
  const passing = await db.batch(["audit_log", "idempotency_keys"].map((name) => db.prepare(`SELECT * FROM ${name}`)));
  assert.deepEqual(linesWith([...shown, PASSWORD], passing.map((answer) => JSON.stringify(answer.results))), []);
});

after(() => {
  const columns = Object.keys(POINTS).flatMap((point) => [point, `${point}!`]);
  const width = Math.max(...Object.keys(matrix).map((name) => name.length));
  const line = (name, cells) => `${name.padEnd(width)}  ${cells.map((cell, nth) => (cell ?? "").padEnd(columns[nth].length)).join("  ")}`;
  const lines = Object.entries(matrix).map(([name, cells]) => line(name, columns.map((column) => cells[column])));
  const cases = Object.values(matrix).reduce((sum, cells) => sum + Object.keys(cells).length, 0);
  console.log(
    `${cases} interruptions: the status of the request that was interrupted (-: no trace of it) and of the one repeated; !: a panic\n` +
      [line("", columns), ...lines].join("\n"),
  );
});
