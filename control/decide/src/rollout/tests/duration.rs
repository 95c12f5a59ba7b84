//! R2.25: when an update began, was held up, and ended.

use serde_json::json;

use super::Model;
use super::traces::pause_at;

/// Seconds since the start of the model at which it began and ended, seconds held up, and how it ended.
fn times(model: &Model) -> (i64, Option<i64>, i64, Option<&str>) {
    let duration = model.status.duration.as_ref().unwrap();
    let epoch = "2026-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap();
    let since = |at: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time| {
        at.0.duration_since(epoch).as_secs()
    };
    (
        duration.rollout_started_at.as_ref().map(since).unwrap(),
        duration.finished_at.as_ref().map(since),
        duration.total_manual_pause_duration_seconds,
        duration.completion_status.as_deref(),
    )
}

/// Deployed, and ten seconds later updated as far as the first pause.
fn updated() -> Model {
    let mut model = Model::routed(2, &pause_at(&[50])).deployed();
    assert_eq!(times(&model), (0, Some(0), 0, Some("Promoted")));
    model.wait(10);
    model.image("2");
    model.run_ready();
    assert_eq!(times(&model), (10, None, 0, None));
    model
}

#[test]
fn a_pause_for_a_person_is_counted() {
    let mut model = updated();
    model.wait(7);
    model.run_ready();
    assert_eq!(
        times(&model),
        (10, None, 0, None),
        "nothing is written for it"
    );
    model.promote();
    model.run_ready();
    assert_eq!(times(&model), (10, Some(17), 7, Some("Promoted")));
}

#[test]
fn a_pause_for_a_time_is_not_but_one_by_the_user_is() {
    let steps = json!([{"setWeight": 50}, {"pause": {"duration": 20}}]);
    let mut model = Model::routed(2, &steps).deployed();
    model.image("2");
    model.run_ready();
    model.wait(5);
    model.edit(|spec| spec["paused"] = json!(true));
    model.run_ready();
    model.wait(30);
    model.edit(|spec| spec["paused"] = json!(false));
    model.run_ready();
    assert_eq!(times(&model), (0, Some(35), 30, Some("Promoted")));
}

#[test]
fn an_abort_ends_it_and_a_retry_begins_it_anew() {
    let mut model = updated();
    model.wait(5);
    model.status.abort = true;
    model.run_ready();
    assert_eq!(times(&model), (10, Some(15), 5, Some("Aborted")));
    model.wait(5);
    model.status.abort = false;
    model.run_ready();
    assert_eq!(times(&model), (20, None, 0, None));
    model.status.promote_full = true;
    model.turn();
    assert_eq!(times(&model), (20, None, 0, Some("FastPromoted")));
    model.run_ready();
    assert_eq!(times(&model), (20, Some(20), 0, Some("FastPromoted")));
}

#[test]
fn ways_back_have_names_of_their_own() {
    let mut model = updated();
    model.wait(1);
    model.image("1");
    model.run_ready();
    assert_eq!(times(&model), (11, Some(11), 0, Some("FastRolledBack")));
    for (window, outcome) in [(0, "RolledBack"), (1, "FastRolledBack")] {
        let mut model = updated();
        model.promote();
        model.run_ready();
        model.edit(|spec| spec["rollbackWindow"] = json!({"revisions": window}));
        model.image("1");
        model.run_ready();
        if window == 0 {
            model.promote();
            model.run_ready();
        }
        assert_eq!(times(&model), (10, Some(10), 0, Some(outcome)));
    }
}

#[test]
fn a_rollout_that_was_taken_over_has_none() {
    let mut model = Model::routed(2, &pause_at(&[50])).deployed();
    model.status.duration = None;
    model.run_ready();
    assert_eq!(model.status.duration, None);
}
