//! From an answer to a phase: what the two conditions of a metric say of a result (reference R3.2).

use super::expr::{self, Environment, Type, Value};
use super::phase::Phase;
use crate::api::analysis::Metric;

/// Where a condition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `successCondition`.
    Success,
    /// `failureCondition`.
    Failure,
}

impl Condition {
    /// The field's name.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::Success => "successCondition",
            Self::Failure => "failureCondition",
        }
    }

    /// Its text in a metric; empty text is none.
    #[must_use]
    pub fn text(self, metric: &Metric) -> Option<&str> {
        let text = match self {
            Self::Success => &metric.success_condition,
            Self::Failure => &metric.failure_condition,
        };
        text.as_deref().filter(|text| !text.is_empty())
    }
}

/// A condition that gave no answer: the measurement is an Error, not Failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("could not evaluate {} {condition:?}: {cause}", place.field())]
pub struct Error {
    /// Which of the two.
    pub place: Condition,
    /// Its text.
    pub condition: String,
    /// Why.
    pub cause: String,
}

/// The cause where there was no data: what the language says then is true but does not help.
const NO_DATA: &str = "metric result is nil or empty: no data returned from the metric provider";

/// Says what a result means for a metric: Successful, Failed or Inconclusive.
///
/// `kind` is what is known of the result beforehand; the conditions are checked against it.
///
/// # Errors
///
/// A condition, whichever, that cannot be worked out or is neither true nor false.
pub fn verdict(metric: &Metric, result: &Value, kind: &Type) -> Result<Phase, Error> {
    let success = holds(Condition::Success, metric, result, kind)?;
    let failure = holds(Condition::Failure, metric, result, kind)?;
    Ok(match (success, failure) {
        (_, Some(true)) | (Some(false), None) => Phase::Failed,
        (Some(false), Some(false)) => Phase::Inconclusive,
        (None, None | Some(false)) | (Some(true), _) => Phase::Successful,
    })
}

/// Whether a condition holds, if there is one.
fn holds(
    place: Condition,
    metric: &Metric,
    result: &Value,
    kind: &Type,
) -> Result<Option<bool>, Error> {
    let Some(text) = place.text(metric) else {
        return Ok(None);
    };
    let environment = Environment {
        variables: vec![("result", result.clone(), kind.clone())],
        functions: expr::ARGO,
    };
    let error = |cause: String| Error {
        place,
        condition: text.to_owned(),
        cause,
    };
    let expression = expr::parse(text).map_err(|parse| error(parse.to_string()))?;
    match expression.holds(&environment) {
        Ok(holds) => Ok(Some(holds)),
        Err(_) if is_empty(result) => Err(error(NO_DATA.to_owned())),
        Err(cause) => Err(error(cause.to_string())),
    }
}

fn is_empty(result: &Value) -> bool {
    match result {
        Value::Nil => true,
        Value::List(items) => items.is_empty(),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::String(_) | Value::Map(_) => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;

    /// A result as a provider gives it.
    fn result(text: &str) -> (Value, Type) {
        match text {
            "NaN" => (Value::Float(f64::NAN), Type::Float),
            "+Inf" => (Value::Float(f64::INFINITY), Type::Float),
            "[NaN]" => (Value::floats(&[f64::NAN]), Type::Float.list()),
            "no value" => (Value::Nil, Type::Nil),
            text => {
                let json: Json = serde_json::from_str(text).unwrap();
                let value = Value::from(&json);
                let vector = json
                    .as_array()
                    .is_some_and(|items| items.iter().all(Json::is_number));
                let kind = if vector {
                    Type::Float.list()
                } else {
                    Type::of(&value)
                };
                (value, kind)
            }
        }
    }

    fn phase(success: &str, failure: &str, text: &str) -> Result<Phase, String> {
        let metric = Metric {
            success_condition: Some(success.to_owned()),
            failure_condition: Some(failure.to_owned()),
            ..Metric::default()
        };
        let (value, kind) = result(text);
        verdict(&metric, &value, &kind).map_err(|error| error.to_string())
    }

    fn shown(phase: Result<Phase, String>) -> &'static str {
        phase.map_or("Error", Phase::as_str)
    }

    const PASS: &str = "Successful";
    const FAIL: &str = "Failed";
    const ERROR: &str = "Error";
    const INCONCLUSIVE: &str = "Inconclusive";

    /// Every condition of reference 3.5: row, success, failure, result, phase.
    const CONDITIONS: &[(u8, &str, &str, &str, &str)] = &[
        (1, "result[0] >= 0.95", "", "[0.97]", PASS),
        (1, "result[0] >= 0.95", "", "[]", ERROR),
        (2, "result[0] <= 0.95", "", "[0.5]", PASS),
        (3, "", "result[0] < 0.50", "[0.49]", FAIL),
        (3, "", "result[0] < 0.50", "[0.5]", PASS),
        (4, "result[0] >= 10", "", "[10]", PASS),
        (5, "result >= 0.95", "", "0.96", PASS),
        (5, "result >= 0.95", "", "[0.96]", ERROR),
        (6, "result < 0.05", "", "[0.01]", ERROR),
        (7, "result == true", "", "true", PASS),
        (8, "result == 'true'", "", "\"true\"", PASS),
        (8, "result == 'true'", "", "true", ERROR),
        (9, "result == 'It worked!'", "", "\"It worked!\"", PASS),
        (10, "result == \"yes\"", "", "\"yes\"", PASS),
        (11, "result.major == '1'", "", "{\"major\": \"1\"}", PASS),
        (
            12,
            "result.ok && result.successPercent >= 0.90",
            "",
            "{\"ok\": true, \"successPercent\": 0.95}",
            PASS,
        ),
        (
            12,
            "result.ok && result.successPercent >= 0.90",
            "",
            "{\"ok\": false, \"successPercent\": 0.95}",
            FAIL,
        ),
        (
            13,
            "result.successRate >= 0.95",
            "",
            "{\"successRate\": 0.94}",
            FAIL,
        ),
        (14, "result.Status == 999", "", "{\"Status\": 999}", PASS),
        (
            15,
            "result.errorRate < 0.05 && result.requestCount > 100",
            "",
            "{\"errorRate\": 0.01, \"requestCount\": 50}",
            FAIL,
        ),
        (
            16,
            "result.ok == true && result.latency < 500",
            "",
            "{\"ok\": true, \"latency\": 499}",
            PASS,
        ),
        (17, "default(result, 0) < 0.05", "", "no value", PASS),
        (18, "default(result, 0) <= 10", "", "11", FAIL),
        (19, "", "default(result, 0) > 3", "4", FAIL),
        (
            20,
            "default(result, 0) < 0.05",
            "default(result, 0) >= 0.05",
            "no value",
            PASS,
        ),
        (21, "isNil(result) || result < 5", "", "3", PASS),
        (21, "isNil(result) || result < 5", "", "no value", ERROR),
        (22, "result != nil", "", "no value", FAIL),
        (22, "result != nil", "", "3", PASS),
        (23, "isNaN(result) || result >= 0.95", "", "NaN", PASS),
        (
            24,
            "isNaN(result[0]) || result[0] <= 0.05",
            "",
            "[NaN]",
            PASS,
        ),
        (24, "isNaN(result[0]) || result[0] <= 0.05", "", "[]", ERROR),
        (25, "", "isInf(result)", "+Inf", FAIL),
        (26, "len(result) > 0 && result[0] >= 0.95", "", "[]", FAIL),
        (27, "len(result) == 0 || result[0] >= 0.95", "", "[]", PASS),
        (
            28,
            "len(result) == 0 || isNaN(result[0]) || result[0] < 0.02",
            "",
            "[NaN]",
            PASS,
        ),
        (
            29,
            "len(result) == 1 && !isNaN(result[0]) && !isInf(result[0]) && result[0] >= 20",
            "",
            "[12]",
            FAIL,
        ),
        (30, "", "len(result) == 0 || result[0] >= 0.05", "[]", FAIL),
        (31, "all(result, # < 0.05)", "", "[0.01, 0.06]", FAIL),
        (32, "all(result, {# < 0.05})", "", "[0.01, 0.02]", PASS),
        (33, "", "any(result, # > 100)", "[1, 101]", FAIL),
        (34, "max(result) < 0.05", "", "[0.01, 0.04]", PASS),
        (35, "mean(result) <= 200", "", "[100, 250]", PASS),
        (
            36,
            "count(result, # > 0.5) <= 1",
            "",
            "[0.1, 0.6, 0.7]",
            FAIL,
        ),
        (37, "2 in result", "", "[1, 2]", PASS),
        (38, "result[-1] < 5", "", "[9, 4]", PASS),
        (
            39,
            "result[0] > 95 && result[1] < 500",
            "",
            "[96, 499]",
            PASS,
        ),
        (40, "result[0] >= 90 && result[0] <= 100", "", "[95]", PASS),
        (
            41,
            "len(result[0].Values) >= 5 and all(result[0].Values, {# <= 0.01})",
            "",
            "[{\"Values\": [0, 0, 0, 0, 0.01]}]",
            PASS,
        ),
        (
            42,
            "all(result.service_apdex.values.values, {asFloat(.value) >= 9900})",
            "",
            "{\"service_apdex\": {\"values\": {\"values\": [{\"value\": 9900}, {\"value\": \"9901\"}]}}}",
            PASS,
        ),
        (43, "asFloat(result) > 1.5", "", "\"1.6\"", PASS),
        (44, "asInt(result) >= 3", "", "\"1.1\"", ERROR),
        (44, "asInt(result) >= 3", "", "\"3\"", PASS),
        (45, "asFloat(result[0]) >= 0.95", "", "[0.95]", PASS),
        (
            46,
            "",
            "result.status == 'FAILURE' || ((result.status == 'ERROR' || result.status == 'INCONCLUSIVE') && result.nonexistentfield)",
            "{\"status\": \"ERROR\"}",
            ERROR,
        ),
        (
            46,
            "",
            "result.status == 'FAILURE' || ((result.status == 'ERROR' || result.status == 'INCONCLUSIVE') && result.nonexistentfield)",
            "{\"status\": \"FAILURE\"}",
            FAIL,
        ),
        (
            47,
            "result[0].average_duration < 300",
            "",
            "[{\"average_duration\": 299}]",
            PASS,
        ),
        (
            47,
            "result.successRate >= 95",
            "",
            "{\"successRate\": 95}",
            PASS,
        ),
        (48, "result matches \"^2\\\\d\\\\d$\"", "", "\"204\"", PASS),
        (
            49,
            "result in [\"Successful\",\"Skipped\"]",
            "",
            "\"Skipped\"",
            PASS,
        ),
        (
            50,
            "result contains \"healthy\"",
            "",
            "\"all healthy\"",
            PASS,
        ),
        (51, "(result?.errorRate ?? 0) < 0.05", "", "{}", PASS),
        (
            52,
            "result == \"200\"",
            "result != \"200\"",
            "\"200\"",
            PASS,
        ),
        (
            52,
            "result == \"200\"",
            "result != \"200\"",
            "\"500\"",
            FAIL,
        ),
        (
            53,
            "result[0] >= 0.95",
            "result[0] < 0.90",
            "[0.92]",
            INCONCLUSIVE,
        ),
        (54, "true", "", "1", PASS),
        (54, "false", "", "1", FAIL),
        (55, "result > 0 ? result < 5 : true", "", "4", PASS),
        (55, "result > 0 ? result < 5 : true", "", "-1", PASS),
        (56, "let r = result[0]; r > 0 && r < 1", "", "[0.5]", PASS),
    ];

    #[test]
    fn conditions_that_people_write_mean_what_they_mean_in_argo() {
        for (row, success, failure, result, expected) in CONDITIONS {
            let actual = phase(success, failure, result);
            assert_eq!(
                shown(actual.clone()),
                *expected,
                "row {row} on {result}: {actual:?}"
            );
        }
    }

    #[test]
    fn two_conditions_make_one_phase() {
        let cases = [
            ("", "", PASS),
            ("true", "", PASS),
            ("false", "", FAIL),
            ("", "true", FAIL),
            ("", "false", PASS),
            ("true", "true", FAIL),
            ("false", "true", FAIL),
            ("true", "false", PASS),
            ("false", "false", INCONCLUSIVE),
            ("true", "result", ERROR),
            ("result", "true", ERROR),
        ];
        for (success, failure, expected) in cases {
            assert_eq!(
                shown(phase(success, failure, "1")),
                expected,
                "{success:?} {failure:?}"
            );
        }
    }

    #[test]
    fn nan_holds_nowhere() {
        assert_eq!(shown(phase("result >= 0.95", "", "NaN")), FAIL);
        assert_eq!(shown(phase("", "result >= 0.95", "NaN")), PASS);
        assert_eq!(
            shown(phase("result >= 0.95", "result < 0.95", "NaN")),
            INCONCLUSIVE
        );
    }

    #[test]
    fn errors_name_the_condition_and_the_place() {
        let cases = [
            (
                "result < \"a\"",
                "1",
                "could not evaluate successCondition \"result < \\\"a\\\"\": invalid operation: < (mismatched types float64 and string) (1:8)\n | result < \"a\"\n | .......^",
            ),
            (
                "result[0] > 1",
                "[]",
                "could not evaluate successCondition \"result[0] > 1\": metric result is nil or empty: no data returned from the metric provider",
            ),
            (
                "result +",
                "[]",
                "could not evaluate successCondition \"result +\": unexpected end of expression (1:9)\n | result +\n | ........^",
            ),
            (
                "len(result)",
                "[1]",
                "could not evaluate successCondition \"len(result)\": expected bool, but got int (1:1)\n | len(result)\n | ^",
            ),
            (
                "foo > 1",
                "1",
                "could not evaluate successCondition \"foo > 1\": unknown name foo (1:1)\n | foo > 1\n | ^",
            ),
        ];
        for (condition, result, expected) in cases {
            assert_eq!(phase(condition, "", result).unwrap_err(), expected);
        }
    }
}
