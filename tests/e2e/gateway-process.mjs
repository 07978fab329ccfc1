// A gateway in a process of its own: what `startGatewayProcess` of the harness starts. It answers the messages of the
// process that has started it, and tells it what the Worker writes.

import { startGateway } from "./harness.mjs";

let gateway;

const answerOf = async (reply) => ({ status: reply.status, text: await reply.text() });

const answers = {
  async start(options) {
    gateway = await startGateway({ ...options, onLog: (line) => process.send({ line }) });
    const { url, urls, edgeUrl, keys, version } = gateway;
    return { url, urls, edgeUrl, keys, version };
  },
  object: async (binding, name, url, init) => answerOf(await (await gateway.object(binding, name)).fetch(url, init)),
  worker: async (name, url, init) => answerOf(await (await gateway.worker(name)).fetch(url, init)),
  async sql(query, values) {
    const { results } = await gateway.db.prepare(query).bind(...values).all();
    return { results };
  },
  async put(name, value) {
    await gateway.kv.put(name, value);
  },
  async stop() {
    await gateway.stop();
  },
};

process.on("message", async ({ id, what, args }) => {
  try {
    process.send({ id, value: await answers[what](...args) });
  } catch (error) {
    process.send({ id, error: error.message });
  }
});
// The process that has started this one is gone.
process.on("disconnect", () => gateway?.stop().finally(() => process.exit()));
