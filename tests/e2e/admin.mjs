// A client of the admin API for the end-to-end tests. It checks every answer against the API's own description: status,
// content type and body must be what /admin/openapi.json says of the operation.

import assert from "node:assert/strict";

import Ajv2020 from "ajv/dist/2020.js";

import { startGateway } from "./harness.mjs";
import { KEY_HASH_SECRET, send } from "./support.mjs";

export const MASTER_SECRET = "a master secret for tests only, long enough to be one";
export const BOOTSTRAP_TOKEN = "a bootstrap token for tests only";
export const PASSWORD = "a long and unlikely pass phrase";

let description;
let ajv;

/** The description that a gateway serves, read once. */
async function describe(url) {
  if (description) return description;
  const reply = await send({ url: `${url}/admin/openapi.json` });
  assert.equal(reply.status, 200, reply.text);
  description = reply.json;
  ajv = new Ajv2020({ strict: false, allErrors: true, validateFormats: false });
  ajv.addSchema(description, "openapi");
  return description;
}

/** The operation that a method and path mean, by the description's paths. */
export function operationOf(method, path) {
  const segments = path.split("?")[0].split("/");
  for (const [template, operations] of Object.entries(description.paths)) {
    const wanted = template.split("/");
    const matches =
      wanted.length === segments.length &&
      wanted.every((segment, at) => segment === segments[at] || (segment.startsWith("{") && segments[at] !== ""));
    if (matches && operations[method.toLowerCase()]) return { template, ...operations[method.toLowerCase()] };
  }
  return undefined;
}

/** Checks an answer against the description. Returns which operation it belongs to. */
export function assertDescribed(method, path, reply) {
  const operation = operationOf(method, path);
  if (!operation) {
    assert.ok([404, 405].includes(reply.status), `${method} ${path} is not described, but answers ${reply.status}`);
    return undefined;
  }
  const declared = operation.responses[String(reply.status)];
  const what = `${method} ${path} → ${reply.status} ${reply.text.slice(0, 400)}`;
  assert.ok(declared, `the status is not described: ${what}`);
  const content = declared.$ref ? description.components.responses.Problem.content : declared.content;
  if (!content) {
    assert.equal(reply.text, "", `no body is described: ${what}`);
    return operation;
  }
  const [media, { schema }] = Object.entries(content)[0];
  assert.equal(reply.headers["content-type"]?.split(";")[0], media, what);
  if (media.includes("json")) {
    const validate = validator(schema);
    assert.ok(validate(reply.json), `${what}\n${ajv.errorsText(validate.errors)}`);
  }
  return operation;
}

const validators = new Map();

function validator(schema) {
  const text = JSON.stringify(schema);
  if (!validators.has(text)) validators.set(text, ajv.compile(JSON.parse(text.replaceAll('"#/', '"openapi#/'))));
  return validators.get(text);
}

/** What operations were called, by `METHOD template`, with the statuses they gave. */
export const called = new Map();

/** Somebody who calls the admin API with a token (or without). */
export class Caller {
  constructor(url, token, headers = {}) {
    this.url = url;
    this.token = token;
    this.headers = headers;
  }

  /** Calls and checks the answer against the description; `expected` is the status (or statuses) that is right. */
  async call(method, path, { body, headers = {}, expected } = {}) {
    await describe(this.url);
    const reply = await send({
      url: `${this.url}${path}`,
      method,
      headers: {
        ...(body !== undefined && { "content-type": "application/json" }),
        ...(this.token && { authorization: `Bearer ${this.token}` }),
        ...this.headers,
        ...headers,
      },
      body: body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body),
    });
    const operation = assertDescribed(method, path, reply);
    if (operation) {
      const name = `${method} ${operation.template}`;
      if (!called.has(name)) called.set(name, new Set());
      called.get(name).add(reply.status);
    }
    if (expected !== undefined) {
      const right = [expected].flat();
      assert.ok(right.includes(reply.status), `${method} ${path}: ${reply.status}, not ${right}: ${reply.text}`);
    }
    return {
      status: reply.status,
      headers: reply.headers,
      text: reply.text,
      etag: reply.headers.etag,
      data: reply.text === "" || !reply.headers["content-type"]?.includes("json") ? undefined : reply.json,
    };
  }

  async get(path, options = {}) {
    return (await this.call("GET", path, { expected: 200, ...options })).data;
  }

  async post(path, body = {}, options = {}) {
    return (await this.call("POST", path, { body, expected: [200, 201, 204], ...options })).data;
  }

  async put(path, body, options = {}) {
    return (await this.call("PUT", path, { body, expected: [200, 201, 204], ...options })).data;
  }

  async patch(path, body, options = {}) {
    return (await this.call("PATCH", path, { body, expected: 200, ...options })).data;
  }

  async delete(path, options = {}) {
    return (await this.call("DELETE", path, { expected: 204, ...options })).data;
  }

  /** Every entry of a list, page by page. */
  async all(path, limit) {
    const entries = [];
    let cursor;
    do {
      const query = new URLSearchParams({ ...(limit && { limit }), ...(cursor && { cursor }) });
      const page = await this.get(`${path}${path.includes("?") ? "&" : "?"}${query}`);
      entries.push(...page.data);
      cursor = page.next_cursor;
    } while (cursor);
    return entries;
  }

  /** Signs in as somebody. */
  async signIn(email, password = PASSWORD) {
    const tokens = await this.post("/admin/v1/auth/sign-in", { email, password });
    return Object.assign(new Caller(this.url, tokens.access_token, this.headers), { tokens });
  }
}

/** Starts a gateway with an owner who is signed in. Options are the harness's. */
export async function startAdmin(options = {}) {
  const gateway = await startGateway({
    config: null,
    ...options,
    secrets: { KEY_HASH_SECRET, MASTER_SECRET, BOOTSTRAP_TOKEN, ...options.secrets },
  });
  try {
    const nobody = new Caller(gateway.url);
    const email = "owner@example.com";
    await nobody.post("/admin/v1/bootstrap", { token: BOOTSTRAP_TOKEN, email, name: "Owner", password: PASSWORD });
    const owner = await nobody.signIn(email);
    return { ...gateway, gateway, nobody, owner };
  } catch (error) {
    console.error(gateway.logs.slice(-20).join("\n"));
    await gateway.stop();
    throw error;
  }
}

let count = 0;

/** Creates a user with a role (globally, or in an account) and signs in as that user. */
export async function userWith(owner, role, account) {
  const email = `user-${++count}@example.com`;
  const user = await owner.post("/admin/v1/users", { email, name: `User ${count}`, password: `first ${PASSWORD}` });
  if (role && account) await owner.put(`/admin/v1/accounts/${account}/members/${user.id}`, { role_id: role });
  else if (role) await owner.put(`/admin/v1/users/${user.id}/roles/${role}`, undefined);
  const nobody = new Caller(owner.url);
  const first = await nobody.signIn(email, `first ${PASSWORD}`);
  assert.equal(first.tokens.must_change_password, true);
  await first.put("/admin/v1/me/password", { current: `first ${PASSWORD}`, new: PASSWORD });
  const caller = await nobody.signIn(email);
  return Object.assign(caller, { user, email });
}
