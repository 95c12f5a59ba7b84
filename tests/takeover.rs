//! Takeover: Sidestep starts on what another Argo Rollouts has left behind, on a real control plane and with the rights that the chart
//! grants, and leaves what Argo can take back.
//!
//! `tests/takeover/` has the states, one a file, with statuses as Argo 1.9 writes them; `BLUE` and `YELLOW` in them are the hashes of
//! both revisions. Each is tried with the hashes of Argo since 1.9 and with those of Argo before (R2.2).

mod argo;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::{Value, json};
use sidestep_control::api::Rollout;
use tokio::time::{interval, timeout};

use crate::controller::phase;
use crate::support::cluster::World;
use crate::support::cluster::audit::lines;
use crate::support::session::DEADLINE;
use argo::{Left, NAMES_BEFORE, NAMES_OF_OTHERS, NAMES_TODAY, Names};

/// A state in which a Rollout is left, and how it goes on.
struct Case {
    /// Its file.
    state: &'static str,
    /// What the user does then.
    verb: &'static str,
    /// Phase, step and canary weight that follow.
    then: (&'static str, Option<i32>, Option<i32>),
    /// Pods of each image's revision then.
    sizes: &'static [(&'static str, i32)],
}

const CASES: [Case; 10] = [
    Case {
        state: "steady",
        verb: "set image web app=demo:green",
        then: ("Paused", Some(1), None),
        sizes: &[("blue", 0), ("green", 1), ("yellow", 3)],
    },
    Case {
        state: "paused",
        verb: "promote web",
        then: ("Paused", Some(3), None),
        sizes: &[("blue", 2), ("yellow", 2)],
    },
    Case {
        state: "analysing",
        verb: "promote web",
        then: ("Paused", Some(2), None),
        sizes: &[("blue", 3), ("yellow", 1)],
    },
    Case {
        state: "aborted",
        verb: "retry rollout web",
        then: ("Paused", Some(1), None),
        sizes: &[("blue", 3), ("yellow", 1)],
    },
    Case {
        state: "bluegreen-paused",
        verb: "promote web",
        then: ("Healthy", None, None),
        sizes: &[("blue", 4), ("yellow", 4)],
    },
    Case {
        state: "bluegreen-delay",
        verb: "undo web",
        then: ("Paused", None, None),
        sizes: &[("blue", 4), ("yellow", 4)],
    },
    Case {
        state: "routed-steady",
        verb: "set image web app=demo:green",
        then: ("Paused", Some(1), Some(25)),
        sizes: &[("blue", 0), ("green", 1), ("yellow", 4)],
    },
    Case {
        state: "routed-paused",
        verb: "promote web",
        then: ("Paused", Some(3), Some(50)),
        sizes: &[("blue", 4), ("yellow", 2)],
    },
    Case {
        state: "routed-aborted",
        verb: "retry rollout web",
        then: ("Paused", Some(1), Some(25)),
        sizes: &[("blue", 4), ("yellow", 1)],
    },
    Case {
        state: "routed-delay",
        verb: "set image web app=demo:green",
        then: ("Paused", Some(1), Some(25)),
        sizes: &[("blue", 4), ("green", 1), ("yellow", 4)],
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn names_of_argo_since_1_9_are_taken_over_and_left_to_be_taken_back() {
    Stage::set(&NAMES_TODAY, &CASES).await.play().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_argo_before_1_9_are_taken_over_and_left_to_be_taken_back() {
    Stage::set(&NAMES_BEFORE, &CASES).await.play().await;
}

/// R2.4: a revision that anybody named is found, by the status where its template was altered on the way to the API server.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_anybody_are_taken_over() {
    Stage::set(&NAMES_OF_OTHERS, &CASES[..2]).await.play().await;
}

/// What was left behind, each Rollout in a namespace of its own, and a release of the chart that takes it over.
struct Stage<'a> {
    system: World,
    scenes: Vec<(World, Left, &'a Case)>,
}

impl<'a> Stage<'a> {
    async fn set(names: &Names, cases: &'a [Case]) -> Self {
        let system = World::start().await;
        let mut scenes = Vec::new();
        for case in cases {
            let world = World::start().await;
            let left = Left::behind(&world, case.state, names, &system.namespace).await;
            scenes.push((world, left, case));
        }
        for (world, left, _) in &mut scenes {
            left.settle(world).await;
        }
        Self { system, scenes }
    }

    async fn play(self) {
        self.system.install(&[]).await;
        self.until_all_are_looked_at().await;
        for (world, left, case) in &self.scenes {
            left.assert_untouched(world, case.state).await;
        }
        for (world, left, case) in &self.scenes {
            world.verb(case.verb).await;
            let rollout = case.until_done(world).await;
            assert_eq!(argo::sizes(world).await, case.sizes(), "{}", case.state);
            left.assert_can_go_back(world, &rollout, case.state).await;
        }
        self.system.stop().await;
        for account in ["sidestep-controller", "sidestep-proxy"] {
            let requests = self.system.requests(account);
            let refused = lines(requests.iter().filter(|request| request.is_refused()));
            assert_eq!(refused, "", "{account}");
        }
    }

    /// Returns when the controller has looked at every Rollout, and has had time to look again at what it has written.
    async fn until_all_are_looked_at(&self) {
        let looked = async {
            let mut retry = interval(RETRY);
            while !self.are_all_looked_at(&self.metrics().await) {
                retry.tick().await;
            }
        };
        let in_time = timeout(DEADLINE, looked).await;
        assert!(in_time.is_ok(), "{}", self.metrics().await);
        for (world, _, case) in &self.scenes {
            case.until_acknowledged(world).await;
        }
        for _ in 0..2 {
            self.until_renewed().await;
        }
    }

    fn are_all_looked_at(&self, metrics: &str) -> bool {
        self.scenes.iter().all(|(world, ..)| {
            let namespace = &world.namespace;
            let of = format!("rollout_reconcile_count{{namespace=\"{namespace}\",name=\"web\"}}");
            metrics.lines().any(|line| line.starts_with(&of))
        })
    }

    /// What the controllers count.
    async fn metrics(&self) -> String {
        let selected = ListParams::default().labels("app.kubernetes.io/component=controller");
        let mut all = String::new();
        for pod in self.system.api::<Pod>().list(&selected).await.unwrap() {
            let address = pod.status.and_then(|status| status.pod_ip).unwrap();
            let page = reqwest::get(format!("http://{address}:8090/metrics")).await;
            all += &page.unwrap().text().await.unwrap();
        }
        all
    }

    /// Returns when the leader renews its Lease, every 2 s.
    async fn until_renewed(&self) {
        let name = format!("argo-rollouts-controller-lock-{}", self.system.namespace);
        let renewed = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        let last = renewed(&self.system.api().get(&name).await.unwrap());
        let again = |lease: &Lease| renewed(lease) != last;
        self.system.eventually(&name, "is renewed", again).await;
    }
}

impl Case {
    /// Where our proxies carry out what another router did: returns when all of them do.
    async fn until_acknowledged(&self, world: &World) {
        if self.then.2.is_some() {
            let verified = |rollout: &Rollout| weights(rollout)["verified"] == true;
            world.eventually("web", "is verified", verified).await;
        }
    }

    async fn until_done(&self, world: &World) -> Rollout {
        let (phase_then, step, weight) = self.then;
        let done = |rollout: &Rollout| {
            let status = rollout.status.as_ref();
            let at = status.and_then(|status| status.current_step_index);
            let generation = rollout.metadata.generation.map(|number| number.to_string());
            phase(rollout) == Some(phase_then)
                && status.and_then(|status| status.observed_generation.clone()) == generation
                && step.is_none_or(|step| at == Some(step))
                && weight.is_none_or(|weight| weights(rollout)["canary"]["weight"] == weight)
        };
        let what = format!("{}: {} leads to {:?}", self.state, self.verb, self.then);
        world.eventually("web", &what, done).await
    }

    fn sizes(&self) -> BTreeMap<String, i32> {
        let sizes = self.sizes.iter();
        sizes
            .map(|(image, pods)| (format!("demo:{image}"), *pods))
            .collect()
    }
}

fn weights(rollout: &Rollout) -> Value {
    json!(rollout.status)["canary"]["weights"].clone()
}

/// What nothing tells of is looked at this often.
const RETRY: Duration = Duration::from_millis(100);
