// The working part of scripts/config: gatewayctl translates between TOML and JSON, the admin API does the rest.

import { writeFileSync } from "node:fs";
import path from "node:path";

import { Admin, Failure, apply, compare, gatewayctl, validate } from "./config-client.mjs";

async function main([what, ...args]) {
  const url = takeOption(args, "--url");
  const comment = takeOption(args, "--comment");
  const draft = takeFlag(args, "--draft");
  const [file, ...rest] = args;
  if (rest.length > 0) throw new Failure(`this cannot be understood: ${rest.join(" ")}`);
  if (url === undefined) throw new Failure("say where the gateway is: --url https://gateway.example.com");
  const token = process.env.GATEWAY_ADMIN_TOKEN;
  if (!token) throw new Failure("GATEWAY_ADMIN_TOKEN must be in the environment: a token of the gateway's admin API");
  const api = new Admin(url, token);
  const document = () => JSON.parse(gatewayctl(["config", "to-json", named(file)]));

  switch (what) {
    case "validate":
      return validate(api, document());
    case "diff":
      return (await compare(api, document())) > 0 ? 1 : 0;
    case "apply":
      return apply(api, document(), comment ?? `scripts/config apply ${path.basename(file)}`);
    case "export":
      return fetchTo(api, draft ? "draft" : "versions/current", file);
    default:
      throw new Failure("say what: validate, diff, apply or export");
  }
}

/** Writes a document to a file, or to standard output. */
async function fetchTo(api, from, file) {
  const { body } = await api.call("GET", from);
  const toml = gatewayctl(["config", "from-json", "-"], JSON.stringify(body.document));
  if (file === undefined) process.stdout.write(toml);
  else writeFileSync(file, toml);
  return 0;
}

function named(file) {
  if (file === undefined) throw new Failure("name the file");
  return file;
}

function takeFlag(args, name) {
  const at = args.indexOf(name);
  if (at >= 0) args.splice(at, 1);
  return at >= 0;
}

function takeOption(args, name) {
  const at = args.indexOf(name);
  if (at < 0) return undefined;
  const [, value] = args.splice(at, 2);
  if (value === undefined) throw new Failure(`${name} needs a value`);
  return value;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  console.error(error.message);
  process.exitCode = 2;
}
