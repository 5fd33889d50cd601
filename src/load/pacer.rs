//! Hands out tickets when they are due.
//!
//! A task on the users' own thread, woken by a timer of the kernel: whoever hears it ring goes on
//! with the request, and no second thread has to be woken first. It never waits for anybody: a
//! ticket that finds the queue full is dropped and counted.

use std::sync::atomic::Ordering::Relaxed;

use crate::bell::Bell;
use crate::evidence::clock::mono_ns;

use super::queue::Queue;
use super::schedule::Schedule;
use super::shared::{Due, Note, Shared};

/// Issues every ticket of the schedule when it is due. Returns at its end or at a stop.
pub(crate) async fn pace(schedule: Schedule, shared: &Shared, queue: &Queue, bell: &Bell) {
    let t0_ns = shared.t0_ns();
    let mut stopped = std::pin::pin!(shared.stop.cancelled());
    for ticket in schedule {
        let due_ns = ticket.due.as_nanos() as u64;
        shared.issued_to_ns.store(due_ns, Relaxed);
        let at_ns = t0_ns + due_ns;
        tokio::select! {
            biased;
            () = &mut stopped => break,
            () = until(shared.clock.to_mono(at_ns), bell) => {}
        }
        shared.ticket_issued(at_ns);
        let number = ticket.number;
        if !queue.put(Due { number, at_ns }) {
            shared.note(Note::Dropped { due_ns: at_ns });
        }
    }
    shared.issued_to_ns.store(u64::MAX, Relaxed);
    queue.close();
}

async fn until(mono_at_ns: u64, bell: &Bell) {
    while mono_ns() < mono_at_ns {
        bell.set(mono_at_ns);
        // Its runtime has ended, and nobody polls this again.
        if bell.rung().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
