//! One user of the load: takes a ticket, walks its journey, notes how each step went.
//!
//! A user holds one connection per target and one journey at a time. It knows nothing of goose
//! (`host.rs` runs it) and keeps no statistics (`recorder.rs` does). Read next: `attempt.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::plan::load::{OutcomeClass, Until};

use super::attempt::{Attempt, request, settle};
use super::draw;
use super::http::{Connection, Keep};
use super::journeys::{Step, Values};
use super::queue::Queue;
use super::shared::{Due, JourneyEnded, Note, Problem, Shared, StepEnded, StepResult};

const POLL_FIRST: Duration = Duration::from_millis(250);
const POLL_MAX: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct User {
    shared: Arc<Shared>,
    connections: Vec<Connection>,
}

impl User {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let targets = &shared.journeys.targets;
        let connections = targets.iter().cloned().map(Connection::new).collect();
        Self {
            shared,
            connections,
        }
    }

    /// Opens the connections before T0, so that their set-up is no part of any latency. A target
    /// that does not answer is no error yet: a fault may be meant to be there from the start.
    pub(crate) async fn connect(&mut self) {
        let within = self.shared.timeout;
        let mut connected = true;
        for connection in &mut self.connections {
            connected &= connection.open(within).await.is_ok();
        }
        self.shared
            .users_connected
            .fetch_add(connected.into(), Relaxed);
        self.shared.users_ready.fetch_add(1, Relaxed);
    }

    /// Takes tickets until there are no more, or the load is stopped.
    pub(crate) async fn serve(&mut self, queue: &Queue, deadline: Duration) {
        let shared = Arc::clone(&self.shared);
        let mut stopped = std::pin::pin!(shared.stop.cancelled());
        loop {
            let due = tokio::select! {
                biased;
                () = &mut stopped => break,
                due = queue.take() => match due {
                    Some(due) => due,
                    None => break,
                },
            };
            let waited = shared.clock.now_ns().saturating_sub(due.at_ns);
            if waited > deadline.as_nanos() as u64 {
                shared.note(Note::Dropped { due_ns: due.at_ns });
                continue;
            }
            shared.user_busy();
            self.walk(due).await;
            shared.user_idle();
        }
    }

    /// The closed model: walks again as soon as it was answered and has thought, until `end_ns`.
    /// Its tickets are due when it is free to take them, which is why it under-counts stalls.
    pub(crate) async fn repeat(
        &mut self,
        think: Duration,
        end_ns: u64,
        next_number: impl Fn() -> Option<u64>,
    ) {
        let shared = Arc::clone(&self.shared);
        while !shared.stop.is_cancelled() && shared.clock.now_ns() < end_ns {
            let Some(number) = next_number() else { break };
            let at_ns = shared.clock.now_ns();
            shared.ticket_issued(at_ns);
            shared.user_busy();
            self.walk(Due { number, at_ns }).await;
            shared.user_idle();
            self.pause(think).await;
        }
    }

    /// Walks the journey of a ticket to its end, whatever that is.
    pub(crate) async fn walk(&mut self, due: Due) {
        let shared = Arc::clone(&self.shared);
        let index = shared.journeys.of_ticket(due.number);
        let journey = &shared.journeys.journeys[index];
        let mut values = shared.journeys.values(due.number);
        let mut ended = JourneyEnded {
            journey: index,
            due_ns: due.at_ns,
            sent_ns: shared.clock.now_ns(),
            ended_ns: due.at_ns,
            complete: false,
            worst: OutcomeClass::Done,
        };
        let mut intended_ns = due.at_ns;
        for (at, step) in journey.steps.iter().enumerate() {
            if !self.think(step, &mut intended_ns, at == 0).await {
                break;
            }
            let trace = shared.journeys.trace(due.number, at);
            let sent_ns = shared.clock.now_ns();
            let result = self
                .step(step, journey.target, intended_ns, &values, &trace)
                .await;
            let ended_ns = shared.clock.now_ns();
            let goes_on = !matches!(
                result.problem,
                Some(Problem::Capture(_) | Problem::Stopped | Problem::Unsendable)
            ) && captured_all(step, &result);
            values.captured.extend(result.captured.iter().cloned());
            ended.worst = ended.worst.max(result.outcome);
            ended.ended_ns = ended_ns;
            shared.note(Note::Operation(Box::new(StepEnded {
                ticket: due.number,
                journey: index,
                step: at,
                key: Arc::clone(&values.key),
                intended_ns,
                sent_ns,
                ended_ns,
                result,
            })));
            ended.complete = goes_on && at + 1 == journey.steps.len();
            if !goes_on {
                break;
            }
            intended_ns = ended_ns;
        }
        shared.note(Note::Journey(ended));
    }

    /// Waits out the think time of a step and settles its intended start; false when the load was
    /// stopped first.
    async fn think(&self, step: &Step, intended_ns: &mut u64, first: bool) -> bool {
        let opened_ns = *intended_ns;
        *intended_ns += step.think.as_nanos() as u64;
        let left = intended_ns.saturating_sub(self.shared.clock.now_ns());
        if !step.think.is_zero() && left > 0 {
            self.pause(Duration::from_nanos(left)).await;
        }
        // The pacer opened the first step when its ticket was due.
        if first && self.shared.second(opened_ns) != self.shared.second(*intended_ns) {
            self.shared.operation_opened(*intended_ns);
            self.shared.operation_booked(opened_ns);
        }
        let stopped = !first && self.shared.stop.is_cancelled();
        if !first && !stopped {
            self.shared.operation_opened(*intended_ns);
        }
        !stopped
    }

    /// Sleeps, but not beyond a stop.
    async fn pause(&self, duration: Duration) {
        if duration.is_zero() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.shared.stop.cancelled() => {}
        }
    }

    async fn step(
        &mut self,
        step: &Step,
        target: usize,
        intended_ns: u64,
        values: &Values<'_>,
        trace: &str,
    ) -> StepResult {
        match &step.until {
            Some(until) => {
                self.poll(step, until, target, intended_ns, values, trace)
                    .await
            }
            None => {
                let within = self.shared.timeout;
                let attempt = self.attempt(step, target, values, (trace, 0), within).await;
                settle(step, attempt)
            }
        }
    }

    /// Asks again until the answer holds one of the values. One operation, timed to the match.
    async fn poll(
        &mut self,
        step: &Step,
        until: &Until,
        target: usize,
        intended_ns: u64,
        values: &Values<'_>,
        trace: &str,
    ) -> StepResult {
        let deadline_ns = intended_ns + until.within.as_nanos() as u64;
        let left = |shared: &Shared| {
            Duration::from_nanos(deadline_ns.saturating_sub(shared.clock.now_ns()))
        };
        let mut pause = POLL_FIRST;
        let mut requests = 0;
        loop {
            // A user that comes late still asks once.
            let within = left(&self.shared).clamp(Duration::from_millis(1), self.shared.timeout);
            let attempt = self
                .attempt(step, target, values, (trace, requests), within)
                .await;
            requests += 1;
            let matched = attempt.matches(until);
            let mut result = settle(step, attempt);
            result.requests = requests;
            let settled = matches!(result.outcome, OutcomeClass::Done | OutcomeClass::Accepted);
            if (matched && settled) || result.problem == Some(Problem::Stopped) {
                return result;
            }
            if left(&self.shared) <= pause {
                return StepResult {
                    outcome: OutcomeClass::Unsettled,
                    problem: result.problem.or(Some(Problem::Unsettled)),
                    captured: Vec::new(),
                    ..result
                };
            }
            self.pause(pause).await;
            if self.shared.stop.is_cancelled() {
                let problem = Some(Problem::Stopped);
                let outcome = OutcomeClass::Unsettled;
                return StepResult {
                    outcome,
                    problem,
                    ..result
                };
            }
            pause = (pause * 2).min(POLL_MAX);
        }
    }

    /// Sends one request and reads its answer.
    async fn attempt(
        &mut self,
        step: &Step,
        target: usize,
        values: &Values<'_>,
        (trace, request_number): (&str, u32),
        within: Duration,
    ) -> Attempt {
        let connection = &mut self.connections[target];
        let traceparent = draw::traceparent(trace, request_number);
        let Ok(request) = request(step, connection.target(), values, &traceparent) else {
            return Attempt::failed(Problem::Unsendable);
        };
        let keep = match step.reads_body() {
            true => Keep::Body,
            false => Keep::Nothing,
        };
        let answer = tokio::select! {
            biased;
            answer = connection.exchange(request, within, keep) => answer,
            () = self.shared.cut.cancelled() => return Attempt::failed(Problem::Stopped),
        };
        Attempt::of(step, answer)
    }
}

fn captured_all(step: &Step, result: &StepResult) -> bool {
    step.capture.len() == result.captured.len()
}

#[cfg(test)]
mod tests;
