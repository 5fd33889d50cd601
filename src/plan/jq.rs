//! jq filters of evidence sources and backlogs: compiled when a plan is built, so that a bad one is
//! a mistake of the file, and run by whoever reads the evidence.

use jaq_core::load::{Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Vars, data, unwrap_valr};
use jaq_json::Val;
use serde_json::Value;

/// A compiled filter.
pub struct Filter(jaq_core::compile::Filter<jaq_core::Native<Data>>);

type Data = data::JustLut<Val>;

/// Outputs of one run: a filter such as `repeat(.)` never ends.
pub const OUTPUTS_MAX: usize = 1_000_000;

/// Compiles a filter.
///
/// # Errors
///
/// A phrase about what is wrong with it.
pub fn compile(text: &str) -> Result<Filter, String> {
    let defs = jaq_core::defs()
        .chain(jaq_std::defs())
        .chain(jaq_json::defs());
    let funs = jaq_core::funs()
        .chain(jaq_std::funs())
        .chain(jaq_json::funs());
    let arena = Arena::default();
    let program = File {
        code: text,
        path: (),
    };
    let modules = Loader::new(defs)
        .load(&arena, program)
        .map_err(|errors| load_error(&errors))?;
    let filter = Compiler::default()
        .with_funs(funs)
        .compile(modules)
        .map_err(|errors| {
            let first = errors.into_iter().flat_map(|(_, errors)| errors).next();
            match first {
                Some((name, undefined)) => format!("{} `{name}` is unknown", undefined.as_str()),
                None => "it does not compile".to_owned(),
            }
        })?;
    Ok(Filter(filter))
}

fn load_error(errors: &jaq_core::load::Errors<&str, ()>) -> String {
    use jaq_core::load::Error;
    let place = |rest: &str| match rest.trim() {
        "" => "at its end".to_owned(),
        rest => format!("at `{}`", rest.chars().take(20).collect::<String>()),
    };
    for (_, error) in errors {
        match error {
            Error::Lex(list) => {
                if let Some((expected, rest)) = list.first() {
                    return format!("expected {} {}", expected.as_str(), place(rest));
                }
            }
            Error::Parse(list) => {
                if let Some((expected, rest)) = list.first() {
                    return format!("expected {} {}", expected.as_str(), place(rest));
                }
            }
            Error::Io(_) => return "it cannot import files".to_owned(),
        }
    }
    "it does not parse".to_owned()
}

/// Runs a filter on a value; each output is a value or a phrase about what went wrong. At most
/// [`OUTPUTS_MAX`] outputs.
pub fn run(filter: &Filter, input: &Value) -> impl Iterator<Item = Result<Value, String>> {
    let input = jaq_json::read::parse_single(input.to_string().as_bytes());
    let ctx = Ctx::<Data>::new(&filter.0.lut, Vars::new([]));
    let outputs = input
        .map_err(|error| error.to_string())
        .map(|input| filter.0.id.run((ctx, input)).map(unwrap_valr));
    let (outputs, error) = match outputs {
        Ok(outputs) => (Some(outputs), None),
        Err(error) => (None, Some(Err(error))),
    };
    outputs
        .into_iter()
        .flatten()
        .take(OUTPUTS_MAX)
        .map(|output| match output {
            Ok(value) => serde_json::from_str(&value.to_string()).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        })
        .chain(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_filter_yields_each_of_its_outputs() {
        let filter = compile(".rows[] | {id, n: (.n + 1)}").unwrap();
        let input = json!({"rows": [{"id": "a", "n": 1}, {"id": "b", "n": 2}]});
        let outputs: Vec<_> = run(&filter, &input).map(Result::unwrap).collect();
        assert_eq!(
            outputs,
            [json!({"id": "a", "n": 2}), json!({"id": "b", "n": 3})]
        );
    }

    #[test]
    fn a_filter_that_fails_says_why() {
        let filter = compile(".a.b").unwrap();
        let outputs: Vec<_> = run(&filter, &json!({"a": 1})).collect();
        assert!(outputs[0].is_err());
    }

    #[test]
    fn a_bad_filter_does_not_compile() {
        assert!(compile(".rows[").is_err());
        assert!(compile("nosuch(.)").is_err_and(|why| why.contains("nosuch")));
    }

    #[test]
    fn a_filter_without_end_is_cut() {
        let filter = compile("repeat(1)").unwrap();
        assert_eq!(run(&filter, &json!(null)).count(), OUTPUTS_MAX);
    }
}
