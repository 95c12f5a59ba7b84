//! Templates and step lists with the names that Argo gives them.

use serde_json::{Value, json};

use super::go::{self, Generation};
use super::{Names, of_steps};

/// Lines of `kind`, names and JSON, as Argo 1.9.0 (and, the second name of a template, 1.8.3) answers for the JSON.
const NAMED: &str = include_str!("named.txt");

#[test]
fn templates_and_steps_have_the_names_that_argo_gives_them() {
    for line in NAMED.lines() {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap();
        let (kind, names, value) = (word(), word(), word());
        let value: Value = serde_json::from_str(value).unwrap();
        let found = match kind {
            "steps" => of_steps(&value),
            _ => format!(
                "{},{}",
                Names::of(&value).today(None),
                Names::of(&value).before(None)
            ),
        };
        assert_eq!(found, names, "{line}");
    }
}

/// The worked examples of R2.2.
#[test]
fn the_examples_of_the_reference() {
    let template = |name: &str| {
        json!({
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{
                "name": name, "image": "nginx:1.19-alpine",
                "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}},
            }]},
        })
    };
    let check = |template: &Value, today: &str, before: &str| {
        let names = Names::of(template);
        assert_eq!(
            (names.today(None), names.before(None)),
            (today.to_owned(), before.to_owned())
        );
    };
    check(
        &template("canary-scaledowndelay"),
        "674d8cf959",
        "66597877b7",
    );
    let mut gated = template("dynamic-stable-scale");
    gated["spec"]["readinessGates"] = json!([{"conditionType": "argoproj.io/e2e-readiness"}]);
    check(&gated, "6b56c8cdb4", "868d98995b");
}

fn today(template: &Value) -> String {
    go::template(template, Generation::Omits)
}

#[test]
fn a_template_is_written_as_go_writes_it() {
    let template = json!({
        "spec": {"containers": [{
            "image": "b", "name": "a", "newField": {"z": 1, "y": "<&>"}, "tty": false, "env": [{"name": "X", "value": "a\u{2028}\t\"\\"}],
            "securityContext": {"runAsNonRoot": false}, "resources": {"limits": {"memory": "1024Mi", "cpu": 0.5}},
        }]},
        "metadata": {"labels": {"b": "2", "a": "1"}, "creationTimestamp": null},
    });
    let expected = r#"{"metadata":{"labels":{"a":"1","b":"2"}},"spec":{"containers":[{"name":"a","image":"b","env":[{"name":"X","value":"a\u2028\t\"\\"}],"resources":{"limits":{"cpu":"500m","memory":"1Gi"}},"securityContext":{"runAsNonRoot":false},"newField":{"y":"\u003c\u0026\u003e","z":1}}]}}"#;
    assert_eq!(today(&template), expected);
    let before = go::template(&template, Generation::WritesNull);
    let expected = expected.replacen("{\"labels\"", "{\"creationTimestamp\":null,\"labels\"", 1);
    assert_eq!(before, expected);
    assert_eq!(
        today(&json!({})),
        r#"{"metadata":{},"spec":{"containers":null}}"#
    );
}

#[test]
fn characters_are_escaped_as_go_escapes_them() {
    // R2.2: a character → how it is written
    for (character, expected) in [
        ('\n', r"\n"),
        ('\r', r"\r"),
        ('\t', r"\t"),
        ('\u{8}', r"\b"),
        ('\u{c}', r"\f"),
        ('\u{1}', r"\u0001"),
        ('\u{2029}', r"\u2029"),
        ('>', r"\u003e"),
        ('é', "é"),
    ] {
        let text = format!("a{character}");
        let written = today(&json!({"metadata": {"labels": {"a": text}}}));
        let expected = format!(
            r#"{{"metadata":{{"labels":{{"a":"a{expected}"}}}},"spec":{{"containers":null}}}}"#
        );
        assert_eq!(written, expected);
    }
}

#[test]
fn every_field_of_the_table_has_a_kind_that_is_known() {
    for line in include_str!("go.txt").lines() {
        for (name, kind) in line
            .split(' ')
            .skip(1)
            .filter_map(|field| field.split_once('='))
        {
            let kind = kind.trim_start_matches(['!', '*', '[', ']', '{', '}']);
            let known = ["s", "b", "n", "q", "t", "v", "r"].contains(&kind)
                || include_str!("go.txt")
                    .lines()
                    .any(|line| line.starts_with(&format!("{kind} ")));
            assert!(known, "{line:.20} {name} {kind}");
        }
    }
}

#[test]
fn a_field_of_a_newer_api_makes_another_name_and_a_null_does_not() {
    let name = |spec: Value| Names::of(&json!({"spec": spec})).today(None);
    assert_ne!(name(json!({"unheardOf": 1})), name(json!({"unheardOf": 2})));
    assert_eq!(name(json!({"unheardOf": null})), name(json!({})));
}

/// R2.1: the count as a little-endian number of four bytes, and four zeros.
#[test]
fn collisions_make_other_names() {
    let names = Names::of(&json!({}));
    let all = [None, Some(0), Some(1)].map(|count| names.today(count));
    assert_eq!(all, ["658c46c486", "6f9d9db974", "6746d5bbc"]);
}
