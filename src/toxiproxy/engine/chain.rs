//! The chain of stages of one direction of one connection, and how it becomes another one while bytes
//! are in it. Pure: no clock, no socket.

use std::sync::Arc;

use super::connection::Identity;
use super::draws::Draws;
use super::set::{ToxicSet, ToxicSpec};
use crate::toxiproxy::clock::Nanos;
use crate::toxiproxy::toxics::{
    Ending, Inbox, Item, Removal, Role, SMALL_ROOM, Scene, Stage, Step, Tally,
};
use crate::toxiproxy::wire::Stream;

/// The stages between a source and [`Chain::out`].
pub(crate) struct Chain {
    stream: Stream,
    slots: Vec<Slot>,
    /// What is to be written to the destination.
    pub(crate) out: Inbox,
}

/// A toxic's place in the chain.
struct Slot {
    spec: Arc<ToxicSpec>,
    inbox: Inbox,
    /// `None` where the toxicity spares this connection: everything passes.
    stage: Option<Box<dyn Stage>>,
    draws: Draws,
    tally: Tally,
    /// It passed an end, so nothing may follow.
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
        }
    }

    /// Whether more may be read from the source.
    pub(crate) fn has_room(&self) -> bool {
        match self.slots.first() {
            Some(slot) => slot.inbox.weight() < slot.spec.kind.room,
            None => self.out.weight() < SMALL_ROOM,
        }
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
                // A reset asks nobody for room: not even a peer who does not read.
                while self.room_after(place) || self.slots[place].resets() {
                    match self.slots[place].step(now, open) {
                        Step::Pass(item) => {
                            moved = true;
                            self.pass(place, item);
                        }
                        Step::Idle => break,
                        Step::Until(time) => {
                            wake_at = Some(wake_at.map_or(time, |other: Nanos| other.min(time)));
                            break;
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
            Some(next) => next.inbox.weight() < next.spec.kind.room,
            None => self.out.weight() < SMALL_ROOM,
        }
    }

    fn pass(&mut self, place: usize, item: Item) {
        match self.slots.get_mut(place + 1) {
            Some(next) => next.inbox.push(item),
            None => self.out.push(item),
        }
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

    /// Whether it ends the connection whatever comes.
    fn resets(&self) -> bool {
        self.stage.is_some() && self.spec.kind.role == Role::Reset
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

    fn step(&mut self, now: Nanos, open: &dyn Fn() -> Vec<u64>) -> Step {
        if self.ended {
            self.inbox.clear();
            return Step::Idle;
        }
        let Some(stage) = &mut self.stage else {
            return self.inbox.pop().map_or(Step::Idle, Step::Pass);
        };
        let mut scene = Scene {
            now,
            draws: &mut self.draws,
            tally: &mut self.tally,
            shared: &self.spec.shared,
        };
        let closing = matches!(self.inbox.front(), Some(Item::End(Ending::Close)));
        let step = stage.step(&mut self.inbox, &mut scene);
        match &step {
            Step::Pass(Item::End(ending)) => {
                self.ended = true;
                if *ending == Ending::Close && !closing {
                    self.tally.closed();
                    self.tally.cut_requests(open());
                }
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
