//! The Hub's object: a shell around [`HubState`].

#![expect(missing_docs, reason = "the object's attribute makes methods that cannot be documented")]

use std::cell::RefCell;
use std::panic::{RefUnwindSafe, UnwindSafe};

use serde::Deserialize;
use serde_json::value::RawValue;
use worker::{DurableObject, Env, Request, Response, Result, SqlStorage, State, durable_object};

use super::hub_state::{Document, HubState, Kind, parts};
use super::sql::{answer, number, rows, run};
use super::wire::{Have, Pushed};

/// Bytes of a document in one cell. A cell may have two million.
const PART_BYTES: usize = 1_000_000;

/// What the purge epoch is stored under.
const PURGE: &str = "purge";

/// The query of a push.
#[derive(Debug, Deserialize)]
struct Push {
    number: u64,
    #[serde(default)]
    version: String,
}

/// The authority on the configuration, the sealed credentials, the public keys, what is set of providers, and the purge
/// epoch.
///
/// | request | answer |
/// |---|---|
/// | `GET /state?` [`Have`] | [`super::wire::State`]: what the asker does not have |
/// | `PUT /config`, `/credentials`, `/keys`, `/provider_states` `?number=…&version=…` | [`Pushed`]; the body is the document |
/// | `PUT /purge?number=…` | [`Pushed`] |
/// | `GET /status` | [`super::wire::HubStatus`] |
#[durable_object(fetch)]
pub struct Hub {
    sql: SqlStorage,
    /// Read from storage with the first request.
    state: RefCell<Option<HubState>>,
}

// A panic leaves no half-made change behind: a document counts once its row is written, which comes last.
impl UnwindSafe for Hub {}
impl RefUnwindSafe for Hub {}

impl DurableObject for Hub {
    fn new(state: State, _env: Env) -> Self {
        Self { sql: state.storage().sql(), state: RefCell::new(None) }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let body = request.text().await?;
        let served = self.serve(&request, body);
        if served.is_err() {
            // What is in memory may not be what was stored: it is read anew.
            self.state.replace(None);
        }
        served
    }
}

impl Hub {
    fn serve(&self, request: &Request, body: String) -> Result<Response> {
        if self.state.borrow().is_none() {
            let loaded = load(&self.sql)?;
            self.state.replace(Some(loaded));
        }
        let mut slot = self.state.borrow_mut();
        let Some(state) = slot.as_mut() else { return Response::error("not loaded", 500) };
        let path = request.path();
        match (request.inner().method().as_str(), path.as_str()) {
            ("GET", "/state") => answer(&state.state(&request.query::<Have>()?)),
            ("GET", "/status") => answer(&state.status(self.sql.database_size() as u64)),
            ("PUT", "/purge") => {
                let (news, now) = state.purge(request.query::<Push>()?.number);
                if news {
                    self.number(PURGE, now, "")?;
                }
                answer(&Pushed { number: now })
            }
            ("PUT", path) => match path.strip_prefix('/').and_then(Kind::named) {
                Some(kind) => self.put(state, kind, request.query()?, body),
                None => Response::error("no such document", 404),
            },
            _ => Response::error("no such request", 404),
        }
    }

    fn put(&self, state: &mut HubState, kind: Kind, push: Push, body: String) -> Result<Response> {
        let json = RawValue::from_string(body)?;
        let text = json.get().to_owned();
        let (news, now) = state.put(kind, Document { number: push.number, version: push.version.clone(), json });
        if news {
            self.store(kind, &push, &text)?;
        }
        answer(&Pushed { number: now })
    }

    fn store(&self, kind: Kind, push: &Push, text: &str) -> Result<()> {
        // Should a statement fail, the rows before it stay: until its number is written, a document is not there.
        for (nth, part) in parts(text, PART_BYTES).into_iter().enumerate() {
            run(
                &self.sql,
                "INSERT INTO parts (kind, number, nth, text) VALUES (?, ?, ?, ?) \
                 ON CONFLICT (kind, number, nth) DO UPDATE SET text = excluded.text",
                vec![kind.name().into(), number(push.number), number(nth as u64), part.into()],
            )?;
        }
        self.number(kind.name(), push.number, &push.version)?;
        run(
            &self.sql,
            "DELETE FROM parts WHERE kind = ? AND number <> ?",
            vec![kind.name().into(), number(push.number)],
        )
    }

    fn number(&self, kind: &str, now: u64, version: &str) -> Result<()> {
        run(
            &self.sql,
            "INSERT INTO documents (kind, number, version) VALUES (?, ?, ?) \
             ON CONFLICT (kind) DO UPDATE SET number = excluded.number, version = excluded.version",
            vec![kind.into(), number(now), version.into()],
        )
    }
}

fn load(sql: &SqlStorage) -> Result<HubState> {
    #[derive(Deserialize)]
    struct Row {
        kind: String,
        number: u64,
        version: String,
    }
    #[derive(Deserialize)]
    struct Part {
        text: String,
    }
    run(
        sql,
        "CREATE TABLE IF NOT EXISTS documents (kind TEXT PRIMARY KEY, number INTEGER NOT NULL, version TEXT NOT NULL) STRICT",
        Vec::new(),
    )?;
    run(
        sql,
        "CREATE TABLE IF NOT EXISTS parts (kind TEXT NOT NULL, number INTEGER NOT NULL, nth INTEGER NOT NULL, \
         text TEXT NOT NULL, PRIMARY KEY (kind, number, nth)) STRICT",
        Vec::new(),
    )?;
    let mut state = HubState::default();
    for row in rows::<Row>(sql, "SELECT kind, number, version FROM documents", Vec::new())? {
        let Some(kind) = Kind::named(&row.kind) else {
            // What another version has stored is left alone.
            if row.kind == PURGE {
                let (_, _) = state.purge(row.number);
            }
            continue;
        };
        let parts: Vec<Part> = rows(
            sql,
            "SELECT text FROM parts WHERE kind = ? AND number = ? ORDER BY nth",
            vec![kind.name().into(), number(row.number)],
        )?;
        let text: String = parts.into_iter().map(|part| part.text).collect();
        let json = RawValue::from_string(text)?;
        let (_, _) = state.put(kind, Document { number: row.number, version: row.version, json });
    }
    Ok(state)
}
