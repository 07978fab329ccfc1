// The audit log: every change and every sign-in leaves one entry, no entry holds a secret, and nothing in the log can be
// altered, taken out or put in unnoticed.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { BOOTSTRAP_TOKEN, Caller, MASTER_SECRET, PASSWORD, called, startAdmin, userWith } from "./admin.mjs";
import { startMock } from "./harness.mjs";
import { KEY_HASH_SECRET, eventually } from "./support.mjs";

const IP = "192.0.2.7";
const AGENT = "audit-test/1.0";

let mock, admin, owner, nobody;
/** Everything that must be nowhere in the log. */
const secrets = new Set([BOOTSTRAP_TOKEN, MASTER_SECRET, KEY_HASH_SECRET, PASSWORD]);

const keep = (...values) => values.forEach((value) => secrets.add(value));

before(async () => {
  mock = await startMock();
  admin = await startAdmin({ mockUrl: mock.url });
  nobody = new Caller(admin.url, undefined, { "cf-connecting-ip": IP, "user-agent": AGENT });
  owner = await nobody.signIn("owner@example.com");
  keep(owner.token, owner.tokens.refresh_token, admin.owner.token, admin.owner.tokens.refresh_token);
});

after(async () => {
  await admin?.gateway.stop();
  await mock?.stop();
});

const rowsOf = async (sql, ...values) => (await admin.db.prepare(sql).bind(...values).all()).results;

const head = async () => (await rowsOf("SELECT coalesce(max(sequence), 0) AS head FROM audit_log"))[0].head;

const entriesSince = async (sequence) =>
  (await owner.all("/admin/v1/audit")).filter((entry) => entry.sequence > sequence).reverse();

const verify = async (query = "") => owner.get(`/admin/v1/audit/verify${query}`);

/** Does something and gives the one entry that it has left. */
async function entryOf(what) {
  const last = await head();
  await what();
  const entries = await entriesSince(last);
  assert.equal(entries.length, 1, `one entry, not ${JSON.stringify(entries, null, 1)}`);
  return entries[0];
}

/** Calls the API as the owner and checks the one entry that comes of it. */
async function audited(method, path, body, wanted) {
  let reply;
  const id = `audit-${Math.random().toString(36).slice(2)}`;
  const entry = await entryOf(async () => {
    reply = await owner.call(method, path, { body, headers: { "x-request-id": id }, expected: [200, 201, 204] });
  });
  const { actor_kind, actor_id, actor_name, outcome, ip, user_agent, request_id } = entry;
  const { user } = await owner.get("/admin/v1/me");
  assert.deepEqual(
    { actor_kind, actor_id, actor_name, outcome, ip, user_agent, request_id },
    {
      actor_kind: "user",
      actor_id: user.id,
      actor_name: "Owner",
      outcome: "done",
      ip: IP,
      user_agent: AGENT,
      request_id: id,
    },
    `${method} ${path}`,
  );
  assert.ok(Math.abs(entry.at_ms - Date.now()) < 60_000);
  const seen = Object.fromEntries(Object.keys(wanted).map((name) => [name, entry[name]]));
  for (const side of ["before", "after"]) {
    // Of a state, what is told is checked; what else is in it may be.
    if (!wanted[side]) continue;
    const told = Object.entries(entry[side]).filter(([name]) => name in wanted[side]);
    seen[side] = Object.fromEntries(told);
  }
  assert.deepEqual(seen, wanted, `${method} ${path}`);
  return { data: reply.data, entry };
}

describe("an entry", () => {
  test("comes of everything that is done with accounts, members, keys and limits", async () => {
    const account = { target_kind: "account", target_id: "team", account_id: "team" };
    await audited("POST", "/admin/v1/accounts", { id: "team", name: "Team" }, {
      action: "accounts:create", ...account, before: {}, after: { name: "Team", status: "active" },
    }); // prettier-ignore
    const { entry } = await audited("PATCH", "/admin/v1/accounts/team", { status: "suspended" }, {
      action: "accounts:update", ...account, before: { status: "active" }, after: { status: "suspended" },
    }); // prettier-ignore
    assert.ok(!("name" in entry.before) && !("name" in entry.after), "what stays is not told");
    await audited("PATCH", "/admin/v1/accounts/team", { status: "active" }, { action: "accounts:update", ...account });

    const { data: user } = await audited("POST", "/admin/v1/users", { kind: "service", name: "Robot" }, {
      action: "users:create", target_kind: "user", account_id: "", before: {}, after: { name: "Robot", kind: "service" },
    }); // prettier-ignore
    const member = { target_kind: "member", target_id: user.id, account_id: "team" };
    const path = `/admin/v1/accounts/team/members/${user.id}`;
    await audited("PUT", path, { role_id: "viewer" }, {
      action: "members:put", ...member, before: {}, after: { role_id: "viewer" },
    }); // prettier-ignore
    await audited("PUT", path, { role_id: "developer" }, {
      action: "members:put", ...member, before: { role_id: "viewer" }, after: { role_id: "developer" },
    }); // prettier-ignore
    await audited("DELETE", path, undefined, {
      action: "members:remove", ...member, before: { role_id: "developer" }, after: {},
    }); // prettier-ignore

    const terms = { dimension: "requests", period: "minute", amount: 60 };
    const made = await audited("POST", "/admin/v1/accounts/team/keys", { name: "app", limits: [terms] }, {
      action: "keys:create", target_kind: "key", account_id: "team", before: {}, after: { name: "app", disabled: false },
    }); // prettier-ignore
    assert.equal(made.entry.after.limits[0].amount, 60, "what was made along with it is told");
    keep(made.data.api_key, made.data.api_key.split("-").at(-1));
    const key = { target_kind: "key", target_id: made.data.id, account_id: "team" };
    const keyPath = `/admin/v1/accounts/team/keys/${made.data.id}`;
    await audited("PATCH", keyPath, { disabled: true }, {
      action: "keys:update", ...key, before: { disabled: false }, after: { disabled: true },
    }); // prettier-ignore
    const rotated = await audited("POST", `${keyPath}/rotate`, {}, { action: "keys:rotate", ...key });
    keep(rotated.data.api_key, rotated.data.api_key.split("-").at(-1));
    await audited("DELETE", keyPath, undefined, { action: "keys:delete", ...key, before: { name: "app" }, after: {} });

    const limit = { dimension: "cost", period: "month", amount: 5_000_000_000 };
    const { data: set } = await audited("POST", "/admin/v1/accounts/team/limits", limit, {
      action: "limits:create", target_kind: "limit", account_id: "team", before: {}, after: { amount: 5_000_000_000 },
    }); // prettier-ignore
    await audited("PATCH", `/admin/v1/accounts/team/limits/${set.id}`, { amount: 6 }, {
      action: "limits:update", target_id: set.id, before: { amount: 5_000_000_000 }, after: { amount: 6 },
    }); // prettier-ignore
    await audited("DELETE", `/admin/v1/accounts/team/limits/${set.id}`, undefined, {
      action: "limits:delete", target_id: set.id, before: { amount: 6 }, after: {},
    }); // prettier-ignore
    const model = await audited("POST", "/admin/v1/accounts/team/model-tokens", {}, {
      action: "model_tokens:create", account_id: "team",
    }); // prettier-ignore
    keep(model.data.token);
    await audited("DELETE", "/admin/v1/accounts/team", undefined, {
      action: "accounts:delete", ...account, before: { name: "Team" }, after: {},
    }); // prettier-ignore
  });

  test("comes of everything that is done with users, roles, sessions and tokens", async () => {
    const first = `first ${PASSWORD}`;
    const second = `second ${PASSWORD}`;
    keep(first, second);
    const { data: user } = await audited(
      "POST",
      "/admin/v1/users",
      { email: "ada@example.com", name: "Ada", password: first },
      { action: "users:create", target_kind: "user", before: {}, after: { email: "ada@example.com", name: "Ada" } },
    );
    const path = `/admin/v1/users/${user.id}`;
    const target = { target_kind: "user", target_id: user.id };
    await audited("PATCH", path, { name: "Ada L." }, {
      action: "users:update", ...target, before: { name: "Ada" }, after: { name: "Ada L." },
    }); // prettier-ignore
    await audited("PUT", `${path}/password`, { password: second }, { action: "users:reset_password", ...target });

    const permissions = ["usage:read"];
    const { data: role } = await audited("POST", "/admin/v1/roles", { name: "Counter", permissions }, {
      action: "roles:create", target_kind: "role", before: {}, after: { name: "Counter", permissions },
    }); // prettier-ignore
    await audited("PATCH", `/admin/v1/roles/${role.id}`, { permissions: ["alerts:read"] }, {
      action: "roles:update", target_id: role.id, before: { permissions }, after: { permissions: ["alerts:read"] },
    }); // prettier-ignore
    await audited("PUT", `${path}/roles/${role.id}`, undefined, {
      action: "roles:grant", ...target, before: {}, after: { role_id: role.id },
    }); // prettier-ignore
    await audited("DELETE", `${path}/roles/${role.id}`, undefined, {
      action: "roles:withdraw", ...target, before: { role_id: role.id }, after: {},
    }); // prettier-ignore
    await audited("DELETE", `/admin/v1/roles/${role.id}`, undefined, { action: "roles:delete", target_id: role.id });

    const session = await nobody.signIn("ada@example.com", second);
    keep(session.token, session.tokens.refresh_token);
    await audited("DELETE", `${path}/sessions/${session.tokens.session_id}`, undefined, {
      action: "sessions:revoke", target_kind: "session", target_id: session.tokens.session_id,
    }); // prettier-ignore
    await audited("DELETE", `${path}/sessions`, undefined, { action: "sessions:revoke_all", ...target });
    await audited("PATCH", path, { status: "disabled" }, {
      action: "users:update", ...target, before: { status: "active" }, after: { status: "disabled" },
    }); // prettier-ignore
    await audited("DELETE", path, undefined, { action: "users:delete", ...target, before: { name: "Ada L." }, after: {} });

    const { data: robot } = await audited("POST", "/admin/v1/users", { kind: "service", name: "CI" }, {
      action: "users:create",
    }); // prettier-ignore
    const tokens = `/admin/v1/users/${robot.id}/tokens`;
    const { data: created } = await audited("POST", tokens, { name: "deploy" }, {
      action: "tokens:create", target_kind: "service_token", before: {}, after: { name: "deploy" },
    }); // prettier-ignore
    keep(created.token, created.token.split("-").at(-1));
    await audited("DELETE", `${tokens}/${created.id}`, undefined, { action: "tokens:revoke", target_id: created.id });

    await audited("PATCH", "/admin/v1/me", { name: "Owner" }, { action: "users:update_own" });
    await audited("PUT", "/admin/v1/me/password", { current: PASSWORD, new: `another ${PASSWORD}` }, {
      action: "users:change_own_password",
    }); // prettier-ignore
    await owner.put("/admin/v1/me/password", { current: `another ${PASSWORD}`, new: PASSWORD });
  });

  test("comes of everything that is done with credentials and the configuration", async () => {
    const first = "sk-a-providers-credential-4jR0vq";
    const second = "sk-another-providers-credential-9Lm2";
    keep(first, second);
    const { data: credential } = await audited("POST", "/admin/v1/credentials", { name: "main", value: first }, {
      action: "credentials:create", target_kind: "credential", before: {}, after: { name: "main" },
    }); // prettier-ignore
    const credentialPath = `/admin/v1/credentials/${credential.id}`;
    await audited("PUT", credentialPath, { name: "other", value: second }, {
      action: "credentials:replace", target_id: credential.id, before: { name: "main" }, after: { name: "other" },
    }); // prettier-ignore

    const provider = { dialect: "openai", base_url: `${mock.url}/v2`, credential: `stored:${credential.id}` };
    const draft = [
      ["providers", "provider", "p", provider, { base_url: `${mock.url}/v1` }],
      ["models", "model", "m", { provider: "p" }, { upstream_model: "m-2" }],
      ["routes", "route", "r", { targets: [{ model: "m" }] }, { description: "Main" }],
      ["prices", "price", "m", { input: "1", output: "2" }, { output: "3" }],
    ];
    for (const [section, kind, name, settings, change] of draft) {
      const path = `/admin/v1/${section}/${name}`;
      const target = { target_kind: kind, target_id: name };
      const made = await audited("PUT", path, settings, { action: `${section}:create`, ...target, before: {} });
      assert.deepEqual(made.entry.after.settings, made.data.settings);
      const changed = await audited("PATCH", path, change, { action: `${section}:update`, ...target });
      assert.notDeepEqual(changed.entry.before.settings, changed.entry.after.settings);
    }
    await audited("POST", "/admin/v1/providers/p/test", undefined, {
      action: "providers:test", target_id: "p", before: {}, after: { provider: "p", healthy: true },
    }); // prettier-ignore
    await audited("PATCH", "/admin/v1/settings", { admin: { page_size_max: 150 } }, {
      action: "settings:update", target_kind: "settings", after: { admin: { page_size_max: 150 } },
    }); // prettier-ignore
    await audited("PUT", "/admin/v1/settings", {}, { action: "settings:update", target_kind: "settings", after: {} });
    const { data: one } = await audited("POST", "/admin/v1/config/publish", { comment: "one" }, {
      action: "config:publish", target_kind: "configuration", after: { comment: "one" },
    }); // prettier-ignore
    const { document } = await owner.get("/admin/v1/config/draft");
    const replaced = { document: { ...document, admin: { page_size_max: 120 } } };
    await audited("PUT", "/admin/v1/config/draft", replaced, { action: "config:replace_draft", target_kind: "draft" });
    await audited("POST", "/admin/v1/config/publish", { comment: "two" }, { action: "config:publish" });
    await audited("POST", "/admin/v1/config/rollback", { version: one.version, comment: "back" }, {
      action: "config:rollback", after: { comment: "back", restored_from: one.version },
    }); // prettier-ignore
    await audited("POST", "/admin/v1/cache/purge", { reason: "a test" }, {
      action: "cache:purge", target_kind: "cache", after: { reason: "a test" },
    }); // prettier-ignore
    const inEffect = async () => (await owner.call("GET", "/admin/v1/providers/p/state")).status === 200;
    await eventually(inEffect, "the published provider is in effect");
    await audited("PUT", "/admin/v1/providers/p/state", { state: "draining", reason: "a test" }, {
      action: "providers:state", target_kind: "provider", target_id: "p", before: { state: "active" },
      after: { state: "draining", reason: "a test" },
    }); // prettier-ignore
    await audited("POST", "/admin/v1/providers/p/reset", undefined, {
      action: "providers:reset", target_kind: "provider", target_id: "p", before: {}, after: {},
    }); // prettier-ignore
    const last = await head();
    for (const path of ["validate", "diff"]) await owner.post(`/admin/v1/config/${path}`, {});
    assert.equal(await head(), last, "looking at a configuration changes nothing");
    for (const [section, kind, name] of draft.toReversed())
      await audited("DELETE", `/admin/v1/${section}/${name}`, undefined, {
        action: `${section}:delete`, target_kind: kind, target_id: name, after: {},
      }); // prettier-ignore
    await audited("POST", "/admin/v1/config/publish", { comment: "nothing" }, { action: "config:publish" });
    await audited("DELETE", credentialPath, undefined, {
      action: "credentials:delete", target_id: credential.id, before: { name: "other" }, after: {},
    }); // prettier-ignore
  });

  test("comes of everything that is done with alert rules", async () => {
    const settings = { name: "Busy", metric: "requests", threshold: 10, window_minutes: 5 };
    const { data: rule } = await audited("POST", "/admin/v1/alerts/rules", settings, {
      action: "alerts:create", target_kind: "alert_rule", account_id: "", before: {}, after: settings,
    }); // prettier-ignore
    const path = `/admin/v1/alerts/rules/${rule.id}`;
    await audited("PATCH", path, { threshold: 11 }, {
      action: "alerts:update", target_id: rule.id, before: { threshold: 10 }, after: { threshold: 11 },
    }); // prettier-ignore
    await audited("DELETE", path, undefined, {
      action: "alerts:delete", target_id: rule.id, before: { threshold: 11 }, after: {},
    }); // prettier-ignore
  });

  test("comes of every sign-in, also of one that is refused", async () => {
    const subset = (entry, ...names) => Object.fromEntries(names.map((name) => [name, entry[name]]));
    const signIn = (body, expected) => nobody.call("POST", "/admin/v1/auth/sign-in", { body, expected });
    const who = ["action", "outcome", "actor_kind", "actor_name", "target_kind", "ip", "user_agent"];
    const where = { ip: IP, user_agent: AGENT };

    let tokens;
    const done = await entryOf(async () => {
      tokens = (await signIn({ email: "Owner@example.com", password: PASSWORD }, 200)).data;
    });
    keep(tokens.access_token, tokens.refresh_token);
    assert.deepEqual(subset(done, ...who), {
      action: "sessions:sign_in", outcome: "done", actor_kind: "user", actor_name: "Owner", target_kind: "session", ...where,
    }); // prettier-ignore
    assert.equal(done.target_id, tokens.session_id);

    for (const email of ["owner@example.com", "stranger@example.com"]) {
      const wrong = `wrong ${PASSWORD}`;
      keep(wrong);
      const refused = await entryOf(() => signIn({ email, password: wrong }, 401));
      assert.deepEqual(subset(refused, ...who, "target_id"), {
        action: "sessions:sign_in", outcome: "refused", actor_kind: "anonymous", actor_name: email, target_kind: "user",
        ...where, target_id: email,
      }); // prettier-ignore
    }

    const renew = (refresh_token, expected) =>
      nobody.call("POST", "/admin/v1/auth/refresh", { body: { refresh_token }, expected });
    let next;
    const renewed = await entryOf(async () => (next = (await renew(tokens.refresh_token, 200)).data));
    keep(next.access_token, next.refresh_token);
    assert.deepEqual(subset(renewed, "action", "outcome", "target_id"), {
      action: "sessions:refresh", outcome: "done", target_id: tokens.session_id,
    }); // prettier-ignore
    const stolen = await entryOf(() => renew(tokens.refresh_token, 401));
    assert.deepEqual(subset(stolen, "action", "outcome", "target_id"), {
      action: "sessions:refresh_token_reused", outcome: "refused", target_id: tokens.session_id,
    }); // prettier-ignore

    const session = await nobody.signIn("owner@example.com");
    keep(session.token, session.tokens.refresh_token);
    const out = await entryOf(() => session.call("POST", "/admin/v1/auth/sign-out", { expected: 204 }));
    assert.deepEqual(subset(out, "action", "target_id"), {
      action: "sessions:revoke", target_id: session.tokens.session_id,
    }); // prettier-ignore

    const another = await nobody.signIn("owner@example.com");
    keep(another.token, another.tokens.refresh_token);
    const path = `/admin/v1/me/sessions/${another.tokens.session_id}`;
    const ended = await entryOf(() => owner.call("DELETE", path, { expected: 204 }));
    assert.deepEqual(subset(ended, "action", "target_id"), {
      action: "sessions:revoke", target_id: another.tokens.session_id,
    }); // prettier-ignore

    const body = { token: "a wrong bootstrap token", email: "x@example.com", name: "X", password: PASSWORD };
    keep(body.token);
    const headers = { "idempotency-key": "bootstrap" };
    for (const what of ["a wrong token", "the same again, which is no more right"]) {
      const again = await entryOf(() => nobody.call("POST", "/admin/v1/bootstrap", { body, headers, expected: 401 }));
      assert.deepEqual(subset(again, "action", "outcome"), { action: "users:bootstrap", outcome: "refused" }, what);
    }

    const change = { current: `not ${PASSWORD}`, new: `new ${PASSWORD}` };
    keep(change.current, change.new);
    const kept = await entryOf(() => owner.call("PUT", "/admin/v1/me/password", { body: change, headers, expected: 400 }));
    assert.deepEqual(subset(kept, "action", "outcome", "actor_name"), {
      action: "users:change_own_password", outcome: "refused", actor_name: "Owner",
    }); // prettier-ignore
  });

  test("comes of nothing else", async () => {
    const last = await head();
    await owner.call("POST", "/admin/v1/accounts", { body: { id: "no spaces", name: "" }, expected: 400 });
    await owner.call("PATCH", "/admin/v1/accounts/nothing", { body: { name: "x" }, expected: 404 });
    await owner.call("DELETE", "/admin/v1/users/nothing", { expected: 404 });
    await nobody.call("POST", "/admin/v1/accounts", { body: { name: "x" }, expected: 401 });
    for (const path of ["users", "audit", "audit/verify", "usage"]) await owner.get(`/admin/v1/${path}`);
    assert.equal(await head(), last);
    const again = { body: { id: "once", name: "Once" }, headers: { "idempotency-key": "one" }, expected: 201 };
    const entry = await entryOf(async () => {
      for (let nth = 0; nth < 3; nth += 1) await owner.call("POST", "/admin/v1/accounts", again);
    });
    assert.deepEqual([entry.action, entry.target_id], ["accounts:create", "once"], "a repeated request is one change");
    await owner.call("POST", "/admin/v1/accounts", { body: { id: "once", name: "Twice" }, expected: 409 });
    assert.equal(await head(), entry.sequence);
  });

  test("was looked for after every operation that changes something", async () => {
    const { paths } = await owner.get("/admin/openapi.json");
    const asks = ["config/validate", "config/diff", "config/simulate", "simulate"].map((name) => `POST /admin/v1/${name}`);
    const missed = Object.entries(paths)
      .flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`))
      .filter((name) => !name.startsWith("GET ") && !asks.includes(name))
      .filter((name) => ![...(called.get(name) ?? [])].some((status) => status < 300));
    assert.deepEqual(missed, []);
  });

  test("holds no secret, and neither does anything else in the database", async () => {
    const tables = await rowsOf(
      "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name NOT LIKE '\\_cf%' ESCAPE '\\'",
    );
    assert.ok(tables.some(({ name }) => name === "audit_log"));
    for (const { name } of tables) {
      const text = JSON.stringify(await rowsOf(`SELECT * FROM "${name}"`));
      const found = [...secrets].filter((secret) => text.includes(JSON.stringify(secret).slice(1, -1)));
      assert.deepEqual(found, [], `secrets in ${name}`);
    }
    assert.ok(secrets.size > 20, "there were secrets to look for");
    const log = admin.logs.join("\n");
    assert.deepEqual([...secrets].filter((secret) => log.includes(secret)), [], "secrets in the Worker's log");
  });
});

describe("the log", () => {
  test("is searched by who, what, to what, where and when", async () => {
    const all = await owner.all("/admin/v1/audit", 7);
    const { user } = await owner.get("/admin/v1/me");
    assert.deepEqual(all.map((entry) => entry.sequence), all.map((_, nth) => all.length - nth), "newest first, no hole");
    const middle = all[Math.floor(all.length / 2)].at_ms;
    for (const [query, only] of [
      [`actor_id=${user.id}`, (entry) => entry.actor_id === user.id],
      ["action=accounts%3Aupdate", (entry) => entry.action === "accounts:update"],
      ["target_id=team", (entry) => entry.target_id === "team"],
      ["account_id=team", (entry) => entry.account_id === "team"],
      [`actor_id=${user.id}&action=keys%3Aupdate&account_id=team`, (entry) => entry.action === "keys:update"],
      ["target_id=team&action=keys%3Aupdate", () => false],
      [`from_ms=${middle}`, (entry) => entry.at_ms >= middle],
      [`to_ms=${middle}`, (entry) => entry.at_ms < middle],
      [`from_ms=${middle}&actor_id=${user.id}`, (entry) => entry.at_ms >= middle && entry.actor_id === user.id],
      ["action=nothing%3Ahappens", () => false],
    ]) {
      const wanted = all.filter(only).map((entry) => entry.sequence);
      for (const limit of [3, 200]) {
        const found = await owner.all(`/admin/v1/audit?${query}`, limit);
        assert.deepEqual(found.map((entry) => entry.sequence), wanted, `${query} by ${limit}`);
      }
    }
    const { data } = await owner.call("GET", "/admin/v1/audit?from_ms=5&to_ms=4", { expected: 400 });
    assert.equal(data.errors[0].path, "to_ms");
  });

  test("of an account is seen by its own people alone", async () => {
    for (const id of ["ours", "theirs"]) await owner.post("/admin/v1/accounts", { id, name: id });
    const auditor = await userWith(owner, "auditor", "ours");
    const entries = await auditor.all("/admin/v1/accounts/ours/audit", 1);
    assert.deepEqual(entries.map((entry) => entry.action).toSorted(), ["accounts:create", "members:put"]);
    assert.ok(entries.every((entry) => entry.account_id === "ours"));
    await auditor.call("GET", "/admin/v1/accounts/theirs/audit", { expected: 404 });
    for (const path of ["audit", "audit/verify"]) await auditor.call("GET", `/admin/v1/${path}`, { expected: 403 });
    const { data } = await auditor.call("GET", "/admin/v1/accounts/ours/audit?account_id=theirs", { expected: 400 });
    assert.equal(data.errors[0].path, "account_id");
    const viewer = await userWith(owner, "viewer", "ours");
    await viewer.call("GET", "/admin/v1/accounts/ours/audit", { expected: 403 });
  });

  test("stays in one chain when many write at once", async () => {
    const last = await head();
    const names = Array.from({ length: 30 }, (_, nth) => `crowd-${nth}`);
    await Promise.all(names.map((id) => owner.call("POST", "/admin/v1/accounts", { body: { id, name: id }, expected: 201 })));
    const entries = await entriesSince(last);
    assert.deepEqual(entries.map((entry) => entry.target_id).toSorted(), names.toSorted());
    assert.deepEqual(entries.map((entry) => entry.sequence), names.map((_, nth) => last + 1 + nth), "no hole");
    assert.equal(new Set(entries.map((entry) => entry.hash)).size, 30);
    const checked = await verify();
    assert.deepEqual([checked.intact, checked.checked, checked.head], [true, last + 30, last + 30]);
  });

  test("is verified in parts as well as as a whole", async () => {
    const whole = await verify();
    const [{ hash }] = await rowsOf("SELECT hash FROM audit_log ORDER BY sequence DESC LIMIT 1");
    assert.deepEqual(whole, {
      intact: true, checked: whole.head, broken_at: null, next: null, head: await head(), head_hash: hash,
    }); // prettier-ignore
    let checked = 0;
    for (let from = 1; from !== null; ) {
      const part = await verify(`?from=${from}&limit=7`);
      assert.ok(part.intact && part.checked <= 7 && part.head_hash === hash);
      checked += part.checked;
      from = part.next;
    }
    assert.equal(checked, whole.head);
    assert.deepEqual([(await verify(`?from=${whole.head}`)).checked, (await verify(`?from=${whole.head}`)).intact], [1, true]);
    for (const beyond of [whole.head + 1, whole.head + 1_000]) {
      const nothing = await verify(`?from=${beyond}`);
      assert.deepEqual([nothing.intact, nothing.checked, nothing.next], [true, 0, null]);
    }
    for (const query of ["?from=0", "?limit=5001", "?limit=0"])
      await owner.call("GET", `/admin/v1/audit/verify${query}`, { expected: 400 });
  });

  test("cannot be changed by a statement", async () => {
    for (const statement of ["UPDATE audit_log SET action = 'x' WHERE sequence = 3", "DELETE FROM audit_log WHERE sequence = 3"])
      await assert.rejects(admin.db.prepare(statement).run(), /append-only/);
    assert.equal((await verify()).intact, true);
  });

  test("tells where it was tampered with, even if the guard in the database was taken away first", async () => {
    for (const trigger of ["audit_log_stays", "audit_log_remains"]) await admin.db.prepare(`DROP TRIGGER ${trigger}`).run();
    const last = await head();
    const [row] = await rowsOf("SELECT * FROM audit_log WHERE sequence = 9");
    const columns = Object.keys(row);
    const put = (changed) =>
      admin.db
        .prepare(`INSERT OR REPLACE INTO audit_log (${columns}) VALUES (${columns.map((_, nth) => `?${nth + 1}`)})`)
        .bind(...columns.map((name) => ({ ...row, ...changed })[name]))
        .run();
    const broken = async (at, what, query) => {
      const found = await verify(query);
      assert.deepEqual([found.intact, found.broken_at, found.next], [false, at, null], what);
      return found;
    };

    for (const changed of [
      { at_ms: row.at_ms + 1 },
      { at_ms: -1 },
      { actor_kind: "system" },
      { actor_id: "usr_other" },
      { actor_name: "Somebody else" },
      { action: "accounts:read" },
      { outcome: row.outcome === "done" ? "refused" : "done" },
      { target_kind: "key" },
      { target_id: "another" },
      { account_id: "another" },
      { before: '{"changed":true}' },
      { after: '{"changed":true}' },
      { after: '"\\ud800"' },
      { ip: "198.51.100.1" },
      { user_agent: "another" },
      { request_id: "another" },
      { hash: row.hash.replace(/.$/, (last) => (last === "0" ? "1" : "0")) },
    ]) {
      await put(changed);
      const found = await broken(9, JSON.stringify(changed));
      assert.equal(found.checked, 8);
      await put({});
    }
    assert.equal((await verify()).intact, true, "put right again");

    await admin.db.prepare("DELETE FROM audit_log WHERE sequence = 9").run();
    await broken(9, "an entry in the middle is missing");
    await broken(9, "also when checked from there", "?from=9");
    await broken(9, "also when checked from behind it", "?from=10");
    assert.equal((await verify("?from=11")).intact, true, "what follows is as it was written");
    await put({});

    await admin.db.prepare("DELETE FROM audit_log WHERE sequence < 4").run();
    await broken(1, "the beginning is missing");
    assert.equal((await verify("?from=5")).intact, true);
    await broken(1, "also when checked from behind it", "?from=4");
    await put({ sequence: 0, hash: "forged" });
    await broken(0, "an entry before the first");
    await admin.db.prepare("DELETE FROM audit_log WHERE sequence = 0").run();

    await put({ sequence: last + 1, hash: row.hash.replace(/.{8}$/, "00000000") });
    const forged = await broken(last + 1, "an entry that the gateway did not write", `?from=${last}`);
    assert.equal(forged.head, last + 1);
  });
});
