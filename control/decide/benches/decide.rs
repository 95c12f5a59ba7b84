//! What one decision costs: a canary at its pause, and as many old revisions and finished analyses beside it as a long life leaves.
//!
//! `cargo bench -p sidestep-decide --bench decide`. The bar is 50 µs with the default history of ten revisions.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use serde_json::{Value, json};
use sidestep_decide::api::Rollout;
use sidestep_decide::api::labels::POD_TEMPLATE_HASH;
use sidestep_decide::rollout::observed::{
    Fleet, Metadata, Observed, Revision, Service, WrittenSplit,
};
use sidestep_decide::rollout::plan::{References, plan};
use sidestep_decide::rollout::{Action, Plan, State, decide};

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    for history in [0, 10, 100, 1000] {
        let scene = Scene::at_pause(history);
        group.bench_function(BenchmarkId::new("history", history), |bencher| {
            bencher.iter(|| {
                decide(
                    black_box(&scene.plan),
                    black_box(&scene.state),
                    black_box(&scene.observed),
                    scene.now,
                )
            });
        });
    }
    group.finish();
    criterion.bench_function("plan", |bencher| {
        let rollout = rollout("nginx:2");
        let references = references();
        bencher.iter(|| plan(black_box(&rollout), black_box(&references)));
    });
}

/// A rollout in the middle of its update, at rest.
struct Scene {
    plan: Plan,
    state: State,
    observed: Observed,
    now: Timestamp,
}

impl Scene {
    fn at_pause(history: usize) -> Self {
        let mut scene = Self {
            plan: planned("nginx:1"),
            state: State::default(),
            observed: Observed {
                rollout: Metadata {
                    name: "web".to_owned(),
                    namespace: "shop".to_owned(),
                    uid: "u-rollout".to_owned(),
                    generation: 1,
                    annotations: BTreeMap::new(),
                },
                services: references().services,
                ..Observed::default()
            },
            now: Timestamp::from_second(1_800_000_000).expect("a time"),
        };
        scene.settle();
        scene.age(history);
        scene.plan = planned("nginx:2");
        scene.observed.rollout.generation += 1;
        scene.settle();
        let status = scene.state.status();
        assert_eq!(status.message.as_deref(), Some("CanaryPauseStep"));
        scene
    }

    /// Decides until nothing is left to do; everything that is asked for is there at once.
    fn settle(&mut self) {
        for _ in 0..40 {
            let decision = decide(&self.plan, &self.state, &self.observed, self.now);
            for action in decision.actions {
                self.act(action);
            }
            self.state = State::from_status(&decision.status, &decision.memory);
        }
    }

    /// Old revisions, without pods, of other templates.
    fn age(&mut self, history: usize) {
        let made = self.observed.revisions[0].clone();
        for index in 0..history {
            let hash = format!("old{index}");
            self.observed.revisions.push(Revision {
                name: format!("web-{hash}"),
                uid: format!("u-{hash}"),
                hash,
                wanted: 0,
                pods: 0,
                ready: 0,
                available: 0,
                has_service: false,
                ..made.clone()
            });
        }
    }

    fn set(&mut self, name: &str) -> &mut Revision {
        let mut sets = self.observed.revisions.iter_mut();
        sets.find(|set| set.name == name).expect("a revision")
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what this one update does not do, nobody has to do here"
    )]
    fn act(&mut self, action: Action) {
        match action {
            Action::CreateReplicaSet(new) => self.observed.revisions.push(Revision {
                uid: format!("u-{}", new.name),
                name: new.name,
                hash: new.hash,
                created_at: self.now,
                annotations: new.annotations,
                template: new.template,
                settled: true,
                ..Revision::default()
            }),
            Action::AnnotateRollout { revision } => {
                let key = sidestep_decide::api::labels::REVISION.to_owned();
                let annotations = &mut self.observed.rollout.annotations;
                annotations.insert(key, revision.to_string());
            }
            Action::AnnotateReplicaSet { name, set, .. } => {
                self.set(&name).annotations.extend(set);
            }
            Action::ScaleReplicaSet { name, to, set, .. } => {
                let revision = self.set(&name);
                (revision.wanted, revision.pods) = (to, to);
                (revision.ready, revision.available) = (to, to);
                revision.annotations.extend(set);
            }
            Action::EnsureRevisionService { replica_set, .. } => {
                self.set(&replica_set).has_service = true;
            }
            Action::SwitchService { name, hash } => {
                let mut services = self.observed.services.iter_mut();
                let service = services.find(|service| service.name == name);
                let service = service.expect("a Service");
                service.selector.insert(POD_TEMPLATE_HASH.to_owned(), hash);
                service.managed_by = Some("web".to_owned());
            }
            Action::WriteSplit(split) => {
                let written = self.observed.split.as_ref();
                self.observed.split = Some(WrittenSplit {
                    uid: "u-split".to_owned(),
                    generation: written.map_or(1, |written| written.generation + 1),
                    split,
                });
                self.observed.fleet = Fleet {
                    proxies: vec!["proxy-1".to_owned(), "proxy-2".to_owned()],
                    verified_at: Some(self.now),
                    ..Fleet::default()
                };
            }
            other => unreachable!("{other:?}"),
        }
    }
}

fn planned(image: &str) -> Plan {
    plan(&rollout(image), &references()).expect("a valid spec")
}

fn references() -> References {
    let service = |name: &str| Service {
        name: name.to_owned(),
        selector: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        managed_by: None,
        apex: false,
    };
    References {
        services: vec![service("web-stable"), service("web-canary")],
        ..References::default()
    }
}

/// Ten pods of two containers with the fields that are usual.
fn rollout(image: &str) -> Rollout {
    let container = |name: &str| -> Value {
        json!({
            "name": name, "image": image,
            "ports": [{"name": "http", "containerPort": 8080}],
            "env": [{"name": "LEVEL", "value": "info"}, {"name": "REGION", "value": "eu"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 5},
        })
    };
    let rollout = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u-rollout"},
        "spec": {
            "replicas": 10, "revisionHistoryLimit": 10_000,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [container("web"), container("sidecar")]},
            },
            "strategy": {"canary": {
                "stableService": "web-stable", "canaryService": "web-canary",
                "trafficRouting": {"plugins": {"sidestep/proxy": {}}},
                "steps": [{"setWeight": 20}, {"pause": {}}, {"setWeight": 60}, {"pause": {"duration": "10m"}}],
            }},
        },
    });
    serde_json::from_value(rollout).expect("a Rollout")
}

criterion_group!(benches, decisions);
criterion_main!(benches);
