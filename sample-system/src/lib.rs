//! An order system that behaves well, and badly on request: the system that `chaos` boots, breaks and
//! judges out of the box, and an example of how such a system is built.
//!
//! Each service is one process, started by [`run`] with a name of [`names`] and an environment map (see
//! [`kit::config::Config::from_environment`]). This package never imports the harness and knows nothing
//! of it. Start reading at [`kit`], then any service.

mod bus;
mod catalog;
mod gateway;
mod inventory;
pub mod kit;
mod notifications;
mod orders;
mod payments;
mod psp;
#[cfg(test)]
mod testing;
mod users;

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
pub use kit::service::RunError;
use kit::service::Service;
use kit::shutdown::Stop;

/// The body of a service, from its start to its end.
type Body = fn(Service) -> BoxFuture<'static, Result<(), RunError>>;

/// Every service: its name and its body. One line each.
const SERVICES: [(&str, Body); 9] = [
    ("bus", |service| Box::pin(bus::run(service))),
    ("catalog", |service| Box::pin(catalog::run(service))),
    ("gateway", |service| Box::pin(gateway::run(service))),
    ("inventory", |service| Box::pin(inventory::run(service))),
    ("notifications", |service| {
        Box::pin(notifications::run(service))
    }),
    ("orders", |service| Box::pin(orders::run(service))),
    ("payments", |service| Box::pin(payments::run(service))),
    ("psp", |service| Box::pin(psp::run(service))),
    ("users", |service| Box::pin(users::run(service))),
];

/// The names that [`run`] understands.
pub fn names() -> &'static [&'static str] {
    const NAMES: [&str; SERVICES.len()] = {
        let mut names = [""; SERVICES.len()];
        let mut index = 0;
        while index < SERVICES.len() {
            names[index] = SERVICES[index].0;
            index += 1;
        }
        names
    };
    &NAMES
}

/// Runs one service until SIGTERM or SIGINT; the environment is read from the map, never from the
/// process. Logs go to standard output, one JSON object per line.
///
/// # Errors
/// The service could not start, or was stopped before its work was finished.
pub async fn run(name: &str, environment: BTreeMap<String, String>) -> Result<(), RunError> {
    run_until(name, environment, Stop::on_signals()?).await
}

/// As [`run`], but stopped by hand.
///
/// # Errors
/// As [`run`].
pub async fn run_until(
    name: &str,
    environment: BTreeMap<String, String>,
    stop: Stop,
) -> Result<(), RunError> {
    let service = SERVICES.iter().find(|(known, _)| *known == name);
    let (name, body) = service.ok_or_else(|| RunError::UnknownService(name.to_owned()))?;
    body(Service::start(name, &environment, stop).await?).await
}
