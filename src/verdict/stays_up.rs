//! `stays-up`: no service ends unless the run ended it.
//!
//! One that exits or dies of a signal of its own making fails this. A SIGKILL that is not ours is
//! somebody else's doing (out of memory?), and makes the run inconclusive. One that was never ready
//! never was up: the run could not be carried out, which is no verdict on the system.

use crate::evidence::Event;
use crate::plan::ServiceName;

use super::Status;
use super::case::Case;
use super::context::Context;
use super::text;

pub(crate) fn check(context: &Context<'_>) -> Case {
    let mut case = Case::new("services");
    context.expect_exercised(&mut case);
    let faults = context.plan.faults.iter();
    case.missing_all(faults.flat_map(|fault| context.fault_gaps(fault, None)));
    let lasting = context.plan.system.services.iter().filter(|it| !it.once);
    case.n = lasting.count() as u64;
    let mut ended = 0;
    for it in &context.evidence.events {
        let Event::ServiceExited {
            service,
            code,
            signal,
            by_us: false,
            incarnation,
            log_tail,
            ..
        } = &it.event
        else {
            continue;
        };
        if *signal == Some(9) || is_job(context, service.as_str(), *code) {
            continue;
        }
        if died_in_boot(context, service) {
            continue;
        }
        let how = match (signal, code) {
            (Some(signal), _) => format!("died of signal {signal}"),
            (None, Some(code)) => format!("exited with {code}"),
            (None, None) => "ended".into(),
        };
        let at = text::after(it.at_ns, context.t0);
        let word = log_tail
            .last()
            .map_or(String::new(), |line| format!(": {line}"));
        case.violated(format!("`{service}` {how} at {at}{word}"));
        case.blame(service.as_str());
        let text = format!("{how}, incarnation {incarnation}{word}");
        case.find(Status::Fail, Some(it.at_ns), service.as_str(), text);
        ended += 1;
    }
    case.value = Some(text::count(ended, "service"));
    case.limit = Some("0 services".into());
    case.measured = format!(
        "none of {} ended unless the run ended it",
        text::count(case.n, "service")
    );
    case
}

/// Whether the run came no further than its boot, and this service not even that far.
fn died_in_boot(context: &Context<'_>, wanted: &ServiceName) -> bool {
    !context.evidence.events.iter().any(|it| match &it.event {
        Event::LoadStarted { .. } => true,
        Event::ServiceReady { service, .. } => service == wanted,
        _ => false,
    })
}

/// A job is there to end, with 0.
fn is_job(context: &Context<'_>, service: &str, code: Option<i32>) -> bool {
    code == Some(0) && context.plan.service(service).is_some_and(|it| it.once)
}
