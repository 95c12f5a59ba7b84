//! A pod's STATUS, READY and RESTARTS columns as kubectl computes them (kubernetes, `pkg/printers/internalversion`, `printPod`).

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus,
};

use super::paint::Icon;

/// What kubectl says of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    /// `Running`, `CrashLoopBackOff`, `Init:0/1`, `Terminating`, …
    pub(crate) status: String,
    /// Ready containers.
    pub(crate) ready: usize,
    /// Containers.
    pub(crate) containers: usize,
    /// Restarts of its containers.
    pub(crate) restarts: i32,
}

/// Computes the columns of a pod.
pub(crate) fn columns(pod: &Pod) -> Columns {
    let nothing = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&nothing);
    let phase = status
        .reason
        .clone()
        .or_else(|| status.phase.clone())
        .unwrap_or_default();
    let containers = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    let (reason, ready, restarts) = match initializing(pod, status) {
        Some((reason, restarts)) => (reason, 0, restarts),
        None => running(status, phase),
    };
    Columns {
        status: deleted(pod, status).unwrap_or(reason),
        ready,
        containers,
        restarts,
    }
}

/// The icon for a STATUS.
pub(crate) fn icon(status: &str) -> Icon {
    match status {
        "Pending" | "Terminating" | "ContainerCreating" => Icon::Progressing,
        "Running" | "Completed" => Icon::Ok,
        "Failed" | "InvalidImageName" | "CrashLoopBackOff" => Icon::Bad,
        "ImagePullBackOff" | "RegistryUnavailable" => Icon::Warning,
        "Unknown" => Icon::Unknown,
        _ if status.starts_with("Init:") => Icon::Progressing,
        _ if status.starts_with("Signal:") || status.starts_with("ExitCode:") => Icon::Bad,
        _ if status.ends_with("Error") || status.starts_with("Err") => Icon::Warning,
        _ => Icon::None,
    }
}

/// The reason and restarts of a pod whose init containers are not done.
fn initializing(pod: &Pod, status: &PodStatus) -> Option<(String, i32)> {
    let specs = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_deref())
        .unwrap_or_default();
    let statuses = status
        .init_container_statuses
        .as_deref()
        .unwrap_or_default();
    let unfinished = statuses.iter().position(|container| {
        let restartable = specs.iter().any(|spec| {
            spec.name == container.name && spec.restart_policy.as_deref() == Some("Always")
        });
        !(is_done(container) || restartable && container.started == Some(true))
    })?;
    let restarts = statuses
        .iter()
        .take(unfinished + 1)
        .map(|container| container.restart_count)
        .sum();
    let container = statuses.get(unfinished)?;
    let state = container.state.as_ref();
    let reason = match (terminated(state), waiting(state)) {
        (Some(terminated), _) => format!("Init:{}", end(terminated)),
        (None, Some(waiting)) if waiting != "PodInitializing" => format!("Init:{waiting}"),
        (None, Some(_) | None) => format!("Init:{unfinished}/{}", specs.len()),
    };
    Some((reason, restarts))
}

/// The reason, ready containers and restarts of a pod whose init containers are done.
fn running(status: &PodStatus, phase: String) -> (String, usize, i32) {
    let statuses = status.container_statuses.as_deref().unwrap_or_default();
    let restarts = statuses
        .iter()
        .map(|container| container.restart_count)
        .sum();
    let ready = statuses
        .iter()
        .filter(|container| is_running(container))
        .count();
    let reason = statuses.iter().find_map(|container| {
        let state = container.state.as_ref();
        waiting(state)
            .map(str::to_owned)
            .or_else(|| terminated(state).map(end))
    });
    match reason.unwrap_or(phase) {
        completed if completed == "Completed" && ready > 0 => {
            ("Running".to_owned(), ready, restarts)
        }
        reason => (reason, ready, restarts),
    }
}

fn deleted(pod: &Pod, status: &PodStatus) -> Option<String> {
    pod.metadata.deletion_timestamp.as_ref()?;
    Some(
        if status.reason.as_deref() == Some("NodeLost") {
            "Unknown"
        } else {
            "Terminating"
        }
        .to_owned(),
    )
}

fn is_done(container: &ContainerStatus) -> bool {
    terminated(container.state.as_ref()).is_some_and(|terminated| terminated.exit_code == 0)
}

fn is_running(container: &ContainerStatus) -> bool {
    container.ready
        && container
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some())
}

fn terminated(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    state.and_then(|state| state.terminated.as_ref())
}

fn waiting(state: Option<&ContainerState>) -> Option<&str> {
    let reason = state
        .and_then(|state| state.waiting.as_ref())
        .and_then(|waiting| waiting.reason.as_deref());
    reason.filter(|reason| !reason.is_empty())
}

fn end(terminated: &ContainerStateTerminated) -> String {
    match (terminated.reason.as_deref(), terminated.signal) {
        (Some(reason), _) if !reason.is_empty() => reason.to_owned(),
        (Some(_) | None, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        (Some(_) | None, Some(_) | None) => format!("ExitCode:{}", terminated.exit_code),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(metadata: &Value, spec: &Value, status: &Value, text: &str) {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status}))
                .unwrap();
        let Columns {
            status: reason,
            ready,
            containers,
            restarts,
        } = columns(&pod);
        assert_eq!(
            format!(
                "{reason} {ready}/{containers} {restarts} {}",
                icon(&reason).symbol()
            ),
            text,
            "{status}"
        );
    }

    fn container(state: &Value, ready: bool, restarts: i32) -> Value {
        json!({"name": "c", "image": "i", "imageID": "", "ready": ready, "restartCount": restarts, "state": state})
    }

    #[test]
    fn containers_say_how_a_pod_is() {
        let spec = json!({"containers": [{"name": "c"}]});
        let cases = [
            (json!({"running": {}}), true, 0, "Running 1/1 0 ✔"),
            (json!({"running": {}}), false, 2, "Running 0/1 2 ✔"),
            (
                json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                false,
                4,
                "CrashLoopBackOff 0/1 4 ✖",
            ),
            (
                json!({"waiting": {"reason": "ImagePullBackOff"}}),
                false,
                0,
                "ImagePullBackOff 0/1 0 ⚠",
            ),
            (
                json!({"waiting": {"reason": "ErrImagePull"}}),
                false,
                0,
                "ErrImagePull 0/1 0 ⚠",
            ),
            (
                json!({"waiting": {"reason": "ContainerCreating"}}),
                false,
                0,
                "ContainerCreating 0/1 0 ◌",
            ),
            (
                json!({"terminated": {"exitCode": 3}}),
                false,
                0,
                "ExitCode:3 0/1 0 ✖",
            ),
            (
                json!({"terminated": {"exitCode": 0, "signal": 9}}),
                false,
                0,
                "Signal:9 0/1 0 ✖",
            ),
            (
                json!({"terminated": {"exitCode": 1, "reason": "Error"}}),
                false,
                1,
                "Error 0/1 1 ⚠",
            ),
        ];
        for (state, ready, restarts, text) in cases {
            let status = json!({"phase": "Running", "containerStatuses": [container(&state, ready, restarts)]});
            check(&json!({}), &spec, &status, text);
        }
    }

    #[test]
    fn a_pod_being_deleted_is_terminating_unless_its_node_is_lost() {
        let metadata = json!({"deletionTimestamp": "2026-11-01T00:00:00Z"});
        let spec = json!({"containers": [{"name": "c"}]});
        let containers = json!([container(&json!({"running": {}}), true, 0)]);
        check(
            &metadata,
            &spec,
            &json!({"phase": "Running", "containerStatuses": containers}),
            "Terminating 1/1 0 ◌",
        );
        check(
            &metadata,
            &spec,
            &json!({"phase": "Running", "reason": "NodeLost"}),
            "Unknown 0/1 0 ?",
        );
        check(
            &json!({}),
            &spec,
            &json!({"phase": "Pending"}),
            "Pending 0/1 0 ◌",
        );
    }

    #[test]
    fn init_containers_come_first() {
        let spec = json!({"containers": [{"name": "c"}], "initContainers": [{"name": "a"}, {"name": "b"}]});
        let done = json!({"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 1, "state": {"terminated": {"exitCode": 0}}});
        let cases = [
            (json!({"running": {}}), "Init:1/2 0/1 1 ◌"),
            (
                json!({"waiting": {"reason": "PodInitializing"}}),
                "Init:1/2 0/1 1 ◌",
            ),
            (
                json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                "Init:CrashLoopBackOff 0/1 1 ◌",
            ),
            (
                json!({"terminated": {"exitCode": 2}}),
                "Init:ExitCode:2 0/1 1 ◌",
            ),
        ];
        for (state, text) in cases {
            let second = json!({"name": "b", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
            check(
                &json!({}),
                &spec,
                &json!({"phase": "Pending", "initContainerStatuses": [done, second]}),
                text,
            );
        }
    }

    #[test]
    fn a_pod_with_one_container_running_is_running() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let done = container(
            &json!({"terminated": {"exitCode": 0, "reason": "Completed"}}),
            false,
            0,
        );
        let runs = container(&json!({"running": {}}), true, 0);
        check(
            &json!({}),
            &spec,
            &json!({"phase": "Running", "containerStatuses": [done, runs]}),
            "Running 1/2 0 ✔",
        );
    }
}
