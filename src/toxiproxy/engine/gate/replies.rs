//! The answers of a gate: those of the upstream, which may be dropped or changed, and those made here, each
//! in its turn.

use bytes::Bytes;

use super::answer::{for_body, has_no_body};
use super::{Due, Fate, Gate, Reading, Surroundings};
use crate::toxiproxy::clock::Nanos;
use crate::toxiproxy::engine::chain::Chain;
use crate::toxiproxy::requests::Head;
use crate::toxiproxy::toxics::{Ending, Inbox, Item, Part, Piece};

impl Gate {
    pub(super) fn reply(
        &mut self,
        piece: Piece,
        head: Option<&Head>,
        chain: &mut Chain,
        around: &Surroundings<'_>,
    ) {
        let (number, part) = (piece.request, piece.part);
        if part == Part::Opaque {
            return self.opaque_reply(piece, chain);
        }
        match self.fates.get(&number) {
            None => chain.accept(Item::Data(piece)),
            Some(Fate::Swallow(toxic, _)) => {
                let toxic = *toxic;
                self.tally(toxic, |tally| tally.dropped(&Item::Data(piece)));
            }
            Some(_) => {
                self.unread.push(piece);
                if let Some(head) = head {
                    self.decide_reply(number, part, head, chain);
                }
            }
        }
        if part == Part::Last && number > 0 {
            if let Some(Fate::Swallow(toxic, true)) = self.fates.remove(&number) {
                return self.reset(toxic, chain);
            }
            self.answered = self.answered.max(number);
            self.pay(chain, around);
        }
    }

    /// Where answers begin and end cannot be told any more. What was to be kept from the caller must not come
    /// with the rest, and what is owed has no place any more.
    fn opaque_reply(&mut self, piece: Piece, chain: &mut Chain) {
        let resets = |fate: &Fate| match fate {
            Fate::Drop(toxic) | Fate::Swallow(toxic, true) => Some(*toxic),
            Fate::Replace(..) | Fate::Swallow(_, false) => None,
        };
        let owed = self.owed.front().map(|owed| owed.wait.toxic);
        if let Some(toxic) = self.fates.values().find_map(resets).or(owed) {
            return self.reset(toxic, chain);
        }
        let replaced = |fate: &Fate| matches!(fate, Fate::Swallow(..));
        if self.fates.values().any(replaced) {
            chain.accept(Item::End(Ending::Finished));
            return self.close();
        }
        self.fates.clear();
        self.unread.push(piece);
        self.unread
            .drain(..)
            .for_each(|piece| chain.accept(Item::Data(piece)));
    }

    /// The head of an answer with a fate is complete.
    fn decide_reply(&mut self, number: u64, part: Part, head: &Head, chain: &mut Chain) {
        let pieces = std::mem::take(&mut self.unread);
        let fate = match part {
            Part::Interim => None,
            _ => self.fates.remove(&number),
        };
        let replaced = match fate {
            Some(Fate::Drop(toxic)) => {
                for piece in pieces {
                    self.tally(toxic, |tally| tally.dropped(&Item::Data(piece)));
                }
                self.fates.insert(number, Fate::Swallow(toxic, true));
                return;
            }
            Some(Fate::Replace(toxic, body)) if !has_no_body(head.status) => Some((toxic, body)),
            _ => None,
        };
        match (replaced, pieces.last().cloned()) {
            (Some((toxic, body)), Some(last)) => {
                self.tally(toxic, |tally| tally.changed(&last));
                write(for_body(head, &body), body, number, last.at, chain);
                self.fates.insert(number, Fate::Swallow(toxic, false));
            }
            _ => pieces
                .into_iter()
                .for_each(|piece| chain.accept(Item::Data(piece))),
        }
    }

    /// The upstream has ended.
    pub(super) fn end_replies(&mut self, ending: Ending, chain: &mut Chain) {
        let dropping = self.fates.values().find_map(|fate| match fate {
            Fate::Drop(toxic) | Fate::Swallow(toxic, true) => Some(*toxic),
            _ => None,
        });
        self.unread
            .drain(..)
            .for_each(|piece| chain.accept(Item::Data(piece)));
        match dropping.filter(|_| !self.replied) {
            Some(toxic) => self.reset(toxic, chain),
            None => self.ended = Some(ending),
        }
        self.pass_end(chain);
    }

    /// Tells the caller that the upstream has ended, unless the next answer is made here.
    fn pass_end(&mut self, chain: &mut Chain) {
        let swallowed = match &self.incoming.state {
            Reading::Swallowed(owed, _) => owed.as_ref(),
            _ => None,
        };
        let next = self.owed.front().or(swallowed);
        if self.replied || next.is_some_and(|owed| owed.request == self.answered + 1) {
            return;
        }
        if let Some(ending) = self.ended.take() {
            chain.accept(Item::End(ending));
            self.replied = true;
        }
    }

    /// Puts the answers that are owed into the chain as far as it is their turn and there is room; when to
    /// come again.
    pub(super) fn pay(&mut self, chain: &mut Chain, around: &Surroundings<'_>) -> Option<Nanos> {
        while let Some(owed) = self.owed.front() {
            if self.replied || owed.request != self.answered + 1 || !chain.has_room() {
                break;
            }
            if owed.wait.due > around.now {
                return Some(owed.wait.due);
            }
            let owed = self.owed.pop_front()?;
            match owed.what {
                Due::Reset(toxic) => self.reset(toxic, chain),
                Due::Answer(answer) => {
                    around
                        .log
                        .answered_here(owed.request, answer.status, around.now);
                    write(answer.head, answer.body, owed.request, around.now, chain);
                    self.answered = owed.request;
                    if answer.closes {
                        chain.accept(Item::End(Ending::Finished));
                        self.close();
                    }
                }
            }
        }
        self.pass_end(chain);
        None
    }

    /// Nothing more is answered, so nothing that waits needs to be asked.
    fn close(&mut self) {
        (self.replied, self.over) = (true, true);
        self.waiting
            .retain(|(_, item)| matches!(item, Some(Item::End(_))));
        self.weight = 0;
        for (wait, item) in &mut self.waiting {
            self.weight += item.as_ref().map_or(0, Inbox::weigh);
            wait.due = 0;
        }
    }

    /// Resets the connection, behind the answers that are on their way.
    pub(super) fn reset(&mut self, toxic: u64, chain: &mut Chain) {
        self.tally(toxic, |tally| tally.reset());
        self.unread.clear();
        chain.accept(Item::End(Ending::Reset));
        (self.replied, self.over) = (true, true);
    }
}

/// Puts an answer into the chain.
fn write(head: Bytes, body: Bytes, request: u64, at: Nanos, chain: &mut Chain) {
    let whole = body.is_empty();
    let head = (head, if whole { Part::Last } else { Part::Inside });
    let body = (!whole).then_some((body, Part::Last));
    for (data, part) in [head].into_iter().chain(body) {
        chain.accept(Item::Data(Piece {
            data,
            at,
            request,
            part,
        }));
    }
}
