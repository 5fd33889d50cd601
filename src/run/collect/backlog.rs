//! Reading a backlog: a number that must reach zero before the run counts as drained.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

use crate::plan::BacklogPlan;
use crate::plan::jq::{self, Filter};
use crate::plan::system::Fetch;

use super::aside::Aside;
use super::{Context, http, sql};

/// A backlog with its compiled filter.
pub(crate) struct Backlog {
    pub(crate) plan: BacklogPlan,
    select: Arc<Filter>,
    aside: Aside,
}

impl Backlog {
    /// Readers of all backlogs of a plan.
    pub(crate) fn all(context: &Context) -> Result<Vec<Self>, String> {
        let backlogs = context.plan.system.backlogs.iter();
        backlogs
            .map(|plan| {
                let select = jq::compile(&plan.select)
                    .map_err(|error| format!("backlog `{}`: {error}", plan.name))?;
                Ok(Self {
                    plan: plan.clone(),
                    select: Arc::new(select),
                    aside: Aside::default(),
                })
            })
            .collect()
    }

    /// Reads it once. Null, a text or nothing is an error: not knowing is not zero.
    pub(crate) async fn read(&self, context: &Context) -> Result<f64, String> {
        let answer = match &self.plan.fetch {
            Fetch::Http(fetch) => {
                http::Pages::new(&context.client, fetch, &context.bindings)
                    .get(None)
                    .await?
            }
            Fetch::Sql { database, query } => {
                let url = context.database_url(database)?;
                let (taker, mut taken) = mpsc::channel(1);
                let all = async {
                    let mut all = Vec::new();
                    while let Some(rows) = taken.recv().await {
                        all.extend(rows);
                    }
                    Ok(all)
                };
                let (_, rows) = tokio::try_join!(sql::read(&url, query, taker), all)?;
                Value::Array(rows)
            }
            Fetch::Log { .. } | Fetch::Operations { .. } => {
                return Err("a backlog is read by http or sql".into());
            }
        };
        let select = Arc::clone(&self.select);
        let select = move || jq::run(&select, &answer).next().transpose();
        match self.aside.run(select).await?? {
            Some(Value::Number(number)) => number
                .as_f64()
                .ok_or_else(|| format!("`{number}` is out of range")),
            Some(other) => Err(format!("`select` yields `{other}`, not a number")),
            None => Err("`select` yields nothing, not a number".into()),
        }
    }
}
