//! A pod as a server of ours.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::try_join_all;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::pod::{Pod, Wish};
use crate::local::behaviour::Behaviour;
use crate::local::notes::Tone;
use crate::local::podstatus::State;
use crate::local::standin::{Drain, Identity, StandIn};
use crate::local::store;

/// Serves for a pod on its container's ports until it should end, and for `pre_stop` beyond.
pub(super) async fn live(pod: &mut Pod, ports: &[u16], pre_stop: Duration) {
    pod.tale.restarts += u64::from(pod.tale.has_lived());
    let Some(environment) = pod.wait_for_environment(&[]).await else {
        return pod.leave(pod.wish());
    };
    let behaviour = match Behaviour::parse(&pod.image, &environment) {
        Ok(behaviour) if behaviour.image_pull_fails => return fail_to_pull(pod).await,
        Ok(behaviour) => behaviour,
        Err(complaints) => return pod.refuse(&complaints.join("; ")).await,
    };
    let servers = match bind(pod, ports).await {
        Ok(servers) => servers,
        Err(complaint) => return pod.refuse(&complaint).await,
    };
    let port = servers.first().map_or(0, StandIn::port);
    let ready_at = Instant::now() + behaviour.ready_delay;
    let (drain, draining) = watch::channel(None);
    let mut serving = JoinSet::new();
    for server in servers {
        serving.spawn(server.serve(identity(pod), behaviour.clone(), draining.clone()));
    }
    pod.machine.cluster.listens(&pod.name, port);
    pod.tale.started = true;
    pod.tale.ready = ready_at <= Instant::now();
    pod.report_state(State::Running {
        since: store::now(),
        id: format!("standin://{port}"),
    });
    pod.note(
        Tone::Normal,
        "Started",
        &format!("Started a stand-in for image {:?}", pod.image),
    );
    let wish = serve(pod, ready_at).await;
    end(pod, wish, pre_stop, &drain, &mut serving).await;
}

/// One server per port of the container; where pods share an address, one on any port.
async fn bind(pod: &Pod, ports: &[u16]) -> Result<Vec<StandIn>, String> {
    let ports = match pod.machine.cluster.shared_ports() {
        Some(_) => &[0],
        None => ports,
    };
    let bound = ports.iter().map(|port| async move {
        let address = SocketAddr::new(pod.address, *port);
        let bound = StandIn::bind(address).await;
        bound.map_err(|error| format!("listening on {address}: {error}"))
    });
    try_join_all(bound).await
}

/// Says who the stand-in is. The revision is what a rollout's or a Deployment's controller calls it.
fn identity(pod: &Pod) -> Identity {
    let object = pod.object();
    let label = |key: &str| {
        object["metadata"]["labels"][key]
            .as_str()
            .map(str::to_owned)
    };
    Identity {
        pod: pod.name.name.clone(),
        namespace: pod.name.namespace.clone(),
        revision: REVISION_LABELS
            .into_iter()
            .find_map(label)
            .unwrap_or_default(),
        image: pod.image.clone(),
    }
}

/// Waits until the pod should end; says meanwhile when it is ready.
async fn serve(pod: &mut Pod, ready_at: Instant) -> Wish {
    loop {
        let waiting = !pod.tale.ready;
        tokio::select! {
            wish = pod.ending() => return wish,
            () = sleep_until(ready_at), if waiting => {
                pod.tale.ready = true;
                pod.report();
            }
        }
    }
}

/// Lets the server finish what it has begun, as long as the pod's grace lasts.
async fn end(
    pod: &mut Pod,
    wish: Wish,
    pre_stop: Duration,
    drain: &watch::Sender<Option<Drain>>,
    serving: &mut JoinSet<()>,
) {
    let begun = Instant::now();
    let mut wish = wish;
    while let Wish::End(grace) = wish {
        let until = begun + grace;
        drain.send_replace(Some(Drain {
            at_least_until: begun + DRAIN_MIN.max(pre_stop),
            until,
        }));
        tokio::select! {
            () = all_ended(serving) => break,
            () = sleep_until(until) => break,
            another = pod.another_wish() => wish = another,
        }
    }
    serving.shutdown().await;
    pod.leave(wish);
}

async fn all_ended(serving: &mut JoinSet<()>) {
    while serving.join_next().await.is_some() {}
}

/// What a pod does whose image cannot be had: nothing, and it says so.
async fn fail_to_pull(pod: &mut Pod) {
    let message = format!(
        "IMAGE_PULL_FAILS is set: image {:?} is not to be had",
        pod.image
    );
    pod.note(
        Tone::Warning,
        "Failed",
        &format!("Failed to pull image {:?}: {message}", pod.image),
    );
    pod.report_state(State::Waiting {
        reason: "ErrImagePull",
        message,
    });
    tokio::select! {
        wish = pod.ending() => return pod.leave(wish),
        () = sleep(PULL_PAUSE) => {}
    }
    let message = format!("Back-off pulling image {:?}", pod.image);
    pod.note(Tone::Normal, "BackOff", &message);
    pod.report_state(State::Waiting {
        reason: "ImagePullBackOff",
        message,
    });
    pod.wait_for_the_end().await;
}

/// A stand-in serves on for so long at least when its pod ends. Proxies on the same machine leave it within milliseconds.
const DRAIN_MIN: Duration = Duration::from_secs(1);
/// From `ErrImagePull` to `ImagePullBackOff`.
const PULL_PAUSE: Duration = Duration::from_secs(1);
/// Labels by which controllers tell the pods of one template from those of another.
const REVISION_LABELS: [&str; 2] = ["rollouts-pod-template-hash", "pod-template-hash"];
