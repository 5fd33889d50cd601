//! goose, the host of the users: it starts them, runs them side by side and joins them at the end.
//! The only file that names it.
//!
//! A goose user runs one transaction, in which one of our users serves tickets until the load is
//! over; which journey that is, when, and how it is measured is ours (goose's weights give users
//! to scenarios, its clock stops at the headers, its metrics have no time series). What goose does
//! to a process that it is not told to leave alone, found with 0.19:
//!
//! - It installs a `ctrlc` handler, whose second SIGINT exits the process: `signals.rs` comes first.
//! - Dropping `execute()` leaks users that keep sending: it is always awaited to its end.
//! - The killswitch is process-global and cleared when an attack starts: it is triggered again
//!   until the attack has ended.
//! - Its telnet controller listens by default, it prints, it installs a `log` logger: switched off,
//!   but for one line (`N users launched.`) that nothing silences: standard output is no protocol.
//! - With a client of its own per user it would read the environment's proxies and load
//!   certificates 200 times: users share one that nobody uses.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use goose::config::GooseConfiguration;
use goose::goose::{Scenario, Transaction, TransactionFunction};
use goose::{GooseAttack, GooseError};

/// How often an attack that should be over is told so.
const TELL_AGAIN: Duration = Duration::from_millis(50);

/// A user's whole life.
pub(crate) type Life = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs `users` lives side by side; `life` makes the one of user n. Ends when all of them have
/// ended.
///
/// # Errors
///
/// When goose refuses its configuration, as a phrase.
pub(crate) async fn run(
    users: u32,
    timeout: Duration,
    life: impl Fn() -> Life + Send + Sync + 'static,
) -> Result<(), String> {
    let ended = Arc::new(tokio::sync::Semaphore::new(0));
    let when_ended = Arc::clone(&ended);
    let transaction: TransactionFunction = Arc::new(move |_| {
        let life = life();
        let ended = Arc::clone(&when_ended);
        Box::pin(async move {
            life.await;
            ended.add_permits(1);
            Ok(())
        })
    });
    let attack = attack(users, timeout, transaction).map_err(|error| error.to_string())?;
    let mut attack = std::pin::pin!(attack.execute());
    let mut all_ended = std::pin::pin!(async {
        let _ = ended.acquire_many(users).await;
    });
    let early = tokio::select! {
        result = &mut attack => Some(result),
        () = &mut all_ended => None,
    };
    let result = match early {
        Some(result) => result,
        None => loop {
            goose::trigger_killswitch("the load is over");
            tokio::select! {
                result = &mut attack => break result,
                () = tokio::time::sleep(TELL_AGAIN) => {}
            }
        },
    };
    result.map(drop).map_err(|error| error.to_string())
}

fn attack(
    users: u32,
    timeout: Duration,
    transaction: TransactionFunction,
) -> Result<GooseAttack, GooseError> {
    let scenario =
        Scenario::new("load").register_transaction(Transaction::new(transaction).set_name("serve"));
    GooseAttack::initialize_with_config(configuration(users, timeout))?
        .register_scenario(scenario)
        .set_client_builder_without_cookies(
            goose::client::GooseClientBuilder::new().without_cookies(),
        )
}

fn configuration(users: u32, timeout: Duration) -> GooseConfiguration {
    let mut configuration = GooseConfiguration::default();
    // Demanded, never dialled.
    configuration.host = Some("http://127.0.0.1".into());
    configuration.users = Some(users as usize);
    // All at once.
    configuration.increase_rate = Some("1000000".into());
    // A user serves until the load is over, once.
    configuration.iterations = Some(1);
    // Shutdown joins users for as long as this; the default is 60 s.
    configuration.timeout = Some(timeout.as_secs_f64().to_string());
    configuration.no_telnet = true;
    configuration.no_metrics = true;
    configuration.no_print_metrics = true;
    configuration.no_transaction_metrics = true;
    configuration.no_scenario_metrics = true;
    configuration.no_error_summary = true;
    configuration.quiet = 2;
    configuration
}
