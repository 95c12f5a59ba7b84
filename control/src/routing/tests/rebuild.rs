//! A table that was patched is the table that would have been built, whatever has happened.

use kube::api::ObjectMeta;
use kube::runtime::watcher::Event;
use proptest::prelude::*;

use super::*;
use crate::cache::Cache;
use crate::routing::notice::Notice;
use crate::routing::rebuild::{Builder, Built, Objects};
use crate::routing::watch::Sources;
use crate::wire::Object;

/// Two Splits of a namespace, and one of another.
const APPS: [(&str, &str); 3] = [("default", "web"), ("default", "api"), ("shop", "web")];

/// What routing knows, and the tables that it makes of it.
struct Scene {
    sources: Sources,
    options: Options,
    builder: Builder,
    table: Table,
    notices: Vec<Notice>,
}

impl Scene {
    fn new() -> Self {
        let options = options();
        let mut scene = Self {
            sources: Sources::new(&options.attached),
            builder: Builder::new(options.clone()),
            options,
            table: Table::default(),
            notices: Vec::new(),
        };
        for (app, (_, name)) in APPS.iter().enumerate() {
            scene.service(app, "", http());
            for version in ["-stable", "-canary", "-next"] {
                scene.revision(app, version, Some(80));
                scene.slice(app, version, Some(1));
            }
            let own = Written {
                canary: format!("{name}-canary"),
                services: vec![(*name).to_owned()],
                ..Written::default()
            };
            scene.split(app, &own);
        }
        assert_eq!(scene.turn(), "whole");
        scene
    }

    /// Makes the next table, and compares it with the one made of everything. Returns how it was made.
    fn turn(&mut self) -> &'static str {
        let changes = self.sources.journal.take();
        let how = match self.builder.build(&changes, &self.sources) {
            None => "not",
            Some(Built::Patched(table)) => {
                self.table = table;
                "patched"
            }
            Some(Built::Whole(table, _, notices)) => {
                (self.table, self.notices) = (table, notices);
                "whole"
            }
        };
        let (table, notices) = build(&self.sources.snapshot(), &self.options);
        assert_eq!(self.table.routes(), table.routes(), "{how}");
        assert!(self.table.apexes().eq(table.apexes()), "{how}");
        let backends: Vec<_> = self.table.backends().collect();
        assert_eq!(backends, table.backends().collect::<Vec<_>>(), "{how}");
        let splits: Vec<_> = self.table.splits().collect();
        assert_eq!(splits, table.splits().collect::<Vec<_>>(), "{how}");
        assert_eq!(self.notices, notices, "{how}");
        how
    }

    fn service(&self, app: usize, suffix: &str, ports: Value) {
        let (namespace, name) = APPS[app];
        let metadata = json!({"namespace": namespace, "name": format!("{name}{suffix}")});
        let service = json!({"metadata": metadata, "spec": {"ports": ports}});
        apply(&self.sources.services, service);
    }

    fn revision(&self, app: usize, suffix: &str, target: Option<u16>) {
        let (namespace, name) = APPS[app];
        let name = format!("{name}{suffix}");
        let mut metadata = json!({"namespace": namespace, "name": name});
        metadata["labels"] = json!({labels::REVISION_OF: name});
        let ports = json!([{"name": "p", "port": 80, "targetPort": target}]);
        let service = json!({"metadata": metadata, "spec": {"ports": ports}});
        match target {
            Some(_) => apply(&self.sources.services, service),
            None => delete(&self.sources.services, service),
        }
    }

    /// Two pods, of which so many are ready; none: no slice.
    fn slice(&self, app: usize, suffix: &str, ready: Option<usize>) {
        let (namespace, name) = APPS[app];
        let name = format!("{name}{suffix}");
        let labels = json!({"kubernetes.io/service-name": name});
        let endpoint = |pod: usize| {
            let address = [app, suffix.len(), pod];
            json!({
                "addresses": [format!("10.{}.{}.{}", address[0], address[1], address[2])],
                "conditions": {"ready": ready.is_some_and(|ready| pod < ready)},
                "targetRef": {"kind": "Pod", "uid": format!("{app}{suffix}-{pod}")},
            })
        };
        let slice = json!({
            "metadata": {"namespace": namespace, "name": format!("{name}-1"), "labels": labels},
            "addressType": "IPv4", "ports": [{"name": "p", "port": 8080}], "endpoints": [endpoint(0), endpoint(1)],
        });
        match ready {
            Some(_) => apply(&self.sources.slices, slice),
            None => delete(&self.sources.slices, slice),
        }
    }

    fn split(&self, app: usize, written: &Written) {
        let (namespace, name) = APPS[app];
        let metadata = json!({
            "namespace": namespace, "name": name, "uid": format!("uid-{app}"), "generation": written.generation,
            "creationTimestamp": EARLY,
        });
        let split = json!({"metadata": metadata, "spec": {
            "fleet": written.fleet,
            "versions": [{"name": "stable", "service": format!("{name}-stable")}, {"name": "canary", "service": written.canary, "needed": 2}],
            "rules": [{"services": written.services, "weights": {"stable": 10, "canary": written.weight}}],
        }});
        apply(&self.sources.splits, split);
    }

    fn delete_split(&self, app: usize) {
        let (namespace, name) = APPS[app];
        delete(
            &self.sources.splits,
            json!({"metadata": {"namespace": namespace, "name": name}}),
        );
    }

    /// The proxies are listed at the first pod of an app's canary.
    fn proxies(&self, app: usize) {
        let labels = json!({"kubernetes.io/service-name": "sidestep-proxy"});
        let service = json!({"metadata": {"namespace": "sidestep-system", "name": "sidestep-proxy"}, "spec": {}});
        let endpoint = json!({"addresses": [format!("10.{app}.7.0")]});
        apply(&self.sources.services, service);
        apply(
            &self.sources.slices,
            json!({
                "metadata": {"namespace": "sidestep-system", "name": "p", "labels": labels},
                "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": [endpoint],
            }),
        );
    }
}

/// What a Split says; by default that of an app called `web`.
#[derive(Clone, Debug)]
struct Written {
    generation: i64,
    fleet: String,
    canary: String,
    services: Vec<String>,
    weight: i32,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            generation: 1,
            fleet: "default".to_owned(),
            canary: "web-canary".to_owned(),
            services: vec!["web".to_owned()],
            weight: 1,
        }
    }
}

fn object(json: Value) -> Object {
    let metadata: ObjectMeta = serde_json::from_value(json["metadata"].clone()).unwrap();
    Object { metadata, json }
}

fn apply<K>(cache: &Cache<K>, json: Value)
where
    K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned,
{
    cache.take_up(Event::Apply(object(json)));
}

fn delete<K>(cache: &Cache<K>, json: Value)
where
    K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned,
{
    cache.take_up(Event::Delete(object(json)));
}

/// Something that happens to the objects.
#[derive(Clone, Debug)]
enum Happening {
    Pods(usize, &'static str, Option<usize>),
    Revision(usize, &'static str, Option<u16>),
    Service(usize, u16),
    Split(usize, Written),
    SplitGone(usize),
    Proxies(usize),
    /// An object that does not parse, or one that does again.
    Slice(bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    let app = || 0..APPS.len();
    let version = || prop::sample::select(vec!["-stable", "-canary", "-next", ""]);
    let written = (
        1_i64..4,
        prop::sample::select(vec!["default", "default", "default", "edge"]),
        prop::sample::select(vec!["web-canary", "web-next", "api-stable", "nowhere"]),
        prop::sample::select(vec!["web", "api", "web api", "web lost"]),
        -1_i32..5,
    );
    let written = written.prop_map(|(generation, fleet, canary, services, weight)| Written {
        generation,
        fleet: fleet.to_owned(),
        canary: canary.to_owned(),
        services: services.split(' ').map(str::to_owned).collect(),
        weight,
    });
    prop_oneof![
        6 => (app(), version(), prop::option::of(0_usize..3)).prop_map(|(a, v, r)| Happening::Pods(a, v, r)),
        2 => (app(), version(), prop::option::of(79_u16..81)).prop_filter("the called Service is no revision's", |(_, v, _)| !v.is_empty())
            .prop_map(|(a, v, p)| Happening::Revision(a, v, p)),
        1 => (app(), 80_u16..83).prop_map(|(a, p)| Happening::Service(a, p)),
        6 => (app(), written).prop_map(|(a, w)| Happening::Split(a, w)),
        1 => app().prop_map(Happening::SplitGone),
        1 => app().prop_map(Happening::Proxies),
        1 => any::<bool>().prop_map(Happening::Slice),
    ]
}

fn happen(scene: &Scene, happening: &Happening) {
    match happening {
        Happening::Pods(app, version, ready) => scene.slice(*app, version, *ready),
        Happening::Revision(app, version, target) => scene.revision(*app, version, *target),
        Happening::Service(app, port) => {
            let port = json!([{"name": "http", "port": port, "targetPort": 80}]);
            scene.service(*app, "", port);
        }
        Happening::Split(app, written) => scene.split(*app, written),
        Happening::SplitGone(app) => scene.delete_split(*app),
        Happening::Proxies(app) => scene.proxies(*app),
        Happening::Slice(parses) => {
            let endpoints = if *parses { json!([]) } else { json!(7) };
            let metadata = json!({"namespace": "default", "name": "odd"});
            let slice =
                json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints});
            apply(&scene.sources.slices, slice);
        }
    }
}

proptest! {
    #[test]
    fn a_patched_table_is_the_one_that_would_be_built(happenings in prop::collection::vec(happening(), 1..40)) {
        let mut scene = Scene::new();
        for happening in &happenings {
            happen(&scene, happening);
            scene.turn();
        }
    }
}

#[test]
fn what_happens_in_a_rollout_is_patched_in() {
    let mut scene = Scene::new();
    scene.slice(0, "-canary", Some(2));
    assert_eq!(scene.turn(), "patched", "a pod becomes ready");
    let written = Written {
        generation: 2,
        weight: 3,
        ..Written::default()
    };
    scene.split(0, &written);
    scene.split(2, &written);
    assert_eq!(scene.turn(), "patched", "weights move");
    let next = Written {
        generation: 3,
        canary: "web-next".to_owned(),
        ..written
    };
    scene.split(0, &next);
    assert_eq!(scene.turn(), "patched", "another revision");
    scene.revision(0, "-canary", None);
    scene.slice(0, "-canary", None);
    assert_eq!(scene.turn(), "not", "what no Split names any more");
    scene.slice(0, "-next", Some(0));
    assert_eq!(scene.turn(), "patched", "what it names now");
    scene.service(0, "", json!([{"port": 81}]));
    assert_eq!(scene.turn(), "whole", "other routes");
}

#[test]
fn what_no_table_shows_makes_none() {
    let mut scene = Scene::new();
    scene.slice(0, "-canary", Some(1));
    assert_eq!(scene.turn(), "not", "as it was");
    let (namespace, name) = APPS[0];
    let metadata = json!({"namespace": namespace, "name": name});
    let spec = json!({"ports": http(), "selector": {"rollouts-pod-template-hash": "next"}});
    apply(
        &scene.sources.services,
        json!({"metadata": metadata, "spec": spec}),
    );
    assert_eq!(
        scene.turn(),
        "not",
        "whom a Service selects: its slices say who that is"
    );
    let metadata = json!({"namespace": "default", "name": "web-apex", "labels": {
        "kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "sidestep.dev",
    }});
    let ours = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": [{"addresses": ["10.9.9.9"]}]});
    apply(&scene.sources.slices, ours);
    assert_eq!(scene.turn(), "not", "our own slice of an apex");
    let elsewhere = Written {
        fleet: "edge".to_owned(),
        services: vec!["elsewhere".to_owned()],
        ..Written::default()
    };
    scene.split(1, &elsewhere);
    scene.turn();
    let moved = Written {
        generation: 2,
        weight: 4,
        ..elsewhere
    };
    scene.split(1, &moved);
    assert_eq!(scene.turn(), "not", "a Split of another fleet");
}
