// Who may call what: every operation of the admin API, called by every role, by nobody, and with credentials of the data
// plane. What is expected comes from the API's own table (`x-permission`) and from the roles' permissions.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Caller, startAdmin, userWith } from "./admin.mjs";
import { send } from "./support.mjs";

let admin;
let operations;
let roles;
let withinAccount;
let dataPlaneKey;

before(async () => {
  admin = await startAdmin();
  const { owner } = admin;
  for (const id of ["team-a", "team-b"]) await owner.post("/admin/v1/accounts", { id, name: id });
  const { paths } = await owner.get("/admin/openapi.json");
  operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ method: method.toUpperCase(), path, ...operation })),
  );
  roles = await owner.all("/admin/v1/roles");
  const permissions = (await owner.get("/admin/v1/permissions")).data;
  withinAccount = new Set(permissions.filter((one) => one.within_account).map((one) => one.name));
  dataPlaneKey = (await owner.post("/admin/v1/accounts/team-a/keys", { name: "app" })).api_key;
});

after(() => admin?.stop());

/** The operation's path with the account put in and everything else something that does not exist. */
const pathOf = (operation, account) =>
  operation.path.replace("{account}", account).replaceAll(/\{\w+\}/g, "nothing-here");

/** Bodies that are refused before anything happens, so that the walk changes nothing. */
const callOf = (operation) => (operation.requestBody ? { body: { "no such field": 1 } } : {});

/** Operations that end what the walk needs, or do something without a body. */
const skipped = new Set(["sign_out", "test_provider"]);

const isDenial = (reply) => reply.status === 403 && reply.data.code === "permission_denied";

test("the table has every operation, with who may call it", () => {
  assert.ok(operations.length >= 60);
  for (const operation of operations) {
    const { permission, scope } = operation["x-permission"];
    assert.ok(permission || ["anybody", "whoever is signed in"].includes(scope), operation.operationId);
  }
  const open = operations.filter((operation) => operation["x-permission"].scope === "anybody");
  assert.deepEqual(
    open.map((operation) => operation.operationId).sort(),
    ["bootstrap", "get_jwks", "get_open_api", "refresh_tokens", "sign_in"],
    "what anybody may call is a short list",
  );
});

test("without a credential, and with one of the data plane, nothing but signing in works", async () => {
  const credentials = {
    nothing: {},
    "a data-plane key": { authorization: `Bearer ${dataPlaneKey}` },
    "a data-plane key as x-api-key": { "x-api-key": dataPlaneKey },
    "a made-up key": { authorization: "Bearer sk-lgw-aaaaaaaaaaaa-bbbb" },
    nonsense: { authorization: "Bearer a.b.c" },
    "another scheme": { authorization: `Basic ${Buffer.from("a:b").toString("base64")}` },
  };
  for (const [name, headers] of Object.entries(credentials)) {
    for (const operation of operations.filter((one) => one["x-permission"].scope !== "anybody")) {
      const caller = new Caller(admin.url, undefined, headers);
      const reply = await caller.call(operation.method, pathOf(operation, "team-a"), callOf(operation));
      assert.equal(reply.status, 401, `${name}: ${operation.operationId} answers ${reply.status}`);
    }
  }
});

test("each role may call what its permissions say, globally and within an account, and nothing else", async (t) => {
  const callers = [{ name: "no role", global: [], local: [] }];
  for (const role of roles.filter((one) => one.built_in)) {
    const local = role.permissions.filter((permission) => withinAccount.has(permission));
    callers.push({ name: `${role.id} everywhere`, role: role.id, global: role.permissions, local: [] });
    callers.push({ name: `${role.id} in team-a`, role: role.id, account: "team-a", global: [], local });
  }
  assert.equal(callers.length, 13);
  for (const who of callers) {
    await t.test(who.name, async () => {
      const caller = await userWith(admin.owner, who.role, who.account);
      for (const operation of operations.filter((one) => !skipped.has(one.operationId))) {
        const { permission, scope } = operation["x-permission"];
        const inAccount = scope === "in the account, or globally";
        for (const account of inAccount ? ["team-a", "team-b"] : ["team-a"]) {
          const held = account === "team-a" && inAccount ? [...who.global, ...who.local] : who.global;
          const reply = await caller.call(operation.method, pathOf(operation, account), callOf(operation));
          const what = `${operation.operationId} in ${account} answers ${reply.status} ${reply.text.slice(0, 200)}`;
          if (!permission || held.includes(permission)) {
            assert.ok(![401, 403].includes(reply.status) && reply.status < 500, `should be allowed: ${what}`);
          } else if (inAccount && held.length === 0) {
            // Whether an account exists in which one has nothing to do is nobody's business.
            assert.equal(reply.status, 404, `should look as if it did not exist: ${what}`);
          } else {
            assert.ok(isDenial(reply), `should be denied: ${what}`);
            assert.match(reply.data.detail, new RegExp(permission), "the answer names the permission");
          }
        }
      }
    });
  }
});

test("an admin token calls no models, and a model token calls no admin operation", async () => {
  const ask = (token) =>
    send({
      url: `${admin.url}/v1/models`,
      headers: { authorization: `Bearer ${token}` },
    });
  assert.equal((await ask(admin.owner.token)).status, 401);
  const developer = await userWith(admin.owner, "developer", "team-a");
  assert.equal((await ask(developer.token)).status, 401);
  const { token } = await developer.post("/admin/v1/accounts/team-a/model-tokens", {});
  assert.equal((await ask(token)).status, 200, "granted: models:invoke");
  const asAdmin = new Caller(admin.url, token);
  await asAdmin.call("GET", "/admin/v1/me", { expected: 401 });
  const auditor = await userWith(admin.owner, "auditor", "team-a");
  await auditor.call("POST", "/admin/v1/accounts/team-a/model-tokens", { body: {}, expected: 403 });
});

test("nobody grants what they do not hold, nor acts for somebody who may do more", async () => {
  const { owner } = admin;
  const boss = await userWith(owner, "admin");
  const target = await owner.post("/admin/v1/users", { kind: "service", name: "target" });
  const mine = (await owner.get("/admin/v1/me")).id;
  // An administrator may not make owners, nor act for one.
  await boss.call("PUT", `/admin/v1/users/${target.id}/roles/owner`, { expected: 403 });
  await boss.call("PUT", `/admin/v1/users/${mine}/password`, { body: { password: "another long password" }, expected: 403 });
  await boss.call("PATCH", `/admin/v1/users/${mine}`, { body: { status: "disabled" }, expected: 403 });
  await boss.call("DELETE", `/admin/v1/users/${mine}`, { expected: 403 });
  const robot = await owner.post("/admin/v1/users", { kind: "service", name: "owner's robot" });
  await owner.put(`/admin/v1/users/${robot.id}/roles/owner`);
  await boss.call("POST", `/admin/v1/users/${robot.id}/tokens`, { body: { name: "t" }, expected: 403 });
  // A custom role cannot hold more than its maker, neither new nor changed.
  const body = { name: "too much", permissions: ["owners:write"] };
  await boss.call("POST", "/admin/v1/roles", { body, expected: 403 });
  const role = await boss.post("/admin/v1/roles", { name: "keys", permissions: ["keys:read", "keys:write"] });
  await boss.call("PATCH", `/admin/v1/roles/${role.id}`, { body: { permissions: ["owners:write"] }, expected: 403 });
  // Within an account: only what is held there.
  const lead = await userWith(owner, "admin", "team-a");
  await lead.put(`/admin/v1/accounts/team-a/members/${target.id}`, { role_id: "developer" });
  await lead.call("PUT", `/admin/v1/accounts/team-b/members/${target.id}`, { body: { role_id: "viewer" }, expected: 404 });
  const developer = await userWith(owner, "developer", "team-a");
  await developer.call("PUT", `/admin/v1/accounts/team-a/members/${target.id}`, { body: { role_id: "admin" }, expected: 403 });
  await owner.call("PATCH", `/admin/v1/users/${mine}`, { body: { status: "disabled" }, expected: 409 });
  // A custom role does what it says.
  const clerk = await userWith(owner, role.id);
  await clerk.get("/admin/v1/keys");
  await clerk.call("GET", "/admin/v1/users", { expected: 403 });
});

test("the last owner stays one", async (t) => {
  const there = await startAdmin();
  t.after(() => there.stop());
  const mine = (await there.owner.get("/admin/v1/me")).id;
  const withdraw = () => there.owner.call("DELETE", `/admin/v1/users/${mine}/roles/owner`);
  const refused = await withdraw();
  assert.deepEqual([refused.status, refused.data.code], [409, "last_owner"]);
  const second = await userWith(there.owner, "owner");
  await there.owner.patch(`/admin/v1/users/${second.user.id}`, { status: "disabled" });
  assert.equal((await withdraw()).status, 409, "one who cannot sign in does not count");
  await there.owner.patch(`/admin/v1/users/${second.user.id}`, { status: "active" });
  assert.equal((await withdraw()).status, 204);
});
