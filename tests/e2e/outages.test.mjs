// What becomes of requests while providers are out of service under load: how soon each isolate leaves one alone, how soon
// and how gently it comes back, and that an outage is not made worse by trying again.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { ROUTING, askedAt, failing, linesAt, startFleet, targets } from "./fleet.mjs";
import { startGateway } from "./harness.mjs";
import { crowd, eventually, tally } from "./limits.mjs";
import { KEY_HASH_SECRET, PROVIDER_SECRETS, sleep } from "./support.mjs";

const { breaker, slow_start_ms, report_ms } = ROUTING;

/** What a busy machine may add to any time here, in milliseconds. */
const SLACK_MS = 1_000;

/** The longest that a breaker is open which has opened so often in a row. */
const mostOpen = (times) => 1.2 * Math.min(breaker.open_ms * 2 ** (times - 1), breaker.max_open_ms);

/** The least time between two reports of an isolate to a gauge. */
const GAP_MS = 100;

const start = ({ providers, models }, { routes, isolates, routing = ROUTING }) =>
  startGateway({
    config: { providers, models, routes, routing, records: { mode: "off" } },
    vars: { PRIVATE_UPSTREAM_HOSTS: "127.0.0.1" },
    secrets: { KEY_HASH_SECRET, ...PROVIDER_SECRETS },
    keys: [{ name: "app" }],
    isolates,
  });

describe("one of several", () => {
  const NAMES = ["load-a", "load-b", "load-c", "far-a", "far-b", "far-c"];
  let fleet, gateway;
  const stops = [];

  before(async () => {
    const weathers = Object.fromEntries(NAMES.map((name) => [name, { latency: 30 }]));
    const started = await startFleet({ ...weathers, "flap-a": { latency: 10 }, "flap-b": { latency: 10 } });
    ({ fleet } = started);
    stops.push(started.stop);
    const three = (group) => ({ strategy: "round_robin", targets: targets(`${group}-a`, `${group}-b`, `${group}-c`) });
    const flap = { strategy: "weighted", targets: targets("flap-a", "flap-b") };
    gateway = await start(started, { routes: { load: three("load"), far: three("far"), flap }, isolates: 2 });
    stops.unshift(gateway.stop);
  });
  after(async () => {
    for (const stop of stops) await stop();
  });

  /** Keeps so many clients asking an isolate, with pauses in between, until told to stop. */
  function load(model, isolate, clients, pause = 0) {
    const replies = [];
    let going = true;
    const client = async () => {
      while (going) {
        replies.push(await askedAt(gateway, model, { isolate }));
        if (pause) await sleep(pause);
      }
    };
    const all = Promise.all(Array.from({ length: clients }, client));
    return async () => {
      going = false;
      await all;
      return replies;
    };
  }

  /** No caller has noticed anything; those whose first attempt failed, in the order in which they began. */
  async function unnoticed(replies) {
    assert.deepEqual(tally(replies), { 200: replies.length }, replies.find(({ status }) => status !== 200)?.text);
    const lines = await linesAt(gateway, replies);
    const failed = replies.flatMap((reply, nth) =>
      (lines[nth].tried ?? []).filter(({ outcome }) => outcome !== "ok").map(({ provider }) => ({ ...reply, provider })),
    );
    return failed.sort((one, other) => one.began - other.began);
  }

  /**
   * When each isolate left somebody alone who went down at a time: after how many milliseconds the last request had heard
   * of its fault that an isolate sent there before it knew, and how many it sent. What comes after a pause as long as the
   * shortest back-off is a trial.
   */
  function ejections(failed, downAt) {
    return [0, 1].map((isolate) => {
      const own = failed.filter((it) => it.isolate === isolate && it.ended >= downAt);
      const pause = own.findIndex((it, nth) => nth > 0 && it.began - own[nth - 1].began >= 0.8 * breaker.open_ms);
      const before = pause < 0 ? own : own.slice(0, pause);
      const millis = before.length === 0 ? 0 : Math.max(...before.map(({ ended }) => ended)) - downAt;
      return { millis, attempts: before.length, trials: own.length - before.length };
    });
  }

  /** The longest that a request had taken in the second before a time, or had taken by then: what a busy machine makes of 30 ms. */
  const longest = (replies, until) => {
    const running = replies.filter(({ began, ended }) => began < until && ended > until - 1_000);
    return Math.max(...running.map(({ began, ended }) => Math.min(ended, until) - began));
  };

  test("that goes down under load costs no caller anything, and comes back gently", { timeout: 60_000 }, async () => {
    const clients = 16;
    const ends = [0, 1].map((isolate) => load("load", isolate, clients));
    const lost = fleet["load-b"];
    await sleep(2_000);
    const downAt = Date.now();
    await lost.down();
    await sleep(3_000);
    lost.forget();
    await lost.up();
    const upAt = Date.now();
    // A trial from before it was up may still fail, and open the breaker once more although others succeed: then there is
    // another pause, not shorter than the second one.
    const back = await eventually(
      () => {
        const times = lost.visits.map(({ at }) => at);
        const resumed = times.findLastIndex((at, nth) => nth > 0 && at - times[nth - 1] > 1.5 * breaker.open_ms);
        return times.length - resumed > 6 && { at: times[Math.max(resumed, 0)] };
      },
      "it is asked again",
      { timeout: 20_000, interval: 20 },
    );
    await sleep(slow_start_ms + 4_000);
    const replies = (await Promise.all(ends.map((end) => end()))).flat();
    const failed = await unnoticed(replies);

    const out = ejections(failed, downAt);
    const usual = longest(replies, downAt);
    const trials = out.reduce((sum, it) => sum + it.trials, 0);
    for (const [isolate, { millis, attempts }] of out.entries()) {
      console.log(`down: isolate ${isolate} left it alone after ${millis} ms and ${attempts} attempts`);
      // Those that are under way when it opens are known only when they fail.
      assert.ok(attempts <= breaker.consecutive + clients, `${attempts} attempts`);
      // A third of an isolate's requests go there: two rounds of its clients are five faults, and a third one is under way.
      assert.ok(millis <= 3 * usual + SLACK_MS / 2, `${millis} ms, where a request takes up to ${usual} ms`);
    }
    // At most one opening by the faults, and those by trials that failed.
    const openings = 1 + trials;
    const rounds = Math.ceil(Math.log2((upAt - downAt) / (0.8 * breaker.open_ms) + 1));
    console.log(`${replies.length} requests of ${2 * clients} clients, no error, up to ${usual} ms each before; ${trials} trials failed while it was down`);
    assert.ok(trials <= rounds * breaker.trials, `${trials} trials in ${upAt - downAt} ms`);

    // What others get in the meantime is a fair share.
    const during = (name, from, to) => fleet[name].visits.filter(({ at }) => at >= back.at + from && at < back.at + to).length;
    const share = (from, to) => {
      const fair = (during("load-a", from, to) + during("load-c", from, to)) / 2;
      return Math.round((100 * during("load-b", from, to)) / fair);
    };
    const step = 250;
    const shares = Array.from({ length: (slow_start_ms + 3_000) / step }, (_, nth) => share(nth * step, (nth + 1) * step));
    const whole = step * (shares.findIndex((percent) => percent >= 90) + 1);
    console.log(`up: asked again after ${back.at - upAt} ms; in steps of ${step} ms it got ${shares.join(", ")} % of a fair share: 90 % after ${whole} ms`);
    assert.ok(back.at - upAt <= mostOpen(openings) + usual + SLACK_MS, "no later than its back-off");
    assert.ok(share(0, 500) <= 45, `${share(0, 500)} % in the first 500 ms`);
    assert.ok(whole >= slow_start_ms / 2, `90 % after ${whole} ms: that is no slow start`);
    assert.ok(whole > 0 && whole <= slow_start_ms + 2 * SLACK_MS, `90 % after ${whole} ms`);
  });

  test("that goes down is left alone by an isolate that has hardly seen it fail", { timeout: 60_000 }, async () => {
    // The first one sends enough to notice by itself; the other one only now and then.
    const ends = [load("far", 0, 8), load("far", 1, 1, 40)];
    await sleep(1_000);
    const downAt = Date.now();
    await fleet["far-b"].down();
    await sleep(1.5 * breaker.open_ms);
    const [, others] = await Promise.all(ends.map((end) => end()));
    const failed = await unnoticed(others);
    const [, { millis, attempts, trials }] = ejections(failed, downAt);
    const since = others.filter(({ began }) => began > downAt + millis).length - trials;
    console.log(`down: the isolate that had seen ${attempts} faults left it alone after ${millis} ms, for ${since} requests`);
    assert.ok(attempts < breaker.consecutive, "it has not come to it by itself");
    // It hears of it with its next report; what it has seen itself makes that come sooner.
    assert.ok(millis <= report_ms + GAP_MS + 3 * longest(others, downAt) + SLACK_MS / 2, `${millis} ms`);
    assert.ok(since >= 3, `${since} requests went elsewhere at once`);
  });

  test("that flaps costs no caller anything, and is left alone longer each time", { timeout: 60_000 }, async () => {
    const ends = [0, 1].map((isolate) => load("flap", isolate, 4));
    const flapping = fleet["flap-a"];
    const spells = [];
    await sleep(1_000);
    for (let nth = 0; nth < 4; nth += 1) {
      flapping.weather = { ...failing(500), latency: 10 };
      const spell = { from: Date.now() };
      await sleep(1_500);
      flapping.weather = { latency: 10 };
      spells.push({ ...spell, to: Date.now() });
      await sleep(1_500);
    }
    const replies = (await Promise.all(ends.map((end) => end()))).flat();
    await unnoticed(replies);
    const met = flapping.visits.filter(({ fault }) => fault === 500);
    const each = spells.map(({ from, to }) => met.filter(({ at }) => at >= from && at <= to + SLACK_MS).length);
    const pause = met.findIndex(({ at }, nth) => nth > 0 && at - met[nth - 1].at > 0.5 * breaker.open_ms);
    const alone = met.at(pause < 0 ? -1 : pause - 1).at - spells[0].from;
    const usual = longest(replies, spells[0].from);
    console.log(
      `flaps: ${replies.length} requests, no error; ${each.join(", ")} met it in the four spells of 1,500 ms; ` +
        `left alone ${alone} ms after the first began`,
    );
    // At first each isolate finds out for itself; afterwards only trials do, or what begins anew after three of them.
    assert.ok(each[0] <= 2 * (breaker.consecutive + 4) + breaker.trials, `${each[0]} in the first spell`);
    const most = breaker.trials + 2 * (breaker.consecutive + 4);
    for (const count of each.slice(1)) assert.ok(count <= most, `${count} in a later spell`);
    assert.ok(alone <= 3 * usual + SLACK_MS / 2, `${alone} ms, where a request takes up to ${usual} ms`);
  });
});

describe("an outage of everybody", () => {
  const BUDGET = { retry_floor: 12, retry_share_percent: 10 };
  let other, others;
  before(async () => {
    others = await startFleet({ "never-a": failing(500), "never-b": failing(500), "shut-a": failing(401), unmoved: failing(401) });
    others.providers.unmoved.health = { passive: false };
    // Nobody is taken out of service for mere faults: what holds further attempts back is the budget alone.
    const hardly = { ...breaker, consecutive: 1_000, min_requests: 100_000 };
    other = await start(others, {
      routes: { never: { targets: targets("never-a", "never-b") }, shut: { targets: targets("shut-a") } },
      routing: { ...ROUTING, ...BUDGET, breaker: hardly, when_all_open: "refuse" },
    });
  });
  after(async () => {
    await other?.stop();
    await others?.stop();
  });

  test("is not made worse: further attempts stay within their budget", { timeout: 60_000 }, async () => {
    const requests = 400;
    const replies = await crowd(requests, () => askedAt(other, "never"), 16);
    assert.deepEqual(tally(replies), { 500: requests });
    const sent = others.fleet["never-a"].visits.length + others.fleet["never-b"].visits.length;
    const most = Math.max(BUDGET.retry_floor, (requests * BUDGET.retry_share_percent) / 100);
    console.log(`${requests} requests in an outage: ${sent} sent, ${sent - requests} further ones of at most ${most}`);
    assert.ok(sent - requests <= most, `${sent - requests} further attempts`);
    assert.ok(sent - requests >= BUDGET.retry_floor, "some were made");
  });

  test("is told as such, with the time after which it is worth while to ask again", { timeout: 30_000 }, async () => {
    const refused = await eventually(async () => {
      const reply = await askedAt(other, "shut");
      return reply.status === 503 && reply;
    }, "nobody is asked any longer");
    assert.match(refused.text, /no_healthy_target/);
    const seconds = Number(refused.headers["retry-after"]);
    assert.ok(seconds >= 1 && seconds <= 5, refused.headers["retry-after"]);
    const shut = others.fleet["shut-a"];
    const before = shut.visits.length;
    shut.weather = {};
    const began = Date.now();
    await eventually(async () => (await askedAt(other, "shut")).status === 200, "it is back", { timeout: 8_000 });
    console.log(`back ${Date.now() - began} ms after the provider was; ${shut.visits.length - before} requests until then`);
  });

  test("leaves a provider in service that is judged by probes and operators alone", { timeout: 30_000 }, async () => {
    const replies = [];
    for (let nth = 0; nth < 8; nth += 1) replies.push(await askedAt(other, "unmoved"));
    assert.ok(replies.every(({ text }) => !text.includes("no_healthy_target")), replies.at(-1).text);
    assert.equal(others.fleet.unmoved.visits.length, 8, "every request is sent");
  });
});
