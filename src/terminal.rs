//! What the world around this process looks like: variables, colour, width, terminal, CI. Asked
//! once in `main` and passed down, so that everything else is a function of its arguments and a
//! test can pass a map.
//!
//! It never writes anything, and never changes the environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::path::PathBuf;

/// `--color`: when to colour what people read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal that can show it, unless `NO_COLOR` says otherwise.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What the standard streams are connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streams {
    /// Standard output is a terminal.
    pub stdout_tty: bool,
    /// Standard error, where everything people read goes, is a terminal.
    pub stderr_tty: bool,
    /// Columns of the terminal behind standard error, if there is one and it tells.
    pub columns: Option<u16>,
}

impl Streams {
    /// Asks the kernel about the streams of this process.
    #[must_use]
    pub fn of_this_process() -> Streams {
        let stderr = std::io::stderr();
        let size = rustix::termios::tcgetwinsize(&stderr).ok();
        Streams {
            stdout_tty: std::io::stdout().is_terminal(),
            stderr_tty: stderr.is_terminal(),
            columns: size.map(|size| size.ws_col).filter(|columns| *columns > 0),
        }
    }
}

/// The environment of this process as it was at the start.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    streams: Streams,
    color: bool,
}

/// Columns to wrap at when nobody tells: what most CI logs show.
const COLUMNS_DEFAULT: u16 = 100;
/// Below this, wrapping does more harm than a long line.
const COLUMNS_MIN: u16 = 40;

impl Environment {
    /// Settles every question from plain arguments.
    #[must_use]
    pub fn new(
        variables: BTreeMap<OsString, OsString>,
        streams: Streams,
        choice: ColorChoice,
    ) -> Environment {
        let mut environment = Environment {
            variables,
            streams,
            color: false,
        };
        environment.color = environment.decide_color(choice);
        environment
    }

    /// `--color` wins, then `NO_COLOR` (<https://no-color.org>), then `CLICOLOR_FORCE`, then what
    /// the terminal can show.
    fn decide_color(&self, choice: ColorChoice) -> bool {
        match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if self.is_set("NO_COLOR") => false,
            ColorChoice::Auto if self.is_set("CLICOLOR_FORCE") => {
                self.variable("CLICOLOR_FORCE") != Some(OsStr::new("0"))
            }
            ColorChoice::Auto => self.streams.stderr_tty && !self.is_dumb(),
        }
    }

    /// A variable, also when it is empty.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
    }

    /// All variables, for what is started with a part of them.
    #[must_use]
    pub fn variables(&self) -> &BTreeMap<OsString, OsString> {
        &self.variables
    }

    /// Whether text on standard error carries colour.
    #[must_use]
    pub fn color(&self) -> bool {
        self.color
    }

    /// Whether standard error can show a block that redraws itself.
    #[must_use]
    pub fn can_redraw(&self) -> bool {
        self.streams.stderr_tty && !self.is_dumb() && !self.is_ci()
    }

    /// What the standard streams are connected to.
    #[must_use]
    pub fn streams(&self) -> Streams {
        self.streams
    }

    /// Columns for text on standard error; `COLUMNS` wins over the terminal.
    #[must_use]
    pub fn columns(&self) -> u16 {
        let told = self
            .variable("COLUMNS")
            .and_then(OsStr::to_str)
            .and_then(|s| s.parse().ok());
        told.or(self.streams.columns)
            .unwrap_or(COLUMNS_DEFAULT)
            .max(COLUMNS_MIN)
    }

    /// Whether a CI service runs this: `CI` is set to anything but `false` or `0`.
    #[must_use]
    pub fn is_ci(&self) -> bool {
        self.is_set("CI")
            && !["false", "0"]
                .map(|no| Some(OsStr::new(no)))
                .contains(&self.variable("CI"))
    }

    /// Where short-lived files go: `TMPDIR`, else `/tmp`.
    #[must_use]
    pub fn temp_dir(&self) -> PathBuf {
        match self.variable("TMPDIR") {
            Some(dir) if !dir.is_empty() => PathBuf::from(dir),
            _ => PathBuf::from("/tmp"),
        }
    }

    fn is_dumb(&self) -> bool {
        self.variable("TERM") == Some(OsStr::new("dumb"))
    }

    fn is_set(&self, name: &str) -> bool {
        self.variable(name).is_some_and(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTY: Streams = Streams {
        stdout_tty: true,
        stderr_tty: true,
        columns: Some(120),
    };
    const PIPE: Streams = Streams {
        stdout_tty: false,
        stderr_tty: false,
        columns: None,
    };

    fn environment(
        variables: &[(&str, &str)],
        streams: Streams,
        choice: ColorChoice,
    ) -> Environment {
        let variables = variables
            .iter()
            .map(|(k, v)| (k.into(), v.into()))
            .collect();
        Environment::new(variables, streams, choice)
    }

    #[test]
    fn colour_follows_flag_then_no_color_then_force_then_terminal() {
        use ColorChoice::{Always, Auto, Never};
        type Case<'a> = (&'a [(&'a str, &'a str)], Streams, ColorChoice, bool);
        let cases: &[Case<'_>] = &[
            (&[], TTY, Auto, true),
            (&[], PIPE, Auto, false),
            (&[("TERM", "dumb")], TTY, Auto, false),
            (&[("NO_COLOR", "1")], TTY, Auto, false),
            (&[("NO_COLOR", "")], TTY, Auto, true),
            (&[("CLICOLOR_FORCE", "1")], PIPE, Auto, true),
            (&[("CLICOLOR_FORCE", "0")], TTY, Auto, false),
            (
                &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")],
                TTY,
                Auto,
                false,
            ),
            (&[("NO_COLOR", "1")], PIPE, Always, true),
            (&[("CLICOLOR_FORCE", "1")], TTY, Never, false),
        ];
        for (variables, streams, choice, expected) in cases {
            let environment = environment(variables, *streams, *choice);
            assert_eq!(
                environment.color(),
                *expected,
                "{variables:?} {streams:?} {choice:?}"
            );
        }
    }

    #[test]
    fn nothing_redraws_in_ci_on_a_pipe_or_on_a_dumb_terminal() {
        let redraws =
            |variables, streams| environment(variables, streams, ColorChoice::Auto).can_redraw();
        assert!(redraws(&[], TTY));
        assert!(redraws(&[("CI", "false")], TTY));
        assert!(!redraws(&[("CI", "true")], TTY));
        assert!(!redraws(&[("TERM", "dumb")], TTY));
        assert!(!redraws(&[], PIPE));
    }

    #[test]
    fn width_comes_from_columns_then_terminal_then_a_default() {
        let columns =
            |variables, streams| environment(variables, streams, ColorChoice::Auto).columns();
        assert_eq!(columns(&[("COLUMNS", "72")], TTY), 72);
        assert_eq!(columns(&[("COLUMNS", "wide")], TTY), 120);
        assert_eq!(columns(&[], PIPE), COLUMNS_DEFAULT);
        assert_eq!(columns(&[("COLUMNS", "3")], PIPE), COLUMNS_MIN);
    }

    #[test]
    fn temp_dir_is_tmpdir_or_tmp() {
        let dir = |variables| environment(variables, PIPE, ColorChoice::Auto).temp_dir();
        assert_eq!(dir(&[("TMPDIR", "/var/tmp")]), PathBuf::from("/var/tmp"));
        assert_eq!(dir(&[("TMPDIR", "")]), PathBuf::from("/tmp"));
        assert_eq!(dir(&[]), PathBuf::from("/tmp"));
    }
}
