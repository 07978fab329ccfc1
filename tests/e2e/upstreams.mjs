// Models of every upstream dialect, for tests that use one client on all of them.

import { HEALTH, MOCK } from "./support.mjs";

const provider = (dialect, base_url, more = {}) => ({ dialect, base_url, credential: "OPENAI_KEY", health: HEALTH, ...more });

const PROVIDERS = {
  gemini: provider("gemini", `${MOCK}/v1beta`),
  bedrock: provider("bedrock", MOCK),
  responses: provider("openai", `${MOCK}/v1`, { wires: ["responses"] }),
  cohere: provider("cohere", MOCK),
};

/**
 * Models by what they stand for: where they are asked whole (`path`), how they are made to think by callers of Messages
 * (`thinking`; a budget where nothing is said), whether what they thought comes with a proof, and whether documents are
 * text to them (`textOnly`).
 */
export const UPSTREAMS = {
  "an OpenAI-like model": { provider: "openai", upstream_model: "mock-large", path: "/v1/chat/completions" },
  "OpenAI's Responses": { provider: "responses", upstream_model: "gpt-5.5", path: "/v1/responses", proves: true },
  "Claude itself": {
    provider: "anthropic",
    upstream_model: "claude-opus-4-8",
    path: "/v1/messages",
    thinking: { type: "adaptive" },
    proves: true,
  },
  "Gemini 2.5": {
    provider: "gemini",
    upstream_model: "gemini-2.5-flash",
    path: "/v1beta/models/gemini-2.5-flash:generateContent",
  },
  "Gemini 3": {
    provider: "gemini",
    upstream_model: "gemini-3-flash-preview",
    path: "/v1beta/models/gemini-3-flash-preview:generateContent",
    proves: true,
  },
  "Claude on Bedrock": {
    provider: "bedrock",
    upstream_model: "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    path: "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse",
    proves: true,
  },
  "Nova on Bedrock": {
    provider: "bedrock",
    upstream_model: "us.amazon.nova-2-lite-v1:0",
    path: "/model/us.amazon.nova-2-lite-v1%3A0/converse",
  },
  "Cohere's Command": {
    provider: "cohere",
    upstream_model: "command-a-reasoning-08-2025",
    path: "/v2/chat",
    textOnly: true,
  },
};

/** The providers that a table of such models needs besides those of every configuration. */
export function providersOf(models) {
  const needed = new Set(Object.values(models).map(({ provider }) => provider));
  return Object.fromEntries(Object.entries(PROVIDERS).filter(([name]) => needed.has(name)));
}

/** A table of such models as a configuration has them. */
export function modelsOf(models) {
  const model = ({ provider, upstream_model }) => ({ provider, upstream_model });
  return Object.fromEntries(Object.entries(models).map(([name, it]) => [name, model(it)]));
}
