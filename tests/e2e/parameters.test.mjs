// Every parameter of the configuration is real: for each of them a check shows that changing it changes what the gateway
// does. One gateway gets one configuration after the other, as if it were published (see parameters/table.mjs); a check
// looks at it under two of them.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { BOOTSTRAP_TOKEN, Caller, MASTER_SECRET, PASSWORD } from "./admin.mjs";
import { MOCK, assertNothingLeaked, config, logOf, sleep, start, startUpstream } from "./support.mjs";
import { pair, publish } from "./parameters/tools.mjs";
import { PRICED, VARIED, WRITTEN } from "./parameters/prices.mjs";
import { PHASES, assertTestExists, checks, configured, elsewhere, general, parameters } from "./parameters/table.mjs";
import "./parameters/catalog.mjs";
import "./parameters/gateway.mjs";
import "./parameters/health.mjs";
import "./parameters/people.mjs";
import { untouched } from "./parameters/routing.mjs";

/** What the checks run with. */
const at = { first: pair("k1"), second: pair("k2"), seen: new Map(), published: {} };

// === The servers around the gateway ===

/** Publishes the issuers' keys: a few of them, in the ways that the checks want. */
async function startKeyServer() {
  const { first, second } = at;
  at.published.first = [first.jwk];
  at.published.second = [second.jwk];
  for (const phase of PHASES) at.published[`rotating-${phase}`] = [first.jwk];
  return startUpstream(async (request, response) => {
    const name = request.url.slice(1);
    if (name.startsWith("slow")) await sleep(2_000);
    const keys = at.published[name] ?? [first.jwk];
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify({ keys, padding: name.startsWith("large") ? "x".repeat(3_000) : "" }));
  });
}

/** What the odd provider says: everything twice. */
const said = (which, why = { a: "halt", b: "done" }[which], number = { a: 1, b: 2 }[which]) => ({
  text: `text ${which}`,
  id: `id-${which}`,
  thoughts: `thoughts ${which}`,
  why,
  in: 10 * number + 1,
  out: 10 * number + 2,
  read: number,
  wrote: 2 * number,
  pondered: 3 * number,
});

/** A generic provider, whose JSON has members `a` and `b` for the configuration to choose from. */
function odd(request, response, body) {
  at.seen.set(request.headers["x-request-id"], { path: request.url, headers: request.headers, body });
  const words = { a: { words: "words a", number: 41 }, b: { words: "words b", number: 42 } };
  if (body.includes("fail")) {
    response.writeHead(400, { "content-type": "application/json" });
    return response.end(JSON.stringify(words));
  }
  const answer = { a: said("a"), b: said("b") };
  if (!request.headers.accept?.includes("event-stream") && !request.headers.accept?.includes("ndjson")) {
    response.writeHead(200, { "content-type": "application/json" });
    return response.end(JSON.stringify(answer));
  }
  response.writeHead(200, { "content-type": "text/event-stream" });
  const began = `data: ${JSON.stringify({ a: { text: "text a" }, b: { text: "text b" } })}\n\n`;
  if (body.includes("break")) return response.end(`${began}data: ${JSON.stringify(words)}\n\n`);
  if (body.includes("end")) return response.end(`${began}data: [END]\n\n`);
  return response.end(`data: ${JSON.stringify(answer)}\n\n`);
}

/** A provider that tells every kind of usage, in either dialect. */
function metered(request, response) {
  const usage = {
    prompt_tokens: 1_000,
    completion_tokens: 500,
    total_tokens: 1_500,
    prompt_tokens_details: { cached_tokens: 100, audio_tokens: 50, image_tokens: 60 },
    completion_tokens_details: { reasoning_tokens: 30, audio_tokens: 20, image_tokens: 25 },
    server_tool_use: { web_search_requests: 3 },
  };
  const message = { role: "assistant", content: "Well." };
  const completion = { id: "c", object: "chat.completion", created: 1, model: "m", usage, service_tier: "priority" };
  completion.choices = [{ index: 0, message, finish_reason: "stop" }];
  const creation = { ephemeral_5m_input_tokens: 70, ephemeral_1h_input_tokens: 40 };
  const messages = { id: "m", type: "message", role: "assistant", model: "m", content: [{ type: "text", text: "Well." }] };
  messages.stop_reason = "end_turn";
  messages.usage = { input_tokens: 1, output_tokens: 1, cache_creation_input_tokens: 110, cache_creation: creation };
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify(request.url.endsWith("/messages") ? messages : completion));
}

// === The configurations ===

function generic() {
  const reply = () => ({ text: "/a/text", finish_reason: "/a/why", finish_reasons: { halt: "length" } });
  return {
    dialect: "generic",
    base_url: `${at.oddServer.url}/odd`,
    credential: "ODD_KEY",
    forward_headers: ["x-request-id"],
    generic: {
      path: "/run",
      body: { q: "{{last_user_message}}" },
      reply: reply(),
      stream: { framing: "sse", reply: reply() },
    },
  };
}

/** The configuration of a phase without what the checks change. */
function foundation(phase) {
  const openai = { dialect: "openai", base_url: `${MOCK}/v1`, credential: "OPENAI_KEY" };
  // The providers that all checks use keep to bounds of their own.
  const patient = { timeouts: { first_byte_ms: 60_000, idle_ms: 60_000, total_ms: 60_000 } };
  const model = (provider, more = {}) => ({ provider, upstream_model: "mock-large", ...more });
  const like = (names) => Object.fromEntries(names.map((name) => [name, model(name)]));
  const usual = config();
  const fresh = untouched(phase);
  for (const provider of Object.values(usual.providers)) Object.assign(provider, patient);
  const document = {
    providers: {
      ...usual.providers,
      ...fresh.providers,
      ...Object.fromEntries(
        ["switched", "moved", "wired", "branded", "trusted", "adorned", "streaming", "loosely"].map((name) => [name, { ...openai, ...patient }]),
      ),
      spoken: { ...openai, base_url: MOCK },
      cloudy: { preset: "azure", base_url: MOCK, api_version: "2024-10-21", credential: "OPENAI_KEY" },
      keeping: { ...openai, ...patient, wires: ["responses"] },
      heir: { ...openai },
      hasty: { ...openai, timeouts: { first_byte_ms: 50_000, idle_ms: 50_000, total_ms: 60_000 } },
      odd: generic(),
      worded: generic(),
      framed: generic(),
      ended: generic(),
      metered: { dialect: "openai", base_url: `${at.meteredServer.url}/v1`, credential: "OPENAI_KEY" },
      written: { dialect: "anthropic", base_url: at.meteredServer.url, credential: "ANTHROPIC_KEY" },
      listed: { dialect: "openai", base_url: `${at.meteredServer.url}/v1`, price_catalog: "openai" },
      shelved: { dialect: "openai", base_url: `${at.meteredServer.url}/v1` },
    },
    models: {
      ...usual.models,
      ...fresh.models,
      ...like(["switched", "spoken", "moved", "wired", "branded", "cloudy", "trusted", "adorned", "streaming", "loosely", "keeping", "heir", "hasty"]),
      ...like(["odd", "worded", "framed", "ended"]),
      known: model("openai"),
      served: model("openai"),
      small: model("openai"),
      picky: model("anthropic", { upstream_model: "mock-claude" }),
      talkative: model("anthropic", { upstream_model: "mock-claude" }),
      ...Object.fromEntries(PRICED.map((name) => [`priced-${name}`, model("metered")])),
      ...Object.fromEntries(WRITTEN.map((name) => [`priced-${name}`, model("written")])),
      listed: model("listed", { upstream_model: "gpt-4o-mini" }),
      shelved: model("shelved", { upstream_model: "gpt-4o-mini" }),
    },
    routes: {
      way: { targets: [{ model: "served" }] },
      path: { targets: [{ model: "served" }] },
      fork: { targets: [{ model: "served" }, { model: "gpt-test" }] },
      ...fresh.routes,
    },
    routing: usual.routing,
    prices: { "priced-input": { input: "1" }, ...VARIED, ...fresh.prices },
    records: { flush_ms: 100 },
    sessions: { attempts_per_ip_per_minute: 1_000 },
    auth: { issuers: issuers(phase) },
  };
  return document;
}

/** The issuers, by the name that checks know them by. */
function issuers(phase) {
  const embedded = { jwks: { keys: [at.first.jwk] } };
  const usual = { audiences: ["gateway"], algorithms: ["EdDSA"] };
  const names = ["steady", "renamed", "audience", "algorithm", "plane", "required", "aged", "subject", "claimed", "fixed"];
  const made = {};
  for (const name of [...names, "personal", "bound", "claims"]) made[name] = { ...usual, ...embedded };
  for (const name of ["embedded", "fetched"]) made[name] = { ...usual };
  for (const name of ["rotating", "slow", "large"]) {
    made[name] = { ...usual, jwks_uri: `${at.keyServer.url}/${name}-${phase}` };
  }
  for (const name of ["roles", "groups"]) {
    made[name] = { ...usual, ...embedded, planes: ["admin"], roles_claim: "groups" };
  }
  made.groups.roles = { boss: [{ role: "auditor" }] };
  for (const [name, issuer] of Object.entries(made)) issuer.issuer = `https://${name}.example`;
  return made;
}

/** The configuration of a phase. */
function documentOf(phase) {
  const document = configured(foundation(phase), phase, at);
  // Some are there only where a check says what they trust.
  const usable = Object.values(document.auth.issuers).filter((issuer) => issuer.jwks || issuer.jwks_uri);
  document.auth.issuers = usable;
  return document;
}

// === The walk ===

before(async () => {
  at.keyServer = await startKeyServer();
  at.oddServer = await startUpstream(odd);
  at.meteredServer = await startUpstream(metered);
  let last = 0;
  at.address = () => `10.${Math.floor(++last / 62_500)}.${Math.floor(last / 250) % 250}.${(last % 250) + 1}`;
  const secrets = { MASTER_SECRET, BOOTSTRAP_TOKEN };
  const vars = { PRIVATE_UPSTREAM_HOSTS: "127.0.0.1" };
  Object.assign(at, await start({ config: documentOf("plain"), secrets, vars }));
  at.lineOf = (id) => logOf(at.gateway, id);
  const nobody = new Caller(at.url, undefined, { "cf-connecting-ip": at.address() });
  const email = "owner@example.com";
  const first = { token: BOOTSTRAP_TOKEN, email, name: "Owner", password: PASSWORD };
  at.ownerId = (await nobody.post("/admin/v1/bootstrap", first)).id;
  at.owner = await nobody.signIn(email);
  await at.owner.post("/admin/v1/accounts", { id: "people", name: "People" });
});

after(async () => {
  await at.stop?.();
  for (const server of [at.keyServer, at.oddServer, at.meteredServer]) await server?.stop();
});

test("every parameter has a check, or another test that shows it to be real", () => {
  const known = parameters();
  assert.ok(known.length >= 80, `${known.length} parameters`);
  const shown = [...checks, ...elsewhere].map(({ parameter }) => general(parameter));
  assert.deepEqual(known.filter((parameter) => !shown.includes(parameter)), [], "are not shown to do anything");
  assert.deepEqual(shown.filter((parameter) => !known.includes(parameter)), [], "are no parameters");
  for (const { file, name } of elsewhere) assertTestExists(file, name);
  for (const { parameter, phases } of checks) {
    const outcomes = Object.values(phases).map(([, outcome]) => JSON.stringify(outcome));
    assert.ok(new Set(outcomes).size > 1, `${parameter}: the check must find a difference`);
  }
});

for (const phase of PHASES) {
  describe(`the configuration "${phase}"`, { concurrency: 8 }, () => {
    before(() => publish(at, documentOf(phase)));

    for (const { parameter, phases, probe } of checks.filter(({ phases }) => phase in phases)) {
      const [value, outcome] = phases[phase];
      const shown = value === undefined || typeof value === "function" ? "" : ` = ${JSON.stringify(value)}`;
      test(`${parameter}${shown}`, async () => assert.deepEqual(await probe(at, phase), outcome));
    }
  });
}

test("no line of the log has a secret in it", async () => {
  await at.stop();
  await assertNothingLeaked();
});
