//! The stock `kubectl argo rollouts`, as Argo's users have it, against our controller on a real cluster: what each verb answers, and what it
//! leads to. It is built by `tests/argo/build`.

use std::path::PathBuf;
use std::process::Stdio;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use sidestep_control::api::{AnalysisRun, Rollout};
use tempfile::TempDir;
use tokio::process::Command;

use crate::controller::{phase, service};
use crate::support::cluster::{World, enclave};
use crate::support::session::{Answer, finish};

/// A person with the plugin.
struct Person {
    world: World,
    folder: TempDir,
}

/// What the Rollout is like after a verb.
type Then = fn(&Rollout) -> bool;

impl Person {
    async fn arrive() -> Self {
        let person = Self {
            world: World::start().await,
            folder: TempDir::new().unwrap(),
        };
        person.world.write_kubeconfig(&person.kubeconfig());
        person
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    fn write(&self, name: &str, object: &Value) -> PathBuf {
        let file = self.folder.path().join(name);
        std::fs::write(&file, object.to_string()).unwrap();
        file
    }

    /// `FOLDER` stands for the person's own.
    async fn types(&self, line: &str) -> Answer {
        let line = line.replace("FOLDER", self.folder.path().to_str().unwrap());
        let mut command = Command::new(enclave::argo());
        command.args(line.split(' '));
        command.env("KUBECONFIG", self.kubeconfig());
        command.stdin(Stdio::null());
        finish(command, "").await.expect("it has been built")
    }

    /// Panics unless the verb ends with this code, says this, and the Rollout becomes so.
    async fn check(&self, line: &str, code: i32, said: &str, then: Then) {
        let answer = self.types(line).await;
        let all = format!("{}{}", answer.stdout, answer.stderr);
        assert_eq!(answer.code, Some(code), "{line}: {all}");
        assert!(all.contains(said), "{line}: {all}");
        self.world.eventually("web", line, then).await;
    }
}

fn is_healthy(rollout: &Rollout) -> bool {
    is_observed(rollout) && phase(rollout) == Some("Healthy")
}

fn is_aborted(rollout: &Rollout) -> bool {
    let status = rollout.status.as_ref();
    phase(rollout) == Some("Degraded") && status.is_some_and(|status| status.abort)
}

fn is_paused_at<const STEP: i32>(rollout: &Rollout) -> bool {
    let status = rollout.status.as_ref();
    let step = status.and_then(|status| status.current_step_index);
    is_observed(rollout) && phase(rollout) == Some("Paused") && step == Some(STEP)
}

fn is_observed(rollout: &Rollout) -> bool {
    let generation = rollout.metadata.generation.map(|number| number.to_string());
    let status = rollout.status.as_ref();
    status.and_then(|status| status.observed_generation.clone()) == generation
}

fn is_held(rollout: &Rollout) -> bool {
    is_observed(rollout) && rollout.spec.paused == Some(true) && phase(rollout) == Some("Paused")
}

fn is_restarted(rollout: &Rollout) -> bool {
    let status = rollout.status.as_ref();
    let restarted = status.and_then(|status| status.restarted_at.clone());
    restarted.is_some() && restarted == rollout.spec.restart_at && is_healthy(rollout)
}

fn rollout(name: &str) -> Value {
    let labels = json!({"app": name});
    let container =
        json!({"name": "app", "image": "demo:blue", "ports": [{"containerPort": 8080}]});
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            "strategy": {"canary": {
                "stableService": "web", "canaryService": "web-canary",
                "trafficRouting": {"plugins": {"sidestep/proxy": {}}},
                "steps": [{"setWeight": 20}, {"pause": {}}, {"setWeight": 40}, {"pause": {}}],
            }},
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_of_the_stock_plugin_works_on_rollouts_of_ours() {
    let person = Person::arrive().await;
    let world = &person.world;
    let controller = world.controller("controller").await;
    let proxies = world.proxies(1).await;
    for name in ["web", "web-canary"] {
        world.create(&service(name)).await;
    }
    person.write("web.json", &rollout("web"));
    let steps: &[(&str, i32, &str, Then)] = &[
        ("version", 0, "kubectl-argo-rollouts", |_| true),
        ("lint -f FOLDER/web.json", 0, "", |_| true),
        (
            "get rollout web --no-color",
            0,
            "Status:          ✔ Healthy",
            is_healthy,
        ),
        ("get rollouts web --no-color", 0, "stable", is_healthy),
        ("list rollouts", 0, "Canary     Healthy", is_healthy),
        ("status web --timeout 60s", 0, "Healthy", is_healthy),
        (
            "set image web app=demo:yellow",
            0,
            "rollout \"web\" image updated",
            is_paused_at::<1>,
        ),
        (
            "status web --watch=false",
            0,
            "Paused - CanaryPauseStep",
            is_paused_at::<1>,
        ),
        (
            "status web --timeout 1s",
            1,
            "Rollout status watch exceeded timeout",
            is_paused_at::<1>,
        ),
        (
            "get rollout web --watch --timeout-seconds 1 --no-color",
            0,
            "Message:         CanaryPauseStep",
            is_paused_at::<1>,
        ),
        (
            "get rollout web --no-color",
            0,
            "ActualWeight:  20",
            is_paused_at::<1>,
        ),
        (
            "promote web",
            0,
            "rollout 'web' promoted",
            is_paused_at::<3>,
        ),
        ("abort web", 0, "rollout 'web' aborted", is_aborted),
        ("status web --timeout 60s", 1, "RolloutAborted", is_aborted),
        ("get rollout web --no-color", 0, "✖ Degraded", is_aborted),
        (
            "retry rollout web",
            0,
            "rollout 'web' retried",
            is_paused_at::<1>,
        ),
        ("pause web", 0, "rollout 'web' paused", is_held),
        (
            "promote web",
            0,
            "rollout 'web' promoted",
            is_paused_at::<3>,
        ),
        (
            "promote web --full",
            0,
            "rollout 'web' fully promoted",
            is_healthy,
        ),
        ("undo web", 0, "rollout 'web' undo", is_paused_at::<1>),
        (
            "promote web --skip-current-step",
            0,
            "rollout 'web' promoted",
            is_paused_at::<3>,
        ),
        (
            "promote web --skip-all-steps",
            0,
            "rollout 'web' promoted",
            is_healthy,
        ),
        (
            "undo web --to-revision 2",
            0,
            "rollout 'web' undo",
            is_paused_at::<1>,
        ),
        (
            "promote web --full",
            0,
            "rollout 'web' fully promoted",
            is_healthy,
        ),
        ("restart web", 0, "rollout 'web' restarts in", is_restarted),
        (
            "get rollout web --no-color",
            0,
            "demo:yellow (stable)",
            is_healthy,
        ),
        ("set image nobody app=demo:red", 1, "not found", is_healthy),
        (
            "completion bash",
            0,
            "__start_kubectl-argo-rollouts",
            is_healthy,
        ),
    ];
    let made = person.types("create -f FOLDER/web.json").await;
    assert_eq!(made.code, Some(0), "{made:?}");
    world.eventually("web", "is healthy", is_healthy).await;
    let first = pods(world).await;
    for (line, code, said, then) in steps {
        person.check(line, *code, said, *then).await;
    }
    let last = pods(world).await;
    assert!(last.iter().all(|pod| !first.contains(pod)), "{last:?}");
    judge(&person).await;
    controller.stop(world).await;
    proxies.assert_calm(world);
}

async fn pods(world: &World) -> Vec<String> {
    let api: Api<Pod> = world.api();
    let selected = ListParams::default().labels("app=web");
    let pods = api.list(&selected);
    pods.await
        .unwrap()
        .iter()
        .map(|pod| pod.name_any())
        .collect()
}

/// An AnalysisRun that goes on until somebody ends it.
async fn judge(person: &Person) {
    let world = &person.world;
    world
        .create(&json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate", "metadata": {"name": "colour"},
            "spec": {"args": [{"name": "port"}], "metrics": [{
                "name": "nobody", "interval": "1h", "consecutiveErrorLimit": 100,
                "provider": {"web": {"url": "http://127.0.0.1:{{args.port}}/"}},
            }]},
        }))
        .await;
    let create = "create analysisrun --from colour --name by-hand -a port=1";
    let made = person.types(create).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let in_phase = |run: &AnalysisRun, phase: &str| {
        let status = run.status.as_ref();
        status.is_some_and(|status| status.phase == phase)
    };
    let is_running = |run: &AnalysisRun| in_phase(run, "Running");
    world.eventually("by-hand", "runs", is_running).await;
    let ended = person.types("terminate analysisrun by-hand").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let is_ended = |run: &AnalysisRun| in_phase(run, "Successful");
    world.eventually("by-hand", "is ended", is_ended).await;
}
