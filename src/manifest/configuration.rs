//! A configuration file as the type it describes, or a complaint that names file, line and field.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::yaml::{self, Document};
use super::{Fault, Faults, whole};

/// Reads a file of one YAML or JSON document. What it leaves out is taken from `beneath`, and then from the type's own defaults.
///
/// # Errors
/// The first thing that is wrong with it.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, beneath: Value) -> Result<T, Faults> {
    let text = fs::read_to_string(path).map_err(|error| fault(whole(path.display(), error)))?;
    parse(&path.display().to_string(), &text, beneath)
}

fn parse<T: DeserializeOwned>(file: &str, text: &str, beneath: Value) -> Result<T, Faults> {
    let document = only(file, text)?;
    if !document.value.is_object() {
        return Err(fault(whole(file, "this is no mapping of fields to values")));
    }
    let mut value = beneath;
    json_patch::merge(&mut value, &document.value);
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = error.path().to_string();
        fault(Fault {
            line: Some(document.lines.of(&field)),
            ..whole(file, format!("{field}: {}", error.into_inner()))
        })
    })
}

fn only(file: &str, text: &str) -> Result<Document, Faults> {
    let documents = yaml::read(text).map_err(|error| {
        fault(Fault {
            line: error.line,
            ..whole(file, error.message)
        })
    })?;
    let mut documents = documents.into_iter();
    let document = documents.next().unwrap_or_else(|| Document {
        value: Value::Object(Map::new()),
        lines: yaml::Lines::default(),
    });
    match documents.next() {
        None => Ok(document),
        Some(second) => Err(fault(Fault {
            line: Some(second.lines.of("")),
            ..whole(
                file,
                "a second document begins here; a configuration is one",
            )
        })),
    }
}

fn fault(fault: Fault) -> Faults {
    Faults(vec![fault])
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sidestep_proxy::Config;

    use super::*;

    fn config(text: &str) -> Result<Config, String> {
        let beneath = json!({"drain": {"grace": "1s"}});
        parse("proxy.yaml", text, beneath).map_err(|fault| fault.to_string())
    }

    #[test]
    fn the_example_shows_every_default() {
        let example = include_str!("../../docs/proxy.yaml");
        let read: Config = parse("proxy.yaml", example, json!({})).unwrap();
        let defaults = Config {
            workers: read.workers, // the machine's
            ..Config::default()
        };
        assert_eq!(read, defaults);
    }

    #[test]
    fn what_is_left_out_keeps_its_default() {
        let read = config("drain: {deadline: 3s}\npick: random\ntrusted: [10.0.0.0/8, 192.0.2.1]")
            .unwrap();
        assert_eq!(read.drain.grace.as_secs(), 1);
        assert_eq!(read.drain.deadline.as_secs(), 3);
        assert_eq!(read.pick, Some(sidestep_proxy::table::Pick::Random));
        assert_eq!(read.trusted.len(), 2);
        assert_eq!(config("").unwrap().drain.grace.as_secs(), 1);
    }

    #[test]
    fn what_cannot_be_names_line_and_field() {
        for (text, said) in [
            (
                "deadlines:\n  head: 0s",
                "proxy.yaml:2: deadlines.head: `0s` is not a time above 0 such as 10s, 500ms or 1m30s",
            ),
            (
                "deadlines:\n  head: 10",
                "proxy.yaml:2: deadlines.head: invalid type: integer `10`, expected a string: write a time above 0 such as 10s, 500ms or 1m30s",
            ),
            (
                "\nlimits: {uriBytes: 0}",
                "proxy.yaml:2: limits.uriBytes: invalid value: integer `0`, expected a nonzero usize",
            ),
            (
                "h2: {streamWindowBytes: 2147483648}",
                "proxy.yaml:1: h2.streamWindowBytes: `2147483648` is not a window of 1 to 2147483647 bytes",
            ),
            (
                "trusted: [10.0.0.0/8, ten]",
                "proxy.yaml:1: trusted: `ten` is not a network such as 10.0.0.0/8",
            ),
            (
                "pick: dice",
                "proxy.yaml:1: pick: unknown variant `dice`, expected `sequence` or `random`",
            ),
            (
                "deadline: 3s",
                "proxy.yaml:1: deadline: unknown field `deadline`, expected one of `workers`, `limits`, `deadlines`, `h2`, `retry`, `ejection`, `drain`, `trusted`, `pick`, `namesVersions`",
            ),
            ("- 1", "proxy.yaml: this is no mapping of fields to values"),
            (
                "retry: {}\n---\nretry: {}",
                "proxy.yaml:3: a second document begins here; a configuration is one",
            ),
        ] {
            assert_eq!(config(text).unwrap_err(), said);
        }
    }
}
