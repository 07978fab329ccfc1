// The running part of scripts/dev: the mock provider and the gateway with persistent state, until Ctrl-C.

import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

import { ROOT, startGateway, startMock, stopAll } from "../tests/e2e/harness.mjs";

const STATE = path.join(ROOT, ".state");
const SECRETS = path.join(STATE, "dev.vars");

async function main() {
  const options = readOptions();
  await checkPort(options.port, "--port");
  await checkPort(options["mock-port"], "--mock-port");
  if (options.reset) await rm(STATE, { recursive: true, force: true });
  const { DEMO_KEY, ...secrets } = await readSecrets();

  const mock = await startMock({
    port: options["mock-port"],
    args: ["--defaults", "gap_ms=25"], // as a model would speak
    onLine: (line) => console.log(`mock     ${line}`),
  });
  const gateway = await startGateway({
    mockUrl: mock.url,
    keys: [{ name: "demo", account: "demo", key: DEMO_KEY }],
    vars: { LOG_FORMAT: "console" },
    secrets,
    persist: STATE,
    port: options.port,
    onLog: (line) => console.log(`gateway  ${line}`),
  });
  if (gateway.keys.demo !== DEMO_KEY) await writeSecrets({ ...secrets, DEMO_KEY: gateway.keys.demo });
  await waitUntilReady(gateway.url);
  console.log(welcome(gateway.url, gateway.keys.demo));
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

/** The local secrets and the demo key; made once, so that what was pasted into other programs stays valid. */
async function readSecrets() {
  if (!existsSync(SECRETS)) {
    const made = { KEY_HASH_SECRET: randomBytes(32).toString("hex"), DEMO_PROVIDER_KEY: randomBytes(16).toString("hex") };
    await writeSecrets(made);
    return made;
  }
  const lines = (await readFile(SECRETS, "utf8")).split("\n").filter((line) => /^\w+=/.test(line));
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]));
}

async function writeSecrets(secrets) {
  await mkdir(STATE, { recursive: true });
  const lines = Object.entries(secrets).map(([name, value]) => `${name}=${value}`);
  await writeFile(SECRETS, `# Local secrets, made by scripts/dev.\n${lines.join("\n")}\n`, { mode: 0o600 });
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

const welcome = (url, key) => `
The gateway answers at ${url}, with the models "demo" and "demo-claude". Talk to it from another terminal:

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

Ctrl-C stops it. The log follows.
`;

try {
  await main();
} catch (error) {
  console.error(`\nFAILED: ${error.message}`);
  await stopAll();
  process.exit(1);
}
