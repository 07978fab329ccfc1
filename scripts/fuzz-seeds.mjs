// Writes the inputs that scripts/fuzz-parsers begins with: recorded provider traffic, and a few made up here.
// Usage: node scripts/fuzz-seeds.mjs TARGET FOLDER FIXTURES

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";

const MAX_BYTES = 64 * 1024;

const part = (head, content) => `--B\r\nContent-Disposition: form-data; ${head}\r\n\r\n${content}\r\n`;

/** What there is without recordings. A byte at the beginning, of what comes in pieces, says how they are cut. */
const OWN = {
  sse: ["\x07\ufeff: hello\r\nevent: a\r\ndata: 1\ndata:2\r\n\r\ndata\r\rid: 1\n\ndata: x"],
  event_stream: ["\x05\0\0\0\x10\0\0\0\0\x05\xc2\x48\xeb\x7d\x98\xc8\xff"],
  json_scan: ['{"model":"m","messages":[{"role":"user","content":"\\u00e9\\n"}],"n":-1.5e+3,"a":[true,false,null,{}]}'],
  multipart: [
    `\x09${part('name="model"', "a")}${part('name="file"; filename="a.mp3"\r\nContent-Type: audio/mpeg', "\r\n--\r\n-")}--B--\r\n`,
    `\x01before\r\n${part('filename="a"; name=file', "")}${part("name=stream", "true")}--B-- \r\nbehind`,
  ],
  reply_generic: [
    '\x07{"piece":"one"}\n{"piece":" two","meter":{"in":3}}\n{"end":"eos","meter":{"out":2}}\n[END]\n',
    '\x3d{"piece":"one"}\n{"fault":{"explanation":"no","number":4000}}\n',
    '\x3d{"id":"1","result":{"text":"one","thoughts":"hm","end":"cut"},"meter":{"in":3,"out":1}}',
  ],
  reply_side: ['{"id":"r","results":[{"index":1,"relevance_score":0.5}],"meta":{"billed_units":{"search_units":1}}}'],
  errors: ['\xad\x01{"error_code":110,"error_msg":"Access token invalid or no longer valid"}'],
};

/** Targets whose own inputs are written byte for byte. */
const BYTES = ["event_stream", "errors"];

const DIALECTS_OF_THEIR_OWN = ["baidu-v1", "cohere"];
const ofOpenAi = ({ provider, api }) => api === "chat" && !DIALECTS_OF_THEIR_OWN.includes(provider);

/** Whose recorded replies a target reads, or which API's requests. */
const REPLIES = {
  recognise: () => true,
  reply_anthropic: ({ api }) => api === "messages",
  reply_bedrock: ({ api }) => api.startsWith("converse"),
  reply_cohere: ({ provider, api }) => provider === "cohere" && api === "chat",
  reply_gemini: ({ api }) => api.endsWith("enerateContent"),
  reply_generic: () => false,
  reply_openai: ofOpenAi,
  reply_responses: ({ api }) => api === "responses",
  reply_wenxinworkshop: ({ provider }) => provider === "baidu-v1",
  reply_workers_ai: (entry) => entry.provider === "workersai" || ofOpenAi(entry),
};
const REQUESTS = { request_chat: "chat", request_messages: "messages", request_responses: "responses" };

const CUT = Buffer.from([61]);
const STATUS_429 = Buffer.from([0xad, 0x01]);

/** What a target reads of a recording. */
const RECORDED = {
  sse: ({ stream }) => (stream?.name.endsWith(".sse") ? [Buffer.concat([CUT, stream.bytes])] : []),
  event_stream: ({ stream }) => (stream?.name.endsWith(".eventstream") ? [Buffer.concat([CUT, stream.bytes])] : []),
  json_scan: ({ file }) =>
    [file.request?.body, file.response?.body].filter((body) => body && typeof body === "object").map((body) => Buffer.from(JSON.stringify(body))),
  multipart: () => [],
  errors: (recording) => (recording.entry.status < 400 ? [] : [Buffer.concat([STATUS_429, replyOf(recording)])]),
  reply_side: (recording) => (/embed/i.test(recording.entry.api) ? [replyOf(recording)] : []),
};
const replyOf = ({ file, stream }) => stream?.bytes ?? Buffer.from(JSON.stringify(file.response?.body ?? null));
for (const [target, reads] of Object.entries(REPLIES)) {
  RECORDED[target] = (recording) => (reads(recording.entry) ? [Buffer.concat([CUT, replyOf(recording)])] : []);
}
for (const [target, api] of Object.entries(REQUESTS)) {
  RECORDED[target] = ({ entry, file }) =>
    entry.api === api && file.request?.body ? [Buffer.from(JSON.stringify(file.request.body))] : [];
}

const [target, folder, fixtures] = process.argv.slice(2);
if (!RECORDED[target]) throw new Error(`the target is one of: ${Object.keys(RECORDED).join(", ")}`);
mkdirSync(folder, { recursive: true });
const write = (bytes) => {
  const name = createHash("sha1").update(bytes).digest("hex");
  if (bytes.length <= MAX_BYTES) writeFileSync(path.join(folder, name), bytes);
};

for (const text of OWN[target] ?? []) write(Buffer.from(text, BYTES.includes(target) ? "latin1" : "utf8"));

const index = path.join(fixtures, "index.json");
if (existsSync(index)) {
  for (const entry of JSON.parse(readFileSync(index, "utf8"))) {
    const file = JSON.parse(readFileSync(path.join(fixtures, entry.file), "utf8"));
    const name = file.response?.body_file;
    const stream = name && { name, bytes: readFileSync(path.join(fixtures, name)) };
    RECORDED[target]({ entry, file, stream }).forEach(write);
  }
} else {
  console.log(`      there is no recorded traffic at ${fixtures}; it begins with what is made up alone`);
}
