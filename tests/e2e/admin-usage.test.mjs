// What callers used and spent, the records of their requests, and alerts over it: from a request through the account's
// ledger into the database and out of the admin API.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { startAdmin, userWith } from "./admin.mjs";
import { startMock } from "./harness.mjs";
import { PROVIDER_SECRETS, ask, config, eventually, freshId, send } from "./support.mjs";

const DAY = 86_400;
const NUMBERS = [
  "requests", "errors", "unpriced", "estimated", "input", "cache_read", "cache_write_5m", "cache_write_1h",
  "input_audio", "input_image", "output", "output_reasoning", "output_audio", "output_image", "web_searches", "images", "audio_ms", "characters",
  "cost_nanos",
]; // prettier-ignore

/** How many rows an export may have in this file's gateway. */
const MOST_ROWS = 8;

let mock, admin, owner, reader, viewer;
const keys = {};
/** What was asked, with what should come of it. */
const asked = [];

before(async () => {
  mock = await startMock();
  admin = await startAdmin({
    mockUrl: mock.url,
    secrets: PROVIDER_SECRETS,
    config: config({
      prices: {
        // Nano-dollars a token: 2,500 in, 1,250 read from the cache, 10,000 out; and a million a request.
        "gpt-test": { input: "2.5", cache_read: "1.25", output: "10", per_request: "0.001" },
        "gpt-loose": { input: "0.000001", output: "0" },
      },
      records: { flush_ms: 100 },
      admin: { csv_max_rows: MOST_ROWS, usage_max_days: 30 },
    }),
  });
  owner = admin.owner;
  for (const id of ["team-a", "team-b"]) await owner.post("/admin/v1/accounts", { id, name: id });
  reader = await userWith(owner, "auditor", "team-a");
  viewer = await userWith(owner, "viewer", "team-a");
  const make = (account, name, more = {}) => owner.post(`/admin/v1/accounts/${account}/keys`, { name, ...more });
  keys.a1 = await make("team-a", "a1", { user_id: reader.user.id });
  keys.a2 = await make("team-a", "a2");
  keys.b1 = await make("team-b", "b1");
});

after(async () => {
  await admin?.gateway.stop();
  await mock?.stop();
});

/** Calls a model and notes what should be charged. */
async function call(name, { model = "gpt-test", usage, status, directives = {} }) {
  const id = freshId();
  const key = keys[name];
  const { input, cached = 0, output } = usage ?? {};
  const told = usage ? { usage_in: input + cached, cached, usage_out: output } : {};
  const reply = await send({
    url: `${admin.url}/v1/chat/completions`,
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${key.api_key}`, "x-request-id": id },
    body: JSON.stringify({ model, messages: ask({ ...told, ...(status && { status }), ...directives }) }),
  });
  assert.equal(reply.status, status ?? 200, reply.text);
  const priced = { "gpt-test": [2_500, 1_250, 10_000, 1_000_000], "gpt-loose": [0.001, 0.001, 0, 0] }[model];
  const [perInput, perCached, perOutput, perRequest] = priced ?? [0, 0, 0, 0];
  asked.push({
    id,
    account: key.account_id,
    key: key.id,
    user: key.user_id ?? "",
    model,
    provider: { "gpt-test": "openai", "gpt-loose": "loose", "gpt-inline": "inline" }[model],
    status: reply.status,
    requests: 1,
    errors: status ? 1 : 0,
    unpriced: usage && !priced ? 1 : 0,
    input: input ?? 0,
    cache_read: cached,
    output: output ?? 0,
    cost_nanos: usage ? Math.round(perInput * input + perCached * cached + perOutput * output + perRequest) : 0,
  });
  return id;
}

/** The sums that a report should have, by what it is summed up by. */
function expected(by, only = () => true) {
  const groups = new Map();
  for (const one of asked.filter(only)) {
    const group = by(one);
    if (!groups.has(group)) groups.set(group, Object.fromEntries(NUMBERS.map((name) => [name, 0])));
    for (const name of NUMBERS) groups.get(group)[name] += one[name] ?? 0;
  }
  return Object.fromEntries(groups);
}

const groupsOf = (report) => Object.fromEntries(report.data.map(({ group, ...numbers }) => [group, numbers]));

/** Rows of comma-separated values as RFC 4180 has them. */
function parseCsv(text) {
  const rows = [[]];
  const cell = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/gy;
  let at = 0;
  while (at < text.length) {
    cell.lastIndex = at;
    const found = cell.exec(text);
    assert.ok(found, `not CSV at ${JSON.stringify(text.slice(at, at + 40))}`);
    rows.at(-1).push(found[1]?.replaceAll('""', '"') ?? found[2]);
    at = cell.lastIndex;
    if (found[3] === "\r\n") rows.push([]);
  }
  assert.deepEqual(rows.pop(), [], "the last line ends like every other");
  const [header, ...lines] = rows;
  return lines.map((line) => {
    assert.equal(line.length, header.length);
    return Object.fromEntries(header.map((name, nth) => [name, line[nth]]));
  });
}

/** Puts usage into the database, `minute` in Unix minutes. */
async function insertUsage(rows) {
  const names = ["minute", "account_id", "key_id", "user_id", "model", "provider", ...NUMBERS];
  const statement = (row) => {
    const full = { account_id: "team-b", key_id: "key-x", user_id: "", provider: "p", requests: 1, ...row };
    const literal = (value) => (typeof value === "string" ? `'${value.replaceAll("'", "''")}'` : String(value ?? 0));
    return `INSERT INTO usage (${names}) VALUES (${names.map((name) => literal(full[name]))})`;
  };
  await admin.db.batch(rows.map((row) => admin.db.prepare(statement(row))));
}

const problem = async (caller, path, status = 400) => (await caller.call("GET", path, { expected: status })).data;

describe("usage", () => {
  test("of every request arrives, with its price", async () => {
    await call("a1", { usage: { input: 800, cached: 200, output: 50 } });
    await call("a1", { usage: { input: 10, output: 3 } });
    await call("a2", { usage: { input: 7, output: 1 } });
    await call("a2", { model: "gpt-inline", usage: { input: 100, output: 20 } });
    await call("b1", { usage: { input: 5_000, output: 900 } });
    await call("b1", { model: "gpt-loose", usage: { input: 3_000, output: 5 } });
    await call("b1", { status: 400 });
    await eventually(async (seen) => {
      const { total } = await owner.get("/admin/v1/usage");
      seen(total);
      return total.requests === asked.length;
    }, "all requests in the usage");
    const report = await owner.get("/admin/v1/usage");
    const all = expected(() => "");
    assert.deepEqual(groupsOf(report), all);
    assert.deepEqual({ group_by: report.group_by, truncated: report.truncated }, { group_by: "none", truncated: false });
    assert.equal(all[""].cost_nanos, 3_750_000 + 1_055_000 + 1_027_500 + 22_500_000 + 3, "as the prices say");
  });

  test("is summed up by whatever is asked for, the dearest first", async () => {
    const by = { account: "account", key: "key", user: "user", model: "model", provider: "provider" };
    for (const [group, field] of Object.entries(by)) {
      const report = await owner.get(`/admin/v1/usage?group_by=${group}`);
      assert.deepEqual(groupsOf(report), expected((one) => one[field]), group);
      const costs = report.data.map((row) => row.cost_nanos);
      assert.deepEqual(costs, costs.toSorted((a, b) => b - a), group);
      assert.deepEqual({ ...report.total, group: "" }, { group: "", ...expected(() => "")[""] }, group);
    }
    for (const [group, seconds] of [["hour", 3_600], ["day", DAY]]) {
      const report = await owner.get(`/admin/v1/usage?group_by=${group}`);
      assert.ok(report.data.length >= 1 && report.data.length <= 2, "a test may run over the end of an hour");
      const begins = report.data.map((row) => Number(row.group));
      assert.ok(begins.every((begin) => begin % seconds === 0 && Math.abs(Date.now() / 1000 - begin) < 2 * seconds));
      assert.deepEqual(begins, begins.toSorted((a, b) => a - b));
      assert.equal(report.total.requests, asked.length);
    }
  });

  test("is filtered", async () => {
    for (const [query, only] of [
      [`key_id=${keys.a1.id}`, (one) => one.key === keys.a1.id],
      [`user_id=${reader.user.id}`, (one) => one.user === reader.user.id],
      ["account_id=team-b", (one) => one.account === "team-b"],
      ["model=gpt-inline", (one) => one.model === "gpt-inline"],
      ["provider=loose&account_id=team-b", (one) => one.provider === "loose"],
      [`provider=loose&key_id=${keys.a1.id}`, () => false],
      ["model=nothing", () => false],
    ]) {
      const report = await owner.get(`/admin/v1/usage?group_by=model&${query}`);
      assert.deepEqual(groupsOf(report), expected((one) => one.model, only), query);
    }
    const nothing = await owner.get("/admin/v1/usage?model=nothing");
    assert.deepEqual(nothing.data, [nothing.total], "one sum is one row, be it of nothing");
  });

  test("covers whole minutes, and no more than it may", async () => {
    const now = Math.floor(Date.now() / 1000);
    const report = await owner.get(`/admin/v1/usage?from=${now - 3_599}&to=${now + 61}`);
    assert.equal(report.from, Math.floor((now - 3_599) / 60) * 60);
    assert.equal(report.to, Math.ceil((now + 61) / 60) * 60);
    assert.equal(report.total.requests, asked.length);
    const before = await owner.get(`/admin/v1/usage?from=${now - 2 * DAY}&to=${now - DAY}`);
    assert.equal(before.total.requests, 0);
    const standard = await owner.get("/admin/v1/usage");
    assert.ok([DAY, DAY + 60].includes(standard.to - standard.from), "a day unless told otherwise");

    for (const [query, field] of [
      [`from=${now}&to=${now}`, "to"],
      [`from=${now + DAY}`, "from"],
      [`from=${now - 30 * DAY - 1}&to=${now}`, "from"],
      ["from=9007199254740992", "from"],
      ["from=-1", "from"],
      ["group_by=colour", "group_by"],
      ["color=red", "color"],
    ]) {
      const { errors } = await problem(owner, `/admin/v1/usage?${query}`);
      assert.equal(errors[0].path, field, query);
    }
    await owner.get(`/admin/v1/usage?from=${now - 30 * DAY}&to=${now}`);
  });

  test("can be exported as CSV with the same sums", async () => {
    for (const group of ["none", "account", "key", "user", "model", "provider"]) {
      const reply = await owner.call("GET", `/admin/v1/usage.csv?group_by=${group}`, { expected: 200 });
      assert.match(reply.headers["content-disposition"], /^attachment; filename="/);
      const rows = parseCsv(reply.text);
      const report = await owner.get(`/admin/v1/usage?group_by=${group}`);
      const name = { none: "group", account: "account_id", key: "key_id", user: "user_id" }[group] ?? group;
      const told = rows.map((row) => ({
        group: row[name],
        ...Object.fromEntries(NUMBERS.map((number) => [number, Number(row[number])])),
      }));
      assert.deepEqual(told, report.data, group);
      for (const { cost_nanos, cost_dollars } of rows) {
        assert.match(cost_dollars, /^\d+\.\d{9}$/);
        assert.equal(BigInt(cost_dollars.replace(".", "")), BigInt(cost_nanos));
      }
    }
    const [row] = parseCsv((await owner.call("GET", "/admin/v1/usage.csv?group_by=day", { expected: 200 })).text);
    assert.equal(new Date(row.day).getTime() % (DAY * 1000), 0, "days are dates");
  });

  test("in an export is no formula, and an export is whole or none", async () => {
    const minute = Math.floor(Date.now() / 60_000) - 3 * 1440;
    const names = ["=HYPERLINK(\"http://x\",1)", "+1", "-1", "@sum", "plain", "a,\"b\"\nc"];
    await insertUsage(names.map((model, nth) => ({ minute, model, cost_nanos: 100 - nth })));
    const span = `from=${minute * 60}&to=${minute * 60 + 1}`;
    const { text } = await owner.call("GET", `/admin/v1/usage.csv?group_by=model&${span}`, { expected: 200 });
    const told = parseCsv(text).map((row) => row.model);
    assert.deepEqual(told, names.map((name) => (/^[=+\-@]/.test(name) ? `'${name}` : name)));

    await insertUsage(Array.from({ length: 5 }, (_, nth) => ({ minute, model: `more-${nth}`, cost_nanos: nth })));
    const refused = await problem(owner, `/admin/v1/usage.csv?group_by=model&${span}`);
    assert.equal(refused.code, "too_many_rows");
  });

  test("without a price is listed by model, as are models that have none", async () => {
    const { since, data } = await owner.get("/admin/v1/unpriced-models");
    assert.ok(since > Date.now() / 1000 - 31 * DAY && since < Date.now() / 1000 - 29 * DAY);
    const of = (name) => data.find(({ model }) => model === name);
    const used = of("gpt-inline");
    assert.deepEqual([used.provider, used.upstream_model, used.unpriced_now], ["inline", "mock-large", true]);
    const requests = asked.filter(({ model, unpriced }) => model === "gpt-inline" && unpriced).length;
    assert.equal(used.requests, requests);
    assert.ok(requests > 0 && used.last_at > Date.now() / 1000 - DAY);
    const { last_at, ...unused } = of("claude-test");
    assert.deepEqual([last_at, unused.requests, unused.unpriced_now], [null, 0, true]);
    assert.equal(of("gpt-test"), undefined);
    await problem(viewer, "/admin/v1/unpriced-models", 403);
  });

  test("in a report has a bound, and a report says what it left out", async () => {
    const minute = Math.floor(Date.now() / 60_000) - 7 * 1440;
    await admin.db
      .prepare(
        `WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n <= 10000)
         INSERT INTO usage (minute, account_id, key_id, user_id, model, provider, ${NUMBERS})
         SELECT ?1, 'many', 'key-' || n, '', 'm', 'p', ${NUMBERS.map((name) => (name === "cost_nanos" ? "n" : 1))} FROM n`,
      )
      .bind(minute)
      .run();
    const span = `from=${minute * 60}&to=${minute * 60 + 1}`;
    const { truncated, data, total } = await owner.get(`/admin/v1/usage?group_by=key&account_id=many&${span}`);
    assert.deepEqual({ truncated, rows: data.length }, { truncated: true, rows: 10_000 });
    assert.deepEqual([data[0].group, data.at(-1).group], ["key-10001", "key-2"], "what is left out is the cheapest");
    assert.deepEqual([total.requests, total.cost_nanos], [10_001, (10_001 * 10_002) / 2], "the sum is that of all");
  });

  test("is told exactly or not at all", async () => {
    const minute = Math.floor(Date.now() / 60_000) - 5 * 1440;
    const most = 2 ** 53 - 1;
    await insertUsage([
      { minute, model: "dear", cost_nanos: most - 1 },
      { minute, model: "cheap", cost_nanos: 1 },
      { minute: minute + 1, model: "dear", cost_nanos: 1 },
      { minute: minute + 2, model: "dear", cost_nanos: "9223372036854775807" },
      { minute: minute + 3, model: "dear", cost_nanos: "9223372036854775807" },
    ].map((row) => ({ ...row, cost_nanos: BigInt(row.cost_nanos) })));
    const path = (first, last) => `/admin/v1/usage?group_by=model&from=${first * 60}&to=${last * 60}`;
    const exact = await owner.get(path(minute, minute + 1));
    assert.equal(exact.total.cost_nanos, most);
    for (const last of [minute + 2, minute + 3, minute + 4]) {
      const refused = await problem(owner, path(minute, last));
      assert.equal(refused.code, "sum_too_large");
    }
  });

  test("of an account is seen by its own people alone", async () => {
    for (const caller of [reader, viewer]) {
      const report = await caller.get("/admin/v1/accounts/team-a/usage?group_by=account");
      assert.deepEqual(groupsOf(report), expected((one) => one.account, (one) => one.account === "team-a"));
      const csv = await caller.call("GET", "/admin/v1/accounts/team-a/usage.csv?group_by=account", { expected: 200 });
      assert.deepEqual(parseCsv(csv.text).map((row) => row.account_id), ["team-a"]);
      await caller.get("/admin/v1/accounts/team-a/usage?account_id=team-a");
      const { errors } = await problem(caller, "/admin/v1/accounts/team-a/usage?account_id=team-b");
      assert.equal(errors[0].path, "account_id");
      for (const path of ["usage", "usage.csv", "requests", "alerts/events", "audit"])
        await problem(caller, `/admin/v1/accounts/team-b/${path}`, 404);
      for (const path of ["usage", "usage.csv", "requests", "alerts/events", "alerts/rules", "audit", "audit/verify"])
        await problem(caller, `/admin/v1/${path}`, 403);
      // Another account's key in the filter finds nothing of it.
      const none = await caller.get(`/admin/v1/accounts/team-a/usage?key_id=${keys.b1.id}`);
      assert.equal(none.total.requests, 0);
    }
    await problem(owner, "/admin/v1/accounts/nothing/usage", 404);
  });
});

describe("request records", () => {
  const path = "/admin/v1/requests";
  const ids = (entries) => entries.map((entry) => entry.request_id);

  test("are there for every request, newest first", async () => {
    const entries = await eventually(async () => {
      const found = await owner.all(path);
      return found.length >= asked.length && found;
    }, "the records");
    assert.deepEqual(ids(entries).toSorted(), asked.map((one) => one.id).toSorted());
    for (let nth = 1; nth < entries.length; nth += 1) assert.ok(entries[nth - 1].at_ms >= entries[nth].at_ms);
    for (const one of asked) {
      const entry = entries.find((entry) => entry.request_id === one.id);
      const { account_id, key_id, user_id, model, provider, status } = entry;
      assert.deepEqual(
        { account_id, key_id, user_id, model, provider, status },
        {
          account_id: one.account,
          key_id: one.key,
          user_id: one.user,
          model: one.model,
          provider: one.provider,
          status: one.status,
        },
      );
      assert.equal(entry.cost_nanos, one.unpriced ? null : one.cost_nanos);
      assert.equal(entry.record.request_id, one.id);
    }
    const text = JSON.stringify(entries);
    for (const { api_key } of Object.values(keys)) assert.ok(!text.includes(api_key), "no key in a record");
    for (const secret of Object.values(PROVIDER_SECRETS)) assert.ok(!text.includes(secret));
    assert.ok(!text.includes("Say something."), "no body in a record");
  });

  test("are found by what they have", async () => {
    for (const [query, only] of [
      [`key_id=${keys.a2.id}`, (one) => one.key === keys.a2.id],
      [`key_id=${keys.a2.id}&account_id=team-b`, () => false],
      [`key_id=${keys.b1.id}&account_id=team-b&status=400`, (one) => one.status === 400],
      [`user_id=${reader.user.id}`, (one) => one.user === reader.user.id],
      ["user_id=", (one) => one.user === ""],
      ["account_id=team-a&model=gpt-test", (one) => one.account === "team-a" && one.model === "gpt-test"],
      ["provider=inline", (one) => one.provider === "inline"],
      ["status=400", (one) => one.status === 400],
      ["outcome=client_closed", () => false],
      ["from_ms=9007199254740990", () => false],
      ["to_ms=1", () => false],
      ["from_ms=1&to_ms=9007199254740991", () => true],
    ]) {
      const found = await owner.all(`${path}?${query}`);
      assert.deepEqual(ids(found).toSorted(), asked.filter(only).map((one) => one.id).toSorted(), query);
    }
    const [newest, next] = (await owner.get(path)).data;
    const until = await owner.get(`${path}?to_ms=${newest.at_ms}`);
    assert.deepEqual(ids(until.data)[0], next.request_id, "the end is not included");
    const since = await owner.get(`${path}?from_ms=${newest.at_ms}`);
    assert.deepEqual(ids(since.data), [newest.request_id], "the beginning is");
    for (const [query, field] of [
      ["from_ms=5&to_ms=5", "to_ms"],
      ["outcome=odd", "outcome"],
      ["status=x", "status"],
      ["limit=0", "limit"],
      ["cursor=x", "cursor"],
    ])
      assert.equal((await problem(owner, `${path}?${query}`)).errors[0].path, field, query);
  });

  test("are paged without a gap, even if they came at once or share an id", async () => {
    const rows = Array.from({ length: 12 }, (_, nth) => ({
      request: `same-${Math.floor(nth / 2) % 3}`,
      account: `twin-${nth % 2}`,
      at: 1_000 + Math.floor(nth / 6),
    }));
    const unique = rows.map((row, nth) => ({ ...row, request: `${row.request}-${Math.floor(nth / 6)}` }));
    await admin.db.batch(
      unique.map((row) =>
        admin.db
          .prepare(
            "INSERT INTO request_records (request_id, account_id, at_ms, key_id, user_id, model, provider, status, outcome, record) " +
              "VALUES (?1, ?2, ?3, 'twins', '', 'm', 'p', 200, 'completed', '{}')",
          )
          .bind(row.request, row.account, row.at),
      ),
    );
    const name = (entry) => `${entry.at_ms} ${entry.request_id} ${entry.account_id}`;
    const wanted = unique.map((row) => `${row.at} ${row.request} ${row.account}`).toSorted().reverse();
    for (const query of ["to_ms=2000", "key_id=twins"]) {
      for (const limit of [1, 5, 12]) {
        const found = await owner.all(`${path}?${query}`, limit);
        assert.deepEqual(found.map(name), wanted, `${query} by ${limit}`);
      }
    }
    const of = await owner.all(`${path}?account_id=twin-0`, 4);
    assert.deepEqual(of.map(name), wanted.filter((one) => one.endsWith("twin-0")));
  });

  test("can be looked at one by one, by whoever may", async () => {
    const [mine, theirs] = ["team-a", "team-b"].map((account) => asked.find((one) => one.account === account));
    const entry = await reader.get(`/admin/v1/accounts/team-a/requests/${mine.id}`);
    assert.deepEqual([entry.request_id, entry.record.model], [mine.id, mine.model]);
    await problem(reader, `/admin/v1/accounts/team-a/requests/${theirs.id}`, 404);
    await problem(reader, `/admin/v1/accounts/team-b/requests/${theirs.id}`, 404);
    await problem(viewer, `/admin/v1/accounts/team-a/requests/${mine.id}`, 403);
    const all = await reader.all("/admin/v1/accounts/team-a/requests", 2);
    const own = asked.filter((one) => one.account === "team-a").map((one) => one.id);
    assert.deepEqual(ids(all).toSorted(), own.toSorted());
    const other = await reader.get(`/admin/v1/accounts/team-a/requests?key_id=${keys.b1.id}`);
    assert.deepEqual(other.data, []);
    const { errors } = await problem(reader, "/admin/v1/accounts/team-a/requests?account_id=team-b");
    assert.equal(errors[0].path, "account_id");
  });
});

describe("alerts", () => {
  const rules = "/admin/v1/alerts/rules";
  const events = "/admin/v1/alerts/events";
  const settings = { name: "Busy", metric: "requests", threshold: 1, window_minutes: 60 };
  const open = async (rule) => (await owner.all(`${events}?open=true`)).filter((event) => event.rule_id === rule.id);
  const over = async (rule) => (await owner.all(`${events}?open=false`)).filter((event) => event.rule_id === rule.id);

  test("fire once while they hold, and resolve when they no longer do", async () => {
    const rule = await owner.post(rules, { ...settings, account_id: "team-a" });
    assert.deepEqual(await open(rule), []);
    await admin.scheduled();
    await admin.scheduled();
    const [event, ...more] = await open(rule);
    const { requests } = expected((one) => one.account)["team-a"];
    assert.deepEqual(more, []);
    assert.deepEqual(
      { ...event, id: "", started_at: 0 },
      {
        id: "",
        kind: "rule",
        rule_id: rule.id,
        account_id: "team-a",
        name: "Busy",
        metric: "requests",
        threshold: 1,
        value: requests,
        started_at: 0,
        resolved_at: null,
        detail: null,
        provider: null,
      },
    );
    assert.ok(Math.abs(event.started_at - Date.now() / 1000) < 60);
    // Two hours go by.
    await admin.db.prepare("UPDATE usage SET minute = minute - 120 WHERE account_id = 'team-a'").run();
    await admin.scheduled();
    assert.deepEqual(await open(rule), []);
    const [resolved] = await over(rule);
    assert.ok(resolved.id === event.id && resolved.resolved_at >= resolved.started_at);
    await admin.db.prepare("UPDATE usage SET minute = minute + 120 WHERE account_id = 'team-a'").run();
  });

  test("watch what they are told to", async () => {
    const day = { window_minutes: 1440 };
    const sums = expected(() => "")[""];
    const cases = [
      [{ metric: "errors", threshold: 1 }, 1],
      [{ metric: "errors", threshold: 2 }, null],
      [{ metric: "error_percent", threshold: 33, account_id: "team-b" }, 33],
      [{ metric: "error_percent", threshold: 34, account_id: "team-b" }, null],
      [{ metric: "cost", threshold: sums.cost_nanos }, sums.cost_nanos],
      [{ metric: "cost", threshold: sums.cost_nanos + 1 }, null],
      [{ metric: "unpriced", threshold: 1 }, 1],
      [{ metric: "unpriced", threshold: 1, model: "gpt-test" }, null],
      [{ metric: "total_tokens", threshold: 120, provider: "inline" }, 120],
      [{ metric: "requests", threshold: 1, account_id: "team-b", model: "gpt-loose" }, 1],
    ];
    const made = [];
    for (const [change] of cases) made.push(await owner.post(rules, { ...settings, ...day, ...change }));
    await admin.scheduled();
    for (const [nth, [change, value]] of cases.entries()) {
      const found = await open(made[nth]);
      assert.deepEqual(found.map((event) => event.value), value === null ? [] : [value], JSON.stringify(change));
    }
    for (const { id } of made) await owner.delete(`${rules}/${id}`);
    for (const rule of made) assert.deepEqual(await open(rule), [], "a rule that is gone has no open event");
  });

  test("with a window of weeks are looked at as soon as they are made or changed, whatever the sum", async () => {
    const most = 2 ** 53 - 1;
    const [{ sum }] = (await admin.db.prepare("SELECT TOTAL(cost_nanos) AS sum FROM usage").all()).results;
    assert.ok(sum > 2 ** 63, "there is more than any integer holds");
    const rule = await owner.post(rules, { ...settings, metric: "cost", threshold: most, window_minutes: 43_200 });
    await admin.scheduled();
    assert.deepEqual((await open(rule)).map((event) => event.value), [most]);
    await owner.delete(`${rules}/${rule.id}`);
  });

  test("end with the rule as it was", async () => {
    const rule = await owner.post(rules, settings);
    const fires = async () => {
      await admin.scheduled();
      assert.equal((await open(rule)).length, 1);
    };
    const path = `${rules}/${rule.id}`;
    await fires();
    await owner.patch(path, { name: "Very busy" });
    assert.equal((await open(rule)).length, 1, "a name changes nothing");
    await owner.patch(path, { threshold: 1_000_000 });
    assert.equal((await open(rule)).length, 0);
    await admin.scheduled();
    assert.equal((await open(rule)).length, 0);
    await owner.patch(path, { threshold: 2 });
    await fires();
    assert.equal((await open(rule))[0].name, "Very busy");
    await owner.patch(path, { enabled: false });
    assert.equal((await open(rule)).length, 0);
    await admin.scheduled();
    assert.equal((await open(rule)).length, 0);
    await owner.patch(path, { enabled: true });
    await fires();
    await owner.delete(path);
    assert.equal((await open(rule)).length, 0);
    assert.equal((await over(rule)).length, 3, "what a rule raised outlives it");
  });

  test("are kept like everything else", async () => {
    const created = await owner.call("POST", rules, { body: { ...settings, account_id: "team-a" }, expected: 201 });
    const path = `${rules}/${created.data.id}`;
    assert.equal(created.etag, '"1"');
    const seen = await owner.call("GET", path, { expected: 200 });
    assert.deepEqual([seen.data, seen.etag], [created.data, '"1"']);
    const changed = await owner.call("PATCH", path, {
      body: { account_id: null, model: "gpt-test", metric: "cost", threshold: 5 },
      headers: { "if-match": '"1"' },
      expected: 200,
    });
    assert.deepEqual([changed.data.account_id, changed.data.model, changed.etag], [null, "gpt-test", '"2"']);
    assert.deepEqual((await owner.get(path)).threshold, 5);
    for (const [method, body] of [["PATCH", { threshold: 6 }], ["DELETE", undefined]])
      await owner.call(method, path, { body, headers: { "if-match": '"1"' }, expected: 412 });
    const listed = await owner.all(rules, 1);
    assert.ok(listed.some((rule) => rule.id === created.data.id));
    assert.deepEqual(listed.map((rule) => rule.id), (await owner.all(rules)).map((rule) => rule.id));
    assert.ok((await owner.all(`${rules}?account_id=team-a`)).every((rule) => rule.account_id === "team-a"));
    await owner.delete(path, { headers: { "if-match": '"2"' } });
    await problem(owner, path, 404);
    await owner.call("DELETE", path, { expected: 404 });

    const wrong = async (body, ...fields) => {
      const { data } = await owner.call("POST", rules, { body: { ...settings, ...body }, expected: 400 });
      assert.deepEqual(data.errors.map((error) => error.path).toSorted(), fields.toSorted(), JSON.stringify(body));
    };
    await wrong({ metric: "error_percent", threshold: 101, account_id: "nothing" }, "account_id", "threshold");
    await wrong({ window_minutes: 0, name: "" }, "name", "window_minutes");
    await wrong({ metric: "colour" }, "metric");
    await wrong({ threshold: 2 ** 53 }, "threshold");
    await reader.call("POST", rules, { body: settings, expected: 403 });
  });

  test("of an account are told to its people", async () => {
    const [ours, theirs] = [
      await owner.post(rules, { ...settings, account_id: "team-a" }),
      await owner.post(rules, { ...settings, account_id: "team-b" }),
    ];
    await admin.scheduled();
    const path = "/admin/v1/accounts/team-a/alerts/events";
    const told = await viewer.all(path, 1);
    assert.ok(told.some((event) => event.rule_id === ours.id));
    assert.ok(told.every((event) => event.account_id === "team-a"));
    const lasting = await viewer.all(`${path}?open=true`);
    assert.deepEqual(lasting.filter((event) => event.resolved_at !== null), []);
    assert.ok(lasting.some((event) => event.rule_id === ours.id));
    assert.ok((await viewer.all(`${path}?open=false`)).every((event) => event.resolved_at !== null));
    const { errors } = await problem(viewer, `${path}?account_id=team-b`);
    assert.equal(errors[0].path, "account_id");
    const all = await owner.all(`${events}?account_id=team-b&open=true`);
    assert.ok(all.some((event) => event.rule_id === theirs.id) && all.every((event) => event.account_id === "team-b"));
    for (const { id } of [ours, theirs]) await owner.delete(`${rules}/${id}`);
  });
});
