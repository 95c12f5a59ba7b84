//! What is known of a pod's container, and the status that says it as the kubelet would.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::store::whole_seconds;

/// What is known of a pod's one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tale {
    /// What it does now.
    pub state: State,
    /// How its last life ended.
    pub last: Option<Terminated>,
    /// How often it was started again.
    pub restarts: u64,
    /// Its start-up probe has succeeded, or there is none.
    pub started: bool,
    /// It answers its readiness probe.
    pub ready: bool,
    /// It ended and will not start again: how the pod ended.
    pub outcome: Option<Outcome>,
}

/// How a pod ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With exit code 0.
    Succeeded,
    /// With another.
    Failed,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// It is not there yet, or not there again.
    Waiting {
        /// The word `kubectl get` shows.
        reason: &'static str,
        /// A sentence for `kubectl describe`.
        message: String,
    },
    /// It runs.
    Running {
        /// Since when.
        since: Timestamp,
        /// What runs: `process://<pid>` or `standin://<port>`.
        id: String,
    },
    /// It has ended.
    Terminated(Terminated),
}

impl Default for State {
    fn default() -> Self {
        Self::Waiting {
            reason: "ContainerCreating",
            message: String::new(),
        }
    }
}

/// How a container's life ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Terminated {
    /// Its exit code; 128 + signal where a signal ended it.
    pub exit_code: i32,
    /// `Completed`, `Error` or what else the kubelet says.
    pub reason: String,
    /// A sentence for `kubectl describe`.
    pub message: String,
    /// When it started, if it is known.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Timestamp,
    /// What ran.
    pub id: String,
}

impl Tale {
    /// What an earlier process of ours left behind in a pod's status. Whatever ran then has ended with it.
    pub fn carried_over(pod: &Value, now: Timestamp) -> Self {
        let status = &pod["status"]["containerStatuses"][0];
        if status.is_null() {
            return Self::default();
        }
        let restarts = status["restartCount"].as_u64().unwrap_or(0);
        let terminated = |value: &Value| Terminated {
            exit_code: value["exitCode"]
                .as_i64()
                .and_then(|code| i32::try_from(code).ok())
                .unwrap_or(LOST),
            reason: value["reason"]
                .as_str()
                .unwrap_or("ContainerStatusUnknown")
                .to_owned(),
            message: value["message"]
                .as_str()
                .unwrap_or("it ended with the program that ran it")
                .to_owned(),
            started: value["startedAt"]
                .as_str()
                .and_then(|time| time.parse().ok()),
            finished: value["finishedAt"]
                .as_str()
                .and_then(|time| time.parse().ok())
                .unwrap_or(now),
            id: status["containerID"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        };
        let last = [
            "/state/terminated",
            "/state/running",
            "/lastState/terminated",
        ];
        let last = last
            .into_iter()
            .find_map(|path| status.pointer(path))
            .map(terminated);
        Self {
            last,
            restarts,
            ..Self::default()
        }
    }

    /// Whether a container has run before.
    pub fn has_lived(&self) -> bool {
        self.last.is_some()
    }

    fn phase(&self) -> &'static str {
        match (&self.outcome, &self.state) {
            (Some(Outcome::Succeeded), _) => "Succeeded",
            (Some(Outcome::Failed), _) => "Failed",
            (None, State::Running { .. } | State::Terminated(_)) => "Running",
            (None, State::Waiting { .. }) if self.has_lived() => "Running",
            (None, State::Waiting { .. }) => "Pending",
        }
    }
}

/// What a pod's status is to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The container's name.
    pub container: String,
    /// The container's image, as written.
    pub image: String,
    /// The pod's address.
    pub address: IpAddr,
    /// What is known of the container.
    pub tale: Tale,
    /// When that is.
    pub now: Timestamp,
}

/// Writes a pod's status. What others wrote there, such as conditions of their own, stays.
pub fn write(pod: &mut Value, report: &Report) {
    let Report {
        container: name,
        image,
        address,
        tale,
        now,
    } = report;
    let ready = tale.ready && gates_met(pod);
    let started = pod["status"]["startTime"]
        .as_str()
        .map_or_else(|| whole_seconds(*now), str::to_owned);
    let conditions = conditions(pod, name, tale, ready, &whole_seconds(*now));
    let qos = pod["status"]["qosClass"]
        .as_str()
        .unwrap_or("BestEffort")
        .to_owned();
    let status = &mut pod["status"];
    status["phase"] = json!(tale.phase());
    status["conditions"] = Value::Array(conditions);
    status["hostIP"] = json!(HOST);
    status["hostIPs"] = json!([{"ip": HOST}]);
    status["podIP"] = json!(address);
    status["podIPs"] = json!([{"ip": address}]);
    status["startTime"] = json!(started);
    status["containerStatuses"] = json!([container(name, image, tale)]);
    status["qosClass"] = json!(qos);
}

/// Whether all of a pod's readiness gates are open.
pub fn gates_met(pod: &Value) -> bool {
    let gates = pod["spec"]["readinessGates"]
        .as_array()
        .into_iter()
        .flatten();
    gates
        .filter_map(|gate| gate["conditionType"].as_str())
        .all(|gate| condition_is_true(pod, gate))
}

/// Whether a pod's condition is there and true.
pub fn condition_is_true(pod: &Value, condition: &str) -> bool {
    find_condition(pod, condition).is_some_and(|found| found["status"] == "True")
}

/// A condition of an object's status.
pub fn find_condition<'a>(object: &'a Value, condition: &str) -> Option<&'a Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|found| found["type"] == condition)
}

fn container(name: &str, image: &str, tale: &Tale) -> Value {
    let mut status = json!({
        "name": name, "image": image, "imageID": "", "ready": tale.ready, "started": tale.started,
        "restartCount": tale.restarts, "state": state(&tale.state),
        "lastState": tale.last.as_ref().map_or_else(|| json!({}), terminated),
    });
    let id = match &tale.state {
        State::Running { id, .. } | State::Terminated(Terminated { id, .. }) => Some(id),
        State::Waiting { .. } => tale.last.as_ref().map(|last| &last.id),
    };
    if let Some(id) = id {
        status["containerID"] = json!(id);
    }
    status
}

fn state(state: &State) -> Value {
    match state {
        State::Waiting { reason, message } if message.is_empty() => {
            json!({"waiting": {"reason": reason}})
        }
        State::Waiting { reason, message } => {
            json!({"waiting": {"reason": reason, "message": message}})
        }
        State::Running { since, .. } => json!({"running": {"startedAt": whole_seconds(*since)}}),
        State::Terminated(how) => terminated(how),
    }
}

fn terminated(how: &Terminated) -> Value {
    let Terminated {
        exit_code,
        reason,
        message,
        started,
        finished,
        id,
    } = how;
    let mut terminated = json!({
        "exitCode": exit_code, "reason": reason, "finishedAt": whole_seconds(*finished), "containerID": id,
    });
    if let Some(started) = started {
        terminated["startedAt"] = json!(whole_seconds(*started));
    }
    if !message.is_empty() {
        terminated["message"] = json!(message);
    }
    json!({"terminated": terminated})
}

/// The conditions that are the kubelet's, and those of others behind them.
fn conditions(pod: &Value, name: &str, tale: &Tale, ready: bool, now: &str) -> Vec<Value> {
    let unready = || {
        if tale.outcome == Some(Outcome::Succeeded) {
            ("PodCompleted", String::new())
        } else {
            (
                "ContainersNotReady",
                format!("containers with unready status: [{name}]"),
            )
        }
    };
    let gated = || {
        (
            "ReadinessGatesNotReady",
            "a readiness gate is not open".to_owned(),
        )
    };
    let of_container = (!tale.ready).then(unready);
    let of_pod = if ready {
        None
    } else {
        Some(of_container.clone().unwrap_or_else(gated))
    };
    let ours = [
        ("PodReadyToStartContainers", None),
        ("Initialized", None),
        ("Ready", of_pod),
        ("ContainersReady", of_container),
        ("PodScheduled", None),
    ];
    let foreign = pod["status"]["conditions"].as_array().into_iter().flatten();
    let foreign = foreign
        .filter(|other| !ours.iter().any(|(kind, _)| other["type"] == *kind))
        .cloned();
    let ours = ours
        .iter()
        .map(|(kind, why_not)| condition(pod, kind, why_not.as_ref(), now));
    ours.chain(foreign).collect()
}

/// A condition that is true unless there is a reason why not. Its time moves only when it turns.
fn condition(pod: &Value, kind: &str, why_not: Option<&(&str, String)>, now: &str) -> Value {
    let status = if why_not.is_none() { "True" } else { "False" };
    let since = find_condition(pod, kind).filter(|before| before["status"] == status);
    let since = since
        .and_then(|before| before["lastTransitionTime"].as_str())
        .unwrap_or(now);
    let mut condition =
        json!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": since});
    if let Some((reason, message)) = why_not {
        condition["reason"] = json!(reason);
        if !message.is_empty() {
            condition["message"] = json!(message);
        }
    }
    condition
}

/// The address of the node: this machine.
const HOST: &str = "127.0.0.1";
/// Exit code of a container nobody saw end, as the kubelet gives it.
pub const LOST: i32 = 137;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn running(ready: bool) -> Tale {
        let state = State::Running {
            since: at(1),
            id: "process://7".to_owned(),
        };
        Tale {
            state,
            ready,
            started: true,
            ..Tale::default()
        }
    }

    fn report(image: &str, tale: Tale, now: Timestamp) -> Report {
        Report {
            container: "app".to_owned(),
            image: image.to_owned(),
            address: [127, 0, 0, 1].into(),
            tale,
            now,
        }
    }

    fn crashed() -> Tale {
        let last = Terminated {
            exit_code: 1,
            reason: "Error".to_owned(),
            message: String::new(),
            started: Some(at(1)),
            finished: at(2),
            id: "process://7".to_owned(),
        };
        let state = State::Waiting {
            reason: "CrashLoopBackOff",
            message: "back-off 2s".to_owned(),
        };
        Tale {
            state,
            last: Some(last),
            restarts: 1,
            ..Tale::default()
        }
    }

    #[test]
    fn a_running_pod_reads_as_one_of_the_kubelets() {
        let mut pod = json!({"status": {}});
        write(&mut pod, &report("demo:blue", running(true), at(3)));
        insta::assert_json_snapshot!(pod["status"], @r#"
        {
          "phase": "Running",
          "conditions": [
            {
              "type": "PodReadyToStartContainers",
              "status": "True",
              "lastProbeTime": null,
              "lastTransitionTime": "1970-01-01T00:00:03Z"
            },
            {
              "type": "Initialized",
              "status": "True",
              "lastProbeTime": null,
              "lastTransitionTime": "1970-01-01T00:00:03Z"
            },
            {
              "type": "Ready",
              "status": "True",
              "lastProbeTime": null,
              "lastTransitionTime": "1970-01-01T00:00:03Z"
            },
            {
              "type": "ContainersReady",
              "status": "True",
              "lastProbeTime": null,
              "lastTransitionTime": "1970-01-01T00:00:03Z"
            },
            {
              "type": "PodScheduled",
              "status": "True",
              "lastProbeTime": null,
              "lastTransitionTime": "1970-01-01T00:00:03Z"
            }
          ],
          "hostIP": "127.0.0.1",
          "hostIPs": [
            {
              "ip": "127.0.0.1"
            }
          ],
          "podIP": "127.0.0.1",
          "podIPs": [
            {
              "ip": "127.0.0.1"
            }
          ],
          "startTime": "1970-01-01T00:00:03Z",
          "containerStatuses": [
            {
              "name": "app",
              "image": "demo:blue",
              "imageID": "",
              "ready": true,
              "started": true,
              "restartCount": 0,
              "state": {
                "running": {
                  "startedAt": "1970-01-01T00:00:01Z"
                }
              },
              "lastState": {},
              "containerID": "process://7"
            }
          ],
          "qosClass": "BestEffort"
        }
        "#);
    }

    #[test]
    fn the_phase_follows_the_container() {
        let ended = |outcome| Tale {
            outcome: Some(outcome),
            ..crashed()
        };
        let check = |tale: Tale, phase: &str| assert_eq!(tale.phase(), phase, "{tale:?}");
        check(Tale::default(), "Pending");
        check(running(false), "Running");
        check(crashed(), "Running");
        check(ended(Outcome::Failed), "Failed");
        check(ended(Outcome::Succeeded), "Succeeded");
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_turns() {
        let mut pod = json!({"status": {}});
        let since =
            |pod: &Value| find_condition(pod, "Ready").unwrap()["lastTransitionTime"].clone();
        write(&mut pod, &report("demo", running(false), at(1)));
        write(&mut pod, &report("demo", running(true), at(2)));
        write(&mut pod, &report("demo", running(true), at(3)));
        assert_eq!(since(&pod), "1970-01-01T00:00:02Z");
    }

    #[test]
    fn a_readiness_gate_holds_the_pod_but_not_the_container() {
        let mut pod = json!({
            "spec": {"readinessGates": [{"conditionType": "example.org/open"}]},
            "status": {"conditions": [{"type": "example.org/open", "status": "False"}]},
        });
        write(&mut pod, &report("demo", running(true), at(1)));
        assert!(!condition_is_true(&pod, "Ready") && condition_is_true(&pod, "ContainersReady"));
        pod["status"]["conditions"][5]["status"] = json!("True");
        write(&mut pod, &report("demo", running(true), at(2)));
        assert!(condition_is_true(&pod, "Ready"));
    }

    #[test]
    fn what_ran_under_an_earlier_process_has_ended() {
        let mut pod = json!({"status": {}});
        write(&mut pod, &report("demo", running(true), at(3)));
        let tale = Tale::carried_over(&pod, at(9));
        assert_eq!(
            tale.last
                .as_ref()
                .map(|last| (last.exit_code, last.reason.as_str(), last.finished)),
            Some((137, "ContainerStatusUnknown", at(9)))
        );
        assert!(!tale.ready && tale.has_lived());
        assert!(!Tale::carried_over(&json!({"status": {}}), at(9)).has_lived());
    }
}
