//! Routers of others in `trafficRouting` (control-plane rules, section 7): the objects each block names, the Services that are split in
//! its stead, and whether it is translated or waited for. A block of ours beside one of others carries the traffic.

use std::fmt;

use serde_json::Value;

use super::strategy::is_ours;
use crate::api::rollout::{PLUGIN, Rollout, TrafficRouting};

/// What becomes of the blocks of other routers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Foreign {
    /// There are none that count.
    #[default]
    None,
    /// Our proxies carry them out, since nothing that they name exists; in words.
    Translated(String),
    /// They carry the traffic: the rollout waits. In words, with the object's name.
    Live(String),
}

/// An object that belongs to another router.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouterObject {
    /// Key of the block that names it: `istio`.
    pub router: String,
    /// Its kind.
    pub kind: &'static Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A kind of such objects.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    /// `VirtualService`
    pub name: &'static str,
    /// `virtualservices`
    pub plural: &'static str,
    /// Group and version it may be served under, the newest first.
    pub versions: &'static [&'static str],
}

impl fmt::Display for RouterObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            namespace,
            name,
            ..
        } = self;
        write!(f, "{} \"{namespace}/{name}\"", kind.name)
    }
}

/// The objects that blocks of others name, where no block of ours stands beside them.
#[must_use]
pub fn named(rollout: &Rollout) -> Vec<RouterObject> {
    let Some(routing) = blocks(rollout) else {
        return Vec::new();
    };
    let own = |text: &Option<String>| text.clone().unwrap_or_default();
    let namespace = own(&rollout.metadata.namespace);
    let mut found = Vec::new();
    for (router, block) in &routing.others {
        for (kind, name) in objects(router, block, &own(&rollout.metadata.name)) {
            let (name, namespace) = match name.split_once('.') {
                // Istio's way to name one of another namespace.
                Some((name, other)) if router == "istio" && !other.contains('.') => (name, other),
                Some(_) | None => (name.as_str(), namespace.as_str()),
            };
            found.push(RouterObject {
                router: router.clone(),
                kind,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            });
        }
    }
    found
}

/// The Services that blocks of others split beside the stable one: `rootService` of `alb` and `smi`.
#[must_use]
pub fn root_services(routing: &TrafficRouting) -> Vec<String> {
    let roots = ["alb", "smi"].iter().filter_map(|router| {
        let root = routing.others.get(*router)?["rootService"].as_str()?;
        Some(root.to_owned()).filter(|root| !root.is_empty())
    });
    let mut roots: Vec<String> = roots.collect();
    roots.dedup();
    roots
}

/// What becomes of the blocks of others, given those of their objects that are live.
pub(super) fn judge(rollout: &Rollout, live: &[RouterObject]) -> Foreign {
    let Some(routing) = blocks(rollout) else {
        return Foreign::None;
    };
    let field = "spec.strategy.canary.trafficRouting";
    if let Some(object) = live.first() {
        return Foreign::Live(format!(
            "{object} of {field}.{} carries the traffic; delete it, or add plugins[{PLUGIN}] to the block, so that the rollout goes on",
            object.router
        ));
    }
    if let Some(plugin) = routing.plugins.iter().flatten().next() {
        return Foreign::Live(format!(
            "plugin {:?} of {field} is not known and may carry the traffic; add plugins[{PLUGIN}] to the block, so that the rollout goes on",
            plugin.0
        ));
    }
    let blocks: Vec<&str> = routing.others.keys().map(String::as_str).collect();
    Foreign::Translated(format!(
        "{field}.{} is carried out by Sidestep's proxies: nothing that it names exists",
        blocks.join(", ")
    ))
}

/// `trafficRouting`, where it is for others to carry out.
fn blocks(rollout: &Rollout) -> Option<&TrafficRouting> {
    let routing = rollout
        .spec
        .strategy
        .canary
        .as_ref()?
        .traffic_routing
        .as_ref()?;
    (!is_ours(routing)).then_some(routing)
}

/// Whether there is such a router; a key that is none is a slip of the pen.
pub(super) fn is_known(router: &str) -> bool {
    KNOWN.contains(&router)
}

const KNOWN: [&str; 8] = [
    "alb",
    "ambassador",
    "apisix",
    "appMesh",
    "istio",
    "nginx",
    "smi",
    "traefik",
];

fn objects(router: &str, block: &Value, rollout: &str) -> Vec<(&'static Kind, String)> {
    let one = |path: &str| block.pointer(path).and_then(Value::as_str).into_iter();
    let many = |path: &str| {
        let list = block.pointer(path).and_then(Value::as_array);
        let name = |item: &Value| {
            item.as_str()
                .or_else(|| item["name"].as_str())
                .map(str::to_owned)
        };
        list.into_iter().flatten().filter_map(name)
    };
    let all = |kind: &'static Kind, single: &str, list: &str| -> Vec<_> {
        let names = one(single).map(str::to_owned).chain(many(list));
        names.map(|name| (kind, name)).collect()
    };
    match router {
        "istio" => [
            all(&VIRTUAL_SERVICE, "/virtualService/name", "/virtualServices"),
            all(&DESTINATION_RULE, "/destinationRule/name", ""),
        ]
        .concat(),
        "nginx" => all(&INGRESS, "/stableIngress", "/stableIngresses"),
        "alb" => all(&INGRESS, "/ingress", "/ingresses"),
        "smi" => {
            let name = one("/trafficSplitName").next().unwrap_or(rollout);
            vec![(&TRAFFIC_SPLIT, name.to_owned())]
        }
        "traefik" => all(&TRAEFIK_SERVICE, "/weightedTraefikServiceName", ""),
        "ambassador" => all(&MAPPING, "", "/mappings"),
        "apisix" => all(&APISIX_ROUTE, "/route/name", ""),
        "appMesh" => all(&MESH_SERVICE, "/virtualService/name", ""),
        _ => Vec::new(),
    }
}

static VIRTUAL_SERVICE: Kind = Kind {
    name: "VirtualService",
    plural: "virtualservices",
    versions: &[
        "networking.istio.io/v1",
        "networking.istio.io/v1beta1",
        "networking.istio.io/v1alpha3",
    ],
};
static DESTINATION_RULE: Kind = Kind {
    name: "DestinationRule",
    plural: "destinationrules",
    versions: VIRTUAL_SERVICE.versions,
};
static INGRESS: Kind = Kind {
    name: "Ingress",
    plural: "ingresses",
    versions: &["networking.k8s.io/v1"],
};
static TRAFFIC_SPLIT: Kind = Kind {
    name: "TrafficSplit",
    plural: "trafficsplits",
    versions: &[
        "split.smi-spec.io/v1alpha3",
        "split.smi-spec.io/v1alpha2",
        "split.smi-spec.io/v1alpha1",
    ],
};
static TRAEFIK_SERVICE: Kind = Kind {
    name: "TraefikService",
    plural: "traefikservices",
    versions: &["traefik.io/v1alpha1", "traefik.containo.us/v1alpha1"],
};
static MAPPING: Kind = Kind {
    name: "Mapping",
    plural: "mappings",
    versions: &[
        "getambassador.io/v3alpha1",
        "getambassador.io/v2",
        "x.getambassador.io/v3alpha1",
    ],
};
static APISIX_ROUTE: Kind = Kind {
    name: "ApisixRoute",
    plural: "apisixroutes",
    versions: &["apisix.apache.org/v2", "apisix.apache.org/v2beta3"],
};
static MESH_SERVICE: Kind = Kind {
    name: "VirtualService",
    plural: "virtualservices",
    versions: &["appmesh.k8s.aws/v1beta2"],
};

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "cases are written in place")]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(routing: Value, objects: &[&str], roots: &[&str]) {
        let rollout: Rollout = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"strategy": {"canary": {"trafficRouting": routing}}},
        }))
        .unwrap();
        let found: Vec<String> = named(&rollout).iter().map(ToString::to_string).collect();
        assert_eq!(found, objects, "{routing}");
        let canary = rollout.spec.strategy.canary.unwrap();
        assert_eq!(
            root_services(&canary.traffic_routing.unwrap()),
            roots,
            "{routing}"
        );
    }

    #[test]
    fn every_block_names_its_objects() {
        check(
            json!({"istio": {"virtualService": {"name": "my-app", "routes": ["r"]}, "destinationRule": {"name": "d"}}}),
            &[
                r#"VirtualService "shop/my-app""#,
                r#"DestinationRule "shop/d""#,
            ],
            &[],
        );
        check(
            json!({"istio": {"virtualServices": [{"name": "a"}, {"name": "b.mesh"}]}}),
            &[r#"VirtualService "shop/a""#, r#"VirtualService "mesh/b""#],
            &[],
        );
        check(
            json!({"nginx": {"stableIngresses": ["a", "b.c"]}, "alb": {"ingress": "x", "rootService": "root"}}),
            &[
                r#"Ingress "shop/a""#,
                r#"Ingress "shop/b.c""#,
                r#"Ingress "shop/x""#,
            ],
            &["root"],
        );
        check(json!({"smi": {}}), &[r#"TrafficSplit "shop/web""#], &[]);
        check(
            json!({"smi": {"trafficSplitName": "s", "rootService": "root"}}),
            &[r#"TrafficSplit "shop/s""#],
            &["root"],
        );
        check(
            json!({"traefik": {"weightedTraefikServiceName": "t"}}),
            &[r#"TraefikService "shop/t""#],
            &[],
        );
        check(
            json!({"ambassador": {"mappings": ["m"]}}),
            &[r#"Mapping "shop/m""#],
            &[],
        );
        check(
            json!({"apisix": {"route": {"name": "r"}}}),
            &[r#"ApisixRoute "shop/r""#],
            &[],
        );
        check(
            json!({"appMesh": {"virtualService": {"name": "v"}}}),
            &[r#"VirtualService "shop/v""#],
            &[],
        );
        check(
            json!({"istio": {}, "plugins": {"sidestep/proxy": {}}}),
            &[],
            &[],
        );
    }
}
