// The gateway as a client meets it first: is it up, does a conversation work, is a stranger turned away.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

import { startGateway, startMock } from "./harness.mjs";

const messages = [{ role: "user", content: "Hello! What are you?" }];

describe("the gateway", () => {
  let mock, gateway, openai;

  before(async () => {
    mock = await startMock();
    gateway = await startGateway({ mockUrl: mock.url, keys: [{ name: "app" }] });
    openai = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: gateway.keys.app, maxRetries: 0 });
  });

  after(async () => {
    await gateway?.stop();
    await mock?.stop();
  });

  test("says that it is alive", async () => {
    const response = await fetch(`${gateway.url}/health`);
    assert.equal(response.status, 200);
  });

  test("says that its bindings can be reached", async () => {
    const response = await fetch(`${gateway.url}/ready`);
    assert.equal(response.status, 200, await response.text());
  });

  test("answers a chat completion", async () => {
    const completion = await openai.chat.completions.create({ model: "demo", messages });
    assert.equal(completion.choices[0].finish_reason, "stop");
    assert.notEqual(completion.choices[0].message.content, "");
    assert.ok(completion.usage.total_tokens > 0);
  });

  test("streams a chat completion", async () => {
    const stream = await openai.chat.completions.create({ model: "demo", messages, stream: true });
    let text = "";
    const finishReasons = [];
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? "";
      if (chunk.choices[0]?.finish_reason) finishReasons.push(chunk.choices[0].finish_reason);
    }
    assert.notEqual(text, "");
    assert.deepEqual(finishReasons, ["stop"]);
  });

  test("answers an Anthropic client", async () => {
    const anthropic = new Anthropic({ baseURL: gateway.url, apiKey: gateway.keys.app, maxRetries: 0 });
    const message = await anthropic.messages.create({ model: "demo-claude", max_tokens: 200, messages });
    assert.equal(message.stop_reason, "end_turn");
    assert.notEqual(message.content[0].text, "");
    assert.ok(message.usage.output_tokens > 0);
  });

  test("knows no other routes", async () => {
    const response = await fetch(`${gateway.url}/v1/nothing-here`, {
      headers: { authorization: `Bearer ${gateway.keys.app}` },
    });
    assert.equal(response.status, 404);
  });

  test("refuses a key that it did not issue", async () => {
    const stranger = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: "sk-lgw-nobody", maxRetries: 0 });
    await assert.rejects(stranger.chat.completions.create({ model: "demo", messages }), OpenAI.AuthenticationError);
  });
});
