// Counting tokens (`/v1/messages/count_tokens`, `/v1/responses/input_tokens`): by the provider where it counts, else by
// the gateway's own estimate, which says that it is one. Nothing is charged for it.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

import { PIXEL, user, weather } from "./anthropic.mjs";
import { HEALTH, MOCK, ask, assertNothingLeaked, config, freshId, journalOf, logOf, received, start } from "./support.mjs";
import { UPSTREAMS, modelsOf, providersOf } from "./upstreams.mjs";

/** Who counts, where; the others are estimated. */
const COUNTED = {
  "Claude itself": "/v1/messages/count_tokens",
  "OpenAI's Responses": "/v1/responses/input_tokens",
  "Gemini 2.5": "/v1beta/models/gemini-2.5-flash:countTokens",
  "Gemini 3": "/v1beta/models/gemini-3-flash-preview:countTokens",
  "Claude on Bedrock": "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/count-tokens",
};

describe("counting tokens", () => {
  let at, mock, gateway, anthropic, openai;

  before(async () => {
    const providers = {
      ...providersOf(UPSTREAMS),
      down: { dialect: "anthropic", base_url: `${MOCK}/mock;status=500`, credential: "ANTHROPIC_KEY", health: HEALTH },
    };
    const models = {
      ...modelsOf(UPSTREAMS),
      small: { provider: "anthropic", upstream_model: "mock-claude", context_tokens: 10 },
      broken: { provider: "down", upstream_model: "mock-claude" },
    };
    const targets = [{ model: "broken", priority: 1 }, { model: "Claude itself", priority: 2 }];
    const routes = { either: { targets } };
    const prices = { "Claude itself": { input: "3", output: "15", per_request: "0.5" } };
    at = await start({
      config: config({ providers, models, routes, prices, routing: { max_attempts: 2 } }),
    });
    ({ mock, gateway } = at);
    anthropic = new Anthropic({ baseURL: at.url, apiKey: at.key, maxRetries: 0 });
    openai = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 0 });
  });

  after(() => at?.stop());

  const system = "Be brief.";

  for (const model of Object.keys(UPSTREAMS)) {
    describe(model, { concurrency: 4 }, () => {
      test("counts what callers of Messages send", async () => {
        const tag = freshId();
        const options = { headers: { "x-request-id": tag } };
        const content = [
          { type: "image", source: { type: "base64", media_type: "image/png", data: PIXEL } },
          { type: "text", text: ask({ tag, usage_in: 77 })[0].content },
        ];
        const asked = anthropic.messages.countTokens({ model, system, tools: [weather], messages: [user(...content)] }, options);
        const { data, response } = await asked.withResponse();
        const counted = COUNTED[model];
        assert.equal(response.headers.get("x-gateway-token-count"), counted ? null : "estimated");
        const [entry] = await journalOf(mock, tag);
        assert.equal(entry?.path, counted);
        assert.deepEqual(Object.keys(data), ["input_tokens"]);
        // The mock provider has no say in what its Responses count.
        if (counted && !counted.includes("responses")) assert.equal(data.input_tokens, 77);
        else assert.ok(data.input_tokens > 20 && data.input_tokens < 2000, `${data.input_tokens}`);
        const line = await logOf(gateway, tag);
        const lane = counted ? (model === "Claude itself" ? "native" : "translated") : "estimated";
        assert.deepEqual([line.lane, line.outcome, line.cost_nanodollars ?? 0], [lane, "completed", 0]);
      });

      test("counts what callers of Responses send", async () => {
        const tag = freshId();
        const input = [{ role: "user", content: ask({ tag, usage_in: 78 })[0].content }];
        const { data, response } = await openai.responses.inputTokens.count({ model, input, instructions: system }).withResponse();
        assert.equal(data.object, "response.input_tokens");
        const [entry] = await journalOf(mock, tag);
        assert.equal(entry?.path, COUNTED[model]);
        assert.equal(response.headers.get("x-gateway-token-count"), COUNTED[model] ? null : "estimated");
        if (COUNTED[model] && !COUNTED[model].includes("responses")) assert.equal(data.input_tokens, 78);
        else assert.ok(data.input_tokens > 5);
      });
    });
  }

  test("is asked as Claude Code asks, with betas and without", async () => {
    for (const betas of [undefined, ["claude-code-20250219", "context-management-2025-06-27"]]) {
      const tag = freshId();
      const counted = await anthropic.beta.messages.countTokens({ model: "Claude itself", messages: ask({ tag }), betas });
      assert.ok(counted.input_tokens > 0);
      const { path, headers } = await received(mock, tag);
      assert.match(path, /^\/v1\/messages\/count_tokens/);
      for (const beta of betas ?? []) assert.ok(headers["anthropic-beta"].includes(beta));
    }
    const estimated = await anthropic.beta.messages.countTokens({ model: "gpt-test", messages: ask(), betas: ["x-2025-01-01"] });
    assert.ok(estimated.input_tokens > 0);
  });

  test("grows with what is sent", async () => {
    const count = async (model, words) =>
      (await anthropic.messages.countTokens({ model, messages: [user({ type: "text", text: "word ".repeat(words) })] })).input_tokens;
    for (const model of ["gpt-test", "Claude itself", "Nova on Bedrock"]) {
      const [few, many] = [await count(model, 10), await count(model, 1000)];
      assert.ok(many > few * 20, `${model}: ${few}, ${many}`);
    }
    // That it does not fit is what a caller wants to find out.
    assert.ok((await count("small", 1000)) > 10);
  });

  test("asks the next one where the first fails, and estimates where all do", async () => {
    const tag = freshId();
    const counted = await anthropic.messages.countTokens({ model: "either", messages: ask({ tag, usage_in: 5 }) });
    assert.equal(counted.input_tokens, 5);
    assert.equal((await journalOf(mock, tag)).length, 2);
    for (const status of [401, 404, 429, 500, 529]) {
      const asked = anthropic.messages.countTokens({ model: "Claude itself", messages: ask({ status }) });
      const { data, response } = await asked.withResponse();
      assert.ok(data.input_tokens > 0);
      assert.equal(response.headers.get("x-gateway-token-count"), "estimated");
    }
    // What the caller did wrong it is told.
    await assert.rejects(
      anthropic.messages.countTokens({ model: "Claude itself", messages: ask({ status: 400, error_message: "so not" }) }),
      (error) => error instanceof Anthropic.BadRequestError && /so not/.test(error.message),
    );
    await assert.rejects(anthropic.messages.countTokens({ model: "nothing", messages: ask() }), Anthropic.NotFoundError);
    await assert.rejects(anthropic.messages.countTokens({ model: "gpt-test", messages: [] }), Anthropic.BadRequestError);
  });
});

test("counting is limited as requests are, and uses no tokens", async () => {
  const limit = (dimension, amount) => ({ dimension, period: "day", amount });
  const per_key = [limit("requests", 2), limit("total_tokens", 1)];
  const at = await start({ config: config({ limits: { per_key } }), keys: [{ name: "app" }, { name: "other" }] });
  try {
    for (const [key, model] of [[at.key, "gpt-test"], [at.gateway.keys.other, "claude-test"]]) {
      const anthropic = new Anthropic({ baseURL: at.url, apiKey: key, maxRetries: 0 });
      for (let nth = 0; nth < 2; nth++) {
        assert.ok((await anthropic.messages.countTokens({ model, messages: ask() })).input_tokens > 1);
      }
      await assert.rejects(anthropic.messages.countTokens({ model, messages: ask() }), Anthropic.RateLimitError);
    }
  } finally {
    await at.stop();
  }
});

test("no line of the log has a secret in it", assertNothingLeaked);
