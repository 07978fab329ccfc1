// What scripts/config does, for other scripts too: the configuration's part of the admin API.

import { execFileSync } from "node:child_process";
import path from "node:path";

const ROOT = path.resolve(import.meta.dirname, "..");
const GATEWAYCTL = path.join(process.env.CARGO_TARGET_DIR ?? path.join(ROOT, "target"), "native/gatewayctl");

/** What went wrong in a way that needs no stack to be understood. */
export class Failure extends Error {}

/** Tells everything that is wrong with a document; resolves to the exit code. */
export async function validate(api, document) {
  const { body } = await api.call("POST", "validate", { document });
  for (const { path: where, message } of body.errors) console.error(`${where}: ${message}`);
  for (const { path: where, message } of body.warnings ?? []) console.error(`warning: ${where}: ${message}`);
  if (!body.valid) return 1;
  console.log("nothing is wrong");
  return 0;
}

/** Tells what a document would change; resolves to the number of changes. */
export async function compare(api, document) {
  const { body } = await api.call("POST", "diff", { document });
  const shown = (value) => (value === undefined || value === null ? "" : JSON.stringify(value));
  for (const change of body.changes) {
    const { path: where, kind, before, after } = change;
    if (kind === "added") console.log(`+ ${where} = ${shown(after)}`);
    else if (kind === "removed") console.log(`- ${where} = ${shown(before)}`);
    else console.log(`~ ${where} = ${shown(before)} -> ${shown(after)}`);
  }
  if (body.changes.length === 0) console.log("no difference");
  return body.changes.length;
}

/** Publishes a document, unless it is what is current already. Nobody's draft is overwritten unseen. */
export async function apply(api, document, comment) {
  if ((await validate(api, document)) !== 0) return 1;
  if ((await compare(api, document)) === 0) return 0;
  const before = await api.call("GET", "draft");
  const condition = before.etag ? { "if-match": before.etag } : {};
  await api.call("PUT", "draft", { document }, condition);
  const { body } = await api.call("POST", "publish", { comment });
  console.log(`published as version ${body.version}`);
  return 0;
}

/** The configuration's part of a gateway's admin API. */
export class Admin {
  #base;
  #token;

  constructor(url, token) {
    this.#base = new URL("admin/v1/config/", url.endsWith("/") ? url : `${url}/`);
    this.#token = token;
  }

  async call(method, what, body, headers = {}) {
    const url = new URL(what, this.#base);
    let reply;
    try {
      reply = await fetch(url, {
        method,
        headers: {
          authorization: `Bearer ${this.#token}`,
          ...(body !== undefined && { "content-type": "application/json" }),
          ...headers,
        },
        body: body === undefined ? undefined : JSON.stringify(body),
        // A redirect would carry the token to wherever it leads.
        redirect: "error",
        signal: AbortSignal.timeout(60_000),
      });
    } catch (error) {
      throw new Failure(`${method} ${url}: ${error.cause?.message ?? error.message}`);
    }
    const text = await reply.text();
    let answer;
    try {
      answer = text === "" ? {} : JSON.parse(text);
    } catch {
      throw new Failure(`${method} ${url}: ${reply.status}, and no JSON: ${text.slice(0, 200)}`);
    }
    if (!reply.ok) {
      const lines = [`${method} ${url}: ${reply.status} ${answer.detail ?? answer.title ?? text.slice(0, 200)}`];
      for (const { path: where, message } of answer.errors ?? []) lines.push(`  ${where}: ${message}`);
      throw new Failure(lines.join("\n"));
    }
    return { body: answer, etag: reply.headers.get("etag") };
  }
}

/** Translates between TOML and JSON. */
export function gatewayctl(args, input) {
  try {
    return execFileSync(GATEWAYCTL, args, { input, encoding: "utf8", maxBuffer: 64 << 20, stdio: ["pipe", "pipe", "inherit"] });
  } catch {
    throw new Failure(`gatewayctl ${args.slice(0, 2).join(" ")} failed; it says why above`);
  }
}
