// Requests that come as forms: by the official `openai` package, which puts the file where the caller puts it, and by hand,
// where a form says what it likes.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import http from "node:http";
import { after, before, describe, test } from "node:test";

import OpenAI, { toFile } from "openai";

import {
  HEALTH,
  MOCK,
  assertNothingLeaked,
  config,
  directive,
  eventually,
  events,
  freshId,
  logOf,
  open,
  received,
  send,
  sleep,
  start,
} from "./support.mjs";

const MIB = 1024 * 1024;
const BOUNDARY = "----WebKitFormBoundaryX1";

const field = (name, value) => `--${BOUNDARY}\r\ncontent-disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
const fileHead = (name = "a.wav") =>
  `--${BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="${name}"\r\ncontent-type: audio/wav\r\n\r\n`;
const END = `--${BOUNDARY}--\r\n`;

/** A form: texts and files, in their order. */
function form(parts) {
  const pieces = parts.flatMap(([name, value]) =>
    value instanceof Uint8Array ? [Buffer.from(fileHead()), value, Buffer.from("\r\n")] : [Buffer.from(field(name, value))],
  );
  return Buffer.concat([...pieces, Buffer.from(END)]);
}

/** The parts of a form as the mock provider has read it. */
const partsOf = (entry) => Object.fromEntries(entry.upload.parts.map((part) => [part.name, part]));

/** What was used, kind by kind. */
const kinds = (usage) => Object.fromEntries(Object.entries(usage).filter(([, amount]) => amount > 0));

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

describe("forms", () => {
  let at, mock, gateway, openai;

  before(async () => {
    const own = (base_url, more) => ({ dialect: "openai", base_url, credential: "OPENAI_KEY", health: HEALTH, forward_headers: ["x-mock"], ...more });
    const providers = {
      voices: own(`${MOCK}/v1`),
      broken: own(`${MOCK}/mock;status=503/v1`),
    };
    const models = {
      scribe: { provider: "voices", upstream_model: "scribe-1-of-the-provider" },
      whisper: { provider: "voices", upstream_model: "whisper-large" },
      painter: { provider: "voices", upstream_model: "gpt-image-1" },
      failing: { provider: "broken" },
    };
    const routes = { "best-scribe": { targets: [{ model: "failing" }, { model: "scribe" }] } };
    const prices = { scribe: { input: "1", output: "2", input_audio: "3" }, painter: { per_image: "0.5" } };
    at = await start({
      config: config({ providers, models, routes, prices, routing: { max_attempts: 3 } }),
      keys: [{ name: "app" }, { name: "bound", models: ["whisper"] }],
    });
    ({ mock, gateway } = at);
    openai = new OpenAI({ baseURL: `${at.url}/v1`, apiKey: at.key, maxRetries: 0 });
  });

  after(() => at?.stop());

  const url = (path = "/audio/transcriptions") => `${at.url}/v1${path}`;
  const head = (tag, more = {}) => ({
    authorization: `Bearer ${at.key}`,
    "content-type": `multipart/form-data; boundary=${BOUNDARY}`,
    "x-request-id": tag,
    "x-mock": `tag=${tag}`,
    ...more,
  });

  /** Sends a form; the reply with its `tag`. */
  async function post(body, { headers = {}, path, ...more } = {}) {
    const tag = freshId();
    const reply = await send({ url: url(path), method: "POST", headers: head(tag, headers), body, ...more });
    return Object.assign(reply, { tag });
  }

  /** The journal's entry of a form that is still on its way: its tag counts only when all of it has come. */
  const underWay = async (tag) => (await mock.journal()).find(({ headers }) => headers["x-mock"] === `tag=${tag}`);

  const sound = (bytes = 64_000) => randomBytes(bytes);

  describe("by the openai package", () => {
    test("a transcription, the file first", async () => {
      const tag = freshId();
      const bytes = sound();
      const reply = await openai.audio.transcriptions.create(
        { file: await toFile(bytes, "a.wav"), model: "scribe", prompt: `Hm. ${directive({ text: "well said", usage_in: 25, usage_out: 4 })}`, language: "en" },
        { headers: { "x-mock": `tag=${tag}`, "x-request-id": tag } },
      );
      assert.equal(reply.text, "well said");
      const parts = partsOf(await received(mock, tag));
      assert.deepEqual(
        [parts.model.value, parts.language.value, parts.file.filename, parts.file.sha256],
        ["scribe-1-of-the-provider", "en", "a.wav", sha256(bytes)],
      );
      const line = await logOf(gateway, tag);
      assert.deepEqual([line.model, line.provider, line.lane, line.outcome], ["scribe", "voices", "native", "completed"]);
      assert.deepEqual(kinds(line.usage), { input: 5, input_audio: 20, output: 4 });
      assert.equal(line.cost_nanodollars, 5 * 1000 + 20 * 3000 + 4 * 2000);
    });

    test("a stream", async () => {
      const tag = freshId();
      const stream = await openai.audio.transcriptions.create(
        { file: await toFile(sound(), "a.wav"), model: "scribe", stream: true, prompt: directive({ text: "one two three", usage_in: 25, usage_out: 4 }) },
        { headers: { "x-mock": `tag=${tag}`, "x-request-id": tag } },
      );
      let text = "";
      let done;
      for await (const event of stream) {
        if (event.type === "transcript.text.delta") text += event.delta;
        else done = event;
      }
      assert.deepEqual([text, done.type, done.text], ["one two three", "transcript.text.done", "one two three"]);
      const line = await logOf(gateway, tag);
      assert.deepEqual(kinds(line.usage), { input: 5, input_audio: 20, output: 4 });
    });

    test("other forms of reply", async () => {
      for (const [response_format, type, expected] of [
        ["text", /^text\/plain/, "well said\n"],
        ["srt", /^text\/plain/, "1\n00:00:00,000 --> 00:00:01,000\nwell said\n\n"],
        ["vtt", /^text\/vtt/, "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nwell said\n\n"],
        ["verbose_json", /^application\/json/, undefined],
      ]) {
        const { data, response } = await openai.audio.transcriptions
          .create({ file: await toFile(sound(), "a.wav"), model: "whisper", response_format, prompt: directive({ text: "well said" }) })
          .withResponse();
        assert.match(response.headers.get("content-type"), type);
        if (expected === undefined) assert.equal(data.segments[0].text, "well said");
        else assert.equal(data, expected);
      }
    });

    test("a translation", async () => {
      const tag = freshId();
      const reply = await openai.audio.translations.create(
        { file: await toFile(sound(), "a.wav"), model: "whisper", prompt: directive({ text: "good day" }) },
        { headers: { "x-mock": `tag=${tag}`, "x-request-id": tag } },
      );
      assert.equal(reply.text, "good day");
      const entry = await received(mock, tag);
      assert.deepEqual([entry.path, partsOf(entry).model.value], ["/v1/audio/translations", "whisper-large"]);
    });

    test("an edit of pictures, as a form and as JSON", async () => {
      const picture = await toFile(sound(5_000), "a.png", { type: "image/png" });
      const tag = freshId();
      const reply = await openai.images.edit(
        { image: [picture, picture], prompt: "A hat.", model: "painter" },
        { headers: { "x-mock": `tag=${tag}`, "x-request-id": tag } },
      );
      assert.ok(reply.data[0].b64_json.length > 0);
      const { upload } = await received(mock, tag);
      assert.equal(upload.parts.filter(({ filename }) => filename === "a.png").length, 2);
      const line = await logOf(gateway, tag);
      assert.deepEqual([line.usage.images, line.cost_nanodollars], [1, 500_000_000]);

      const json = freshId();
      const headers = { ...head(json), "content-type": "application/json" };
      const body = JSON.stringify({ model: "painter", prompt: "A hat.", images: [{ image_url: "https://example.com/a.png" }] });
      const edited = await send({ url: url("/images/edits"), method: "POST", headers, body });
      assert.equal(edited.status, 200, edited.text);
      assert.equal(JSON.parse((await received(mock, json)).body).model, "gpt-image-1");
    });

    test("an error of the provider's is the SDK's own", async () => {
      const asked = openai.audio.transcriptions.create({ file: await toFile(sound(), "a.wav"), model: "scribe", response_format: "xml" });
      await assert.rejects(asked, (error) => error instanceof OpenAI.BadRequestError && error.param === "response_format");
      const unknown = openai.audio.transcriptions.create({ file: await toFile(sound(), "a.wav"), model: "nobody" });
      await assert.rejects(unknown, (error) => error instanceof OpenAI.NotFoundError);
    });
  });

  describe("by hand", () => {
    test("every way to cut a form arrives the same", async () => {
      const bytes = sound(3_000);
      for (const parts of [
        [["model", "scribe"], ["file", bytes], ["language", "en"]],
        [["file", bytes], ["language", "en"], ["model", "scribe"]],
      ]) {
        const whole = form(parts);
        for (const size of [1, 7, 64, 1_000, whole.length]) {
          const pieces = async function* () {
            for (let at = 0; at < whole.length; at += size) yield whole.subarray(at, at + size);
          };
          const reply = await post(pieces());
          assert.equal(reply.status, 200, reply.text);
          const read = partsOf(await received(mock, reply.tag));
          assert.deepEqual(
            [read.model.value, read.language.value, read.file.sha256],
            ["scribe-1-of-the-provider", "en", sha256(bytes)],
            `pieces of ${size}`,
          );
        }
      }
    });

    test("the provider is told how long a form is, if that can be known", async () => {
      const reply = await post(form([["model", "scribe"], ["file", sound()]]));
      const { headers, upload } = await received(mock, reply.tag);
      assert.ok(Number(headers["content-length"]) > 64_000);
      assert.equal(upload.bytes, Number(headers["content-length"]));
    });

    test("the model may be named beside the form", async () => {
      const nameless = form([["file", sound()], ["language", "en"]]);
      const other = form([["file", sound()], ["model", "nobody"]]);
      for (const [body, options] of [
        [nameless, { headers: { "x-gateway-model": "scribe" } }],
        [nameless, { path: "/audio/transcriptions?model=scribe" }],
        [other, { headers: { "x-gateway-model": "scribe" } }],
      ]) {
        const reply = await post(body, options);
        assert.equal(reply.status, 200, reply.text);
        const entry = await received(mock, reply.tag);
        assert.equal(partsOf(entry).model.value, "scribe-1-of-the-provider");
        assert.equal(entry.path, "/v1/audio/transcriptions");
      }
    });

    test("what is wrong with a form is told", async () => {
      const file = ["file", sound(100)];
      const cases = [
        ["no model", form([file]), 400, "model"],
        ["an unknown model", form([["model", "nobody"], file]), 404, "model"],
        ["two models", form([["model", "scribe"], ["model", "whisper"], file]), 400, "model"],
        ["no end", form([["model", "scribe"], file]).subarray(0, -8), 400, null],
        ["nothing", "", 400, null],
        ["another boundary", form([["model", "scribe"]]).toString().replaceAll(BOUNDARY, "other"), 400, null],
        ["a model that is a file", `${fileHead().replace('"file"', '"model"')}scribe\r\n${END}`, 400, "model"],
        ["a torn delimiter", `${field("model", "scribe")}--${BOUNDARY}x\r\n\r\n${END}`, 400, null],
      ];
      for (const [what, body, status, param] of cases) {
        const reply = await post(body);
        assert.equal(reply.status, status, `${what}: ${reply.text}`);
        assert.equal(reply.json.error.param || null, param, what);
      }
      for (const [type, status] of [
        ["application/json", 415],
        ["multipart/form-data", 400],
        ["multipart/form-data; boundary=", 400],
        ["multipart/mixed; boundary=x", 415],
      ]) {
        const reply = await post(form([["model", "scribe"], file]), { headers: { "content-type": type } });
        assert.equal(reply.status, status, `${type}: ${reply.text}`);
      }
    });

    test("a key's models hold, whatever comes behind the file", async () => {
      const bound = { headers: { authorization: `Bearer ${gateway.keys.bound}` } };
      const file = ["file", sound(100)];
      assert.equal((await post(form([["model", "whisper"], file]), bound)).status, 200);
      assert.equal((await post(form([file, ["model", "scribe"]]), bound)).status, 404);
      assert.equal((await post(form([["model", "whisper"], file, ["model", "scribe"]]), bound)).status, 400);
    });
  });

  describe("what is held", () => {
    test("goes to the next one when the first fails", async () => {
      const bytes = sound();
      const reply = await post(form([["file", bytes], ["model", "best-scribe"]]), { headers: {} });
      assert.equal(reply.status, 200, reply.text);
      const line = await logOf(gateway, reply.tag);
      assert.deepEqual([line.deployment, line.attempts, line.tried.map(({ fault }) => fault).length], ["scribe", 2, 2]);
      const entries = await mock.journal(reply.tag);
      assert.deepEqual(entries.map((entry) => partsOf(entry).model.value), ["failing", "scribe-1-of-the-provider"]);
      assert.deepEqual(entries.map((entry) => partsOf(entry).file.sha256), [sha256(bytes), sha256(bytes)]);
    });

    test("what is not goes to one alone", async () => {
      const bytes = sound(9 * MIB);
      const reply = await post(form([["model", "best-scribe"], ["file", bytes]]));
      assert.equal(reply.status, 503, reply.text);
      assert.equal((await mock.journal(reply.tag)).length, 1);
      assert.equal((await logOf(gateway, reply.tag)).attempts, 1);
    });

    test("a model that comes too late is asked for", async () => {
      const body = form([["file", sound(9 * MIB)], ["model", "scribe"]]);
      const slowly = async function* () {
        yield body.subarray(0, 8 * MIB + 1_000);
        await sleep(1_000);
        yield body.subarray(8 * MIB + 1_000);
      };
      const reply = await post(slowly(), { fresh: true });
      assert.deepEqual([reply.status, reply.json.error.code], [400, "model_after_file"]);
      assert.match(reply.json.error.message, /x-gateway-model/);
      const named = await post(body, { headers: { "x-gateway-model": "scribe" } });
      assert.equal(named.status, 200, named.text);
      assert.equal(partsOf(await received(mock, named.tag)).model.value, "scribe-1-of-the-provider");
    });
  });

  describe("large forms", () => {
    /** A form of so many MiB in pieces; `between` runs half-way. */
    async function* large(mebibytes, between = async () => {}, hash = createHash("sha256")) {
      const piece = randomBytes(MIB);
      yield Buffer.from(field("model", "scribe") + fileHead());
      for (let nth = 0; nth < mebibytes; nth += 1) {
        if (nth === mebibytes >> 1) await between();
        hash.update(piece);
        yield piece;
      }
      yield Buffer.from(`\r\n${field("language", "en")}${END}`);
    }

    test("60 MiB go out while they come in", async () => {
      const tag = freshId();
      const hash = createHash("sha256");
      let early;
      const body = large(60, async () => {
        const entry = await eventually(async () => {
          const entry = await underWay(tag);
          return entry?.upload?.bytes > 4 * MIB && entry;
        }, "the first bytes of the upload");
        early = entry.upload;
      }, hash);
      const reply = await send({ url: url(), method: "POST", headers: head(tag), body });
      assert.equal(reply.status, 200, reply.text);
      assert.ok(early.bytes > 4 * MIB && early.bytes < 40 * MIB && early.parts === null, JSON.stringify(early));
      const parts = partsOf(await received(mock, tag));
      assert.deepEqual([parts.file.bytes, parts.file.sha256, parts.language.value], [60 * MIB, hash.digest("hex"), "en"]);
    });

    test("four at a time, more than an isolate has memory for", async () => {
      const replies = await Promise.all([1, 2, 3, 4].map(() => post(large(60), { fresh: true })));
      assert.deepEqual(replies.map(({ status }) => status), [200, 200, 200, 200]);
    });

    test("one that is too large does not arrive as a whole", async () => {
      const reply = await post(large(110), { fresh: true });
      assert.deepEqual([reply.status, reply.json.error.code], [413, "request_too_large"]);
      const entry = await eventually(async () => {
        const entry = await underWay(reply.tag);
        return entry?.outcome !== "open" && entry;
      }, "the upload's end");
      assert.equal(entry.upload.parts, null);
      const pieces = async function* () {
        yield Buffer.alloc(10);
      };
      const announced = await post(pieces(), { fresh: true, headers: { "content-length": String(101 * MIB) } });
      assert.equal(announced.status, 413);
    });

    test("an upload that breaks off does not arrive as a whole", async () => {
      const tag = freshId();
      const request = http.request(new URL("/v1/audio/transcriptions", gateway.edgeUrl), {
        method: "POST",
        agent: new http.Agent(),
        headers: head(tag),
      });
      request.on("error", () => {});
      request.write(field("model", "scribe") + fileHead());
      request.write(randomBytes(MIB));
      await eventually(async () => (await underWay(tag))?.upload?.bytes > 0, "the upload's beginning");
      await sleep(100);
      request.socket.resetAndDestroy();
      const entry = await eventually(async () => {
        const entry = await underWay(tag);
        return entry?.outcome !== "open" && entry;
      }, "the upload's end");
      assert.equal(entry.upload.parts, null);
      assert.equal((await logOf(gateway, tag)).outcome, "client_closed");
    });

    test("a form that turns out to be none on its way is not taken for one", async () => {
      const reply = await post((async function* () {
        yield Buffer.from(field("model", "scribe") + fileHead());
        yield randomBytes(9 * MIB);
        yield Buffer.from(`\r\n${field("model", "whisper")}${END}`);
      })());
      assert.equal(reply.status, 400, reply.text);
      assert.equal(reply.json.error.param, "model");
      assert.equal((await underWay(reply.tag)).upload.parts, null);
    });
  });

  test("a stream that breaks off says so", async () => {
    const tag = freshId();
    const body = form([["model", "scribe"], ["stream", "true"], ["file", sound()], ["prompt", directive({ text: "a b c d e f", chunks: 6, gap_ms: 50, reset_at: 3 })]]);
    const reply = await open({ url: url(), method: "POST", headers: head(tag), body });
    const seen = [];
    for await (const event of events(reply.body)) seen.push(JSON.parse(event.data));
    assert.ok(seen.at(-1).error, JSON.stringify(seen.at(-1)));
    assert.equal((await logOf(gateway, tag)).outcome, "failed");
  });
});

test("nothing leaked", assertNothingLeaked);
