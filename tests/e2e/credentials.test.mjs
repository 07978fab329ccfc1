// Credentials that need work before they are sent: requests signed for Amazon, and access tokens that Google, Microsoft and
// Baidu mint. The mock provider recomputes the signatures, mints the tokens, and refuses whatever is not as it should be.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

import { startMock } from "./harness.mjs";
import {
  HEALTH,
  MOCK,
  ask,
  assertNothingLeaked,
  config,
  directive,
  eventually,
  freshId,
  journalOf,
  linesWith,
  logOf,
  received,
  sleep,
  start,
} from "./support.mjs";

const AWS_SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TEXT = "one two three four five six seven";

const tools = ["get_weather", "get_time"].map((name) => ({
  type: "function",
  function: { name, description: name, parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } },
}));

const signed = (credential, auth) => ({
  dialect: "bedrock",
  base_url: MOCK,
  credential,
  health: HEALTH,
  auth: { method: "sigv4", region: "us-east-1", ...auth },
});

/** A provider at Vertex whose tokens come from an endpoint of its own, told apart by its path. */
const vertex = (place, more = {}) => ({
  dialect: "vertex",
  base_url: `${MOCK}/v1/projects/p/locations/global`,
  credential: "GOOGLE_KEY",
  health: HEALTH,
  auth: { method: "google_service_account", token_url: `${MOCK}/${place}/oauth/google/token` },
  ...more,
});

const entra = (credential) => ({
  dialect: "openai",
  base_url: `${MOCK}/openai/v1`,
  credential,
  health: HEALTH,
  auth: { method: "entra", tenant: "example.com", client_id: `of-${credential}`, token_url: `${MOCK}/example.com/oauth2/v2.0/token` },
});

const PROVIDERS = {
  signed: signed("AWS_SECRET", { access_key_id: "AKIDEXAMPLE" }),
  temporary: signed("AWS_PRINTED", { region: "eu-west-1" }),
  forged: signed("AWS_WRONG", { access_key_id: "AKIDEXAMPLE" }),
  vertex: vertex("usual"),
  brief: vertex("mock;token_ttl=3"),
  rejected: vertex("rejected"),
  useless: vertex("useless"),
  down: vertex("mock;token_fail=2;tag=down"),
  nowhere: vertex("nothing-here", {
    auth: { method: "google_service_account", token_url: `${MOCK}/nothing-here` },
  }),
  slow: vertex("mock;ttfb_ms=20000", { timeouts: { first_byte_ms: 1000, idle_ms: 1000, total_ms: 1000 } }),
  entra: entra("ENTRA_SECRET"),
  refused: entra("ENTRA_WRONG"),
  baidu: {
    dialect: "generic",
    base_url: MOCK,
    credential: "BAIDU_SECRET",
    health: HEALTH,
    auth: { method: "baidu", client_id: "an-application", token_url: `${MOCK}/oauth/2.0/token` },
    generic: {
      path: "/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/completions_pro",
      body: { messages: "{{messages}}" },
      reply: { text: "/result" },
    },
  },
  ernie: {
    dialect: "wenxinworkshop",
    base_url: MOCK,
    credential: "BAIDU_SECRET",
    health: HEALTH,
    auth: { method: "baidu", client_id: "ernie", token_url: `${MOCK}/ernie/oauth/2.0/token` },
  },
  scribe: { ...entra("ENTRA_SECRET"), forward_headers: ["x-mock"] },
};

const BEDROCK_MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
const model = (provider, upstream_model) => ({ provider, upstream_model });

const MODELS = {
  signed: model("signed", BEDROCK_MODEL),
  temporary: model("temporary", BEDROCK_MODEL),
  forged: model("forged", BEDROCK_MODEL),
  gemini: model("vertex", "gemini-2.5-flash"),
  "gemini-3": model("vertex", "gemini-3-flash-preview"),
  claude: model("vertex", "claude-sonnet-4-5@20250929"),
  ...Object.fromEntries(
    ["brief", "rejected", "useless", "down", "nowhere", "slow"].map((name) => [name, model(name, "gemini-2.5-flash")]),
  ),
  entra: model("entra", "gpt-test"),
  refused: model("refused", "gpt-test"),
  baidu: model("baidu", "completions_pro"),
  ernie: model("ernie", "ernie-4.0-8k"),
  scribe: model("scribe", "whisper-1"),
};

const ROUTES = Object.fromEntries(
  ["forged", "down", "refused"].map((name) => {
    const targets = [{ model: name }, { model: "gpt-test" }];
    return [`${name}-or-else`, { targets, retry: { max_attempts: 2 } }];
  }),
);

describe("credentials that need work", { concurrency: 4 }, () => {
  let at, mock, gateway, openai, secrets;

  before(async () => {
    const other = await startMock();
    const GOOGLE_KEY = await (await fetch(`${other.url}/_mock/service-account`)).text();
    await other.stop();
    secrets = {
      AWS_SECRET,
      AWS_WRONG: "another-secret-of-amazons-5tR",
      AWS_PRINTED: JSON.stringify({
        Credentials: { AccessKeyId: "AKIDEXAMPLE", SecretAccessKey: AWS_SECRET, SessionToken: "a-session-token-7hN" },
      }),
      GOOGLE_KEY,
      ENTRA_SECRET: "entra-secret-for-tests-3pL",
      ENTRA_WRONG: "wrong-entra-secret-for-tests-9mK",
      BAIDU_SECRET: "baidu-secret-for-tests-4vX",
    };
    at = await start({ config: config({ providers: PROVIDERS, models: MODELS, routes: ROUTES }), secrets });
    // What the mock provider's tokens begin with, and parts of what the larger secrets are made of.
    const pem = JSON.parse(GOOGLE_KEY).private_key.split("\n");
    at.hidden.push("ya29.mock-", "24.mock", "eyJ0eXAiOiJKV1QifQ.mock.", "a-session-token-7hN", pem[3], pem[5]);
    ({ mock, gateway } = at);
    openai = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 0 });
  });

  after(async () => {
    // Neither do records have a secret in them.
    const { results } = await gateway.db.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").all();
    for (const { name } of results.filter(({ name }) => !/^(_cf|sqlite)_/.test(name))) {
      const rows = await gateway.db.prepare(`SELECT * FROM ${name}`).all();
      assert.deepEqual(linesWith(at.hidden, rows.results.map((row) => JSON.stringify(row))), [], name);
    }
    await at.stop();
  });

  /** Asks a model; the answer's text. `tag` names the request to the mock provider and in the log. */
  const say = async (model, { tag = freshId(), ...directives } = {}) => {
    const body = { model, messages: ask({ tag, text: TEXT, ...directives }) };
    const completion = await openai.chat.completions.create(body, { headers: { "x-request-id": tag } });
    return completion.choices[0].message.content;
  };

  /** That a call fails, and that what the caller is told has no secret in it. */
  const fails = (call, status, code) =>
    assert.rejects(call, (error) => {
      const told = JSON.stringify([error.message, error.error, Object.fromEntries(error.headers)]);
      assert.deepEqual([error.status, error.code], [status, code], told);
      assert.deepEqual(linesWith(at.hidden, [told]), []);
      return true;
    });

  /** The token requests that came to a place. */
  const minted = async (place) => (await mock.journal()).filter(({ path }) => path.includes(place) && /token(\?|$)/.test(path));

  test("signs requests to Amazon, over the bytes and at the time at which they go out", async () => {
    for (const [name, scope] of [["signed", "us-east-1"], ["temporary", "eu-west-1"]]) {
      const tag = freshId();
      assert.equal(await say(name, { tag }), TEXT);
      const { credential, headers } = await received(mock, tag);
      assert.equal(credential, "signature good");
      assert.match(headers.authorization, new RegExp(`Credential=AKIDEXAMPLE/\\d{8}/${scope}/bedrock/aws4_request`));
      assert.equal("x-amz-security-token" in headers, name === "temporary");
    }
    const stream = await openai.chat.completions.create({ model: "signed", messages: ask({ text: TEXT }), stream: true });
    const chunks = await Array.fromAsync(stream);
    assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), TEXT);
  });

  test("tells a signature that is refused from a mistake of the caller's, and goes on to the next target", async () => {
    const tag = freshId();
    await fails(say("forged", { tag }), 502, "upstream_credential_refused");
    assert.equal((await received(mock, tag)).status, 403);
    assert.equal(await say("forged-or-else"), TEXT);
  });

  for (const [name, place] of [["gemini", "/usual/oauth/google"], ["entra", "/example.com/oauth2"], ["baidu", "/oauth/2.0"]]) {
    test(`mints a token for ${name} once and uses it for every request`, async () => {
      const first = freshId();
      assert.equal(await say(name, { tag: first }), TEXT);
      const ids = { entra: "client_id=of-ENTRA_SECRET", baidu: "client_id=an-application", gemini: "assertion=" };
      const mine = ({ body, path }) => `${path}${body}`.includes(ids[name]);
      const before = (await minted(place)).filter(mine);
      assert.ok(before.length >= 1, "a token was minted");
      for (let n = 0; n < 3; n += 1) assert.equal(await say(name), TEXT);
      assert.equal((await minted(place)).filter(mine).length, before.length);
      const { path } = await received(mock, first);
      assert.equal(path.includes("access_token="), name === "baidu");
      const line = await logOf(gateway, first);
      assert.equal(line.outcome, "completed");
      assert.equal(JSON.stringify(line).includes("access_token"), false);
    });
  }

  test("renews a token beside a request that still uses it", async () => {
    const place = "token_ttl=3";
    assert.equal(await say("brief"), TEXT);
    assert.equal((await minted(place)).length, 1);
    // Half of so short a life is over.
    await sleep(1_700);
    assert.equal(await say("brief"), TEXT);
    await eventually(async () => (await minted(place)).length === 2, "the token is renewed");
    // The first one is dead by now.
    await sleep(1_500);
    assert.equal(await say("brief"), TEXT);
  });

  test("fetches another token when one is refused before its time, once, and asks again with that", async () => {
    assert.equal(await say("rejected"), TEXT);
    const tag = freshId();
    assert.equal(await say("rejected", { tag, token_reject: 1 }), TEXT);
    assert.deepEqual((await journalOf(mock, tag)).map(({ status }) => status), [401, 200]);
    assert.equal((await minted("/rejected/")).length, 2);
    const line = await logOf(gateway, tag);
    assert.deepEqual([line.outcome, line.attempts ?? 1], ["completed", 1], "it is one attempt");
  });

  test("fetches another token when Baidu refuses one, which it says with status 200", async () => {
    const stream = async (tag) => {
      const body = { model: "ernie", messages: ask({ tag, text: TEXT, token_reject: 1 }), stream: true };
      const chunks = await Array.fromAsync(await openai.chat.completions.create(body));
      return chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
    };
    assert.equal(await say("ernie"), TEXT);
    const before = (await minted("/ernie/")).length;
    for (const [nth, again] of [(tag) => say("ernie", { tag, token_reject: 1 }), stream].entries()) {
      const tag = freshId();
      assert.equal(await again(tag), TEXT);
      assert.equal((await journalOf(mock, tag)).length, 2);
      assert.equal((await minted("/ernie/")).length, before + nth + 1);
    }
  });

  test("an upload goes out once: held, it is sent again with another token; passed through, its caller is told", async () => {
    const transcribe = (size, directives = {}) => {
      const tag = freshId();
      const told = Object.entries({ tag, ...directives }).map(([name, value]) => `${name}=${value}`).join(";");
      const file = new File([Buffer.alloc(size, 7)], "a.wav", { type: "audio/wav" });
      const asked = openai.audio.transcriptions.create({ model: "scribe", file }, { headers: { "x-mock": told } });
      return { tag, asked };
    };
    assert.ok((await transcribe(10_000).asked).text);
    const held = transcribe(10_000, { token_reject: 1 });
    assert.ok((await held.asked).text);
    assert.deepEqual((await journalOf(mock, held.tag)).map(({ status }) => status), [401, 200]);
    const passed = transcribe(12 * 1024 * 1024, { token_reject: 1 });
    await fails(passed.asked, 502, "upstream_credential_refused");
    assert.deepEqual((await journalOf(mock, passed.tag)).map(({ status }) => status), [401]);
    assert.ok((await transcribe(12 * 1024 * 1024).asked).text, "the next one has another token");
  });

  test("gives up on tokens that are refused however often, and leaves the endpoint alone for a while", async () => {
    const tag = freshId();
    const began = Date.now();
    await fails(say("useless", { tag, status: 401 }), 502, "upstream_credential_refused");
    assert.deepEqual((await journalOf(mock, tag)).map(({ status }) => status), [401, 401]);
    const before = (await minted("/useless/")).length;
    const again = say("useless");
    const isAnswered = await again.then(() => true, () => false);
    // A busy machine may come back to it when the while is over.
    if (isAnswered) {
      assert.ok(Date.now() - began >= 1_000, "it was not left alone");
    } else {
      await fails(again, 502, "upstream_credential_refused");
      assert.equal((await minted("/useless/")).length, before);
    }
    await eventually(() => say("useless").catch(() => false), "a token is tried again");
  });

  test("takes a token endpoint that fails for a provider that cannot be reached, until it recovers", async () => {
    assert.equal(await say("down-or-else"), TEXT, "somebody else answers");
    const times = async () => (await minted("token_fail=2")).length;
    assert.equal(await times(), 1);
    await eventually(async () => {
      await fails(say("down"), 502, "upstream_unreachable");
      return (await times()) === 2;
    }, "the endpoint is asked again");
    // Now for a second at least.
    await fails(say("down"), 502, "upstream_unreachable");
    assert.equal(await times(), 2, "it is left alone");
    await eventually(() => say("down").catch(() => false), "a token is minted");
    assert.equal(await times(), 3);
  });

  test("waits for a token no longer than for a reply, and one caller's hurry is nobody else's fault", async () => {
    for (let n = 0; n < 2; n += 1) {
      const begun = Date.now();
      await fails(say("slow"), 504, "upstream_timeout");
      const millis = Date.now() - begun;
      assert.ok(millis >= 900 && millis < 8_000, `${millis} ms`);
    }
  });

  test("takes a refused secret for the credential that it is, and goes on to the next target", async () => {
    await fails(say("refused"), 502, "upstream_credential_refused");
    assert.equal(await say("refused-or-else"), TEXT);
    await fails(say("nowhere"), 502, "upstream_credential_refused");
  });

  for (const model of ["gemini", "gemini-3", "claude"]) {
    test(`streams and calls tools of ${model} on Vertex by OpenAI's package`, async () => {
      const stream = await openai.chat.completions.create({
        model,
        messages: ask({ text: TEXT, usage_in: 12, usage_out: 7 }),
        stream: true,
        stream_options: { include_usage: true },
      });
      const chunks = await Array.fromAsync(stream);
      assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), TEXT);
      assert.deepEqual([chunks.at(-1).usage.prompt_tokens, chunks.at(-1).usage.completion_tokens], [12, 7]);

      const messages = [{ role: "user", content: `What is the weather? ${directive({ tools: 2, signature: 1 })}` }];
      const { choices } = await openai.chat.completions.create({ model, messages, tools });
      assert.equal(choices[0].finish_reason, "tool_calls");
      const said = choices[0].message;
      assert.deepEqual(said.tool_calls.map((call) => call.function.name), ["get_weather", "get_time"]);
      const results = said.tool_calls.map(({ id }) => ({ role: "tool", tool_call_id: id, content: "it is sunny" }));
      const second = await openai.chat.completions.create({ model, messages: [...messages, said, ...results], tools });
      assert.match(second.choices[0].message.content, /sunny/);

      const broken = await openai.chat.completions.create({ model, messages: ask({ chunks: 8, truncate_at: 3 }), stream: true });
      await assert.rejects(Array.fromAsync(broken));
    });
  }

  test("passes Messages to Claude on Vertex as they are, but for what stands elsewhere there", async () => {
    const anthropic = new Anthropic({ baseURL: at.url, authToken: at.key, apiKey: null, maxRetries: 0 });
    const tag = freshId();
    const body = { model: "claude", max_tokens: 900, cache_control: { type: "ephemeral" }, messages: ask({ tag, text: TEXT }) };
    const message = await anthropic.messages.create(body, { headers: { "x-request-id": tag } });
    assert.equal(message.content[0].text, TEXT);
    const { path, body: sent } = await received(mock, tag);
    assert.match(path, /\/publishers\/anthropic\/models\/claude-sonnet-4-5(@|%40)20250929:rawPredict$/);
    assert.deepEqual(Object.keys(JSON.parse(sent)).sort(), ["anthropic_version", "max_tokens", "messages"]);
    assert.equal((await logOf(gateway, tag)).lane, "native");

    const text = await anthropic.messages.stream({ ...body, messages: ask({ text: TEXT }) }).finalText();
    assert.equal(text, TEXT);
    await assert.rejects(anthropic.messages.create({ ...body, messages: ask({ status: 429 }) }), Anthropic.RateLimitError);
  });
});

test("no line of the log has a secret in it", assertNothingLeaked);
