// What providers need besides an address, for tests: Baidu's access token, and a binding `AI` that asks the mock provider.

/** Where the binding asks, below the mock provider's address. */
export const AI_PATH = "/client/v4/accounts/a/ai/v1/chat/completions";

/**
 * The binding. Models named `@cf/own/…` answer in the form of Workers AI's own: `whole` and `stream` with their words,
 * `thrown` by an exception; the others as the mock provider does.
 */
const AI = `
const own = {
  whole: () => Response.json({ response: "one two", tool_calls: [], usage: { prompt_tokens: 4, completion_tokens: 2, total_tokens: 6 } }),
  call: () => Response.json({ response: null, tool_calls: [{ name: "get_time", arguments: { zone: "UTC" } }] }),
  stream: () => {
    const events = [{ response: "one", p: "x" }, { response: " two" }, { response: "", usage: { prompt_tokens: 4, completion_tokens: 2 } }];
    const data = [...events.map((event) => JSON.stringify(event)), "[DONE]"].map((data) => "data: " + data + "\\n\\n").join("");
    return new Response(data, { headers: { "content-type": "text/event-stream" } });
  },
  thrown: () => { throw new Error("5007: No such model @cf/own/thrown or task"); },
};
export default (env) => ({
  async run(model, input, options) {
    if (options?.returnRawResponse !== true) throw new Error("the raw response is not asked for");
    const name = model.split("@cf/own/")[1];
    if (name) return own[name]();
    const { response_format: format, ...rest } = input;
    const body = { model, ...rest };
    // The schema stands there alone, without a name.
    if (format?.json_schema) body.response_format = { type: "json_schema", json_schema: { name: "answer", schema: format.json_schema } };
    if (input.stream) body.stream_options = { include_usage: true };
    const headers = { authorization: "Bearer the-platforms-own", "content-type": "application/json" };
    return fetch(env.URL, { method: "POST", headers, body: JSON.stringify(body) });
  },
});
`;

/** Options of the gateway: it has the binding `AI`, and the Worker secret `BAIDU_TOKEN`. */
export async function given(mock) {
  const query = "grant_type=client_credentials&client_id=app&client_secret=secret";
  const minted = await fetch(`${mock.url}/oauth/2.0/token?${query}`, { method: "POST" });
  const { access_token } = await minted.json();
  const binding = { scriptName: "workers-ai", bindings: { URL: `${mock.url}${AI_PATH}` } };
  return {
    secrets: { BAIDU_TOKEN: access_token },
    override: { wrappedBindings: { AI: binding } },
    others: [{ name: "workers-ai", modules: true, script: AI }],
  };
}

/** The providers that need them, and Cohere. */
export const PROVIDERS = {
  cohere: { dialect: "cohere", base_url: "http://127.0.0.1:8788", credential: "OPENAI_KEY", health: { passive: false } },
  wenxin: { dialect: "wenxinworkshop", base_url: "http://127.0.0.1:8788", credential: "BAIDU_TOKEN", health: { passive: false } },
  "workers-ai": { dialect: "workers_ai", base_url: "https://api.cloudflare.com", health: { passive: false } },
};
