//! What an object keeps in memory of its storage, and its alarm.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use worker::{Result, State};

use crate::http::shell::now_ms;

/// What an object has read from its storage, and keeps the same as that.
pub(super) struct Kept<M> {
    memory: RefCell<Option<M>>,
    /// When the alarm will ring, as far as is known.
    alarm_at: Cell<Option<u64>>,
}

impl<M> Kept<M> {
    /// Nothing yet: it is read with the first event.
    pub(super) fn unread() -> Self {
        Self { memory: RefCell::new(None), alarm_at: Cell::new(None) }
    }

    /// Reads storage, if that has not been done; whether it was done now.
    ///
    /// # Errors
    /// What `read` says.
    pub(super) fn load(&self, read: impl FnOnce() -> Result<M>) -> Result<bool> {
        let missing = self.memory.borrow().is_none();
        if missing {
            let read = read()?;
            self.memory.replace(Some(read));
        }
        Ok(missing)
    }

    /// Works with it.
    ///
    /// # Errors
    /// That it was not read.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut M) -> T) -> Result<T> {
        let mut memory = self.memory.borrow_mut();
        memory.as_mut().map(work).ok_or_else(|| "the object's storage is not read".into())
    }

    /// After a failure what is in memory may not be what was stored: it is read anew.
    ///
    /// # Errors
    /// The failure.
    pub(super) fn or_forget<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.memory.replace(None);
            self.alarm_at.set(None);
        }
        result
    }

    /// The alarm has rung.
    pub(super) fn rang(&self) {
        self.alarm_at.set(None);
    }

    /// Sees to it that the alarm rings at this time (Unix milliseconds) at the latest.
    ///
    /// # Errors
    /// That it cannot be set.
    pub(super) async fn wake_by(&self, state: &State, at: Option<u64>) -> Result<()> {
        let Some(at) = at.filter(|at| self.alarm_at.get().is_none_or(|set| *at < set)) else { return Ok(()) };
        self.alarm_at.set(Some(at));
        let set = state.storage().set_alarm(Duration::from_millis(at.saturating_sub(now_ms()))).await;
        if set.is_err() {
            self.alarm_at.set(None);
        }
        set
    }
}
