// The running part of scripts/dev: the mock provider and the gateway with persistent state, until Ctrl-C. Account, key and
// configuration are made through the admin API, as anybody would.

import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

import { ROOT, startGateway, startMock, stopAll } from "../tests/e2e/harness.mjs";
import { Admin, apply, gatewayctl } from "./config-client.mjs";

const STATE = path.join(ROOT, ".state");
const VARIABLES = path.join(STATE, "dev.vars");
const DEMO = path.join(ROOT, "config/demo.toml");
/** Where the mock provider listens, as the demo configuration writes it. */
const MOCK_ADDRESS = "http://127.0.0.1:8788";
/** Where the demo's provider is that is always down. */
const NOBODY = "127.0.0.1:9";
/** The first administrator. */
const OWNER = "owner@example.com";
/** The account of the demo key. */
const ACCOUNT = "demo";
/** By this comment the demo configuration is known: one that somebody has published since stays as it is. */
const COMMENT = "the demo configuration, by scripts/dev";

async function main() {
  const options = readOptions();
  await checkPort(options.port, "--port");
  await checkPort(options["mock-port"], "--mock-port");
  if (options.reset) await rm(STATE, { recursive: true, force: true });
  const { DEMO_KEY, OWNER_PASSWORD, ...secrets } = await readVariables();

  const mock = await startMock({
    port: options["mock-port"],
    args: ["--defaults", "gap_ms=25"], // as a model would speak
    onLine: (line) => console.log(`mock     ${line}`),
  });
  const gateway = await startGateway({
    mockUrl: mock.url,
    config: null,
    vars: { LOG_FORMAT: "console", PRIVATE_UPSTREAM_HOSTS: `${new URL(mock.url).host},${NOBODY}` },
    secrets,
    persist: STATE,
    port: options.port,
    onLog: (line) => console.log(`gateway  ${line}`),
  });
  const token = await signIn(gateway.url, secrets.BOOTSTRAP_TOKEN, OWNER_PASSWORD);
  const call = caller(gateway.url, token);
  await configure(gateway.url, token, call, mock.url);
  const key = await demoKey(gateway.url, call, DEMO_KEY);
  if (key !== DEMO_KEY) await writeVariables({ ...secrets, OWNER_PASSWORD, DEMO_KEY: key });
  await waitUntilReady(gateway.url);
  console.log(welcome(gateway.url, key, OWNER_PASSWORD));
  // The two children keep this process alive; the harness stops them on Ctrl-C.
}

function readOptions() {
  const { values } = parseArgs({
    options: {
      port: { type: "string", default: "8787" },
      "mock-port": { type: "string", default: "8788" },
      reset: { type: "boolean", default: false },
    },
  });
  for (const name of ["port", "mock-port"]) {
    const port = Number(values[name]);
    if (!Number.isInteger(port) || port < 0 || port > 65535) throw new Error(`--${name} takes a port number`);
    values[name] = port;
  }
  return values;
}

async function checkPort(port, option) {
  const server = createServer();
  await new Promise((resolve, reject) => {
    server.once("error", (error) => {
      const why = error.code === "EADDRINUSE" ? "is in use" : `cannot be used (${error.code})`;
      reject(new Error(`Port ${port} ${why}. Stop what listens there, or choose another with ${option}.`));
    });
    server.listen(port, "127.0.0.1", () => server.close(resolve));
  });
}

// === Local secrets ===

/** The local secrets, the owner's password and the demo key; made once, so that what was pasted elsewhere stays valid. */
async function readVariables() {
  const known = {};
  if (existsSync(VARIABLES)) {
    for (const line of (await readFile(VARIABLES, "utf8")).split("\n").filter((line) => /^\w+=/.test(line))) {
      known[line.slice(0, line.indexOf("="))] = line.slice(line.indexOf("=") + 1);
    }
  }
  const lengths = { KEY_HASH_SECRET: 32, MASTER_SECRET: 32, BOOTSTRAP_TOKEN: 24, OWNER_PASSWORD: 12, DEMO_PROVIDER_KEY: 16 };
  const missing = Object.entries(lengths).filter(([name]) => known[name] === undefined);
  if (missing.length === 0) return known;
  const made = Object.fromEntries(missing.map(([name, length]) => [name, randomBytes(length).toString("hex")]));
  await writeVariables({ ...known, ...made });
  return { ...known, ...made };
}

async function writeVariables(variables) {
  await mkdir(STATE, { recursive: true });
  const lines = Object.entries(variables).map(([name, value]) => `${name}=${value}`);
  await writeFile(VARIABLES, `# Local secrets, made by scripts/dev.\n${lines.join("\n")}\n`, { mode: 0o600 });
}

// === The admin API ===

/** Calls the admin API; resolves to status and body. */
const caller = (url, token) => async (method, where, body) => {
  const reply = await fetch(`${url}/admin/v1/${where}`, {
    method,
    headers: { ...(token && { authorization: `Bearer ${token}` }), ...(body && { "content-type": "application/json" }) },
    body: body && JSON.stringify(body),
  });
  const text = await reply.text();
  return { status: reply.status, body: text === "" ? undefined : JSON.parse(text) };
};

/** That a call turned out as it should; resolves to the body. */
function expect({ status, body }, wanted, what) {
  if (wanted.includes(status)) return body;
  throw new Error(`${what}: ${status} ${body?.detail ?? ""}. With scripts/dev --reset everything is made anew.`);
}

/** Signs in the owner, who is made first if there is none; resolves to the access token. */
async function signIn(url, bootstrapToken, password) {
  const call = caller(url);
  const credentials = { email: OWNER, password };
  let reply = await call("POST", "auth/sign-in", credentials);
  if (reply.status === 401) {
    const owner = { token: bootstrapToken, email: OWNER, name: "Owner", password };
    expect(await call("POST", "bootstrap", owner), [201], "making the owner");
    reply = await call("POST", "auth/sign-in", credentials);
  }
  return expect(reply, [200], "signing in the owner").access_token;
}

/** Publishes the demo configuration, unless somebody has published another. */
async function configure(url, token, call, mockUrl) {
  const current = await call("GET", "config/versions/current");
  if (current.status === 200 && current.body.comment !== COMMENT) {
    console.log(`the configuration is ${current.body.version}, which somebody has published: it stays`);
    return;
  }
  const text = (await readFile(DEMO, "utf8")).replaceAll(MOCK_ADDRESS, mockUrl);
  const document = JSON.parse(gatewayctl(["config", "to-json", "-"], text));
  const status = await apply(new Admin(url, token), document, COMMENT);
  if (status !== 0) throw new Error("the demo configuration cannot be published: see above");
}

/** The demo key: the one there is, as long as it works. */
async function demoKey(url, call, known) {
  if (known !== undefined) {
    const reply = await fetch(`${url}/v1/models`, { headers: { authorization: `Bearer ${known}` } });
    if (reply.status === 200) return known;
  }
  if ((await call("GET", `accounts/${ACCOUNT}`)).status === 404) {
    expect(await call("POST", "accounts", { id: ACCOUNT, name: "Demo" }), [201], "making the account");
  }
  return expect(await call("POST", `accounts/${ACCOUNT}/keys`, { name: "demo" }), [201], "making the key").api_key;
}

async function waitUntilReady(url) {
  const deadline = Date.now() + 20_000;
  for (;;) {
    const answer = await fetch(`${url}/ready`).then(
      async (response) => (response.ok ? null : `${response.status} ${await response.text()}`),
      (error) => error.message,
    );
    if (answer === null) return;
    if (Date.now() > deadline) throw new Error(`${url}/ready still says after 20 s: ${answer}`);
    await sleep(100);
  }
}

const welcome = (url, key, password) => `
The gateway answers at ${url}, with the models "demo" and "demo-claude" and the route "demo-safe". Talk to it from another terminal:

# One answer
curl -s -w '\\n' ${url}/v1/chat/completions -H "Authorization: Bearer ${key}" -H "Content-Type: application/json" \\
  -d '{"model": "demo", "messages": [{"role": "user", "content": "Hello! What are you?"}]}'

# A streamed answer
curl -sN ${url}/v1/chat/completions -H "Authorization: Bearer ${key}" -H "Content-Type: application/json" \\
  -d '{"model": "demo", "stream": true, "messages": [{"role": "user", "content": "Hello! What are you?"}]}'

# The same with the official OpenAI SDK (in this folder, where the package is installed)
node --input-type=module <<'END'
import OpenAI from "openai";
const client = new OpenAI({ baseURL: "${url}/v1", apiKey: "${key}" });
const stream = await client.chat.completions.create({
  model: "demo",
  stream: true,
  messages: [{ role: "user", content: "Hello! What are you?" }],
});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
console.log();
END

# The admin API (described at ${url}/admin/openapi.json): sign in as ${OWNER}, then list the keys
export GATEWAY_ADMIN_TOKEN=$(curl -s ${url}/admin/v1/auth/sign-in -H "Content-Type: application/json" \\
  -d '{"email": "${OWNER}", "password": "${password}"}' | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')
curl -s -w '\\n' ${url}/admin/v1/keys -H "Authorization: Bearer $GATEWAY_ADMIN_TOKEN"

Ctrl-C stops it. The log follows.
`;

try {
  await main();
} catch (error) {
  console.error(`\nFAILED: ${error.message}`);
  await stopAll();
  process.exit(1);
}
