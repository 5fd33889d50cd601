//! Asks the system for the addresses of names, of each name once at a time.
//!
//! A lookup cannot be called off: it holds a thread until its name server is given up, long after whoever
//! asked has turned away. If each caller began its own, those of one dead name would take all threads, and
//! every other name, `localhost` too, would wait behind them. So whoever asks meanwhile shares the answer.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Mutex;

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::locked;

/// The addresses in the order of the system, at no port; or the code of its error, if it has one.
type Found = Result<Vec<SocketAddr>, Option<i32>>;

/// Lookups under way, by name.
#[derive(Default)]
pub(crate) struct Lookups(Mutex<BTreeMap<String, watch::Receiver<Option<Found>>>>);

impl Lookups {
    /// The addresses of a name, with this port, in the order in which they are to be tried.
    pub(super) async fn find(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let asked = name.to_owned();
        let found = self.share(name, move || ask_system(&asked)).await;
        let mut addresses = found.map_err(|code| match code {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::other(format!("{name} has no address")),
        })?;
        for address in &mut addresses {
            address.set_port(port);
        }
        Ok(addresses)
    }

    /// What the lookup of this name that is under way finds; `ask` begins one if none is.
    async fn share(&self, name: &str, ask: impl FnOnce() -> Found + Send + 'static) -> Found {
        let mut found = self.join_or_begin(name, ask);
        let found = found.wait_for(Option::is_some).await;
        // No answer only when the runtime ends before it was asked for.
        found
            .ok()
            .and_then(|found| found.clone())
            .unwrap_or(Err(None))
    }

    fn join_or_begin(
        &self,
        name: &str,
        ask: impl FnOnce() -> Found + Send + 'static,
    ) -> watch::Receiver<Option<Found>> {
        let mut under_way = locked(&self.0);
        // The sender of one that has ended is gone.
        under_way.retain(|_, found| found.has_changed().is_ok());
        if let Some(found) = under_way.get(name) {
            return found.clone();
        }
        let (sender, found) = watch::channel(None);
        under_way.insert(name.to_owned(), found.clone());
        spawn_blocking(move || sender.send_replace(Some(ask())));
        found
    }
}

fn ask_system(name: &str) -> Found {
    let found = (name, 0).to_socket_addrs();
    found
        .map(Iterator::collect)
        .map_err(|error| error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// An answer that can be told from others.
    fn answer(number: u16) -> Found {
        Ok(vec![SocketAddr::from(([127, 0, 0, 1], number))])
    }

    #[tokio::test]
    async fn name_is_asked_for_once_while_its_answer_is_awaited_and_holds_up_no_other() {
        let lookups = Lookups::default();
        let (answers, awaited) = channel();
        let first = lookups.share("slow", move || awaited.recv().unwrap());
        let gave_up = timeout(Duration::ZERO, first).await;
        assert!(gave_up.is_err(), "nothing is known yet");

        let again = || lookups.share("slow", || answer(2));
        assert_eq!(lookups.share("other", || answer(3)).await, answer(3));
        let (one, two, ()) = tokio::join!(again(), again(), async {
            answers.send(answer(1)).unwrap();
        });
        assert_eq!([one, two], [answer(1), answer(1)]);

        let anew = async {
            while again().await != answer(2) {
                tokio::task::yield_now().await;
            }
        };
        let deadline = Duration::from_secs(20);
        timeout(deadline, anew).await.expect("no old answer");
    }
}
