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
};

/** The recorded APIs whose replies a target reads, or whose requests. */
const REPLIES = {
  reply_openai: ["chat"],
  reply_responses: ["responses"],
  reply_anthropic: ["messages"],
  reply_gemini: ["generateContent", "streamGenerateContent"],
  reply_bedrock: ["converse", "converse-stream"],
};
const REQUESTS = { request_chat: "chat", request_messages: "messages", request_responses: "responses" };

const CUT = Buffer.from([61]);

/** What a target reads of a recording. */
const RECORDED = {
  sse: ({ stream }) => (stream?.name.endsWith(".sse") ? [Buffer.concat([CUT, stream.bytes])] : []),
  event_stream: ({ stream }) => (stream?.name.endsWith(".eventstream") ? [Buffer.concat([CUT, stream.bytes])] : []),
  json_scan: ({ file }) =>
    [file.request?.body, file.response?.body].filter((body) => body && typeof body === "object").map((body) => Buffer.from(JSON.stringify(body))),
  multipart: () => [],
};
for (const [target, apis] of Object.entries(REPLIES)) {
  RECORDED[target] = ({ entry, file, stream }) => {
    const reply = stream?.bytes ?? Buffer.from(JSON.stringify(file.response?.body ?? null));
    return apis.includes(entry.api) ? [Buffer.concat([CUT, reply])] : [];
  };
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

for (const text of OWN[target] ?? []) write(Buffer.from(text, target === "event_stream" ? "latin1" : "utf8"));

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
