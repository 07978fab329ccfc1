// The configuration by way of the admin API: the draft, its entries and settings, publication and its way to the data
// plane.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { V1, startCatalog } from "./catalog.mjs";
import { ROOT } from "./harness.mjs";
import { eventually, freshId, send, sleep } from "./support.mjs";

let at;
let owner;
let mock;
let key;
let openai;
let draftOf;
let putDraft;
let publish;
let release;
let call;
let refused;

before(async () => {
  at = await startCatalog({
    vars: { GATEWAY__HTTP__HSTS_SECONDS: "77", GATEWAY__HTTP__MAX_JSON_DEPTH: "many" },
  });
  ({ owner, mock, key, openai, draftOf, putDraft, publish, release, call, refused } = at);
});
after(() => at?.stop());

describe("entries of the draft", () => {
  before(() => putDraft({}));

  test("are made, seen, changed and deleted by name", async () => {
    const steps = [
      ["providers", "acme", openai(), { headers: { "x-team": "a" } }],
      ["models", "acme/large", { provider: "acme" }, { max_output_tokens: 100 }],
      ["routes", "best", { targets: [{ model: "acme/large" }] }, { description: "The best" }],
      ["prices", "acme/large", { input: "3", output: "15" }, { cache_read: "0.3" }],
    ];
    for (const [section, name, settings, change] of steps) {
      const where = `${V1}/${section}/${encodeURIComponent(name)}`;
      await owner.call("GET", where, { expected: 404 });
      await owner.call("PUT", where, { body: settings, headers: { "if-match": '"1"' }, expected: 412 });
      const made = await owner.call("PUT", where, { body: settings, expected: 200 });
      assert.deepEqual([made.data.name, made.data.settings, made.etag], [name, settings, '"1"']);
      const changed = await owner.call("PATCH", where, { body: change, headers: { "if-match": '"1"' }, expected: 200 });
      assert.deepEqual([changed.data.settings, changed.etag], [{ ...settings, ...change }, '"2"']);
      await owner.call("PATCH", where, { body: change, headers: { "if-match": '"1"' }, expected: 412 });
      const removed = Object.fromEntries(Object.keys(change).map((field) => [field, null]));
      assert.deepEqual((await owner.patch(where, removed)).settings, settings);
      const got = await owner.call("GET", where, { expected: 200 });
      assert.deepEqual([got.data.settings, got.etag, got.data.created_at], [settings, '"3"', made.data.created_at]);
      assert.ok((await owner.all(`${V1}/${section}`)).some((entry) => entry.name === name));
    }
    const document = (await owner.get(`${V1}/config/draft`)).document;
    for (const [section, name, settings] of steps) assert.deepEqual(document[section], { [name]: settings });

    const provider = await refused("DELETE", "/providers/acme", undefined, 409);
    assert.deepEqual([provider.code, provider.paths], ["in_use", ["models.acme/large"]]);
    const model = await refused("DELETE", "/models/acme%2Flarge", undefined, 409);
    assert.deepEqual(model.paths.sort(), ["prices.acme/large", "routes.best"]);
    for (const [section, name] of steps.reverse()) {
      const where = `${V1}/${section}/${encodeURIComponent(name)}`;
      await owner.call("DELETE", where, { headers: { "if-match": '"1"' }, expected: 412 });
      await owner.delete(where, { headers: { "if-match": '"3"' } });
      await owner.call("DELETE", where, { expected: 404 });
    }
    assert.deepEqual((await owner.get(`${V1}/config/draft`)).document, {});
  });

  test("are told everything that is wrong with them", async () => {
    const wrong = async (where, body) => (await refused("PUT", where, body, 400)).paths;
    const provider = { dialect: "openai", base_url: "ftp://x", credential: "MASTER_SECRET", headers: { cookie: "a" } };
    assert.deepEqual((await wrong("/providers/p", provider)).sort(), ["base_url", "credential", "headers.cookie"]);
    assert.deepEqual(await wrong("/providers/p", openai({ timeouts: { idle_ms: 1 } })), ["timeouts.idle_ms"]);
    assert.deepEqual(await wrong("/providers/p", openai({ timeouts: { nope_ms: 1 } })), ["timeouts.nope_ms"]);
    assert.deepEqual(await wrong("/providers/p", openai({ credential: "stored:crd_nope" })), ["credential"]);
    assert.deepEqual(await wrong("/models/m", { provider: "nobody" }), ["provider"]);
    assert.deepEqual(await wrong("/prices/m", { input: "1" }), [""]);
    assert.deepEqual(await wrong("/prices/m", { input: 1 }), ["input"]);
    const targets = [{ model: "a" }, { model: "b" }];
    assert.deepEqual(await wrong("/routes/r", { targets }), ["targets[0].model", "targets[1].model"]);
  });

  test("share their names as far as callers could confuse them", async () => {
    await putDraft(draftOf({ routes: { best: { targets: [{ model: "small" }] } } }));
    const taken = await refused("PUT", "/models/best", { provider: "mock" }, 400);
    assert.match(taken.data.errors[0].message, /route of this name/);
    const other = await refused("PUT", "/routes/small", { targets: [{ model: "small" }] }, 400);
    assert.match(other.data.errors[0].message, /model of this name/);
  });

  test("keep a route's targets with it", async () => {
    await putDraft(draftOf({ models: Object.fromEntries(["a", "b", "c"].map((name) => [name, { provider: "mock" }])) }));
    const targets = async () =>
      (await at.db.prepare("SELECT model FROM route_targets WHERE route = 'r' ORDER BY position").all()).results.map(
        ({ model }) => model,
      );
    const put = (models) => owner.put(`${V1}/routes/r`, { targets: models.map((model) => ({ model })) });
    await put(["a", "b", "c"]);
    assert.deepEqual(await targets(), ["a", "b", "c"]);
    await put(["c", "a"]);
    assert.deepEqual(await targets(), ["c", "a"]);
    await owner.delete(`${V1}/models/b`);
    await refused("DELETE", "/models/a", undefined, 409);
    await owner.delete(`${V1}/routes/r`);
    assert.deepEqual(await targets(), []);
  });

  test("know which routes lead to which", async () => {
    const targets = [{ model: "small" }];
    await putDraft(draftOf({ routes: { inner: { targets }, other: { targets } } }));
    const nested = {
      targets: [{ route: "inner" }, { model: "small" }],
      fallbacks: { context_length: ["other"] },
      shadow: { model: "small", account: "lab" },
    };
    const wrong = await refused(
      "PUT",
      "/routes/outer",
      { targets: [{ route: "nope" }], fallbacks: { auth: ["small", "none"] }, shadow: { model: "inner", account: "lab" } },
      400,
    );
    const paths = wrong.data.errors.map(({ path }) => path);
    assert.deepEqual(paths, ["targets[0].route", "fallbacks.auth[1]", "shadow.model"]);
    await owner.put(`${V1}/routes/outer`, nested);
    for (const name of ["inner", "other"]) {
      const used = await refused("DELETE", `/routes/${name}`, undefined, 409);
      assert.deepEqual(used.data.errors.map(({ path }) => path), ["routes.outer"]);
    }
    const rows = async () =>
      (await at.db.prepare("SELECT position FROM route_targets WHERE route = 'outer'").all()).results.map(
        ({ position }) => position,
      );
    assert.deepEqual(await rows(), [1]);
    await owner.put(`${V1}/routes/outer`, { targets: [{ model: "small" }, { route: "inner" }] });
    assert.deepEqual(await rows(), [0]);
    await owner.delete(`${V1}/routes/other`);
    await owner.delete(`${V1}/routes/outer`);
    await owner.delete(`${V1}/routes/inner`);
    // The whole draft at once, as an import writes it.
    await putDraft(draftOf({ routes: { outer: nested, inner: { targets }, other: { targets } } }));
    assert.deepEqual(await rows(), [1]);
  });

  test("are listed page by page, whatever they are called", async () => {
    const names = ["a", "B", 'quo"te', "back\\slash", "sla/sh", "ünï", "per%cent", "sp ace"];
    const models = Object.fromEntries(names.map((name) => [name, { provider: "mock" }]));
    await putDraft(draftOf({ models }));
    const listed = await owner.all(`${V1}/models`, 3);
    assert.deepEqual(listed.map(({ name }) => name).sort(), [...names].sort());
    for (const name of names) {
      assert.equal((await owner.get(`${V1}/models/${encodeURIComponent(name)}`)).name, name);
    }
    assert.deepEqual((await owner.get(`${V1}/config/draft`)).document.models, models);
  });
});

describe("settings", () => {
  test("are everything that is no entry", async () => {
    await putDraft(draftOf({ http: { hsts_seconds: 5 } }));
    const got = await owner.call("GET", `${V1}/settings`, { expected: 200 });
    assert.deepEqual(got.data, { http: { hsts_seconds: 5 } });
    const headers = { "if-match": got.etag };
    const body = { http: { max_json_depth: 20 }, cors: { allowed_origins: ["https://a.example"] } };
    const changed = await owner.call("PATCH", `${V1}/settings`, { body, headers, expected: 200 });
    assert.deepEqual(changed.data, { ...body, http: { hsts_seconds: 5, max_json_depth: 20 } });
    await owner.call("PATCH", `${V1}/settings`, { body, headers, expected: 412 });
    assert.deepEqual(await owner.put(`${V1}/settings`, { http: { hsts_seconds: 6 } }), { http: { hsts_seconds: 6 } });
    const { document } = await owner.get(`${V1}/config/draft`);
    assert.deepEqual(document, draftOf({ http: { hsts_seconds: 6 } }));
  });

  test("are told everything that is wrong with them", async () => {
    const wrong = async (method, body) => (await refused(method, "/settings", body, 400)).paths;
    assert.deepEqual(await wrong("PUT", { providers: {} }), ["providers"]);
    assert.deepEqual(await wrong("PUT", { http: { nope: 1 } }), ["http.nope"]);
    const both = { http: { max_json_depth: 0 }, admin: { allowed_ip_ranges: ["x"] } };
    assert.ok((await wrong("PUT", both)).includes("http.max_json_depth"));
    assert.deepEqual(await wrong("PATCH", { admin: { allowed_ip_ranges: ["x"] } }), ["admin.allowed_ip_ranges[0]"]);
  });
});

describe("the draft", () => {
  test("is replaced as a whole by who knows its state; what has not changed keeps its revision", async () => {
    await putDraft(draftOf({ models: { a: { provider: "mock" }, b: { provider: "mock" } } }));
    const before = await owner.call("GET", `${V1}/config/draft`, { expected: 200 });
    assert.equal(before.etag, `"${before.data.hash}"`);
    const kept = await owner.get(`${V1}/models/a`);
    const document = draftOf({
      models: { a: { provider: "mock" }, c: { provider: "other" } },
      providers: { mock: openai(), other: openai() },
      routes: { r: { targets: [{ model: "c" }, { model: "a" }] } },
      prices: { c: { input: "1" } },
      http: { hsts_seconds: 1 },
    });
    const headers = { "if-match": before.etag };
    const replaced = await owner.call("PUT", `${V1}/config/draft`, { body: { document }, headers, expected: 200 });
    assert.deepEqual(replaced.data.document, document);
    await owner.call("PUT", `${V1}/config/draft`, { body: { document: {} }, headers, expected: 412 });
    const after = await owner.call("GET", `${V1}/config/draft`, { expected: 200 });
    assert.deepEqual([after.data.document, after.etag], [document, replaced.etag]);
    assert.deepEqual(await owner.get(`${V1}/models/a`), kept);
    await owner.call("GET", `${V1}/models/b`, { expected: 404 });
    // The other way round: what was referred to goes.
    await putDraft(draftOf());
    assert.deepEqual((await owner.get(`${V1}/config/draft`)).document, draftOf());
  });

  test("is not replaced by what is wrong", async () => {
    const { hash } = await owner.get(`${V1}/config/draft`);
    const document = {
      htpp: {},
      http: { max_json_depth: 0 },
      providers: { p: { dialect: "klingon", base_url: "https://p.example" } },
      models: { m: { provider: "p" } },
    };
    const wrong = await refused("PUT", "/config/draft", { document }, 400);
    const told = ["document.htpp", "document.http.max_json_depth", "document.providers.p.dialect"];
    for (const path of told) assert.ok(wrong.paths.includes(path), `${path} of ${wrong.paths}`);
    const dangling = draftOf({ providers: { mock: openai({ credential: "stored:crd_nope" }) } });
    const credential = await refused("PUT", "/config/draft", { document: dangling }, 400);
    assert.deepEqual(credential.paths, ["document.providers.mock.credential"]);
    for (const document of [[], "text", 1, null]) await refused("PUT", "/config/draft", { document }, 400);
    assert.equal((await owner.get(`${V1}/config/draft`)).hash, hash);
  });

  test("is validated, with everything that is wrong at once", async () => {
    await putDraft(draftOf());
    const good = await owner.post(`${V1}/config/validate`);
    assert.deepEqual(good, { valid: true, errors: [], warnings: [] });
    const document = {
      providers: { p: { dialect: "openai", base_url: "https://10.0.0.1/v1", credential: "NOBODYS_KEY" } },
      models: { m: { provider: "p" } },
    };
    const warned = await owner.post(`${V1}/config/validate`, { document });
    assert.equal(warned.valid, true);
    assert.deepEqual(
      warned.warnings.map(({ path }) => path),
      ["providers.p.base_url", "providers.p.credential"],
    );
    const wrong = await owner.post(`${V1}/config/validate`, {
      document: { ...document, models: { m: { provider: "q" } }, prices: { x: {} }, routes: { m: { targets: [{ model: "y" }] } } },
    });
    assert.equal(wrong.valid, false);
    assert.deepEqual(
      wrong.errors.map(({ path }) => path),
      ["models.m.provider", "routes.m", "routes.m.targets[0].model", "prices.x"],
    );
    for (const document of [[], "text", 1]) {
      assert.equal((await owner.post(`${V1}/config/validate`, { document })).valid, false);
    }
  });

  test("is compared with what is current", async () => {
    const current = await release(draftOf({ http: { hsts_seconds: 10 } }));
    assert.deepEqual(await owner.post(`${V1}/config/diff`), { from: current.version, to: null, changes: [] });
    await owner.patch(`${V1}/settings`, { http: { hsts_seconds: 11 } });
    const [change] = (await owner.post(`${V1}/config/diff`)).changes;
    assert.deepEqual(change, { path: "http.hsts_seconds", kind: "changed", before: 10, after: 11 });
    const { changes } = await owner.post(`${V1}/config/diff`, { document: draftOf() });
    assert.deepEqual(changes, [{ path: "http", kind: "removed", before: { hsts_seconds: 10 } }]);
  });

  test("is tried with sample requests, as the keys that they name", async () => {
    const { api_key: _, ...restricted } = await owner.post(`${V1}/accounts/team/keys`, {
      name: "restricted",
      models: ["small"],
      limits: [{ dimension: "requests", period: "minute", amount: 5 }],
    });
    const budget = await owner.post(`${V1}/accounts/team/limits`, { dimension: "cost", period: "month", amount: 1_000_000 });
    await putDraft(
      draftOf({
        models: { small: { provider: "mock", upstream_model: "mock-small" }, off: { provider: "mock", enabled: false } },
        routes: { best: { targets: [{ model: "off" }, { model: "small" }] } },
        prices: { small: { input: "1", output: "2" } },
      }),
    );
    const samples = [
      { model: "best", input_tokens: 1_000, max_tokens: 500 },
      { model: "small", key_id: restricted.id },
      { model: "best", key_id: restricted.id },
      { body: { model: "small", max_tokens: 3, messages: [{ role: "user", content: "hello" }] } },
      { model: "small", endpoint: "/v1/messages" },
    ];
    const { results, errors } = await owner.post(`${V1}/config/simulate`, { requests: samples });
    assert.deepEqual(errors, []);
    const [routed, scoped, foreign, body, messages] = results;
    assert.deepEqual([routed.route, routed.target.model, routed.target.upstream_model], ["best", "small", "mock-small"]);
    const [off] = routed.skipped;
    assert.deepEqual([off.model, off.code, off.reason], ["off", "model_disabled", "the model is disabled"]);
    const priced = { unpriced: false, price_source: "configured" };
    assert.deepEqual(routed.cost, { ...priced, input_nanodollars: 1_000_000, max_nanodollars: 2_000_000 });
    const limits = (await owner.all(`${V1}/accounts/team/limits`)).map(({ id }) => id).sort();
    assert.deepEqual([...scoped.limits].sort(), limits);
    assert.ok(scoped.limits.includes(budget.id));
    assert.equal(foreign.error.code, "model_not_found");
    assert.deepEqual([body.max_output_tokens, body.error], [3, null]);
    assert.deepEqual([messages.error, messages.target.lane], [null, "translated"]);

    const invalid = await owner.post(`${V1}/config/simulate`, { document: { models: { m: { provider: "x" } } }, requests: [{ model: "m" }] });
    assert.deepEqual([invalid.results, invalid.errors[0].path], [[], "models.m.provider"]);
    const wrong = await refused("POST", "/config/simulate", { requests: [{}, { model: "m", key_id: "key_nope" }] }, 400);
    assert.deepEqual(wrong.paths, ["requests[0].model", "requests[1].key_id"]);
    await owner.delete(`${V1}/accounts/team/limits/${budget.id}`);
  });

  test("has a schema", async () => {
    const schema = await owner.get(`${V1}/config/schema`);
    assert.deepEqual(schema, JSON.parse(await readFile(path.join(ROOT, "config/schema.json"), "utf8")));
  });
});

describe("a publication", () => {
  test("reaches a busy isolate within two seconds, and an idle one at its first request", async () => {
    const first = await release(draftOf({ http: { hsts_seconds: 100 } }), "the first");
    await eventually(async () => (await call("small")).version === first.version, "the first version");

    await owner.patch(`${V1}/settings`, { http: { hsts_seconds: 101 } });
    let busy = true;
    const seen = [];
    const load = (async () => {
      while (busy) {
        seen.push({ version: (await call("small")).version, at: Date.now() });
        await sleep(50);
      }
    })();
    await sleep(300);
    const second = await publish({ comment: "the second", parent: first.version });
    const published = Date.now();
    await sleep(2_300);
    busy = false;
    await load;
    const late = seen.filter(({ version, at }) => at > published + 2_000 && version !== second.version);
    assert.deepEqual(late, []);
    assert.ok(seen.some(({ version }) => version === first.version) && seen.at(-1).version === second.version);

    await owner.patch(`${V1}/settings`, { http: { hsts_seconds: 102 } });
    const third = await publish();
    await sleep(2_200);
    assert.equal((await call("small")).version, third.version, "an idle isolate asks before it serves");
    assert.equal(third.parent, second.version);
    assert.equal(third.version, `${third.sequence}-${(await owner.get(`${V1}/config/draft`)).hash}`);
  });

  test("is refused if it says nothing new, or another one came first", async () => {
    const current = await release(draftOf({ http: { hsts_seconds: 200 } }));
    assert.equal((await refused("POST", "/config/publish", {}, 409)).code, "nothing_to_publish");
    await owner.patch(`${V1}/settings`, { http: { hsts_seconds: 201 } });
    assert.equal((await refused("POST", "/config/publish", { parent: current.parent }, 409)).code, "superseded");

    const replies = await Promise.all(
      [1, 2, 3].map((n) => owner.call("POST", `${V1}/config/publish`, { body: { comment: `${n}` }, expected: [201, 409] })),
    );
    assert.deepEqual(replies.map(({ status }) => status).sort(), [201, 409, 409]);
    const versions = await owner.all(`${V1}/config/versions`, 2);
    assert.deepEqual(versions.map(({ sequence }) => sequence), versions.map((_, nth) => versions.length - nth));
    assert.deepEqual(versions.map(({ current }) => current), versions.map((_, nth) => nth === 0));
  });

  test("never makes current what is wrong, however it got into the draft", async () => {
    const { version } = await release(draftOf({ http: { hsts_seconds: 300 } }));
    const set = (document) => at.db.prepare("UPDATE settings SET document = ?").bind(JSON.stringify(document)).run();
    await set({ http: { max_json_depth: 0, hsts_seconds: "soon" }, htpp: {} });
    const validation = await owner.post(`${V1}/config/validate`);
    const wrong = await refused("POST", "/config/publish", {}, 409);
    assert.equal(wrong.code, "invalid_configuration");
    assert.deepEqual(wrong.paths, validation.errors.map(({ path }) => path));
    assert.deepEqual(wrong.paths, ["http.hsts_seconds", "htpp", "http.max_json_depth"]);
    assert.equal((await owner.get(`${V1}/config/versions/current`)).version, version);
    await set({});
  });

  test("can be taken back; the draft goes back with it", async () => {
    const { id } = await owner.post(`${V1}/credentials`, { name: freshId(), value: "to be deleted" });
    const gone = await release(draftOf({ providers: { mock: openai({ credential: `stored:${id}` }) } }));
    const good = await release(draftOf({ http: { hsts_seconds: 400 } }), "good");
    const bad = await release({ http: { hsts_seconds: 401 } }, "bad");
    await eventually(async () => (await call("small")).status === 404, "the model is gone");

    const back = await owner.post(`${V1}/config/rollback`, { version: good.version, comment: "back" });
    assert.deepEqual([back.restored_from, back.parent, back.sequence], [good.version, bad.version, bad.sequence + 1]);
    assert.equal(back.version.split("-")[1], good.version.split("-")[1]);
    await eventually(async () => (await call("small")).version === back.version, "the restored version");
    assert.deepEqual((await owner.get(`${V1}/config/draft`)).document, draftOf({ http: { hsts_seconds: 400 } }));
    assert.deepEqual((await owner.get(`${V1}/models/small`)).settings, draftOf().models.small);
    assert.equal((await refused("POST", "/config/rollback", { version: good.version }, 409)).code, "nothing_to_publish");
    await refused("POST", "/config/rollback", { version: "1-nope" }, 404);

    await owner.delete(`${V1}/credentials/${id}`);
    const lost = await refused("POST", "/config/rollback", { version: gone.version }, 409);
    assert.deepEqual([lost.code, lost.paths], ["invalid_configuration", ["providers.mock.credential"]]);
  });

  test("stays as it was, and can be seen and compared", async () => {
    const older = await release(draftOf({ http: { hsts_seconds: 500 } }), "older");
    const newer = await release(draftOf({ cors: { max_age_seconds: 5 } }), "newer");
    const seen = await owner.get(`${V1}/config/versions/${older.version}`);
    assert.deepEqual([seen.document, seen.comment, seen.author], [draftOf({ http: { hsts_seconds: 500 } }), "older", "Owner"]);
    assert.deepEqual([seen.current, older.current], [false, true]);
    assert.equal((await owner.get(`${V1}/config/versions/current`)).version, newer.version);
    await refused("GET", "/config/versions/0-nope", undefined, 404);
    const compared = await owner.get(`${V1}/config/versions/${newer.version}/diff`);
    assert.deepEqual([compared.from, compared.to], [older.version, newer.version]);
    assert.deepEqual(compared.changes.map(({ path, kind }) => [path, kind]), [["cors", "added"], ["http", "removed"]]);
    const backwards = await owner.get(`${V1}/config/versions/${older.version}/diff?with=current`);
    assert.deepEqual([backwards.from, backwards.to], [newer.version, older.version]);
    assert.deepEqual(backwards.changes.map(({ kind }) => kind), ["removed", "added"]);
    const versions = await owner.all(`${V1}/config/versions`);
    const first = await owner.get(`${V1}/config/versions/${versions.at(-1).version}/diff`);
    assert.equal(first.from, null);
    await assert.rejects(at.db.prepare("UPDATE config_versions SET document = '{}'").run(), /never changes/);
  });

  test("stands above the deployment's variables, and these above the defaults", async () => {
    const version = await release(draftOf());
    await eventually(async () => (await call("small")).version === version.version, "the version");
    const before = await owner.get(`${V1}/config/effective`);
    assert.deepEqual([before.version, before.document.http.hsts_seconds], [version.version, 77]);
    assert.ok(before.origins.some(({ path, origin }) => path === "http.hsts_seconds" && origin === "environment"));
    assert.deepEqual(before.problems.map(({ path }) => path), ["GATEWAY__HTTP__MAX_JSON_DEPTH"]);
    assert.equal(before.document.http.max_json_depth, 64, "its default");
    const models = await send({ url: `${at.url}/v1/models`, headers: { authorization: `Bearer ${key}` } });
    assert.match(models.headers["strict-transport-security"], /max-age=77/);

    const above = await release(draftOf({ http: { hsts_seconds: 78 } }));
    await eventually(async () => (await call("small")).version === above.version, "the version");
    const after = await owner.get(`${V1}/config/effective`);
    assert.equal(after.document.http.hsts_seconds, 78);
    assert.ok(after.origins.some(({ path, origin }) => path === "http.hsts_seconds" && origin === "published"));
    assert.deepEqual(after.document.models.small.upstream_model, "mock-small");
  });

  test("is in the audit log with what it changed", async () => {
    await putDraft(draftOf());
    await putDraft(draftOf({ http: { hsts_seconds: 600 } }));
    const version = await publish({ comment: "audited" });
    const { results } = await at.db
      .prepare("SELECT action, target_id, before, after FROM audit_log ORDER BY sequence DESC LIMIT 2")
      .all();
    const [published, replaced] = results.map((row) => ({ ...row, after: JSON.parse(row.after) }));
    assert.deepEqual([published.action, published.target_id], ["config:publish", version.version]);
    assert.equal(published.after.comment, "audited");
    assert.equal(replaced.action, "config:replace_draft");
    assert.deepEqual(replaced.after.changes, { http: { hsts_seconds: 600 } });
  });

  test("can be made from a file", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "llm-gateway-"));
    const { token } = await owner.post(`${V1}/users`, { kind: "service", name: "ci" }).then(async ({ id }) => {
      await owner.put(`${V1}/users/${id}/roles/operator`, undefined);
      return owner.post(`${V1}/users/${id}/tokens`, { name: "ci" });
    });
    const env = { ...process.env, GATEWAY_ADMIN_TOKEN: token };
    const script = (...args) =>
      new Promise((resolve) => {
        const options = { env, encoding: "utf8" };
        execFile(path.join(ROOT, "scripts/config"), [...args, "--url", at.url], options, (error, stdout, stderr) =>
          resolve({ status: error?.code ?? 0, stdout, stderr }),
        );
      });
    try {
      const file = path.join(folder, "gateway.toml");
      await writeFile(
        file,
        `[http]\nhsts_seconds = 700\n[providers.mock]\ndialect = "openai"\nbase_url = "${mock.url}/v1"\n[models.small]\nprovider = "mock"\n`,
      );
      const differs = await script("diff", file);
      assert.equal(differs.status, 1, differs.stderr);
      assert.match(differs.stdout, /hsts_seconds/);
      const applied = await script("apply", file, "--comment", "from a file");
      assert.equal(applied.status, 0, applied.stderr);
      const current = await owner.get(`${V1}/config/versions/current`);
      assert.deepEqual([current.comment, current.document.http.hsts_seconds], ["from a file", 700]);
      assert.equal((await script("diff", file)).status, 0);
      const exported = await script("export");
      assert.match(exported.stdout, /hsts_seconds = 700/);
      await writeFile(file, "[http]\nmax_json_depth = 0\n");
      assert.equal((await script("apply", file)).status, 1);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
