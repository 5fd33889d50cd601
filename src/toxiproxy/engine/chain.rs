//! The chain of stages of one direction of one connection, and how it becomes another one while bytes
//! are in it. Pure: no clock, no socket.

use std::sync::Arc;

use super::connection::Identity;
use super::draws::Draws;
use super::set::{ToxicSet, ToxicSpec};
use crate::toxiproxy::clock::Nanos;
use crate::toxiproxy::toxics::{
    Ending, Inbox, Item, Removal, SMALL_ROOM, Scene, Stage, Step, Tally,
};
use crate::toxiproxy::wire::Stream;

/// What may wait beyond the room of its inbox before the source is no longer read, or toxics that come and
/// go could fill the memory behind a peer that never reads. More than a full `latency` leaves when it goes,
/// so that a stage that comes then, and may have to end the connection, still sees the source.
const EXCESS_MAX: usize = 40 * 1024 * 1024;

/// The stages between a source and [`Chain::out`].
pub(crate) struct Chain {
    stream: Stream,
    slots: Vec<Slot>,
    /// What is to be written to the destination.
    pub(crate) out: Inbox,
    /// An end by time is in it: the destination gets no byte any more.
    closing: bool,
}

/// A toxic's place in the chain.
struct Slot {
    spec: Arc<ToxicSpec>,
    inbox: Inbox,
    /// `None` where the toxicity spares this connection: everything passes.
    stage: Option<Box<dyn Stage>>,
    draws: Draws,
    tally: Tally,
    /// It passed an end, so no bytes may follow.
    ended: bool,
}

/// A stage ordered this connection to be reset.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResetNow;

impl Chain {
    /// A chain without stages.
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            slots: Vec::new(),
            out: Inbox::default(),
            closing: false,
        }
    }

    /// Whether a toxic has ended the connection by time, so that bytes on their way are given up.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether more may be read from the source.
    pub(crate) fn has_room(&self) -> bool {
        match self.slots.first() {
            Some(first) => first.has_room() && self.excess() < EXCESS_MAX,
            None => self.out.weight() < SMALL_ROOM,
        }
    }

    /// What waits beyond the room of its inbox: toxics that go leave what they hold to the next.
    fn excess(&self) -> usize {
        let beyond = |inbox: &Inbox, room| inbox.weight().saturating_sub(room);
        let slots = self.slots.iter();
        let in_slots = slots.map(|slot| beyond(&slot.inbox, slot.spec.kind.room));
        in_slots.sum::<usize>() + beyond(&self.out, SMALL_ROOM)
    }

    /// Puts what the source sent at the head of the chain.
    pub(crate) fn accept(&mut self, item: Item) {
        match self.slots.first_mut() {
            Some(slot) => slot.inbox.push(item),
            None => self.out.push(item),
        }
    }

    /// Moves everything as far as it goes by now, and says when to come again. `open` lists the requests
    /// under way, asked for when a toxic closes the connection on them.
    pub(crate) fn advance(
        &mut self,
        now: Nanos,
        open: &dyn Fn() -> Vec<u64>,
    ) -> Result<Option<Nanos>, ResetNow> {
        loop {
            let (mut moved, mut wake_at) = (false, None);
            for place in (0..self.slots.len()).rev() {
                loop {
                    let has_room = self.room_after(place);
                    match self.slots[place].step(has_room, now, open) {
                        Step::Pass(item) => {
                            moved = true;
                            self.pass(place, item);
                        }
                        Step::Idle => break,
                        Step::Until(time) => {
                            wake_at = Some(wake_at.map_or(time, |other: Nanos| other.min(time)));
                            break;
                        }
                        Step::Close => {
                            moved = true;
                            self.close(place);
                        }
                        Step::Reset => return Err(ResetNow),
                    }
                }
            }
            if !moved {
                return Ok(wake_at);
            }
        }
    }

    fn room_after(&self, place: usize) -> bool {
        match self.slots.get(place + 1) {
            Some(next) => next.has_room(),
            None => self.out.weight() < SMALL_ROOM,
        }
    }

    fn pass(&mut self, place: usize, item: Item) {
        match self.slots.get_mut(place + 1) {
            Some(next) => next.inbox.push(item),
            None => self.out.push(item),
        }
    }

    /// Ends the connection at a stage, by time: what waits there and behind it is not waited for, since the
    /// destination may never take it.
    fn close(&mut self, place: usize) {
        self.closing = true;
        if let Some((slot, behind)) = self.slots[place..].split_first_mut() {
            let behind = behind.iter_mut().map(|slot| {
                // It may have passed another end, and this one follows.
                slot.ended = false;
                &mut slot.inbox
            });
            for inbox in behind.chain([&mut slot.inbox, &mut self.out]) {
                let waiting = inbox.iter_from(0);
                waiting.for_each(|item| slot.tally.dropped(item));
                inbox.clear();
            }
        }
        self.pass(place, Item::End(Ending::Close));
    }

    /// Becomes the chain of another set. Stages that stay keep their state and what waits for them; what
    /// waits for one that goes moves on to the next that stays, ahead of nothing and behind nothing it was
    /// not before.
    pub(crate) fn adopt(
        &mut self,
        set: &ToxicSet,
        identity: &Identity,
        now: Nanos,
    ) -> Result<(), ResetNow> {
        let wanted: Vec<&Arc<ToxicSpec>> = set.staged(self.stream).collect();
        let mut old = std::mem::take(&mut self.slots);
        if !in_same_order(&old, &wanted) {
            // Stages that change places cannot keep what waits for them without reordering bytes.
            old.iter_mut()
                .rev()
                .for_each(|slot| self.out.append(&mut slot.inbox));
        }
        let mut kept = self.part_with(old, &wanted)?;
        for spec in wanted {
            let place = kept.iter().position(|slot| slot.spec.id == spec.id);
            let slot = match place {
                Some(place) => kept.remove(place).updated(spec, now),
                None => Slot::new(spec, identity),
            };
            self.slots.push(slot);
        }
        Ok(())
    }

    /// Removes the slots that are not wanted, moving what waits for them on.
    fn part_with(
        &mut self,
        mut old: Vec<Slot>,
        wanted: &[&Arc<ToxicSpec>],
    ) -> Result<Vec<Slot>, ResetNow> {
        for place in (0..old.len()).rev() {
            if wanted.iter().any(|spec| spec.id == old[place].spec.id) {
                continue;
            }
            let mut gone = old.remove(place);
            let next = old
                .get_mut(place)
                .map_or(&mut self.out, |slot| &mut slot.inbox);
            match gone.removal() {
                Removal::Flush => next.append(&mut gone.inbox),
                Removal::Close => next.push(Item::End(Ending::Close)),
                Removal::Reset => return Err(ResetNow),
            }
        }
        Ok(old)
    }
}

/// Whether the slots that stay are in the order of the wanted set.
fn in_same_order(old: &[Slot], wanted: &[&Arc<ToxicSpec>]) -> bool {
    let places = old
        .iter()
        .filter_map(|slot| wanted.iter().position(|spec| spec.id == slot.spec.id));
    places.is_sorted()
}

impl Slot {
    fn new(spec: &Arc<ToxicSpec>, identity: &Identity) -> Self {
        let draws = Draws::new(identity.seed, &identity.proxy, identity.number, &spec.name);
        let tally = Tally::new(Arc::clone(&spec.counters));
        let spec = Arc::clone(spec);
        let mut slot = Self {
            spec,
            inbox: Inbox::default(),
            stage: None,
            draws,
            tally,
            ended: false,
        };
        slot.start_if_hit();
        slot
    }

    fn has_room(&self) -> bool {
        self.inbox.weight() < self.spec.kind.room
    }

    fn start_if_hit(&mut self) {
        if self.draws.hits(self.spec.toxicity) {
            self.stage = Some((self.spec.kind.stage)(&self.spec.attributes));
            self.tally.connection();
        }
    }

    /// The same slot under a changed toxic.
    fn updated(mut self, spec: &Arc<ToxicSpec>, now: Nanos) -> Self {
        if self.spec.revision == spec.revision {
            return self;
        }
        self.spec = Arc::clone(spec);
        match &mut self.stage {
            None if self.ended => {}
            None => self.start_if_hit(),
            Some(_) if !self.draws.hits(spec.toxicity) => self.stage = None,
            Some(stage) => stage.update(&spec.attributes, now),
        }
        self
    }

    fn removal(&self) -> Removal {
        match &self.stage {
            Some(stage) if !self.ended => stage.removal(),
            _ => Removal::Flush,
        }
    }

    fn step(&mut self, has_room: bool, now: Nanos, open: &dyn Fn() -> Vec<u64>) -> Step {
        if self.ended {
            self.inbox.clear();
        }
        let may_pass = has_room && !self.ended;
        let Some(stage) = &mut self.stage else {
            let item = may_pass.then(|| self.inbox.pop()).flatten();
            return item.map_or(Step::Idle, Step::Pass);
        };
        let mut scene = Scene {
            now,
            draws: &mut self.draws,
            tally: &mut self.tally,
            shared: &self.spec.shared,
        };
        let closing = matches!(self.inbox.front(), Some(Item::End(Ending::Close)));
        let step = if may_pass {
            stage.step(&mut self.inbox, &mut scene)
        } else {
            stage.step_without_room(&mut self.inbox, &mut scene)
        };
        match &step {
            Step::Pass(Item::End(ending)) => {
                self.ended = true;
                if *ending == Ending::Close && !closing {
                    self.tally.closed();
                    self.tally.cut_requests(open());
                }
            }
            Step::Close => {
                (self.ended, self.stage) = (true, None);
                self.tally.closed();
                self.tally.cut_requests(open());
            }
            Step::Reset => {
                self.tally.reset();
                self.tally.cut_requests(open());
            }
            _ => {}
        }
        step
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::toxiproxy::clock::MILLISECOND;
    use crate::toxiproxy::toxics::bench::show;
    use crate::toxiproxy::toxics::{Part, Piece};

    fn piece(data: impl Into<Bytes>) -> Item {
        Item::Data(Piece {
            data: data.into(),
            at: 0,
            request: 0,
            part: Part::Opaque,
        })
    }

    /// A chain of these toxics, set at 0.
    fn chain(toxics: &[(&str, &str)]) -> Chain {
        let mut chain = Chain::new(Stream::Downstream);
        set(&mut chain, 1, toxics);
        chain
    }

    /// Goes over to these toxics, numbered from `first`, at 0. Those with the number of an old one stay.
    fn set(chain: &mut Chain, first: u64, toxics: &[(&str, &str)]) {
        let of = |(id, (kind, attributes)): (u64, &(&str, &str))| {
            Arc::new(ToxicSpec::of(id, kind, Stream::Downstream, attributes))
        };
        let set = ToxicSet {
            generation: 1,
            toxics: (first..).zip(toxics).map(of).collect(),
        };
        let identity = Identity {
            seed: 1,
            proxy: "p".into(),
            number: 1,
        };
        chain.adopt(&set, &identity, 0).unwrap();
    }

    /// Reads at 0 for as long as there is room: how much that was.
    fn fill(chain: &mut Chain) -> usize {
        let data = Bytes::from(vec![0; SMALL_ROOM]);
        let mut read = 0;
        while chain.has_room() {
            chain.accept(piece(data.clone()));
            chain.advance(0, &Vec::new).unwrap();
            read += data.len();
        }
        read
    }

    /// What there is for the destination at a time, in ms; a reset is `|RST`.
    fn came(chain: &mut Chain, now_ms: u64) -> String {
        if chain.advance(now_ms * MILLISECOND, &Vec::new).is_err() {
            return "|RST".to_owned();
        }
        std::iter::from_fn(|| chain.out.pop()).map(show).collect()
    }

    #[test]
    fn time_limit_is_kept_for_a_peer_that_never_reads() {
        for (kind, attributes, end) in [
            ("limit_time", r#"{"time":100}"#, "|CLOSE"),
            ("timeout", r#"{"timeout":100}"#, "|CLOSE"),
            ("reset_peer", r#"{"timeout":100}"#, "|RST"),
        ] {
            for behind in ["noop", "latency", "loss", "slicer"] {
                let mut chain = chain(&[(kind, attributes), (behind, "{}")]);
                chain.out.push(piece(vec![0; SMALL_ROOM]));
                chain.pass(0, piece(vec![0; 64 << 20]));
                chain.accept(piece("x"));
                let wake_at = chain.advance(0, &Vec::new).unwrap();
                assert_eq!(wake_at, Some(100 * MILLISECOND), "{kind}, {behind}");
                assert_eq!(chain.advance(99 * MILLISECOND, &Vec::new), Ok(wake_at));
                assert_eq!(came(&mut chain, 100), end, "{kind}, {behind}");
            }
        }
    }

    #[test]
    fn toxics_that_come_and_go_make_no_room_for_a_peer_that_never_reads() {
        let late = ("latency", r#"{"latency":1}"#);
        for stays in [&[][..], &[("noop", "{}")]] {
            let (mut chain, mut read) = (chain(&[]), 0);
            for _ in 0..6 {
                set(&mut chain, 1, &[&[late][..], stays].concat());
                read += fill(&mut chain);
                set(&mut chain, 2, stays);
            }
            assert!(read < 2 * EXCESS_MAX, "{read} bytes, {stays:?}");
            while !chain.has_room() {
                chain.advance(0, &Vec::new).unwrap();
                assert!(chain.out.pop().is_some(), "there is room again, {stays:?}");
            }
        }
    }

    #[test]
    fn stage_that_comes_when_a_full_latency_goes_sees_the_source() {
        let mut chain = chain(&[]);
        fill(&mut chain);
        set(&mut chain, 1, &[("latency", r#"{"latency":1}"#)]);
        fill(&mut chain);
        set(&mut chain, 2, &[("reset_peer", "{}")]);
        assert!(chain.has_room());
    }

    #[test]
    fn time_limit_is_kept_after_the_source_has_ended() {
        let mut chain = chain(&[("limit_time", r#"{"time":100}"#), ("latency", "{}")]);
        chain.accept(Item::End(Ending::Finished));
        assert_eq!(came(&mut chain, 0), "|FIN");
        assert_eq!(came(&mut chain, 100), "|CLOSE");
        assert_eq!(came(&mut chain, 200), "", "it ends once");
    }

    #[test]
    fn end_by_time_may_still_be_slow() {
        for limit in [
            ("limit_time", r#"{"time":10}"#),
            ("timeout", r#"{"timeout":10}"#),
        ] {
            let mut chain = chain(&[limit, ("slow_close", r#"{"delay":50}"#)]);
            for now_ms in [0, 10, 59] {
                assert_eq!(came(&mut chain, now_ms), "");
            }
            assert_eq!(came(&mut chain, 60), "|CLOSE");
        }
    }

    #[test]
    fn limit_of_data_waits_for_the_data() {
        let mut chain = chain(&[
            ("limit_data", r#"{"bytes":3}"#),
            ("latency", r#"{"latency":9}"#),
        ]);
        chain.accept(piece("abcd"));
        assert_eq!(came(&mut chain, 8), "");
        assert_eq!(came(&mut chain, 9), "abc|CLOSE");
    }
}
