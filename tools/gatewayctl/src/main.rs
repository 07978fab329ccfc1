//! Checks configurations and translates between their forms, for people and for `scripts/config`, and imports prices. It
//! also makes API keys and configuration snapshots as entries of the gateway's KV namespace, which is how tests fill a
//! gateway before it starts; it writes nothing itself.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program speaks on its standard streams")]

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use llm_gateway::auth::api_key::{self, ApiKey, KeyRecord};
use llm_gateway::config::{CURRENT_SNAPSHOT, Config, ConfigProblem, Snapshot, reference};
use llm_gateway::providers::reference as providers;
use llm_gateway::secret::Secret;
use serde_json::{Value, json};

mod prices;

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
    /// Prices.
    #[command(subcommand)]
    Prices(prices::PricesCommand),
    /// Providers.
    #[command(subcommand)]
    Providers(ProvidersCommand),
}

#[derive(Subcommand)]
enum ProvidersCommand {
    /// Prints what each provider takes: `docs/providers.md`.
    Docs,
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
    /// Checks a file and prints its snapshot as a KV entry.
    Compile {
        /// The file, TOML or (by its name) JSON; `-` for TOML from standard input.
        file: String,
    },
    /// Tells everything that is wrong with a file.
    Check {
        /// The file, TOML or (by its name) JSON; `-` for TOML from standard input.
        file: String,
    },
    /// Prints a file as JSON, unchecked.
    ToJson {
        /// The file, TOML or (by its name) JSON; `-` for TOML from standard input.
        file: String,
    },
    /// Prints JSON from a file as TOML, unchecked.
    FromJson {
        /// The file; `-` for standard input.
        file: String,
    },
    /// Prints the JSON Schema of a configuration: `config/schema.json`.
    Schema,
    /// Prints the reference of all parameters: `docs/configuration.md`.
    Docs,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Key(KeyCommand::Mint { name, account, models, expires_at, disabled, key, hash_secret }) => {
            let record = KeyRecord { account, name, models, expires_at, disabled, ..KeyRecord::default() };
            mint(record, key, Secret::new(hash_secret)).map(|value| format!("{value}\n"))
        }
        Command::Config(command) => config(&command),
        Command::Prices(command) => prices::run(&command),
        Command::Providers(ProvidersCommand::Docs) => Ok(providers::page()),
    };
    match result {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn config(command: &ConfigCommand) -> Result<String, String> {
    match command {
        ConfigCommand::Compile { file } => compile(file).map(|value| format!("{value}\n")),
        ConfigCommand::Check { file } => {
            Config::parse(&written(file)?).map_err(|problems| told(&problems))?;
            Ok(format!("{file}: nothing is wrong\n"))
        }
        ConfigCommand::ToJson { file } => Ok(format!("{:#}\n", written(file)?)),
        ConfigCommand::FromJson { file } => {
            let value: Value = serde_json::from_str(&read(file)?).map_err(|error| format!("{file}: {error}"))?;
            toml::to_string_pretty(&without_nulls(value)).map_err(|error| format!("{file}: {error}"))
        }
        ConfigCommand::Schema => Ok(format!("{:#}\n", reference::schema())),
        ConfigCommand::Docs => Ok(reference::page()),
    }
}

/// TOML has no null; a member that is null says nothing.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name, without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        scalar => scalar,
    }
}

fn read(file: &str) -> Result<String, String> {
    let text = if file == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    text.map_err(|error| format!("{file}: {error}"))
}

/// What a file says, whatever that is.
fn written(file: &str) -> Result<Value, String> {
    let text = read(file)?;
    let value = match file.ends_with(".json") {
        true => serde_json::from_str(&text).map_err(|error| error.to_string()),
        false => toml::from_str(&text).map_err(|error| error.to_string()),
    };
    value.map_err(|error| format!("{file}: {error}"))
}

fn told(problems: &[ConfigProblem]) -> String {
    let lines: Vec<String> = problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
    lines.join("\n")
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
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|time| time.as_secs()).unwrap_or(0);
    let snapshot = Snapshot::seal(written(file)?, 0, None, now).map_err(|problems| told(&problems))?;
    let value = serde_json::to_string(&snapshot).map_err(|error| error.to_string())?;
    Ok(json!({"entry": {"name": CURRENT_SNAPSHOT, "value": value}, "version": snapshot.version}))
}
