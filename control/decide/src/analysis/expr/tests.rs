//! The language by examples, and what no text can make it do.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn run(source: &str, result: &serde_json::Value) -> Result<serde_json::Value, String> {
    let value = Value::from(result);
    let kind = Type::of(&value);
    let environment = Environment {
        variables: vec![("result", value, kind)],
        functions: ARGO,
    };
    parse(source)
        .and_then(|expression| expression.evaluate(&environment))
        .map(|value| value.to_json())
        .map_err(|error| format!("{} at {}", error.message, error.at))
}

fn check(cases: &[(&str, serde_json::Value)], result: &serde_json::Value) {
    for (source, expected) in cases {
        assert_eq!(run(source, result).as_ref(), Ok(expected), "{source}");
    }
}

fn check_errors(cases: &[(&str, &str)], result: &serde_json::Value) {
    for (source, expected) in cases {
        assert_eq!(run(source, result), Err((*expected).to_owned()), "{source}");
    }
}

#[test]
fn operators_bind_as_in_expr_lang() {
    check(
        &[
            ("1 + 2 * 3", json!(7)),
            ("2 ** 3 ** 2", json!(512)),
            ("-2 ** 2", json!(-4)),
            ("2 ^ 3", json!(8)),
            ("7 / 2", json!(3.5)),
            ("7 % 4", json!(3)),
            ("true || false && false", json!(true)),
            ("not true or true", json!(true)),
            ("not (1 == 2)", json!(true)),
            ("1 < 2 < 3", json!(true)),
            ("3 > 2 > 2", json!(false)),
            ("1..3 == [1, 2, 3]", json!(true)),
            ("4 not in 1..3", json!(true)),
            ("'ab' not contains 'c'", json!(true)),
            ("'ab' startsWith 'a' and 'ab' endsWith 'b'", json!(true)),
            ("'a' + 'b' == \"ab\"", json!(true)),
            ("1 == 1.0", json!(true)),
            ("true ? 1 : false ? 2 : 3", json!(1)),
            ("nil ?? 5", json!(5)),
            ("'x' not matches '^y'", json!(true)),
            (
                "if 1 > 2 { 'a' } else if 2 > 1 { 'b' } else { 'c' }",
                json!("b"),
            ),
            ("1; 2; 3", json!(3)),
            ("let x = 2; let y = x + 1; x * y", json!(6)),
            ("[3, 1, 2] | sort() | first()", json!(1)),
            ("1 /* one */ + 1 // two", json!(2)),
        ],
        &json!(null),
    );
}

#[test]
fn values_are_taken_apart() {
    let result = json!({
        "rows": [{"v": 1, "n": "a"}, {"v": 5, "n": "b"}],
        "in": {"not": 3},
        "text": "häuser",
    });
    check(
        &[
            ("result.rows[-1].v", json!(5)),
            ("result['rows'][0]['n']", json!("a")),
            ("result.in.not", json!(3)),
            ("result.none", json!(null)),
            ("result?.none?.deeper.and.deeper", json!(null)),
            ("result.none?.x ?? 7", json!(7)),
            ("result.rows[:1] | len()", json!(1)),
            ("result.rows[1:5] | len()", json!(1)),
            ("[1,2,3][-2:]", json!([2, 3])),
            ("'abc'[1:]", json!("bc")),
            ("len(result.text)", json!(6)),
            ("'rows' in result", json!(true)),
            ("$env.result.in.not", json!(3)),
            ("{a: 1, \"b c\": 2, (\"d\"): 3}['b c']", json!(2)),
        ],
        &result,
    );
}

#[test]
fn predicates_look_at_each_element() {
    let result = json!([{"v": 1, "n": "a"}, {"v": 5, "n": "b"}, {"v": 3, "n": "a"}]);
    check(
        &[
            ("filter(result, .v > 2) | len()", json!(2)),
            ("map(result, .v)", json!([1, 5, 3])),
            ("map(result, #.v * #index)", json!([0, 5, 6])),
            ("sum(result, .v)", json!(9)),
            ("sum([1, 2])", json!(3)),
            ("count(result, .n == 'a')", json!(2)),
            ("count([true, false])", json!(1)),
            ("one(result, .v == 5)", json!(true)),
            ("none(result, .v == 5)", json!(false)),
            ("find(result, .n == 'a').v", json!(1)),
            ("findLast(result, .n == 'a').v", json!(3)),
            ("findIndex(result, .v == 5)", json!(1)),
            ("findLastIndex(result, .n == 'a')", json!(2)),
            ("find(result, .v == 9)", json!(null)),
            ("reduce(map(result, .v), #acc + #, 0)", json!(9)),
            ("sortBy(result, .v) | map(.v)", json!([1, 3, 5])),
            ("sortBy(result, .v, 'desc') | map(.v)", json!([5, 3, 1])),
            ("keys(groupBy(result, .n))", json!(["a", "b"])),
            ("all(result, any([1, 2], # > 1))", json!(true)),
            (
                "filter(result, {let x = .v; x > 1 && x < 5}) | map(.v)",
                json!([3]),
            ),
        ],
        &result,
    );
}

#[test]
fn functions_do_what_they_do_in_expr_lang() {
    check(
        &[
            ("max(1, [2, 3], 0.5)", json!(3)),
            ("min(1, [2, 3], 0.5)", json!(0.5)),
            ("max([])", json!(null)),
            ("mean([1, 2, 6])", json!(3)),
            ("mean([])", json!(0)),
            ("median([5, 1, 3, 2])", json!(2.5)),
            ("abs(-5) + ceil(1.2) + floor(1.8) + round(2.5)", json!(11)),
            ("int('42') + int(1.9)", json!(43)),
            ("float('1.5')", json!(1.5)),
            (
                "string(1.0) + string(2) + string(true) + string(nil)",
                json!("12truenil"),
            ),
            ("string(1e6) + ' ' + string(0.00001)", json!("1e+06 1e-05")),
            ("upper('a') + lower('B') + trim('  c ')", json!("Abc")),
            ("trimPrefix('v1', 'v') + trimSuffix('2x', 'x')", json!("12")),
            ("split('a,b,c', ',')", json!(["a", "b", "c"])),
            ("split('a,b,c', ',', 2)", json!(["a", "b,c"])),
            ("splitAfter('a,b', ',')", json!(["a,", "b"])),
            ("replace('aaa', 'a', 'b', 2)", json!("bba")),
            ("repeat('ab', 2) + join(['a', 'b'], '-')", json!("ababa-b")),
            ("indexOf('abc', 'c') + lastIndexOf('abc', 'x')", json!(1)),
            (
                "hasPrefix('abc', 'ab') && hasSuffix('abc', 'bc')",
                json!(true),
            ),
            ("get([1], 5) ?? 'none'", json!("none")),
            ("take([1, 2, 3], 2) | last()", json!(2)),
            ("toPairs({a: 1})", json!([["a", 1]])),
            ("fromPairs([['a', 1]]).a", json!(1)),
            ("uniq([1, 2, 1.0])", json!([1, 2])),
            ("concat([1], [2]) | reverse()", json!([2, 1])),
            ("flatten([1, [2, [3]]])", json!([1, 2, 3])),
            ("sort([2, 1], 'desc')", json!([2, 1])),
            ("values({b: 2, a: 1})", json!([1, 2])),
            ("fromJSON('{\"a\": [1]}').a[0]", json!(1)),
            ("toJSON({a: 1.0})", json!("{\n  \"a\": 1\n}")),
            (
                "type([]) + type({}) + type(nil) + type(1.0)",
                json!("arraymapnilfloat"),
            ),
            (
                "bitand(6, 3) + bitor(4, 1) + bitxor(6, 3) + bitnot(0)",
                json!(11),
            ),
            (
                "default(result, 3) + asInt('4') + asFloat('0.5')",
                json!(7.5),
            ),
        ],
        &json!(null),
    );
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    check_errors(
        &[
            ("true || foo", "unknown name foo at 8"),
            ("true || now() > 1", "now is not supported yet at 8"),
            (
                "false && result > 'a'",
                "invalid operation: > (mismatched types float64 and string) at 16",
            ),
            (
                "not result == 1",
                "invalid operation: ! (mismatched type float64) at 0",
            ),
            ("result.a", "type float64 has no field a at 6"),
            ("result[0]", "type float64[int] is undefined at 6"),
            (
                "len(result)",
                "invalid argument for len (type float64) at 4",
            ),
            ("len()", "not enough arguments to call len at 0"),
            ("len([1], 2)", "too many arguments to call len at 9"),
            ("isNaN([1])", "invalid argument for isNaN (type []int) at 6"),
            (
                "all(result, # > 1)",
                "builtin all takes only array (got float64) at 0",
            ),
            (
                "all([1], #)",
                "predicate should return boolean (got int) at 9",
            ),
            (
                "5 % result",
                "invalid operation: % (mismatched types int and float64) at 2",
            ),
            (
                "asFloat('1') == '1'",
                "invalid operation: == (mismatched types float64 and string) at 13",
            ),
            ("let result = 1; result", "cannot redeclare result at 0"),
            (
                "'a' matches '('",
                "error parsing regexp \"(\": unclosed group at 12",
            ),
            (
                "result ?? 5 == 5",
                "operator ?? and other operators cannot be mixed: wrap either in parentheses at 12",
            ),
        ],
        &json!(1.5),
    );
}

#[test]
fn what_only_values_tell_is_an_error_too() {
    check_errors(
        &[
            (
                "result[2] == nil",
                "index out of range: 2 (array length is 2) at 6",
            ),
            (
                "result[-3]",
                "index out of range: -3 (array length is 2) at 6",
            ),
            ("result[0].a.b", "cannot fetch b from <nil> at 11"),
            (
                "result[0] < 1",
                "invalid operation: < (mismatched types map[string]interface {} and int) at 10",
            ),
            (
                "result[0].a < 1",
                "invalid operation: < (mismatched types <nil> and int) at 12",
            ),
            ("1 % 0", "integer divide by zero at 2"),
            (
                "9223372036854775807 + 1",
                "integer overflow: 9223372036854775807 + 1 at 20",
            ),
            ("result[0].a && true", "expected bool, but got <nil> at 9"),
            (
                "asInt('1.1')",
                "strconv.ParseInt: parsing \"1.1\": invalid syntax at 0",
            ),
            (
                "reduce([], #acc + #)",
                "reduce of empty array with no initial value at 0",
            ),
        ],
        &json!([{"b": 1}, 2]),
    );
}

#[test]
fn syntax_errors_have_a_place() {
    check_errors(
        &[
            ("", "unexpected end of expression at 0"),
            ("result >", "unexpected end of expression at 8"),
            ("result result", "unexpected name \"result\" at 7"),
            ("(1", "unexpected end of expression, expected \")\" at 2"),
            ("[1, 2", "unexpected end of expression, expected \",\" at 5"),
            ("1 not 2", "unexpected name \"not\" at 2"),
            ("# > 1", "cannot use # outside of a predicate at 0"),
            ("all([1], #foo)", "unknown pointer #foo at 9"),
            (
                "result.foo()",
                "foo is no function of this language: values have no methods at 7",
            ),
            ("1 & 2", "unrecognized character '&' at 2"),
            (
                "{1.5: 2}",
                "a map key must be a quoted string, a number, a name, or an expression enclosed in parentheses at 1",
            ),
            ("all([1])", "not enough arguments to call all at 0"),
            (
                "if true { 1 }",
                "unexpected end of expression, expected \"else\" at 13",
            ),
        ],
        &json!(1),
    );
}

#[test]
fn nothing_a_template_author_writes_stalls_the_controller() {
    let doubling: String = (0..100).fold("let a0 = [1]; ".to_owned(), |text, i| {
        text + &format!("let a{} = [a{i}, a{i}]; ", i + 1)
    });
    let nested = "(".repeat(5_000) + "1" + &")".repeat(5_000);
    let deep = "[".repeat(1_000);
    let chain = "1".to_owned() + &" + 1".repeat(2_000);
    let signs = "-".repeat(5_000) + "1";
    let cases = [
        ("len(1..200000000) > 0", "memory budget exceeded"),
        ("repeat('ab', 100000000)", "memory budget exceeded"),
        ("all(1..2000, all(1..2000, # > 0))", "budget exceeded"),
        (&format!("{doubling} a99 == a99"), "budget exceeded"),
        (&format!("{doubling} len(flatten(a99))"), "budget exceeded"),
        (&format!("{doubling} toJSON(a99)"), "budget exceeded"),
        (&nested, "nested deeper than 150"),
        (&deep, "nested deeper than 150"),
        (&chain, "nested deeper than 150"),
        (&signs, "nested deeper than 150"),
        (&" ".repeat(20_001), "longer than 20000 bytes"),
    ];
    for (source, expected) in cases {
        let error = run(source, &json!(null)).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_known_object_refuses_unknown_fields() {
    let fields = [("p99", Type::Unknown), ("requests", Type::Float)];
    let kind = Type::Object(std::sync::Arc::new(fields.into_iter().collect()));
    let environment = Environment {
        variables: vec![("result", Value::Map(std::sync::Arc::default()), kind)],
        functions: ARGO,
    };
    let message = |source: &str| {
        let expression = parse(source).unwrap();
        expression
            .check(&environment)
            .map_err(|error| error.message)
    };
    assert_eq!(message("result.p99 < 5"), Ok(Type::Bool));
    assert_eq!(
        message("result.p98 < 5"),
        Err("unknown field p98; there are p99, requests".to_owned())
    );
}

#[test]
fn the_caret_stands_under_the_place() {
    let error = parse("result >\n  'ä' + )").unwrap_err();
    assert_eq!(
        error.to_string(),
        "unexpected \")\" (2:9)\n |   'ä' + )\n | ........^"
    );
}

/// Text that looks like the language more often than random characters do.
fn almost_an_expression() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "result", "nil", "true", "1", "2.5", "'a'", "[", "]", "(", ")", "{", "}", "+", "-", "*",
        "/", "%", "**", "??", "?.", ".", "..", "#", "#acc", "==", "<", "&&", "||", "not", "in",
        "matches", "contains", "?", ":", ",", ";", "let", "x", "=", "if", "else", "all(", "map(",
        "reduce(", "sortBy(", "len(", "max(", "split(", "repeat(", "toJSON(", "[0]", "[-1]",
        "[1:]", "|", "first()", "$env", "asInt(", "default(", "'\\", "é",
    ]);
    prop::collection::vec(word, 0..24).prop_map(|words| words.join(" "))
}

fn never_panics(source: &str) -> Result<(), TestCaseError> {
    let results = [
        json!(null),
        json!(1.5),
        json!([1, "a", [2]]),
        json!({"x": [1]}),
    ];
    if let Err(error) = parse(source) {
        prop_assert!(error.at <= source.len());
        prop_assert!(source.is_char_boundary(error.at), "{}", error);
    }
    for result in &results {
        if let Err(error) = run(source, result) {
            prop_assert!(!error.is_empty());
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(source in "\\PC*") {
        never_panics(&source)?;
    }

    #[test]
    fn no_expression_makes_it_panic(source in almost_an_expression()) {
        never_panics(&source)?;
    }

    #[test]
    fn numbers_read_back(number in any::<f64>().prop_filter("finite", |n| n.is_finite() && *n >= 0.0)) {
        let printed = run("string(result)", &json!(number)).unwrap();
        let read = run(&format!("{} == result", printed.as_str().unwrap()), &json!(number));
        prop_assert_eq!(read, Ok(json!(true)));
    }
}
