//! Faults: what they act on, and their place on the absolute time line.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::diagnostic::meaning::{self, Noun};
use crate::plan::fault::{Distribution, Down};
use crate::plan::{
    Direction, FaultEffect, FaultName, FaultPlan, LinkEffect, LinkName, PhasesPlan, ProcessEffect,
    ServiceName,
};
use crate::scenario::fault_file::{
    DirectionFile, DistributionFile, DownHowFile, FaultFile, InjectFile,
};
use crate::scenario::text::{Short, Spanned, Text, Time};

use super::Builder;

const WARM_UP_DEFAULT: Duration = Duration::from_secs(5);
const QUIET_DEFAULT: Duration = Duration::from_secs(2);
/// Clients of a daemon: a signal to them does not reach the service.
const CLIENTS: [&str; 3] = ["docker", "podman", "kubectl"];
/// Toxics that a real Toxiproxy knows.
const TOXICS: [&str; 7] = [
    "latency",
    "timeout",
    "bandwidth",
    "slow_close",
    "reset_peer",
    "slicer",
    "limit_data",
];

/// What `inject` says, before it has a target.
enum Effect {
    Link(LinkEffect),
    Process(ProcessEffect),
}

impl Builder<'_> {
    /// The absolute time line, and the faults on it in order of start.
    pub(super) fn timeline(&mut self, seed: u64) -> (PhasesPlan, Vec<FaultPlan>) {
        let file = &self.scenario_file().phases.value;
        let warm_up = self.time_or(file.warm_up.as_ref(), WARM_UP_DEFAULT);
        let baseline = self.time(&file.baseline);
        if baseline.is_zero() {
            let span = file.baseline.0.span;
            self.mistake(meaning::out_of_range(span, "the baseline", "above 0s"));
        }
        let baseline_end = warm_up + baseline;
        let mut faults = self.faults(seed, baseline_end);
        faults.sort_by_key(|fault| fault.start);
        self.check_collisions(&faults);
        let ends = faults.iter().map(FaultPlan::end);
        let recovery_start = ends.max().unwrap_or(baseline_end).max(baseline_end);
        let recovery = self.time_or(file.recovery.as_ref(), Duration::ZERO);
        let drain = file.drain.as_ref();
        let drain_within = self.time_or(drain.map(|drain| &drain.within), Duration::ZERO);
        let quiet = drain.and_then(|drain| drain.quiet.as_ref());
        let drain_quiet = self.time_or(quiet, QUIET_DEFAULT.min(drain_within));
        if let Some(quiet) = quiet.filter(|_| drain_quiet > drain_within) {
            let span = quiet.0.span;
            self.mistake(meaning::out_of_range(
                span,
                "`quiet`",
                "shorter than the drain",
            ));
        }
        let phases = PhasesPlan {
            baseline_start: warm_up,
            baseline_end,
            recovery_start,
            load_end: recovery_start + recovery,
            drain_within,
            drain_quiet,
        };
        (phases, faults)
    }

    /// Faults in the order of the file; `after:` may name any other, so they are placed in rounds.
    fn faults(&mut self, seed: u64, baseline_end: Duration) -> Vec<FaultPlan> {
        let declared = &self.scenario_file().faults;
        let mut placed: Vec<FaultPlan> = Vec::new();
        let mut waiting: Vec<(&Text, &Spanned<FaultFile>)> = declared.iter().collect();
        while !waiting.is_empty() {
            let before = waiting.len();
            waiting.retain(|(name, fault)| {
                let Some(origin) = self.origin(&fault.value, baseline_end, &placed) else {
                    return true;
                };
                let plan = self.fault(name, fault, origin, seed);
                placed.extend(plan);
                false
            });
            if waiting.len() == before {
                for (name, fault) in &waiting {
                    self.cannot_place(name, &fault.value);
                }
                break;
            }
        }
        placed
    }

    /// From where a fault's offset counts; `None` while the fault it follows is not placed.
    fn origin(
        &mut self,
        file: &FaultFile,
        baseline_end: Duration,
        placed: &[FaultPlan],
    ) -> Option<Duration> {
        match &file.after {
            None => Some(baseline_end),
            Some(after) => {
                let other = placed
                    .iter()
                    .find(|other| other.name.as_str() == after.value)?;
                Some(other.end())
            }
        }
    }

    fn cannot_place(&mut self, name: &Text, file: &FaultFile) {
        let declared = &self.scenario_file().faults;
        let Some(after) = &file.after else {
            return;
        };
        if declared.get(&after.value).is_none() {
            let names = declared.names().filter(|other| *other != name.value);
            self.mistake(meaning::unknown(
                Noun::Fault,
                after.span,
                &after.value,
                names,
            ));
        } else {
            self.mistake(meaning::waits_for_itself(after.span, &name.value));
        }
    }

    fn fault(
        &mut self,
        name: &Text,
        fault: &Spanned<FaultFile>,
        origin: Duration,
        seed: u64,
    ) -> Option<FaultPlan> {
        let file = &fault.value;
        self.check_start(name, file);
        let offset = self.time_or(file.at.as_ref().or(file.delay.as_ref()), Duration::ZERO);
        let spread = self.time_or(file.spread.as_ref(), Duration::ZERO);
        let effect = self.effect(file)?;
        let lasts = self.lasts(name, file, &effect);
        let effect = self.targeted(name, file, effect)?;
        Some(FaultPlan {
            name: FaultName::new(&name.value),
            source: self.source(name.span),
            start: origin + offset + drawn(seed, &name.value, spread),
            lasts,
            effect,
        })
    }

    fn check_start(&mut self, name: &Text, file: &FaultFile) {
        if let Some(when) = &file.when {
            self.mistake(meaning::not_supported(when.span, "`when:` is"));
            return;
        }
        let keys = [("at", file.at.is_some()), ("after", file.after.is_some())];
        self.choose(name.span, "a fault", &keys);
        if let Some(delay) = file.delay.as_ref().filter(|_| file.after.is_none()) {
            self.mistake(meaning::out_of_range(
                delay.0.span,
                "`delay`",
                "beside `after:`; use `at:`",
            ));
        }
    }

    /// `for` belongs to what lasts, and to that alone.
    fn lasts(&mut self, name: &Text, file: &FaultFile, effect: &Effect) -> Option<Duration> {
        let kind = match effect {
            Effect::Link(effect) => effect.name(),
            Effect::Process(effect) => effect.name(),
        };
        let instantaneous = matches!(
            effect,
            Effect::Link(LinkEffect::Reset)
                | Effect::Process(ProcessEffect::Kill { .. } | ProcessEffect::Restart { .. })
        );
        match (&file.lasts, instantaneous) {
            (Some(lasts), true) => {
                self.mistake(meaning::instantaneous_fault(lasts.0.span, kind));
                None
            }
            (None, false) => {
                self.mistake(meaning::fault_without_duration(
                    name.span,
                    &name.value,
                    kind,
                ));
                // Any length will do: the windows on it are not to blame.
                Some(Duration::from_secs(20))
            }
            (Some(lasts), false) => {
                let duration = self.time(lasts);
                if duration.is_zero() {
                    self.mistake(meaning::out_of_range(lasts.0.span, "`for`", "above 0s"));
                }
                Some(duration)
            }
            (None, true) => None,
        }
    }

    fn effect(&mut self, file: &FaultFile) -> Option<Effect> {
        let effect = self.inject(file)?;
        if self.options.toxiproxy.is_some()
            && let Effect::Link(link) = &effect
            && let Some((what, instead)) = link.beyond_toxiproxy()
        {
            self.mistake(meaning::beyond_toxiproxy(file.inject.span, &what, instead));
        }
        Some(effect)
    }

    fn inject(&mut self, file: &FaultFile) -> Option<Effect> {
        use InjectFile as I;
        let span = file.inject.span;
        let down_for =
            |builder: &mut Self, time: Option<&Time>| builder.time_or(time, Duration::ZERO);
        Some(match &file.inject.value {
            I::Latency(latency) => Effect::Link(self.latency(latency)),
            I::Stall => Effect::Link(LinkEffect::Stall),
            I::Blackhole => Effect::Link(LinkEffect::Blackhole),
            I::Bandwidth(rate) => Effect::Link(LinkEffect::Bandwidth {
                bytes_per_s: self.bandwidth(rate),
            }),
            I::SlowClose(delay) => Effect::Link(LinkEffect::SlowClose {
                delay: self.time(delay),
            }),
            I::LimitData(size) => Effect::Link(LinkEffect::LimitData {
                bytes: self.size(size),
            }),
            I::Slicer(slicer) => {
                let average_size = self.size(&slicer.average_size);
                let variation = slicer.size_variation.as_ref();
                let size_variation = variation.map_or(0, |size| self.size(size));
                if self.sound() && size_variation >= average_size {
                    let what = "`size-variation`";
                    self.mistake(meaning::out_of_range(
                        span,
                        what,
                        "less than `average-size`",
                    ));
                }
                Effect::Link(LinkEffect::Slicer {
                    average_size,
                    size_variation,
                    delay: self.time_or(slicer.delay.as_ref(), Duration::ZERO),
                })
            }
            I::ResetPeer(reset) => Effect::Link(LinkEffect::ResetPeer {
                after: self.time(&reset.after),
            }),
            I::Reset => Effect::Link(LinkEffect::Reset),
            I::SlowOpen(delay) => Effect::Link(LinkEffect::SlowOpen {
                delay: self.time(delay),
            }),
            I::LimitTime(after) => Effect::Link(LinkEffect::LimitTime {
                after: self.time(after),
            }),
            I::Corrupt(corrupt) => Effect::Link(self.corrupt(span, corrupt)),
            I::Loss(loss) => Effect::Link(self.loss(span, loss)),
            I::Http(http) => Effect::Link(LinkEffect::Http(self.http_fault(http))),

            I::Down(down) => {
                let how = match down.how {
                    Some(DownHowFile::Reset) => Down::Reset,
                    Some(DownHowFile::Refuse) | None => Down::Refuse,
                };
                Effect::Link(LinkEffect::Down { how })
            }
            I::Toxic(toxic) => Effect::Link(self.toxic(toxic)),
            I::Kill(kill) => Effect::Process(ProcessEffect::Kill {
                down_for: down_for(self, kill.down_for.as_ref()),
            }),
            I::Stop => Effect::Process(ProcessEffect::Stop),
            I::Pause => Effect::Process(ProcessEffect::Pause),
            I::Restart(restart) => Effect::Process(ProcessEffect::Restart {
                signal: self.restart_signal(file, restart.signal.as_ref()),
                down_for: down_for(self, restart.down_for.as_ref()),
            }),
            unsupported => {
                let what = format!("`{}` is", unsupported_name(unsupported));
                self.mistake(meaning::not_supported(span, &what));
                return None;
            }
        })
    }

    fn restart_signal(&mut self, file: &FaultFile, signal: Option<&Text>) -> String {
        if let Some(signal) = signal {
            return self.signal(signal);
        }
        let service = file.service.as_ref();
        let service = service.and_then(|name| self.system_file().services.get(&name.value));
        let stop = service.and_then(|service| service.value.stop.as_ref());
        let signal = stop.and_then(|stop| stop.signal.as_ref());
        signal.map_or_else(|| "TERM".into(), |signal| signal.value.clone())
    }

    fn latency(
        &mut self,
        latency: &Spanned<Short<crate::scenario::fault_file::LatencyFile>>,
    ) -> LinkEffect {
        let (delay, jitter, distribution) = match &latency.value {
            Short::Short(text) => {
                let text = Text {
                    value: text.clone(),
                    span: latency.span,
                };
                (
                    self.time(&Time(text)),
                    Duration::ZERO,
                    Distribution::Uniform,
                )
            }
            Short::Full(file) => {
                let distribution = file.distribution.as_ref().map(|written| written.value);
                (
                    self.time(&file.latency),
                    self.time_or(file.jitter.as_ref(), Duration::ZERO),
                    match distribution {
                        Some(DistributionFile::Normal) => Distribution::Normal,
                        Some(DistributionFile::Pareto) => Distribution::Pareto,
                        Some(DistributionFile::Uniform) | None => Distribution::Uniform,
                    },
                )
            }
        };
        LinkEffect::Latency {
            latency: delay,
            jitter,
            distribution,
        }
    }

    fn toxic(&mut self, toxic: &Spanned<crate::scenario::fault_file::ToxicFile>) -> LinkEffect {
        let file = &toxic.value;
        let kind = &file.kind;
        if !TOXICS.contains(&kind.value.as_str()) {
            let help = crate::diagnostic::suggestion(&kind.value, TOXICS);
            let why = format!("`{}` is no type of toxic", kind.value);
            self.mistake(meaning::bad_toxic(kind.span, &why).maybe_help(help));
        }
        let toxicity = file
            .toxicity
            .as_ref()
            .map_or(1.0, |toxicity| toxicity.value);
        if !(0.0..=1.0).contains(&toxicity) {
            let span = file
                .toxicity
                .as_ref()
                .map_or(toxic.span, |toxicity| toxicity.span);
            self.mistake(meaning::out_of_range(span, "`toxicity`", "from 0 to 1"));
        }
        LinkEffect::Toxic {
            kind: kind.value.clone(),
            attributes: file
                .attributes
                .iter()
                .map(|(name, value)| (name.value.clone(), value.0.clone()))
                .collect(),
            toxicity,
        }
    }

    fn targeted(&mut self, name: &Text, file: &FaultFile, effect: Effect) -> Option<FaultEffect> {
        if let Some(replica) = &file.replica {
            self.mistake(meaning::not_supported(replica.span, "`replica:` is"));
            return None;
        }
        match effect {
            Effect::Link(effect) => {
                if let Some(service) = &file.service {
                    let kind = effect.name();
                    self.mistake(meaning::wrong_target(service.span, kind, "a link"));
                    return None;
                }
                let links = self.fault_links(name, file, effect.name());
                if let LinkEffect::Http(_) = effect {
                    self.check_http_links(file, &links);
                }
                let direction = match file.direction.as_ref().map(|direction| direction.value) {
                    Some(DirectionFile::Request) => Direction::Request,
                    Some(DirectionFile::Both) => Direction::Both,
                    Some(DirectionFile::Response) | None => Direction::Response,
                };
                let undirected = effect.is_undirected();
                if let Some(written) = file.direction.as_ref().filter(|_| undirected) {
                    self.mistake(meaning::no_direction(written.span, effect.name()));
                }
                Some(FaultEffect::Link {
                    links,
                    direction: if undirected {
                        Direction::Both
                    } else {
                        direction
                    },
                    effect,
                })
            }
            Effect::Process(effect) => {
                let kind = effect.name();
                let links = file.link.as_ref().map(|link| link.span);
                let links = links.or(file.links.as_ref().and_then(|all| Some(all.first()?.span)));
                let links = links.or(file.from.as_ref().or(file.to.as_ref()).map(|end| end.span));
                let Some(service) = &file.service else {
                    let span = links.unwrap_or(name.span);
                    self.mistake(meaning::wrong_target(span, kind, "a service"));
                    return None;
                };
                if let Some(span) = links {
                    self.mistake(meaning::wrong_target(span, kind, "a service"));
                }
                self.known_service(&service.value, service.span)
                    .then_some(())?;
                self.check_signal_target(service, kind);
                Some(FaultEffect::Process {
                    services: vec![ServiceName::new(&service.value)],
                    effect,
                })
            }
        }
    }

    /// A killed or paused `docker run` leaves the container as it is.
    fn check_signal_target(&mut self, service: &Text, kind: &str) {
        let file = self.system_file().services.get(&service.value);
        let Some(program) = file.and_then(|file| file.value.command.first()) else {
            return;
        };
        let base = program.value.rsplit('/').next().unwrap_or_default();
        if CLIENTS.contains(&base) && ["kill", "pause"].contains(&kind) {
            let mistake = meaning::signals_the_client(service.span, &service.value, base, kind);
            self.mistake(mistake);
        }
    }

    fn fault_links(&mut self, name: &Text, file: &FaultFile, kind: &str) -> Vec<LinkName> {
        let ends = file.from.is_some() || file.to.is_some();
        let keys = [
            ("link", file.link.is_some()),
            ("links", file.links.is_some()),
            ("from", ends),
        ];
        if keys.iter().all(|(_, given)| !given) {
            self.mistake(meaning::wrong_target(name.span, kind, "a link"));
            return Vec::new();
        }
        self.choose(name.span, "a fault", &keys);
        if !ends {
            let named = file.link.iter().chain(file.links.iter().flatten());
            return named.filter_map(|link| self.link_named(link)).collect();
        }
        for end in [&file.from, &file.to].into_iter().flatten() {
            if end.value != crate::plan::LOAD {
                self.known_service(&end.value, end.span);
            }
        }
        let matches =
            |end: &Option<Text>, service: &str| end.as_ref().is_none_or(|end| end.value == service);
        let names = self.link_names();
        let links: Vec<LinkName> = names
            .iter()
            .filter_map(|link| LinkName::parse(link))
            .filter(|link| matches(&file.from, &link.from) && matches(&file.to, &link.to))
            .collect();
        if links.is_empty() {
            let end = file.from.as_ref().or(file.to.as_ref());
            let (span, text) = end.map_or((name.span, ""), |end| (end.span, end.value.as_str()));
            let candidates = names.iter().map(String::as_str);
            self.mistake(meaning::unknown(Noun::Link, span, text, candidates));
        }
        links
    }

    /// A link can be down only once, and a service can be signalled only while it runs.
    fn check_collisions(&mut self, faults: &[FaultPlan]) {
        for (index, fault) in faults.iter().enumerate() {
            for earlier in &faults[..index] {
                let same = fault.effect.targets().into_iter().find(|target| {
                    earlier.effect.targets().contains(target)
                        && exclusive(&fault.effect, &earlier.effect)
                });
                if let Some(target) = same.filter(|_| earlier.end() > fault.start) {
                    let span = self.scenario_file().faults.iter();
                    let mut span = span.filter(|(name, _)| name.value == fault.name.as_str());
                    let span = span.next().map(|(name, _)| name.span).unwrap_or_default();
                    let other = earlier.name.as_str();
                    self.mistake(meaning::faults_collide(span, &target, other));
                }
            }
        }
    }
}

/// Effects that exclude each other on one target: a process cannot be stopped twice, a link cannot
/// be down twice; toxics add up.
fn exclusive(one: &FaultEffect, other: &FaultEffect) -> bool {
    match (one, other) {
        (FaultEffect::Process { .. }, FaultEffect::Process { .. }) => true,
        (FaultEffect::Link { effect: one, .. }, FaultEffect::Link { effect: other, .. }) => {
            matches!(one, LinkEffect::Down { .. }) && matches!(other, LinkEffect::Down { .. })
        }
        _ => false,
    }
}

fn unsupported_name(inject: &InjectFile) -> &'static str {
    match inject {
        InjectFile::RollingRestart(_) => "rolling-restart",
        InjectFile::LockDatabase(_) => "lock-database",
        InjectFile::Partition(_) => "partition",
        _ => "this fault",
    }
}

/// A start offset in whole milliseconds up to `spread`, a function of the seed and the fault's
/// name: adding another fault moves none of the others.
fn drawn(seed: u64, name: &str, spread: Duration) -> Duration {
    let spread_ms = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
    if spread_ms == 0 {
        return Duration::ZERO;
    }
    // FNV-1a: stable over versions and machines, unlike the hasher of the standard library.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ hash);
    Duration::from_millis(rng.next_u64() % (spread_ms + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_start_is_a_function_of_seed_and_name_within_the_spread() {
        let spread = Duration::from_millis(500);
        let draws: Vec<_> = (0..20).map(|seed| drawn(seed, "a", spread)).collect();
        assert!(draws.iter().all(|draw| *draw <= spread));
        assert!(draws.iter().any(|draw| *draw != draws[0]));
        assert_eq!(drawn(7, "a", spread), drawn(7, "a", spread));
        assert_ne!(drawn(7, "a", spread), drawn(7, "b", spread));
    }
}
