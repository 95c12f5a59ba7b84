//! A pod as a server of ours.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::pod::{Pod, Wish};
use crate::local::behaviour::Behaviour;
use crate::local::notes::Tone;
use crate::local::podstatus::State;
use crate::local::standin::{Drain, Identity, StandIn};
use crate::local::store;

/// Serves for a pod until it should end.
pub(super) async fn live(pod: &mut Pod) {
    pod.tale.restarts += u64::from(pod.tale.has_lived());
    let Some(environment) = pod.wait_for_environment(&[]).await else {
        return pod.leave(pod.wish());
    };
    let behaviour = match Behaviour::parse(&pod.image, &environment) {
        Ok(behaviour) if behaviour.image_pull_fails => return fail_to_pull(pod).await,
        Ok(behaviour) => behaviour,
        Err(complaints) => return pod.refuse(&complaints.join("; ")).await,
    };
    let standin = match StandIn::bind().await {
        Ok(standin) => standin,
        Err(error) => {
            return pod
                .refuse(&format!("taking a loopback port: {error}"))
                .await;
        }
    };
    let port = standin.port();
    let ready_at = Instant::now() + behaviour.ready_delay;
    let (drain, draining) = watch::channel(None);
    let mut server = JoinSet::new();
    server.spawn(standin.serve(identity(pod), behaviour, draining));
    pod.bind(port);
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
    end(pod, wish, &drain, &mut server).await;
}

/// Says who the stand-in is. The revision is what a rollout's or a Deployment's controller calls it.
fn identity(pod: &Pod) -> Identity {
    let object = pod.object();
    let label = |key: &str| {
        object.as_ref()?["metadata"]["labels"][key]
            .as_str()
            .map(str::to_owned)
    };
    Identity {
        pod: pod.name.clone(),
        namespace: pod.namespace.clone(),
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
    drain: &watch::Sender<Option<Drain>>,
    server: &mut JoinSet<()>,
) {
    let begun = Instant::now();
    let mut wish = wish;
    while let Wish::End(grace) = wish {
        let until = begun + grace;
        drain.send_replace(Some(Drain {
            at_least_until: begun + DRAIN_MIN,
            until,
        }));
        tokio::select! {
            Some(_) = server.join_next() => break,
            () = sleep_until(until) => break,
            another = pod.another_wish() => wish = another,
        }
    }
    server.shutdown().await;
    pod.leave(wish);
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
