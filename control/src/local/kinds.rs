//! What kinds the one-machine cluster knows: a kind is one row in [`ALL`].
//!
//! A row says everything in which kinds differ: names, subresources, what the generation counts, how lists are merged, which fields
//! can be selected by, how an object is checked and what is filled in. The rest of the server asks the row and never the name.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::defaults;
use super::schema;
use super::store::Object;
use super::strict::{self, FieldError, Problem};
use super::table::{self, Column};

/// One kind.
pub struct Kind {
    /// API group; empty for the core.
    pub group: &'static str,
    /// Its one version.
    pub version: &'static str,
    /// Name of the kind.
    pub kind: &'static str,
    /// Name in paths.
    pub plural: &'static str,
    /// Name of one, for the command line.
    pub singular: &'static str,
    /// Abbreviations, for the command line.
    pub short_names: &'static [&'static str],
    /// Groups of kinds, such as `all`, for the command line.
    pub categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether the status is written through a subresource of its own, and not through the object.
    pub status: bool,
    /// The `scale` subresource.
    pub scale: Option<Scale>,
    /// Whether it has a `log` subresource.
    pub log: bool,
    /// What `metadata.generation` counts.
    pub generation: Generation,
    /// Columns of its table, after the name.
    pub columns: &'static [Column],
    /// Fields to select by, besides `metadata.name` and `metadata.namespace`; dotted paths.
    pub selectable: &'static [&'static str],
    /// Whether strategic merge patches are understood: core kinds only, as on a real API server.
    pub strategic: bool,
    /// How lists are merged, by the path of what holds them. A list that is not named is replaced whole.
    pub lists: &'static [(&'static str, &'static [List])],
    /// Fields that must be there and not empty; `[]` after a list stands for each of its items.
    pub required: &'static [&'static str],
    /// Fields that cannot change once they are set.
    pub immutable: &'static [&'static str],
    /// Rules between fields.
    pub rules: fn(&Value) -> Vec<FieldError>,
    /// Rules between an object and what it is to become.
    pub changes: fn(&Value, &Value) -> Vec<FieldError>,
    /// What a name must look like.
    pub name: NameRule,
    /// The name of its schema.
    pub schema: &'static str,
    /// Fills in what a new object starts with.
    pub initial: fn(&mut Value),
    /// Fills in, at every write, what clients rely on to be there.
    pub defaults: fn(&mut Value),
    /// The kind under which it is stored, if it is another view of that kind, and its names of that kind's fields.
    pub view: Option<View>,
}

/// What `metadata.generation` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The kind has none.
    Never,
    /// Changes outside `metadata` and `status`.
    Spec,
    /// Changes outside `metadata`: kinds without a status subresource.
    Content,
}

/// What a name must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// Labels of letters, digits and `-`, joined by dots, 253 characters (DNS-1123 subdomain).
    Subdomain,
    /// Letters, digits and `-`, 63 characters (DNS-1123 label).
    Label,
    /// As a label, but starting with a letter (DNS-1035 label).
    Service,
}

/// Where the `scale` subresource reads and writes; dotted paths.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Replicas wanted.
    pub spec: &'static str,
    /// Replicas counted.
    pub status: &'static str,
    /// Label selector: a string, or a LabelSelector.
    pub selector: &'static str,
}

/// A kind that shows the objects of another under other field names.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The kind that is stored.
    pub of: &'static Kind,
    /// Top-level fields: name here, name there.
    pub names: &'static [(&'static str, &'static str)],
}

/// How a list is merged.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// Where it stands below its holder; dotted, list items left out.
    pub path: &'static str,
    /// By a strategic merge patch.
    pub patch: ListPatch,
    /// By server-side apply.
    pub apply: ListApply,
}

/// How a strategic merge patch treats a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListPatch {
    /// Items are matched by this field.
    Key(&'static str),
    /// Values are added.
    Values,
    /// The list is replaced.
    Replace,
}

/// How server-side apply treats a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListApply {
    /// Items are matched by these fields.
    Map(&'static [&'static str]),
    /// Values are items.
    Set,
    /// The list is one value.
    Atomic,
}

impl Kind {
    const fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        singular: &'static str,
        schema: &'static str,
    ) -> Self {
        Self {
            group,
            version,
            kind,
            plural,
            singular,
            short_names: &[],
            categories: &[],
            namespaced: true,
            status: false,
            scale: None,
            log: false,
            generation: Generation::Never,
            columns: table::PLAIN,
            selectable: &[],
            strategic: true,
            lists: &[("metadata", METADATA)],
            required: &[],
            immutable: &[],
            rules: strict::no_rules,
            changes: strict::any_change,
            name: NameRule::Subdomain,
            schema,
            initial: defaults::none,
            defaults: defaults::none,
            view: None,
        }
    }

    /// A kind that a CustomResourceDefinition would bring on a real cluster.
    const fn custom(
        group: &'static str,
        kind: &'static str,
        plural: &'static str,
        singular: &'static str,
        schema: &'static str,
    ) -> Self {
        Self {
            strategic: false,
            generation: Generation::Content,
            ..Self::new(group, "v1alpha1", kind, plural, singular, schema)
        }
    }

    /// `group/version`, or the version alone in the core.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `plural.group`, or the plural alone in the core: how messages name the kind.
    pub fn resource(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// The kind under which its objects are stored: itself, unless it is a view.
    pub fn stored(&'static self) -> &'static Self {
        self.view.map_or(self, |view| view.of)
    }

    /// An object as this kind shows it.
    pub(super) fn shown(&self, object: &Object) -> Object {
        self.view.map_or_else(
            || Arc::clone(object),
            |view| {
                let rename = |key: &str| {
                    view.names
                        .iter()
                        .find(|(_, there)| *there == key)
                        .map_or_else(|| key.to_owned(), |(here, _)| (*here).to_owned())
                };
                Arc::new(self.renamed(object, rename))
            },
        )
    }

    /// An object of this kind as it is stored.
    pub(super) fn hidden(&self, object: Value) -> Value {
        match self.view {
            None => object,
            Some(view) => {
                let rename = |key: &str| {
                    view.names
                        .iter()
                        .find(|(here, _)| *here == key)
                        .map_or_else(|| key.to_owned(), |(_, there)| (*there).to_owned())
                };
                view.of.renamed(&object, rename)
            }
        }
    }

    fn renamed(&self, object: &Value, rename: impl Fn(&str) -> String) -> Value {
        let fields = object.as_object().into_iter().flatten();
        let mut renamed: Value = fields
            .map(|(key, value)| (rename(key), value.clone()))
            .collect();
        renamed["apiVersion"] = Value::from(self.api_version());
        renamed["kind"] = Value::from(self.kind);
        renamed
    }

    /// How the list at a path of field names (list items left out) is merged, if it is.
    pub fn list_at(&self, path: &str) -> Option<&'static List> {
        self.lists.iter().find_map(|(holder, lists)| {
            let below = match *holder {
                "" => path,
                holder => path.strip_prefix(holder)?.strip_prefix('.')?,
            };
            lists.iter().find(|list| list.path == below)
        })
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        (self.group, self.version, self.kind) == (other.group, other.version, other.kind)
    }
}

impl Eq for Kind {}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.resource())
    }
}

/// The kind at a path.
pub fn at(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    ALL.iter()
        .copied()
        .find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}

/// The kind that an object's `apiVersion` and `kind` name.
pub fn named(api_version: &str, kind: &str) -> Option<&'static Kind> {
    ALL.iter()
        .copied()
        .find(|row| row.kind == kind && row.api_version() == api_version)
}

/// The kind of a typed object.
pub fn of<K: kube::Resource<DynamicType = ()>>() -> Option<&'static Kind> {
    named(&K::api_version(&()), &K::kind(&()))
}

/// Checks an object as `fieldValidation=Strict` does: every field is known and of its type, and what is required is there.
///
/// # Errors
/// All complaints, each with the path of its field.
pub fn check(object: &Value) -> Result<(), Vec<FieldError>> {
    let word = |key: &str| object[key].as_str().unwrap_or_default();
    let Some(kind) = named(word("apiVersion"), word("kind")) else {
        let path = if word("kind").is_empty() {
            "kind"
        } else {
            "apiVersion"
        };
        let message = format!(
            "no kind {:?} in {:?} here",
            word("kind"),
            word("apiVersion")
        );
        return Err(vec![FieldError::new(path, Problem::Unsupported, message)]);
    };
    let mut errors = schema::check(kind, object);
    errors.extend(strict::validate(kind, object));
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

const fn keyed(path: &'static str, key: &'static str, keys: &'static [&'static str]) -> List {
    List {
        path,
        patch: ListPatch::Key(key),
        apply: ListApply::Map(keys),
    }
}

const fn values(path: &'static str) -> List {
    List {
        path,
        patch: ListPatch::Values,
        apply: ListApply::Set,
    }
}

const METADATA: &[List] = &[
    values("finalizers"),
    keyed("ownerReferences", "uid", &["uid"]),
];

/// Keys as in the Kubernetes types' `patchMergeKey` and `+listMapKey` of 1.33.
const POD_SPEC: &[List] = &[
    keyed("containers", "name", &["name"]),
    keyed("containers.env", "name", &["name"]),
    keyed(
        "containers.ports",
        "containerPort",
        &["containerPort", "protocol"],
    ),
    keyed("containers.volumeMounts", "mountPath", &["mountPath"]),
    keyed("containers.volumeDevices", "devicePath", &["devicePath"]),
    keyed("initContainers", "name", &["name"]),
    keyed("initContainers.env", "name", &["name"]),
    keyed(
        "initContainers.ports",
        "containerPort",
        &["containerPort", "protocol"],
    ),
    keyed("initContainers.volumeMounts", "mountPath", &["mountPath"]),
    keyed(
        "initContainers.volumeDevices",
        "devicePath",
        &["devicePath"],
    ),
    keyed("ephemeralContainers", "name", &["name"]),
    keyed("ephemeralContainers.env", "name", &["name"]),
    keyed(
        "ephemeralContainers.ports",
        "containerPort",
        &["containerPort", "protocol"],
    ),
    keyed(
        "ephemeralContainers.volumeMounts",
        "mountPath",
        &["mountPath"],
    ),
    keyed(
        "ephemeralContainers.volumeDevices",
        "devicePath",
        &["devicePath"],
    ),
    keyed("volumes", "name", &["name"]),
    keyed("imagePullSecrets", "name", &["name"]),
    keyed("hostAliases", "ip", &["ip"]),
    keyed("resourceClaims", "name", &["name"]),
    keyed("schedulingGates", "name", &["name"]),
    keyed(
        "topologySpreadConstraints",
        "topologyKey",
        &["topologyKey", "whenUnsatisfiable"],
    ),
];

const CONDITIONS: List = keyed("conditions", "type", &["type"]);

const WORKLOAD: &[(&str, &[List])] = &[
    ("metadata", METADATA),
    ("spec.template.metadata", METADATA),
    ("spec.template.spec", POD_SPEC),
    ("status", &[CONDITIONS]),
];

const EXPERIMENT_LISTS: &[(&str, &[List])] = &[
    ("metadata", METADATA),
    ("spec.templates.template.metadata", METADATA),
    ("spec.templates.template.spec", POD_SPEC),
];

/// `v1` Namespace.
pub static NAMESPACE: Kind = Kind {
    columns: table::NAMESPACES,
    short_names: &["ns"],
    namespaced: false,
    status: true,
    name: NameRule::Label,
    selectable: &["status.phase"],
    initial: defaults::new_namespace,
    defaults: defaults::namespace,
    ..Kind::new(
        "",
        "v1",
        "Namespace",
        "namespaces",
        "namespace",
        "io.k8s.api.core.v1.Namespace",
    )
};

/// `v1` Pod.
pub static POD: Kind = Kind {
    columns: table::PODS,
    short_names: &["po"],
    categories: &["all"],
    status: true,
    log: true,
    selectable: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.nominatedNodeName",
        "status.phase",
        "status.podIP",
    ],
    lists: &[
        ("metadata", METADATA),
        ("spec", POD_SPEC),
        (
            "status",
            &[
                CONDITIONS,
                keyed("podIPs", "ip", &["ip"]),
                keyed("hostIPs", "ip", &["ip"]),
            ],
        ),
    ],
    required: &[
        "spec.containers",
        "spec.containers[].name",
        "spec.containers[].image",
    ],
    changes: strict::pod_change,
    initial: defaults::new_pod,
    defaults: defaults::pod,
    ..Kind::new("", "v1", "Pod", "pods", "pod", "io.k8s.api.core.v1.Pod")
};

/// `v1` Service.
pub static SERVICE: Kind = Kind {
    columns: table::SERVICES,
    short_names: &["svc"],
    categories: &["all"],
    status: true,
    name: NameRule::Service,
    selectable: &["spec.clusterIP", "spec.type"],
    lists: &[
        ("metadata", METADATA),
        ("spec", &[keyed("ports", "port", &["port", "protocol"])]),
        ("status", &[CONDITIONS]),
    ],
    required: &["spec", "spec.ports[].port"],
    rules: strict::has_ports,
    defaults: defaults::service,
    ..Kind::new(
        "",
        "v1",
        "Service",
        "services",
        "service",
        "io.k8s.api.core.v1.Service",
    )
};

/// `v1` ConfigMap.
pub static CONFIG_MAP: Kind = Kind {
    columns: table::CONFIG_MAPS,
    short_names: &["cm"],
    ..Kind::new(
        "",
        "v1",
        "ConfigMap",
        "configmaps",
        "configmap",
        "io.k8s.api.core.v1.ConfigMap",
    )
};

/// `v1` Secret.
pub static SECRET: Kind = Kind {
    columns: table::SECRETS,
    selectable: &["type"],
    immutable: &["type"],
    defaults: defaults::secret,
    ..Kind::new(
        "",
        "v1",
        "Secret",
        "secrets",
        "secret",
        "io.k8s.api.core.v1.Secret",
    )
};

/// `v1` ServiceAccount.
pub static SERVICE_ACCOUNT: Kind = Kind {
    columns: table::SERVICE_ACCOUNTS,
    short_names: &["sa"],
    lists: &[
        ("metadata", METADATA),
        (
            "",
            &[
                keyed("secrets", "name", &["name"]),
                keyed("imagePullSecrets", "name", &["name"]),
            ],
        ),
    ],
    ..Kind::new(
        "",
        "v1",
        "ServiceAccount",
        "serviceaccounts",
        "serviceaccount",
        "io.k8s.api.core.v1.ServiceAccount",
    )
};

/// `v1` Event, as `kubectl` reads it.
pub static EVENT: Kind = Kind {
    columns: table::EVENTS,
    short_names: &["ev"],
    selectable: &[
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.resourceVersion",
        "involvedObject.uid",
        "reason",
        "reportingComponent",
        "type",
    ],
    required: &["involvedObject"],
    ..Kind::new(
        "",
        "v1",
        "Event",
        "events",
        "event",
        "io.k8s.api.core.v1.Event",
    )
};

/// `events.k8s.io/v1` Event, as controllers write it: the same objects under other names.
pub static EVENTS_EVENT: Kind = Kind {
    columns: table::EVENTS,
    short_names: &["ev"],
    selectable: &[
        "reason",
        "regarding.apiVersion",
        "regarding.fieldPath",
        "regarding.kind",
        "regarding.name",
        "regarding.namespace",
        "regarding.resourceVersion",
        "regarding.uid",
        "reportingController",
        "type",
    ],
    required: &["eventTime"],
    view: Some(View {
        of: &EVENT,
        names: &[
            ("deprecatedCount", "count"),
            ("deprecatedFirstTimestamp", "firstTimestamp"),
            ("deprecatedLastTimestamp", "lastTimestamp"),
            ("deprecatedSource", "source"),
            ("note", "message"),
            ("regarding", "involvedObject"),
            ("reportingController", "reportingComponent"),
        ],
    }),
    ..Kind::new(
        "events.k8s.io",
        "v1",
        "Event",
        "events",
        "event",
        "io.k8s.api.events.v1.Event",
    )
};

/// `apps/v1` Deployment.
pub static DEPLOYMENT: Kind = Kind {
    columns: table::DEPLOYMENTS,
    short_names: &["deploy"],
    categories: &["all"],
    status: true,
    scale: Some(Scale {
        spec: "spec.replicas",
        status: "status.replicas",
        selector: "spec.selector",
    }),
    generation: Generation::Spec,
    lists: WORKLOAD,
    required: &[
        "spec",
        "spec.selector",
        "spec.template",
        "spec.template.spec.containers",
        "spec.template.spec.containers[].name",
        "spec.template.spec.containers[].image",
    ],
    immutable: &["spec.selector"],
    rules: strict::selects_own_template,
    defaults: defaults::deployment,
    ..Kind::new(
        "apps",
        "v1",
        "Deployment",
        "deployments",
        "deployment",
        "io.k8s.api.apps.v1.Deployment",
    )
};

/// `apps/v1` ReplicaSet.
pub static REPLICA_SET: Kind = Kind {
    columns: table::REPLICA_SETS,
    short_names: &["rs"],
    categories: &["all"],
    status: true,
    scale: Some(Scale {
        spec: "spec.replicas",
        status: "status.replicas",
        selector: "spec.selector",
    }),
    generation: Generation::Spec,
    selectable: &["status.replicas"],
    lists: WORKLOAD,
    required: &[
        "spec",
        "spec.selector",
        "spec.template.spec.containers",
        "spec.template.spec.containers[].name",
        "spec.template.spec.containers[].image",
    ],
    immutable: &["spec.selector"],
    rules: strict::selects_own_template,
    defaults: defaults::replica_set,
    ..Kind::new(
        "apps",
        "v1",
        "ReplicaSet",
        "replicasets",
        "replicaset",
        "io.k8s.api.apps.v1.ReplicaSet",
    )
};

/// `batch/v1` Job.
pub static JOB: Kind = Kind {
    columns: table::JOBS,
    categories: &["all"],
    status: true,
    generation: Generation::Spec,
    lists: WORKLOAD,
    required: &[
        "spec",
        "spec.template",
        "spec.template.spec.containers",
        "spec.template.spec.containers[].name",
        "spec.template.spec.containers[].image",
    ],
    immutable: &["spec.selector", "spec.template", "spec.completions"],
    initial: defaults::new_job,
    defaults: defaults::job,
    ..Kind::new(
        "batch",
        "v1",
        "Job",
        "jobs",
        "job",
        "io.k8s.api.batch.v1.Job",
    )
};

/// `discovery.k8s.io/v1` EndpointSlice.
pub static ENDPOINT_SLICE: Kind = Kind {
    columns: table::ENDPOINT_SLICES,
    generation: Generation::Content,
    required: &["addressType", "endpoints[].addresses"],
    immutable: &["addressType"],
    defaults: defaults::endpoint_slice,
    ..Kind::new(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        "endpointslice",
        "io.k8s.api.discovery.v1.EndpointSlice",
    )
};

/// `coordination.k8s.io/v1` Lease.
pub static LEASE: Kind = Kind {
    columns: table::LEASES,
    ..Kind::new(
        "coordination.k8s.io",
        "v1",
        "Lease",
        "leases",
        "lease",
        "io.k8s.api.coordination.v1.Lease",
    )
};

/// `networking.k8s.io/v1` Ingress.
pub static INGRESS: Kind = Kind {
    columns: table::INGRESSES,
    short_names: &["ing"],
    status: true,
    generation: Generation::Spec,
    ..Kind::new(
        "networking.k8s.io",
        "v1",
        "Ingress",
        "ingresses",
        "ingress",
        "io.k8s.api.networking.v1.Ingress",
    )
};

/// `argoproj.io/v1alpha1` Rollout.
pub static ROLLOUT: Kind = Kind {
    columns: table::ROLLOUTS,
    short_names: &["ro"],
    status: true,
    scale: Some(Scale {
        spec: "spec.replicas",
        status: "status.HPAReplicas",
        selector: "status.selector",
    }),
    generation: Generation::Spec,
    lists: &[
        ("metadata", METADATA),
        ("spec.template.metadata", METADATA),
        ("spec.template.spec", POD_SPEC),
    ],
    immutable: &["spec.selector"],
    defaults: defaults::rollout,
    ..Kind::custom(
        "argoproj.io",
        "Rollout",
        "rollouts",
        "rollout",
        "io.argoproj.v1alpha1.Rollout",
    )
};

/// `argoproj.io/v1alpha1` AnalysisTemplate.
pub static ANALYSIS_TEMPLATE: Kind = Kind {
    short_names: &["at"],
    ..Kind::custom(
        "argoproj.io",
        "AnalysisTemplate",
        "analysistemplates",
        "analysistemplate",
        "io.argoproj.v1alpha1.AnalysisTemplate",
    )
};

/// `argoproj.io/v1alpha1` ClusterAnalysisTemplate.
pub static CLUSTER_ANALYSIS_TEMPLATE: Kind = Kind {
    short_names: &["cat"],
    namespaced: false,
    ..Kind::custom(
        "argoproj.io",
        "ClusterAnalysisTemplate",
        "clusteranalysistemplates",
        "clusteranalysistemplate",
        "io.argoproj.v1alpha1.ClusterAnalysisTemplate",
    )
};

/// `argoproj.io/v1alpha1` AnalysisRun. As in Argo it has no status subresource.
pub static ANALYSIS_RUN: Kind = Kind {
    columns: table::PHASED,
    short_names: &["ar"],
    ..Kind::custom(
        "argoproj.io",
        "AnalysisRun",
        "analysisruns",
        "analysisrun",
        "io.argoproj.v1alpha1.AnalysisRun",
    )
};

/// `argoproj.io/v1alpha1` Experiment. As in Argo it has no status subresource.
pub static EXPERIMENT: Kind = Kind {
    columns: table::PHASED,
    short_names: &["exp"],
    lists: EXPERIMENT_LISTS,
    ..Kind::custom(
        "argoproj.io",
        "Experiment",
        "experiments",
        "experiment",
        "io.argoproj.v1alpha1.Experiment",
    )
};

/// `sidestep.dev/v1alpha1` Split.
pub static SPLIT: Kind = Kind {
    columns: table::SPLITS,
    status: true,
    generation: Generation::Spec,
    ..Kind::custom(
        "sidestep.dev",
        "Split",
        "splits",
        "split",
        "dev.sidestep.v1alpha1.Split",
    )
};

/// The table: every kind that is served.
pub static ALL: &[&Kind] = &[
    &NAMESPACE,
    &POD,
    &SERVICE,
    &CONFIG_MAP,
    &SECRET,
    &SERVICE_ACCOUNT,
    &EVENT,
    &EVENTS_EVENT,
    &DEPLOYMENT,
    &REPLICA_SET,
    &JOB,
    &ENDPOINT_SLICE,
    &LEASE,
    &INGRESS,
    &ROLLOUT,
    &ANALYSIS_TEMPLATE,
    &CLUSTER_ANALYSIS_TEMPLATE,
    &ANALYSIS_RUN,
    &EXPERIMENT,
    &SPLIT,
];
