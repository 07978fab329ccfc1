// The working part of scripts/provision: gatewayctl makes the key or the configuration, wrangler stores it.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

import { keyRows } from "./seed.mjs";

const ROOT = path.resolve(import.meta.dirname, "..");
const GATEWAYCTL = path.join(process.env.CARGO_TARGET_DIR ?? path.join(ROOT, "target"), "native/gatewayctl");

function main([what, ...args]) {
  const local = takeFlag(args, "--local");
  const environment = takeOption(args, "--env");
  if (local === Boolean(environment)) throw new Error("say where: --env NAME for a deployed gateway, or --local");
  const target = local
    ? ["--env", "production", "--local", "--persist-to", path.join(ROOT, ".state")]
    : ["--env", environment, "--remote"];

  if (what === "key") {
    const secret = local ? localSecret("KEY_HASH_SECRET") : process.env.KEY_HASH_SECRET;
    if (!secret) throw new Error("KEY_HASH_SECRET must be in the environment, the same as the Worker's secret");
    const minted = gatewayctl(["key", "mint", ...args], { KEY_HASH_SECRET: secret });
    store(minted.entry, keyRows(minted), target);
    console.log(`\nThe key, shown only now:\n${minted.key}`);
  } else if (what === "config") {
    const compiled = gatewayctl(["config", "compile", ...args]);
    store(compiled.entry, [], target);
    console.log(`\nThe configuration is version ${compiled.version}; the gateway takes it up within a minute or so.`);
  } else {
    throw new Error("say what: key or config");
  }
}

function gatewayctl(args, env = {}) {
  return JSON.parse(execFileSync(GATEWAYCTL, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "inherit"] }));
}

/** D1 first: should KV then fail, the same command can be given again. */
function store(entry, rows, target) {
  const folder = mkdtempSync(path.join(tmpdir(), "llm-gateway-"));
  try {
    const sql = path.join(folder, "rows.sql");
    const value = path.join(folder, "value.json");
    if (rows.length > 0) writeFileSync(sql, `${rows.join(";\n")};\n`);
    writeFileSync(value, entry.value);
    if (rows.length > 0) wrangler(["d1", "execute", "DB", "--yes", "--file", sql, ...target]);
    wrangler(["kv", "key", "put", entry.name, "--path", value, "--binding", "KV", ...target]);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function wrangler(args) {
  execFileSync("wrangler", args, { cwd: ROOT, stdio: ["ignore", "inherit", "inherit"] });
}

function localSecret(name) {
  const file = path.join(ROOT, ".state/dev.vars");
  return new RegExp(`^${name}=(.*)$`, "m").exec(readFileSync(file, "utf8"))?.[1];
}

function takeFlag(args, name) {
  const at = args.indexOf(name);
  if (at >= 0) args.splice(at, 1);
  return at >= 0;
}

function takeOption(args, name) {
  const at = args.indexOf(name);
  return at >= 0 ? args.splice(at, 2)[1] : undefined;
}

try {
  main(process.argv.slice(2));
} catch (error) {
  // A tool that failed has said why itself.
  console.error(`FAILED: ${error.message}`);
  process.exit(1);
}
