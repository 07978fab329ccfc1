// Least connections: the gauge's pick is exact, over all isolates, at any moment; and what it costs is one call before a
// request and one after it.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { counted, counts } from "./counting.mjs";
import { countBy, startFleet, targets } from "./fleet.mjs";
import { startGateway } from "./harness.mjs";
import { CLIENTS, call, chat, crowd, eventually, tally } from "./limits.mjs";
import { KEY_HASH_SECRET, PROVIDER_SECRETS, sleep } from "./support.mjs";

const ABC = ["a", "b", "c"];
const named = (prefix) => ABC.map((letter) => `${prefix}-${letter}`);

/** How many requests the gateway may have open at each of these providers. */
const ROOM = 5;

const MILLIS = { "speed-a": 20, "speed-b": 60, "speed-c": 180, room: 30 };
const GROUPS = ["held", "speed", "heavy", "room", "long"];
const WEATHERS = Object.fromEntries(
  GROUPS.flatMap(named).map((name) => [name, { latency: MILLIS[name] ?? MILLIS[name.split("-")[0]] ?? 0 }]),
);

const least = (...list) => ({ strategy: "least_connections", targets: targets(...list) });
const ROUTES = {
  ...Object.fromEntries(GROUPS.map((group) => [group, least(...named(group))])),
  heavy: least("heavy-a", { model: "heavy-b", weight: 2 }, "heavy-c"),
};

let fleet, gateway, key;
const stops = [];

before(async () => {
  const started = await startFleet(WEATHERS, (name) =>
    name.startsWith("room") ? { limits: [{ dimension: "concurrency", period: "none", amount: ROOM }] } : {},
  );
  fleet = started.fleet;
  stops.push(started.stop);
  gateway = await startGateway({
    config: { providers: started.providers, models: started.models, routes: ROUTES },
    vars: { PRIVATE_UPSTREAM_HOSTS: "127.0.0.1" },
    secrets: { KEY_HASH_SECRET, ...PROVIDER_SECRETS },
    keys: [{ name: "app" }],
    isolates: 2,
    ...counted(),
  });
  key = gateway.keys.app;
  stops.unshift(gateway.stop);
});
after(async () => {
  for (const stop of stops) await stop();
});

const ask = (nth, model) => chat({ url: gateway.urls[nth % 2], key, model });
const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);
const apart = (numbers) => Math.max(...numbers) - Math.min(...numbers);

/** How many requests are open at a group's providers: as they know themselves, and as the gauge counts. */
const atProviders = (group) => named(group).map((name) => fleet[name].open);
async function atGauge(group) {
  const { open } = await call(gateway, "GAUGE", named(group)[0], "GET", "/counts");
  return named(group).map((name) => open[name] ?? 0);
}

const bothAre = (group, expected) =>
  eventually(
    async (seen) => {
      const both = [atProviders(group), await atGauge(group)];
      seen(both);
      return both.every((open) => open.join() === expected.join());
    },
    `${group} has ${expected} open, at the providers and at the gauge`,
    { timeout: 20_000 },
  );

/** A provider that answers nothing until it is told to, once. */
function hold(name) {
  const { promise, resolve } = Promise.withResolvers();
  fleet[name].weather = { until: promise };
  return resolve;
}

test("what is open is shared out exactly, and who has answered gets the next", { timeout: 90_000 }, async () => {
  const providers = named("held");
  const free = providers.map(hold);
  const asked = Array.from({ length: 60 }, (_, nth) => ask(nth, "held"));
  await bothAre("held", [20, 20, 20]);
  for (const [nth, name] of providers.entries()) {
    const again = hold(name);
    free[nth]();
    free[nth] = again;
    await bothAre("held", [20, 20, 20].with(nth, 0));
    asked.push(...Array.from({ length: 20 }, (_, nth) => ask(nth, "held")));
    await bothAre("held", [20, 20, 20]);
    assert.equal(fleet[name].visits.length, 40, "all of them went there");
  }
  free.forEach((answer) => answer());
  assert.deepEqual(tally(await Promise.all(asked)), { 200: 120 });
  await bothAre("held", [0, 0, 0]);
});

test("providers of unequal speed have equally many open", { timeout: 120_000 }, async () => {
  const requests = 1_500;
  await counts(gateway);
  const seen = [];
  const ended = { now: false };
  const watching = (async () => {
    while (!ended.now) {
      seen.push({ gauge: await atGauge("speed"), providers: atProviders("speed") });
      await sleep(5);
    }
  })();
  const replies = await crowd(requests, (nth) => ask(nth, "speed"), 48);
  ended.now = true;
  await watching;
  assert.deepEqual(tally(replies), { 200: requests });
  const got = named("speed").map((name) => fleet[name].visits.length);
  assert.ok(got[0] > got[1] && got[1] > got[2], got.join());

  // Each pick, by what the gauge says itself: the first of those that had the fewest.
  const { picks, gauge } = await counts(gateway);
  assert.equal(picks.length, requests);
  assert.deepEqual([gauge.calls["/acquire"], gauge.calls["/release"]], [requests, requests]);
  for (const { candidates, index, open, granted } of picks) {
    assert.ok(granted);
    assert.deepEqual([...new Set(candidates.map(({ weight }) => weight))].length, 1, "they weigh the same");
    const had = open.with(index, open[index] - 1);
    assert.equal(index, had.indexOf(Math.min(...had)), `the ${index}th of ${had} was picked`);
  }

  // Between two picks requests end, and nobody can send others in their place. A provider has got its last request when it
  // had the fewest; so one can have fallen behind it by what has ended since and not begun again, which is no more than
  // the most that were ever open are more than are open now; and by one.
  const most = Math.max(...picks.map(({ open }) => sum(open)));
  const steady = seen.filter((both) => sum(both.gauge) >= 24);
  for (const open of [...picks.map(({ open }) => open), ...seen.map((both) => both.gauge)]) {
    assert.ok(apart(open) <= 1 + most - sum(open), `${open} are open, and ${most} were at most`);
  }
  const spread = (all) => {
    const sorted = all.map(apart).sort((a, b) => a - b);
    return [0.5, 0.9, 1].map((share) => sorted[Math.floor(share * (sorted.length - 1))]);
  };
  const [atPicks, byGauge, byProviders] = [
    picks.map(({ open }) => open).filter((open) => sum(open) >= 24),
    steady.map((both) => both.gauge),
    steady.map((both) => both.providers),
  ].map(spread);
  // Whoever is picked has no more than its part then. A provider knows only of what is not on its way there or back.
  const part = Math.ceil(most / 3);
  for (const name of named("speed")) assert.ok(fleet[name].most <= part, `${name} had ${fleet[name].most} of ${most}`);
  assert.ok(byGauge[0] <= 2, `${byGauge[0]} apart, as the gauge counts`);
  assert.ok(byProviders[0] <= 10, `${byProviders[0]} apart, as the providers know`);
  console.log(`${got.join(" : ")}; ${steady.length} samples; apart (median, 90 %, most): ${atPicks} at ${picks.length} picks, ${byGauge} at the gauge, ${byProviders} at the providers`);
});

describe("picks", () => {
  test("respect weights and the room that providers have", { timeout: 120_000 }, async () => {
    const heavy = await crowd(400, (nth) => ask(nth, "heavy"), 32);
    assert.deepEqual(tally(heavy), { 200: 400 });
    const got = named("heavy").map((name) => fleet[name].visits.length);
    assert.ok(got[1] > got[0] && got[1] > got[2], got.join());
    const replies = await crowd(1_000, (nth) => ask(nth, "room"), CLIENTS);
    const statuses = tally(replies);
    const most = named("room").map((name) => fleet[name].most);
    console.log(`room for ${ROOM} at each of three, ${CLIENTS} clients: ${JSON.stringify(statuses)}, at most ${most} open`);
    for (const open of most) assert.ok(open <= ROOM, `${open} at once`);
    assert.ok(statuses[200] >= 100, JSON.stringify(statuses));
    assert.deepEqual(Object.keys(statuses).filter((status) => !["200", "429"].includes(status)), []);
    const told = countBy(replies.filter(({ status }) => status === 429), ({ headers }) => headers["retry-after"] !== undefined);
    assert.deepEqual(Object.keys(told), ["true"], "those who are refused are told when to come again");
  });

  test("cost a row only where a request takes long or a limit counts it", { timeout: 60_000 }, async () => {
    const all = async () => sum(await atGauge("long")) + sum(await atGauge("room"));
    // Those that come first find a gauge that has no tables yet.
    assert.deepEqual(tally(await crowd(6, (nth) => ask(nth, "long"), 6)), { 200: 6 });
    await eventually(async () => (await all()) === 0, "nothing is open");
    await counts(gateway);
    assert.deepEqual(tally(await crowd(50, (nth) => ask(nth, "long"), 10)), { 200: 50 });
    await eventually(async () => sum(await atGauge("long")) === 0, "all have ended");
    const short = await counts(gateway);
    assert.equal(short.gauge.rows, 0, "those that are short");
    assert.deepEqual(tally(await crowd(10, (nth) => ask(nth, "room"), 1)), { 200: 10 });
    await eventually(async () => sum(await atGauge("room")) === 0, "all have ended");
    assert.ok((await counts(gateway)).gauge.rows >= 20, "those that have limits");
    const free = named("long").map(hold);
    const asked = Array.from({ length: 3 }, (_, nth) => ask(nth, "long"));
    await bothAre("long", [1, 1, 1]);
    // The alarm stores what has been open for five seconds, a second's together; one may still ring for those before.
    await sleep(6_000);
    const { gauge } = await counts(gateway);
    assert.equal(gauge.rows, 3);
    assert.ok(gauge.calls.alarm >= 1 && gauge.calls.alarm <= 3, JSON.stringify(gauge.calls));
    free.forEach((answer) => answer());
    assert.deepEqual(tally(await Promise.all(asked)), { 200: 3 });
    await bothAre("long", [0, 0, 0]);
  });
});
