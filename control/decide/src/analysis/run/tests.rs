//! Runs played from start to end: a script of answers stands for the providers.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const START: i64 = 1_800_000_000;

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

fn spec(json: Value) -> AnalysisRunSpec {
    serde_json::from_value(json).unwrap()
}

fn metric(name: &str, extra: Value) -> Value {
    let mut metric = json!({"name": name, "provider": {"web": {"url": "http://localhost"}}});
    let Value::Object(extra) = extra else {
        panic!("fields are an object");
    };
    metric.as_object_mut().unwrap().extend(extra);
    metric
}

/// A finished measurement: `S`, `F`, `I`, `E`.
fn answer(letter: char, now: Timestamp) -> Measurement {
    let phase = match letter {
        'S' => Phase::Successful,
        'F' => Phase::Failed,
        'I' => Phase::Inconclusive,
        _ => Phase::Error,
    };
    Measurement {
        phase: phase.as_str().to_owned(),
        started_at: Some(Time(now)),
        finished_at: Some(Time(now)),
        ..Measurement::default()
    }
}

struct Played {
    status: AnalysisRunStatus,
    /// When each measurement was begun, in seconds, by metric.
    begun: Vec<(String, i64)>,
    events: Vec<&'static str>,
    at: i64,
}

/// Plays a run: each metric answers its letters in turn, the last one for ever.
fn play(spec: &AnalysisRunSpec, scripts: &[(&str, &str)], until: i64) -> Played {
    let mut played = Played {
        status: AnalysisRunStatus::default(),
        begun: Vec::new(),
        events: Vec::new(),
        at: 0,
    };
    let mut finished = Vec::new();
    loop {
        let now = time(played.at);
        let moved = step(spec, &played.status, std::mem::take(&mut finished), now);
        played.status = moved.status;
        played
            .events
            .extend(moved.events.iter().map(|event| event.reason));
        for due in moved.due {
            assert_eq!(due.ask, Ask::Begin);
            let taken = played
                .begun
                .iter()
                .filter(|(name, _)| *name == due.metric)
                .count();
            let script = scripts
                .iter()
                .find(|(name, _)| *name == due.metric)
                .unwrap()
                .1;
            let letter = script.chars().nth(taken).or_else(|| script.chars().last());
            played.begun.push((due.metric.clone(), played.at));
            finished.push(Finished {
                metric: due.metric,
                measurement: letter.map(|letter| answer(letter, now)),
                again: None,
            });
        }
        if finished.is_empty() {
            match moved.again {
                Some(at) if at.as_second() - START <= until => played.at = at.as_second() - START,
                Some(_) | None => return played,
            }
        }
    }
}

fn check(spec: Value, script: &str, phase: &str, measured: usize, message: Option<&str>) {
    let case = format!("{spec} answering {script}");
    let played = play(&self::spec(spec), &[("m", script)], 3600);
    let actual = (
        played.status.phase.as_str(),
        played.begun.len(),
        played.status.message.as_deref(),
    );
    assert_eq!(actual, (phase, measured, message), "{case}");
}

#[test]
fn limits_decide_when_and_how_a_run_ends() {
    let one = |extra: Value| json!({"metrics": [metric("m", extra)]});
    let five = json!({"interval": "1m", "count": 5, "failureLimit": 1});
    check(one(five.clone()), "SFSSS", "Successful", 5, None);
    check(
        one(five.clone()),
        "SFF",
        "Failed",
        3,
        Some("Metric \"m\" assessed Failed due to failed (2) > failureLimit (1)"),
    );
    check(one(five.clone()), "SEESSSS", "Successful", 7, None);
    check(
        one(five),
        "E",
        "Error",
        5,
        Some(
            "Metric \"m\" assessed Error due to consecutiveErrors (5) > consecutiveErrorLimit (4)",
        ),
    );
    check(one(json!({})), "S", "Successful", 1, None);
    check(
        one(json!({})),
        "I",
        "Inconclusive",
        1,
        Some("Metric \"m\" assessed Inconclusive due to inconclusive (1) > inconclusiveLimit (0)"),
    );
    check(
        one(json!({"interval": "1m", "count": 3, "failureLimit": -1})),
        "F",
        "Successful",
        3,
        None,
    );
    check(
        one(json!({"interval": "1m", "count": "3", "inconclusiveLimit": "2"})),
        "IIS",
        "Successful",
        3,
        None,
    );
    check(
        one(json!({"interval": "1m", "failureLimit": 5, "consecutiveSuccessLimit": 3})),
        "SSFSSS",
        "Successful",
        6,
        None,
    );
    check(
        one(json!({"interval": "1m", "count": 5, "failureLimit": 2, "consecutiveSuccessLimit": 3})),
        "SSFSS",
        "Inconclusive",
        5,
        Some(
            "Metric \"m\" assessed Inconclusive due to consecutiveSuccess (2) < consecutiveSuccessLimit (3)",
        ),
    );
    check(
        one(
            json!({"interval": "1m", "count": 4, "failureLimit": -1, "consecutiveSuccessLimit": 3}),
        ),
        "SFFS",
        "Failed",
        4,
        Some(
            "Metric \"m\" assessed Failed due to consecutiveSuccess (1) < consecutiveSuccessLimit (3)",
        ),
    );
}

#[test]
fn measurements_keep_their_times() {
    let run = spec(json!({"metrics": [
        metric("m", json!({"interval": "1m", "count": 3, "initialDelay": "30s"})),
        metric("n", json!({"interval": "20s", "count": 3})),
    ]}));
    let played = play(&run, &[("m", "S"), ("n", "SES")], 3600);
    let of = |name: &str| -> Vec<i64> {
        played
            .begun
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, at)| *at)
            .collect()
    };
    assert_eq!(of("m"), [30, 90, 150]);
    assert_eq!(
        of("n"),
        [0, 20, 30, 50],
        "an error is tried again after 10 s"
    );
    assert_eq!(played.status.phase, "Successful");
    assert_eq!(
        played.events,
        [
            "MetricSuccessful",
            "MetricSuccessful",
            "AnalysisRunSuccessful"
        ]
    );
}

#[test]
fn one_bad_metric_ends_the_others() {
    let run = spec(json!({"metrics": [
        metric("good", json!({"interval": "1m"})),
        metric("bad", json!({"initialDelay": "90s"})),
        metric("late", json!({"initialDelay": "1h"})),
    ]}));
    let played = play(&run, &[("good", "S"), ("bad", "F")], 7200);
    assert_eq!(played.at, 90);
    let status = &played.status;
    assert_eq!(status.phase, "Failed");
    let phases: Vec<_> = status
        .metric_results
        .iter()
        .map(|result| (result.name.as_str(), result.phase.as_str()))
        .collect();
    assert_eq!(phases, [("good", "Successful"), ("bad", "Failed")]);
    let expected = crate::api::analysis::RunSummary {
        count: 3,
        successful: 1,
        failed: 1,
        ..Default::default()
    };
    assert_eq!(status.run_summary, Some(expected));
    assert_eq!(status.completed_at, Some(Time(time(90))));
}

#[test]
fn the_worst_metric_gives_phase_and_message() {
    let run = spec(json!({"metrics": [
        metric("a", json!({"consecutiveErrorLimit": 0})),
        metric("b", json!({})),
        metric("c", json!({})),
    ]}));
    let played = play(&run, &[("a", "E"), ("b", "F"), ("c", "I")], 3600);
    assert_eq!(played.status.phase, "Failed");
    assert_eq!(
        played.status.message.as_deref(),
        Some("Metric \"b\" assessed Failed due to failed (1) > failureLimit (0)")
    );
}

#[test]
fn a_measurements_message_stands_in_the_runs() {
    let run = spec(json!({"metrics": [metric("m", json!({"consecutiveErrorLimit": 0}))]}));
    let finished = vec![Finished {
        metric: "m".to_owned(),
        measurement: Some(Measurement {
            message: Some("no route".to_owned()),
            ..answer('E', time(0))
        }),
        again: None,
    }];
    let status = step(&run, &AnalysisRunStatus::default(), finished, time(0)).status;
    assert_eq!(
        status.message.as_deref(),
        Some(
            "Metric \"m\" assessed Error due to consecutiveErrors (1) > consecutiveErrorLimit (0): \"Error Message: no route\""
        )
    );
}

#[test]
fn dry_runs_are_measured_and_do_not_count() {
    let run = spec(json!({
        "metrics": [metric("m", json!({})), metric("try-1", json!({}))],
        "dryRun": [{"metricName": "^try-"}],
    }));
    let played = play(&run, &[("m", "S"), ("try-1", "F")], 3600);
    let status = &played.status;
    assert_eq!(
        (status.phase.as_str(), &status.message),
        ("Successful", &None)
    );
    assert!(status.metric_results[1].dry_run);
    assert_eq!(status.run_summary.as_ref().unwrap().count, 1);
    assert_eq!(status.dry_run_summary.as_ref().unwrap().failed, 1);
}

#[test]
fn the_last_measurements_are_kept() {
    let run = |rules: Value| {
        spec(json!({
            "metrics": [metric("m", json!({"interval": "1m", "count": 15}))],
            "measurementRetention": rules,
        }))
    };
    let kept = |run: &AnalysisRunSpec| {
        let status = play(run, &[("m", "S")], 3600).status;
        assert_eq!(status.metric_results[0].count, 15);
        status.metric_results[0].measurements.len()
    };
    assert_eq!(kept(&run(json!([]))), 10);
    assert_eq!(kept(&run(json!([{"metricName": "m", "limit": 3}]))), 3);
    assert_eq!(kept(&run(json!([{"metricName": "m", "limit": 20}]))), 15);
}

#[test]
fn a_terminated_run_ends_well_unless_something_was_bad() {
    let run = spec(json!({
        "metrics": [metric("m", json!({"interval": "1m"}))],
        "terminate": true,
    }));
    let moved = step(&run, &AnalysisRunStatus::default(), Vec::new(), time(0));
    assert_eq!(moved.status.phase, "Successful");
    assert_eq!(moved.status.message.as_deref(), Some("Run Terminated"));
    assert_eq!(moved.due, []);
}

#[test]
fn a_measurement_in_flight_is_resumed_in_time_and_given_up_at_the_end() {
    let mut run = spec(json!({"metrics": [metric("m", json!({}))]}));
    let open = Measurement {
        phase: "Running".to_owned(),
        started_at: Some(Time(time(0))),
        resume_at: Some(Time(time(30))),
        ..Measurement::default()
    };
    let finished = |measurement: Option<Measurement>| {
        vec![Finished {
            metric: "m".to_owned(),
            measurement,
            again: None,
        }]
    };
    let begun = step(
        &run,
        &AnalysisRunStatus::default(),
        finished(Some(open.clone())),
        time(0),
    );
    assert_eq!(begun.status.phase, "Running");
    assert_eq!((begun.due.len(), begun.again), (0, Some(time(30))));

    let due = step(&run, &begun.status, Vec::new(), time(30));
    assert_eq!(due.due[0].ask, Ask::Resume(open.clone()));
    let ended = step(
        &run,
        &due.status,
        finished(Some(answer('S', time(31)))),
        time(31),
    );
    assert_eq!(ended.status.phase, "Successful");
    assert_eq!(ended.status.metric_results[0].measurements.len(), 1);

    run.terminate = Some(true);
    let ending = step(&run, &begun.status, Vec::new(), time(5));
    assert_eq!(ending.due[0].ask, Ask::GiveUp(open));
    assert_eq!(ending.status.phase, "Running");
    let ended = step(&run, &ending.status, finished(None), time(5));
    assert_eq!(ended.status.phase, "Successful");
    assert_eq!(ended.status.metric_results[0].measurements, []);
}

#[test]
fn what_is_over_is_deleted_in_its_time() {
    let ttl = json!({"secondsAfterCompletion": 100, "secondsAfterSuccess": 10, "secondsAfterFailure": 20});
    let cases = [
        ("Successful", 10),
        ("Failed", 20),
        ("Error", 100),
        ("Inconclusive", 100),
    ];
    for (phase, seconds) in cases {
        let run = spec(json!({"metrics": [], "ttlStrategy": ttl}));
        let status = AnalysisRunStatus {
            phase: phase.to_owned(),
            completed_at: Some(Time(time(0))),
            ..AnalysisRunStatus::default()
        };
        let before = step(&run, &status, Vec::new(), time(seconds - 1));
        assert_eq!(
            (before.expired, before.again),
            (false, Some(time(seconds))),
            "{phase}"
        );
        let after = step(&run, &status, Vec::new(), time(seconds));
        assert_eq!((after.expired, after.again), (true, None), "{phase}");
        assert_eq!(after.status, status);
    }
}

#[test]
fn a_run_that_makes_no_sense_is_an_error() {
    let metrics = |extra: Value| json!({"metrics": [metric("m", extra)]});
    let cases = [
        (json!({}), "Analysis spec invalid: no metrics specified"),
        (
            json!({"metrics": [metric("m", json!({})), metric("m", json!({}))]}),
            "Analysis spec invalid: metrics[1]: duplicate name 'm'",
        ),
        (
            metrics(json!({"count": 2})),
            "Analysis spec invalid: metrics[0]: interval must be specified when count > 1",
        ),
        (
            metrics(json!({"count": 2, "interval": "1m", "failureLimit": 3})),
            "Analysis spec invalid: metrics[0]: count must be >= failureLimit + consecutiveSuccessLimit",
        ),
        (
            metrics(json!({"interval": "5"})),
            "Analysis spec invalid: metrics[0]: invalid interval string: time: missing unit in duration \"5\"",
        ),
        (
            metrics(json!({"provider": {}})),
            "Analysis spec invalid: metrics[0]: no provider specified",
        ),
        (
            metrics(json!({"provider": {"web": {}, "job": {}}})),
            "Analysis spec invalid: metrics[0]: multiple providers specified",
        ),
        (
            metrics(json!({"count": "many"})),
            "Analysis spec invalid: metrics[0]: count: \"many\" is no integer",
        ),
        (
            json!({"metrics": [metric("m", json!({}))], "dryRun": [{"metricName": "x"}]}),
            "Analysis spec invalid: dryRun[0]: Rule didn't match any metric name(s)",
        ),
        (
            metrics(json!({"successCondition": "result < {{args.x}}"})),
            "Unable to resolve metric arguments: args.x was not resolved",
        ),
        (
            json!({"metrics": [metric("m", json!({}))], "args": [{"name": "a"}]}),
            "Unable to resolve metric arguments: args.a was not resolved",
        ),
    ];
    for (run, expected) in cases {
        let moved = step(
            &spec(run.clone()),
            &AnalysisRunStatus::default(),
            Vec::new(),
            time(0),
        );
        let actual = (moved.status.phase.as_str(), moved.status.message.as_deref());
        assert_eq!(actual, ("Error", Some(expected)), "{run}");
        assert_eq!(moved.status.completed_at, Some(Time(time(0))));
        assert_eq!(moved.due, []);
    }
}

proptest! {
    /// Whatever the answers, a run with a count ends, no metric is asked once it is over, and a second step changes nothing.
    #[test]
    fn every_counted_run_ends(
        script in "[SFIE]{1,12}",
        count in 1..6,
        failure_limit in -1_i32..3,
        successes in 0..3,
    ) {
        prop_assume!(count >= failure_limit.max(0) + successes);
        let run = spec(json!({"metrics": [metric("m", json!({
            "interval": "10s", "count": count, "failureLimit": failure_limit, "consecutiveSuccessLimit": successes,
        }))]}));
        let played = play(&run, &[("m", &(script + "F"))], 3600);
        prop_assert!(Phase::read(&played.status.phase).is_completed(), "{}", played.status.phase);
        let again = step(&run, &played.status, Vec::new(), time(played.at));
        prop_assert_eq!(&again.status, &played.status);
        prop_assert!(again.due.is_empty() && again.events.is_empty());
        let result = &played.status.metric_results[0];
        prop_assert_eq!(result.count, result.successful + result.failed + result.inconclusive);
    }
}

#[test]
fn a_look_in_vain_leaves_no_trace_and_is_repeated_when_the_provider_said() {
    let run = spec(json!({"metrics": [metric("m", json!({}))]}));
    let open = Measurement {
        phase: "Running".to_owned(),
        started_at: Some(Time(time(0))),
        resume_at: Some(Time(time(1))),
        ..Measurement::default()
    };
    let looked = |status: &AnalysisRunStatus, at: i64| {
        let finished = Finished {
            metric: "m".to_owned(),
            measurement: Some(open.clone()),
            again: Some(time(at + 1)),
        };
        step(&run, status, vec![finished], time(at))
    };
    let begun = looked(&AnalysisRunStatus::default(), 0);
    assert_eq!((begun.due.len(), begun.again), (0, Some(time(1))));
    for at in 1..60 {
        let due = step(&run, &begun.status, Vec::new(), time(at));
        assert_eq!(due.due[0].ask, Ask::Resume(open.clone()), "{at}");
        let after = looked(&due.status, at);
        assert_eq!(after.status, begun.status, "{at}");
        assert_eq!(
            (after.due.len(), after.again),
            (0, Some(time(at + 1))),
            "{at}"
        );
    }
}
