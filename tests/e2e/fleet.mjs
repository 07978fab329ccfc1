// Providers whose health a test changes while requests are under way, and routes over them. Each has a port of its own,
// so that one that is down really is.

import http from "node:http";

import { chat, eventually } from "./limits.mjs";
import { freshId, requestLines, sleep } from "./support.mjs";

/** How gateways are set where providers fail: all in all as by default, but quicker. */
export const ROUTING = {
  breaker: { consecutive: 5, open_ms: 1_000, max_open_ms: 4_000, trials: 3 },
  slow_start_ms: 2_000,
  report_ms: 200,
};

/** What a provider that is well says. */
const TEXT = "Well, well.";

const USAGE = { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 };

function completion(text, usage = USAGE) {
  const choices = [{ index: 0, message: { role: "assistant", content: text }, finish_reason: "stop" }];
  return JSON.stringify({ id: "c", object: "chat.completion", created: 1, model: "m", choices, usage });
}

/** The events of a stream, each as it is written. */
function pieces(text) {
  const chunk = (delta, finish_reason = null, more = {}) => {
    const body = { id: "c", object: "chat.completion.chunk", created: 1, model: "m", ...more };
    return `data: ${JSON.stringify({ ...body, choices: [{ index: 0, delta, finish_reason }] })}\n\n`;
  };
  const words = text.split(/(?<= )/).map((word) => chunk({ content: word }));
  const usage = `data: ${JSON.stringify({ id: "c", object: "chat.completion.chunk", created: 1, model: "m", choices: [], usage: USAGE })}\n\n`;
  return [chunk({ role: "assistant", content: "" }), ...words, chunk({}, "stop"), usage, "data: [DONE]\n\n"];
}

/** An error in OpenAI's shape. */
export const failing = (status, error = {}, headers = {}) => ({
  status,
  headers,
  body: JSON.stringify({ error: { message: "no", type: "server_error", param: null, code: null, ...error } }),
});

/**
 * Starts a provider. `weather` says how it answers, and may be changed at any time, also to a function of the request:
 *
 * - `latency`: milliseconds before it answers; `until`: a promise that it waits for; `first`: milliseconds before a
 *   stream's first event
 * - `status`, `headers`, `body`: an answer of another kind
 * - `fault`: "reset" (no reply at all), "hang" (nothing comes), "cut" (a whole reply breaks off), "stall" and "break" (a
 *   stream falls silent, or is reset, after its first words)
 *
 * `visits` has an entry for each request: when it came and ended, the weather it met, its body; `open` and `most` are how
 * many are open and were at most. `down()` closes the port and every connection; `up()` opens it again.
 */
export async function startProvider(weather = {}) {
  const provider = { weather, visits: [], open: 0, most: 0 };
  const answer = async (request, response) => {
    const visit = { at: Date.now(), ended: null, headers: request.headers, body: undefined };
    provider.visits.push(visit);
    provider.open += 1;
    provider.most = Math.max(provider.most, provider.open);
    response.once("close", () => {
      visit.ended = Date.now();
      provider.open -= 1;
    });
    const read = [];
    for await (const piece of request) read.push(piece);
    visit.body = JSON.parse(Buffer.concat(read).toString() || "{}");
    const met = typeof provider.weather === "function" ? provider.weather(visit) : provider.weather;
    visit.fault = met.fault ?? met.status;
    if (met.latency) await sleep(met.latency);
    await met.until;
    if (met.fault === "hang") return;
    if (met.fault === "reset") return request.socket.resetAndDestroy();
    if (met.status) {
      response.writeHead(met.status, { "content-type": "application/json", ...met.headers });
      return response.end(met.body);
    }
    const text = met.text ?? TEXT;
    if (!visit.body.stream) {
      const whole = completion(text, met.usage);
      response.writeHead(200, { "content-type": "application/json", "content-length": whole.length, ...met.headers });
      if (met.fault !== "cut") return response.end(whole);
      return response.write(whole.slice(0, whole.length / 2), () => setTimeout(() => request.socket.resetAndDestroy(), 20));
    }
    response.writeHead(200, { "content-type": "text/event-stream", ...met.headers });
    response.flushHeaders();
    if (met.first) await sleep(met.first);
    const events = pieces(text);
    if (met.fault === "stall" || met.fault === "break") {
      response.write(events.slice(0, 2).join(""));
      if (met.fault === "break") setTimeout(() => request.socket.resetAndDestroy(), 50);
      return undefined;
    }
    for (const event of events) {
      response.write(event);
      if (met.gap) await sleep(met.gap);
    }
    return response.end();
  };
  const server = http.createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
    response.on("error", () => {});
    answer(request, response).catch(() => response.destroy());
  });
  const up = (port) => new Promise((resolve) => server.listen(port, "127.0.0.1", 1_024, resolve));
  await up(0);
  const { port } = server.address();
  const down = () => {
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    return closed;
  };
  return Object.assign(provider, {
    url: `http://127.0.0.1:${port}`,
    up: () => up(port),
    down,
    stop: () => (server.listening ? down() : undefined),
    /** Forgets what came. */
    forget() {
      provider.visits.length = 0;
      provider.most = provider.open;
    },
  });
}

/**
 * Starts providers by name, with their weather, and gives them together with the parts of a configuration in which each
 * has one model of its own name.
 */
export async function startFleet(weathers, more = () => ({})) {
  const names = Object.keys(weathers);
  const started = await Promise.all(names.map((name) => startProvider(weathers[name])));
  const fleet = Object.fromEntries(names.map((name, nth) => [name, started[nth]]));
  const each = (what) => Object.fromEntries(names.map((name) => [name, what(name)]));
  const providers = each((name) => ({
    dialect: "openai",
    base_url: `${fleet[name].url}/v1`,
    credential: "OPENAI_KEY",
    ...more(name),
  }));
  const models = each((name) => ({ provider: name, upstream_model: name }));
  const stop = () => Promise.all(started.map((provider) => provider.stop()));
  return { fleet, providers, models, stop };
}

/** The targets of a route: models by name, or targets as they are. */
export const targets = (...list) => list.map((it) => (typeof it === "string" ? { model: it } : it));

/** How often each value comes. */
export function countBy(list, what) {
  const counts = {};
  for (const entry of list) counts[what(entry)] = (counts[what(entry)] ?? 0) + 1;
  return counts;
}

/** Asks a route in one of a gateway's isolates, and gives the reply with its request's id, and when it began and ended. */
export async function askedAt(gateway, model, { isolate = 0, headers = {}, ...more } = {}) {
  const id = freshId();
  const began = Date.now();
  const url = gateway.urls[isolate];
  const reply = await chat({ url, key: gateway.keys.app, model, ...more, headers: { "x-request-id": id, ...headers } });
  return { id, isolate, began, ended: Date.now(), status: reply.status, headers: reply.headers, text: reply.text };
}

/** The log lines of requests, in their order. */
export async function linesAt(gateway, replies) {
  const lines = new Map();
  let looked = 0;
  await eventually(() => {
    const found = requestLines({ logs: gateway.logs.slice(looked) });
    looked = gateway.logs.length;
    for (const line of found) lines.set(line.request_id, line);
    return replies.every(({ id }) => lines.has(id));
  }, "log lines");
  return replies.map(({ id }) => lines.get(id));
}
