//! ConfigMaps as files of a pod that runs as a process: its process sees a folder where its container mounts one. As they are when the
//! process starts; other volumes have no effect.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use sidestep_control::local::pods::cluster::{News, PodName};
use sidestep_control::local::store::Object;

use super::enclave;

/// Pods that mount ConfigMaps.
#[derive(Default)]
pub(super) struct Volumes(Mutex<BTreeMap<PodName, Object>>);

impl Volumes {
    /// Takes note of pods.
    pub(super) fn admit(&self, news: &News) {
        let pods = match news {
            News::Pods(pods) => pods.as_slice(),
            News::Pod(pod) => std::slice::from_ref(pod),
            News::Gone(_) | News::Configuration => &[],
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mounting = pods.iter().filter(|pod| !mounts(pod).is_empty());
        known.extend(mounting.map(|pod| (PodName::of(pod), pod.clone())));
    }

    /// What a pod's command begins with so that it sees its files. Panics where a ConfigMap is not there.
    pub(super) fn prefix(
        &self,
        name: &PodName,
        find: impl Fn(&str) -> Option<Object>,
    ) -> Vec<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mounts = known.get(name).map(|pod| mounts(pod)).unwrap_or_default();
        let prefix = mounts.iter().enumerate().flat_map(|(index, mount)| {
            let map = find(&mount.config_map);
            let map = map.unwrap_or_else(|| panic!("ConfigMap {} is not there", mount.config_map));
            let folder = enclave::folder().join(format!("volumes/{}-{index}", name.uid));
            mount.write(&map, &folder);
            let folder = folder.to_str().unwrap().to_owned();
            [
                "unshare",
                "--mount",
                "sh",
                "-euc",
                SEE,
                "sh",
                &folder,
                &mount.path,
            ]
            .map(str::to_owned)
        });
        prefix.collect()
    }
}

/// Mounts `$1` at `$2` and becomes what follows.
const SEE: &str = "mount --bind \"$1\" \"$2\"; shift 2; exec \"$@\"";

/// A ConfigMap that a container mounts.
struct Mount {
    path: String,
    config_map: String,
    /// Which of its keys, and as what; none means all.
    items: Vec<(String, String)>,
}

impl Mount {
    fn write(&self, map: &Value, folder: &PathBuf) {
        std::fs::create_dir_all(folder).unwrap();
        let entries = map["data"].as_object().into_iter().flatten();
        for (key, text) in entries {
            let mut items = self.items.iter();
            let file = match items.find(|(item, _)| item == key) {
                Some((_, file)) => file,
                None if self.items.is_empty() => key,
                None => continue,
            };
            std::fs::write(folder.join(file), text.as_str().unwrap()).unwrap();
        }
    }
}

/// A pod whose mounts of ConfigMaps are set apart: the kubelet of processes knows none.
pub(super) fn opened(mut pod: Value) -> Value {
    let of_maps = config_maps(&pod);
    let container = &mut pod["spec"]["containers"][0];
    if let Some(mounted) = container["volumeMounts"].as_array_mut() {
        let (files, others) = std::mem::take(mounted)
            .into_iter()
            .partition(|mount| of_maps.contains_key(&text(&mount["name"])));
        *mounted = others;
        pod[SET_APART] = Value::Array(files);
    }
    pod
}

/// What a pod whose mounts were set apart mounts.
fn mounts(pod: &Value) -> Vec<Mount> {
    let of_maps = config_maps(pod);
    let mounted = pod[SET_APART].as_array().into_iter().flatten();
    let mount = |mounted: &Value| {
        let map = &of_maps[&text(&mounted["name"])];
        let items = map["items"].as_array().into_iter().flatten();
        let item = |item: &Value| (text(&item["key"]), text(&item["path"]));
        Mount {
            path: text(&mounted["mountPath"]),
            config_map: text(&map["name"]),
            items: items.map(item).collect(),
        }
    };
    mounted.map(mount).collect()
}

/// The volumes of a pod that are ConfigMaps, by name.
fn config_maps(pod: &Value) -> BTreeMap<String, Value> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let map = |volume: &Value| Some((text(&volume["name"]), volume.get("configMap")?.clone()));
    volumes.filter_map(map).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Where mounts are kept that were set apart.
const SET_APART: &str = "configMapMounts";
