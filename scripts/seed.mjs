// The D1 rows that belong to what gatewayctl makes for KV: an API key's record, a configuration's version.
// Plain SQL text, because `wrangler d1 execute` takes no parameters.

const text = (value) => `'${String(value).replaceAll("'", "''")}'`;
const integer = (value) => (value == null ? "NULL" : String(Math.trunc(Number(value))));

/** The statements that store the key in `minted` (gatewayctl key mint) and its account. */
export function keyRows(minted) {
  const record = JSON.parse(minted.entry.value);
  const values = [
    text(minted.entry.name.replace(/^key:/, "")),
    text(record.account),
    text(record.name ?? ""),
    text(record.hash),
    text(JSON.stringify(record.models ?? [])),
    record.disabled ? 1 : 0,
    integer(record.expires_at),
  ].join(", ");
  return [
    `INSERT INTO accounts (id, name) VALUES (${text(record.account)}, ${text(record.account)}) ON CONFLICT DO NOTHING`,
    `INSERT INTO api_keys (public_id, account_id, name, hash, models, disabled, expires_at) VALUES (${values})
     ON CONFLICT (public_id) DO UPDATE SET account_id = excluded.account_id, name = excluded.name, hash = excluded.hash,
       models = excluded.models, disabled = excluded.disabled, expires_at = excluded.expires_at`,
  ];
}

/** The statements that store the configuration in `compiled` (gatewayctl config compile). */
export function configRows(compiled, { author = "", comment = "" } = {}) {
  const values = [compiled.version, compiled.entry.value, author, comment].map(text).join(", ");
  return [
    `INSERT INTO config_versions (version, snapshot, author, comment) VALUES (${values}) ON CONFLICT DO NOTHING`,
  ];
}
