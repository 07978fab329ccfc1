// Checks of what requests cost: `prices`, `billing`.

import { check, shownBy } from "./table.mjs";
import { chat, logged } from "./tools.mjs";

// Each has a model of its own, and the provider (see `metered` in parameters.test.mjs) tells the same usage each time:
// 1,000 tokens in (100 cached, 50 of audio, 60 of an image), 500 out (30 of reasoning, 20 of audio, 25 of an image), three
// searches, the tier `priority`. A dollar a million tokens is a thousand nano-dollars each; what has no price of its own
// costs as much as text.
const TOKENS = {
  input: 1_000,
  cache_read: 100,
  input_audio: 50,
  input_image: 60,
  output: 500,
  output_reasoning: 30,
  output_audio: 20,
  output_image: 25,
  // The provider that speaks Anthropic's dialect tells of 70 tokens written for five minutes and 40 for an hour.
  cache_write_5m: 110,
  cache_write_1h: 40,
};
const PIECES = { per_request: 1, per_search: 3 };
const CONDITIONS = ["tier", "length", "account", "from", "until", "multiplier", "geo", "speed"];

const names = [...Object.keys(TOKENS), ...Object.keys(PIECES)];
const models = [...names, ...names.map((name) => `varied-${name}`), ...CONDITIONS.map((name) => `varied-${name}`)];

/** What is served by the provider that tells what was written to a cache, and by the other one. */
export const WRITTEN = models.filter((name) => /cache_write|geo|speed/.test(name));
export const PRICED = models.filter((name) => !WRITTEN.includes(name));

/** Prices that have a variant for the checks to change; under the conditions of most, input costs five times as much. */
export const VARIED = Object.fromEntries(
  models.filter((name) => name.startsWith("varied-")).map((name) => {
    const part = names.includes(name.slice("varied-".length)) || name === "varied-multiplier";
    return [`priced-${name}`, part ? { variants: [{ multiplier: "1" }] } : { input: "1", variants: [{ input: "5" }] }];
  }),
);
VARIED["priced-varied-multiplier"].input = "1";

const cost = async (at, name) => (await logged(at, `priced-${name}`)).cost_nanodollars;

for (const [place, of] of [["", (name) => name], ["variants[0].", (name) => `varied-${name}`]]) {
  for (const [part, tokens] of Object.entries(TOKENS)) {
    const name = of(part);
    const phases = { plain: ["1", tokens * 1_000], tight: ["2.5", tokens * 2_500] };
    check(`prices.priced-${name}.${place}${part}`, phases, (at) => cost(at, name));
  }
  for (const [part, pieces] of Object.entries(PIECES)) {
    const name = of(part);
    const phases = { plain: ["0.001", pieces * 1_000_000], tight: ["0.5", pieces * 500_000_000] };
    check(`prices.priced-${name}.${place}${part}`, phases, (at) => cost(at, name));
  }
}
// What chat does not tell of.
shownBy("tests/costs.rs", "every_case_costs_exactly_what_it_should", [
  "prices.any.per_image",
  "prices.any.variants[0].per_image",
  "prices.any.per_audio_minute",
  "prices.any.variants[0].per_audio_minute",
]);
shownBy("src/billing/cost.rs", "every_kind_has_its_price", [
  "prices.any.per_million_characters",
  "prices.any.variants[0].per_million_characters",
]);

const varied = (name, parameter, plain, tight) =>
  check(`prices.priced-varied-${name}.variants[0].${parameter}`, {
    plain: [plain, 5_000_000],
    tight: [tight, 1_000_000],
  }, (at) => cost(at, `varied-${name}`));
varied("tier", "service_tier", "priority", "flex");
varied("length", "above_input_tokens", 999, 1_000);
varied("account", "account", "demo", "another");
varied("from", "from", "2020-01-01", "2999-01-01");
varied("until", "until", "2999-01-01", "2020-01-01");
check("prices.priced-varied-multiplier.variants[0].multiplier", {
  plain: ["2", 2_000_000],
  tight: ["0.5", 500_000],
}, (at) => cost(at, "varied-multiplier"));
// The provider tells neither, so that a variant with the condition does not count. 111 tokens go in.
for (const [name, parameter, value] of [["geo", "inference_geo", "us"], ["speed", "speed", "fast"]]) {
  check(`prices.priced-varied-${name}.variants[0].${parameter}`, {
    plain: [undefined, 555_000],
    tight: [value, 111_000],
  }, (at) => cost(at, `varied-${name}`));
}

// It says where a price comes from to people, and nothing else.
check("prices.priced-input.source", {
  plain: ["the old list", "the old list"],
  tight: ["the new list", "the new list"],
}, async (at) =>
  (await at.owner.get("/admin/v1/config/effective")).document.prices["priced-input"].source);

// === billing ===

const header = async (at, model, name) => (await chat(at, model)).headers[name];

check("billing.unpriced_models", { plain: [undefined, 200], frugal: ["refuse", 403] }, async (at) =>
  (await chat(at, "gpt-test")).status);
// In the tier `priority`: 900 tokens at 0.25 dollars a million, 100 at 0.125, 500 at 1, and three searches at 0.025 dollars.
check("billing.bundled_prices", { plain: [undefined, "0.0757375"], tight: [false, undefined] }, (at) =>
  header(at, "listed", "x-gateway-cost"));
check("providers.shelved.price_catalog", { plain: [undefined, "true"], strict: ["openai", undefined] }, (at) =>
  header(at, "shelved", "x-gateway-unpriced"));
check("billing.tell_cost", { plain: [undefined, "0.001"], tight: [false, undefined] }, (at) =>
  header(at, "priced-input", "x-gateway-cost"));
