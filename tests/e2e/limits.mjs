// What the tests of limits and money share: accounts with limits and keys, many clients at once, and the books of a
// gateway: what its ledgers, its database and its records say.

import assert from "node:assert/strict";
import http from "node:http";

import { mintKey } from "./harness.mjs";
import { KEY_HASH_SECRET, ask, eventually, send, sleep } from "./support.mjs";

/** How many clients call at the same time. */
export const CLIENTS = 64;

// The server closes connections that have been idle for five seconds; on a busy machine it takes long to notice.
const agent = new http.Agent({ keepAlive: true, maxSockets: 2 * CLIENTS, timeout: 1_000 });

// === Accounts, limits, keys ===

/** Asks an object, as the Worker does. */
export async function call(gateway, binding, name, method, where, body) {
  const stub = await gateway.object(binding, name);
  const reply = await stub.fetch(`https://object${where}`, { method, body: body && JSON.stringify(body) });
  const text = await reply.text();
  assert.equal(reply.status, 200, `${method} ${where}: ${text}`);
  return JSON.parse(text);
}

let revision = 0;

/** Sets an account's limits, in place of those that it had: `{dimension, period, amount, key_id?, user_id?, …}`. */
export function limit(gateway, account, ...limits) {
  revision += 1;
  const entry = ({ id, ...terms }, nth) => ({
    id: id ?? `lim-${account}-${nth}`,
    account_id: account,
    key_id: null,
    user_id: null,
    model: null,
    burst: null,
    mode: "enforce",
    revision,
    created_at: 0,
    updated_at: 0,
    ...terms,
  });
  // Later than any that a gateway before it was told of.
  const number = Date.now() * 100 + revision;
  return call(gateway, "LEDGER", account, "PUT", "/account", {
    revision: number,
    suspended: false,
    limits: limits.map(entry),
  });
}

/** Makes keys: `{account, user?, overrides?}` each. Gives each key with its id and record. */
export async function makeKeys(gateway, wanted) {
  const made = [];
  for (let from = 0; from < wanted.length; from += 8) {
    const part = wanted.slice(from, from + 8).map(async ({ account, ...more }) => {
      const { key, entry } = await mintKey({ name: "made", account }, KEY_HASH_SECRET);
      const record = { ...JSON.parse(entry.value), ...more };
      await gateway.kv.put(entry.name, JSON.stringify(record));
      return { key, id: entry.name.replace("key:", ""), account, user: more.user, record };
    });
    made.push(...(await Promise.all(part)));
  }
  return made;
}

// === Requests ===

/** A request for the mock provider: what `send` takes. */
export function chatWith({ url, key, model = "gpt-test", directives = { text: "well" }, headers = {}, ...fields }) {
  return {
    url: `${url}/v1/chat/completions`,
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${key}`, ...headers },
    body: JSON.stringify({ model, messages: ask(directives), ...fields }),
    agent,
  };
}

export const chat = (options) => send(chatWith(options));

/** Does work for each of so many numbers, `clients` of them at a time; the results in order. */
export async function crowd(count, work, clients = CLIENTS) {
  const results = Array(count);
  let next = 0;
  const client = async () => {
    for (let nth = next++; nth < count; nth = next++) results[nth] = await work(nth);
  };
  await Promise.all(Array.from({ length: Math.min(clients, count) }, client));
  return results;
}

/** How often each status came. */
export function tally(replies) {
  const counts = {};
  for (const { status } of replies) counts[status] = (counts[status] ?? 0) + 1;
  return counts;
}

// === What came of it ===

export const ledger = (gateway, account) => call(gateway, "LEDGER", account, "GET", "/status");

/** How the limits of a key, or of an account, stand, and what was used. */
export async function limitsNow(gateway, account, query = {}) {
  const now = await call(gateway, "LEDGER", account, "POST", "/limits", query);
  const named = ([requests, input, output, cost]) => ({ requests, input, output, cost });
  for (const total of Object.values(now.totals)) {
    for (const [kind, amounts] of Object.entries(total)) total[kind] = named(amounts);
  }
  return now;
}

/** Waits until a ledger has nothing open and nothing that the database does not have. */
export function settled(gateway, account, { timeout = 20_000 } = {}) {
  return eventually(
    async (seen) => {
      const status = await ledger(gateway, account);
      seen(status);
      return status.open === 0 && status.pending_usage === 0 && status;
    },
    `${account} is settled`,
    { timeout, interval: 50 },
  );
}

/** What an account has used, by its ledger, by the database's sums and by its records, in the same words. */
export async function books(gateway, account) {
  const { totals } = await limitsNow(gateway, account);
  const { reserved, settled } = totals.total;
  assert.deepEqual(reserved, { requests: 0, input: 0, output: 0, cost: 0 }, `${account} has nothing reserved`);
  const first = (query) => gateway.db.prepare(query).bind(account).first();
  const input = "input + cache_read + cache_write_5m + cache_write_1h + input_audio + input_image";
  const output = "output + output_reasoning + output_audio + output_image";
  const sums = await first(
    `SELECT SUM(requests) AS requests, SUM(${input}) AS input, SUM(${output}) AS output, SUM(cost_nanos) AS cost
     FROM usage WHERE account_id = ?`,
  );
  const records = await first(
    `SELECT COUNT(*) AS records, SUM(cost_nanos) AS cost,
       SUM(record ->> '$.cost_nanodollars') AS told FROM request_records WHERE account_id = ?`,
  );
  for (const side of [sums, records]) for (const name of Object.keys(side)) side[name] ??= 0;
  return { ledger: settled, database: sums, records };
}

export { eventually, sleep };
