// What the tests that use Anthropic's SDK share: tools, media, and which error stands for which status.

import Anthropic from "@anthropic-ai/sdk";

export const TEXT = "one two three four five six seven";
export const max_tokens = 4096;

export const weather = {
  name: "get_weather",
  description: "The weather in a city",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
export const clock = {
  name: "get_time",
  description: "The time in a zone",
  input_schema: { type: "object", properties: { zone: { type: "string" } }, required: ["zone"] },
};

export const schema = {
  type: "object",
  properties: { title: { type: "string" }, minutes: { type: "integer" } },
  required: ["title", "minutes"],
  additionalProperties: false,
};

/** A picture of one pixel. */
export const PIXEL =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
/** The beginning of a PDF, which is as much as a test needs. */
export const PDF = Buffer.from("%PDF-1.4\n%%EOF\n").toString("base64");

/** A provider's status, the class that the SDK raises for the gateway's answer to it, and the type that this names. */
export const ERROR_CLASSES = [
  [400, Anthropic.BadRequestError, "invalid_request_error"],
  [404, Anthropic.NotFoundError, "not_found_error"],
  [413, Anthropic.APIError, "request_too_large"],
  [422, Anthropic.UnprocessableEntityError, "invalid_request_error"],
  [429, Anthropic.RateLimitError, "rate_limit_error"],
  [500, Anthropic.InternalServerError, "api_error"],
  [503, Anthropic.InternalServerError, "overloaded_error"],
  [529, Anthropic.InternalServerError, "overloaded_error"],
  [401, Anthropic.InternalServerError, "api_error"],
  [403, Anthropic.InternalServerError, "api_error"],
];

/** Asks whole, or streamed by the SDK's helper that puts the message together. */
export const asker = (anthropic, streamed) => (body, options) =>
  streamed ? anthropic.messages.stream(body, options).finalMessage() : anthropic.messages.create(body, options);

/** A user's turn. */
export const user = (...content) => ({ role: "user", content });
