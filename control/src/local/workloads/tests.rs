//! The players and stand-in pods together, through the store. Pods that are processes are tested where the binary is: tests/processes.rs.

use std::net::{Ipv4Addr, TcpStream};

use serde_json::{Value, json};

use super::super::kinds::{self, Kind};
use super::super::podstatus::condition_is_true;
use super::super::store::{Deletion, HISTORY, Propagation};
use super::*;

const NS: &str = "shop";

struct World {
    store: Store,
    workloads: Workloads,
}

impl World {
    fn start() -> Self {
        let store = Store::new(HISTORY);
        store
            .create(&kinds::NAMESPACE, json!({"metadata": {"name": NS}}))
            .unwrap();
        Self::start_on(store)
    }

    fn start_on(store: Store) -> Self {
        let workloads =
            Workloads::start(&store, &PodLogs::default(), PathBuf::from("/nowhere")).unwrap();
        Self { store, workloads }
    }

    fn create(&self, kind: &'static Kind, mut object: Value) -> Object {
        object["metadata"]["namespace"] = json!(NS);
        self.store.create(kind, object).unwrap()
    }

    fn list(&self, kind: &'static Kind) -> Vec<Object> {
        self.store.list(kind, Some(NS)).objects
    }

    fn get(&self, kind: &'static Kind, name: &str) -> Option<Object> {
        self.store.get(kind, NS, name)
    }

    /// Waits until a condition holds; looks again whenever something was written.
    async fn eventually(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let mut changes = self.store.subscribe(self.store.version());
        let holds = async {
            while !condition(self) {
                if changes.next().await.is_err() {
                    changes = self.store.subscribe(self.store.version());
                }
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), holds).await;
        let pods: Vec<String> = self
            .list(&kinds::POD)
            .iter()
            .map(|pod| pod.to_string())
            .collect();
        assert!(
            in_time.is_ok(),
            "not in time: {what}; pods:\n{}",
            pods.join("\n")
        );
    }

    fn ready_pods(&self) -> Vec<Object> {
        let mut pods = self.list(&kinds::POD);
        pods.retain(|pod| condition_is_true(pod, "Ready") && !store::is_deleting(pod));
        pods
    }

    fn delete(&self, kind: &'static Kind, name: &str, propagation: Propagation) {
        let deletion = Deletion {
            propagation: Some(propagation),
            ..Deletion::default()
        };
        self.store.delete(kind, NS, name, &deletion).unwrap();
    }

    fn scale(&self, kind: &'static Kind, name: &str, replicas: u64) {
        self.store
            .update(kind, NS, name, None, |object| {
                object["spec"]["replicas"] = json!(replicas)
            })
            .unwrap();
    }
}

fn template(image: &str, environment: &Value) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{
            "name": "app", "image": image, "env": environment, "ports": [{"name": "http", "containerPort": 8080}],
        }]},
    })
}

fn replica_set(name: &str, replicas: u64, template: &Value) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    })
}

fn plain(name: &str, replicas: u64) -> Value {
    replica_set(name, replicas, &template("demo:blue", &json!([])))
}

fn service() -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    })
}

fn port_of(pod: &Value) -> u16 {
    pod["metadata"]["annotations"][pods::PORT]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_replica_set_keeps_its_pods_and_counts_them() {
    let world = World::start();
    world.create(&kinds::REPLICA_SET, plain("web-1", 3));
    let counted = |world: &World, count: u64| {
        let status = &world.get(&kinds::REPLICA_SET, "web-1").unwrap()["status"];
        [
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
        ]
        .iter()
        .all(|field| status[field] == count)
    };
    world
        .eventually("three pods are counted", |world| counted(world, 3))
        .await;
    let set = world.get(&kinds::REPLICA_SET, "web-1").unwrap();
    assert_eq!(
        set["status"]["observedGeneration"],
        set["metadata"]["generation"]
    );

    let first = world.list(&kinds::POD)[0].clone();
    let name = store::text(&first, "name").to_owned();
    assert!(
        name.starts_with("web-1-") && name.len() == "web-1-".len() + 5,
        "{name}"
    );
    world
        .store
        .delete(&kinds::POD, NS, &name, &Deletion::default())
        .unwrap();
    world
        .eventually("it is replaced", |world| {
            world.get(&kinds::POD, &name).is_none() && counted(world, 3)
        })
        .await;

    world.scale(&kinds::REPLICA_SET, "web-1", 1);
    world
        .eventually("one is left", |world| {
            world.list(&kinds::POD).len() == 1 && counted(world, 1)
        })
        .await;
    world.workloads.stop().await;
}

#[tokio::test]
async fn the_pod_that_is_not_ready_goes_first() {
    let world = World::start();
    world.create(&kinds::REPLICA_SET, plain("web-1", 2));
    world
        .eventually("two are ready", |world| world.ready_pods().len() == 2)
        .await;
    let slow = template(
        "demo:blue",
        &json!([{"name": "READY_DELAY_MS", "value": "3600000"}]),
    );
    world
        .store
        .update(&kinds::REPLICA_SET, NS, "web-1", None, |set| {
            set["spec"]["template"] = slow.clone();
            set["spec"]["replicas"] = json!(3);
        })
        .unwrap();
    world
        .eventually("a third is there", |world| {
            world.list(&kinds::POD).len() == 3
        })
        .await;
    world.scale(&kinds::REPLICA_SET, "web-1", 2);
    world
        .eventually("two are left", |world| world.list(&kinds::POD).len() == 2)
        .await;
    assert_eq!(world.ready_pods().len(), 2);
    world.workloads.stop().await;
}

#[tokio::test]
async fn a_pod_without_owner_that_is_selected_is_adopted() {
    let world = World::start();
    let mut orphan = template("demo:blue", &json!([]));
    orphan["metadata"]["name"] = json!("orphan");
    world.create(&kinds::POD, orphan);
    let set = world.create(&kinds::REPLICA_SET, plain("web-1", 1));
    world
        .eventually("it is counted", |world| {
            world.get(&kinds::REPLICA_SET, "web-1").unwrap()["status"]["replicas"] == 1
        })
        .await;
    let pods = world.list(&kinds::POD);
    assert_eq!(pods.len(), 1);
    assert!(super::super::owners::is_controlled_by(&pods[0], &set));
    world.workloads.stop().await;
}

#[tokio::test]
async fn availability_waits_for_min_ready_seconds() {
    let world = World::start();
    let mut set = plain("web-1", 1);
    set["spec"]["minReadySeconds"] = json!(2);
    world.create(&kinds::REPLICA_SET, set);
    let status = |world: &World| world.get(&kinds::REPLICA_SET, "web-1").unwrap()["status"].clone();
    world
        .eventually("it is ready", |world| status(world)["readyReplicas"] == 1)
        .await;
    assert!(status(&world)["availableReplicas"].is_null());
    world
        .eventually("it is available, though nothing else changed", |world| {
            status(world)["availableReplicas"] == 1
        })
        .await;
    world.workloads.stop().await;
}

#[tokio::test]
async fn every_pod_of_a_service_has_a_slice_with_its_own_port() {
    let world = World::start();
    world.create(&kinds::SERVICE, service());
    world.create(&kinds::REPLICA_SET, plain("web-1", 3));
    let listed = |world: &World| {
        let mut ports: Vec<u64> = world
            .list(&kinds::ENDPOINT_SLICE)
            .iter()
            .filter(|slice| slice["endpoints"][0]["conditions"]["ready"] == true)
            .map(|slice| slice["ports"][0]["port"].as_u64().unwrap())
            .collect();
        ports.sort_unstable();
        ports
    };
    world
        .eventually("three are listed", |world| listed(world).len() == 3)
        .await;
    let mut ports: Vec<u64> = world
        .ready_pods()
        .iter()
        .map(|pod| u64::from(port_of(pod)))
        .collect();
    ports.sort_unstable();
    assert_eq!(listed(&world), ports);

    world.scale(&kinds::REPLICA_SET, "web-1", 0);
    world
        .eventually(
            "those that end are listed as terminating, and still serving",
            |world| {
                let slices = world.list(&kinds::ENDPOINT_SLICE);
                slices.len() == 3
                    && slices.iter().all(|slice| {
                        slice["endpoints"][0]["conditions"]
                            == json!({"ready": false, "serving": true, "terminating": true})
                    })
            },
        )
        .await;
    for port in ports {
        let port = u16::try_from(port).unwrap();
        assert!(
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(),
            "{port} serves while it ends"
        );
    }
    world
        .eventually("none is listed", |world| {
            world.list(&kinds::ENDPOINT_SLICE).is_empty()
        })
        .await;
    world.workloads.stop().await;
}

#[tokio::test]
async fn what_an_owner_leaves_goes_in_the_way_that_was_asked_for() {
    let world = World::start();
    for (name, propagation) in [
        ("background", Propagation::Background),
        ("foreground", Propagation::Foreground),
    ] {
        world.create(&kinds::REPLICA_SET, plain(name, 2));
        world
            .eventually("two pods", |world| world.ready_pods().len() == 2)
            .await;
        world.delete(&kinds::REPLICA_SET, name, propagation);
        let waits = world.get(&kinds::REPLICA_SET, name).is_some();
        assert_eq!(waits, propagation == Propagation::Foreground, "{name}");
        world
            .eventually("its pods are gone", |world| {
                let set = world.get(&kinds::REPLICA_SET, name);
                assert!(
                    propagation == Propagation::Background
                        || set.is_some()
                        || world.list(&kinds::POD).is_empty()
                );
                world.list(&kinds::POD).is_empty() && set.is_none()
            })
            .await;
    }
    world.create(&kinds::REPLICA_SET, plain("orphaned", 2));
    world
        .eventually("two pods", |world| world.ready_pods().len() == 2)
        .await;
    world.delete(&kinds::REPLICA_SET, "orphaned", Propagation::Orphan);
    world
        .eventually("it is gone", |world| {
            world.get(&kinds::REPLICA_SET, "orphaned").is_none()
        })
        .await;
    assert_eq!(world.ready_pods().len(), 2);
    assert!(
        world
            .ready_pods()
            .iter()
            .all(|pod| super::super::owners::references(pod).is_empty())
    );
    world.workloads.stop().await;
}

#[tokio::test]
async fn a_namespace_goes_with_all_that_is_in_it() {
    let world = World::start();
    world.create(&kinds::SERVICE, service());
    world.create(&kinds::REPLICA_SET, plain("web-1", 2));
    world
        .eventually("two pods", |world| world.ready_pods().len() == 2)
        .await;
    world
        .store
        .delete(&kinds::NAMESPACE, "", NS, &Deletion::default())
        .unwrap();
    world
        .eventually("it is gone", |world| {
            world.store.get(&kinds::NAMESPACE, "", NS).is_none()
        })
        .await;
    assert!(world.list(&kinds::POD).is_empty() && world.list(&kinds::SERVICE).is_empty());
    world.workloads.stop().await;
}

#[tokio::test]
async fn a_deployment_replaces_its_template_without_a_gap() {
    let world = World::start();
    let deployment = json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template("demo:blue", &json!([]))},
    });
    world.create(&kinds::DEPLOYMENT, deployment);
    let available = |world: &World, image: &str| {
        let deployment = world.get(&kinds::DEPLOYMENT, "web").unwrap();
        let images: Vec<_> = world
            .ready_pods()
            .iter()
            .map(|pod| pod["spec"]["containers"][0]["image"].clone())
            .collect();
        deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"]
            && deployment["status"]["availableReplicas"] == 2
            && deployment["status"]["replicas"] == 2
            && images == [json!(image), json!(image)]
    };
    world
        .eventually("blue is up", |world| available(world, "demo:blue"))
        .await;
    world
        .store
        .update(&kinds::DEPLOYMENT, NS, "web", None, |deployment| {
            deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("demo:red");
        })
        .unwrap();
    world
        .eventually("red is up", |world| {
            assert!(world.ready_pods().len() >= 2, "no gap");
            available(world, "demo:red")
        })
        .await;
    let sets = world.list(&kinds::REPLICA_SET);
    assert_eq!(sets.len(), 2);
    assert!(
        sets.iter()
            .all(|set| store::text(set, "name").starts_with("web-"))
    );
    world.scale(&kinds::DEPLOYMENT, "web", 0);
    world
        .eventually("none is left", |world| world.list(&kinds::POD).is_empty())
        .await;
    world.workloads.stop().await;
}

/// The one pod's waiting reason, and whether its Events contain a text.
async fn refused(pod: Value, reason: &str, event: &str) {
    let world = World::start();
    let mut pod = pod;
    pod["metadata"]["name"] = json!("web");
    world.create(&kinds::POD, pod);
    world
        .eventually(reason, |world| {
            let pod = world.get(&kinds::POD, "web").unwrap();
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            let noted = world
                .list(&kinds::EVENT)
                .iter()
                .any(|noted| noted["message"].as_str().unwrap().contains(event));
            waiting["reason"] == reason && pod["status"]["phase"] == "Pending" && noted
        })
        .await;
    world
        .store
        .delete(&kinds::POD, NS, "web", &Deletion::default())
        .unwrap();
    world
        .eventually("it goes when it is deleted", |world| {
            world.get(&kinds::POD, "web").is_none()
        })
        .await;
    world.workloads.stop().await;
}

#[tokio::test]
async fn a_pod_that_cannot_be_run_says_so() {
    let error_rate = template(
        "demo:blue",
        &json!([{"name": "ERROR_RATE", "value": "lots"}]),
    );
    refused(
        error_rate,
        "CreateContainerConfigError",
        "ERROR_RATE: \"lots\" is not a percentage",
    )
    .await;
    let no_image = template(
        "demo:blue",
        &json!([{"name": "IMAGE_PULL_FAILS", "value": "true"}]),
    );
    refused(no_image, "ImagePullBackOff", "Back-off pulling image").await;
    let mut init = template("demo:blue", &json!([]));
    init["spec"]["initContainers"] = json!([{"name": "init", "image": "busybox"}]);
    refused(
        init,
        "CreateContainerConfigError",
        "spec.initContainers: not supported",
    )
    .await;
}

#[tokio::test]
async fn a_pod_waits_for_its_config_map() {
    let world = World::start();
    let from = json!([{"name": "LATENCY_MS", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "latency"}}}]);
    let mut pod = template("demo:blue", &from);
    pod["metadata"]["name"] = json!("web");
    world.create(&kinds::POD, pod);
    world
        .eventually("it says what it waits for", |world| {
            let pod = world.get(&kinds::POD, "web").unwrap();
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
                == "configmap \"settings\" not found"
        })
        .await;
    world.create(
        &kinds::CONFIG_MAP,
        json!({"metadata": {"name": "settings"}, "data": {"latency": "5"}}),
    );
    world
        .eventually("it runs", |world| world.ready_pods().len() == 1)
        .await;
    world.workloads.stop().await;
}

#[tokio::test]
async fn pods_of_an_earlier_process_start_again_in_place() {
    let world = World::start();
    world.create(&kinds::REPLICA_SET, plain("web-1", 2));
    world
        .eventually("two pods", |world| world.ready_pods().len() == 2)
        .await;
    let names = |world: &World| {
        world
            .ready_pods()
            .iter()
            .map(|pod| store::text(pod, "uid").to_owned())
            .collect::<Vec<_>>()
    };
    let before = names(&world);
    let ports: Vec<u16> = world.ready_pods().iter().map(|pod| port_of(pod)).collect();
    let World { store, workloads } = world;
    workloads.stop().await;
    assert!(
        ports
            .iter()
            .all(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_err()),
        "they have ended"
    );

    let world = World::start_on(store);
    assert!(
        world.ready_pods().is_empty(),
        "none is ready before it runs again"
    );
    world
        .eventually("the same pods are ready again", |world| {
            let pods = world.ready_pods();
            pods.len() == 2
                && pods
                    .iter()
                    .all(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1)
        })
        .await;
    assert_eq!(names(&world), before);
    for pod in world.ready_pods() {
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port_of(&pod))).is_ok());
    }
    world.workloads.stop().await;
}
