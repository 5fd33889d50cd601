//! Mistakes of meaning: the file reads well but says something that cannot be. All of them are
//! reported at once.

use super::{Diagnostic, Span, suggestion};

/// What a name should have named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noun {
    /// A service.
    Service,
    /// A port of a service.
    Port,
    /// A link.
    Link,
    /// A fault.
    Fault,
    /// A journey.
    Journey,
    /// A step of a journey.
    Operation,
    /// A feed.
    Feed,
    /// A field of a feed.
    Field,
    /// A database.
    Database,
    /// An evidence source.
    Evidence,
    /// A saga type.
    Saga,
    /// A consumer.
    Consumer,
    /// A step of a saga.
    SagaStep,
    /// A property.
    Property,
}

impl Noun {
    fn id(self) -> &'static str {
        match self {
            Self::Service => "scenario::unknown-service",
            Self::Port => "scenario::unknown-port",
            Self::Link => "scenario::unknown-link",
            Self::Fault => "scenario::unknown-fault",
            Self::Journey => "scenario::unknown-journey",
            Self::Operation => "scenario::unknown-operation",
            Self::Feed => "scenario::unknown-feed",
            Self::Field => "scenario::unknown-field",
            Self::Database => "scenario::unknown-database",
            Self::Evidence => "scenario::unknown-evidence",
            Self::Saga => "scenario::unknown-saga",
            Self::Consumer => "scenario::unknown-consumer",
            Self::SagaStep => "scenario::unknown-saga-step",
            Self::Property => "scenario::unknown-property",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Port => "port",
            Self::Link => "link",
            Self::Fault => "fault",
            Self::Journey => "journey",
            Self::Operation => "operation",
            Self::Feed => "feed",
            Self::Field => "field",
            Self::Database => "database",
            Self::Evidence => "evidence source",
            Self::Saga => "saga",
            Self::Consumer => "consumer",
            Self::SagaStep => "step of this saga",
            Self::Property => "property",
        }
    }
}

/// A name that nothing has.
#[must_use]
pub fn unknown<'c>(
    noun: Noun,
    span: Span,
    name: &str,
    candidates: impl IntoIterator<Item = &'c str> + Clone,
) -> Diagnostic {
    let word = noun.word();
    Diagnostic::error(noun.id(), span, format!("there is no {word} `{name}`"))
        .label(format!("no such {word}"))
        .help(format!(
            "there is no other {word} to name: declare `{name}`, or remove this"
        ))
        .maybe_help(suggestion(name, candidates))
}

/// A name that two things have.
#[must_use]
pub fn duplicate_name(noun: Noun, span: Span, name: &str) -> Diagnostic {
    let word = noun.word();
    let title = format!("there is more than one {word} `{name}`");
    Diagnostic::error("scenario::duplicate-name", span, title).help("rename one of them")
}

/// The id of [`bad_quantity`].
pub const BAD_QUANTITY: &str = "scenario::bad-quantity";

/// A duration, rate, share or size that does not read.
#[must_use]
pub fn bad_quantity(span: Span, text: &str, what: &str, why: &str) -> Diagnostic {
    // "it has no unit; write `10s`": what is wrong, and the edit.
    let (why, help) = why.split_once("; ").unwrap_or((
        why,
        match what {
            "a duration" => "write it like `250ms`, `10s` or `2m`",
            "a rate" => "write it like `40/s`",
            "a share" => "write it like `95%`",
            "a size" => "write it like `64KiB`",
            _ => "write a number with its unit",
        },
    ));
    let title = format!("`{text}` is not {what}: {why}");
    Diagnostic::error(BAD_QUANTITY, span, title).help(help)
}

/// Something that files may name but this version does not do.
#[must_use]
pub fn not_supported(span: Span, what: &str) -> Diagnostic {
    Diagnostic::error(
        "scenario::not-supported",
        span,
        format!("{what} not supported yet"),
    )
    .label("not supported yet")
    .help("remove it")
}

/// A fault that a Toxiproxy has no toxic for.
#[must_use]
pub fn beyond_toxiproxy(span: Span, what: &str, instead: &str) -> Diagnostic {
    Diagnostic::error(
        "scenario::beyond-toxiproxy",
        span,
        format!("{what} is more than a Toxiproxy can do"),
    )
    .label("needs the embedded proxy")
    .help(format!("run it without `--toxiproxy`, or {instead}"))
}

/// A name that cannot be one.
#[must_use]
pub fn bad_name(span: Span, name: &str, why: &str) -> Diagnostic {
    Diagnostic::error(
        "scenario::bad-name",
        span,
        format!("`{name}` cannot be a name here: {why}"),
    )
    .help("use another name")
}

/// Faults that wait for each other, or for themselves.
#[must_use]
pub fn waits_for_itself(span: Span, fault: &str) -> Diagnostic {
    let title = format!("`{fault}` waits for itself by way of `after:`");
    Diagnostic::error("scenario::waits-for-itself", span, title)
        .help("let one of them start by itself: `at: 0s` instead of `after:`")
}

/// Text that should be `service.port`.
#[must_use]
pub fn bad_address(span: Span, text: &str, example: &str) -> Diagnostic {
    let title = format!("`{text}` is no address `service.port`");
    Diagnostic::error("scenario::bad-address", span, title)
        .help(format!("write it like `{example}`"))
}

/// Text that should be `caller -> callee`.
#[must_use]
pub fn bad_link(span: Span, text: &str) -> Diagnostic {
    Diagnostic::error("scenario::bad-link", span, format!("`{text}` is no link"))
        .help("write it like `payments -> psp`")
}

/// A link whose `to:` is another service than its name says.
#[must_use]
pub fn link_leads_elsewhere(span: Span, link: &str, to: &str) -> Diagnostic {
    let title = format!("the link `{link}` leads to `{to}`");
    Diagnostic::error("scenario::link-leads-elsewhere", span, title)
        .help("name the callee in both, or rename the link")
}

/// `$(link:X)` without a declared link.
#[must_use]
pub fn undeclared_link(span: Span, from: &str, to: &str, help: Option<String>) -> Diagnostic {
    let title = format!("`$(link:{to})` needs a link `{from} -> {to}`, which is not declared");
    Diagnostic::error("scenario::undeclared-link", span, title)
        .label("no such link")
        .help(format!(
            "add `{from} -> {to}: {{ to: {to}.http }}` under `links:`"
        ))
        .maybe_help(help)
}

/// A declared link whose address the caller is never told.
#[must_use]
pub fn bypassed_link(span: Span, from: &str, to: &str) -> Diagnostic {
    let title = format!("`{from}` is never told the address of its link to `{to}`");
    Diagnostic::error("scenario::bypassed-link", span, title)
        .label("its traffic would bypass the proxy")
        .help(format!(
            "use `$(link:{to})` in the `env` of `{from}`, or remove the link"
        ))
}

/// A substitution that does not exist, or not here.
#[must_use]
pub fn bad_substitution(span: Span, why: &str, help: Option<String>) -> Diagnostic {
    Diagnostic::error("scenario::unknown-substitution", span, why.to_owned()).maybe_help(help)
}

/// A capture that is used before a step has made it.
#[must_use]
pub fn capture_too_early(span: Span, name: &str, step: &str) -> Diagnostic {
    let title = format!("`$({name})` is used before `{step}` captures it");
    Diagnostic::error("scenario::capture-too-early", span, title)
        .help(format!("move this step behind `{step}`"))
}

/// `$(env:NAME)` that `allow-env` does not declare.
#[must_use]
pub fn env_not_allowed(span: Span, name: &str) -> Diagnostic {
    let title = format!("`$(env:{name})` is not declared");
    Diagnostic::error("scenario::env-not-allowed", span, title)
        .help(format!("add `{name}: \"\"` under `allow-env:`"))
}

/// A variable without a default that is not set.
#[must_use]
pub fn env_not_set(span: Span, name: &str) -> Diagnostic {
    Diagnostic::error(
        "scenario::env-not-set",
        span,
        format!("the variable {name} is not set"),
    )
    .help("set it, or give it a default here")
}

/// A choice between keys of which exactly one must be given.
#[must_use]
pub fn one_of(span: Span, what: &str, keys: &[&str], given: &[&str]) -> Diagnostic {
    let list = |keys: &[&str]| -> String {
        let quoted: Vec<String> = keys.iter().map(|key| format!("`{key}:`")).collect();
        quoted.join(", ")
    };
    let (id, title) = if given.is_empty() {
        (
            "scenario::missing-choice",
            format!("{what} needs one of {}", list(keys)),
        )
    } else {
        (
            "scenario::two-choices",
            format!("{what} has both {}", list(given)),
        )
    };
    let help = match given {
        [] => format!("add one of {}", list(keys)),
        _ => "keep one of them".to_owned(),
    };
    Diagnostic::error(id, span, title).help(help)
}

/// A jq filter that does not compile.
#[must_use]
pub fn bad_filter(span: Span, why: &str) -> Diagnostic {
    Diagnostic::error(
        "scenario::bad-filter",
        span,
        format!("this is no jq filter: {why}"),
    )
    .help("write it as for `jq`, like `.rows[]` or `.queue.ready + .queue.delayed`")
}

/// A path into JSON that does not read.
#[must_use]
pub fn bad_path(span: Span, why: &str) -> Diagnostic {
    Diagnostic::error("scenario::bad-path", span, why.to_owned())
        .help("write it like `.order.id` or `.items[0].id`")
}

/// A value outside of what makes sense, with the range.
#[must_use]
pub fn out_of_range(span: Span, what: &str, allowed: &str) -> Diagnostic {
    Diagnostic::error(
        "scenario::out-of-range",
        span,
        format!("{what} must be {allowed}"),
    )
    .help("change it, or remove it")
}

/// A path that leaves the folder of the system file.
#[must_use]
pub fn outside_folder(span: Span, path: &str) -> Diagnostic {
    let title = format!("`{path}` is outside of the system's folder");
    Diagnostic::error("scenario::outside-folder", span, title)
        .help("paths are relative to the system file and stay in its folder")
}

/// A file of a feed that does not read.
#[must_use]
pub fn bad_feed(span: Span, why: &str) -> Diagnostic {
    Diagnostic::error("scenario::bad-feed", span, why.to_owned())
        .help("name a CSV or JSON file beside the system file, or list them: `values: [A, B]`")
}

/// `needs:` that goes round in a circle.
#[must_use]
pub fn needs_itself(span: Span, service: &str) -> Diagnostic {
    let title = format!("`{service}` waits for itself by way of `needs`");
    Diagnostic::error("scenario::needs-itself", span, title).help("remove one of the `needs`")
}

/// A fault that needs a duration has none.
#[must_use]
pub fn fault_without_duration(span: Span, fault: &str, kind: &str) -> Diagnostic {
    let title = format!("`{fault}` does not say how long it lasts");
    Diagnostic::error("scenario::missing-duration", span, title)
        .label(format!("`{kind}` lasts until it is lifted"))
        .help("add `for: 20s`")
}

/// A fault that is over at once has a duration.
#[must_use]
pub fn instantaneous_fault(span: Span, kind: &str) -> Diagnostic {
    let title = format!("`{kind}` is over at once: it cannot last");
    let help = match kind {
        "reset" => "remove `for:`",
        _ => "remove `for:`; how long the service stays down is `down-for:`",
    };
    Diagnostic::error("scenario::instantaneous-fault", span, title).help(help)
}

/// A fault on a link that acts on a service, or the other way round.
#[must_use]
pub fn wrong_target(span: Span, kind: &str, needs: &str) -> Diagnostic {
    let title = format!("`{kind}` acts on {needs}");
    Diagnostic::error("scenario::wrong-target", span, title).help(match needs {
        "a service" => "add `service: NAME`",
        _ => "add `link: caller -> callee`",
    })
}

/// `direction:` where there is none.
#[must_use]
pub fn no_direction(span: Span, kind: &str) -> Diagnostic {
    let title = format!("`{kind}` has no direction");
    Diagnostic::error("scenario::no-direction", span, title).help("remove `direction:`")
}

/// A signal would hit a client of a daemon instead of the service.
#[must_use]
pub fn signals_the_client(span: Span, service: &str, client: &str, kind: &str) -> Diagnostic {
    let title = format!("`{kind}` would hit the `{client}` client, not `{service}`");
    Diagnostic::error("scenario::signals-the-client", span, title)
        .help("start the service itself, or fault its links")
}

/// Two faults that change the same thing at the same time.
#[must_use]
pub fn faults_collide(span: Span, target: &str, other: &str) -> Diagnostic {
    let title = format!("`{target}` is already changed by `{other}` at that time");
    Diagnostic::error("scenario::faults-collide", span, title)
        .help(format!("start it with `after: {other}`"))
}

/// A property that looks nowhere.
#[must_use]
pub fn window_missing(span: Span) -> Diagnostic {
    Diagnostic::error(
        "scenario::window-missing",
        span,
        "this property does not say when it must hold",
    )
    .help("add `during: FAULT`, `after: FAULT` or `in: baseline|recovery|whole`")
}

/// A window that is empty.
#[must_use]
pub fn window_empty(span: Span, why: &str) -> Diagnostic {
    Diagnostic::error(
        "scenario::window-empty",
        span,
        format!("this window is empty: {why}"),
    )
    .help("choose another window")
}

/// A limit that nothing can exceed.
#[must_use]
pub fn never_fails(span: Span, why: &str, help: &str) -> Diagnostic {
    Diagnostic::error(
        "scenario::never-fails",
        span,
        format!("this can never fail: {why}"),
    )
    .help(help)
}

/// `every:` at records of which two may be equal.
#[must_use]
pub fn read_once(span: Span, records: &str) -> Diagnostic {
    Diagnostic::error(
        "scenario::read-once",
        span,
        format!("rows of `records: {records}` cannot be read again and again"),
    )
    .label("a row read twice looks like two equal rows")
    .help("write `at-end: true`: they are read once, after the drain")
}

/// A limit that nothing can keep.
#[must_use]
pub fn never_passes(span: Span, why: &str, help: &str) -> Diagnostic {
    Diagnostic::error(
        "scenario::never-passes",
        span,
        format!("this can never pass: {why}"),
    )
    .help(help)
}

/// Too few operations to mean anything.
#[must_use]
pub fn too_few(span: Span, expected: u64, needed: u64, why: &str) -> Diagnostic {
    let title = format!("about {expected} are expected here, {needed} are needed: {why}");
    Diagnostic::error("scenario::too-few", span, title)
        .help("make the window longer, the load heavier or the limit wider")
}

/// The run ends before the property can be judged.
#[must_use]
pub fn too_short(span: Span, what: &str, has: &str, needs: &str) -> Diagnostic {
    let title = format!("{what} lasts {has}, this property needs {needs}");
    Diagnostic::error("scenario::too-short", span, title)
        .help("make it last longer, or ask for less")
}

/// A comparison with the baseline, while the offered load is another one.
#[must_use]
pub fn load_changes(span: Span) -> Diagnostic {
    let title = "the arrivals change between the baseline and the end of what is compared with it";
    Diagnostic::error("scenario::load-changes", span, title)
        .help("make `warm-up:` as long as the ramp, or let `arrivals:` be constant")
}

/// An evidence source of another kind.
#[must_use]
pub fn wrong_records(span: Span, source: &str, is: &str, needs: &str) -> Diagnostic {
    let title = format!("`{source}` yields `{is}` records, this needs `{needs}`");
    Diagnostic::error("scenario::wrong-records", span, title)
        .help(format!("name a source with `records: {needs}`"))
}

/// A property needs something that the system file does not say.
#[must_use]
pub fn not_declared(span: Span, what: &str, help: &str) -> Diagnostic {
    Diagnostic::error(
        "scenario::not-declared",
        span,
        format!("the system file has no {what}"),
    )
    .help(help)
}

/// Attempts on a link that is down cannot be counted.
#[must_use]
pub fn cannot_count(span: Span, link: &str, fault: &str) -> Diagnostic {
    let title =
        format!("attempts on `{link}` cannot be counted while `{fault}` refuses connections");
    Diagnostic::error("scenario::cannot-count", span, title)
        .help("inject `down: { how: reset }`, or add evidence of kind `call`")
}

/// A raw fault that the proxy would not take.
#[must_use]
pub fn bad_toxic(span: Span, why: &str) -> Diagnostic {
    Diagnostic::error("scenario::bad-toxic", span, why.to_owned())
        .help("write it like `toxic: { type: latency, attributes: { latency: 300 } }`")
}
