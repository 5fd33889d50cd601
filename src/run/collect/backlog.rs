//! Reading a backlog: a number that must reach zero before the run counts as drained.

use serde_json::Value;

use crate::plan::BacklogPlan;
use crate::plan::jq::{self, Filter};
use crate::plan::system::Fetch;

use super::{Context, http, sql};

/// A backlog with its compiled filter.
pub(crate) struct Backlog {
    pub(crate) plan: BacklogPlan,
    select: Filter,
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
                    select,
                })
            })
            .collect()
    }

    /// Reads it once. Null, a text or nothing is an error: not knowing is not zero.
    pub(crate) async fn read(&self, context: &Context) -> Result<f64, String> {
        let answer = match &self.plan.fetch {
            Fetch::Http(fetch) => {
                http::Pages::new(&context.client, fetch, &context.bindings)?
                    .get(None)
                    .await?
            }
            Fetch::Sql { database, query } => {
                let mut rows = Vec::new();
                let keep = |row| {
                    rows.push(row);
                    Ok(())
                };
                sql::read(&context.database_url(database)?, query, keep).await?;
                Value::Array(rows)
            }
            Fetch::Log { .. } | Fetch::Operations { .. } => {
                return Err("a backlog is read by http or sql".into());
            }
        };
        match jq::run(&self.select, &answer).next().transpose()? {
            Some(Value::Number(number)) => number
                .as_f64()
                .ok_or_else(|| format!("`{number}` is out of range")),
            Some(other) => Err(format!("`select` yields `{other}`, not a number")),
            None => Err("`select` yields nothing, not a number".into()),
        }
    }
}
