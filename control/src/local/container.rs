//! What of a pod's spec can be run on one machine, and how: the one parse of a pod, with all of its complaints.
//!
//! A pod here has one container. One that has a `command` is a process of this machine; one that has none is stood in for, because
//! we have no image to take an entrypoint from. Its probes are then answered by the stand-in's own readiness.
//!
//! Without effect, because there is one node and nothing to isolate from: resources, affinity, tolerations, securityContext, service
//! accounts (and the mount of their token, which an API server adds), pull secrets, DNS and host settings, and, for a stand-in, volumes
//! and all of a preStop hook but its sleep. Refused, because the pod would not be what was asked
//! for: initContainers, further containers, postStart, `exec` in probes and hooks, and volumes of a process.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::place;
use super::probes::{Check, Probe, Probes};

/// A pod that can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// The container's name.
    pub name: String,
    /// The container's image, as written.
    pub image: String,
    /// Its TCP ports, in its order.
    pub ports: Vec<u16>,
    /// How it runs.
    pub run: Run,
    /// What happens when it ends.
    pub restart: Restart,
    /// Conditions of the pod that must be true besides the container's readiness.
    pub gates: Vec<String>,
}

/// How a container runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Run {
    /// As a server of ours.
    StandIn {
        /// How long it goes on as before when it is asked to end: the sleep of `lifecycle.preStop`.
        pre_stop: Duration,
    },
    /// As a process.
    Process(Box<Program>),
}

/// A container's process.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// `command` and `args`, not yet expanded.
    pub command: Vec<String>,
    /// `workingDir`.
    pub directory: Option<PathBuf>,
    /// The container's probes.
    pub probes: Probes,
    /// `lifecycle.preStop`.
    pub pre_stop: Option<PreStop>,
}

/// What is done before a process is asked to end.
#[derive(Clone, Debug, PartialEq)]
pub enum PreStop {
    /// Wait.
    Sleep(Duration),
    /// Send a request.
    Http(Check),
}

/// `spec.restartPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Whenever it ends.
    Always,
    /// When its exit code is not 0.
    OnFailure,
    /// Not at all.
    Never,
}

impl Restart {
    /// Whether a container that ended with this code starts again.
    pub fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

impl Container {
    /// Reads the container of a pod.
    ///
    /// # Errors
    /// All that cannot be done here, each beginning with its field.
    pub fn parse(pod: &Value) -> Result<Self, Vec<String>> {
        let spec = &pod["spec"];
        let container = &spec["containers"][0];
        let mut complaints = of_the_pod(spec);
        let restart = restart(spec);
        let command = strings(&container["command"]);
        let run = if command.is_empty() {
            if restart != Restart::Always {
                complaints.push("spec.containers[0].command: a pod that is to end needs a command on one machine".to_owned());
            }
            let seconds = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64();
            Run::StandIn {
                pre_stop: Duration::from_secs(seconds.unwrap_or(0)),
            }
        } else {
            Run::Process(Box::new(program(container, command, &mut complaints)))
        };
        let text = |field: &str| container[field].as_str().unwrap_or_default().to_owned();
        let gates = list(&spec["readinessGates"]).iter();
        let gates = gates
            .filter_map(|gate| gate["conditionType"].as_str())
            .map(str::to_owned)
            .collect();
        if complaints.is_empty() {
            Ok(Self {
                name: text("name"),
                image: text("image"),
                ports: place::all(container),
                run,
                restart,
                gates,
            })
        } else {
            Err(complaints)
        }
    }
}

/// What no container of ours can do.
fn of_the_pod(spec: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut refuse =
        |is: bool, complaint: &str| complaints.extend(is.then(|| complaint.to_owned()));
    refuse(
        list(&spec["containers"]).is_empty(),
        "spec.containers: one container is expected",
    );
    refuse(
        list(&spec["containers"]).len() > 1,
        "spec.containers: one machine runs one container per pod, without sidecars",
    );
    refuse(
        !list(&spec["initContainers"]).is_empty(),
        "spec.initContainers: not supported on one machine",
    );
    refuse(
        spec.get("activeDeadlineSeconds").is_some(),
        "spec.activeDeadlineSeconds: supported for Jobs only, on the Job",
    );
    complaints
}

fn restart(spec: &Value) -> Restart {
    match spec["restartPolicy"].as_str() {
        Some("Never") => Restart::Never,
        Some("OnFailure") => Restart::OnFailure,
        _ => Restart::Always,
    }
}

fn program(container: &Value, mut command: Vec<String>, complaints: &mut Vec<String>) -> Program {
    command.extend(strings(&container["args"]));
    let lifecycle = &container["lifecycle"];
    if lifecycle.get("postStart").is_some() {
        complaints.push(
            "spec.containers[0].lifecycle.postStart: not supported on one machine".to_owned(),
        );
    }
    let mut mounts = list(&container["volumeMounts"]).iter();
    if mounts.any(|mount| mount["mountPath"] != ACCOUNT) {
        complaints.push(
            "spec.containers[0].volumeMounts: a process sees this machine's files; use its paths"
                .to_owned(),
        );
    }
    let mut probe = |name: &str| {
        let probe = container.get(name)?;
        Probe::parse(probe, container, &format!("spec.containers[0].{name}"))
            .map_err(|complaint| complaints.push(complaint))
            .ok()
    };
    let probes = Probes {
        startup: probe("startupProbe"),
        liveness: probe("livenessProbe"),
        readiness: probe("readinessProbe"),
    };
    let pre_stop = lifecycle
        .get("preStop")
        .map(|hook| pre_stop(hook, container))
        .transpose();
    let pre_stop = pre_stop
        .map_err(|complaint| complaints.push(complaint))
        .ok()
        .flatten();
    let directory = container["workingDir"]
        .as_str()
        .filter(|directory| !directory.is_empty())
        .map(PathBuf::from);
    Program {
        command,
        directory,
        probes,
        pre_stop,
    }
}

fn pre_stop(hook: &Value, container: &Value) -> Result<PreStop, String> {
    let field = "spec.containers[0].lifecycle.preStop";
    if let Some(seconds) = hook["sleep"]["seconds"].as_u64() {
        return Ok(PreStop::Sleep(Duration::from_secs(seconds)));
    }
    if hook.get("httpGet").is_some() {
        return Probe::parse(hook, container, field).map(|probe| PreStop::Http(probe.check));
    }
    Err(format!(
        "{field}: only sleep and httpGet are supported on one machine"
    ))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn strings(value: &Value) -> Vec<String> {
    list(value)
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// Where the token of a pod's service account is mounted (Kubernetes, admission plugin ServiceAccount).
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_makes_a_process_and_its_absence_a_stand_in() {
        let pod = |container: Value| json!({"spec": {"containers": [container]}});
        let process = Container::parse(&pod(
            json!({"name": "app", "image": "x", "command": ["sh"], "args": ["-c", "true"],
                "volumeMounts": [{"name": "token", "mountPath": ACCOUNT}]}),
        ));
        let Run::Process(program) = process.unwrap().run else {
            panic!("a process is expected")
        };
        assert_eq!(program.command, ["sh", "-c", "true"]);
        let standin = Container::parse(&pod(
            json!({"name": "app", "image": "x", "args": ["serve"], "ports": [{"containerPort": 8001}],
                "lifecycle": {"preStop": {"sleep": {"seconds": 3}}}}),
        ))
        .unwrap();
        assert_eq!(
            (standin.run, standin.restart, standin.ports),
            (
                Run::StandIn {
                    pre_stop: Duration::from_secs(3)
                },
                Restart::Always,
                vec![8001]
            )
        );
    }

    #[test]
    fn all_that_is_refused_is_named_at_once() {
        let pod = json!({"spec": {
            "restartPolicy": "Never",
            "initContainers": [{"name": "init"}],
            "containers": [
                {"name": "app", "command": ["x"], "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                 "readinessProbe": {"exec": {"command": ["true"]}},
                 "lifecycle": {"postStart": {"sleep": {"seconds": 1}}, "preStop": {"exec": {"command": ["x"]}}}},
                {"name": "sidecar"},
            ],
        }});
        insta::assert_snapshot!(Container::parse(&pod).unwrap_err().join("\n"), @r"
        spec.containers: one machine runs one container per pod, without sidecars
        spec.initContainers: not supported on one machine
        spec.containers[0].lifecycle.postStart: not supported on one machine
        spec.containers[0].volumeMounts: a process sees this machine's files; use its paths
        spec.containers[0].readinessProbe.exec is not supported on one machine; use httpGet or tcpSocket
        spec.containers[0].lifecycle.preStop: only sleep and httpGet are supported on one machine
        ");
    }

    #[test]
    fn a_job_without_a_command_is_refused() {
        let pod = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "app"}]}});
        assert_eq!(Container::parse(&pod).unwrap_err().len(), 1);
    }
}
