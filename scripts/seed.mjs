// The D1 rows that belong to an API key that gatewayctl makes for KV.
// Plain SQL text, because `wrangler d1 execute` takes no parameters.

const text = (value) => `'${String(value).replaceAll("'", "''")}'`;
const integer = (value) => (value == null ? "NULL" : String(Math.trunc(Number(value))));

/** The statements that store the key in `minted` (gatewayctl key mint) and its account. */
export function keyRows(minted) {
  const record = JSON.parse(minted.entry.value);
  const id = text(minted.entry.name.replace(/^key:/, ""));
  const values = [
    id,
    text(record.account),
    text(record.name ?? ""),
    text(JSON.stringify(record.models ?? [])),
    text(JSON.stringify(record.endpoints ?? [])),
    record.disabled ? 1 : 0,
    integer(record.expires_at),
    "unixepoch()",
    "unixepoch()",
  ].join(", ");
  return [
    `INSERT INTO accounts (id, name) VALUES (${text(record.account)}, ${text(record.account)}) ON CONFLICT DO NOTHING`,
    `INSERT INTO api_keys (id, account_id, name, models, endpoints, disabled, expires_at, created_at, updated_at) VALUES (${values})
     ON CONFLICT (id) DO UPDATE SET account_id = excluded.account_id, name = excluded.name, models = excluded.models, endpoints = excluded.endpoints,
       disabled = excluded.disabled, expires_at = excluded.expires_at, revision = revision + 1`,
    `INSERT INTO api_key_secrets (public_id, key_id, hash, created_at) VALUES (${id}, ${id}, ${text(record.hash)}, unixepoch())
     ON CONFLICT (public_id) DO UPDATE SET hash = excluded.hash`,
  ];
}
