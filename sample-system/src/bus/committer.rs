//! Group commit: one task owns all writes, and commits together what came in together.
//!
//! Whoever asked hears about it after the commit, never before.

use tokio::sync::{mpsc, oneshot};

use super::queues::{self, Answer, Operation};
use crate::kit::error::ApiError;
use crate::kit::shutdown::Stop;
use crate::kit::store::{Store, StoreError};

/// Operations that may wait; one more is refused.
const WAITING_MAX: usize = 1_024;
/// Operations per commit.
const GROUP: usize = 64;

struct Job {
    operation: Operation,
    done: oneshot::Sender<Result<Answer, StoreError>>,
}

/// Where operations are handed in; clones share the task.
#[derive(Clone)]
pub(super) struct Committer(mpsc::Sender<Job>);

/// The task that carries them out.
pub(super) struct Work {
    store: Store,
    jobs: mpsc::Receiver<Job>,
}

impl Committer {
    pub(super) fn new(store: Store) -> (Self, Work) {
        let (sender, jobs) = mpsc::channel(WAITING_MAX);
        (Self(sender), Work { store, jobs })
    }

    /// Carries out one operation; answers after its commit.
    pub(super) async fn commit(&self, operation: Operation) -> Result<Answer, ApiError> {
        let (done, answer) = oneshot::channel();
        let busy = |_full| ApiError::unavailable("busy", "too many operations wait").retry_after(1);
        self.0.try_send(Job { operation, done }).map_err(busy)?;
        match answer.await {
            Ok(result) => Ok(result?),
            Err(_gone) => Err(ApiError::unavailable("stopping", "the bus is stopping")),
        }
    }
}

impl Work {
    /// Works until `stop`; what came in before is still carried out.
    pub(super) async fn run(mut self, stop: Stop) {
        let mut group = Vec::with_capacity(GROUP);
        loop {
            // In this order: what waits is carried out before the stop is looked at.
            let taken = tokio::select! {
                biased;
                taken = self.jobs.recv_many(&mut group, GROUP) => taken,
                () = stop.wait() => 0,
            };
            if taken == 0 {
                return;
            }
            self.commit(&mut group).await;
        }
    }

    /// One transaction for the whole group. If it fails, each is tried alone, so that one bad operation
    /// cannot take its neighbours with it.
    async fn commit(&self, group: &mut Vec<Job>) {
        let operations: Vec<&Operation> = group.iter().map(|job| &job.operation).collect();
        match self.transact(&operations).await {
            Ok(answers) => {
                for (job, answer) in group.drain(..).zip(answers) {
                    drop(job.done.send(Ok(answer)));
                }
            }
            Err(error) if group.len() > 1 => {
                tracing::warn!(%error, "a group failed, trying each operation alone");
                for job in group.drain(..) {
                    let alone = self.transact(&[&job.operation]).await;
                    let first = alone.map(|answers| answers.into_iter().next().unwrap_or_default());
                    drop(job.done.send(first));
                }
            }
            Err(error) => {
                if let Some(job) = group.pop() {
                    drop(job.done.send(Err(error)));
                }
            }
        }
    }

    async fn transact(&self, operations: &[&Operation]) -> Result<Vec<Answer>, StoreError> {
        let mut tx = self.store.begin().await?;
        let mut answers = Vec::with_capacity(operations.len());
        for operation in operations {
            answers.push(queues::apply(&mut tx, operation).await?);
        }
        tx.commit().await?;
        Ok(answers)
    }
}
