//! Faults of single HTTP requests on one connection: where requests and answers enter, before the chains.
//!
//! A request is decided when its head is complete, in order of the toxics, and what was decided is done to
//! its end even if the toxic goes meanwhile: a request half of which was swallowed cannot be let go. Only
//! waiting ends with the toxic. Requests that are not meant, and all bytes that are not HTTP, pass as they
//! are. Answers made here wait for their turn, so pipelined requests are answered in order.
//!
//! What an `http` toxic is: `toxics/http.rs`. Who tells messages apart: `requests/connection.rs`.

mod answer;
mod replies;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use self::answer::Answer;
use super::chain::Chain;
use super::connection::Identity;
use super::draws::Draws;
use super::set::{ToxicSet, ToxicSpec};
use crate::toxiproxy::clock::Nanos;
use crate::toxiproxy::requests::{ConnectionLog, Head};
use crate::toxiproxy::toxics::{
    Effect, Ending, Inbox, Item, Part, Piece, Role, Rule, SMALL_ROOM, Tally,
};
use crate::toxiproxy::wire::Stream;

/// See the module.
#[derive(Default)]
pub(crate) struct Gate {
    rules: Vec<(Arc<ToxicSpec>, Rule)>,
    /// By id of the toxic.
    tallies: BTreeMap<u64, Tally>,
    incoming: Incoming,
    /// Requests that wait, and whatever came behind them; no item where the request is answered here.
    waiting: VecDeque<(Wait, Option<Item>)>,
    /// What `waiting` weighs, as an inbox would count it.
    weight: usize,
    /// Answers made here, in order of their requests.
    owed: VecDeque<Owed>,
    /// What becomes of answers that are yet to come.
    fates: BTreeMap<u64, Fate>,
    /// Pieces of an answer whose head is not complete.
    unread: Vec<Piece>,
    /// The last request whose answer has entered the chain in full.
    answered: u64,
    /// The request with which the connection is going to end: none behind it is let in.
    last: Option<u64>,
    /// The upstream has ended, which the caller is told behind the answers made here.
    ended: Option<Ending>,
    /// No answer passes any more: an end is on its way to the caller.
    replied: bool,
    /// Nor does a request: it is an end of the whole connection.
    over: bool,
}

/// The request that is being read.
#[derive(Default)]
struct Incoming {
    number: u64,
    state: Reading,
}

#[derive(Default)]
enum Reading {
    /// It passes, or waits and then passes.
    #[default]
    Passing,
    /// Its head is not complete.
    Undecided(Vec<Piece>),
    /// It is swallowed by this toxic; the answer is owed when it is complete.
    Swallowed(Option<Owed>, u64),
}

/// Until when something waits, and for which toxic.
#[derive(Clone, Copy, Default)]
struct Wait {
    due: Nanos,
    toxic: u64,
}

/// What the caller gets in the place of an answer of the upstream.
struct Owed {
    request: u64,
    wait: Wait,
    what: Due,
}

impl Owed {
    fn weight(&self) -> usize {
        match &self.what {
            Due::Answer(answer) => answer.head.len() + answer.body.len(),
            Due::Reset(_) => 0,
        }
    }
}

enum Due {
    Answer(Answer),
    Reset(u64),
}

/// What becomes of an answer, and by which toxic.
enum Fate {
    Drop(u64),
    Replace(u64, Bytes),
    /// The head decided: the rest is swallowed, and whether a reset follows.
    Swallow(u64, bool),
}

/// What the gate needs from its connection.
pub(crate) struct Surroundings<'a> {
    pub(crate) log: &'a ConnectionLog,
    pub(crate) identity: &'a Identity,
    pub(crate) now: Nanos,
}

impl Gate {
    /// Goes over to another set. Whatever waits for a toxic that is gone goes on at once.
    pub(crate) fn adopt(&mut self, set: &ToxicSet) {
        let rule = |spec: &Arc<ToxicSpec>| (Arc::clone(spec), Rule::new(&spec.attributes));
        self.rules = set.of_role(Role::Requests).map(rule).collect();
        let stays = |wait: &Wait| self.rules.iter().any(|(spec, _)| spec.id == wait.toxic);
        let waits = self.waiting.iter_mut().map(|(wait, _)| wait);
        for wait in waits.chain(self.owed.iter_mut().map(|owed| &mut owed.wait)) {
            if !stays(wait) {
                wait.due = 0;
            }
        }
    }

    /// Whether it must be told where heads end.
    pub(crate) fn wants_heads(&self) -> bool {
        !self.rules.is_empty()
            || !self.fates.is_empty()
            || !matches!(self.incoming.state, Reading::Passing)
    }

    /// Whether more may be read from a source. Requests whose answers are owed count as much as these.
    pub(crate) fn has_room(&self, stream: Stream) -> bool {
        let owed = || self.owed.iter().map(Owed::weight).sum::<usize>();
        stream == Stream::Downstream || self.weight + owed() < SMALL_ROOM
    }

    /// Lets a piece in, or not.
    pub(crate) fn enter(
        &mut self,
        stream: Stream,
        piece: Piece,
        head: Option<&Head>,
        chain: &mut Chain,
        around: &Surroundings<'_>,
    ) {
        match stream {
            _ if self.over => {}
            Stream::Upstream if self.last.is_some_and(|last| last != piece.request) => {}
            Stream::Upstream => self.request(piece, head, chain, around),
            Stream::Downstream => self.reply(piece, head, chain, around),
        }
    }

    /// Lets the end of a source in.
    pub(crate) fn end(&mut self, stream: Stream, ending: Ending, chain: &mut Chain) {
        match stream {
            Stream::Upstream => {
                if let Reading::Undecided(pieces) = std::mem::take(&mut self.incoming.state) {
                    self.pass_all(pieces, chain);
                }
                self.pass(Item::End(ending), chain);
            }
            Stream::Downstream => self.end_replies(ending, chain),
        }
    }

    /// Moves what has waited long enough into the chain of a direction, and says when to come again.
    pub(crate) fn advance(
        &mut self,
        stream: Stream,
        chain: &mut Chain,
        around: &Surroundings<'_>,
    ) -> Option<Nanos> {
        if stream == Stream::Downstream {
            return self.pay(chain, around);
        }
        while let Some((wait, _)) = self.waiting.front() {
            if wait.due > around.now {
                return Some(wait.due);
            }
            let (_, item) = self.waiting.pop_front()?;
            if let Some(mut item) = item {
                self.weight -= Inbox::weigh(&item);
                // It may go before it was due, and what follows must not wait for that time.
                if let Item::Data(piece) = &mut item {
                    piece.at = piece.at.min(around.now);
                }
                chain.accept(item);
            }
        }
        None
    }

    fn request(
        &mut self,
        piece: Piece,
        head: Option<&Head>,
        chain: &mut Chain,
        around: &Surroundings<'_>,
    ) {
        if piece.request != self.incoming.number {
            let before = std::mem::replace(
                &mut self.incoming,
                Incoming {
                    number: piece.request,
                    state: Reading::Passing,
                },
            );
            match before.state {
                Reading::Passing => {}
                Reading::Undecided(pieces) => self.pass_all(pieces, chain),
                Reading::Swallowed(owed, toxic) => {
                    return self.swallow_rest(piece, before.number, owed, toxic);
                }
            }
            if !self.rules.is_empty() && piece.part != Part::Opaque {
                self.incoming.state = Reading::Undecided(Vec::new());
            }
        }
        match std::mem::take(&mut self.incoming.state) {
            Reading::Passing => self.pass(Item::Data(piece), chain),
            Reading::Swallowed(owed, toxic) => self.swallow(piece, owed, toxic),
            Reading::Undecided(mut pieces) => {
                pieces.push(piece);
                match head {
                    Some(head) => self.decide(pieces, head, chain, around),
                    None => self.incoming.state = Reading::Undecided(pieces),
                }
            }
        }
    }

    /// The head is complete: what becomes of the request, whose pieces so far are these.
    fn decide(
        &mut self,
        pieces: Vec<Piece>,
        head: &Head,
        chain: &mut Chain,
        around: &Surroundings<'_>,
    ) {
        let number = self.incoming.number;
        let (wait, effect) = self.verdict(head, around);
        let what = match effect {
            Effect::Pass => return self.delay(pieces, wait, chain, around),
            Effect::DropResponse => {
                self.fates.insert(number, Fate::Drop(wait.toxic));
                self.last = Some(number);
                return self.delay(pieces, wait, chain, around);
            }
            Effect::Body(body) => {
                if head.method != "HEAD" {
                    self.fates.insert(number, Fate::Replace(wait.toxic, body));
                }
                return self.delay(pieces, wait, chain, around);
            }
            Effect::Abort => Due::Reset(wait.toxic),
            Effect::Answer { status, body } => {
                let unsent = head.expects_continue()
                    && pieces.last().is_none_or(|piece| piece.part != Part::Last);
                let name = self.toxic_name(wait.toxic);
                Due::Answer(Answer::new(status, &body, head, !unsent, name))
            }
        };
        around.log.kept(number);
        if wait.due > around.now {
            // Requests behind it wait too, or their answers would come before its own.
            self.waiting.push_back((wait, None));
        }
        let owed = Owed {
            request: number,
            wait,
            what,
        };
        self.keep(pieces, owed, head.expects_continue());
    }

    /// For how long the request in hand waits and what then happens, by all toxics that act on it.
    fn verdict(&mut self, head: &Head, around: &Surroundings<'_>) -> (Wait, Effect) {
        let number = self.incoming.number;
        let mut wait = Wait::default();
        for (spec, rule) in &self.rules {
            if !hits(spec, rule, head, number, around.identity) {
                continue;
            }
            let tally = self.tallies.entry(spec.id).or_insert_with(|| {
                let tally = Tally::new(Arc::clone(&spec.counters));
                tally.connection();
                tally
            });
            tally.acts_on(number);
            wait = Wait {
                due: wait.due.max(around.now).saturating_add(rule.delay),
                toxic: spec.id,
            };
            if rule.effect != Effect::Pass {
                return (wait, rule.effect.clone());
            }
        }
        (wait, Effect::Pass)
    }

    /// Keeps the request in hand from the upstream; its answer is owed.
    fn keep(&mut self, pieces: Vec<Piece>, owed: Owed, expects_continue: bool) {
        // Who waits for a word before it sends the body may never send it.
        let (at_once, ends) = match &owed.what {
            Due::Reset(_) => (true, true),
            Due::Answer(answer) => (answer.closes && expects_continue, answer.closes),
        };
        self.last = ends.then_some(owed.request);
        let toxic = owed.wait.toxic;
        let mut owed = Some(owed);
        if at_once {
            self.owed.extend(owed.take());
        }
        self.incoming.state = Reading::Swallowed(owed, toxic);
        for piece in pieces {
            if let Reading::Swallowed(owed, toxic) = std::mem::take(&mut self.incoming.state) {
                self.swallow(piece, owed, toxic);
            }
        }
    }

    fn toxic_name(&self, id: u64) -> &str {
        let found = self.rules.iter().find(|(spec, _)| spec.id == id);
        found.map_or("", |(spec, _)| &spec.name)
    }

    fn swallow(&mut self, piece: Piece, owed: Option<Owed>, toxic: u64) {
        let last = piece.part == Part::Last;
        self.tally(toxic, |tally| tally.dropped(&Item::Data(piece)));
        if last {
            self.owed.extend(owed);
        } else {
            self.incoming.state = Reading::Swallowed(owed, toxic);
        }
    }

    /// A request that is swallowed cannot be read to its end. Where the next one begins cannot be told, so
    /// nothing is let in any more, and the connection ends with the answer to this one.
    fn swallow_rest(&mut self, piece: Piece, number: u64, owed: Option<Owed>, toxic: u64) {
        self.tally(toxic, |tally| tally.dropped(&Item::Data(piece)));
        self.last = Some(number);
        self.owed.extend(owed.map(|mut owed| {
            if let Due::Answer(answer) = &mut owed.what {
                answer.closes = true;
            }
            owed
        }));
    }

    fn tally(&mut self, toxic: u64, count: impl FnOnce(&mut Tally)) {
        if let Some(tally) = self.tallies.get_mut(&toxic) {
            count(tally);
        }
    }

    fn delay(
        &mut self,
        pieces: Vec<Piece>,
        wait: Wait,
        chain: &mut Chain,
        around: &Surroundings<'_>,
    ) {
        for mut piece in pieces {
            if wait.due > around.now {
                // The other toxics count from when it enters the chain.
                piece.at = wait.due;
                let item = Item::Data(piece);
                self.tally(wait.toxic, |tally| tally.delayed(&item));
                self.hold(wait, item);
            } else {
                self.pass(Item::Data(piece), chain);
            }
        }
    }

    fn pass_all(&mut self, pieces: Vec<Piece>, chain: &mut Chain) {
        for piece in pieces {
            self.pass(Item::Data(piece), chain);
        }
    }

    /// Lets an item of the requests pass, behind what waits.
    fn pass(&mut self, item: Item, chain: &mut Chain) {
        if self.waiting.is_empty() {
            chain.accept(item);
        } else {
            self.hold(Wait::default(), item);
        }
    }

    fn hold(&mut self, wait: Wait, item: Item) {
        self.weight += Inbox::weigh(&item);
        self.waiting.push_back((wait, Some(item)));
    }
}

/// Whether a toxic acts on a request: the connection by its toxicity, the request by its rule.
fn hits(spec: &ToxicSpec, rule: &Rule, head: &Head, request: u64, identity: &Identity) -> bool {
    let draws = |name: &str| Draws::new(identity.seed, &identity.proxy, identity.number, name);
    draws(&spec.name).hits(spec.toxicity)
        && rule.acts_on(head, &spec.shared, || {
            draws(&format!("{}\0{request}", spec.name)).unit()
        })
}
