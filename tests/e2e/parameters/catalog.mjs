// Checks of what is offered: `providers`, `models`, `routes`.

import { MOCK, PROVIDER_SECRETS, ask, freshId, received, send } from "../support.mjs";
import { check, shownBy } from "./table.mjs";
import { arrived, chat, listed, logged, stream } from "./tools.mjs";

// === providers ===

check("providers.switched.enabled", { plain: [undefined, 200], tight: [false, 503] }, async (at) =>
  (await chat(at, "switched")).status);
check("providers.spoken.dialect", {
  plain: ["openai", "/chat/completions"],
  tight: ["anthropic", "/v1/messages"],
}, async (at) =>
  (await arrived(at, "spoken")).path);
check("providers.wired.wires", {
  plain: [undefined, "/v1/chat/completions"],
  tight: [["responses"], "/v1/responses"],
}, async (at) => (await arrived(at, "wired")).path);
check("providers.branded.preset", { plain: [undefined, 5], tight: ["mistral", undefined] }, async (at) =>
  (await arrived(at, "branded", { fields: { seed: 5 } })).json.seed);
check("providers.cloudy.api_version", {
  plain: [undefined, "api-version=2024-10-21"],
  tight: ["2025-01-01-preview", "api-version=2025-01-01-preview"],
}, async (at) => (await arrived(at, "cloudy")).path.split("?")[1]);
check("providers.keeping.stored_responses", { plain: [undefined, false], tight: [true, true] }, async (at) => {
  const id = freshId();
  await send({
    url: `${at.url}/v1/responses`,
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${at.key}` },
    body: JSON.stringify({ model: "keeping", input: ask({ tag: id })[0].content }),
  });
  return JSON.parse((await received(at.mock, id)).body).metadata?.gateway_account !== undefined;
});
check("providers.moved.base_url", {
  plain: [undefined, "/v1/chat/completions"],
  tight: [`${MOCK}/elsewhere/v1`, "/elsewhere/v1/chat/completions"],
}, async (at) => (await arrived(at, "moved")).path);
check("providers.trusted.credential", {
  plain: [undefined, `Bearer ${PROVIDER_SECRETS.OPENAI_KEY}`],
  tight: ["ODD_KEY", `Bearer ${PROVIDER_SECRETS.ODD_KEY}`],
}, async (at) => (await arrived(at, "trusted")).headers.authorization);
check("providers.adorned.headers", { plain: [undefined, undefined], tight: [{ "x-tenant": "t1" }, "t1"] }, async (at) =>
  (await arrived(at, "adorned")).headers["x-tenant"]);
check("providers.adorned.user_agent", { plain: [undefined, true], tight: ["acme/7", false] }, async (at) =>
  (await arrived(at, "adorned")).headers["user-agent"].startsWith("llm-gateway/"));
check("providers.adorned.forward_headers", {
  plain: [undefined, undefined],
  tight: [["x-project"], "p1"],
}, async (at) =>
  (await arrived(at, "adorned", { headers: { "x-project": "p1" } })).headers["x-project"]);
check("providers.hasty.timeouts.first_byte_ms", { plain: [undefined, 200], sparse: [400, 504] }, async (at) =>
  (await stream(at, "hasty", { directives: { ttfb_ms: 1_500 } })).status);
check("providers.hasty.timeouts.idle_ms", { plain: [undefined, 0], sparse: [400, 1] }, async (at) =>
  (await stream(at, "hasty", { directives: { chunks: 2, gap_ms: 1_500 } })).errors.length);
check("providers.hasty.timeouts.total_ms", { plain: [undefined, 200], sparse: [900, 504] }, async (at) =>
  (await chat(at, "hasty", { directives: { ttfb_ms: 2_000 } })).status);
check("providers.streaming.stream_usage", { plain: [undefined, true], tight: ["always", false] }, async (at) => {
  const { id } = await stream(at, "streaming");
  const [entry] = await at.mock.journal(id);
  return JSON.parse(entry.body).stream_options?.include_usage === true;
});
check("providers.loosely.normalize", { plain: [undefined, "native"], tight: [true, "translated"] }, async (at) => {
  const { id } = await stream(at, "loosely", { fields: { stream_options: { include_usage: true } } });
  return (await at.lineOf(id)).lane;
});

// === providers.*.generic ===

// A provider of the tests' own (see `odd` in parameters.test.mjs) says everything twice, under `a` and under `b`; the
// configuration says where to look. What it received comes back in `seen`.

const odd = async (at, model, wish = "", options) => {
  const reply = await chat(at, model, { fields: { messages: [{ role: "user", content: `Well? ${wish}` }] }, ...options });
  return { ...reply, status: reply.status, answer: reply.json, seen: at.seen.get(reply.id) };
};
const oddStream = async (at, model, wish = "") =>
  stream(at, model, { fields: { messages: [{ role: "user", content: `Well? ${wish}` }], stream_options: { include_usage: true } } });
const reasoningOf = (read) => read.all.map(({ json }) => json?.choices?.[0]?.delta?.reasoning_content ?? "").join("");

const between = (a, b) => ({ plain: [a[0], a[1]], tight: [b[0], b[1]] });

check("providers.odd.generic.path", between(["/run/a", "/odd/run/a"], ["/run/b", "/odd/run/b"]), async (at) =>
  (await odd(at, "odd")).seen.path);
check("providers.odd.generic.credential_header", between([undefined, [true, false]], ["api-key", [false, true]]), async (at) => {
  const { headers } = (await odd(at, "odd")).seen;
  return ["authorization", "api-key"].map((name) => headers[name] !== undefined);
});
check("providers.odd.generic.body", between(
  [{ q: "{{last_user_message}}", m: "{{model}}" }, ["m", "q"]],
  [{ question: "{{last_user_message}}", live: "{{stream}}" }, ["live", "question"]],
), async (at) => Object.keys(JSON.parse((await odd(at, "odd")).seen.body)).sort());
check("providers.odd.generic.reply.text", between(["/a/text", "text a"], ["/b/text", "text b"]), async (at) =>
  (await odd(at, "odd")).answer.choices[0].message.content);
check("providers.odd.generic.reply.id", between(["/a/id", "chatcmpl-id-a"], ["/b/id", "chatcmpl-id-b"]), async (at) =>
  (await odd(at, "odd")).answer.id);
check("providers.odd.generic.reply.reasoning", between(["/a/thoughts", "thoughts a"], ["/b/thoughts", "thoughts b"]), async (at) =>
  (await odd(at, "odd")).answer.choices[0].message.reasoning_content);
check("providers.odd.generic.reply.finish_reason", between(["/a/why", "length"], ["/b/why", "stop"]), async (at) =>
  (await odd(at, "odd")).answer.choices[0].finish_reason);
check("providers.worded.generic.reply.finish_reasons", between(
  [{ halt: "length" }, "length"],
  [{ halt: "content_filter" }, "content_filter"],
), async (at) => (await odd(at, "worded")).answer.choices[0].finish_reason);
check("providers.odd.generic.reply.input_tokens", between(["/a/in", 11], ["/b/in", 21]), async (at) =>
  (await odd(at, "odd")).answer.usage.prompt_tokens);
check("providers.odd.generic.reply.output_tokens", between(["/a/out", 12], ["/b/out", 22]), async (at) =>
  (await odd(at, "odd")).answer.usage.completion_tokens);
check("providers.odd.generic.reply.cache_read_tokens", between(["/a/read", 1], ["/b/read", 2]), async (at) =>
  (await odd(at, "odd")).answer.usage.prompt_tokens_details.cached_tokens);
check("providers.odd.generic.reply.cache_write_tokens", between(["/a/wrote", 2], ["/b/wrote", 4]), async (at) =>
  (await odd(at, "odd")).answer.usage.prompt_tokens_details.cache_write_tokens);
check("providers.odd.generic.reply.reasoning_tokens", between(["/a/pondered", 3], ["/b/pondered", 6]), async (at) =>
  (await odd(at, "odd")).answer.usage.completion_tokens_details.reasoning_tokens);
check("providers.odd.generic.error_message", between(["/a/words", true], ["/b/words", false]), async (at) =>
  (await odd(at, "odd", "fail")).answer.error.message.includes("words a"));
check("providers.odd.generic.error_code", between(["/a/number", "41"], ["/b/number", "42"]), async (at) =>
  (await odd(at, "odd", "fail")).answer.error.code);

check("providers.framed.generic.stream.framing", between(["sse", true], ["ndjson", false]), async (at) =>
  (await oddStream(at, "framed")).done);
check("providers.odd.generic.stream.reply.text", between(["/a/text", "text a"], ["/b/text", "text b"]), async (at) =>
  (await oddStream(at, "odd")).text);
check("providers.odd.generic.stream.reply.id", between(["/a/id", "chatcmpl-id-a"], ["/b/id", "chatcmpl-id-b"]), async (at) =>
  [...(await oddStream(at, "odd")).ids].join());
check("providers.odd.generic.stream.reply.reasoning", between(["/a/thoughts", "thoughts a"], ["/b/thoughts", "thoughts b"]), async (at) =>
  reasoningOf(await oddStream(at, "odd")));
check("providers.odd.generic.stream.reply.finish_reason", between(["/a/why", "length"], ["/b/why", "stop"]), async (at) =>
  (await oddStream(at, "odd")).reasons.join());
check("providers.worded.generic.stream.reply.finish_reasons", between(
  [{ halt: "length" }, "length"],
  [{ halt: "content_filter" }, "content_filter"],
), async (at) => (await oddStream(at, "worded")).reasons.join());
check("providers.odd.generic.stream.reply.input_tokens", between(["/a/in", 11], ["/b/in", 21]), async (at) =>
  (await oddStream(at, "odd")).usages.at(-1).prompt_tokens);
check("providers.odd.generic.stream.reply.output_tokens", between(["/a/out", 12], ["/b/out", 22]), async (at) =>
  (await oddStream(at, "odd")).usages.at(-1).completion_tokens);
check("providers.odd.generic.stream.reply.cache_read_tokens", between(["/a/read", 1], ["/b/read", 2]), async (at) =>
  (await oddStream(at, "odd")).usages.at(-1).prompt_tokens_details.cached_tokens);
check("providers.odd.generic.stream.reply.cache_write_tokens", between(["/a/wrote", 2], ["/b/wrote", 4]), async (at) =>
  (await oddStream(at, "odd")).usages.at(-1).prompt_tokens_details.cache_write_tokens);
check("providers.odd.generic.stream.reply.reasoning_tokens", between(["/a/pondered", 3], ["/b/pondered", 6]), async (at) =>
  (await oddStream(at, "odd")).usages.at(-1).completion_tokens_details.reasoning_tokens);
check("providers.ended.generic.stream.done", between(["[END]", true], ["[OVER]", false]), async (at) =>
  (await oddStream(at, "ended", "end")).done);
check("providers.odd.generic.stream.error_message", between(["/a/words", true], ["/b/words", false]), async (at) =>
  (await oddStream(at, "odd", "break")).errors[0].error.message.includes("words a"));

// === models ===

check("models.known.enabled", { plain: [undefined, 200], tight: [false, 404] }, async (at) =>
  (await chat(at, "known")).status);
check("models.served.provider", { plain: [undefined, "openai"], tight: ["inline", "inline"] }, async (at) =>
  (await logged(at, "served")).provider);
check("models.served.upstream_model", {
  plain: [undefined, "mock-large"],
  tight: ["mock-other", "mock-other"],
}, async (at) =>
  (await arrived(at, "served")).json.model);
check("models.talkative.max_output_tokens", { plain: [undefined, 8_192], tight: [77, 77] }, async (at) =>
  (await arrived(at, "talkative")).json.max_tokens);
check("models.small.context_tokens", { plain: [undefined, 200], tight: [100, 400] }, async (at) =>
  (await chat(at, "small", { fields: { messages: [{ role: "user", content: "word ".repeat(200) }] } })).status);
check("models.served.description", {
  plain: [undefined, undefined],
  tight: ["The good one", "The good one"],
}, async (at) =>
  (await listed(at, "served")).description);
check("models.served.owned_by", { plain: [undefined, "openai"], tight: ["acme", "acme"] }, async (at) =>
  (await listed(at, "served")).owned_by);
check("models.talkative.structured_output", { plain: [undefined, false], tight: ["tool", true] }, async (at) => {
  const schema = { type: "object", properties: { a: { type: "string" } }, required: ["a"], additionalProperties: false };
  const fields = { response_format: { type: "json_schema", json_schema: { name: "answer", strict: true, schema } } };
  return (await arrived(at, "talkative", { fields })).json.tools !== undefined;
});
check("models.picky.strict_params", { plain: [true, "seed"], tight: [false, undefined] }, async (at) =>
  (await chat(at, "picky", { fields: { seed: 7 } })).json.error?.param);

// === routes ===

check("routes.way.enabled", { plain: [undefined, 200], tight: [false, 404] }, async (at) => (await chat(at, "way")).status);
check("routes.path.description", { plain: [undefined, undefined], tight: ["The best", "The best"] }, async (at) =>
  (await listed(at, "path")).description);
check("routes.path.targets[0].model", { plain: [undefined, "served"], tight: ["gpt-test", "gpt-test"] }, async (at) =>
  (await logged(at, "path")).deployment);
check("routes.fork.targets[0].enabled", { plain: [undefined, "served"], tight: [false, "gpt-test"] }, async (at) =>
  (await logged(at, "fork")).deployment);

// === providers.*.auth ===

const CREDENTIALS = "tests/e2e/credentials.test.mjs";
const auth = (...names) => names.map((name) => `providers.named.auth.${name}`);

shownBy(CREDENTIALS, "signs requests to Amazon, over the bytes and at the time at which they go out", auth("method", "access_key_id", "region"));
shownBy(CREDENTIALS, "takes a token endpoint that fails for a provider that cannot be reached, until it recovers", auth("token_url"));
shownBy("src/providers/auth/minted.rs", "entra_and_baidu_are_sent_the_clients_secret", auth("tenant", "client_id", "scope"));
