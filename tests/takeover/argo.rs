//! What Argo Rollouts leaves behind, made of a file of `tests/takeover/`, and what it looks for when it comes back.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, PodTemplate, Service};
use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sidestep_control::api::Rollout;
use sidestep_control::rollout::hash;

use crate::support::cluster::World;

/// What the revisions of an image are called.
pub(crate) struct Names {
    blue: &'static str,
    yellow: &'static str,
    /// How we come to the same, if we can.
    ours: Option<fn(hash::Names, Option<i32>) -> String>,
}

// Computed by a program that shares nothing with ours, which also gives the two hashes that Argo's end-to-end tests hold (R2.2).

/// By Argo since 1.9.
pub(crate) const NAMES_TODAY: Names = Names {
    blue: "6cf475fd67",
    yellow: "657f87c47f",
    ours: Some(hash::Names::today),
};

/// By Argo before 1.9.
pub(crate) const NAMES_BEFORE: Names = Names {
    blue: "699b4cc88c",
    yellow: "7b596cd79f",
    ours: Some(hash::Names::before),
};

/// By whoever.
pub(crate) const NAMES_OF_OTHERS: Names = Names {
    blue: "5d4f9b7c65",
    yellow: "7c9d8b5f66",
    ours: None,
};

/// What today's Argo calls the template of demo:green.
const GREEN: &str = "b658898c4";

const HASH: &str = "rollouts-pod-template-hash";
const INSTANCE: &str = "argo-rollouts.argoproj.io/controller-instance-id";

/// A file of `tests/takeover/`.
#[derive(Deserialize)]
struct State {
    /// Of the Rollout, beside replicas, selector and template.
    spec: Value,
    /// Service → the hash in its selector.
    #[serde(default)]
    services: BTreeMap<String, String>,
    sets: Vec<Set>,
    #[serde(default)]
    templates: Vec<Analysis>,
    #[serde(default)]
    runs: Vec<Analysis>,
    /// Of the Rollout, beside `observedGeneration`.
    status: Value,
}

/// A ReplicaSet.
#[derive(Clone, Deserialize)]
struct Set {
    revision: u32,
    image: String,
    replicas: i32,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// An AnalysisTemplate, or an AnalysisRun.
#[derive(Deserialize)]
struct Analysis {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    spec: Value,
    #[serde(default)]
    status: Value,
}

/// What was left behind.
pub(crate) struct Left {
    state: State,
    /// As it stood before anybody took it over.
    before: Option<Snapshot>,
}

/// Everything that a takeover must not touch.
#[derive(Serialize)]
struct Snapshot {
    /// By name: uid, labels, annotations, owners and spec.
    sets: BTreeMap<String, Value>,
    /// Uid by name.
    pods: BTreeMap<String, String>,
    /// Selector by name, of those Services that the Rollout names.
    services: BTreeMap<String, Value>,
    spec: Value,
    status: Value,
}

impl Left {
    /// Makes the objects of a state; a controller of this instance is to look after them.
    pub(crate) async fn behind(world: &World, state: &str, names: &Names, instance: &str) -> Self {
        let state = read(state, names);
        let mine = json!({INSTANCE: instance});
        for template in &state.templates {
            world
                .create(&analysis("AnalysisTemplate", template, &mine))
                .await;
        }
        world.create(&rollout(&state, &mine)).await;
        let made = world.api::<Rollout>().get("web").await.unwrap();
        if let Some(ours) = names.ours {
            let named = ours(hash::Names::of(&made.spec.template), None);
            assert_eq!(named, names.yellow, "R2.1");
        }
        let owner = json!([{
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web", "uid": made.uid(),
            "controller": true, "blockOwnerDeletion": true,
        }]);
        // A Service whose Rollout is gone would be given its selector back, by the controller of whichever test.
        for (name, hash) in &state.services {
            world.create(&service(name, hash)).await;
        }
        for set in &state.sets {
            world.create(&replica_set(set, names, &owner)).await;
        }
        for run in &state.runs {
            let mut object = analysis("AnalysisRun", run, &mine);
            object["metadata"]["ownerReferences"] = owner.clone();
            object["metadata"]["annotations"] = json!({"rollout.argoproj.io/revision": "2"});
            world.create(&object).await;
        }
        Self {
            state,
            before: None,
        }
    }

    /// Waits for the pods, and gives the Rollout the status that Argo would have written.
    pub(crate) async fn settle(&mut self, world: &World) {
        for set in world.api::<ReplicaSet>().list(&everything()).await.unwrap() {
            let wanted = set.spec.as_ref().and_then(|spec| spec.replicas);
            let available = |set: &ReplicaSet| {
                let status = set.status.clone().unwrap_or_default();
                Some(status.available_replicas.unwrap_or(0)) == wanted
            };
            world
                .eventually(&set.name_any(), "is available", available)
                .await;
        }
        let api = world.api::<Rollout>();
        let generation = api.get("web").await.unwrap().metadata.generation.unwrap();
        let mut status = self.state.status.clone();
        status["observedGeneration"] = json!(generation.to_string());
        let how = PatchParams::default();
        let patch = Patch::Merge(json!({"status": status}));
        api.patch_status("web", &how, &patch).await.unwrap();
        self.before = Some(Snapshot::of(world).await);
    }

    /// No new ReplicaSet, no pod restarted, no weight changed, nothing selected anew; phase, step and all else of the status stand.
    pub(crate) async fn assert_untouched(&self, world: &World, state: &str) {
        let before = self.before.as_ref().unwrap();
        let mut now = Snapshot::of(world).await;
        forget_what_is_ours(&mut now.status);
        let differences = differences(&json!(before), &json!(now));
        assert!(differences.is_empty(), "{state}: {differences:#?}");
    }

    /// Argo finds its revisions by what it looks at: names, labels, owners, annotations, templates, and the status.
    pub(crate) async fn assert_can_go_back(&self, world: &World, rollout: &Rollout, state: &str) {
        let status = rollout.status.as_ref().unwrap();
        let current = status.current_pod_hash.as_deref().unwrap();
        let stable = status.stable_rs.as_deref().unwrap();
        let sets = Snapshot::of(world).await.sets;
        for (name, set) in &sets {
            let hash = set["labels"][HASH].as_str().unwrap();
            assert_eq!(*name, format!("web-{hash}"), "{state}"); // R1.1
            assert_eq!(
                set["spec"]["selector"]["matchLabels"][HASH], hash,
                "{state}"
            );
            assert_eq!(set["owners"][0]["uid"], json!(rollout.uid()), "{state}");
        }
        let current = &sets[&format!("web-{current}")];
        assert!(sets.contains_key(&format!("web-{stable}")), "{state}");
        // R2.4 (c): after defaulting, the template is the spec's.
        let asked = defaulted(world, &rollout.spec.template).await;
        assert_eq!(
            *current.pointer("/spec/template").unwrap(),
            labelled(asked, current),
            "{state}"
        );
        let revision = "rollout.argoproj.io/revision";
        assert_eq!(
            current["annotations"][revision],
            json!(rollout.annotations()[revision]),
            "{state}"
        ); // R1.3
        assert_eq!(
            json!(status.current_step_hash),
            self.state.status["currentStepHash"],
            "{state}"
        ); // R2.3
        // R2.1: what is new is called as Argo would call it.
        let image = "demo:green";
        let template = &rollout.spec.template["spec"]["containers"][0]["image"];
        if template == image {
            assert_eq!(current["labels"][HASH], GREEN, "{state}");
        }
    }
}

impl Snapshot {
    async fn of(world: &World) -> Self {
        let sets = world.api::<ReplicaSet>().list(&everything()).await.unwrap();
        let set = |set: &ReplicaSet| {
            let json = json!(set);
            let metadata = &json["metadata"];
            json!({
                "uid": metadata["uid"], "labels": metadata["labels"], "annotations": metadata["annotations"],
                "owners": metadata["ownerReferences"], "spec": json["spec"],
            })
        };
        let sets = sets
            .iter()
            .map(|each| (each.name_any(), set(each)))
            .collect();
        let pods = world.api::<Pod>().list(&everything()).await.unwrap();
        let pods = pods
            .iter()
            .map(|pod| (pod.name_any(), pod.uid().unwrap()))
            .collect();
        let services = world.api::<Service>().list(&everything()).await.unwrap();
        let named = services
            .iter()
            .filter(|service| !service.name_any().contains("-rev-"));
        let selector = |service: &Service| json!(service.spec.as_ref().unwrap().selector);
        let services = named
            .map(|each| (each.name_any(), selector(each)))
            .collect();
        let rollout = json!(world.api::<Rollout>().get("web").await.unwrap());
        Self {
            sets,
            pods,
            services,
            spec: rollout["spec"].clone(),
            status: rollout["status"].clone(),
        }
    }
}

/// Where two values differ, and how.
fn differences(before: &Value, now: &Value) -> Vec<String> {
    let (Some(old), Some(new)) = (before.as_object(), now.as_object()) else {
        let differs = before != now;
        return differs
            .then(|| format!("{before} has become {now}"))
            .into_iter()
            .collect();
    };
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let of_key = |key: &String| {
        let inner = differences(&before[key], &now[key]);
        inner
            .into_iter()
            .map(|inner| format!("{key}: {inner}"))
            .collect::<Vec<_>>()
    };
    keys.into_iter().flat_map(of_key).collect()
}

/// What our proxies carry out is verified, and a condition says that they do.
fn forget_what_is_ours(status: &mut Value) {
    if let Some(weights) = status.pointer_mut("/canary/weights") {
        weights.as_object_mut().unwrap().remove("verified");
    }
    let conditions = status["conditions"].as_array_mut().unwrap();
    conditions.retain(|condition| condition["type"] != "ForeignRouter");
}

/// Pods wanted of the revision of each image.
pub(crate) async fn sizes(world: &World) -> BTreeMap<String, i32> {
    let sets = world.api::<ReplicaSet>().list(&everything()).await.unwrap();
    let sizes = sets.iter().map(|set| {
        let spec = json!(set.spec);
        let image = spec["template"]["spec"]["containers"][0]["image"].as_str();
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas);
        (image.unwrap().to_owned(), replicas.unwrap())
    });
    sizes.collect()
}

fn read(state: &str, names: &Names) -> State {
    let file = format!("{}/tests/takeover/{state}.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(file).unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "times of objects are those of the cluster"
    )]
    let now = Timestamp::now();
    let at = |hours: i64| {
        let time = now + SignedDuration::from_hours(hours);
        time.strftime("%FT%TZ").to_string()
    };
    let text = text
        .replace("BLUE", names.blue)
        .replace("YELLOW", names.yellow);
    let text = text.replace("THEN", &at(-1)).replace("NOW", &at(0));
    serde_saphyr::from_str(&text.replace("LATER", &at(1))).unwrap()
}

fn template(image: &str) -> Value {
    let container = json!({
        "name": "app", "image": format!("demo:{image}"), "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "resources": {},
    });
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}})
}

fn rollout(state: &State, labels: &Value) -> Value {
    let last = state.sets.last().unwrap();
    let mut spec = state.spec.clone();
    spec["replicas"] = json!(4);
    spec["selector"] = json!({"matchLabels": {"app": "web"}});
    spec["template"] = template(&last.image);
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
        "metadata": {
            "name": "web", "labels": labels,
            "annotations": {"rollout.argoproj.io/revision": last.revision.to_string()},
        },
        "spec": spec,
    })
}

/// R1.1.
fn replica_set(set: &Set, names: &Names, owner: &Value) -> Value {
    let hash = match set.image.as_str() {
        "blue" => names.blue,
        _ => names.yellow,
    };
    let labels = json!({"app": "web", HASH: hash});
    let mut template = template(&set.image);
    template["metadata"]["labels"] = labels.clone();
    let mut annotations = set.annotations.clone();
    annotations.insert(
        "rollout.argoproj.io/desired-replicas".to_owned(),
        "4".to_owned(),
    );
    annotations.insert(
        "rollout.argoproj.io/revision".to_owned(),
        set.revision.to_string(),
    );
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("web-{hash}"), "labels": labels, "annotations": annotations, "ownerReferences": owner,
        },
        "spec": {"replicas": set.replicas, "selector": {"matchLabels": labels}, "template": template},
    })
}

/// R15.1.
fn service(name: &str, hash: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "annotations": {"argo-rollouts.argoproj.io/managed-by-rollouts": "web"}},
        "spec": {
            "selector": {"app": "web", HASH: hash},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    })
}

fn analysis(kind: &str, of: &Analysis, mine: &Value) -> Value {
    let mut labels = json!(of.labels);
    labels[INSTANCE] = mine[INSTANCE].clone();
    let mut object = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": kind,
        "metadata": {"name": of.name, "labels": labels}, "spec": of.spec,
    });
    if !of.status.is_null() {
        object["status"] = of.status.clone();
    }
    object
}

/// A pod template as the API server fills it in.
async fn defaulted(world: &World, template: &Value) -> Value {
    let object = json!({"metadata": {"name": "defaults"}, "template": template});
    let try_out = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let api = world.api::<PodTemplate>();
    let object = serde_json::from_value(object).unwrap();
    json!(api.create(&try_out, &object).await.unwrap())["template"].clone()
}

/// With the hash that the ReplicaSet's own template has.
fn labelled(mut template: Value, set: &Value) -> Value {
    template["metadata"]["labels"][HASH] = set["labels"][HASH].clone();
    template
}

fn everything() -> ListParams {
    ListParams::default()
}
