//! Faults that tests provoke between the steps of a change. In a deployed build there are none.

#[cfg(feature = "test-faults")]
thread_local! {
    static ARMED: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

/// Makes the named point fail, once; a name that ends in `!` panics there.
#[cfg(feature = "test-faults")]
pub(crate) fn arm(name: Option<&str>) {
    ARMED.with_borrow_mut(|armed| *armed = name.map(str::to_owned));
}

/// A place between two steps.
///
/// # Errors
/// If a test has armed it.
#[cfg(feature = "test-faults")]
#[expect(
    clippy::panic,
    clippy::panic_in_result_fn,
    reason = "what a crash leaves behind is what the test build is for"
)]
pub(crate) fn point(name: &str) -> Result<(), String> {
    let hit = ARMED.with_borrow_mut(|armed| {
        let hit = armed.as_ref().filter(|armed| armed.trim_end_matches('!') == name).cloned();
        if hit.is_some() {
            *armed = None;
        }
        hit
    });
    match hit {
        None => Ok(()),
        Some(armed) if armed.ends_with('!') => panic!("provoked by a test at {name}"),
        Some(_) => Err(format!("provoked by a test at {name}")),
    }
}

/// A place between two steps.
///
/// # Errors
/// Never, but in test builds.
#[cfg(not(feature = "test-faults"))]
pub(crate) fn point(_: &str) -> Result<(), String> {
    Ok(())
}
