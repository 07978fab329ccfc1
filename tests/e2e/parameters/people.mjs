// Checks of what concerns people who run the gateway: `sessions` and `admin`.

import { Caller, PASSWORD } from "../admin.mjs";
import { freshId } from "../support.mjs";
import { check } from "./table.mjs";
import { now } from "./tools.mjs";

/** Somebody at an address of his own who has not signed in. */
const nobody = (at) => new Caller(at.url, undefined, { "cf-connecting-ip": at.address() });

/** A new user. */
async function person(at) {
  const email = `${freshId()}@example.com`;
  const user = await at.owner.post("/admin/v1/users", { email, name: "Somebody", password: PASSWORD });
  return { email, user };
}

async function signedIn(at) {
  const { email, user } = await person(at);
  return Object.assign(await nobody(at).signIn(email), { email, user });
}

/** The status and headers of a sign-in. */
const attempt = (caller, email, password = "not this one, sorry") =>
  caller.call("POST", "/admin/v1/auth/sign-in", { body: { email, password } });

// === sessions ===

check("sessions.access_token_seconds", { plain: [undefined, [900, 900]], tight: [60, [60, 60]] }, async (at) => {
  const { tokens } = await signedIn(at);
  const claims = JSON.parse(Buffer.from(tokens.access_token.split(".")[1], "base64url"));
  return [tokens.expires_in, claims.exp - claims.iat];
});

check("sessions.refresh_token_seconds", { plain: [undefined, 30 * 86_400], strict: [3_600, 3_600] }, async (at) => {
  const { tokens } = await signedIn(at);
  return Math.round((tokens.session_expires_at - now()) / 60) * 60;
});

check("sessions.idle_seconds", { plain: [undefined, 200], tight: [300, 401] }, async (at) => {
  const { tokens } = await signedIn(at);
  const earlier = at.gateway.db.prepare("UPDATE sessions SET last_used_at = last_used_at - 400 WHERE id = ?1");
  await earlier.bind(tokens.session_id).run();
  const body = { refresh_token: tokens.refresh_token };
  return (await nobody(at).call("POST", "/admin/v1/auth/refresh", { body })).status;
});

check("sessions.max_per_user", { plain: [undefined, 200], tight: [1, 401] }, async (at) => {
  const first = await signedIn(at);
  await nobody(at).signIn(first.email);
  return (await first.call("GET", "/admin/v1/me")).status;
});

check("sessions.model_token_seconds", { plain: [undefined, 900], tight: [120, 120] }, async (at) =>
  (await at.owner.post("/admin/v1/accounts/people/model-tokens", {})).expires_in);

check("sessions.signing_key_rotation_seconds", { plain: [undefined, false], strict: [3_600, true] }, async (at) => {
  await signedIn(at);
  const newest = at.gateway.db.prepare("SELECT kid FROM signing_keys ORDER BY created_at DESC LIMIT 1");
  const { kid } = await newest.first();
  // Two hours later.
  await at.gateway.db.prepare("UPDATE signing_keys SET created_at = created_at - 7200").run();
  await signedIn(at);
  return (await newest.first()).kid !== kid;
});

check("sessions.password_min_length", { plain: [undefined, 201], tight: [28, 400] }, async (at) => {
  const body = { email: `${freshId()}@example.com`, name: "Somebody", password: "twenty-five letters long." };
  return (await at.owner.call("POST", "/admin/v1/users", { body })).status;
});

check("sessions.lockout_after", { plain: [undefined, 401], tight: [1, 429] }, async (at) => {
  const { email } = await person(at);
  await attempt(nobody(at), email);
  return (await attempt(nobody(at), email)).status;
});

/** For how long an identity is locked after five wrong passwords, or one more, in seconds. */
async function lockOf(at, { more = false } = {}) {
  const { email } = await person(at);
  for (let n = 0; n < 5; n += 1) await attempt(nobody(at), email);
  if (more) {
    await at.gateway.db.prepare("UPDATE sign_in_attempts SET locked_until = 0").run();
    await attempt(nobody(at), email);
  }
  const refused = await attempt(nobody(at), email);
  return refused.status === 429 ? Number(refused.headers["retry-after"]) : refused.status;
}
/** A time that was measured some seconds late. */
const about = (seconds, measured) => (measured <= seconds && measured > seconds - 8 ? seconds : measured);

check("sessions.lockout_base_seconds", { sparse: [undefined, 30], strict: [60, 60] }, async (at, phase) =>
  about({ sparse: 30, strict: 60 }[phase], await lockOf(at)));
check("sessions.lockout_max_seconds", { quiet: [undefined, 60], frugal: [40, 40] }, async (at, phase) =>
  about({ quiet: 60, frugal: 40 }[phase], await lockOf(at, { more: true })));

check("sessions.attempts_per_ip_per_minute", { plain: [undefined, 401], tight: [2, 429] }, async (at) => {
  const caller = nobody(at);
  for (let n = 0; n < 2; n += 1) await attempt(caller, `${freshId()}@example.com`);
  return (await attempt(caller, `${freshId()}@example.com`)).status;
});

// === admin ===

check("admin.allowed_ip_ranges", {
  plain: [undefined, [200, 200]],
  tight: [["10.0.0.0/8"], [200, 403]],
}, async (at) => {
  const from = async (address) =>
    (await new Caller(at.url, at.owner.token, { "cf-connecting-ip": address }).call("GET", "/admin/v1/me")).status;
  return [await from("10.1.2.3"), await from("192.0.2.3")];
});

check("admin.page_size_default", { plain: [undefined, 6], tight: [2, 2] }, async (at) =>
  (await at.owner.get("/admin/v1/roles")).data.length);

check("admin.page_size_max", { plain: [undefined, 200], tight: [3, 400] }, async (at) =>
  (await at.owner.call("GET", "/admin/v1/roles?limit=5")).status);

check("admin.max_body_bytes", { plain: [undefined, 201], strict: [1_024, 413] }, async (at) => {
  const metadata = { one: "x".repeat(500), two: "x".repeat(500), three: "x".repeat(200) };
  const body = { id: freshId(), name: "A", metadata };
  return (await at.owner.call("POST", "/admin/v1/accounts", { body })).status;
});

check("admin.idempotency_seconds", { plain: [undefined, "the same"], tight: [60, "another"] }, async (at, phase) => {
  const make = () =>
    at.owner.post("/admin/v1/users", { kind: "service", name: "twice" }, { headers: { "idempotency-key": `k-${phase}` } });
  const first = await make();
  // Two minutes later.
  await at.gateway.db.prepare("UPDATE idempotency_keys SET expires_at = expires_at - 120").run();
  return (await make()).id === first.id ? "the same" : "another";
});

check("admin.require_if_match", { plain: [undefined, 200], strict: [true, 428] }, async (at) => {
  const robot = await at.owner.post("/admin/v1/users", { kind: "service", name: "robot" });
  return (await at.owner.call("PATCH", `/admin/v1/users/${robot.id}`, { body: { name: "other" } })).status;
});

check("admin.csv_max_rows", { plain: [undefined, 200], tight: [2, 400] }, async (at, phase) => {
  const insert = at.gateway.db.prepare(
    "INSERT INTO usage SELECT CAST(?1 AS INTEGER), ?2, 'k', '', value, 'p', 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0 " +
      "FROM json_each('[\"m1\", \"m2\", \"m3\"]')",
  );
  await insert.bind(Math.floor(now() / 60) - 1, `csv-${phase}`).run();
  return (await at.owner.call("GET", `/admin/v1/usage.csv?group_by=model&account_id=csv-${phase}`)).status;
});

check("admin.usage_max_days", { plain: [undefined, 200], tight: [1, 400] }, async (at) =>
  (await at.owner.call("GET", `/admin/v1/usage?from=${now() - 3 * 86_400}&to=${now()}`)).status);
