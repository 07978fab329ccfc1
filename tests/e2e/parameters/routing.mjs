// Checks of `routing`, and of what decides about providers' health and the targets of routes. What shows only in many
// requests, other tests show.

import { MOCK, logOf, sleep } from "../support.mjs";
import { check, shownBy } from "./table.mjs";
import { chat, freshKey, object, stream, within } from "./tools.mjs";

const ROUTING = "tests/e2e/routing.test.mjs";
const FAILOVER = "tests/e2e/failover.test.mjs";
const OUTAGES = "tests/e2e/outages.test.mjs";
const HEALTH = "tests/e2e/admin-health.test.mjs";

check("http.explain", { plain: [undefined, false], tight: [true, true] }, async (at) => {
  const { headers } = await chat(at, "fork", { headers: { "x-gateway-explain": "true" } });
  return headers["x-gateway-explain"] !== undefined;
});

// === What the checks ask ===

/** Routes of two models at two providers each, whose health nobody judges. */
const STEADY = ["again", "blocked"];

/** A route of one model, for what is tried again in the same place; its provider's health is not judged either. */
const ALONE = ["pausing", "waiting"];

/** The same routes as the first, whose health counts. */
const JUDGED = ["cooled", "row", "share", "few", "recent", "opened", "doubled", "tried", "usual", "told"];

/** Providers, models and routes of the checks' own: in each phase others, of which nothing is known yet. */
export function untouched(phase) {
  const tables = { providers: {}, models: {}, routes: {}, prices: {} };
  const timeouts = { first_byte_ms: 60_000, idle_ms: 60_000, total_ms: 60_000 };
  for (const name of [...STEADY, ...ALONE, ...JUDGED]) {
    const models = (ALONE.includes(name) ? ["a"] : ["a", "b"]).map((letter) => `${name}-${letter}-${phase}`);
    for (const model of models) {
      const health = { passive: JUDGED.includes(name) };
      tables.providers[model] = { dialect: "openai", base_url: `${MOCK}/v1`, credential: "OPENAI_KEY", health, timeouts };
      tables.models[model] = { provider: model, upstream_model: "mock-large" };
      tables.prices[model] = { input: "1", output: "1" };
    }
    const retry = { max_attempts: { pausing: 5, waiting: 2 }[name] ?? 3 };
    tables.routes[`${name}-${phase}`] = { targets: models.map((model) => ({ model })), retry };
  }
  return tables;
}

const FAULT = { status: 500 };

/** How many attempts a request to a route takes. */
const attempts = async (at, route, directives) => Number((await chat(at, route, { directives })).headers["x-gateway-attempts"]);

/** Asks a route's first model, by itself, in a row: "F" is answered with a fault, anything else is well. */
async function lives(at, name, phase, story) {
  for (const part of story) await chat(at, `${name}-a-${phase}`, { directives: part === "F" ? FAULT : {} });
}

/** Whether a route leaves its first model alone. */
async function leaves(at, name, phase) {
  return (await chat(at, `${name}-${phase}`)).headers["x-gateway-provider"] === `${name}-b-${phase}`;
}

/** What a route says of how it has decided. */
async function explained(at, route) {
  const { key, record, put } = await freshKey(at);
  await put({ overrides: { ...record.overrides, explain: true } });
  return JSON.parse((await chat(at, route, { key, headers: { "x-gateway-explain": "true" } })).headers["x-gateway-explain"]);
}

/** For how many milliseconds a route still leaves its first model alone. */
async function left(at, route) {
  const { skipped } = await explained(at, route);
  return Number(/tried again in (\d+) ms/.exec(skipped[0]?.reason)?.[1]);
}

// === Attempts ===

check("routing.retry_on", { plain: [undefined, 3], frugal: [["unreachable"], 1] }, (at, phase) =>
  attempts(at, `again-${phase}`, FAULT),
);

check("routing.content_policy", { plain: [undefined, 1], frugal: ["other_provider", 2] }, (at, phase) =>
  attempts(at, `blocked-${phase}`, { status: 400, error_code: "content_policy_violation" }),
);

/** The longest pause that eight requests make between attempts: any is drawn by chance. */
async function pause(at, phase) {
  const replies = await Promise.all(Array.from({ length: 8 }, () => chat(at, `pausing-${phase}`, { directives: FAULT })));
  const lines = await Promise.all(replies.map(({ id }) => logOf(at.gateway, id)));
  return Math.max(...lines.flatMap(({ tried }) => tried.map(({ waited_ms = 0 }) => waited_ms)));
}
// They are up to 100, 200, 400 and 800 ms. That none of those of eight requests is above 100 ms comes once in 10¹⁴ times.
check("routing.backoff_ms", { plain: [undefined, true], tight: [1, false] }, async (at, phase) => (await pause(at, phase)) > 100);
check("routing.max_backoff_ms", { plain: [undefined, true], sparse: [100, false] }, async (at, phase) => (await pause(at, phase)) > 100);

check("routing.max_wait_ms", { plain: [undefined, 2], strict: [200, 1] }, (at, phase) =>
  attempts(at, `waiting-${phase}`, { status: 429, "header.retry-after-ms": 500 }),
);

shownBy(FAILOVER, "there are no more attempts than configured, and only after the faults that are", [
  "routing.max_attempts",
  "routes.most-two.retry.max_attempts",
  "routes.most-not.retry.retry_on",
]);
shownBy(FAILOVER, "is given up for another after the time that the route sets an attempt", ["routes.mute.retry.attempt_ms"]);
shownBy(OUTAGES, "is not made worse: further attempts stay within their budget", [
  "routing.retry_share_percent",
  "routing.retry_floor",
]);
shownBy(OUTAGES, "is told as such, with the time after which it is worth while to ask again", ["routing.when_all_open"]);
shownBy(FAILOVER, "one that is refused for its content goes elsewhere only where a route says so", [
  "routes.content-elsewhere.fallbacks",
]);

// === Health ===

check("routing.cooldown_ms", { plain: [undefined, false], tight: [30_000, true] }, async (at, phase) => {
  await chat(at, `cooled-a-${phase}`, { directives: { status: 429 } });
  return Number((await chat(at, `cooled-a-${phase}`)).headers["retry-after"]) > 5;
});

check("routing.breaker.consecutive", { plain: [undefined, false], frugal: [3, true] }, async (at, phase) => {
  await lives(at, "row", phase, "FFF");
  return leaves(at, "row", phase);
});

check("routing.breaker.failure_percent", { plain: [undefined, false], strict: [25, true] }, async (at, phase) => {
  await lives(at, "share", phase, "F--".repeat(8));
  return leaves(at, "share", phase);
});

check("routing.breaker.min_requests", { plain: [undefined, false], sparse: [5, true] }, async (at, phase) => {
  await lives(at, "few", phase, "FF-FF-FF-");
  return leaves(at, "few", phase);
});

check("routing.breaker.window_ms", { plain: [undefined, true], quiet: [1_000, false] }, async (at, phase) => {
  await lives(at, "recent", phase, "FF-".repeat(4));
  await sleep(1_300);
  await lives(at, "recent", phase, "FF-".repeat(4));
  return leaves(at, "recent", phase);
});

const QUICK = { sparse: [300, false], quiet: [300, false], frugal: [300, false] };
check("routing.breaker.open_ms", { plain: [undefined, true], ...QUICK }, async (at, phase) => {
  await lives(at, "opened", phase, "FFFFF");
  return (await left(at, `opened-${phase}`)) > 1_000;
});

check("routing.breaker.max_open_ms", { sparse: [undefined, true], frugal: [300, false] }, async (at, phase) => {
  await lives(at, "doubled", phase, "FFFFF");
  // It fails whenever it is tried again.
  return within(2_500, async () => {
    await lives(at, "doubled", phase, "F");
    return (await left(at, `doubled-${phase}`)) > 500;
  });
});

check("routing.breaker.trials", { sparse: [undefined, 3], quiet: [1, 1] }, async (at, phase) => {
  await lives(at, "tried", phase, "FFFFF");
  let trials = 0;
  const back = async () => {
    const { candidates } = await explained(at, `tried-${phase}`);
    const [{ provider, trial }] = candidates;
    trials += Number(trial);
    return provider === `tried-a-${phase}` && !trial;
  };
  return (await within(5_000, back)) && trials;
});

shownBy(OUTAGES, "that goes down under load costs no caller anything, and comes back gently", ["routing.slow_start_ms"]);

check("routing.dynamic_weights", { plain: [undefined, false], tight: [true, true] }, async (at, phase) => {
  await stream(at, `usual-a-${phase}`, { directives: { ttfb_ms: 400 } });
  await stream(at, `usual-b-${phase}`);
  const { candidates } = await explained(at, `usual-${phase}`);
  return candidates.find(({ model }) => model.startsWith("usual-a")).effective_weight_permille < 800;
});

check("routing.report_ms", { tight: [100, true], sparse: [10_000, false] }, async (at, phase) => {
  const model = `told-a-${phase}`;
  const peak = async () => {
    const { states } = await object(at, "GAUGE", model, "POST", "/health", { provider: model });
    return Math.max(0, ...states.map(({ first_token_ms }) => first_token_ms ?? 0));
  };
  // What is heard of a provider for the first time is told at once.
  await stream(at, model);
  await within(2_000, async () => (await peak()) > 0);
  await stream(at, model, { directives: { ttfb_ms: 1_000 } });
  return within(1_000, async () => (await peak()) >= 900);
});

shownBy(HEALTH, "ask what is configured, each for itself, and what they found and cost is told", [
  "providers.listed.health.method",
  "providers.listed.health.path",
  "providers.listed.health.model",
  "providers.listed.health.timeout_ms",
]);
shownBy(HEALTH, "take a provider out after so many failures and back after so many successes", [
  "providers.listed.health.unhealthy_after",
  "providers.listed.health.healthy_after",
]);

shownBy("src/probes/streak.rs", "a_probe_is_due_once_in_its_interval_of_whole_minutes", [
  "providers.listed.health.interval_seconds",
]);
shownBy(OUTAGES, "leaves a provider in service that is judged by probes and operators alone", [
  "providers.unmoved.health.passive",
]);

// === Routes ===

shownBy(ROUTING, "round robin gives each isolate's requests to one after the other", ["routes.turn.strategy"]);
shownBy(ROUTING, "a route among the targets has its turn as one, and shares it out", ["routes.nest.targets[1].route"]);
shownBy(ROUTING, "weights are kept to exactly", ["routes.share.targets[0].weight"]);
shownBy(ROUTING, "a later tier gets nothing while an earlier one can answer", ["routes.tier.targets[0].priority"]);
shownBy(
  ROUTING,
  "conditions decide by header, metadata, parameter, stream, tools and size",
  ["headers", "metadata", "params", "stream", "tools", "min_input_tokens", "max_input_tokens"].map(
    (condition) => `routes.given.targets[0].when.${condition}`,
  ),
);
shownBy(
  ROUTING,
  "conditions decide by who asks",
  ["accounts", "users", "keys"].map((condition) => `routes.who.targets[0].when.${condition}`),
);
shownBy(ROUTING, "sessions stay where they are, and only those of a target that is gone move", ["routes.stick.sticky.by"]);
shownBy(ROUTING, "callers are kept by a header, or by how their prompts begin", [
  "routes.stick-header.sticky.header",
  "routes.stick-prefix.sticky.prefix_bytes",
]);
shownBy(ROUTING, "a shadow gets copies that another account pays for, and nobody waits for it", [
  "routes.shaded.shadow.model",
  "routes.shaded.shadow.percent",
  "routes.shaded.shadow.account",
]);
