//! R7.12: what is left of old revisions and of their AnalysisRuns.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::Model;
use crate::analysis::build::Role;
use crate::rollout::Action;
use crate::rollout::observed::{Revision, Run, RunPhase};

/// Revisions 1 to 5, one after another; 5 is stable, and the others have no pods.
fn grown() -> Model {
    let mut model = Model::basic(1, &json!([]));
    for tag in ["1", "2", "3", "4", "5"] {
        model.image(tag);
        model.wait(1);
        model.run_ready();
    }
    model
}

/// Names of what is deleted now: revisions by number.
fn deleted(model: &Model) -> (Vec<i64>, Vec<String>) {
    let (mut revisions, mut runs) = (Vec::new(), Vec::new());
    for action in model.decide().actions {
        if let Action::DeleteReplicaSet { name } = &action {
            let mut sets = model.sets.iter();
            revisions.extend(sets.find(|set| set.name == *name).unwrap().number());
        }
        if let Action::DeleteAnalysisRun { name } = action {
            runs.push(name);
        }
    }
    (revisions, runs)
}

#[test]
fn the_oldest_empty_revisions_beyond_the_limit_go() {
    let limited = |limit: i32, change: fn(&mut Revision), expected: &[i64]| {
        let mut model = grown();
        model.edit(|spec| spec["revisionHistoryLimit"] = json!(limit));
        change(&mut model.sets[0]);
        assert_eq!(deleted(&model).0, expected, "limit {limit}");
    };
    let as_it_is = |_: &mut Revision| {};
    limited(4, as_it_is, &[]);
    limited(3, as_it_is, &[1]);
    limited(1, as_it_is, &[1, 2, 3]);
    limited(0, as_it_is, &[1, 2, 3, 4]);
    // One that stays counts nonetheless: no younger one goes in its stead.
    limited(2, |oldest| oldest.wanted = 1, &[2]);
    limited(2, |oldest| oldest.pods = 1, &[2]);
    limited(2, |oldest| oldest.settled = false, &[2]);
    limited(2, |oldest| oldest.deleting = true, &[2]);
    // Age is that of creation, not the number.
    limited(2, |oldest| oldest.created_at = Timestamp::MAX, &[2, 3]);
}

#[test]
fn ten_are_kept_where_nothing_is_said() {
    let mut model = Model::basic(1, &json!([]));
    for tag in 1..=13 {
        model.image(&tag.to_string());
        model.wait(1);
        model.run_ready();
    }
    let kept: Vec<i64> = model.sets.iter().filter_map(Revision::number).collect();
    assert_eq!(kept, (3..=13).collect::<Vec<_>>(), "ten beside stable");
}

/// A run of a revision, created so many seconds after the beginning.
fn run(name: &str, hash: &str, second: i64, phase: RunPhase) -> Run {
    Run {
        name: name.to_owned(),
        role: Some(Role::Background),
        hash: hash.to_owned(),
        created_at: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second),
        phase,
        message: String::new(),
        terminating: false,
        failure: None,
    }
}

#[test]
fn runs_go_with_their_revision_and_beyond_their_own_limits() {
    let mut model = grown();
    let (first, last) = (model.set("1").hash.clone(), model.set("5").hash.clone());
    let by_hand = Run {
        role: None,
        ..run("by-hand", "gone", 0, RunPhase::Failed)
    };
    model.runs = vec![
        run("of-1", &first, 9, RunPhase::Successful),
        run("good-old", &last, 1, RunPhase::Successful),
        run("good-new", &last, 2, RunPhase::Successful),
        run("failed", &last, 3, RunPhase::Failed),
        run("unclear", &last, 4, RunPhase::Inconclusive),
        run("error", &last, 5, RunPhase::Error),
        run("running", &last, 0, RunPhase::Running),
        run("of-none", "gone", 8, RunPhase::Successful),
        by_hand,
    ];
    for (limits, history, expected) in [
        ((9, 9), 10, vec!["of-none"]),
        ((9, 9), 3, vec!["of-1", "of-none"]),
        ((3, 2), 10, vec!["failed", "good-old", "of-none"]),
        (
            (0, 0),
            10,
            vec![
                "error", "failed", "good-new", "good-old", "of-1", "of-none", "unclear",
            ],
        ),
    ] {
        model.edit(|spec| {
            spec["revisionHistoryLimit"] = json!(history);
            spec["analysis"] = json!({"successfulRunHistoryLimit": limits.0, "unsuccessfulRunHistoryLimit": limits.1});
        });
        let mut gone = deleted(&model).1;
        gone.sort();
        gone.dedup();
        assert_eq!(gone, expected, "limits {limits:?}, {history} revisions");
    }
}
