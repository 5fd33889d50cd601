//! Mistakes of shape: syntax, types, unknown and duplicate keys. Reported alone, where they stand:
//! what follows such a mistake cannot be judged.

use super::{Diagnostic, Span, suggestion};

/// The file cannot be read.
#[must_use]
pub fn unreadable(name: &str, why: &str) -> Diagnostic {
    Diagnostic::nowhere("file::unreadable", format!("cannot read `{name}`: {why}"))
        .help("see who may read it, and whether the disk is well")
}

/// There is no such file.
#[must_use]
pub fn missing_file(name: &str, help: String) -> Diagnostic {
    Diagnostic::nowhere("file::missing", format!("there is no file `{name}`")).help(help)
}

/// A folder where a file is needed.
#[must_use]
pub fn is_folder(name: &str, needs: &str, example: Option<&str>) -> Diagnostic {
    let help = match example {
        Some(file) if needs == "a scenario" => {
            format!("name one file, like `{file}`; `chaos run` and `chaos check` take folders too")
        }
        Some(file) => format!("name one file, like `{file}`"),
        None => "name one file; there is no YAML file in this folder".to_owned(),
    };
    let title = format!("`{name}` is a folder, but {needs} is one file");
    Diagnostic::nowhere("file::folder", title).help(help)
}

/// A file that is no text.
#[must_use]
pub fn not_text(name: &str, found: &str, needs: &str) -> Diagnostic {
    let title = format!("`{name}` holds {found}, but {needs} is UTF-8 text");
    let help = match found {
        "UTF-16 text" => "save it as UTF-8".to_owned(),
        _ => "name a YAML file".to_owned(),
    };
    Diagnostic::nowhere("file::not-text", title).help(help)
}

/// A file of another kind than the one that is needed.
#[must_use]
pub fn wrong_file(name: &str, is: &str, needs: &str, help: &str) -> Diagnostic {
    let title = format!("`{name}` is {is}, not {needs}");
    Diagnostic::nowhere("file::wrong-kind", title).help(help)
}

/// The file is larger than a file that people write.
#[must_use]
pub fn too_large(name: &str, bytes: u64, limit: u64) -> Diagnostic {
    Diagnostic::nowhere(
        "file::too-large",
        format!("`{name}` is {bytes} bytes large and was not read"),
    )
    .help(format!("keep it below {limit} bytes"))
}

/// The text is no YAML, or more of it than is sensible.
#[must_use]
pub fn syntax(span: Span, why: &str) -> Diagnostic {
    Diagnostic::error(
        "yaml::syntax",
        span,
        format!("this is not valid YAML: {why}"),
    )
    .help(if why.contains("tab") {
        "indent with spaces"
    } else if why.contains("flow") {
        "close the `[` or `{` that is still open above"
    } else if why.contains("quoted") {
        "close the quote that is still open above"
    } else {
        "look at the indentation here and above, and quote text that holds `: ` or ` #`"
    })
}

/// A budget is exceeded: nodes, aliases, depth, documents.
#[must_use]
pub fn over_budget(span: Span, why: &str) -> Diagnostic {
    Diagnostic::error(
        "yaml::too-complex",
        span,
        format!("this YAML is refused: {why}"),
    )
    .help("at most 10000 nodes, 16 aliases, 32 levels and one document")
}

/// A key that stands twice in one mapping.
#[must_use]
pub fn duplicate_key(span: Span, key: &str) -> Diagnostic {
    Diagnostic::error(
        "yaml::duplicate-key",
        span,
        format!("`{key}` stands here twice"),
    )
    .label("the second one")
    .help("remove one of the two")
}

/// A key that does not exist.
#[must_use]
pub fn unknown_key(span: Span, key: &str, expected: &[&str]) -> Diagnostic {
    Diagnostic::error("yaml::unknown-key", span, format!("unknown key `{key}`"))
        .label("unknown")
        .maybe_help(suggestion(key, expected.iter().copied()))
}

/// A word of a closed set that is not in it.
#[must_use]
pub fn unknown_word(span: Span, word: &str, expected: &[&str]) -> Diagnostic {
    Diagnostic::error(
        "yaml::unknown-word",
        span,
        format!("`{word}` is not known here"),
    )
    .label("unknown")
    .maybe_help(suggestion(word, expected.iter().copied()))
}

/// A key that must be there.
#[must_use]
pub fn missing_key(span: Span, key: &str) -> Diagnostic {
    Diagnostic::error("yaml::missing-key", span, format!("`{key}:` is missing"))
        .label("here")
        .help(format!("add `{key}:`"))
}

/// A value of another type.
#[must_use]
pub fn wrong_type(span: Span, found: &str, expected: &str) -> Diagnostic {
    Diagnostic::error(
        "yaml::wrong-type",
        span,
        format!("expected {expected}, found {found}"),
    )
    .label(format!("expected {expected}"))
    .help(match expected.split_once(" with ") {
        Some(("a mapping", _)) | None if expected.starts_with("a mapping") => {
            "write `key: value`, one to a line below it or in `{ }`".to_owned()
        }
        _ if expected.contains("sequence") || expected.contains("list") => {
            "write a list: `[a, b]`".to_owned()
        }
        _ => format!("write {expected} instead"),
    })
}

/// A mapping with several keys, or none, where one key says which of a closed set is meant.
#[must_use]
pub fn not_one(span: Span, known: &str, given: &[&str]) -> Diagnostic {
    let title = format!("exactly one of {known} belongs here");
    let help = match given {
        [] => "add the one that is meant".to_owned(),
        [first, ..] => {
            format!("keep one, like `{first}:`, and give each other one a name of its own")
        }
    };
    Diagnostic::error("yaml::not-one", span, title).help(help)
}

/// A word that stands for itself was given a value.
#[must_use]
pub fn takes_no_value(span: Span, word: &str) -> Diagnostic {
    let title = format!("`{word}` takes no value");
    Diagnostic::error("yaml::takes-no-value", span, title)
        .help(format!("write `{word}` alone, without `:` and a value"))
}

/// A value whose form is wrong in a way that only its type can tell.
#[must_use]
pub fn malformed(span: Span, why: &str) -> Diagnostic {
    Diagnostic::error("yaml::malformed", span, why.to_owned())
}

/// `--set` without `=`, or with nothing after it.
#[must_use]
pub fn set_without_value(span: Span, path: &str) -> Diagnostic {
    let title = format!("`--set` says no value for `{path}`");
    Diagnostic::error("set::no-value", span, title)
        .label("expected PATH=VALUE")
        .help("write it like `--set phases.baseline=10s`")
}

/// `--set` with nothing, or an empty key, before `=`.
#[must_use]
pub fn set_without_path(span: Span, path: &str) -> Diagnostic {
    let title = match path.trim() {
        "" => "`--set` does not say what to set".to_owned(),
        _ => format!("`{path}` is no path: a key in it is empty"),
    };
    Diagnostic::error("set::no-path", span, title)
        .label("expected PATH=VALUE")
        .help("write it like `--set phases.baseline=10s`")
}

/// `--set` names a path that the scenario does not have.
#[must_use]
pub fn set_unknown_path(span: Span, path: &str, at: &str, known: &[&str]) -> Diagnostic {
    Diagnostic::error(
        "set::unknown-path",
        span,
        format!("the scenario has no `{path}`: nothing is called `{at}` there"),
    )
    .label("expected PATH=VALUE, keys joined by `.`")
    .help("what is above it holds no keys: set that as a whole")
    .maybe_help(suggestion(at, known.iter().copied()))
}
