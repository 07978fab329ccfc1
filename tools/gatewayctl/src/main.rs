//! Makes API keys and configuration snapshots, as entries for the gateway's KV namespace. It writes nothing itself:
//! `scripts/provision` and `scripts/dev` put the entries where they belong.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program speaks on its standard streams")]

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use llm_gateway::auth::api_key::{self, ApiKey, KeyRecord};
use llm_gateway::config::{CURRENT_SNAPSHOT, Snapshot};
use llm_gateway::secret::Secret;
use serde_json::{Value, json};

/// Makes API keys and configuration snapshots for the gateway.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Makes a key and prints it with its KV entry. The key itself is shown only here.
    Mint {
        /// What its owner calls it.
        #[arg(long)]
        name: String,
        /// The account that is charged.
        #[arg(long)]
        account: String,
        /// Models it may use, separated by commas: names, or prefixes ending in `*`. Default: all.
        #[arg(long, value_delimiter = ',')]
        models: Vec<String>,
        /// When it ends, in Unix seconds. Default: never.
        #[arg(long)]
        expires_at: Option<u64>,
        /// Makes it switched off.
        #[arg(long)]
        disabled: bool,
        /// Makes a new record for this key instead of a new key.
        #[arg(long)]
        key: Option<String>,
        /// The deployment's secret for hashing keys.
        #[arg(long, env = "KEY_HASH_SECRET", hide_env_values = true)]
        hash_secret: String,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Checks a TOML file and prints its snapshot as a KV entry.
    Compile {
        /// The file; `-` for standard input.
        file: String,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Key(KeyCommand::Mint { name, account, models, expires_at, disabled, key, hash_secret }) => {
<<<<<<< HEAD
            let record = KeyRecord { account, name, models, expires_at, disabled, ..KeyRecord::default() };
=======
            let record = KeyRecord { hash: String::new(), account, name, models, expires_at, disabled, revision: 0 };
>>>>>>> Give accounts a ledger and the deployment a hub, as objects
            mint(record, key, Secret::new(hash_secret))
        }
        Command::Config(ConfigCommand::Compile { file }) => compile(&file),
    };
    match result {
        Ok(value) => {
            println!("{value}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn mint(mut record: KeyRecord, key: Option<String>, hash_secret: Secret<String>) -> Result<Value, String> {
    let text = match key {
        Some(key) => Secret::new(key),
        None => {
            let mut random = [0; api_key::RANDOM_BYTES];
            getrandom::fill(&mut random).map_err(|error| format!("no randomness to be had: {error}"))?;
            api_key::compose(&random)
        }
    };
    let key = ApiKey::parse(text.expose()).ok_or("the key given with --key is not a key of this gateway")?;
    record.hash = key.hash(&hash_secret);
    let value = serde_json::to_string(&record).map_err(|error| error.to_string())?;
    Ok(json!({"key": text.expose(), "entry": {"name": key.record_name(), "value": value}}))
}

fn compile(file: &str) -> Result<Value, String> {
    let text = if file == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|error| format!("{file}: {error}"))?;
    let written: Value = toml::from_str(&text).map_err(|error| format!("{file}: {error}"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|time| time.as_secs()).unwrap_or(0);
    let snapshot = Snapshot::seal(written, 0, None, now).map_err(|problems| {
        let lines: Vec<String> =
            problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
        lines.join("\n")
    })?;
    let value = serde_json::to_string(&snapshot).map_err(|error| error.to_string())?;
    Ok(json!({"entry": {"name": CURRENT_SNAPSHOT, "value": value}, "version": snapshot.version}))
}
