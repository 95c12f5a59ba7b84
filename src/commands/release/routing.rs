//! What of a Rollout is our routing, how it is taken out, and when it must not be. Pure.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde_json::{Value, json};
use sidestep_control::api::rollout::{PLUGIN, TrafficRouting};
use sidestep_control::api::{Rollout, labels};
use sidestep_control::rollout::plan::{References, RouterObject, named_routers, plan};

/// Whether the spec has our proxies route it, as it stands. A block of another router may have been translated; that the Split tells.
pub(crate) fn is_ours(rollout: &Rollout) -> bool {
    patch(rollout).is_some()
}

/// What takes our routing out; none where the spec has none of ours.
pub(crate) fn patch(rollout: &Rollout) -> Option<Value> {
    let strategy = &rollout.spec.strategy;
    if strategy.blue_green.is_some() {
        let annotated = rollout.annotations().contains_key(labels::PROXY);
        return annotated.then(|| json!({"metadata": {"annotations": {labels::PROXY: null}}}));
    }
    let routing = strategy.canary.as_ref()?.traffic_routing.as_ref()?;
    let routing = without_ours(routing)?;
    Some(json!({"spec": {"strategy": {"canary": {"trafficRouting": routing}}}}))
}

/// The change of `trafficRouting`; what stands beside our block and belongs to no router goes with it.
fn without_ours(routing: &TrafficRouting) -> Option<Value> {
    let plugins = routing.plugins.iter().flatten();
    let theirs = plugins.clone().filter(|(name, _)| *name != PLUGIN).count();
    let is_named = plugins.count() > theirs;
    match (theirs > 0, !routing.others.is_empty()) {
        (false, false) => Some(Value::Null),
        _ if !is_named => None,
        (true, _) => Some(json!({"plugins": {PLUGIN: null}})),
        (false, true) => Some(json!({"plugins": null})),
    }
}

/// The Rollout without our routing.
pub(crate) fn without(rollout: &Rollout) -> Rollout {
    let patched = || {
        let mut value = serde_json::to_value(rollout).ok()?;
        json_patch::merge(&mut value, &patch(rollout)?);
        serde_json::from_value(value).ok()
    };
    patched().unwrap_or_else(|| rollout.clone())
}

/// Why the Rollout cannot be released as it stands, if it cannot; `services` are those that the proxies split for it, `live` are the
/// objects of other routers that exist.
pub(crate) fn refusal(
    rollout: &Rollout,
    services: &[Service],
    live: &[RouterObject],
) -> Option<String> {
    let after = without(rollout);
    about_update(rollout)
        .or_else(|| about_selectors(rollout, services))
        .or_else(|| about_others(&after, live))
        .or_else(|| about_fields(rollout, &after))
}

/// In mid-update the share of the canary would change at one blow.
fn about_update(rollout: &Rollout) -> Option<String> {
    let status = rollout.status.clone().unwrap_or_default();
    let generation = rollout.metadata.generation.map(|number| number.to_string());
    if status.observed_generation != generation {
        return Some("no controller has looked at its spec yet".to_owned());
    }
    let is_promoted = status.stable_rs.is_some() && status.stable_rs == status.current_pod_hash;
    let under_way = !is_promoted && !status.abort;
    let name = rollout.name_any();
    under_way.then(|| {
        format!(
            "it is in the middle of an update; finish that first: `sidestep promote {name}` or `sidestep abort {name}`"
        )
    })
}

fn about_selectors(rollout: &Rollout, services: &[Service]) -> Option<String> {
    let lacks = |service: &&Service| {
        let spec = service.spec.clone().unwrap_or_default();
        let is_name = spec.type_.as_deref() == Some("ExternalName");
        !is_name && spec.selector.is_none_or(|selector| selector.is_empty())
    };
    let name = services.iter().find(lacks)?.name_any();
    let selector = rollout.spec.selector.as_ref();
    let selector = selector.and_then(|selector| selector.match_labels.clone());
    let patch = json!({"spec": {"selector": selector.unwrap_or_default()}});
    Some(format!(
        "Service \"{name}\" has no selector: its callers come through the proxies and would reach nobody without them; give it one first: \
         `kubectl patch service {name} --type merge -p '{patch}'`"
    ))
}

/// A block of another router that is left over: if nobody else can, our proxies go on carrying it out.
fn about_others(after: &Rollout, live: &[RouterObject]) -> Option<String> {
    let mut named = named_routers(after).into_iter();
    let object = named.find(|object| !live.contains(object))?;
    Some(format!(
        "trafficRouting.{} would be left to Sidestep's proxies, since {object} does not exist; create it with all of its weight at the \
         stable Service, or take the block out of the Rollout",
        object.router
    ))
}

/// Fields that ask for routing would make the spec invalid, for Argo as for us.
fn about_fields(before: &Rollout, after: &Rollout) -> Option<String> {
    let complaints = |rollout: &Rollout| plan(rollout, &References::default()).err();
    let before = complaints(before).unwrap_or_default();
    let after = complaints(after).unwrap_or_default();
    let new = after.iter().find(|complaint| !before.contains(complaint))?;
    Some(format!(
        "without routing its spec would be invalid; change this first: {new}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(canary: &Value, status: &Value) -> Rollout {
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "demo:blue"}]}});
        let value = json!({
            "metadata": {"name": "web", "generation": 2},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template, "strategy": {"canary": canary}},
            "status": status,
        });
        serde_json::from_value(value).unwrap()
    }

    fn steady() -> Value {
        json!({"observedGeneration": "2", "stableRS": "a", "currentPodHash": "a"})
    }

    fn ours() -> Value {
        json!({"stableService": "web", "canaryService": "web-canary", "trafficRouting": {"plugins": {"sidestep/proxy": {}}}})
    }

    #[test]
    fn what_is_taken_out_is_ours_and_nothing_else() {
        let none = Value::Null;
        for (routing, expected) in [
            (json!({}), Some(none.clone())),
            (
                json!({"plugins": {"sidestep/proxy": {}}}),
                Some(none.clone()),
            ),
            (
                json!({"plugins": {"sidestep/proxy": {}}, "maxTrafficWeight": 1000}),
                Some(none),
            ),
            (
                json!({"plugins": {"sidestep/proxy": {}, "a/b": {}}}),
                Some(json!({"plugins": {"sidestep/proxy": null}})),
            ),
            (
                json!({"plugins": {"sidestep/proxy": {}}, "nginx": {"stableIngress": "web"}}),
                Some(json!({"plugins": null})),
            ),
            (json!({"nginx": {"stableIngress": "web"}}), None),
            (json!({"plugins": {"a/b": {}}}), None),
        ] {
            let found = patch(&rollout(&json!({"trafficRouting": routing}), &steady()));
            let expected = expected.map(
                |routing| json!({"spec": {"strategy": {"canary": {"trafficRouting": routing}}}}),
            );
            assert_eq!(found, expected, "{routing}");
        }
        assert_eq!(patch(&rollout(&json!({}), &steady())), None);
    }

    #[test]
    fn what_would_go_wrong_is_said_before() {
        let paused = json!({"observedGeneration": "2", "stableRS": "a", "currentPodHash": "b"});
        let aborted = json!({"observedGeneration": "2", "stableRS": "a", "currentPodHash": "b", "abort": true});
        let unseen = json!({"observedGeneration": "1", "stableRS": "a", "currentPodHash": "a"});
        let mut delayed = ours();
        delayed["scaleDownDelaySeconds"] = json!(60);
        for (canary, status, selector, expected) in [
            (ours(), steady(), json!({"app": "web"}), None),
            (ours(), aborted, json!({"app": "web"}), None),
            (
                ours(),
                paused,
                json!({"app": "web"}),
                Some("in the middle of an update"),
            ),
            (ours(), unseen, json!({"app": "web"}), Some("no controller")),
            (
                ours(),
                steady(),
                Value::Null,
                Some(r#"-p '{"spec":{"selector":{"app":"web"}}}'"#),
            ),
            (
                delayed,
                steady(),
                json!({"app": "web"}),
                Some("spec.strategy.scaleDownDelaySeconds"),
            ),
        ] {
            let service = json!({"metadata": {"name": "web"}, "spec": {"selector": selector}});
            let service: Service = serde_json::from_value(service).unwrap();
            let said = refusal(&rollout(&canary, &status), &[service], &[]);
            match expected {
                None => assert_eq!(said, None, "{canary} {status}"),
                Some(expected) => assert!(
                    said.clone().is_some_and(|said| said.contains(expected)),
                    "{said:?}"
                ),
            }
        }
    }

    #[test]
    fn a_block_that_nobody_else_carries_out_is_not_let_go() {
        for plugins in [json!({}), json!({"sidestep/proxy": {}})] {
            let routing = json!({"nginx": {"stableIngress": "web"}, "plugins": plugins});
            let canary = json!({"stableService": "web", "canaryService": "web-canary", "trafficRouting": routing});
            let rollout = rollout(&canary, &steady());
            let said = refusal(&rollout, &[], &[]);
            assert!(said.is_some_and(|said| said.contains("trafficRouting.nginx")));
            let live = named_routers(&without(&rollout));
            assert_eq!((live.len(), refusal(&rollout, &[], &live)), (1, None));
        }
    }
}
