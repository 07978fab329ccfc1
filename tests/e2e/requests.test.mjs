// What callers send: bytes that must survive, credentials that must not, and everything that a body can have wrong.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import {
  LANES,
  PATHS,
  PROVIDER_SECRETS,
  ask,
  assertErrorBody,
  assertNothingLeaked,
  config,
  directive,
  freshId,
  journalOf,
  logOf,
  open,
  received,
  requestIn,
  requestLines,
  send,
  sleep,
  start,
} from "./support.mjs";

const LIMIT = 200_000;

describe("requests", () => {
  let at, mock, gateway;

  before(async () => {
    at = await start({ config: config({ http: { max_body_bytes: LIMIT, max_reply_bytes: LIMIT } }) });
    ({ mock, gateway } = at);
  });

  after(() => at?.stop());

  const post = (body, { path = PATHS.chat, headers = {}, id = freshId(), ...more } = {}) =>
    send({
      url: `${at.url}${path}`,
      method: "POST",
      headers: {
        "content-type": "application/json",
        authorization: `Bearer ${at.key}`,
        "x-request-id": id,
        ...headers,
      },
      body,
      ...more,
    });

  /** That the gateway goes on serving. */
  async function assertWell() {
    const reply = await post(JSON.stringify({ model: "gpt-test", messages: ask({ text: "well" }) }));
    assert.equal(reply.status, 200, reply.text);
  }

  // === Bytes that survive ===

  describe("between a caller and a provider of the same dialect", () => {
    /** [what, body with TAG for the directives, edits the gateway may make] */
    const bodies = {
      "white space and line breaks":
        '\r\n\t { "model"\n:\t"gpt-test" ,\r\n "messages" : [ {"role":"user",  "content" :"TAG"} ] \n}\n ',
      "unknown fields":
        '{"model":"gpt-test","messages":[{"role":"user","content":"TAG","x_part":{"a":[]}}],"x_future":{"deep":[1,{"b":null}]},"":""}',
      "the spelling of numbers":
        '{"model":"gpt-test","temperature":1.0E0,"top_p":0.90,"seed":-0,"x":[1e2,1E+2,100.000,12345678901234567890123],"messages":[{"role":"user","content":"TAG"}]}',
      "the order of members":
        '{"x_z":1,"messages":[{"content":"TAG","role":"user"}],"x_a":2,"model":"gpt-test","x_m":3}',
      "escapes and characters of every script":
        '{"model":"gpt-test","x":"\\u00e9é\\/\\ud83c\\udf0d🌍\\u2028\u2028\\"\\\\","messages":[{"role":"user","content":"TAG"}]}',
      "members given twice that the gateway does not act on":
        '{"model":"gpt-test","x_twice":1,"x_twice":2,"messages":[{"role":"user","content":"TAG"}]}',
      "a model spelt with escapes": '{"model":"\\u0067pt-test","messages":[{"role":"user","content":"TAG"}]}',
      "a member name spelt with escapes": '{"mod\\u0065l":"gpt-test","messages":[{"role":"user","content":"TAG"}]}',
      "a text that talks about models":
        '{"model":"gpt-test","messages":[{"role":"user","content":"\\"model\\":\\"gpt-test\\" TAG"}],"metadata":{"model":"gpt-test"}}',
    };

    for (const [what, text] of Object.entries(bodies)) {
      test(`${what} reach the provider byte for byte`, async () => {
        const tag = freshId();
        const body = text.replace("TAG", directive({ tag }));
        const reply = await post(body);
        assert.equal(reply.status, 200, reply.text);
        const entry = await received(mock, tag);
        const model = /("mod(?:el|\\u0065l)"\s*:\s*)"(?:gpt-test|\\u0067pt-test)"/;
        assert.equal(entry.body, body.replace(model, '$1"mock-large"'));
        assert.equal(entry.headers["content-length"], String(Buffer.byteLength(entry.body)));
      });
    }

    // Whether half a character may be escaped is a matter on which parsers differ: the provider's to judge.
    test("a lone surrogate reaches the provider byte for byte", async () => {
      const id = freshId();
      const body = `{"model":"gpt-test","x":"\\ud800 ${id}","messages":[{"role":"user","content":"hi"}]}`;
      await post(body);
      const entries = await journalOf(mock);
      const [entry] = entries.filter((entry) => entry.body.includes(id));
      assert.equal(entry?.body, body.replace("gpt-test", "mock-large"));
    });

    /** [what the caller sends, what the provider gets] behind `"stream":true`. */
    const options = [
      ["", undefined],
      [',"stream_options":null', ',"stream_options":{"include_usage":true}'],
      [',"stream_options":{}', ',"stream_options":{"include_usage":true}'],
      [',"stream_options":{ "include_usage" : false }', ',"stream_options":{ "include_usage" : true }'],
      [',"stream_options":{"include_usage":null}', ',"stream_options":{"include_usage":true}'],
      [',"stream_options":{"include_usage":true}', ',"stream_options":{"include_usage":true}'],
      [
        ',"stream_options":{ "include_obfuscation":false}',
        ',"stream_options":{"include_usage":true, "include_obfuscation":false}',
      ],
    ];
    for (const [sent, expected] of options) {
      test(`a stream is asked for its usage, and nothing else changes: ${sent || "no stream_options"}`, async () => {
        const tag = freshId();
        const begin = `{ "messages":[{"role":"user","content":"${directive({ tag })}"}], "stream" : true`;
        const reply = await post(`${begin}${sent}, "model":"gpt-test","x":1.0}`);
        assert.equal(reply.status, 200, reply.text);
        const { body } = await received(mock, tag);
        assert.equal(JSON.parse(body).stream_options.include_usage, true);
        const rest = `, "model":"mock-large","x":1.0}`;
        if (expected === undefined) {
          // Where there was nothing to edit, the option is added somewhere; the rest is as it was.
          assert.equal(body.replace('"stream_options":{"include_usage":true},', ""), `${begin}${rest}`);
        } else {
          assert.equal(body, `${begin}${expected}${rest}`);
        }
      });
    }

    test("an unstreamed request is not asked for stream options", async () => {
      const tag = freshId();
      await post(JSON.stringify({ model: "gpt-test", messages: ask({ tag }) }));
      assert.equal(JSON.parse((await received(mock, tag)).body).stream_options, undefined);
    });

    test("a reply reaches the caller byte for byte", async () => {
      const tag = freshId();
      const options = { unicode: 1, text: 'Grüße {"a" : 1.50}', usage_in: 3 };
      const body = JSON.stringify({ model: "gpt-test", messages: ask({ tag, ...options }) });
      const { json, headers, bytes } = await post(body);
      const direct = await send({
        url: `${mock.url}/v1/chat/completions`,
        method: "POST",
        headers: { "content-type": "application/json", authorization: "Bearer x" },
        body: body.replace("gpt-test", "mock-large"),
      });
      const blank = (text) => text.replace(/"id":"[^"]*"|"created":\d+/g, "");
      assert.equal(blank(bytes.toString()), blank(direct.text));
      assert.equal(json.model, "mock-large");
      assert.match(headers["content-type"], /^application\/json/);
    });

    test("an error of the provider's reaches the caller unmodified", async () => {
      const options = {
        status: 429,
        error_code: "quota",
        error_type: "special",
        error_message: "über",
        "header.retry-after": 9,
      };
      const reply = await post(JSON.stringify({ model: "gpt-test", messages: ask(options) }));
      assert.equal(reply.status, 429);
      assert.deepEqual(reply.json.error, { message: "über", type: "special", param: null, code: "quota" });
      assert.equal(reply.headers["retry-after"], "9");
    });
  });

  // === Credentials ===

  describe("credentials", () => {
    for (const [name, lane] of Object.entries(LANES)) {
      test(`the caller's never reach the provider, the provider's never the caller (${name})`, async () => {
        for (const auth of [{ authorization: `Bearer ${at.key}` }, { authorization: undefined, "x-api-key": at.key }]) {
          const id = freshId();
          const request = requestIn(lane, at, { id });
          const headers = {
            ...request.headers,
            ...auth,
            cookie: "session=callers-cookie",
            "proxy-authorization": "Basic callers-proxy",
            "x-forwarded-for": "203.0.113.7",
            "openai-organization": "org-of-the-caller",
            "x-custom": "of-the-caller",
            referer: "https://caller.example/",
            "user-agent": "callers-agent/1.0",
          };
          if (auth.authorization === undefined) delete headers.authorization;
          const reply = await send({ ...request, headers });
          assert.equal(reply.status, 200, reply.text);
          const entry = await received(mock, id);
          const seen = JSON.stringify(entry.headers);
          assert.ok(!seen.includes(at.key), seen);
          for (const own of [
            "callers-cookie",
            "callers-proxy",
            "203.0.113.7",
            "org-of-the-caller",
            "of-the-caller",
            "caller.example",
            "callers-agent",
          ]) {
            assert.ok(!seen.includes(own), `${own}: ${seen}`);
          }
          const secret = lane.model === "claude-test" ? PROVIDER_SECRETS.ANTHROPIC_KEY : PROVIDER_SECRETS.OPENAI_KEY;
          if (lane.model === "claude-test") assert.equal(entry.headers["x-api-key"], secret);
          else assert.equal(entry.headers.authorization, `Bearer ${secret}`);
          assert.ok(!JSON.stringify(reply.headers).includes(secret) && !reply.text.includes(secret));
          assert.equal(entry.headers["content-type"], "application/json");
        }
      });
    }

    test("an `idempotency-key` and a dialect's own feature headers are passed on, but only to that dialect", async () => {
      const headers = { "idempotency-key": "idem-1", "openai-beta": "assistants=v2", "anthropic-beta": "files-api" };
      const tag = freshId();
      await post(JSON.stringify({ model: "gpt-test", messages: ask({ tag }) }), { headers });
      const entry = await received(mock, tag);
      assert.deepEqual([entry.headers["idempotency-key"], entry.headers["openai-beta"]], ["idem-1", "assistants=v2"]);
      const translated = freshId();
      await post(JSON.stringify({ model: "claude-test", messages: ask({ tag: translated }) }), { headers });
      const other = (await received(mock, translated)).headers;
      assert.deepEqual([other["openai-beta"], other["anthropic-beta"]], [undefined, undefined]);
    });
  });

  // === Hostile input ===

  const deep = (levels, open = "[", close = "]") => open.repeat(levels) + close.repeat(levels);
  const message = '[{"role":"user","content":"hi"}]';
  const withMember = (member) => `{"model":"gpt-test","messages":${message},${member}}`;

  /** [what, body, param or undefined]; each is a 400. */
  const refused = [
    ["an empty body", "", undefined],
    ["white space alone", " \n\t ", undefined],
    ["a broken-off object", '{"model":"gpt-test","messages":[', undefined],
    ["no JSON at all", "model=gpt-test&messages=hi", undefined],
    ["a trailing comma", '{"model":"gpt-test","messages":[],}', undefined],
    ["single quotes", "{'model':'gpt-test'}", undefined],
    ["a comment", `{"model":"gpt-test",/* hi */"messages":${message}}`, undefined],
    ["bytes behind the object", `{"model":"gpt-test","messages":${message}} {}`, undefined],
    ["a byte order mark", `\ufeff{"model":"gpt-test","messages":${message}}`, undefined],
    ["NaN", withMember('"temperature":NaN'), undefined],
    ["Infinity", withMember('"temperature":-Infinity'), undefined],
    ["a leading zero", withMember('"seed":01'), undefined],
    ["a hexadecimal number", withMember('"seed":0x1'), undefined],
    ["a bare control character in a text", withMember('"x":"\u0001"'), undefined],
    ["NUL in a text", withMember('"x":"\u0000"'), undefined],
    ["NUL before the object", `\u0000{"model":"gpt-test","messages":${message}}`, undefined],
    ["an invalid escape", withMember('"x":"\\x41"'), undefined],
    ["a list", "[]", undefined],
    ["a text", '"hello"', undefined],
    ["null", "null", undefined],
    ["a number", "42", undefined],
    ["an empty object", "{}", "model"],
    ["no model", `{"messages":${message}}`, "model"],
    ["a model that is null", `{"model":null,"messages":${message}}`, "model"],
    ["a model that is a number", `{"model":5,"messages":${message}}`, "model"],
    ["a model that is an object", `{"model":{"a":1},"messages":${message}}`, "model"],
    ["an empty model", `{"model":"","messages":${message}}`, "model"],
    ["a very long model", `{"model":"${"m".repeat(100_000)}","messages":${message}}`, "model"],
    ["the model twice", `{"model":"gpt-test","messages":${message},"model":"claude-test"}`, "model"],
    [
      "the model twice, once with escapes",
      `{"model":"gpt-test","messages":${message},"\\u006dodel":"claude-test"}`,
      "model",
    ],
    ["no messages", '{"model":"gpt-test"}', "messages"],
    ["messages that are null", '{"model":"gpt-test","messages":null}', "messages"],
    ["messages that are a text", '{"model":"gpt-test","messages":"hi"}', "messages"],
    ["messages that are an object", '{"model":"gpt-test","messages":{}}', "messages"],
    ["empty messages", '{"model":"gpt-test","messages":[ ]}', "messages"],
    ["messages twice", `{"model":"gpt-test","messages":${message},"messages":${message}}`, "messages"],
    ["stream that is a text", withMember('"stream":"true"'), "stream"],
    ["stream that is a number", withMember('"stream":1'), "stream"],
    ["stream twice", withMember('"stream":true,"stream":false'), "stream"],
    ["stream_options that are a list", withMember('"stream":true,"stream_options":[]'), "stream_options"],
    [
      "include_usage that is a text",
      withMember('"stream":true,"stream_options":{"include_usage":"yes"}'),
      "stream_options.include_usage",
    ],
    ["a negative limit", withMember('"max_tokens":-1'), "max_tokens"],
    ["a fractional limit", withMember('"max_tokens":1.5'), "max_tokens"],
    ["an absurd limit", withMember('"max_tokens":1e400'), "max_tokens"],
    ["a limit that is a text", withMember('"max_tokens":"100"'), "max_tokens"],
    ["lists 100,000 deep", withMember(`"x":${deep(90_000)}`), "x"],
    ["objects 20,000 deep", withMember(`"x":${'{"a":'.repeat(20_000)}1${"}".repeat(20_000)}`), "x"],
    ["a list 100,000 deep instead of an object", deep(90_000), undefined],
    ["lists that are never closed", withMember(`"x":${"[".repeat(150_000)}`), "x"],
    ["a number of 10,000 digits", withMember(`"x":${"9".repeat(10_000)}`), "x"],
    [
      "10,000 members",
      `{"model":"gpt-test","messages":${message},${Array.from({ length: 10_000 }, (_, n) => `"x${n}":1`).join(",")}}`,
      undefined,
    ],
  ];

  for (const [what, body, param] of refused) {
    test(`${what}: refused with a 400${param ? ` that names ${param}` : ""}`, async () => {
      const reply = await post(body);
      assert.equal(reply.status, 400, reply.text.slice(0, 300));
      assertErrorBody(reply.json, "chat");
      assert.equal(reply.json.error.type, "invalid_request_error");
      if (param) assert.equal(reply.json.error.param, param);
      assert.ok(reply.text.length < 2000, "an error is short, whatever was sent");
      await assertWell();
    });
  }

  test("the same input is refused in Anthropic's shape on Anthropic's path", async () => {
    for (const [what, body, param] of refused) {
      const onPath = body.replaceAll('"gpt-test"', '"claude-test"');
      const reply = await post(onPath, { path: PATHS.messages });
      // What Anthropic does not know is Anthropic's to judge.
      const own = !param?.startsWith("stream_options");
      assert.equal(reply.status, 400, `${what}: ${reply.text.slice(0, 300)}`);
      if (own) assertErrorBody(reply.json, "messages", what);
      if (param && own) assert.match(reply.json.error.message, new RegExp(param.replaceAll(".", "\\.")), what);
    }
    await assertWell();
  });

  /** [what, members, param]; a translation has to understand these, so it names what it does not. */
  const untranslatable = [
    ["a role that does not exist", '"messages":[{"role":"wizard","content":"hi"}]', /^messages\[0\]\.role/],
    ["a message that is a text", '"messages":["hi"]', /^messages\[0\]/],
    ["a message without a role", '"messages":[{"content":"hi"}]', /^messages\[0\]/],
    ["content that is a number", '"messages":[{"role":"user","content":5}]', /^messages\[0\]\.content/],
    [
      "a part of unknown type",
      '"messages":[{"role":"user","content":[{"type":"smell","smell":"rose"}]}]',
      /^messages\[0\]\.content/,
    ],
    ["a part without a type", '"messages":[{"role":"user","content":[{"text":"hi"}]}]', /^messages\[0\]\.content/],
    [
      "an image that is no URL",
      '"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"ftp://x/y.png"}}]}]',
      /^messages\[0\]\.content\[0\]\.image_url/,
    ],
    [
      "a broken data URL",
      '"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png,xyz"}}]}]',
      /^messages\[0\]\.content\[0\]\.image_url/,
    ],
    ["a temperature that is a text", `"messages":${message},"temperature":"hot"`, /^temperature/],
    ["a temperature out of range", `"messages":${message},"temperature":-3`, /^temperature/],
    ["tools that are an object", `"messages":${message},"tools":{}`, /^tools/],
    ["a tool without a function", `"messages":${message},"tools":[{"type":"function"}]`, /^tools\[0\]/],
    ["a tool choice that does not exist", `"messages":${message},"tool_choice":"perhaps"`, /^tool_choice/],
    [
      "a response format that does not exist",
      `"messages":${message},"response_format":{"type":"xml"}`,
      /^response_format/,
    ],
    ["stop texts that are numbers", `"messages":${message},"stop":[1]`, /^stop/],
    ["n that is not one", `"messages":${message},"n":2`, /^n$/],
    ["n that is a text", `"messages":${message},"n":"2"`, /^n$/],
    [
      "a tool result without its call",
      '"messages":[{"role":"user","content":"hi"},{"role":"tool","content":"x"}]',
      /^messages\[1\]/,
    ],
    [
      "tool arguments that are no JSON",
      '"messages":[{"role":"user","content":"hi"},{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{"}}]},{"role":"tool","tool_call_id":"a","content":"x"}]',
      /^messages\[1\]\.tool_calls\[0\]/,
    ],
    ["an effort that does not exist", `"messages":${message},"reasoning_effort":"heroic"`, /^reasoning_effort/],
  ];
  for (const [what, members, param] of untranslatable) {
    test(`${what}: a translation refuses it with a 400 that names the place, the faithful lane lets the provider judge`, async () => {
      const translated = await post(`{"model":"claude-test",${members}}`);
      assert.equal(translated.status, 400, translated.text);
      assertErrorBody(translated.json, "chat");
      assert.match(`${translated.json.error.param}`, param);
      const faithful = await post(`{"model":"gpt-test",${members}}`);
      assert.ok(faithful.status < 500, faithful.text);
    });
  }

  test("invalid UTF-8 is refused, wherever it stands", async () => {
    const good = Buffer.from(withMember('"x":"MARK"'));
    for (const bytes of [
      [0xff],
      [0xc3],
      [0xc0, 0x80],
      [0xed, 0xa0, 0x80],
      [0xf8, 0x88, 0x80, 0x80, 0x80],
      [0xf4, 0x90, 0x80, 0x80],
    ]) {
      const at = good.indexOf("MARK");
      const reply = await post(Buffer.concat([good.subarray(0, at), Buffer.from(bytes), good.subarray(at + 4)]));
      assert.equal(reply.status, 400, bytes.toString());
      assertErrorBody(reply.json, "chat");
      assert.match(reply.json.error.message, /UTF-8/);
    }
    await assertWell();
  });

  test("a body over the limit is refused with a 413, announced or not, in either dialect", async () => {
    for (const api of ["chat", "messages"]) {
      const path = PATHS[api];
      const announced = await post("x".repeat(LIMIT + 1), { path });
      assert.equal(announced.status, 413);
      assertErrorBody(announced.json, api);
      assert.equal(announced.headers["x-should-retry"], "false");

      let sent = 0;
      const endless = (async function* () {
        for (; sent < 20 * LIMIT; sent += 10_000) {
          yield Buffer.alloc(10_000, "x");
          await sleep(1);
        }
      })();
      const chunked = await post(endless, { path, fresh: true }).catch((error) => error);
      // The gateway stops reading as soon as it knows; a caller that goes on sending may see the connection close instead.
      if (chunked instanceof Error) assert.match(`${chunked.code}`, /ECONNRESET|EPIPE/);
      else {
        assert.equal(chunked.status, 413);
        assertErrorBody(chunked.json, api);
      }
    }
    await assertWell();
  });

  test("a body of exactly the limit is served, announced or not", async () => {
    const begin = `{"model":"gpt-test","messages":${message},"x":"`;
    const body = `${begin}${"x".repeat(LIMIT - begin.length - 2)}"}`;
    assert.equal(Buffer.byteLength(body), LIMIT);
    assert.equal((await post(body)).status, 200);
    const pieces = (async function* () {
      for (let at = 0; at < LIMIT; at += 50_000) yield Buffer.from(body.slice(at, at + 50_000));
    })();
    assert.equal((await post(pieces, { fresh: true })).status, 200);
  });

  test("a provider's reply over the limit is a 502, and is not read to its end", async () => {
    for (const [nolength, size] of [
      [0, 2 * LIMIT],
      [1, 20 * LIMIT],
    ]) {
      const id = freshId();
      const messages = ask({ tag: id, big_reply: size, ...(nolength && { nolength }) });
      const reply = await post(JSON.stringify({ model: "gpt-test", messages }), { id });
      assert.equal(reply.status, 502);
      assertErrorBody(reply.json, "chat");
      assert.match(reply.json.error.message, new RegExp(`${LIMIT}`));
      assert.equal((await logOf(gateway, id)).outcome, "failed");
    }
    const fits = await post(JSON.stringify({ model: "gpt-test", messages: ask({ big_reply: LIMIT - 5000 }) }));
    assert.equal(fits.status, 200);
    await assertWell();
  });

  test("a body that breaks off hurts nobody", async () => {
    const request = new Promise((resolve) => {
      open({
        url: `${at.url}${PATHS.chat}`,
        method: "POST",
        headers: { "content-length": "1000", authorization: `Bearer ${at.key}` },
        fresh: true,
        body: (async function* () {
          yield Buffer.from('{"model":');
          throw new Error("the caller gives up");
        })(),
      }).then(resolve, resolve);
    });
    await request;
    await assertWell();
  });

  test("a compressed body is refused with a 415", async () => {
    for (const coding of ["gzip", "br", "deflate", "gzip, identity"]) {
      const reply = await post("{}", { headers: { "content-encoding": coding } });
      assert.equal(reply.status, 415, coding);
      assertErrorBody(reply.json, "chat");
    }
    const plain = await post(`{"model":"gpt-test","messages":${message}}`, {
      headers: { "content-encoding": "identity" },
    });
    assert.equal(plain.status, 200);
  });

  test("the content type is not insisted on", async () => {
    for (const type of [
      undefined,
      "text/plain",
      "application/json; charset=utf-8",
      "application/x-www-form-urlencoded",
      "\u00e9",
    ]) {
      const headers = { authorization: `Bearer ${at.key}`, ...(type && { "content-type": type }) };
      const reply = await send({
        url: `${at.url}${PATHS.chat}`,
        method: "POST",
        headers,
        body: `{"model":"gpt-test","messages":${message}}`,
      });
      assert.ok(reply.status === 200 || reply.status === 415 || reply.status === 400, `${type}: ${reply.status}`);
      if (type === undefined || type.startsWith("application/json")) assert.equal(reply.status, 200, `${type}`);
    }
  });

  test("junk in headers hurts nobody", async () => {
    const body = `{"model":"gpt-test","messages":${message}}`;
    const junk = {
      "x-request-id": "\u00ff\u00fe; drop table",
      "x-stainless-timeout": "soon",
      "x-stainless-read-timeout": "-1e999",
      "accept-encoding": ";;q=,gzip;q=abc,*;q=2",
      origin: "null",
      accept: "\u00e9/*",
      "content-length": undefined,
      "anthropic-beta": "a".repeat(7000),
      "idempotency-key": "\u00e9\u00ff",
      "x-mock": undefined,
      "x-long": "y".repeat(7000),
    };
    for (const [name, value] of Object.entries(junk)) {
      if (value === undefined) continue;
      const reply = await post(body, { headers: { [name]: value } });
      assert.ok(reply.status < 500, `${name}: ${reply.status} ${reply.text}`);
    }
    for (const value of [
      "Bearer",
      "Bearer ",
      "bearer \u00e9",
      `Bearer ${at.key}x`,
      `Basic ${at.key}`,
      at.key,
      "Bearer a.b.c",
      `Bearer ${"a".repeat(7000)}`,
    ]) {
      const reply = await post(body, { headers: { authorization: value } });
      assert.equal(reply.status, 401, value.slice(0, 40));
    }
    await assertWell();
  });

  test("odd paths are a 404 and hurt nobody", async () => {
    for (const path of [
      "/v1/models/%zz",
      "/v1/models/%00",
      "/v1/models/%ff",
      `/v1/models/${"m".repeat(5000)}`,
      "/v1//chat/completions",
      "/v1/chat/completions/x",
      "/%2e%2e/",
      "//",
      "/v1/models/a%2Fb%3Fc",
    ]) {
      const reply = await send({ url: `${at.url}${path}`, headers: { authorization: `Bearer ${at.key}` } });
      assert.equal(reply.status, 404, `${path}: ${reply.text}`);
      assertErrorBody(reply.json, "chat");
      assert.ok(reply.text.length < 8000);
    }
    await assertWell();
  });

  // === Chance ===

  /** Mulberry32: a small generator of numbers in [0, 1) that are the same in every run. */
  function randomness(seed) {
    return () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  const TOKENS = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    '"',
    "\\",
    "\\u0000",
    "null",
    "true",
    "1e999",
    "-",
    "0",
    "\u0000",
    "\ud83c",
    "é",
    '"model"',
    '"messages"',
    '"role":',
    '"stream":true',
    '""',
    "{}",
    "[]",
    " ",
    "\n",
    "data:",
    "[[mock status=500]]",
  ];

  /** One to four random changes to a text. */
  function mutate(text, random) {
    const pick = (list) => list[Math.floor(random() * list.length)];
    let bytes = Buffer.from(text);
    const changes = 1 + Math.floor(random() * 4);
    for (let n = 0; n < changes; n++) {
      const from = Math.floor(random() * (bytes.length + 1));
      const to = Math.min(bytes.length, from + Math.floor(random() ** 3 * 40));
      const [head, middle, tail] = [bytes.subarray(0, from), bytes.subarray(from, to), bytes.subarray(to)];
      switch (Math.floor(random() * 7)) {
        case 0: // leave out
          bytes = Buffer.concat([head, tail]);
          break;
        case 1: // say twice
          bytes = Buffer.concat([head, middle, middle, tail]);
          break;
        case 2: // another byte
          bytes = Buffer.concat([head, Buffer.from([Math.floor(random() * 256)]), tail]);
          break;
        case 3: // a token
          bytes = Buffer.concat([head, Buffer.from(pick(TOKENS)), tail]);
          break;
        case 4: // break off
          bytes = random() < 0.3 ? head : bytes;
          break;
        case 5: {
          // another value for a member
          const members = [...bytes.toString("latin1").matchAll(/:(\s*)("[^"]*"|-?\d[\d.]*|true|false|null)/g)];
          if (members.length === 0) break;
          const member = pick(members);
          const value = pick([
            "null",
            "true",
            "-1",
            "0",
            "1e308",
            '""',
            '"x"',
            "[]",
            "{}",
            "[null]",
            '{"a":[]}',
            "1.5",
            "99999999999999999999",
          ]);
          bytes = Buffer.concat([
            bytes.subarray(0, member.index),
            Buffer.from(`:${value}`),
            bytes.subarray(member.index + member[0].length),
          ]);
          break;
        }
        default: // deep
          bytes = Buffer.concat([head, Buffer.from(pick(["[", '{"a":']).repeat(Math.floor(random() * 200))), tail]);
      }
    }
    return bytes;
  }

  const seeds = {
    chat: JSON.stringify({
      model: "claude-test",
      messages: [
        { role: "system", content: "Be brief." },
        {
          role: "user",
          content: [
            { type: "text", text: "hé 🌍" },
            { type: "image_url", image_url: { url: "https://x.example/a.png" } },
          ],
        },
        {
          role: "assistant",
          content: null,
          tool_calls: [{ id: "c1", type: "function", function: { name: "f", arguments: '{"a":1}' } }],
        },
        { role: "tool", tool_call_id: "c1", content: "ok" },
        { role: "user", content: "go on" },
      ],
      stream: false,
      temperature: 0.5,
      max_tokens: 50,
      stop: ["x"],
      tools: [
        { type: "function", function: { name: "f", description: "d", parameters: { type: "object", properties: {} } } },
      ],
      tool_choice: "auto",
      response_format: { type: "text" },
      user: "u",
      metadata: { a: "b" },
    }),
    messages: JSON.stringify({
      model: "claude-test",
      max_tokens: 50,
      system: [{ type: "text", text: "Be brief.", cache_control: { type: "ephemeral" } }],
      messages: [
        { role: "user", content: "hé 🌍" },
        { role: "assistant", content: [{ type: "tool_use", id: "t1", name: "f", input: { a: 1 } }] },
        { role: "user", content: [{ type: "tool_result", tool_use_id: "t1", content: "ok" }] },
      ],
      tools: [{ name: "f", input_schema: { type: "object" } }],
      stream: false,
    }),
  };

  for (const [api, seed, number] of [
    ["chat", seeds.chat, 1],
    ["chat", seeds.chat.replace("claude-test", "gpt-test").replace('"stream":false', '"stream":true'), 2],
    ["chat", seeds.chat.replace('"stream":false', '"stream":true'), 3],
    ["messages", seeds.messages, 4],
  ]) {
    test(
      `no chance change to a valid request makes the gateway fail (${api}, ${number})`,
      { timeout: 60_000 },
      async () => {
        const random = randomness(number);
        const until = Date.now() + 12_000;
        const counts = {};
        let left = 2500;
        const worker = async () => {
          while (left > 0 && Date.now() < until) {
            left -= 1;
            const body = mutate(seed, random);
            const reply = await post(body, { path: PATHS[api] });
            counts[reply.status] = (counts[reply.status] ?? 0) + 1;
            const told = `${reply.status} for ${JSON.stringify(body.toString())}: ${reply.text.slice(0, 300)}`;
            // The mock provider can be talked into a 500 by its own directive; nothing else may give one.
            if (!body.includes("[[mock")) assert.ok(reply.status < 500, told);
            if (reply.status >= 400) assertErrorBody(reply.json, api, told);
          }
        };
        await Promise.all(Array.from({ length: 8 }, worker));
        const served = Object.values(counts).reduce((sum, n) => sum + n, 0);
        assert.ok(served >= 500, `only ${served} requests could be made`);
        assert.ok(counts[200] > 0 && counts[400] > 0, JSON.stringify(counts));
        await assertWell();
      },
    );
  }

  test("a hundred requests at once, good and bad, are each answered as they deserve", async () => {
    const good = JSON.stringify({ model: "gpt-test", messages: ask({ text: "well" }) });
    const replies = await Promise.all(
      Array.from({ length: 100 }, (_, nth) => post(nth % 2 ? good : refused[nth % refused.length][1])),
    );
    replies.forEach((reply, nth) => assert.equal(reply.status, nth % 2 ? 200 : 400));
  });

  test("every request has left exactly one line in the log, and what was refused cost nothing", async () => {
    const id = freshId();
    await post('{"model":', { id });
    const line = await logOf(gateway, id);
    assert.deepEqual([line.status, line.outcome, line.usage, line.attempts], [400, "failed", undefined, 0]);
    assert.equal(line.error_code, "invalid_json");
    const ids = requestLines(gateway).map(({ request_id }) => request_id);
    assert.equal(new Set(ids).size, ids.length);
    assert.deepEqual(await journalOf(mock, id), []);
  });
});

test("no line of the log has a secret in it", assertNothingLeaked);
