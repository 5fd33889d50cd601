//! The order as a fold over its events: pure, no clock, no database, no network.
//!
//! An event is a fact; [`Order::apply`] is the only place that says which fact may follow which. The event store
//! (`events.rs`) keeps them, the saga (`machine.rs`) decides which one to try next. Types that start with `order.`
//! leave the service through the outbox; `progress.*` are for this service alone.

use serde::{Deserialize, Serialize};

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// Which product.
    pub(super) sku: String,
    /// How many, at least 1.
    pub(super) quantity: i64,
}

/// What a customer asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wish {
    /// Who orders.
    pub(super) user_id: String,
    /// What, at least one line.
    pub(super) items: Vec<Line>,
    /// How it is paid: `card`, `points`, …; the provider's stub declines `card-declined`.
    pub(super) method: String,
}

/// Why an order is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reason {
    /// The user does not exist.
    UnknownUser,
    /// A product does not exist.
    UnknownProduct,
    /// Not enough stock.
    OutOfStock,
    /// The provider said no.
    Declined,
    /// Not paid in time.
    Deadline,
    /// The customer changed their mind before the order was confirmed.
    Customer,
}

impl Reason {
    /// Rejected orders were refused by somebody; the others were cancelled.
    #[must_use]
    pub(super) fn rejects(self) -> bool {
        !matches!(self, Self::Deadline | Self::Customer)
    }
}

/// A fact about one order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub(super) enum Fact {
    /// The order exists.
    #[serde(rename = "order.placed")]
    Placed(Wish),
    /// Its price is settled.
    #[serde(rename = "progress.priced")]
    Priced {
        /// What is due, in cents.
        total_cents: i64,
        /// `catalog`, or `last-known` when the catalog did not answer.
        source: String,
    },
    /// Stock is held for it.
    #[serde(rename = "progress.reserved")]
    Reserved {},
    /// It is paid.
    #[serde(rename = "progress.charged")]
    Charged {
        /// The provider's own reference.
        psp_ref: String,
    },
    /// The point of no return: from here on it only goes forward.
    #[serde(rename = "order.confirmed")]
    Confirmed {
        /// Who ordered.
        user_id: String,
        /// What is owed, in cents.
        total_cents: i64,
    },
    /// It was given up; what happened so far is being undone.
    #[serde(rename = "progress.cancelling")]
    Cancelling {
        /// Why.
        reason: Reason,
    },
    /// Undone, by time or by the customer.
    #[serde(rename = "order.cancelled")]
    Cancelled {
        /// Who ordered.
        user_id: String,
        /// Why.
        reason: Reason,
    },
    /// Undone, because somebody refused it.
    #[serde(rename = "order.rejected")]
    Rejected {
        /// Who ordered.
        user_id: String,
        /// Why.
        reason: Reason,
    },
}

impl Fact {
    /// The event's type, also its routing key on the bus.
    #[must_use]
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Placed(_) => "order.placed",
            Self::Priced { .. } => "progress.priced",
            Self::Reserved {} => "progress.reserved",
            Self::Charged { .. } => "progress.charged",
            Self::Confirmed { .. } => "order.confirmed",
            Self::Cancelling { .. } => "progress.cancelling",
            Self::Cancelled { .. } => "order.cancelled",
            Self::Rejected { .. } => "order.rejected",
        }
    }

    /// Whether other services hear of it.
    #[must_use]
    pub(super) fn is_public(&self) -> bool {
        self.kind().starts_with("order.")
    }

    /// The state that this fact brings the order to; `None` = the state stays.
    #[must_use]
    pub(super) fn leads_to(&self) -> Option<State> {
        match self {
            Self::Placed(_) => Some(State::Placed),
            Self::Priced { .. } => None,
            Self::Reserved {} => Some(State::Reserved),
            Self::Charged { .. } => Some(State::Charged),
            Self::Confirmed { .. } => Some(State::Confirmed),
            Self::Cancelling { .. } => Some(State::Cancelling),
            Self::Cancelled { .. } => Some(State::Cancelled),
            Self::Rejected { .. } => Some(State::Rejected),
        }
    }

    /// By how many cents this fact changes what the customer owes; the sum over an order's events is its debt.
    #[must_use]
    pub(super) fn owes_cents(&self) -> i64 {
        match self {
            Self::Confirmed { total_cents, .. } => *total_cents,
            _ => 0,
        }
    }
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum State {
    /// Accepted, nothing done yet.
    Placed,
    /// Stock is held.
    Reserved,
    /// Paid.
    Charged,
    /// Past the point of no return.
    Confirmed,
    /// Given up, being undone.
    Cancelling,
    /// Undone.
    Cancelled,
    /// Undone after a refusal.
    Rejected,
}

impl State {
    /// The name in answers and tables, such as `CONFIRMED`.
    #[must_use]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Placed => "PLACED",
            Self::Reserved => "RESERVED",
            Self::Charged => "CHARGED",
            Self::Confirmed => "CONFIRMED",
            Self::Cancelling => "CANCELLING",
            Self::Cancelled => "CANCELLED",
            Self::Rejected => "REJECTED",
        }
    }

    /// Whether nothing can change any more.
    #[must_use]
    pub(super) fn is_final(self) -> bool {
        matches!(self, Self::Confirmed | Self::Cancelled | Self::Rejected)
    }
}

/// A fact that may not follow the ones before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{fact}` cannot follow at version {version} in state {state:?}")]
pub(super) struct Illegal {
    /// The fact's type.
    pub(super) fact: &'static str,
    /// The order's version before it.
    pub(super) version: i64,
    /// The order's state before it; `None` before it exists.
    pub(super) state: Option<State>,
}

/// One order: the fold of its events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Order {
    /// Events applied so far; the next one has `version + 1`.
    pub(super) version: i64,
    /// `None` before `order.placed`.
    pub(super) state: Option<State>,
    /// What was asked for.
    pub(super) wish: Option<Wish>,
    /// What is due, once priced.
    pub(super) total_cents: Option<i64>,
    /// Stock is held.
    pub(super) reserved: bool,
    /// Money was taken.
    pub(super) charged: bool,
    /// Why it was given up.
    pub(super) reason: Option<Reason>,
}

impl Order {
    /// The order after these facts.
    ///
    /// # Errors
    /// The first fact that may not follow those before it.
    pub(super) fn fold<'a>(facts: impl IntoIterator<Item = &'a Fact>) -> Result<Self, Illegal> {
        let mut order = Self::default();
        for fact in facts {
            order.apply(fact)?;
        }
        Ok(order)
    }

    /// Whether `fact` may come next.
    #[must_use]
    pub(super) fn allows(&self, fact: &Fact) -> bool {
        let open = matches!(
            self.state,
            Some(State::Placed | State::Reserved | State::Charged)
        );
        match fact {
            Fact::Placed(_) => self.state.is_none(),
            Fact::Priced { .. } => open && self.total_cents.is_none(),
            Fact::Reserved {} => open && self.total_cents.is_some() && !self.reserved,
            Fact::Charged { .. } => open && self.total_cents.is_some() && !self.charged,
            Fact::Confirmed { total_cents, .. } => {
                open && self.reserved && self.charged && self.total_cents == Some(*total_cents)
            }
            Fact::Cancelling { .. } => open,
            Fact::Cancelled { reason, .. } => self.ends_with(*reason) && !reason.rejects(),
            Fact::Rejected { reason, .. } => self.ends_with(*reason) && reason.rejects(),
        }
    }

    fn ends_with(&self, reason: Reason) -> bool {
        self.state == Some(State::Cancelling) && self.reason == Some(reason)
    }

    /// Takes one more fact in.
    ///
    /// # Errors
    /// The fact may not follow; the order is unchanged.
    pub(super) fn apply(&mut self, fact: &Fact) -> Result<(), Illegal> {
        if !self.allows(fact) {
            return Err(Illegal {
                fact: fact.kind(),
                version: self.version,
                state: self.state,
            });
        }
        self.version += 1;
        self.state = fact.leads_to().or(self.state);
        match fact {
            Fact::Placed(wish) => self.wish = Some(wish.clone()),
            Fact::Priced { total_cents, .. } => self.total_cents = Some(*total_cents),
            Fact::Reserved {} => self.reserved = true,
            Fact::Charged { .. } => self.charged = true,
            Fact::Cancelling { reason } => self.reason = Some(*reason),
            Fact::Confirmed { .. } | Fact::Cancelled { .. } | Fact::Rejected { .. } => {}
        }
        Ok(())
    }

    /// The fact that ends an order that was given up.
    #[must_use]
    pub(super) fn ending(&self) -> Option<Fact> {
        let (reason, user_id) = (self.reason?, self.wish.as_ref()?.user_id.clone());
        Some(if reason.rejects() {
            Fact::Rejected { user_id, reason }
        } else {
            Fact::Cancelled { user_id, reason }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn placed() -> Fact {
        Fact::Placed(Wish {
            user_id: "u1".into(),
            items: vec![Line {
                sku: "A1".into(),
                quantity: 2,
            }],
            method: "card".into(),
        })
    }

    fn priced() -> Fact {
        Fact::Priced {
            total_cents: 500,
            source: "catalog".into(),
        }
    }

    fn charged() -> Fact {
        Fact::Charged {
            psp_ref: "p".into(),
        }
    }

    fn confirmed() -> Fact {
        Fact::Confirmed {
            user_id: "u1".into(),
            total_cents: 500,
        }
    }

    fn cancelling() -> Fact {
        Fact::Cancelling {
            reason: Reason::Deadline,
        }
    }

    #[test]
    fn an_order_is_confirmed_only_when_reserved_and_charged() {
        let mut order = Order::fold(&[placed(), priced(), Fact::Reserved {}]).unwrap();
        assert!(order.apply(&confirmed()).is_err());
        order.apply(&charged()).unwrap();
        order.apply(&confirmed()).unwrap();
        assert_eq!((order.state, order.version), (Some(State::Confirmed), 5));
    }

    #[test]
    fn reserve_and_charge_come_in_either_order() {
        for middle in [
            [Fact::Reserved {}, charged()],
            [charged(), Fact::Reserved {}],
        ] {
            let mut facts = vec![placed(), priced()];
            facts.extend(middle);
            facts.push(confirmed());
            assert_eq!(Order::fold(&facts).unwrap().state, Some(State::Confirmed));
        }
    }

    #[test]
    fn a_confirmed_order_cannot_be_given_up() {
        let facts = [
            placed(),
            priced(),
            Fact::Reserved {},
            charged(),
            confirmed(),
        ];
        assert!(!Order::fold(&facts).unwrap().allows(&cancelling()));
    }

    #[test]
    fn the_ending_follows_the_reason() {
        let order = Order::fold(&[placed(), cancelling()]).unwrap();
        let ending = order.ending().unwrap();
        assert_eq!(ending.kind(), "order.cancelled");
        let declined = Fact::Cancelling {
            reason: Reason::Declined,
        };
        let order = Order::fold(&[placed(), declined]).unwrap();
        assert_eq!(order.ending().unwrap().kind(), "order.rejected");
    }

    #[test]
    fn a_fact_reads_back_from_its_type_and_data() {
        for fact in [
            placed(),
            priced(),
            Fact::Reserved {},
            charged(),
            confirmed(),
            cancelling(),
        ] {
            let json = serde_json::to_value(&fact).unwrap();
            assert_eq!(json["type"], fact.kind());
            assert_eq!(serde_json::from_value::<Fact>(json).unwrap(), fact);
        }
    }

    fn any_fact() -> impl Strategy<Value = Fact> {
        prop_oneof![
            Just(placed()),
            Just(priced()),
            Just(Fact::Reserved {}),
            Just(charged()),
            Just(confirmed()),
            Just(cancelling()),
            Just(Fact::Cancelled {
                user_id: "u1".into(),
                reason: Reason::Deadline
            }),
            Just(Fact::Rejected {
                user_id: "u1".into(),
                reason: Reason::Declined
            }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_tried_a_final_order_never_moves_and_a_debt_is_confirmed(
            tries in proptest::collection::vec(any_fact(), 0..40)
        ) {
            let (mut order, mut owes) = (Order::default(), 0);
            for fact in &tries {
                let before = order.clone();
                match order.apply(fact) {
                    Ok(()) => {
                        prop_assert!(!before.state.is_some_and(State::is_final));
                        prop_assert_eq!(order.version, before.version + 1);
                        owes += fact.owes_cents();
                    }
                    Err(_) => prop_assert_eq!(&order, &before),
                }
            }
            let due = if order.state == Some(State::Confirmed) { 500 } else { 0 };
            prop_assert_eq!(owes, due);
        }
    }
}
