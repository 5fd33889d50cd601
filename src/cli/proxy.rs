//! `chaos proxy`: a standalone Toxiproxy-compatible server.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::exit::Exit;
use crate::terminal::Environment;
use crate::toxiproxy::log;
use crate::toxiproxy::server::{ServerOptions, serve};

use super::{Failure, Result};

/// The variable that holds the token of the API.
const TOKEN: &str = "CHAOS_PROXY_TOKEN";

/// Flags of `chaos proxy`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP, args_override_self = true)]
pub(super) struct Args {
    /// Address the API listens on; other machines reach it only if you name one they can reach
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    pub host: String,

    /// Port the API listens on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8474)]
    pub port: u16,

    /// JSON file of proxies to create at the start, with the body of `POST /populate`
    #[arg(long, value_name = "FILE")]
    pub config: Option<OsString>,

    /// Seed of whatever toxics draw at random: the same seed, the same draws
    #[arg(
        long,
        value_name = "N",
        default_value = "0",
        value_parser = seed,
        allow_negative_numbers = true
    )]
    pub seed: u64,

    /// Offer bytes, connections and toxics of every proxy at `GET /metrics`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, value_name = "BOOL", hide_default_value = true, hide_possible_values = true, value_parser = go_bool)]
    pub proxy_metrics: bool,

    /// Offer CPU, memory and descriptors of this process at `GET /metrics`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, value_name = "BOOL", hide_default_value = true, hide_possible_values = true, value_parser = go_bool)]
    pub runtime_metrics: bool,

    /// Answer only calls that carry the token in this file (`Authorization: Bearer …`)
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// End when standard input does, so that a parent never leaves the server behind
    #[arg(long)]
    pub end_at_eof: bool,

    /// Print the version and end
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, value_name = "BOOL", hide_default_value = true, hide_possible_values = true, value_parser = go_bool)]
    pub version: bool,
}

const AFTER_HELP: &str = "\
Examples:
  chaos proxy                            where clients of Toxiproxy look for it
  chaos proxy --port 0 --config t.json   a free port, printed; proxies of a file
  chaos proxy -host 0.0.0.0 -seed 7      flags as Toxiproxy takes them

Try it:
  curl localhost:8474/proxies -d \\
    '{\"name\":\"db\",\"listen\":\"localhost:3307\",\"upstream\":\"localhost:3306\"}'
  curl localhost:8474/proxies/db/toxics -d \\
    '{\"type\":\"latency\",\"attributes\":{\"latency\":500}}'
  curl -X DELETE localhost:8474/proxies/db/toxics/latency_downstream

Output:
  One line of JSON with the address as soon as the API answers, then a log of
  JSON lines.

Environment:
  LOG_LEVEL            trace, debug, info (the default), warn, error, disabled
  CHAOS_PROXY_TOKEN    the token of the API, if there is no --token-file

Started under the name `toxiproxy-server` (a link to it will do), it takes that
server's command line as it is.";

pub(super) fn execute(args: Args, environment: &Environment) -> Result {
    if args.version {
        return print_version();
    }
    log::to_standard_output(environment.variable("LOG_LEVEL"));
    // Two for each connection; where the limit stays low, the proxy says so when it meets it.
    crate::run::ports::raise_descriptor_limit();

    let options = ServerOptions {
        host: args.host,
        port: args.port,
        config: args
            .config
            .filter(|file| !file.is_empty())
            .map(PathBuf::from),
        seed: args.seed,
        proxy_metrics: args.proxy_metrics,
        runtime_metrics: args.runtime_metrics,
        token: token(args.token_file.as_deref(), environment)?,
        end_at_eof: args.end_at_eof,
        announce: Some(Box::new(std::io::stdout())),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // How many polls of connections that never pause an instant may wait for.
        .event_interval(8)
        .build()
        .context("start the runtime")
        .map_err(Failure::not_carried_out)?;
    let served = runtime.block_on(serve(options));
    // Toxics may still hold connections open; they end with the process.
    runtime.shutdown_background();
    served
        .map(|()| Exit::Held)
        .map_err(Failure::not_carried_out)
}

/// In the words of the original: launchers look for them.
fn print_version() -> Result {
    use std::io::Write as _;
    let line = format!("toxiproxy-server version {}\n", crate::toxiproxy::VERSION);
    std::io::stdout()
        .write_all(line.as_bytes())
        .context("print the version")
        .map_err(Failure::not_carried_out)?;
    Ok(Exit::Held)
}

fn token(
    file: Option<&Path>,
    environment: &Environment,
) -> std::result::Result<Option<String>, Failure> {
    let Some(file) = file else {
        let variable = environment.variable(TOKEN).map(|it| it.to_string_lossy());
        return match variable.as_deref().map(str::trim) {
            // Meant to keep callers out: an empty one would let everybody in.
            Some("") => Err(Failure::usage(anyhow::anyhow!("`{TOKEN}` is empty"))),
            token => Ok(token.map(str::to_owned)),
        };
    };
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("read the token in `{}`", file.display()))
        .map_err(Failure::usage)?;
    match text.trim() {
        "" => Err(Failure::usage(anyhow::anyhow!(
            "no token in `{}`",
            file.display()
        ))),
        token => Ok(Some(token.to_owned())),
    }
}

/// Toxiproxy's seeds are signed.
fn seed(text: &str) -> std::result::Result<u64, String> {
    let signed = text.parse::<i64>().map(i64::cast_unsigned);
    signed
        .or_else(|_| text.parse())
        .map_err(|_| "not a whole number of 64 bits".to_owned())
}

/// What Go takes for a truth value.
fn go_bool(text: &str) -> std::result::Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("neither true nor false".to_owned()),
    }
}

/// The command line with the flags of `chaos proxy` as Go takes them, `-port`, turned into `--port`; and with
/// `toxiproxy-server …`, by which name a link may call us, turned into `chaos proxy …`.
#[must_use]
pub fn with_go_flags(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let named = |name: &OsString| Path::new(name).file_name() == Some("toxiproxy-server".as_ref());
    if arguments.first().is_some_and(named) {
        arguments.insert(1, "proxy".into());
    }
    let is_flag = |argument: &&OsString| argument.as_encoded_bytes().starts_with(b"-");
    let command = arguments
        .iter()
        .skip(1)
        .position(|argument| !is_flag(&argument));
    let Some(command) = command.map(|place| place + 1) else {
        return arguments;
    };
    if arguments[command] == "proxy" {
        arguments[command + 1..].iter_mut().for_each(double_dash);
    }
    arguments
}

fn double_dash(argument: &mut OsString) {
    const FLAGS: [&str; 8] = [
        "host",
        "port",
        "config",
        "seed",
        "proxy-metrics",
        "runtime-metrics",
        "version",
        "help",
    ];
    let Some(flag) = argument.to_str().and_then(|text| text.strip_prefix('-')) else {
        return;
    };
    let name = flag.split_once('=').map_or(flag, |(name, _)| name);
    if FLAGS.contains(&name) {
        *argument = format!("--{flag}").into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(line: &str) -> String {
        let words = line.split(' ').map(OsString::from);
        let words = with_go_flags(words);
        words.join(" ".as_ref()).into_string().unwrap()
    }

    #[test]
    fn flags_of_go_become_ours_behind_proxy_only() {
        for (given, expected) in [
            (
                "chaos proxy -port 1 -host=h",
                "chaos proxy --port 1 --host=h",
            ),
            (
                "chaos -q proxy -seed -5 --port 1",
                "chaos -q proxy --seed -5 --port 1",
            ),
            ("chaos proxy -v -porter", "chaos proxy -v -porter"),
            ("chaos run -port 1", "chaos run -port 1"),
            (
                "/bin/toxiproxy-server -version",
                "/bin/toxiproxy-server proxy --version",
            ),
            ("chaos", "chaos"),
        ] {
            assert_eq!(turned(given), expected);
        }
    }

    #[test]
    fn seeds_may_be_negative() {
        assert_eq!(seed("-1"), Ok(u64::MAX));
        assert_eq!(seed("18446744073709551615"), Ok(u64::MAX));
        assert!(seed("x").is_err());
    }
}
