//! D1: statements in, typed rows out.

use std::rc::Rc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use worker::wasm_bindgen::JsValue;
use worker::{D1Database, D1PreparedStatement, D1Result, Env};

use super::answer::internal;
use crate::admin::statement::{Argument, Statement};
use crate::error::{Kind, Problem};

/// The deployment's database.
#[derive(Clone)]
pub(in crate::admin) struct Database(Rc<D1Database>);

/// Why a batch was not carried out. Nothing of it was.
#[derive(Debug)]
pub(in crate::admin) enum BatchError {
    /// A guard did not hold.
    Guard,
    /// A value that must be unique exists already; names the columns.
    Exists(String),
    /// It refers to something that does not exist, or takes away what something else refers to.
    Reference,
    /// The database could not be reached, or found something else wrong.
    Failed(String),
}

impl BatchError {
    fn of(message: String) -> Self {
        if message.contains("CHECK constraint failed: guard") {
            Self::Guard
        } else if let Some((_, columns)) = message.split_once("UNIQUE constraint failed: ") {
            Self::Exists(columns.split(": SQLITE").next().unwrap_or_default().to_owned())
        } else if message.contains("FOREIGN KEY constraint failed") {
            Self::Reference
        } else {
            Self::Failed(message)
        }
    }
}

impl Database {
    /// The database that is bound as `DB`.
    ///
    /// # Errors
    /// 503 if there is none.
    pub(in crate::admin) fn of(env: &Env) -> Result<Self, Problem> {
        env.d1("DB").map(|database| Self(Rc::new(database))).map_err(|error| unavailable(&error.to_string()))
    }

    fn prepare(&self, statement: &Statement) -> Result<D1PreparedStatement, String> {
        let arguments: Vec<JsValue> = statement
            .arguments
            .iter()
            .map(|argument| match argument {
                Argument::Null => JsValue::NULL,
                // Exact: nothing above 2^53 is ever stored.
                Argument::Number(number) => JsValue::from_f64(*number as f64),
                Argument::Text(text) => JsValue::from_str(text),
            })
            .collect();
        self.0.prepare(statement.sql).bind(&arguments).map_err(|error| error.to_string())
    }

    /// Several statements in one round trip and one transaction.
    ///
    /// # Errors
    /// [`BatchError`]; nothing was changed then.
    pub(in crate::admin) async fn batch(&self, statements: &[Statement]) -> Result<Vec<D1Result>, BatchError> {
        let prepared: Result<Vec<_>, String> = statements.iter().map(|statement| self.prepare(statement)).collect();
        let prepared = prepared.map_err(BatchError::Failed)?;
        self.0.batch(prepared).await.map_err(|error| BatchError::of(error.to_string()))
    }

    /// Several questions in one round trip.
    ///
    /// # Errors
    /// 503 if the database does not answer.
    pub(in crate::admin) async fn ask(&self, statements: &[Statement]) -> Result<Vec<D1Result>, Problem> {
        self.batch(statements).await.map_err(|error| match error {
            BatchError::Failed(message) => unavailable(&message),
            other => internal(&format!("{other:?}")),
        })
    }

    /// All rows of a question.
    ///
    /// # Errors
    /// 503 if the database does not answer.
    pub(in crate::admin) async fn rows<T: DeserializeOwned>(&self, statement: Statement) -> Result<Vec<T>, Problem> {
        let results = self.ask(std::slice::from_ref(&statement)).await?;
        results.first().map_or_else(|| Ok(Vec::new()), rows)
    }

    /// The first row of a question.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub(in crate::admin) async fn first<T: DeserializeOwned>(
        &self,
        statement: Statement,
    ) -> Result<Option<T>, Problem> {
        Ok(self.rows(statement).await?.into_iter().next())
    }

    /// Everything that a question gives in its column `row`, which holds JSON.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub(in crate::admin) async fn objects<T: DeserializeOwned>(&self, statement: Statement) -> Result<Vec<T>, Problem> {
        Ok(self.rows::<Object<T>>(statement).await?.into_iter().map(|object| object.row.0).collect())
    }

    /// The first of [`Self::objects`].
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub(in crate::admin) async fn object<T: DeserializeOwned>(
        &self,
        statement: Statement,
    ) -> Result<Option<T>, Problem> {
        Ok(self.objects(statement).await?.into_iter().next())
    }
}

/// A row with one column that holds JSON.
#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
pub(super) struct Object<T> {
    pub(super) row: Json<T>,
}

/// A column that holds JSON as text.
#[derive(Debug, Clone, Default)]
pub(super) struct Json<T>(pub(super) T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Json<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        serde_json::from_str(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// The rows of a result.
///
/// # Errors
/// 500 if they are not what the program expects.
pub(super) fn rows<T: DeserializeOwned>(result: &D1Result) -> Result<Vec<T>, Problem> {
    result.results().map_err(|error| internal(&error.to_string()))
}

/// 503: the database cannot be reached.
pub(super) fn unavailable(detail: &str) -> Problem {
    tracing::error!(target: "admin", message = "the database failed", detail);
    let message = "The control plane's database does not answer. Nothing was changed; try again shortly.";
    Problem::new(Kind::Unavailable, "database_unavailable", message)
}
