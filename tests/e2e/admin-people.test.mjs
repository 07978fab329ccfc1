// Accounts, users, members, roles and limits of the admin API: each one's whole life, what is refused and how that is
// told, and that what callers send comes back as it was.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { BOOTSTRAP_TOKEN, MASTER_SECRET, PASSWORD, startAdmin, userWith } from "./admin.mjs";
import { KEY_HASH_SECRET, linesWith, open, send, sleep } from "./support.mjs";

let admin, owner, dripping;
before(async () => {
  admin = await startAdmin();
  owner = admin.owner;
  dripping = drip();
});
after(() => admin?.stop());

const V1 = "/admin/v1";
const paths = (reply) => reply.data.errors.map((error) => error.path).sort();

/** Names and texts that a careless program would trip over. */
const AWKWARD = [
  "Robert'); DROP TABLE users;--",
  `" OR "" = "`,
  "' OR '1'='1' /*",
  "%_\\%00\\u0000 ?1 :name @x $y",
  "汉字 ひらがな Ώ é é \u202egnitirw\u202c",
  "👩‍👩‍👧‍👦 🏳️‍🌈 \u{10ffff}\u200b",
  "line\nbreak\ttab\u0001",
  "<script>alert(1)</script> {{7*7}} ${x}",
  "__proto__",
  " leading and trailing ",
];

/** Sends a body that never pauses for long, but takes its time; it runs beside the tests. */
async function drip() {
  async function* body() {
    yield '{"name":"A"';
    for (let n = 0; n < 50; n += 1) {
      await sleep(1_000);
      yield " ";
    }
    yield "}";
  }
  const began = performance.now();
  const reply = await slowly(owner, "POST", `${V1}/accounts`, body());
  const ms = performance.now() - began;
  reply.reset();
  return { status: reply.status, ms };
}

/** A call whose body comes piece by piece. */
const slowly = (caller, method, path, body) =>
  open({
    url: `${caller.url}${path}`,
    method,
    headers: { "content-type": "application/json", authorization: `Bearer ${caller.token}` },
    body,
    fresh: true,
  });

let count = 0;
const fresh = (name) => `${name}-${process.pid}-${++count}`;
const newUser = (more = {}) =>
  owner.post(`${V1}/users`, { email: `${fresh("person")}@example.com`, name: "Person", password: PASSWORD, ...more });
const newAccount = (more = {}) => owner.post(`${V1}/accounts`, { name: "Team", ...more });

/** The audit log's entries about something, oldest first. */
const audited = async (id) =>
  (await admin.db.prepare("SELECT action, outcome FROM audit_log WHERE target_id = ? ORDER BY sequence").bind(id).all())
    .results.map((entry) => `${entry.action} ${entry.outcome}`);

describe("a user", () => {
  test("is created, seen, found, changed, disabled, deleted, and then gone", async () => {
    const email = `${fresh("Ada.Lovelace")}@Example.COM`;
    const body = { email: ` ${email} `, name: "Ada", password: PASSWORD, metadata: { team: "one", floor: "2" } };
    const made = await owner.call("POST", `${V1}/users`, { body, expected: 201 });
    assert.equal(made.etag, '"1"');
    const user = made.data;
    assert.match(user.id, /^usr_[0-9A-Za-z]{22}$/);
    assert.deepEqual(
      [user.email, user.kind, user.status, user.must_change_password, user.revision, user.last_sign_in_at],
      [email.toLowerCase(), "human", "active", true, 1, null],
    );
    assert.ok(!/argon2|password_hash/.test(made.text) && !made.text.includes(PASSWORD));
    const at = `${V1}/users/${user.id}`;
    assert.deepEqual(await owner.get(at), user);

    const found = async (query) => (await owner.all(`${V1}/users?${new URLSearchParams(query)}`)).map((one) => one.id);
    assert.deepEqual(await found({ email: email.toUpperCase() }), [user.id]);
    assert.deepEqual(await found({ email, kind: "human", status: "active" }), [user.id]);
    for (const query of [{ email, kind: "service" }, { email, status: "disabled" }, { email: "' OR 1=1 --" }]) {
      assert.deepEqual(await found(query), []);
    }

    const changed = await owner.call("PATCH", at, {
      body: { name: "Ada King", metadata: { floor: null, room: "7" } },
      expected: 200,
    });
    assert.equal(changed.etag, '"2"');
    assert.deepEqual([changed.data.name, changed.data.metadata], ["Ada King", { team: "one", room: "7" }]);
    assert.deepEqual((await owner.patch(at, { metadata: null })).metadata, {}, "null is the default");
    assert.deepEqual(paths(await owner.call("PATCH", at, { body: { name: null }, expected: 400 })), ["name"]);
    const fixed = { id: "x", email: "y@example.com", kind: "service", revision: 1, password: "z", created_at: 1 };
    const refused = await owner.call("PATCH", at, { body: fixed, expected: 400 });
    assert.deepEqual(paths(refused), Object.keys(fixed).sort());

    const caller = await admin.nobody.signIn(email);
    await owner.patch(at, { status: "disabled" });
    await caller.call("GET", `${V1}/me`, { expected: 401 });
    await admin.nobody.call("POST", `${V1}/auth/sign-in`, { body: { email, password: PASSWORD }, expected: 401 });
    await owner.delete(at);
    for (const [method, body] of [["GET"], ["PATCH", { name: "x" }], ["DELETE"]]) {
      await owner.call(method, at, { body, expected: 404 });
    }
    await owner.call("PUT", `${at}/password`, { body: { password: PASSWORD }, expected: 404 });
    await owner.call("GET", `${at}/roles`, { expected: 404 });
    await admin.nobody.call("POST", `${V1}/auth/sign-in`, { body: { email, password: PASSWORD }, expected: 401 });
    const expected = ["users:create done", ...Array(3).fill("users:update done"), "users:delete done"];
    assert.deepEqual(await audited(user.id), expected);
  });

  test("has an e-mail address that nobody else has, however it is written", async () => {
    const { email } = await newUser();
    const body = { email: email.toUpperCase(), name: "Twin", password: PASSWORD };
    const reply = await owner.call("POST", `${V1}/users`, { body, expected: 409 });
    assert.deepEqual([reply.data.code, paths(reply)], ["already_exists", ["email"]]);
  });

  test("that is a program has neither address nor password", async () => {
    const robot = await owner.post(`${V1}/users`, { kind: "service", name: "Robot" });
    assert.deepEqual([robot.email, robot.must_change_password], [null, false]);
    const both = { kind: "service", name: "Robot", email: "robot@example.com", password: PASSWORD };
    const reply = await owner.call("POST", `${V1}/users`, { body: both, expected: 400 });
    assert.deepEqual(paths(reply), ["email", "password"]);
    const reset = { password: PASSWORD };
    await owner.call("PUT", `${V1}/users/${robot.id}/password`, { body: reset, expected: 400 });
  });

  test("cannot be deleted while a key is the user's, nor leave the account", async () => {
    const [user, account] = [await newUser(), await newAccount()];
    const at = `${V1}/accounts/${account.id}`;
    const body = { name: "k", user_id: user.id };
    const stranger = await owner.call("POST", `${at}/keys`, { body, expected: 400 });
    assert.deepEqual(paths(stranger), ["user_id"], "a key's user must be a member");
    await owner.put(`${at}/members/${user.id}`, { role_id: "developer" });
    const { id } = await owner.post(`${at}/keys`, body);
    await owner.post(`${at}/limits`, { user_id: user.id, dimension: "requests", period: "minute", amount: 5 });
    assert.equal((await owner.call("DELETE", `${V1}/users/${user.id}`, { expected: 409 })).data.code, "in_use");
    assert.equal((await owner.call("DELETE", `${at}/members/${user.id}`, { expected: 409 })).data.code, "in_use");
    await owner.delete(`${at}/keys/${id}`);
    await owner.delete(`${V1}/users/${user.id}`);
    assert.deepEqual(await owner.all(`${at}/members`), []);
    assert.deepEqual(await owner.all(`${at}/limits`), [], "limits of a user go with the user");
    const ledger = await (await (await admin.object("LEDGER", account.id)).fetch("https://object/status")).json();
    assert.ok(!JSON.stringify(ledger).includes(user.id));
  });

  test("is told everything that is wrong at once, and where", async () => {
    const wrong = { email: 5, name: "", kind: "robot", status: 1, metadata: { a: 1, b: null }, extra: true };
    const form = await owner.call("POST", `${V1}/users`, { body: wrong, expected: 400 });
    assert.deepEqual(paths(form), ["email", "extra", "kind", "metadata.a", "metadata.b", "name", "status"]);
    const odd = { email: "no address", name: "N", password: "short", metadata: { ["k".repeat(65)]: "v", v: "x".repeat(513) } };
    const sense = await owner.call("POST", `${V1}/users`, { body: odd, expected: 400 });
    assert.deepEqual(paths(sense), ["email", `metadata.${"k".repeat(65)}`, "metadata.v", "password"]);
    const nothing = await owner.call("POST", `${V1}/users`, { body: { name: "N" }, expected: 400 });
    assert.deepEqual(paths(nothing), ["email", "password"]);
  });

  test("does not change the password of his own session's user without knowing it", async () => {
    const boss = await userWith(owner, "admin");
    const body = { password: "what a thief of the session would like" };
    const reply = await boss.call("PUT", `${V1}/users/${boss.user.id}/password`, { body, expected: 409 });
    assert.equal(reply.data.code, "own_user");
    await boss.get(`${V1}/me`);
  });

  test("must really change a password that somebody else has set", async () => {
    const user = await newUser();
    const caller = await admin.nobody.signIn(user.email);
    const same = { current: PASSWORD, new: PASSWORD };
    const reply = await caller.call("PUT", `${V1}/me/password`, { body: same, expected: 400 });
    assert.deepEqual(paths(reply), ["new"]);
    await caller.call("GET", `${V1}/accounts`, { expected: 403 });
  });

  test("changes nothing but the own name", async () => {
    const who = await userWith(owner, "viewer");
    assert.equal((await who.patch(`${V1}/me`, { name: "Renamed" })).name, "Renamed");
    for (const body of [{ name: "x", status: "disabled" }, { name: "x", must_change_password: false }, { name: null }]) {
      await who.call("PATCH", `${V1}/me`, { body, expected: 400 });
    }
  });
});

describe("an account", () => {
  test("is created, seen, changed, suspended, deleted, and then gone", async () => {
    const id = fresh("team.A_1");
    const made = await owner.call("POST", `${V1}/accounts`, { body: { id, name: "A" }, expected: 201 });
    assert.deepEqual([made.data.id, made.data.status, made.etag], [id, "active", '"1"']);
    assert.match((await newAccount()).id, /^acc_[0-9A-Za-z]{22}$/);
    const again = await owner.call("POST", `${V1}/accounts`, { body: { id, name: "B" }, expected: 409 });
    assert.deepEqual(paths(again), ["id"]);
    const at = `${V1}/accounts/${id}`;
    const changed = await owner.patch(at, { name: "AA", status: "suspended", metadata: { cost_centre: "7" } });
    assert.deepEqual([changed.name, changed.status, changed.metadata], ["AA", "suspended", { cost_centre: "7" }]);
    assert.equal((await owner.patch(at, { status: null })).status, "active", "null is the default");
    assert.deepEqual(paths(await owner.call("PATCH", at, { body: { id: "other" }, expected: 400 })), ["id"]);
    const big = { metadata: Object.fromEntries(Array.from({ length: 65 }, (_, n) => [`k${n}`, "v"])) };
    assert.deepEqual(paths(await owner.call("PATCH", at, { body: big, expected: 400 })), ["metadata"]);
    await owner.delete(at);
    for (const [method, where, body] of [
      ["GET", at], ["PATCH", at, { name: "x" }], ["DELETE", at], ["GET", `${at}/members`], ["GET", `${at}/keys`],
      ["GET", `${at}/limits`], ["POST", `${at}/keys`, { name: "k" }],
      ["POST", `${at}/limits`, { dimension: "requests", period: "day", amount: 1 }],
    ]) {
      await owner.call(method, where, { body, expected: 404 });
    }
  });

  test("has an id that can stand in a path", async () => {
    for (const id of ["", "-a", "a b", "a/b", "../x", "ä", "a:b", "x".repeat(65), "a\n"]) {
      const reply = await owner.call("POST", `${V1}/accounts`, { body: { id, name: "A" }, expected: 400 });
      assert.deepEqual(paths(reply), ["id"], JSON.stringify(id));
    }
  });

  test("that has keys stays", async () => {
    const { id } = await newAccount();
    const key = await owner.post(`${V1}/accounts/${id}/keys`, { name: "k" });
    const reply = await owner.call("DELETE", `${V1}/accounts/${id}`, { expected: 409 });
    assert.equal(reply.data.code, "in_use");
    await owner.get(`${V1}/accounts/${id}`);
    await owner.delete(`${V1}/accounts/${id}/keys/${key.id}`);
    await owner.delete(`${V1}/accounts/${id}`);
  });

  test("lists only to those who belong to it", async () => {
    const [a, b] = [await newAccount(), await newAccount()];
    const who = await userWith(owner, "viewer", a.id);
    assert.deepEqual((await who.all(`${V1}/accounts`)).map((one) => one.id), [a.id]);
    const hidden = await who.call("GET", `${V1}/accounts/${b.id}`, { expected: 404 });
    const absent = await who.call("GET", `${V1}/accounts/${"x".repeat(b.id.length)}`, { expected: 404 });
    const told = (reply, id) => ({ ...reply.data, request_id: "", detail: reply.data.detail.replace(id, "") });
    assert.deepEqual(told(hidden, b.id), told(absent, "x".repeat(b.id.length)), "as if there were none");
  });

  test("keeps its things to itself: what belongs to another is not found in it", async () => {
    const [a, b] = [await newAccount(), await newAccount()];
    const lead = await userWith(owner, "admin", a.id);
    const key = await owner.post(`${V1}/accounts/${b.id}/keys`, { name: "k" });
    const limit = await owner.post(`${V1}/accounts/${b.id}/limits`, { dimension: "cost", period: "day", amount: 1 });
    const member = await userWith(owner, "viewer", b.id);
    for (const [method, where, body] of [
      ["GET", `keys/${key.id}`], ["PATCH", `keys/${key.id}`, { name: "x" }], ["DELETE", `keys/${key.id}`],
      ["POST", `keys/${key.id}/rotate`, {}], ["GET", `limits/${limit.id}`], ["PATCH", `limits/${limit.id}`, { amount: 9 }],
      ["DELETE", `limits/${limit.id}`], ["GET", `members/${member.user.id}`], ["DELETE", `members/${member.user.id}`],
    ]) {
      await lead.call(method, `${V1}/accounts/${a.id}/${where}`, { body, expected: 404 });
      await lead.call(method, `${V1}/accounts/${b.id}/${where}`, { body, expected: 404 });
    }
    const mine = `${V1}/accounts/${a.id}`;
    const terms = { dimension: "requests", period: "day", amount: 1 };
    for (const more of [{ key_id: key.id }, { user_id: member.user.id }]) {
      const reply = await lead.call("POST", `${mine}/limits`, { body: { ...terms, ...more }, expected: 400 });
      assert.deepEqual(paths(reply), Object.keys(more));
    }
    await lead.call("POST", `${mine}/keys`, { body: { name: "k", user_id: member.user.id }, expected: 400 });
    const own = await lead.post(`${mine}/keys`, { name: "k" });
    await lead.call("PATCH", `${mine}/keys/${own.id}`, { body: { user_id: member.user.id }, expected: 400 });
    const ownLimit = await lead.post(`${mine}/limits`, terms);
    await lead.call("PATCH", `${mine}/limits/${ownLimit.id}`, { body: { key_id: key.id }, expected: 400 });
    assert.equal((await owner.get(`${V1}/accounts/${b.id}/keys/${key.id}`)).revision, 1);
  });
});

describe("a member", () => {
  test("is added, seen, given another role, removed, and then gone", async () => {
    const [account, user] = [await newAccount(), await newUser({ name: "Mem Ber" })];
    const at = `${V1}/accounts/${account.id}/members/${user.id}`;
    await owner.call("GET", at, { expected: 404 });
    const added = await owner.call("PUT", at, { body: { role_id: "viewer" }, expected: 200 });
    assert.equal(added.etag, '"1"');
    assert.deepEqual([added.data.name, added.data.email, added.data.role_id], ["Mem Ber", user.email, "viewer"]);
    const changed = await owner.call("PUT", at, { body: { role_id: "developer" }, headers: { "if-match": '"1"' }, expected: 200 });
    assert.deepEqual([changed.etag, changed.data.created_at], ['"2"', added.data.created_at]);
    await owner.call("PUT", at, { body: { role_id: "viewer" }, headers: { "if-match": '"1"' }, expected: 412 });
    assert.deepEqual(await owner.all(`${V1}/accounts/${account.id}/members`), [changed.data]);
    assert.deepEqual(paths(await owner.call("PUT", at, { body: { role: "viewer" }, expected: 400 })), ["role", "role_id"]);
    await owner.call("PUT", at, { body: { role_id: "nothing" }, expected: 404 });
    await owner.call("PUT", `${V1}/accounts/${account.id}/members/usr_nobody`, { body: { role_id: "viewer" }, expected: 404 });
    await owner.delete(at);
    for (const method of ["GET", "DELETE"]) await owner.call(method, at, { expected: 404 });
    assert.deepEqual(await audited(user.id), ["users:create done", "members:put done", "members:put done", "members:remove done"]);
  });

  test("that is not there matches no ETag", async () => {
    const [account, user] = [await newAccount(), await newUser()];
    const at = `${V1}/accounts/${account.id}/members/${user.id}`;
    for (const tag of ["*", '"1"']) {
      await owner.call("PUT", at, { body: { role_id: "viewer" }, headers: { "if-match": tag }, expected: 412 });
    }
    await owner.call("GET", at, { expected: 404 });
  });
});

describe("a role", () => {
  test("is created, seen, changed, granted, withdrawn, deleted, and then gone", async () => {
    const name = fresh("Key clerk");
    const body = { name, permissions: ["keys:write", "keys:read", "keys:read"] };
    const made = await owner.call("POST", `${V1}/roles`, { body, expected: 201 });
    const role = made.data;
    assert.match(role.id, /^rol_[0-9A-Za-z]{22}$/);
    assert.deepEqual([role.permissions, role.built_in, made.etag], [["keys:read", "keys:write"], false, '"1"']);
    const again = await owner.call("POST", `${V1}/roles`, { body, expected: 409 });
    assert.deepEqual(paths(again), ["name"]);
    const unknown = await owner.call("POST", `${V1}/roles`, { body: { name: "x", permissions: ["keys:eat"] }, expected: 400 });
    assert.deepEqual(paths(unknown), ["permissions[0]"]);
    const at = `${V1}/roles/${role.id}`;
    const changed = await owner.patch(at, { permissions: ["accounts:read"], description: "d" });
    assert.deepEqual([changed.permissions, changed.description, changed.name], [["accounts:read"], "d", name]);
    assert.deepEqual(await owner.get(at), changed);
    assert.equal((await owner.patch(at, { description: null })).description, "");

    const user = await newUser();
    const grant = `${V1}/users/${user.id}/roles/${role.id}`;
    const granted = await owner.put(grant);
    assert.deepEqual(await owner.put(grant), granted, "twice is once");
    assert.deepEqual((await owner.get(`${V1}/users/${user.id}/roles`)).data, [granted]);
    assert.equal((await owner.call("DELETE", at, { expected: 409 })).data.code, "in_use");
    await owner.delete(grant);
    await owner.call("DELETE", grant, { expected: 404 });
    await owner.delete(at);
    for (const [method, body] of [["GET"], ["PATCH", { name: "x" }], ["DELETE"]]) {
      await owner.call(method, at, { body, expected: 404 });
    }
    await owner.call("PUT", grant, { expected: 404 });
  });

  test("that is built in cannot be changed", async () => {
    for (const id of ["owner", "admin", "operator", "developer", "auditor", "viewer"]) {
      await owner.call("PATCH", `${V1}/roles/${id}`, { body: { permissions: [] }, expected: 409 });
      await owner.call("DELETE", `${V1}/roles/${id}`, { expected: 409 });
    }
  });

  test("of owner always has somebody: of two who disable each other at the same time one remains", async (t) => {
    const there = await startAdmin();
    t.after(() => there.stop());
    const [first, second] = [there.owner, await userWith(there.owner, "owner")];
    // Both have been let in when the bodies end.
    let finish;
    const rest = new Promise((resolve) => (finish = resolve));
    async function* body() {
      yield '{"status":';
      await rest;
      yield '"disabled"}';
    }
    const against = (caller, user) => slowly(caller, "PATCH", `${V1}/users/${user}`, body());
    const replies = [against(first, second.user.id), against(second, (await first.get(`${V1}/me`)).id)];
    await sleep(500);
    finish();
    const statuses = (await Promise.all(replies)).map((reply) => (reply.body.resume(), reply.status));
    assert.deepEqual(statuses.sort(), [200, 412]);
  });
});

describe("a limit", () => {
  let at;
  before(async () => (at = `${V1}/accounts/${(await newAccount()).id}`));

  test("is created, seen, changed, deleted, and then gone", async () => {
    const terms = { dimension: "total_tokens", period: "minute", amount: 1000, burst: 50, model: "gpt-test" };
    const made = await owner.call("POST", `${at}/limits`, { body: terms, expected: 201 });
    const limit = made.data;
    assert.match(limit.id, /^lim_[0-9A-Za-z]{22}$/);
    assert.deepEqual([limit.mode, limit.user_id, limit.key_id, made.etag], ["enforce", null, null, '"1"']);
    const one = `${at}/limits/${limit.id}`;
    const changed = await owner.patch(one, { model: null, burst: null, amount: 9007199254740991, mode: "shadow" });
    assert.deepEqual([changed.model, changed.burst, changed.amount, changed.mode], [null, null, 9007199254740991, "shadow"]);
    assert.deepEqual(await owner.get(one), changed);
    await owner.delete(one);
    for (const [method, body] of [["GET"], ["PATCH", { amount: 1 }], ["DELETE"]]) {
      await owner.call(method, one, { body, expected: 404 });
    }
  });

  test("makes sense, or everything that does not is told at once", async () => {
    const wrong = { dimension: "luck", period: "aeon", amount: -1, burst: 0, model: "", mode: "off" };
    const form = await owner.call("POST", `${at}/limits`, { body: wrong, expected: 400 });
    assert.deepEqual(paths(form), Object.keys(wrong).sort());
    for (const amount of [1.5, 9007199254740992, 1e300, "5", null]) {
      const body = { dimension: "requests", period: "day", amount };
      assert.deepEqual(paths(await owner.call("POST", `${at}/limits`, { body, expected: 400 })), ["amount"], amount);
    }
    const odd = { dimension: "concurrency", period: "day", amount: 1, burst: 5, user_id: "a", key_id: "b" };
    const sense = await owner.call("POST", `${at}/limits`, { body: odd, expected: 400 });
    assert.deepEqual(paths(sense), ["burst", "key_id", "period"]);
    const limit = await owner.post(`${at}/limits`, { dimension: "requests", period: "second", amount: 1, burst: 2 });
    const period = await owner.call("PATCH", `${at}/limits/${limit.id}`, { body: { period: "day" }, expected: 400 });
    assert.deepEqual(paths(period), ["burst"], "the whole must make sense after the change");
  });

  test("is the only one of its kind", async () => {
    const model = "gpt-only";
    const daily = await owner.post(`${at}/limits`, { dimension: "cost", period: "day", amount: 5, model });
    const monthly = await owner.post(`${at}/limits`, { dimension: "cost", period: "month", amount: 5, model });
    const again = await owner.call("POST", `${at}/limits`, {
      body: { dimension: "cost", period: "day", amount: 9, burst: null, mode: "shadow", model },
      expected: 409,
    });
    assert.deepEqual([again.data.code, again.data.detail.includes(daily.id)], ["already_exists", true]);
    const moved = await owner.call("PATCH", `${at}/limits/${monthly.id}`, { body: { period: "day" }, expected: 409 });
    assert.ok(moved.data.detail.includes(daily.id), moved.data.detail);
    await owner.patch(`${at}/limits/${daily.id}`, { amount: 6 });
    await owner.delete(`${at}/limits/${daily.id}`);
    assert.equal((await owner.patch(`${at}/limits/${monthly.id}`, { period: "day" })).period, "day");
  });

  test("of a key is made with it and goes with it", async () => {
    const limits = [{ dimension: "cost", period: "month", amount: 5_000_000_000 }, { dimension: "concurrency", period: "none", amount: 3 }];
    const key = await owner.post(`${at}/keys`, { name: "k", limits });
    const mine = async () => (await owner.all(`${at}/limits`)).filter((limit) => limit.key_id === key.id);
    assert.deepEqual((await mine()).map((limit) => limit.amount).sort(), [3, 5_000_000_000]);
    const wrong = { name: "k", limits: [limits[0], { dimension: "cost", period: "none", amount: 1, burst: 1 }, { ...limits[1], ammount: 1 }] };
    const reply = await owner.call("POST", `${at}/keys`, { body: wrong, expected: 400 });
    assert.deepEqual(paths(reply), ["limits[2].ammount"], "what the description says comes first");
    wrong.limits.pop();
    const twice = await owner.call("POST", `${at}/keys`, { body: { name: "k", limits: [limits[0], limits[0]] }, expected: 400 });
    assert.deepEqual(paths(twice), ["limits[1]"]);
    const sense = await owner.call("POST", `${at}/keys`, { body: wrong, expected: 400 });
    assert.deepEqual(paths(sense), ["limits[1].burst", "limits[1].period"]);
    await owner.delete(`${at}/keys/${key.id}`);
    assert.deepEqual(await mine(), []);
  });
});

describe("ETags", () => {
  test("tell whether somebody else was faster", async () => {
    const { id } = await newAccount();
    const at = `${V1}/accounts/${id}`;
    const patch = (tag, expected) =>
      owner.call("PATCH", at, { body: { name: "n" }, headers: tag === undefined ? {} : { "if-match": tag }, expected });
    for (const tag of ['"2"', "1", 'W/"1"', '""', "nonsense", '"1', '"01"']) {
      assert.equal((await patch(tag, 412)).data.code, "outdated", tag);
    }
    for (const tag of ['"1"', "*", '"9", "3"', undefined]) await patch(tag, 200);
    assert.equal((await owner.call("GET", at)).etag, '"5"');
    await owner.call("DELETE", at, { headers: { "if-match": '"4"' }, expected: 412 });
    await owner.call("DELETE", at, { headers: { "if-match": '"5"' }, expected: 204 });
  });

  test("can be demanded", async (t) => {
    const there = await startAdmin({ config: { admin: { require_if_match: true } } });
    t.after(() => there.stop());
    const account = await there.owner.post(`${V1}/accounts`, { name: "A" });
    const at = `${V1}/accounts/${account.id}`;
    const key = await there.owner.post(`${at}/keys`, { name: "k" });
    const limit = await there.owner.post(`${at}/limits`, { dimension: "requests", period: "day", amount: 1 });
    const role = await there.owner.post(`${V1}/roles`, { name: "r", permissions: [] });
    const user = await there.owner.post(`${V1}/users`, { kind: "service", name: "u" });
    await there.owner.put(`${at}/members/${user.id}`, { role_id: "viewer" });
    const changes = [
      ["PATCH", `${at}/keys/${key.id}`, { name: "x" }], ["POST", `${at}/keys/${key.id}/rotate`, {}],
      ["PATCH", `${at}/limits/${limit.id}`, { amount: 2 }], ["PATCH", `${V1}/roles/${role.id}`, { name: "x" }],
      ["PATCH", `${V1}/users/${user.id}`, { name: "x" }], ["PUT", `${at}/members/${user.id}`, { role_id: "developer" }],
      ["DELETE", `${at}/members/${user.id}`], ["PATCH", at, { name: "x" }],
      ["DELETE", `${at}/limits/${limit.id}`], ["DELETE", `${at}/keys/${key.id}`], ["DELETE", `${V1}/roles/${role.id}`],
      ["DELETE", `${V1}/users/${user.id}`], ["DELETE", at],
    ];
    for (const [method, where, body] of changes) {
      const reply = await there.owner.call(method, where, { body, expected: 428 });
      assert.equal(reply.data.code, "precondition_required");
      await there.owner.call(method, where, { body, headers: { "if-match": '"77"' }, expected: 412 });
    }
    for (const [method, where, body] of changes) {
      const seen = await there.owner.call("GET", where.replace(/\/rotate$/, ""), { expected: 200 });
      await there.owner.call(method, where, { body, headers: { "if-match": seen.etag }, expected: [200, 204] });
    }
  });
});

describe("what callers send", () => {
  test("comes back as it was, whatever it looks like", async () => {
    const metadata = Object.fromEntries(AWKWARD.map((text, n) => [`${n} ${text}`.slice(0, 20), text]));
    for (const name of AWKWARD) {
      const user = await newUser({ name, metadata });
      assert.deepEqual([user.name, user.metadata], [name, metadata]);
      assert.deepEqual(await owner.get(`${V1}/users/${user.id}`), user);
      const role = await owner.post(`${V1}/roles`, { name: `${name}${fresh("")}`, description: name, permissions: [] });
      assert.equal((await owner.get(`${V1}/roles/${role.id}`)).description, name);
      const account = await newAccount({ name, metadata });
      const key = await owner.post(`${V1}/accounts/${account.id}/keys`, { name, metadata, models: [name] });
      const seen = await owner.get(`${V1}/accounts/${account.id}/keys/${key.id}`);
      assert.deepEqual([seen.name, seen.metadata, seen.models], [name, metadata, [name]]);
      await owner.call("GET", `${V1}/users/${encodeURIComponent(name)}`, { expected: 404 });
      assert.deepEqual((await owner.get(`${V1}/users?${new URLSearchParams({ email: name })}`)).data, []);
    }
    const counted = await admin.db.prepare("SELECT COUNT(*) AS n FROM users").first();
    assert.ok(counted.n > AWKWARD.length);
    for (const name of ["nul\u0000", ""]) await owner.call("POST", `${V1}/accounts`, { body: { name }, expected: 400 });
  });

  test("has bounds", async () => {
    const names = { 200: 201, 201: 400, 5000: 400 };
    for (const [length, expected] of Object.entries(names)) {
      await owner.call("POST", `${V1}/accounts`, { body: { name: "é".repeat(Number(length)) }, expected });
    }
    const labels = (n, name = "v") => Object.fromEntries(Array.from({ length: n }, (_, at) => [`k${at}`, name]));
    const tries = [
      [labels(64), 201], [labels(65), 400], [{ ["k".repeat(64)]: "v" }, 201], [{ ["k".repeat(65)]: "v" }, 400],
      [{ k: "é".repeat(256) }, 201], [{ k: "é".repeat(257) }, 400], [{ "": "v" }, 400], [["a"], 400], ["a", 400],
      [{ k: 1 }, 400], [{ k: { deep: "v" } }, 400], [null, 400],
    ];
    const { id } = await newAccount();
    for (const [metadata, expected] of tries) {
      const what = JSON.stringify(metadata).slice(0, 80);
      const replies = [
        await owner.call("POST", `${V1}/accounts`, { body: { name: "A", metadata } }),
        await owner.call("POST", `${V1}/users`, { body: { kind: "service", name: "A", metadata } }),
        await owner.call("POST", `${V1}/accounts/${id}/keys`, { body: { name: "A", metadata } }),
      ];
      assert.deepEqual(replies.map((reply) => reply.status), [expected, expected, expected], what);
    }
    for (const expires_at of [9007199254740992, 18446744073709551615n, 1e300, -1, 1.5]) {
      const body = `{"name":"A","expires_at":${expires_at}}`;
      const reply = await owner.call("POST", `${V1}/accounts/${id}/keys`, { body, expected: 400 });
      assert.deepEqual(paths(reply), ["expires_at"], String(expires_at));
    }
  });

  test("is a JSON object, sent as such, neither ambiguous nor too deep nor too large", async () => {
    const post = async (body, headers = {}) =>
      (await owner.call("POST", `${V1}/accounts`, { body, headers: { "content-type": "application/json", ...headers } })).status;
    const good = '{"name":"A"}';
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp", "text/json"]) {
      assert.equal(await post(good, { "content-type": type }), 415, type);
    }
    for (const type of ["application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json"]) {
      assert.equal(await post(good, { "content-type": type }), 201, type);
    }
    const bad = [
      "", "{", "null", "[]", '"a"', "1", "{'name':'A'}", '{"name":"A",}', '{"name":"A"} {}', '{"name":"A"}x', "\ufeff" + good,
      '{"name":"\\ud800"}', '{"name":"A","name":"B"}', '{"name":"A","metadata":{"a":"1","a":"2"}}', '{"name":"A","\\u006eame":"B"}',
      '{"name":NaN}', '{"name":"A","metadata":{"a":"\t"}}',
    ];
    for (const body of bad) assert.equal(await post(body), 400, body);
    const deep = (n) => `{"name":"A","metadata":${'{"a":'.repeat(n)}1${"}".repeat(n)}}`;
    for (const depth of [3, 70, 10_000]) assert.equal(await post(deep(depth)), 400, `depth ${depth}`);
    assert.equal(await post(`{"name":"${"x".repeat(1_050_000)}"}`), 413);
    async function* endless() {
      for (let n = 0; n < 200; n += 1) yield Buffer.alloc(16_384, 32);
    }
    const reply = await slowly(owner, "POST", `${V1}/accounts`, endless());
    assert.equal(reply.status, 413, "without a declared length too");
    reply.reset();
  });

  test("in the query is what the operation knows, once", async () => {
    for (const query of ["limit=0", "limit=201", "limit=1001", "limit=-1", "limit=1.5", "limit=a", "limit=", "limit=1&limit=2", "order=asc",
      "kind=robot", "status=", `email=${"x".repeat(255)}`, "%00=1"]) {
      await owner.call("GET", `${V1}/users?${query}`, { expected: 400 });
    }
    await owner.get(`${V1}/users?limit=200`);
  });
});

describe("lists", () => {
  test("are read page by page, each entry once, while others are added and deleted", async () => {
    const { id } = await newAccount();
    const at = `${V1}/accounts/${id}/limits`;
    let made = 0;
    const add = () => owner.post(at, { dimension: "requests", period: "day", model: `m${(made += 1)}`, amount: 1 });
    const before = [];
    for (let n = 0; n < 23; n += 1) before.push((await add()).id);
    const gone = before[1];
    const seen = [];
    let cursor;
    do {
      const page = await owner.get(`${at}?${new URLSearchParams({ limit: 5, ...(cursor && { cursor }) })}`);
      assert.ok(page.data.length <= 5);
      seen.push(...page.data.map((one) => one.id));
      cursor = page.next_cursor;
      await add();
      if (seen.length === 5) await owner.delete(`${at}/${gone}`);
    } while (cursor);
    assert.equal(new Set(seen).size, seen.length, "nothing comes twice");
    for (const one of before) assert.ok(seen.includes(one) || one === gone, "nothing is left out");
    const all = await owner.all(at, 200);
    const order = all.map((one) => [one.created_at, one.id]);
    assert.deepEqual(order, [...order].sort((a, b) => b[0] - a[0] || (a[1] < b[1] ? 1 : -1)), "newest first");
    const [last] = [(await owner.get(`${at}?limit=${all.length}`)).next_cursor];
    assert.equal(last, null, "a page that is just full is the last one");
  });

  test("take no cursor but their own kind", async () => {
    const b64 = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    for (const cursor of ["x", "", "null", "%00", b64([1, 2]), b64({}), b64([-1, "a"]), b64([2 ** 54, "a"]), b64(["a", 1]), "A".repeat(600), "=".repeat(8)]) {
      const reply = await owner.call("GET", `${V1}/users?${new URLSearchParams({ cursor })}`, { expected: 400 });
      assert.deepEqual(paths(reply), ["cursor"], cursor);
    }
    const text = b64([9e15, "' OR 1=1 --"]);
    await owner.get(`${V1}/users?cursor=${text}`);
  });

  test("of roles, users and accounts page alike", async () => {
    for (const what of ["roles", "users", "accounts"]) {
      const ids = (await owner.all(`${V1}/${what}`, 200)).map((one) => one.id);
      assert.deepEqual((await owner.all(`${V1}/${what}`, 3)).map((one) => one.id), ids, what);
      assert.equal(new Set(ids).size, ids.length);
    }
  });
});

describe("an idempotency key", () => {
  test("gives the first answer again, to the same caller and request alone", async () => {
    const key = { "idempotency-key": fresh("create") };
    const body = { name: "Once" };
    const first = await owner.call("POST", `${V1}/accounts`, { body, headers: key, expected: 201 });
    const again = await owner.call("POST", `${V1}/accounts`, { body, headers: key, expected: 201 });
    assert.deepEqual([again.data, again.etag, again.headers["idempotency-replayed"]], [first.data, first.etag, "true"]);
    const other = await owner.call("POST", `${V1}/accounts`, { body: { name: "Other" }, headers: key, expected: 422 });
    assert.equal(other.data.code, "idempotency_key_reused");
    const boss = await userWith(owner, "admin");
    const theirs = await boss.call("POST", `${V1}/accounts`, { body, headers: key, expected: 201 });
    assert.notEqual(theirs.data.id, first.data.id, "another caller's key is another key");
    for (const bad of ["", "x".repeat(129)]) {
      await owner.call("POST", `${V1}/accounts`, { body, headers: { "idempotency-key": bad }, expected: 400 });
    }
  });

  test("that has expired is as good as new", async () => {
    const headers = { "idempotency-key": fresh("expired") };
    const first = await owner.call("POST", `${V1}/accounts`, { body: { name: "One" }, headers, expected: 201 });
    await admin.db.prepare("UPDATE idempotency_keys SET expires_at = 1").run();
    const second = await owner.call("POST", `${V1}/accounts`, { body: { name: "Two" }, headers, expected: 201 });
    assert.notEqual(second.data.id, first.data.id);
  });

  test("does not make a refusal a success", async () => {
    const body = { token: "wrong", email: "a@example.com", name: "A", password: PASSWORD };
    for (let n = 0; n < 2; n += 1) {
      const headers = { "idempotency-key": "bootstrap" };
      await admin.nobody.call("POST", `${V1}/bootstrap`, { body, headers, expected: 401 });
    }
  });
});

test("a body that drips in is not waited for: it would keep its caller's rights alive", { timeout: 60_000 }, async () => {
  const { status, ms } = await dripping;
  assert.equal(status, 408);
  assert.ok(ms < 45_000, `${ms} ms`);
});

test("methods and paths that do not exist are told apart", async () => {
  const ask = (method, path) => send({ url: `${admin.url}${path}`, method, headers: { authorization: `Bearer ${owner.token}` } });
  const put = await ask("PUT", `${V1}/users`);
  assert.deepEqual([put.status, put.headers.allow], [405, "GET, POST, OPTIONS"]);
  for (const path of [`${V1}/nothing`, `${V1}/users//roles`, `${V1}/users/%2e%2e/roles/x/y`, `${V1}/users/%zz`]) {
    assert.equal((await ask("GET", path)).status, 404, path);
  }
  assert.equal((await ask("HEAD", `${V1}/users`)).status, 200);
});

test("neither the log nor the database has a password or a secret in it", async () => {
  const hidden = [PASSWORD, BOOTSTRAP_TOKEN, MASTER_SECRET, KEY_HASH_SECRET, owner.token];
  assert.deepEqual(linesWith(hidden, admin.logs), []);
  const tables = await admin.db.prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB '_cf*' AND name NOT GLOB 'sqlite*'").all();
  for (const { name } of tables.results) {
    const rows = (await admin.db.prepare(`SELECT * FROM "${name}"`).all()).results.map((row) => JSON.stringify(row));
    assert.deepEqual(linesWith(hidden, rows), [], name);
  }
});
