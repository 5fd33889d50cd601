//! `loss` (extension): a `share` of segments (1460 bytes) is lost and sent again, as TCP does: nothing is
//! missing, but that segment and all behind it are late by the retransmission time-out, `timeout` ms (200
//! unless set), doubled each time it is lost again. Drawn by place in the stream, however it was cut.

use super::{Attributes, Extra, Inbox, Item, Kind, Role, SMALL_ROOM, Scene, Stage, Step};
use crate::toxiproxy::clock::{MILLISECOND, Nanos, millis};
use crate::toxiproxy::engine::Draws;

pub(super) const KIND: Kind = Kind {
    name: "loss",
    attributes: &["timeout"],
    stage: |attributes| {
        Box::new(Loss {
            odds: Odds::new(attributes),
            clear: None,
            stall: 0,
            resumes_at: None,
            behind: 0,
        })
    },
    room: SMALL_ROOM,
    role: Role::Bytes,
    extras: &[Extra::share("share")],
};

/// What a segment carries on most networks.
const SEGMENT: u64 = 1460;

/// Linux' shortest time-out.
const SHORTEST_TIMEOUT: Nanos = 200 * MILLISECOND;

/// How often a segment may be lost again: beyond, real connections give up.
const RETRIES_MAX: u32 = 6;

struct Loss {
    odds: Odds,
    /// Bytes that pass before the next lost segment, once drawn.
    clear: Option<u64>,
    /// How long that segment is late.
    stall: Nanos,
    /// When the lost segment in front has come through.
    resumes_at: Option<Nanos>,
    /// When the last lost segment came through: nothing behind it is earlier.
    behind: Nanos,
}

struct Odds {
    share: f64,
    timeout: Nanos,
}

impl Odds {
    fn new(attributes: &Attributes) -> Self {
        let timeout = match millis(attributes.get("timeout")) {
            0 => SHORTEST_TIMEOUT,
            timeout => timeout,
        };
        Self {
            share: attributes.share("share", 0.0),
            timeout,
        }
    }

    /// Bytes until the next lost segment, and how late it is.
    fn draw(&self, draws: &mut Draws) -> (u64, Nanos) {
        // Number of segments before the first lost one: geometric, by inversion of its distribution.
        let segments = (1.0 - draws.unit()).ln() / (-self.share).ln_1p();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and the cast saturates"
        )]
        let clear = (segments as u64).saturating_mul(SEGMENT);
        let again = (0..RETRIES_MAX).take_while(|_| draws.unit() < self.share);
        let times = (1_u64 << (again.count() + 1)) - 1;
        (clear, self.timeout.saturating_mul(times))
    }
}

impl Stage for Loss {
    fn step(&mut self, inbox: &mut Inbox, scene: &mut Scene<'_>) -> Step {
        let (item, length, at) = match inbox.front() {
            Some(item @ Item::Data(piece)) if self.odds.share > 0.0 => {
                (item, piece.data.len(), piece.at)
            }
            _ => return inbox.pop().map_or(Step::Idle, Step::Pass),
        };
        let clear = match self.clear {
            Some(clear) => clear,
            None => {
                let (clear, stall) = self.odds.draw(scene.draws);
                self.stall = stall;
                *self.clear.insert(clear)
            }
        };
        if clear > 0 {
            let length = length.min(usize::try_from(clear).unwrap_or(usize::MAX));
            self.clear = Some(clear - length as u64);
            return inbox.take_front(length).map_or(Step::Idle, |mut piece| {
                piece.at = piece.at.max(self.behind);
                Step::Pass(Item::Data(piece))
            });
        }
        let resumes_at = match self.resumes_at {
            Some(time) => time,
            None => {
                scene.tally.delayed(item);
                *self
                    .resumes_at
                    .insert(at.max(self.behind).saturating_add(self.stall))
            }
        };
        if resumes_at > scene.now {
            return Step::Until(resumes_at);
        }
        (self.resumes_at, self.behind) = (None, resumes_at);
        // The lost segment passes; what is lost next is drawn from behind it.
        let (clear, stall) = self.odds.draw(scene.draws);
        (self.clear, self.stall) = (Some(clear.saturating_add(SEGMENT)), stall);
        self.step(inbox, scene)
    }

    /// What is being waited for goes at once; the rest is drawn anew.
    fn update(&mut self, attributes: &Attributes, _: Nanos) {
        self.odds = Odds::new(attributes);
        (self.clear, self.resumes_at) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::Bench;

    /// Bytes that came through by each multiple of 100 ms.
    fn progress(attributes: &str, step: usize) -> Vec<usize> {
        let mut bench = Bench::seeded(5, "loss", attributes);
        for _ in 0..73_000 / step {
            bench.send(0, &"x".repeat(step));
        }
        let mut sum = 0;
        (0..200)
            .map(|tick| {
                sum += bench.run(tick * 100).len();
                sum
            })
            .collect()
    }

    #[test]
    fn lost_segments_hold_back_the_rest_and_nothing_is_missing() {
        let whole = progress(r#"{"share":0.1}"#, 73_000);
        assert!(
            whole[0] < 73_000 && whole[0].is_multiple_of(1460),
            "{whole:?}"
        );
        assert_eq!(whole.last(), Some(&73_000));
        assert_eq!(whole[1], whole[0], "the shortest time-out is 200 ms");
        assert!(whole[2] > whole[0]);
        assert_eq!(progress(r#"{"share":0.1}"#, 100), whole);
    }

    #[test]
    fn timeout_can_be_set_and_no_share_loses_nothing() {
        assert_eq!(progress("{}", 1000)[0], 73_000);
        let slow = progress(r#"{"share":0.1,"timeout":5000}"#, 1000);
        assert_eq!(slow[49], slow[0]);
        assert!(slow[50] > slow[0]);
    }

    #[test]
    fn certain_loss_ends_and_removal_flushes() {
        let mut bench = Bench::new("loss", r#"{"share":1.0,"timeout":1}"#);
        bench.send(0, "abc");
        bench.finish();
        assert_eq!(bench.run(0), "");
        assert_eq!(bench.run(127), "abc|FIN");
        assert_eq!(bench.stats().delayed_bytes, 3);
        let mut bench = Bench::new("loss", r#"{"share":1.0}"#);
        bench.send(0, "abc");
        bench.run(0);
        assert_eq!(bench.remove(), "abc");
    }
}
