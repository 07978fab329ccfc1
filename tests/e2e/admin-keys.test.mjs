// API keys through their whole life, seen from both planes: what the admin API says of a key holds for calls to models
// within a second, in the database, in the account's ledger and in KV alike, and nothing shows a key twice.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Caller, startAdmin, userWith } from "./admin.mjs";
import { startMock } from "./harness.mjs";
import { PROVIDER_SECRETS, ask, config, eventually, linesWith, open, send, sleep } from "./support.mjs";

/** What an administrator has been told is done holds everywhere after so long, in milliseconds. */
const WITHIN = 1_000;

let mock, admin, owner, db, kv;
/** Every key that was ever shown, to look for it in places where it must not be. */
const shown = [];

before(async () => {
  mock = await startMock();
  const settings = config({ records: { flush_ms: 200 }, timeouts: { first_byte_ms: 20_000, total_ms: 20_000 } });
  admin = await startAdmin({ mockUrl: mock.url, config: settings, secrets: PROVIDER_SECRETS });
  ({ owner, db, kv } = admin);
});
after(async () => {
  await admin?.stop();
  await mock?.stop();
});

const V1 = "/admin/v1";
let count = 0;

/** A fresh account, or a key in it. */
const newAccount = async () => (await owner.post(`${V1}/accounts`, { id: `team-${++count}`, name: "Team" })).id;
async function newKey(settings = {}, account) {
  account ??= await newAccount();
  const made = await owner.post(`${V1}/accounts/${account}/keys`, { name: `key ${++count}`, ...settings });
  shown.push(made.api_key);
  return { ...made, key: made.api_key, account, at: `${V1}/accounts/${account}/keys/${made.id}` };
}
async function rotate(made, body = {}) {
  const next = await owner.post(`${made.at}/rotate`, body);
  shown.push(next.api_key);
  return next.api_key;
}

const publicId = (key) => /^sk-lgw-([^-]+)-/.exec(key)[1];

const models = (key, headers = {}) =>
  send({ url: `${admin.url}/v1/models`, headers: { authorization: `Bearer ${key}`, ...headers } });

function chat(key, { model = "gpt-test", options = { text: "well" }, headers = {}, path = "/v1/chat/completions" } = {}) {
  const body = { model, messages: ask(options), ...(path === "/v1/messages" && { max_tokens: 100 }) };
  return send({
    url: `${admin.url}${path}`,
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${key}`, ...headers },
    body: JSON.stringify(body),
  });
}

const status = async (reply) => (await reply).status;

/** Uses a key from several connections, every 20 ms each, and notes when each request was sent and what came back. */
function underLoad(key, connections = 4) {
  const seen = [];
  let running = true;
  const loops = Array.from({ length: connections }, async (_, nth) => {
    await sleep(5 * nth);
    while (running) {
      const sent = performance.now();
      const reply = await (nth === 0 ? chat(key) : models(key));
      seen.push({ sent, status: reply.status });
      await sleep(Math.max(0, 20 - (performance.now() - sent)));
    }
  });
  return {
    seen,
    stop: async () => {
      running = false;
      await Promise.all(loops);
      return seen;
    },
  };
}

/**
 * Carries a change out while keys are under load. From a second after the reply on, every request of each key gets
 * `wanted[key]`; before, both are right. Returns after how many milliseconds the last other answer was asked for.
 */
async function takesEffect(what, change, wanted) {
  const loads = Object.entries(wanted).map(([key, right]) => ({ right, ...underLoad(key) }));
  await eventually(() => loads.every((load) => load.seen.length >= 8), "the load runs");
  await change();
  const replied = performance.now();
  await sleep(WITHIN + 400);
  const toTheEnd = (load) => load.seen.some((one) => one.sent > replied + WITHIN);
  await eventually(() => loads.every(toTheEnd), "there is load to the end");
  const times = [];
  for (const load of loads) {
    const seen = (await load.stop()).filter((one) => one.sent >= replied);
    const others = seen.filter((one) => one.status !== load.right).map((one) => one.sent - replied);
    const late = others.filter((ms) => ms > WITHIN);
    assert.deepEqual(late, [], `${what}: other answers than ${load.right} after the time was up`);
    times.push(Math.max(0, ...others));
  }
  const worst = Math.round(Math.max(...times));
  console.log(`${what}: took effect ${worst} ms after the reply`);
  return worst;
}

/** That database, KV and the ledgers tell the same of every key, and nothing is left to be delivered. */
async function assertAgreement() {
  const query =
    "SELECT s.public_id, s.hash, s.expires_at AS secret_ends, k.* FROM api_key_secrets s JOIN api_keys k ON k.id = s.key_id";
  const rows = (await db.prepare(query).all()).results;
  const names = [];
  for (let cursor; ; ) {
    const page = await kv.list({ prefix: "key:", cursor });
    names.push(...page.keys.map((one) => one.name.slice(4)));
    if (page.list_complete) break;
    cursor = page.cursor;
  }
  assert.deepEqual(names.sort(), rows.map((row) => row.public_id).sort(), "KV has the keys that the database has");
  for (const row of rows) {
    const record = await kv.get(`key:${row.public_id}`, "json");
    const ends = [row.expires_at, row.secret_ends].filter((end) => end !== null);
    const overrides = JSON.parse(row.overrides);
    assert.deepEqual(
      { endpoints: [], ip_ranges: [], metadata: {}, overrides: {}, user: null, expires_at: null, ...record },
      {
        hash: row.hash, account: row.account_id, key: row.id, user: row.user_id, name: row.name,
        models: JSON.parse(row.models), endpoints: JSON.parse(row.endpoints), ip_ranges: JSON.parse(row.ip_ranges),
        expires_at: ends.length > 0 ? Math.min(...ends) : null, disabled: row.disabled === 1, revision: row.revision,
        overrides, metadata: JSON.parse(row.metadata),
      },
    );
    const asked = await (await admin.object("LEDGER", row.account_id)).fetch("https://object/check", {
      method: "POST",
      body: JSON.stringify({ public_id: row.public_id, revision: row.revision }),
    });
    assert.equal((await asked.json()).verdict, "current", `the ledger knows ${row.public_id} at revision ${row.revision}`);
  }
  assert.equal((await db.prepare("SELECT COUNT(*) AS n FROM outbox").first()).n, 0);
}

describe("a new key", () => {
  test("works at once, and with its restrictions", async () => {
    for (let n = 0; n < 5; n += 1) {
      const { key } = await newKey();
      assert.match(key, /^sk-lgw-[0-9A-Za-z]{12}-[0-9A-Za-z]{38}$/);
      assert.deepEqual([await status(chat(key)), await status(models(key))], [200, 200]);
    }
    const born = await newKey({ disabled: true });
    assert.equal(await status(chat(born.key)), 401);
    await assertAgreement();
  });

  test("is shown once", async () => {
    const made = await newKey({ metadata: { for: "the test" } });
    const headers = { "idempotency-key": "shown once" };
    const other = await owner.call("POST", `${V1}/accounts/${made.account}/keys`, { body: { name: "k" }, headers, expected: 201 });
    shown.push(other.data.api_key);
    const texts = [];
    for (const where of [made.at, `${V1}/keys`, `${V1}/accounts/${made.account}/keys`, `${V1}/keys?public_id=${publicId(made.key)}`]) {
      texts.push((await owner.call("GET", where, { expected: 200 })).text);
    }
    texts.push((await owner.call("PATCH", made.at, { body: { name: "renamed" }, expected: 200 })).text);
    assert.ok(texts.every((text) => text.includes(publicId(made.key)) && !text.includes("api_key\"")));
    assert.deepEqual(linesWith(shown, texts), []);
  });

  test("is found by its public id, its user and its state", async () => {
    const account = await newAccount();
    const { user } = await userWith(owner, "developer", account);
    const [mine, off] = [await newKey({ user_id: user.id }, account), await newKey({ disabled: true }, account)];
    const found = async (query, at = `${V1}/accounts/${account}/keys`) =>
      (await owner.all(`${at}?${new URLSearchParams(query)}`)).map((key) => key.id);
    assert.deepEqual(await found({ public_id: publicId(mine.key) }), [mine.id]);
    assert.deepEqual(await found({ user_id: user.id }), [mine.id]);
    assert.deepEqual(await found({ disabled: true }), [off.id]);
    assert.deepEqual(await found({ disabled: false, user_id: user.id }, `${V1}/keys`), [mine.id]);
    const elsewhere = await newKey();
    assert.deepEqual(await found({ public_id: publicId(elsewhere.key) }), [], "not in this account");
    assert.deepEqual(await found({ public_id: publicId(elsewhere.key) }, `${V1}/keys`), [elsewhere.id]);
    await owner.call("GET", `${V1}/keys?disabled=maybe`, { expected: 400 });
  });

  test("makes sense, or everything that does not is told at once", async () => {
    const account = await newAccount();
    const wrong = {
      name: "k", models: ["", "x".repeat(257)], endpoints: ["chat", "/admin/v1/users"], ip_ranges: ["10.0.0.1/8", "nowhere"],
      expires_at: 1, metadata: { "": "v" },
    };
    const reply = await owner.call("POST", `${V1}/accounts/${account}/keys`, { body: wrong, expected: 400 });
    assert.deepEqual(reply.data.errors.map((error) => error.path).sort(), [
      "endpoints[0]", "endpoints[1]", "expires_at", "ip_ranges[0]", "ip_ranges[1]", "metadata.", "models[0]", "models[1]",
    ]);
    const overrides = { timeouts: { total_ms: 1, first_byte_ms: 10 }, records: "some" };
    const bounds = await owner.call("POST", `${V1}/accounts/${account}/keys`, { body: { name: "", overrides }, expected: 400 });
    assert.deepEqual(bounds.data.errors.map((error) => error.path).sort(), [
      "name", "overrides.records", "overrides.timeouts.first_byte_ms", "overrides.timeouts.total_ms",
    ]);
    const made = await newKey({}, account);
    const merged = await owner.call("PATCH", made.at, { body: { ip_ranges: ["x"], overrides: { luck: true } }, expected: 400 });
    assert.deepEqual(merged.data.errors.map((error) => error.path), ["overrides.luck"]);
    for (const body of [{ secrets: [] }, { api_key: "x" }, { account_id: "x" }, { hash: "x" }, { id: "x" }]) {
      await owner.call("PATCH", made.at, { body, expected: 400 });
    }
  });
});

describe("a key's scopes", () => {
  test("hide other models as if there were none", async () => {
    const { key } = await newKey({ models: ["gpt-test", "claude-*"] });
    assert.deepEqual(
      [await status(chat(key)), await status(chat(key, { model: "claude-test", path: "/v1/messages" })), await status(chat(key, { model: "gpt-loose" }))],
      [200, 200, 404],
    );
    const hidden = JSON.parse((await chat(key, { model: "gpt-loose" })).text).error;
    const absent = JSON.parse((await chat(key, { model: "gpt-nowhere" })).text).error;
    assert.deepEqual({ ...hidden, message: hidden.message.replace("gpt-loose", "") }, { ...absent, message: absent.message.replace("gpt-nowhere", "") });
    assert.deepEqual((await models(key)).json.data.map((model) => model.id).sort(), ["claude-test", "gpt-test"]);
  });

  test("refuse other endpoints", async () => {
    const { key, at } = await newKey({ endpoints: ["/v1/chat/completions"] });
    assert.deepEqual(
      [await status(chat(key)), await status(models(key)), await status(chat(key, { model: "claude-test", path: "/v1/messages" }))],
      [200, 403, 403],
    );
    await owner.patch(at, { endpoints: null });
    await sleep(WITHIN);
    assert.equal(await status(models(key)), 200);
  });

  test("refuse other addresses", async () => {
    const { key } = await newKey({ ip_ranges: ["192.0.2.0/24", "2001:db8::/32"] });
    const from = (ip) => status(models(key, ip === undefined ? {} : { "cf-connecting-ip": ip }));
    for (const ip of ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1"]) assert.equal(await from(ip), 200, ip);
    for (const ip of ["192.0.3.7", "2001:db9::1", "nonsense", "192.0.2.7, 192.0.3.7"]) assert.equal(await from(ip), 403, ip);
    assert.equal(await from(undefined), 403, "an unknown address is no good one");
    assert.equal(await status(models(key, { "x-forwarded-for": "192.0.2.7" })), 403, "what anybody can write counts for nothing");
  });

  test("end with the key's time", async () => {
    const ends = Math.floor(Date.now() / 1000) + 3;
    const { key, at } = await newKey({ expires_at: ends });
    assert.equal(await status(chat(key)), 200);
    await sleep(ends * 1000 - Date.now() + 20);
    assert.equal(await status(chat(key)), 401);
    await owner.patch(at, { expires_at: null });
    await sleep(WITHIN);
    assert.equal(await status(chat(key)), 200, "prolonged");
  });

  test("are changed within a second", async () => {
    const made = await newKey();
    await takesEffect("a narrower set of endpoints", () => owner.patch(made.at, { endpoints: ["/v1/messages"] }), { [made.key]: 403 });
    await takesEffect("the set taken back", () => owner.patch(made.at, { endpoints: [] }), { [made.key]: 200 });
    await assertAgreement();
  });
});

test("a key's overrides change what the gateway does", async () => {
  const slow = { options: { text: "well", ttfb_ms: 1_500 } };
  const made = await newKey({ overrides: { timeouts: { total_ms: 300 } } });
  const began = performance.now();
  assert.equal(await status(chat(made.key, slow)), 504);
  assert.ok(performance.now() - began < 1_400, "not waited for");
  assert.equal(await status(chat((await newKey()).key, slow)), 200, "others wait");
  await owner.patch(made.at, { overrides: { timeouts: { total_ms: 10_000 } } });
  await sleep(WITHIN);
  assert.equal(await status(chat(made.key, slow)), 200);
  assert.deepEqual((await owner.patch(made.at, { overrides: null })).overrides, {});
  await assertAgreement();
});

describe("within a second, under load,", () => {
  test("a key is disabled and enabled", async () => {
    const made = await newKey();
    for (let round = 0; round < 2; round += 1) {
      await takesEffect("disabling a key", () => owner.patch(made.at, { disabled: true }), { [made.key]: 401 });
      await assertAgreement();
      await takesEffect("enabling a key", () => owner.patch(made.at, { disabled: false }), { [made.key]: 200 });
      await assertAgreement();
    }
  });

  test("a key is rotated: the old secret dies, the new one works at once", async () => {
    const made = await newKey();
    let next;
    await takesEffect("rotating a key", async () => {
      next = await rotate(made);
      assert.equal(await status(chat(next)), 200, "the new one works at once");
    }, { [made.key]: 401 });
    const seen = await owner.get(made.at);
    assert.deepEqual(seen.secrets.map((secret) => secret.public_id), [publicId(next)]);
    assert.equal(seen.id, made.id);
    await assertAgreement();
  });

  test("a key is deleted", async () => {
    const made = await newKey();
    await takesEffect("deleting a key", () => owner.delete(made.at), { [made.key]: 401 });
    for (const [method, where, body] of [["GET", made.at], ["PATCH", made.at, { name: "x" }], ["DELETE", made.at], ["POST", `${made.at}/rotate`, {}]]) {
      await owner.call(method, where, { body, expected: 404 });
    }
    await assertAgreement();
  });

  test("an account is suspended and reactivated, with all its keys", async () => {
    const account = await newAccount();
    const [a, b] = [await newKey({}, account), await newKey({}, account)];
    const other = await newKey();
    const both = (status) => ({ [a.key]: status, [b.key]: status, [other.key]: 200 });
    const at = `${V1}/accounts/${account}`;
    await takesEffect("suspending an account", () => owner.patch(at, { status: "suspended" }), both(403));
    const fresh = await newKey({}, account);
    assert.equal(await status(chat(fresh.key)), 403, "a key that is made meanwhile too");
    await takesEffect("reactivating an account", () => owner.patch(at, { status: "active" }), both(200));
    await assertAgreement();
  });
});

test("a rotation that overlaps: both secrets work, then the old one ends", async () => {
  const made = await newKey();
  const began = Date.now();
  const next = await rotate(made, { overlap_seconds: 3 });
  const { secrets } = await owner.get(made.at);
  assert.equal(secrets.length, 2);
  const old = secrets.find((secret) => secret.public_id === publicId(made.key));
  assert.ok(Math.abs(old.expires_at - began / 1000 - 3) <= 1.1, "it ends when it should");
  assert.equal(secrets.find((secret) => secret.public_id === publicId(next)).expires_at, null);
  await assertAgreement();
  while (Date.now() < old.expires_at * 1000 - 300) {
    assert.deepEqual([await status(models(made.key)), await status(models(next))], [200, 200]);
    await sleep(50);
  }
  await sleep(old.expires_at * 1000 - Date.now() + 20);
  assert.deepEqual([await status(models(made.key)), await status(models(next))], [401, 200]);
  // Rotated again while one overlaps: the oldest is gone at once, not prolonged.
  const again = await newKey();
  const second = await rotate(again, { overlap_seconds: 600 });
  const third = await rotate(again, { overlap_seconds: 600 });
  await sleep(WITHIN);
  assert.deepEqual([await status(models(again.key)), await status(models(second)), await status(models(third))], [401, 200, 200]);
  // And one without an overlap ends them all.
  const last = await rotate(again);
  await sleep(WITHIN);
  assert.deepEqual([await status(models(second)), await status(models(third)), await status(models(last))], [401, 401, 200]);
  await owner.call("POST", `${again.at}/rotate`, { body: { overlap_seconds: 2_592_001 }, expected: 400 });
  await assertAgreement();
});

test("a key that was rotated often is revoked as easily as any other", async () => {
  const made = await newKey();
  const ledger = await admin.object("LEDGER", made.account);
  // What a thousand rotations leave in the ledger.
  const retired = Array.from({ length: 1_200 }, (_, n) => `Retired${String(n).padStart(5, "0")}`);
  const revision = (await db.prepare("SELECT revision FROM api_keys WHERE id = ?").bind(made.id).first()).revision + 1;
  const record = await kv.get(`key:${publicId(made.key)}`, "json");
  const body = (state, number) => JSON.stringify({ key_id: made.id, revision: number, state });
  const records = Object.fromEntries([...retired, publicId(made.key)].map((id) => [id, record]));
  for (const [state, number] of [[{ records }, revision], [{ records: { [publicId(made.key)]: record } }, revision + 1]]) {
    const told = await ledger.fetch("https://object/keys", { method: "PUT", body: body(state, number) });
    assert.equal(told.status, 200);
  }
  await db.prepare("UPDATE api_keys SET revision = ? WHERE id = ?").bind(revision + 1, made.id).run();
  const next = await rotate(made);
  await owner.patch(made.at, { disabled: true });
  assert.equal(await status(chat(next)), 401);
  await owner.delete(made.at);
  await assertAgreement();
});

describe("a key that was revoked stays dead although KV has its old record:", () => {
  for (const [how, revoke] of Object.entries({
    disabled: (made) => owner.patch(made.at, { disabled: true }),
    rotated: (made) => rotate(made),
    deleted: (made) => owner.delete(made.at),
  })) {
    test(how, async () => {
      const made = await newKey();
      const name = `key:${publicId(made.key)}`;
      const old = await kv.get(name);
      assert.equal(await status(chat(made.key)), 200);
      await revoke(made);
      const current = await kv.get(name);
      await kv.put(name, old);
      for (const wait of [WITHIN, 1_500]) {
        await sleep(wait);
        assert.equal(await status(chat(made.key)), 401);
      }
      // What every isolate has forgotten is asked for anew, with KV's old word in hand.
      const hub = await admin.object("HUB", "hub-0");
      await hub.fetch(`https://object/purge?number=${Date.now()}`, { method: "PUT" });
      await sleep(2_100);
      assert.equal(await status(chat(made.key)), 401);
      if (current === null) await kv.delete(name);
      else await kv.put(name, current);
      await assertAgreement();
    });
  }
});

test("changes of one key at the same time leave everything agreed", async () => {
  const made = await newKey();
  for (let round = 0; round < 3; round += 1) {
    await Promise.all(
      Array.from({ length: 12 }, (_, n) =>
        owner.call("PATCH", made.at, { body: { disabled: n % 2 === 0, metadata: { n: String(n) } }, expected: [200, 412] }),
      ),
    );
    await assertAgreement();
  }
});

test("a change whose request came first but ended last is not lost", async () => {
  const made = await newKey();
  let finish;
  const rest = new Promise((resolve) => (finish = resolve));
  async function* body() {
    yield '{"status":';
    await rest;
    yield '"suspended"}';
  }
  const slow = open({
    url: `${admin.url}${V1}/accounts/${made.account}`,
    method: "PATCH",
    headers: { "content-type": "application/json", authorization: `Bearer ${owner.token}` },
    body: body(),
  });
  await sleep(300);
  await owner.post(`${V1}/accounts/${made.account}/limits`, { dimension: "requests", period: "day", amount: 1_000 });
  finish();
  assert.equal((await slow).status, 200);
  await sleep(WITHIN);
  assert.equal(await status(chat(made.key)), 403);
});

test("whoever has only another account's rights does nothing to a key", async () => {
  const [made, other] = [await newKey(), await newAccount()];
  const stranger = await userWith(owner, "admin", other);
  const at = made.at.replace(made.account, other);
  for (const where of [made.at, at]) {
    await stranger.call("GET", where, { expected: 404 });
    await stranger.call("PATCH", where, { body: { disabled: true }, expected: 404 });
    await stranger.call("DELETE", where, { expected: 404 });
    await stranger.call("POST", `${where}/rotate`, { body: {}, expected: 404 });
  }
  await new Caller(admin.url, made.key).call("GET", made.at, { expected: 401 });
  assert.equal(await status(chat(made.key)), 200);
});

test("no key is in the database, KV, an object's answer, a list or the log", async () => {
  await sleep(500);
  assert.ok(shown.length > 30);
  const { results } = await db.prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB '_cf*' AND name NOT GLOB 'sqlite*'").all();
  let rows = 0;
  for (const { name } of results) {
    const texts = (await db.prepare(`SELECT * FROM "${name}"`).all()).results.map((row) => JSON.stringify(row));
    rows += texts.length;
    assert.deepEqual(linesWith(shown, texts), [], name);
  }
  assert.ok(rows > 100);
  for (const { name } of (await kv.list()).keys) assert.deepEqual(linesWith(shown, [await kv.get(name)]), [], name);
  assert.deepEqual(linesWith(shown, (await owner.all(`${V1}/keys`)).map((key) => JSON.stringify(key))), []);
  assert.deepEqual(linesWith([...shown, ...Object.values(PROVIDER_SECRETS), owner.token], admin.logs), []);
});
