// A provider's section `health`: probes are sent by the cron trigger, so other tests show what their parameters do.

import { shownBy } from "./table.mjs";

const HEALTH = "tests/e2e/admin-health.test.mjs";
const of = (...names) => names.map((name) => `providers.probed.health.${name}`);

shownBy(HEALTH, "ask what is configured, each for itself, and what they found and cost is told", of("method", "path", "model", "timeout_ms"));
shownBy(HEALTH, "take a provider out after so many failures and back after so many successes", of("unhealthy_after", "healthy_after"));
shownBy("src/probes/streak.rs", "a_probe_is_due_once_in_its_interval_of_whole_minutes", of("interval_seconds"));
