// Checks of `routing`, and of what decides about providers' health and the targets of routes. Most of it shows only in
// many requests or over some time: other tests show that.

import { check, shownBy } from "./table.mjs";
import { chat } from "./tools.mjs";

const ROUTING = "tests/e2e/routing.test.mjs";
const FAILOVER = "tests/e2e/failover.test.mjs";
const OUTAGES = "tests/e2e/outages.test.mjs";
const HEALTH = "tests/e2e/admin-health.test.mjs";
const ATTEMPTS = "src/routing/attempts/tests.rs";
const BREAKER = "src/routing/breaker/tests.rs";
const BOARD = "src/routing/board/tests.rs";

check("http.explain", { plain: [undefined, false], tight: [true, true] }, async (at) => {
  const { headers } = await chat(at, "fork", { headers: { "x-gateway-explain": "true" } });
  return headers["x-gateway-explain"] !== undefined;
});

// === Attempts ===

shownBy(FAILOVER, "there are no more attempts than configured, and only after the faults that are", [
  "routing.max_attempts",
  "routes.most-two.retry.max_attempts",
  "routes.most-not.retry.retry_on",
]);
shownBy(FAILOVER, "is given up for another after the time that the route sets an attempt", ["routes.mute.retry.attempt_ms"]);
shownBy(ATTEMPTS, "a_route_says_what_is_tried_again", ["routing.retry_on"]);
shownBy(ATTEMPTS, "another_provider_may_be_tried_with_content_that_one_refuses", ["routing.content_policy"]);
shownBy(ATTEMPTS, "pauses_are_anything_up_to_a_bound_that_doubles", ["routing.backoff_ms", "routing.max_backoff_ms"]);
shownBy(ATTEMPTS, "a_provider_that_says_how_long_to_wait_is_waited_for_unless_it_is_too_long", ["routing.max_wait_ms"]);
shownBy(OUTAGES, "is not made worse: further attempts stay within their budget", [
  "routing.retry_share_percent",
  "routing.retry_floor",
]);
shownBy(OUTAGES, "is told as such, with the time after which it is worth while to ask again", ["routing.when_all_open"]);
shownBy(FAILOVER, "one that is refused for its content goes elsewhere only where a route says so", [
  "routes.content-elsewhere.fallbacks",
]);

// === Health ===

shownBy(BOARD, "a_429_that_does_not_say_how_long_looks_at_the_headers", ["routing.cooldown_ms"]);
shownBy(BREAKER, "faults_in_a_row_open_it_and_trials_in_a_row_close_it", [
  "routing.breaker.consecutive",
  "routing.breaker.trials",
]);
shownBy(BREAKER, "a_share_of_faults_opens_it_when_there_were_enough_requests", [
  "routing.breaker.failure_percent",
  "routing.breaker.min_requests",
  "routing.breaker.window_ms",
]);
shownBy(BREAKER, "each_failed_trial_doubles_the_back_off_until_it_was_closed_for_long", [
  "routing.breaker.open_ms",
  "routing.breaker.max_open_ms",
]);
shownBy(OUTAGES, "that goes down under load costs no caller anything, and comes back gently", ["routing.slow_start_ms"]);
shownBy(BOARD, "weights_follow_latency_only_where_they_are_to", ["routing.dynamic_weights"]);
shownBy("src/store/reports.rs", "successes_wait_and_faults_do_not", ["routing.report_ms"]);
shownBy(HEALTH, "ask what is configured, each for itself, and what they found and cost is told", [
  "providers.listed.health.method",
  "providers.listed.health.path",
  "providers.listed.health.model",
  "providers.listed.health.timeout_ms",
]);
shownBy(HEALTH, "take a provider out after so many failures and back after so many successes", [
  "providers.listed.health.unhealthy_after",
  "providers.listed.health.healthy_after",
]);

shownBy("src/probes/streak.rs", "a_probe_is_due_once_in_its_interval_of_whole_minutes", [
  "providers.listed.health.interval_seconds",
]);
shownBy(OUTAGES, "leaves a provider in service that is judged by probes and operators alone", [
  "providers.unmoved.health.passive",
]);

// === Routes ===

shownBy(ROUTING, "round robin gives each isolate's requests to one after the other", ["routes.turn.strategy"]);
shownBy(ROUTING, "a route among the targets has its turn as one, and shares it out", ["routes.nest.targets[1].route"]);
shownBy(ROUTING, "weights are kept to exactly", ["routes.share.targets[0].weight"]);
shownBy(ROUTING, "a later tier gets nothing while an earlier one can answer", ["routes.tier.targets[0].priority"]);
shownBy(
  ROUTING,
  "conditions decide by header, metadata, parameter, stream, tools and size",
  ["headers", "metadata", "params", "stream", "tools", "min_input_tokens", "max_input_tokens"].map(
    (condition) => `routes.given.targets[0].when.${condition}`,
  ),
);
shownBy(
  ROUTING,
  "conditions decide by who asks",
  ["accounts", "users", "keys"].map((condition) => `routes.who.targets[0].when.${condition}`),
);
shownBy(ROUTING, "sessions stay where they are, and only those of a target that is gone move", ["routes.stick.sticky.by"]);
shownBy(ROUTING, "callers are kept by a header, or by how their prompts begin", [
  "routes.stick-header.sticky.header",
  "routes.stick-prefix.sticky.prefix_bytes",
]);
shownBy(ROUTING, "a shadow gets copies that another account pays for, and nobody waits for it", [
  "routes.shaded.shadow.model",
  "routes.shaded.shadow.percent",
  "routes.shaded.shadow.account",
]);
