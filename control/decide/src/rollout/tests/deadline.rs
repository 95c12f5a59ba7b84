//! What is said when the progress deadline passes (R5.3, R5.4): whose fault it is.

use serde_json::json;

use super::Model;

/// A routed update to 20 with a deadline of 60 s.
fn updated(abort: bool) -> Model {
    let mut model = Model::routed(5, &json!([{"setWeight": 20}, {"pause": {}}])).deployed();
    model.edit(|spec| {
        spec["progressDeadlineSeconds"] = json!(60);
        spec["progressDeadlineAbort"] = json!(abort);
    });
    model.run();
    model.image("2");
    model.run();
    model
}

/// Nobody does anything until the deadline is over.
fn expire(model: &mut Model) {
    model.wait(62);
    model.run();
}

#[test]
fn a_replica_set_that_does_not_come_is_named() {
    let mut model = updated(false);
    let expected = "ProgressDeadlineExceeded: ReplicaSet \"web-";
    expire(&mut model);
    assert!(model.message().starts_with(expected), "{}", model.message());
    model.ready("2", 1);
    model.run();
    assert_eq!(model.message(), "CanaryPauseStep", "better late");
}

#[test]
fn a_proxy_that_does_not_acknowledge_is_named() {
    for (proxies, cause) in [
        (vec!["proxy-1"], "proxies to acknowledge the Split: proxy-1"),
        (vec![], "a proxy to serve the Split: none is there"),
    ] {
        let mut model = updated(false);
        model.prompt = false;
        model.proxies = proxies.into_iter().map(str::to_owned).collect();
        model.ready("2", 1);
        model.run();
        assert_eq!(model.weights(), Some((20, 80)));
        expire(&mut model);
        let expected = format!(
            "ProgressDeadlineExceeded: Rollout has timed out waiting for {cause}, for weight 20"
        );
        assert_eq!((model.phase(), model.message()), ("Degraded", &*expected));
        let condition = model.status.conditions.iter();
        let mut condition = condition.filter(|condition| condition.kind == "Progressing");
        let condition = condition.next().unwrap();
        let seen = (condition.status.as_str(), condition.reason.as_str());
        assert_eq!(seen, ("False", "ProgressDeadlineExceeded"), "as Argo's");
        model.proxies = vec!["proxy-1".to_owned()];
        model.acknowledge();
        model.run();
        assert_eq!(model.message(), "CanaryPauseStep");
    }
}

#[test]
fn an_abort_at_the_deadline_says_the_same() {
    let mut model = updated(true);
    model.prompt = false;
    model.ready("2", 1);
    model.run();
    model.events.clear();
    expire(&mut model);
    let cause = "Rollout has timed out waiting for proxies to acknowledge the Split: proxy-1, proxy-2, for weight 20";
    let expected = format!("RolloutAborted: Rollout aborted update to revision 2: {cause}");
    assert_eq!((model.phase(), model.message()), ("Degraded", &*expected));
    let abort = model.memory.last_abort.clone().unwrap();
    assert_eq!(abort.reason, cause);
}
