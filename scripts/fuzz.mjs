// The working part of scripts/fuzz: gateways with something in them, and Schemathesis against each.

import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";

import { operationOf, startAdmin, userWith } from "../tests/e2e/admin.mjs";
import { ROOT, startMock, stopAll } from "../tests/e2e/harness.mjs";

/** What is looked at in every answer. */
const CHECKS = [
  "not_a_server_error",
  "status_code_conformance",
  "content_type_conformance",
  "response_headers_conformance",
  "response_schema_conformance",
];

/**
 * The parts: who calls, whether the parameters of paths name what exists (otherwise they are made up), the part of the
 * time that it takes, and how many operations must have been carried out by the end. Each has a gateway of its own, so
 * that none finds what another has left.
 */
const PARTS = {
  owner: { token: ({ owner }) => owner, known: true, share: 0.6, least: 50 },
  strange: { token: ({ owner }) => owner, known: false, share: 0.2, least: 5 },
  viewer: { token: ({ viewer }) => viewer, known: true, share: 0.1, least: 5 },
  nobody: { token: () => undefined, known: true, share: 0.1, least: 1 },
};

const { values: options } = parseArgs({
  options: {
    seconds: { type: "string", default: "120" },
    seed: { type: "string", default: "1" },
    part: { type: "string", multiple: true, default: Object.keys(PARTS) },
  },
});

async function main() {
  let failed = false;
  for (const name of options.part) {
    if (!PARTS[name]) throw new Error(`--part takes one of: ${Object.keys(PARTS).join(", ")}`);
    if ((await run(name, PARTS[name])) !== 0) failed = true;
  }
  return failed ? 1 : 0;
}

/** Runs one part; resolves to Schemathesis's exit code. */
async function run(name, { token, known, share, least }) {
  const seconds = Math.max(5, Math.round(Number(options.seconds) * share));
  console.log(`\n--- ${name}: ${seconds} s, seed ${options.seed}`);
  const mock = await startMock();
  const admin = await startAdmin({ mockUrl: mock.url, config: null });
  const folder = await mkdtemp(path.join(tmpdir(), "llm-gateway-fuzz-"));
  try {
    const there = await furnish(admin, mock.url);
    const file = path.join(folder, "schemathesis.toml");
    await writeFile(file, settings(known ? there.ids : undefined));
    const bearer = token(there.tokens);
    const before = admin.gateway.logs.length;
    const status = await schemathesis([
      "--config-file", file,
      "run", `${admin.url}/admin/openapi.json`,
      "--checks", CHECKS.join(","),
      "--phases", "examples,coverage,fuzzing",
      "--max-time", String(seconds),
      "--seed", options.seed,
      "--workers", "1",
      "--continue-on-failure",
      "--no-shrink",
      "--generation-database", "none",
      "--suppress-health-check", "all",
      "--warnings", "off",
      "--request-timeout", "30",
      ...(bearer ? ["--header", `Authorization: Bearer ${bearer}`] : []),
    ], folder);
    const reached = tell(admin.gateway.logs.slice(before));
    // A run that nobody let in, or that found nothing, says nothing.
    if (reached < least) {
      console.log(`Only ${reached} operations were ever carried out, at least ${least} were to be.`);
      return 1;
    }
    if (status !== 0) {
      const errors = admin.gateway.logs.filter((line) => line.includes('"level":"error"'));
      console.log([`The gateway's errors (${errors.length}, the last of them):`, ...errors.slice(-10)].join("\n"));
    }
    return status;
  } finally {
    await admin.gateway.stop();
    await mock.stop();
    await rm(folder, { recursive: true });
  }
}

/** Tells what became of the requests in a log; the number of operations that were carried out at least once. */
function tell(lines) {
  const statuses = {};
  const operations = new Set();
  for (const line of lines.filter((line) => line.startsWith("{"))) {
    const { event, method, path: where, status } = JSON.parse(line);
    if (event !== "request") continue;
    statuses[status] = (statuses[status] ?? 0) + 1;
    const operation = status < 300 && operationOf(method, where);
    if (operation) operations.add(operation.operationId);
  }
  const list = Object.entries(statuses).map(([status, count]) => `${count} × ${status}`);
  console.log(`The gateway answered ${list.join(", ")}; ${operations.size} operations were carried out.`);
  return operations.size;
}

/** Something of every kind, so that there is something to find, and tokens that no request of the run can end. */
async function furnish({ owner }, mockUrl) {
  const ids = { account: "team-a" };
  for (const id of ["team-a", "team-b"]) await owner.post("/admin/v1/accounts", { id, name: id });
  const { user } = await userWith(owner, "developer", "team-a");
  ids.user = user.id;
  ids.role = (await owner.post("/admin/v1/roles", { name: "clerk", permissions: ["keys:read"] })).id;
  const key = await owner.post("/admin/v1/accounts/team-a/keys", { name: "app" });
  ids.key = key.id;
  const limit = { dimension: "requests", period: "minute", amount: 100 };
  ids.limit = (await owner.post("/admin/v1/accounts/team-a/limits", limit)).id;
  const rule = { name: "many", metric: "requests", threshold: 5, window_minutes: 5 };
  ids.rule = (await owner.post("/admin/v1/alerts/rules", rule)).id;
  ids.credential = (await owner.post("/admin/v1/credentials", { name: "one", value: "a provider's key" })).id;
  await owner.put("/admin/v1/providers/sample", { dialect: "openai", base_url: `${mockUrl}/v1` });
  await owner.put("/admin/v1/models/sample", { provider: "sample" });
  await owner.put("/admin/v1/prices/sample", { input: "1" });
  await owner.put("/admin/v1/routes/sample-route", { targets: [{ model: "sample" }] });
  ids.version = (await owner.post("/admin/v1/config/publish", { comment: "first" })).version;
  ids.name = ["sample", "sample-route"];
  // Sessions end by sign-out, by a change of the password, by being ended; tokens of services outlive all that.
  const tokens = {};
  for (const role of ["owner", "viewer"]) {
    const robot = await owner.post("/admin/v1/users", { kind: "service", name: `the ${role}'s robot` });
    await owner.put(`/admin/v1/users/${robot.id}/roles/${role}`);
    tokens[role] = (await owner.post(`/admin/v1/users/${robot.id}/tokens`, { name: "fuzz" })).token;
  }
  return { ids, tokens };
}

/** Schemathesis's settings: what the parameters of paths are, except where others would miss what is deleted. */
function settings(ids) {
  const hooks = `hooks = ${JSON.stringify(path.join(ROOT, "scripts/fuzz_hooks.py"))}\n`;
  if (!ids) return hooks;
  const parameters = Object.entries(ids).map(([name, value]) => `"path.${name}" = ${JSON.stringify(value)}`);
  return [hooks, "[[operations]]", 'exclude-method = "DELETE"', "[operations.parameters]", ...parameters, ""].join("\n");
}

/** Runs Schemathesis; resolves to its exit code. */
async function schemathesis(args, folder) {
  const child = spawn(process.env.SCHEMATHESIS, args, {
    cwd: folder,
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, PYTHONUNBUFFERED: "1", PYTHONDONTWRITEBYTECODE: "1", NO_PROXY: "127.0.0.1" },
  });
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (status) => resolve(status ?? 1));
  });
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`FAILED: ${error.stack}`);
  process.exitCode = 2;
} finally {
  await stopAll();
}
