//! A stand-in for model providers.
//!
//! It answers in the dialects of the big providers and in a deliberately odd one, breaks on request, and keeps a journal of
//! what arrived. Tests and benchmarks of the gateway run against it, and it is the provider that a newcomer's
//! first request reaches. The README has the list of directives.

mod amazon;
mod answer;
mod anthropic;
mod audio;
mod azure;
mod baidu;
mod bedrock;
mod claude;
mod cohere;
mod completions;
mod control;
mod directives;
mod endpoint;
mod gemini;
mod generic;
mod http;
mod images;
mod journal;
mod multipart;
mod openai;
mod presets;
#[cfg(test)]
mod recorded;
mod reply;
mod responses;
mod schema;
mod server;
mod side;
mod tokens;
mod vertex;
mod wire;

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::directives::Directives;
use crate::journal::Journal;
use crate::server::App;

/// Entries the journal holds unless told otherwise.
const JOURNAL_ENTRIES: usize = 8192;

const HELP: &str = "\
A stand-in for model providers: scripted answers, faults on request, a journal of what arrived.

Usage: mock-provider [OPTIONS]

Options:
  --listen ADDR          Address to listen on; port 0 picks a free one [default: 127.0.0.1:8788]
  --allow-external       Allow an address that other machines can reach
  --threads N            Worker threads [default: 2]
  --api-key KEY          Refuse requests that do not bring this key
  --defaults DIRECTIVES  Directives for every request: \"key=value;key=value\"
  --journal-size N       Requests the journal keeps [default: 8192]
  --no-journal           Keep no journal, only counts
  --help                 Print this text
";

/// What the command line says.
#[derive(Debug, PartialEq)]
struct Options {
    listen: SocketAddr,
    allow_external: bool,
    threads: usize,
    api_key: Option<String>,
    defaults: Directives,
    journal: usize,
    help: bool,
}

impl Options {
    /// Reads the arguments after the program's name, in the forms `--name value` and `--name=value`.
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8788)),
            allow_external: false,
            threads: 2,
            api_key: None,
            defaults: Directives::default(),
            journal: JOURNAL_ENTRIES,
            help: false,
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let (name, inline) = match argument.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (argument, None),
            };
            let mut value =
                || inline.clone().or_else(|| arguments.next()).ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                "--listen" => {
                    let value = value()?;
                    options.listen = value.parse().map_err(|_| format!("'{value}' is not an address with a port"))?;
                }
                "--threads" => options.threads = count(&name, &value()?, 1, 256)?,
                "--journal-size" => options.journal = count(&name, &value()?, 1, 1_000_000)?,
                "--api-key" => options.api_key = Some(value()?),
                "--defaults" => options.defaults.apply_list(&value()?, "")?,
                "--allow-external" => options.allow_external = true,
                "--no-journal" => options.journal = 0,
                "--help" | "-h" => options.help = true,
                _ => return Err(format!("unknown option '{name}', see --help")),
            }
        }
        if !options.listen.ip().is_loopback() && !options.allow_external {
            return Err(format!(
                "{} can be reached by other machines; say --allow-external if that is meant",
                options.listen
            ));
        }
        Ok(options)
    }
}

fn count(name: &str, value: &str, least: usize, most: usize) -> Result<usize, String> {
    value
        .parse()
        .ok()
        .filter(|count| (least..=most).contains(count))
        .ok_or_else(|| format!("{name} takes a number from {least} to {most}"))
}

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            // Nobody is left to tell when the error stream is closed.
            let _ = writeln!(std::io::stderr(), "mock-provider: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), String> {
    if options.help {
        return say(HELP);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads)
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let result = runtime.block_on(serve(options));
    // Open streams are cut off: whoever asked for the end does not want to wait for them.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

async fn serve(options: Options) -> Result<(), String> {
    let cannot_listen = |error: std::io::Error| format!("cannot listen on {}: {error}", options.listen);
    let listener = TcpListener::bind(options.listen).await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let cannot_wait = |error: std::io::Error| format!("cannot wait for signals: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot_wait)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot_wait)?;
    let app = App::new(Journal::new(options.journal), options.defaults, options.api_key);
    say(&format!("mock-provider listening on http://{address}\n"))?;
    tokio::select! {
        () = http::serve(listener, Arc::new(app)) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Prints to standard output.
fn say(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| format!("cannot print: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::parse(arguments.iter().map(|argument| (*argument).to_owned()))
    }

    #[test]
    fn options_come_in_both_forms() {
        let options = parse(&["--listen", "127.0.0.1:0", "--threads=4", "--defaults=gap_ms=5;crlf=1", "--no-journal"]);
        let options = options.unwrap();
        assert_eq!((options.listen.port(), options.threads, options.journal), (0, 4, 0));
        assert_eq!(options.defaults.gap_ms, 5);
    }

    #[test]
    fn other_machines_are_let_in_only_on_request() {
        assert!(parse(&["--listen", "0.0.0.0:80"]).is_err());
        assert!(parse(&["--listen", "0.0.0.0:80", "--allow-external"]).is_ok());
        assert!(parse(&["--listen", "[::1]:80"]).is_ok());
    }

    #[test]
    fn mistakes_are_named() {
        for (arguments, part) in [
            (&["--threads", "0"][..], "--threads"),
            (&["--listen"], "needs a value"),
            (&["--lisen", "x"], "unknown option"),
            (&["--defaults", "nope=1"], "unknown mock directive"),
        ] {
            assert!(parse(arguments).err().unwrap().contains(part), "{arguments:?}");
        }
    }
}
