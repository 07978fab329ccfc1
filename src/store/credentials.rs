//! Provider credentials: Worker secrets by name, or sealed ones that the control plane manages.

use std::cell::RefCell;
use std::collections::HashMap;

use worker::Env;

use super::config::{StoredCredential, credentials};
use crate::seal::{Purpose, Sealer};
use crate::secret::Secret;

/// What a provider's `credential` begins with when the control plane manages it; its id follows.
pub const STORED: &str = "stored:";

/// Opened credentials that an isolate remembers.
const OPENED: usize = 1_000;

thread_local! {
    /// By what was sealed, so that a credential which was replaced is opened anew.
    static OPEN: RefCell<HashMap<String, Secret<String>>> = RefCell::new(HashMap::new());
}

/// The credential that a provider's configuration names: a Worker secret, or `stored:<id>`.
///
/// # Errors
/// Why there is none, for the log. It says nothing of the credential itself.
pub fn resolve(env: &Env, name: &str) -> Result<Secret<String>, String> {
    let Some(id) = name.strip_prefix(STORED) else { return worker_secret(env, name) };
    let stored = credentials();
    match stored.get(id) {
        Some(StoredCredential { sealed: Some(sealed), .. }) => open(env, id, sealed),
        Some(StoredCredential { worker_secret: Some(name), .. }) => worker_secret(env, name),
        Some(_) => Err(format!("the stored credential {id} is empty")),
        None => Err(format!("there is no stored credential {id}")),
    }
}

/// Forgets what was opened.
pub fn forget() {
    OPEN.with_borrow_mut(HashMap::clear);
}

fn worker_secret(env: &Env, name: &str) -> Result<Secret<String>, String> {
    env.secret(name)
        .map(|secret| Secret::new(secret.to_string()))
        .map_err(|_| format!("the Worker secret {name} is not set"))
}

fn open(env: &Env, id: &str, sealed: &str) -> Result<Secret<String>, String> {
    if let Some(opened) = OPEN.with_borrow(|open| open.get(sealed).cloned()) {
        return Ok(opened);
    }
    let master = worker_secret(env, "MASTER_SECRET")?;
    let previous = worker_secret(env, "MASTER_SECRET_PREVIOUS").ok();
    let sealer = Sealer::new(&master, previous.as_ref()).map_err(|error| error.to_string())?;
    let bytes = sealer
        .open(Purpose::ProviderCredential, id, sealed)
        .map_err(|error| format!("the stored credential {id} cannot be opened: {error}"))?;
    let text =
        String::from_utf8(bytes.expose().clone()).map_err(|_| format!("the stored credential {id} is no text"))?;
    let opened = Secret::new(text);
    OPEN.with_borrow_mut(|open| {
        if open.len() >= OPENED {
            open.clear();
        }
        open.insert(sealed.to_owned(), opened.clone());
    });
    Ok(opened)
}
