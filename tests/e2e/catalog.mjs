// A gateway whose configuration is driven by the admin API, in front of the mock provider: what the tests of that share.

import { startAdmin } from "./admin.mjs";
import { startMock } from "./harness.mjs";
import { ask, freshId, send } from "./support.mjs";

export const V1 = "/admin/v1";

/** Credentials; no answer, no log line and no row of the database may show one. */
export const SECRETS = {
  first: "stored-credential-number-one-Ab12",
  second: "stored-credential-number-two-Cd34",
  worker: "credential-in-a-worker-secret-Ef56",
};

/** What the answer to a refused call says, with the fields at fault. */
export async function refused(owner, method, where, body, status, options = {}) {
  const reply = await owner.call(method, `${V1}${where}`, { body, expected: status, ...options });
  return Object.assign(reply, { code: reply.data.code, paths: reply.data.errors.map((error) => error.path) });
}

/**
 * Starts both, with an account and a key for calling models. On top of what `startAdmin` gives:
 *
 * - `openai(more)`, `draftOf(more)`: a provider's settings, and a draft with a provider and a model
 * - `putDraft(document)`, `publish(body)`, `release(document, comment)`: the way to the data plane
 * - `call(model)`: a call of the data plane; `refused(…)`: a call of the admin API that fails
 */
export async function startCatalog(options = {}) {
  const mock = await startMock();
  const at = await startAdmin({
    mockUrl: mock.url,
    ...options,
    secrets: { UPSTREAM_KEY: SECRETS.worker, ...options.secrets },
  }).catch(async (error) => {
    await mock.stop();
    throw error;
  });
  const { owner } = at;
  await owner.post(`${V1}/accounts`, { id: "team", name: "Team" });
  const key = (await owner.post(`${V1}/accounts/team/keys`, { name: "app" })).api_key;

  const openai = (more = {}) => ({ dialect: "openai", base_url: `${mock.url}/v1`, ...more });
  const putDraft = (document, more) => owner.put(`${V1}/config/draft`, { document }, more);
  const publish = (body = {}) => owner.post(`${V1}/config/publish`, body);
  return {
    ...at,
    mock,
    key,
    openai,
    putDraft,
    publish,
    draftOf: (more = {}) => ({
      providers: { mock: openai() },
      models: { small: { provider: "mock", upstream_model: "mock-small" } },
      ...more,
    }),
    async release(document, comment = "") {
      await putDraft(document);
      return publish({ comment });
    },
    async call(model, { id = freshId(), directives = {} } = {}) {
      const reply = await send({
        url: `${at.url}/v1/chat/completions`,
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${key}`, "x-request-id": id },
        body: JSON.stringify({ model, messages: ask({ tag: id, ...directives }) }),
      });
      return { status: reply.status, version: reply.headers["x-gateway-config-version"], id, text: reply.text };
    },
    refused: (...args) => refused(owner, ...args),
    async stop() {
      await at.stop();
      await mock.stop();
    },
  };
}
