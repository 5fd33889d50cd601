//! What the kernel says of this process, for its metrics. What cannot be read is left out.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// Numbers of this process, in the units of Prometheus: seconds and bytes.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) max_fds: Option<f64>,
    pub(super) open_fds: Option<f64>,
    pub(super) resident_bytes: Option<f64>,
    pub(super) virtual_bytes: Option<f64>,
    /// Since 1970.
    pub(super) started_seconds: Option<f64>,
}

impl Process {
    /// Reads `/proc`.
    pub(super) fn read() -> Self {
        let ticks = clock_ticks_per_second();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let stat = |field| field_of(&stat, field);
        let seconds = |field| stat(field).map(|value| number(value) / number(ticks));
        Self {
            cpu_seconds: Some(seconds(UTIME).unwrap_or(0.0) + seconds(STIME).unwrap_or(0.0)),
            max_fds: getrlimit(Resource::Nofile).current.map(number),
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|open| number(open.count() as u64)),
            resident_bytes: stat(RSS).map(|pages| number(pages) * number(page_size() as u64)),
            virtual_bytes: stat(VSIZE).map(number),
            started_seconds: boot_time()
                .zip(seconds(STARTTIME))
                .map(|(boot, after)| boot + after),
        }
    }
}

/// Numbers of fields as proc(5) counts them.
const UTIME: usize = 14;
const STIME: usize = 15;
const STARTTIME: usize = 22;
const VSIZE: usize = 23;
const RSS: usize = 24;

/// A field of `/proc/self/stat`; the second is a name in brackets that may hold anything.
fn field_of(stat: &str, field: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(field.checked_sub(3)?)?.parse().ok()
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "metrics are 64-bit floats everywhere"
)]
fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_name() {
        let stat = "1 (a ) (b) R 4 5 6 7 8 9 10 11 12 13 14 15";
        assert_eq!(field_of(stat, 4), Some(4));
        assert_eq!(field_of(stat, UTIME), Some(14));
        assert_eq!(field_of("", UTIME), None);
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let process = Process::read();
        for value in [
            process.resident_bytes,
            process.virtual_bytes,
            process.open_fds,
            process.started_seconds,
        ] {
            assert!(value.is_some_and(|value| value > 0.0), "{process:?}");
        }
    }
}
