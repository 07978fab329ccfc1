// The table of checks: for each parameter of the configuration what is set in which phase, and what then shows.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";

import { ROOT } from "../harness.mjs";

/**
 * The configurations that the gateway has one after the other. A check looks in two of them or more, and what it changes
 * leaves the others' checks alone.
 */
export const PHASES = ["plain", "tight", "strict", "sparse", "quiet", "frugal"];

/** Every check. */
export const checks = [];

/** Parameters that another test shows to be real: the parameter, the file, the test's name. */
export const elsewhere = [];

/**
 * Adds a check.
 *
 * - `parameter`: its path; entries of maps by their name, issuers and targets by theirs in brackets:
 *   `providers.named.user_agent`, `auth.issuers[aud].audiences`
 * - `phases`: by phase, the value (undefined: as without this check; or made of what the test runs with) and what the
 *   probe then finds
 * - `probe`: looks, given what the test runs with and the phase's name
 */
export function check(parameter, phases, probe) {
  assert.ok(Object.keys(phases).length >= 2, `${parameter}: a change shows only between two phases`);
  for (const phase of Object.keys(phases)) assert.ok(PHASES.includes(phase), phase);
  checks.push({ parameter, phases, probe });
}

/** Names the existing test that shows parameters to be real. */
export function shownBy(file, name, parameters) {
  for (const parameter of parameters) elsewhere.push({ parameter, file, name });
}

/** What the checks of a phase set, put into a configuration. */
export function configured(document, phase, at) {
  for (const { parameter, phases } of checks) {
    const [value] = phases[phase] ?? [];
    if (value !== undefined) set(document, parameter, typeof value === "function" ? value(at) : value);
  }
  return document;
}

function set(document, parameter, value) {
  const steps = parameter.split(/\.|(?=\[)/);
  const last = steps.pop();
  let at = document;
  for (const step of steps) {
    const key = step.startsWith("[") ? step.slice(1, -1) : step;
    at[key] ??= {};
    at = at[key];
  }
  at[last] = value;
}

/** A parameter as the schema names it, with `*` for the name of an entry. */
export function general(parameter) {
  const entry = /^(providers|models|routes|prices)\.[^.]+/;
  return parameter.replace(entry, "$1.*").replaceAll(/\[[^\]]+\]/g, "[]");
}

/** Every parameter that the schema has. */
export function parameters() {
  const schema = JSON.parse(readFileSync(path.join(ROOT, "config/schema.json"), "utf8"));
  const found = [];
  const walk = (node, at) => {
    if (node.$ref) return walk(schema.$defs[node.$ref.split("/").at(-1)], at);
    const choices = node.anyOf?.filter((choice) => choice.type !== "null");
    if (choices?.length === 1) return walk(choices[0], at);
    if (node.properties) {
      for (const [name, member] of Object.entries(node.properties)) walk(member, at ? `${at}.${name}` : name);
      return;
    }
    const entries = node.additionalProperties;
    if (entries?.$ref) return walk(entries, `${at}.*`);
    const items = node.items?.$ref && schema.$defs[node.items.$ref.split("/").at(-1)];
    if (items?.properties) return walk(items, `${at}[]`);
    found.push(at);
  };
  walk(schema, "");
  return found;
}

/** That a file has a test of a name: a node test, or a native one. */
export function assertTestExists(file, name) {
  const text = readFileSync(path.join(ROOT, file), "utf8");
  const there = file.endsWith(".rs")
    ? new RegExp(`#\\[test\\]\\s+fn ${name}\\(`).test(text)
    : text.includes(`test("${name}"`) || text.includes(`test(\`${name}\``);
  assert.ok(there, `${file} has no test "${name}"`);
}
