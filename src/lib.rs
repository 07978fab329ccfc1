//! The Worker's entry points, and the modules behind them.
//!
//! The core decides and is ordinary Rust: it builds and is tested on any machine. The shell around it (everything that
//! is compiled for `wasm32` alone) moves bytes between the platform and the core.

pub mod admin;
pub mod alerts;
pub mod auth;
pub mod billing;
pub mod config;
pub mod cron;
pub mod error;
#[cfg(target_arch = "wasm32")]
mod fault;
pub mod gateway;
pub mod http;
pub mod limits;
pub mod objects;
pub mod probes;
pub mod protocol;
pub mod providers;
pub mod routing;
pub mod seal;
pub mod secret;
#[cfg(test)]
mod seeded;
pub mod store;
pub mod telemetry;

#[cfg(target_arch = "wasm32")]
mod entry {
    use worker::{Context, Env, Request, Response, Result, ScheduleContext, ScheduledEvent, event};

    #[event(start)]
    fn start() {
        console_error_panic_hook::set_once();
    }

    #[event(fetch)]
    async fn fetch(request: Request, env: Env, context: Context) -> Result<Response> {
        crate::http::shell::serve(request, env, context).await
    }

    #[event(scheduled)]
    async fn scheduled(_event: ScheduledEvent, env: Env, _context: ScheduleContext) {
        crate::cron::jobs::run(&env).await;
    }
}
