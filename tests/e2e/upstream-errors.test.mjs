// Errors of every upstream dialect, as the official SDKs raise them; and what providers say of their limits.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

import { PROVIDERS as MORE, given } from "./bindings.mjs";
import { limit, makeKeys } from "./limits.mjs";
import { HEALTH, MOCK, ask, assertNothingLeaked, config, start } from "./support.mjs";

const provider = (dialect, base_url, more = {}) => ({ dialect, base_url, credential: "OPENAI_KEY", health: HEALTH, ...more });

const PROVIDERS = {
  gemini: provider("gemini", `${MOCK}/v1beta`),
  bedrock: provider("bedrock", MOCK),
  responses: provider("openai", `${MOCK}/v1`, { wires: ["responses"] }),
  ...MORE,
};

const REFUSED = [502, "upstream_credential_refused"];

/** What callers see of each status: status, and the code where it is always the same. */
const STATUSES = {
  400: [400],
  401: REFUSED,
  402: REFUSED,
  403: REFUSED,
  404: [404],
  408: [408],
  409: [409],
  413: [413],
  422: [422],
  429: [429],
  500: [500],
  503: [503],
  529: [529],
};

/** Of Baidu's numbers, which come with status 200. There is none for some statuses: they are faults of its own. */
const FAULT = [502, "server_error"];
const NUMBERS = { 404: [404, "model_not_found"], 408: FAULT, 409: FAULT, 422: FAULT, 500: FAULT, 529: FAULT, 413: [400, "context_length_exceeded"] };

/** Of Workers AI's numbers: there is one that says that the input is wrong, one for a lack of room, and one for an account's. */
const WRONG = [400, "invalid_request_error"];
const FULL = [503, "overloaded_error"];
const INTERNAL = { 402: REFUSED, 408: WRONG, 409: WRONG, 422: WRONG, 429: REFUSED, 500: FULL, 503: FULL, 529: FULL };

const TOO_LONG = "context_length_exceeded";
const BLOCKED = "content_filter";

/** Models, what differs of their errors (`statuses`), and how their providers say that a prompt is too long, or refused. */
const MODELS = {
  "OpenAI's own": {
    provider: "openai",
    upstream_model: "mock-large",
    long: { status: 400, error_code: TOO_LONG },
    blocked: { status: 400, error_code: "content_policy_violation" },
    code: "content_policy_violation",
  },
  "OpenAI's Responses": {
    provider: "responses",
    upstream_model: "gpt-5.5",
    long: { status: 400, error_code: TOO_LONG },
    blocked: { status: 403, error_message: "The model requires moderation and your input was flagged." },
  },
  "Claude itself": {
    provider: "anthropic",
    upstream_model: "claude-opus-4-8",
    long: { status: 400, error_type: "invalid_request_error", error_message: "prompt is too long: 210000 tokens > 200000 maximum" },
    blocked: { status: 400, error_type: "invalid_request_error", error_message: "Output blocked by content filtering policy" },
  },
  Gemini: {
    provider: "gemini",
    upstream_model: "gemini-3-flash-preview",
    long: { status: 400, error_message: "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)." },
    blocked: { block: 1 },
  },
  Bedrock: {
    provider: "bedrock",
    upstream_model: "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    long: { status: 400, error_type: "ValidationException", error_message: "Input is too long for requested model." },
    blocked: { status: 400, error_type: "ValidationException", error_message: "Output blocked by content filtering policy" },
  },
  Cohere: {
    provider: "cohere",
    upstream_model: "command-a-03-2025",
    long: { status: 400, error_message: "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292." },
    blocked: { block: 1 },
  },
  wenxinworkshop: {
    provider: "wenxin",
    upstream_model: "ernie-4.0-8k-latest",
    statuses: NUMBERS,
    long: { status: 400, error_code: "336103", error_message: "Prompt tokens too long" },
    blocked: { status: 400, error_message: "the prompt violates the content policy" },
  },
  "Workers AI": {
    provider: "workers-ai",
    upstream_model: "@cf/openai/gpt-oss-120b",
    statuses: INTERNAL,
    long: { status: 400, error_message: "This model's context window limit (8192) is exceeded" },
    blocked: { status: 400, error_message: "the prompt violates the content policy" },
  },
};

/** The class that an SDK has for a status. */
const classOf = (sdk, status) =>
  ({ 400: sdk.BadRequestError, 404: sdk.NotFoundError, 409: sdk.ConflictError, 422: sdk.UnprocessableEntityError, 429: sdk.RateLimitError })[
    status
  ] ?? (status >= 500 ? sdk.InternalServerError : sdk.APIError);

const thrown = async (promise) => {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  return assert.fail("no error");
};

describe("errors of providers", () => {
  let at, openai, anthropic;

  before(async () => {
    const model = ({ provider, upstream_model }) => ({ provider, upstream_model });
    const models = Object.fromEntries(Object.entries(MODELS).map(([name, it]) => [name, model(it)]));
    at = await start({ given, config: config({ providers: PROVIDERS, models }) });
    openai = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 0 });
    anthropic = new Anthropic({ baseURL: at.url, apiKey: at.key, maxRetries: 0 });
  });

  after(() => at?.stop());

  for (const [model, { provider, statuses = {}, long, blocked, code = BLOCKED }] of Object.entries(MODELS)) {
    const chat = (directives, more) => thrown(openai.chat.completions.create({ model, messages: ask(directives), ...more }));
    const messages = (directives, more) => thrown(anthropic.messages.create({ model, messages: ask(directives), max_tokens: 100, ...more }));

    describe(model, { concurrency: 4 }, () => {
      for (const [status, usual] of Object.entries(STATUSES)) {
        test(`${status}`, async () => {
          const [expected, code] = statuses[status] ?? usual;
          const directives = { status, "header.retry-after": 7 };
          for (const stream of [false, true]) {
            const error = await chat(directives, { stream });
            assert.equal(error.status, expected, error.message);
            assert.ok(error instanceof classOf(OpenAI, expected), `${error}`);
            if (code) assert.equal(error.code, code);
            assert.ok(error.message.length > 10 && error.requestID);
            if (expected === 429) assert.equal(error.headers.get("retry-after"), "7");
          }
          const error = await messages(directives);
          assert.equal(error.status, expected, error.message);
          assert.ok(error instanceof classOf(Anthropic, expected), `${error}`);
          assert.equal(error.error.type, "error");
          if (expected === 429) {
            assert.equal(error.headers.get("retry-after"), "7");
            assert.equal(error.error.error.type, "rate_limit_error");
          }
          if (code === REFUSED[1]) assert.equal(JSON.stringify(error.error).includes("mock"), false, "the provider's words");
        });
      }

      test("a prompt that is too long", async () => {
        for (const stream of [false, true]) {
          const error = await chat(long, { stream });
          assert.deepEqual([error.status, error.code], [400, TOO_LONG], error.message);
        }
        const error = await messages(long);
        assert.equal(error.status, 400);
        assert.match(error.error.error.message, /^prompt is too long/);
      });

      // The platform's own binding has no credential of the gateway's.
      const credential = { ...PROVIDERS, openai: { credential: "OPENAI_KEY" }, anthropic: { credential: "ANTHROPIC_KEY" } }[provider].credential;
      if (credential) {
        test("a credential that its provider repeats goes no further", async () => {
          const secret = at.secrets[credential];
          const told = `the token ${secret} or ${encodeURIComponent(secret)} is odd`;
          const repeats = { error_message: told, error_type: secret, "header.x-request-id": secret };
          const places = [400, 404, 429, 500].map((status) => ({ status }));
          for (const place of [...places, { status: 500, error_at_200: 1 }, { error_at: "start" }]) {
            for (const stream of [false, true]) {
              const directives = { ...repeats, ...place };
              for (const fail of [() => chat(directives, { stream }), () => messages(directives, { stream })]) {
                if (place.error_at && !stream) continue;
                const error = await fail();
                const seen = JSON.stringify([error.message, error.error, [...(error.headers ?? [])]]);
                assert.ok(!seen.includes(secret) && !seen.includes(encodeURIComponent(secret)), seen);
                assert.ok(seen.length > 50, seen);
              }
            }
          }
        });
      }

      test("content that is refused", async () => {
        const error = await chat(blocked);
        assert.deepEqual([error.status, error.code], [400, code], error.message);
        assert.equal((await messages(blocked)).status, 400);
      });
    });
  }

  describe("limits of providers", () => {
    const told = {
      "header.x-ratelimit-limit-requests": 100,
      "header.x-ratelimit-remaining-requests": 99,
      "header.x-ratelimit-reset-requests": "6s",
      "header.x-ratelimit-limit-tokens": 5000,
      "header.x-ratelimit-remaining-tokens": 4000,
      "header.x-ratelimit-reset-tokens": "1m30s",
    };
    const anthropics = {
      "header.anthropic-ratelimit-requests-limit": 50,
      "header.anthropic-ratelimit-requests-remaining": 0,
      "header.anthropic-ratelimit-requests-reset": new Date(Date.now() + 600_000).toISOString(),
    };
    const asked = async (sdk, model, directives) => {
      const messages = ask(directives);
      const { response } = await (sdk === openai
        ? sdk.chat.completions.create({ model, messages }).withResponse()
        : sdk.messages.create({ model, messages, max_tokens: 50 }).withResponse());
      return (name) => response.headers.get(name);
    };

    test("are told under OpenAI's names, whoever tells them", async () => {
      const header = await asked(openai, "OpenAI's own", told);
      assert.equal(header("x-ratelimit-limit-requests"), "100");
      assert.equal(header("x-ratelimit-remaining-requests"), "99");
      assert.equal(header("x-ratelimit-reset-requests"), "6s");
      assert.deepEqual([header("x-ratelimit-remaining-tokens"), header("x-ratelimit-reset-tokens")], ["4000", "1m30s"]);
      assert.equal(header("anthropic-ratelimit-requests-limit"), null);
      const translated = await asked(openai, "Claude itself", anthropics);
      assert.deepEqual([translated("x-ratelimit-limit-requests"), translated("x-ratelimit-remaining-requests")], ["50", "0"]);
      // This one does not say when it is whole again.
      const tokens = ["limit", "remaining", "reset"].map((what) => translated(`x-ratelimit-${what}-tokens`));
      assert.deepEqual(tokens, ["400000", "399000", null]);
    });

    test("and under Anthropic's for callers of Messages", async () => {
      const header = await asked(anthropic, "Cohere", told);
      assert.equal(header("anthropic-ratelimit-requests-limit"), "100");
      assert.equal(header("anthropic-ratelimit-tokens-remaining"), "4000");
      const seconds = (Date.parse(header("anthropic-ratelimit-tokens-reset")) - Date.now()) / 1000;
      assert.ok(seconds > 60 && seconds <= 92, `${seconds}`);
      const apart = {
        "header.anthropic-ratelimit-input-tokens-limit": 700,
        "header.anthropic-ratelimit-input-tokens-remaining": 600,
        "header.anthropic-ratelimit-output-tokens-limit": 80,
        "header.anthropic-ratelimit-output-tokens-remaining": 2,
      };
      const natively = await asked(anthropic, "Claude itself", { ...anthropics, ...apart });
      const left = ["tokens", "input-tokens", "output-tokens"].map((what) => natively(`anthropic-ratelimit-${what}-remaining`));
      assert.deepEqual(left, ["2", "600", "2"], "of all of them the scarcest");
    });

    test("come with a refusal as well", async () => {
      const error = await chatOf("OpenAI's own", { ...told, status: 429, "header.retry-after": 3 });
      assert.deepEqual([error.headers.get("retry-after"), error.headers.get("x-ratelimit-limit-requests")], ["3", "100"]);
    });

    test("give way to the gateway's own, kind by kind", async () => {
      const account = "with-limits";
      const [{ key }] = await makeKeys(at.gateway, [{ account }]);
      await limit(at.gateway, account, { dimension: "requests", period: "hour", amount: 10 });
      const own = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: key, maxRetries: 0 });
      const { response } = await own.chat.completions.create({ model: "OpenAI's own", messages: ask(told) }).withResponse();
      assert.equal(response.headers.get("x-ratelimit-limit-requests"), "10");
      assert.equal(response.headers.get("x-ratelimit-limit-tokens"), "5000");
    });

    const chatOf = (model, directives) => thrown(openai.chat.completions.create({ model, messages: ask(directives) }));
  });
});

test("where limits are not disclosed, providers' are not either", async () => {
  const at = await start({ config: config({ limits: { disclose: "none" } }) });
  try {
    const openai = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key });
    const directives = {
      "header.x-ratelimit-limit-requests": 100,
      "header.x-ratelimit-remaining-requests": 99,
      "header.x-ratelimit-reset-requests": "6s",
    };
    const { response } = await openai.chat.completions.create({ model: "gpt-test", messages: ask(directives) }).withResponse();
    assert.equal(response.headers.get("x-ratelimit-limit-requests"), null);
  } finally {
    await at.stop();
  }
});

test("no line of the log has a secret in it", assertNothingLeaked);
