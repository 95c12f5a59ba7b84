//! What `kubectl get` shows: the columns of each kind, as the real server prints them, and our own for our kinds.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::kinds::Kind;
use super::store::text;

/// One column.
#[derive(Clone, Copy)]
pub struct Column {
    name: &'static str,
    wide: bool,
    number: bool,
    cell: fn(&Value, Timestamp) -> Value,
    /// Where a CustomResourceDefinition finds what comes nearest: type, JSON path.
    path: Option<(&'static str, &'static str)>,
}

impl Column {
    /// As a custom column that `kubectl get` shows on a real cluster; none for the columns of core kinds.
    pub(super) fn printed(&self) -> Option<Value> {
        let (kind, path) = self.path?;
        Some(json!({"name": self.name, "type": kind, "jsonPath": path}))
    }

    const fn at(self, kind: &'static str, path: &'static str) -> Self {
        Self {
            path: Some((kind, path)),
            ..self
        }
    }
}

impl std::fmt::Debug for Column {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// How much of each object a row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Include {
    /// Its metadata; what `kubectl` asks for by saying nothing.
    Metadata,
    /// All of it: what it needs for sorting.
    Object,
    /// Nothing.
    None,
}

/// A `Table` of the objects, with headings if `headed`.
pub(super) fn table(
    kind: &Kind,
    objects: &[Value],
    metadata: &Value,
    include: Include,
    headed: bool,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| row(kind, object, include, now))
        .collect();
    let columns = if headed {
        definitions(kind)
    } else {
        Value::Null
    };
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// An object without all but its metadata.
pub(super) fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn definitions(kind: &Kind) -> Value {
    let define = |name: &str, number: bool, wide: bool, format: &str| {
        let (kind, priority) = (if number { "integer" } else { "string" }, i32::from(wide));
        json!({"name": name, "type": kind, "format": format, "description": "", "priority": priority})
    };
    let rest = kind
        .columns
        .iter()
        .map(|column| define(column.name, column.number, column.wide, ""));
    std::iter::once(define("Name", false, false, "name"))
        .chain(rest)
        .collect()
}

fn row(kind: &Kind, object: &Value, include: Include, now: Timestamp) -> Value {
    let name = json!(text(object, "name"));
    let cells: Vec<Value> = std::iter::once(name)
        .chain(kind.columns.iter().map(|column| (column.cell)(object, now)))
        .collect();
    match include {
        Include::Metadata => json!({"cells": cells, "object": metadata_only(object)}),
        Include::Object => json!({"cells": cells, "object": object}),
        Include::None => json!({"cells": cells}),
    }
}

const fn column(name: &'static str, cell: fn(&Value, Timestamp) -> Value) -> Column {
    Column {
        name,
        wide: false,
        number: false,
        cell,
        path: None,
    }
}

const fn number(name: &'static str, cell: fn(&Value, Timestamp) -> Value) -> Column {
    Column {
        name,
        wide: false,
        number: true,
        cell,
        path: None,
    }
}

const fn wide(name: &'static str, cell: fn(&Value, Timestamp) -> Value) -> Column {
    Column {
        name,
        wide: true,
        number: false,
        cell,
        path: None,
    }
}

const AGE: Column = column("Age", |object, now| {
    json!(since(text(object, "creationTimestamp"), now))
})
.at("date", ".metadata.creationTimestamp");
const CONTAINERS: Column = wide("Containers", |object, _| joined(containers(object), "name"));
const IMAGES: Column = wide("Images", |object, _| joined(containers(object), "image"));
const SELECTOR: Column = wide("Selector", |object, _| {
    selector(&object["spec"]["selector"])
});
const STATUS: Column =
    column("Status", |object, _| object["status"]["phase"].clone()).at("string", ".status.phase");

pub(super) const PLAIN: &[Column] = &[AGE];
pub(super) const NAMESPACES: &[Column] = &[STATUS, AGE];
pub(super) const PHASED: &[Column] = &[STATUS, AGE];

pub(super) const PODS: &[Column] = &[
    column("Ready", |pod, _| {
        let statuses = items(&pod["status"]["containerStatuses"]);
        let ready = statuses.filter(|status| status["ready"] == true).count();
        json!(format!(
            "{ready}/{}",
            items(&pod["spec"]["containers"]).count()
        ))
    }),
    column("Status", |pod, _| json!(pod_status(pod))),
    column("Restarts", |pod, now| json!(restarts(pod, now))),
    AGE,
    wide("IP", |pod, _| or_none(&pod["status"]["podIP"])),
    wide("Node", |pod, _| or_none(&pod["spec"]["nodeName"])),
    wide("Nominated Node", |pod, _| {
        or_none(&pod["status"]["nominatedNodeName"])
    }),
    wide("Readiness Gates", |_, _| json!("<none>")),
];

pub(super) const SERVICES: &[Column] = &[
    column("Type", |service, _| service["spec"]["type"].clone()),
    column("Cluster-IP", |service, _| {
        or_none(&service["spec"]["clusterIP"])
    }),
    column("External-IP", |service, _| {
        or_none(&service["spec"]["externalName"])
    }),
    column("Port(s)", |service, _| {
        let ports = items(&service["spec"]["ports"]).map(|port| {
            format!(
                "{}/{}",
                port["port"],
                port["protocol"].as_str().unwrap_or("TCP")
            )
        });
        list(&ports.collect::<Vec<_>>())
    }),
    AGE,
    SELECTOR,
];

pub(super) const CONFIG_MAPS: &[Column] = &[
    number("Data", |map, _| {
        json!(length(&map["data"]) + length(&map["binaryData"]))
    }),
    AGE,
];

pub(super) const SECRETS: &[Column] = &[
    column("Type", |secret, _| secret["type"].clone()),
    number("Data", |secret, _| json!(length(&secret["data"]))),
    AGE,
];

pub(super) const SERVICE_ACCOUNTS: &[Column] = &[
    number("Secrets", |account, _| {
        json!(items(&account["secrets"]).count())
    }),
    AGE,
];

pub(super) const EVENTS: &[Column] = &[
    column("Last Seen", |event, now| {
        json!(since(&last_seen(event), now))
    }),
    column("Type", |event, _| event["type"].clone()),
    column("Reason", |event, _| event["reason"].clone()),
    column("Object", |event, _| {
        let object = regarding(event);
        let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
        json!(format!(
            "{kind}/{}",
            object["name"].as_str().unwrap_or_default()
        ))
    }),
    wide("Subobject", |event, _| {
        json!(regarding(event)["fieldPath"].as_str().unwrap_or_default())
    }),
    wide("Source", |event, _| {
        let source = first(&[
            &event["source"]["component"],
            &event["reportingComponent"],
            &event["reportingController"],
        ]);
        json!(source)
    }),
    column("Message", |event, _| {
        json!(first(&[&event["message"], &event["note"]]).trim())
    }),
    wide("First Seen", |event, now| {
        let seen = [
            &event["firstTimestamp"],
            &event["deprecatedFirstTimestamp"],
            &event["eventTime"],
        ];
        json!(since(first(&seen), now))
    }),
    Column {
        number: true,
        ..wide("Count", |event, _| {
            let counts = [
                &event["series"]["count"],
                &event["count"],
                &event["deprecatedCount"],
            ];
            json!(counts.into_iter().find_map(Value::as_i64).unwrap_or(1))
        })
    },
    wide("Name", |event, _| json!(text(event, "name"))),
];

pub(super) const DEPLOYMENTS: &[Column] = &[
    column("Ready", |deployment, _| {
        json!(format!(
            "{}/{}",
            count(&deployment["status"]["readyReplicas"]),
            count(&deployment["spec"]["replicas"])
        ))
    }),
    number("Up-to-date", |deployment, _| {
        json!(count(&deployment["status"]["updatedReplicas"]))
    }),
    number("Available", |deployment, _| {
        json!(count(&deployment["status"]["availableReplicas"]))
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const REPLICA_SETS: &[Column] = &[
    number("Desired", |set, _| json!(count(&set["spec"]["replicas"]))),
    number("Current", |set, _| json!(count(&set["status"]["replicas"]))),
    number("Ready", |set, _| {
        json!(count(&set["status"]["readyReplicas"]))
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const JOBS: &[Column] = &[
    column("Status", |job, _| json!(job_status(job))),
    column("Completions", |job, _| {
        let done = count(&job["status"]["succeeded"]);
        match job["spec"]["completions"].as_i64() {
            Some(wanted) => json!(format!("{done}/{wanted}")),
            None => json!(format!(
                "{done}/1 of {}",
                count(&job["spec"]["parallelism"])
            )),
        }
    }),
    column("Duration", |job, now| {
        let Some(start) = time(&job["status"]["startTime"]) else {
            return json!("");
        };
        let end = time(&job["status"]["completionTime"]).unwrap_or(now);
        json!(duration(end.duration_since(start).as_secs()))
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const ENDPOINT_SLICES: &[Column] = &[
    column("AddressType", |slice, _| slice["addressType"].clone()),
    column("Ports", |slice, _| {
        list(
            &items(&slice["ports"])
                .map(|port| port["port"].to_string())
                .collect::<Vec<_>>(),
        )
    }),
    column("Endpoints", |slice, _| {
        let addresses =
            items(&slice["endpoints"]).flat_map(|endpoint| items(&endpoint["addresses"]));
        list(
            &addresses
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }),
    AGE,
];

pub(super) const LEASES: &[Column] = &[
    column("Holder", |lease, _| lease["spec"]["holderIdentity"].clone()),
    AGE,
];

pub(super) const INGRESSES: &[Column] = &[
    column("Class", |ingress, _| {
        or_none(&ingress["spec"]["ingressClassName"])
    }),
    column("Hosts", |ingress, _| {
        let hosts: Vec<String> = items(&ingress["spec"]["rules"])
            .filter_map(|rule| rule["host"].as_str())
            .map(str::to_owned)
            .collect();
        if hosts.is_empty() {
            json!("*")
        } else {
            list(&hosts)
        }
    }),
    column("Address", |ingress, _| {
        let points = items(&ingress["status"]["loadBalancer"]["ingress"]);
        json!(
            points
                .filter_map(|point| point["ip"].as_str().or_else(|| point["hostname"].as_str()))
                .collect::<Vec<_>>()
                .join(",")
        )
    }),
    column("Ports", |ingress, _| {
        json!(if items(&ingress["spec"]["tls"]).next().is_some() {
            "80, 443"
        } else {
            "80"
        })
    }),
    AGE,
];

pub(super) const ROLLOUTS: &[Column] = &[
    number("Desired", |rollout, _| rollout["spec"]["replicas"].clone())
        .at("integer", ".spec.replicas"),
    number("Current", |rollout, _| {
        rollout["status"]["replicas"].clone()
    })
    .at("integer", ".status.replicas"),
    number("Up-to-date", |rollout, _| {
        rollout["status"]["updatedReplicas"].clone()
    })
    .at("integer", ".status.updatedReplicas"),
    number("Available", |rollout, _| {
        rollout["status"]["availableReplicas"].clone()
    })
    .at("integer", ".status.availableReplicas"),
    AGE,
];

pub(super) const SPLITS: &[Column] = &[
    column("Services", |split, _| {
        let services = items(&split["spec"]["rules"]).flat_map(|rule| items(&rule["services"]));
        list(
            &services
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    })
    .at("string", ".spec.rules[0].services"),
    column("Weights", |split, _| {
        let rules = items(&split["spec"]["rules"]).map(|rule| {
            let weights = rule["weights"].as_object().into_iter().flatten();
            weights
                .map(|(version, weight)| format!("{version}={weight}"))
                .collect::<Vec<_>>()
                .join(" ")
        });
        json!(rules.collect::<Vec<_>>().join("; "))
    })
    .at("string", ".spec.rules[0].weights"),
    AGE,
];

/// What is the matter with a pod, in one word, as the real server finds it.
fn pod_status(pod: &Value) -> String {
    let status = &pod["status"];
    let mut reason = first(&[&status["reason"], &status["phase"]]).to_owned();
    let mut running = false;
    let statuses: Vec<&Value> = items(&status["containerStatuses"]).collect();
    for container in statuses.into_iter().rev() {
        let (waiting, terminated) = (
            &container["state"]["waiting"],
            &container["state"]["terminated"],
        );
        if let Some(why) = waiting["reason"].as_str().filter(|why| !why.is_empty()) {
            why.clone_into(&mut reason);
        } else if let Some(why) = terminated["reason"].as_str().filter(|why| !why.is_empty()) {
            why.clone_into(&mut reason);
        } else if terminated.is_object() {
            reason = match terminated["signal"].as_i64().filter(|signal| *signal != 0) {
                Some(signal) => format!("Signal:{signal}"),
                None => format!("ExitCode:{}", count(&terminated["exitCode"])),
            };
        } else if container["ready"] == true && container["state"]["running"].is_object() {
            running = true;
        }
    }
    if reason == "Completed" && running {
        let ready = items(&status["conditions"])
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        reason = if ready { "Running" } else { "NotReady" }.to_owned();
    }
    if super::store::is_deleting(pod)
        && !matches!(reason.as_str(), "Succeeded" | "Failed" | "Completed")
    {
        return "Terminating".to_owned();
    }
    reason
}

fn restarts(pod: &Value, now: Timestamp) -> String {
    let statuses = || items(&pod["status"]["containerStatuses"]);
    let total: i64 = statuses()
        .map(|status| count(&status["restartCount"]))
        .sum();
    let last = statuses()
        .filter_map(|status| time(&status["lastState"]["terminated"]["finishedAt"]))
        .max();
    match last.filter(|_| total > 0) {
        Some(last) => format!(
            "{total} ({} ago)",
            duration(now.duration_since(last).as_secs())
        ),
        None => total.to_string(),
    }
}

fn job_status(job: &Value) -> &'static str {
    let is = |kind: &str| {
        items(&job["status"]["conditions"])
            .any(|condition| condition["type"] == kind && condition["status"] == "True")
    };
    if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if super::store::is_deleting(job) {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else if is("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn last_seen(event: &Value) -> String {
    let seen = [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["deprecatedLastTimestamp"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ];
    first(&seen).to_owned()
}

fn regarding(event: &Value) -> &Value {
    event
        .get("involvedObject")
        .unwrap_or_else(|| &event["regarding"])
}

fn containers(object: &Value) -> &Value {
    &object["spec"]["template"]["spec"]["containers"]
}

fn joined(list: &Value, key: &str) -> Value {
    json!(
        items(list)
            .filter_map(|item| item[key].as_str())
            .collect::<Vec<_>>()
            .join(",")
    )
}

/// A selector in the words of the command line.
fn selector(selector: &Value) -> Value {
    let labels = selector.get("matchLabels").unwrap_or(selector);
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    if pairs.is_empty() {
        json!("<none>")
    } else {
        json!(pairs.join(","))
    }
}

fn list(values: &[String]) -> Value {
    if values.is_empty() {
        json!("<none>")
    } else {
        json!(values.join(","))
    }
}

fn or_none(value: &Value) -> Value {
    json!(
        value
            .as_str()
            .filter(|text| !text.is_empty())
            .unwrap_or("<none>")
    )
}

fn first<'a>(values: &[&'a Value]) -> &'a str {
    values
        .iter()
        .filter_map(|value| value.as_str())
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn length(map: &Value) -> usize {
    map.as_object().map_or(0, Map::len)
}

fn count(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

fn since(time: &str, now: Timestamp) -> String {
    time.parse::<Timestamp>().map_or_else(
        |_| "<unknown>".to_owned(),
        |time| duration(now.duration_since(time).as_secs()),
    )
}

/// A duration in at most two units: 90s, 5m30s, 3h, 2d4h (Kubernetes' `HumanDuration`).
pub(super) fn duration(seconds: i64) -> String {
    let two = |big: i64, unit: char, small: i64, part: char| {
        if small == 0 {
            format!("{big}{unit}")
        } else {
            format!("{big}{unit}{small}{part}")
        }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(years, 'y', days % 365, 'd'),
        _ => format!("{years}y"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_prints_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn pods_say_what_is_the_matter_with_them() {
        let check =
            |status: Value, text: &str| assert_eq!(pod_status(&json!({"status": status})), text);
        check(json!({"phase": "Pending"}), "Pending");
        check(
            json!({"phase": "Running", "containerStatuses": [{"ready": true, "state": {"running": {}}}]}),
            "Running",
        );
        check(
            json!({"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            "CrashLoopBackOff",
        );
        check(
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
            "ExitCode:3",
        );
        check(
            json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}]}),
            "Completed",
        );
        let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running"}});
        assert_eq!(pod_status(&leaving), "Terminating");
    }
}
