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
