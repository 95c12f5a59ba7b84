//! The real cluster as its kubelet has it: pods that are bound to a node are watched for, and what is said of them is written by a
//! task of each, so that a pod ends in time while the API server is away.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::ready;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ApiResource, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event as Seen};
use kube::runtime::{WatchStreamExt as _, reflector};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sidestep_control::local::environment::Source;
use sidestep_control::local::launcher::Launch;
use sidestep_control::local::notes::Tone;
use sidestep_control::local::pods::cluster::{Cluster, News, PodName};
use sidestep_control::local::podstatus::{self, Report};
use sidestep_control::local::ports::Ports;
use sidestep_control::local::store::Object;
use sidestep_control::wire::{self, Collection};
use tokio::sync::watch;
use tokio::time::sleep;

use super::accounts::Accounts;
use super::volumes::Volumes;
use super::{enclave, images, volumes};

/// The cluster.
pub(super) struct Remote {
    client: Client,
    addresses: Mutex<Addresses>,
    configuration: OnceLock<(Store<ConfigMap>, Store<Secret>)>,
    accounts: Arc<Accounts>,
    volumes: Arc<Volumes>,
    writers: Mutex<BTreeMap<PodName, watch::Sender<Word>>>,
}

/// Which pod has which address.
#[derive(Debug, Default)]
struct Addresses {
    given: BTreeMap<PodName, Ipv4Addr>,
    last: u16,
}

/// The last word about a pod.
#[derive(Clone, Debug)]
enum Word {
    /// Nothing was said yet.
    Nothing,
    /// This is how it is.
    Is(Box<Report>),
    /// Nothing of it runs any more.
    Remove,
}

impl Remote {
    pub(super) fn new(client: Client, accounts: Accounts) -> Self {
        Self {
            client,
            accounts: Arc::new(accounts),
            volumes: Arc::default(),
            addresses: Mutex::default(),
            configuration: OnceLock::new(),
            writers: Mutex::default(),
        }
    }

    /// Says something to the writer of a pod, which begins with the first word.
    fn say(&self, pod: &PodName, word: Word) {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = writers.entry(pod.clone()).or_insert_with(|| {
            let (words, heard) = watch::channel(Word::Nothing);
            tokio::spawn(write(self.client.clone(), pod.clone(), heard));
            words
        });
        writer.send_replace(word);
    }

    fn forget(&self, pod: &PodName) {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        writers.remove(pod); // What it has heard it still writes.
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        addresses.given.remove(pod);
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

impl Cluster for Remote {
    fn news(&self) -> BoxStream<'static, News> {
        let (config_maps, of_config_maps) = known(&self.client);
        let (secrets, of_secrets) = known(&self.client);
        let first = self.configuration.set((config_maps, secrets));
        assert!(first.is_ok(), "there is one kubelet");
        let bound = watcher::Config::default().fields("spec.nodeName!=");
        let pods = Collection::<Pod>::all(&self.client).events(bound);
        let pods = pods.scan(Vec::new(), |listed, event| ready(Some(news(listed, event))));
        let accounts = Arc::clone(&self.accounts);
        let volumes = Arc::clone(&self.volumes);
        let pods = pods.filter_map(ready).then(move |news| {
            volumes.admit(&news);
            let accounts = Arc::clone(&accounts);
            async move {
                accounts.admit(&news).await;
                news
            }
        });
        let pods = pods.boxed();
        stream::select_all([pods, of_config_maps, of_secrets]).boxed()
    }

    fn configuration(&self, source: Source, namespace: &str, name: &str) -> Option<Object> {
        let (config_maps, secrets) = self.configuration.get()?;
        match source {
            Source::ConfigMap => find(config_maps, namespace, name),
            Source::Secret => find(secrets, namespace, name),
        }
    }

    fn address(&self, pod: &PodName) -> IpAddr {
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        addresses.of(pod).into()
    }

    fn shared_ports(&self) -> Option<&Ports> {
        None
    }

    /// On its container's own ports, as anybody knows.
    fn listens(&self, _pod: &PodName, _port: u16) {}

    fn report(&self, pod: &PodName, report: Report) {
        self.say(pod, Word::Is(Box::new(report)));
    }

    /// In a network of its own, named as containers are, with its service account's token and the files of ConfigMaps.
    fn launch(&self, pod: &PodName, launch: Launch) -> Launch {
        let IpAddr::V4(address) = self.address(pod) else {
            unreachable!("pods have IPv4 addresses")
        };
        let [_, _, third, fourth] = address.octets();
        let prefix = [
            enclave::pod().to_str().unwrap().to_owned(),
            std::process::id().to_string(),
            format!("pod{third}-{fourth}"),
            address.to_string(),
        ];
        let find = |name: &str| self.configuration(Source::ConfigMap, &pod.namespace, name);
        let files = self.volumes.prefix(pod, find);
        let mut environment = launch.environment;
        environment.push(("HOSTNAME".to_owned(), pod.name.clone()));
        environment.extend(self.accounts.variable(pod));
        Launch {
            command: prefix
                .into_iter()
                .chain(files)
                .chain(launch.command)
                .collect(),
            environment,
            ..launch
        }
    }

    /// Best effort, as events are.
    fn note(&self, pod: &Object, tone: Tone, reason: &str, message: &str) {
        let event = event(pod, tone, reason, message);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        tokio::spawn(async move {
            if let Err(error) = api.create(&PostParams::default(), &event).await {
                tracing::debug!(%error, "an event is lost");
            }
        });
    }

    fn remove(&self, pod: &PodName) {
        self.say(pod, Word::Remove);
        self.forget(pod);
    }
}

impl Addresses {
    /// 10.244.0.1 and up. An address is given again only after all others.
    fn of(&mut self, pod: &PodName) -> Ipv4Addr {
        if let Some(given) = self.given.get(pod) {
            return *given;
        }
        loop {
            self.last = self.last.wrapping_add(1);
            let [third, fourth] = self.last.to_be_bytes();
            let address = Ipv4Addr::new(10, 244, third, fourth);
            if self.given.values().all(|given| *given != address) {
                self.given.insert(pod.clone(), address);
                return address;
            }
        }
    }
}

/// A pod as the kubelet of processes can run it.
fn opened(pod: Value) -> Object {
    Arc::new(volumes::opened(images::opened(pod)))
}

/// What an event of the watch is to the kubelet; a list is told when it is complete.
fn news(listed: &mut Vec<Object>, event: watcher::Result<Seen<wire::Object>>) -> Option<News> {
    match event {
        Ok(Seen::Init) => {
            listed.clear();
            None
        }
        Ok(Seen::InitApply(pod)) => {
            listed.push(opened(pod.json));
            None
        }
        Ok(Seen::InitDone) => Some(News::Pods(std::mem::take(listed))),
        Ok(Seen::Apply(pod)) => Some(News::Pod(opened(pod.json))),
        Ok(Seen::Delete(pod)) => Some(News::Gone(opened(pod.json))),
        Err(error) => {
            tracing::debug!(%error, "pods are watched anew");
            None
        }
    }
}

/// All objects of a kind, kept current by the stream, which tells of every change.
fn known<K>(client: &Client) -> (Store<K>, BoxStream<'static, News>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let events = watcher::watcher(Api::<K>::all(client.clone()), watcher::Config::default());
    let events = reflector(writer, events.default_backoff());
    let changes = events.filter_map(|event| ready(event.is_ok().then_some(News::Configuration)));
    (reader, changes.boxed())
}

fn find<K>(store: &Store<K>, namespace: &str, name: &str) -> Option<Object>
where
    K: Resource<DynamicType = ()> + Clone + Serialize + 'static,
{
    let found = store.get(&ObjectRef::new(name).within(namespace))?;
    Some(Arc::new(serde_json::to_value(&*found).unwrap()))
}

/// Writes the last word about a pod, again and again until it is written or the pod is gone.
async fn write(client: Client, pod: PodName, mut words: watch::Receiver<Word>) {
    let kind = ApiResource::erase::<Pod>(&());
    let api = Api::namespaced_with(client, &pod.namespace, &kind);
    loop {
        let word = words.borrow_and_update().clone();
        let written = match &word {
            Word::Nothing => Ok(()),
            Word::Is(report) => write_status(&api, &pod, report).await,
            Word::Remove => remove(&api, &pod).await,
        };
        let is_over = matches!(word, Word::Remove);
        match written {
            Ok(()) if is_over => return,
            Ok(()) => {
                if words.changed().await.is_err() {
                    return;
                }
            }
            Err(kube::Error::Api(status)) if status.code == 404 => return,
            Err(kube::Error::Api(status)) if status.code == 409 && is_over => return, // Another by its name.
            Err(kube::Error::Api(status)) if status.code == 409 => {} // Somebody else wrote meanwhile.
            Err(error) => {
                tracing::debug!(?pod, %error, "not written yet");
                sleep(RETRY).await;
            }
        }
    }
}

async fn write_status(api: &Api<wire::Object>, pod: &PodName, report: &Report) -> kube::Result<()> {
    let mut present = api.get(&pod.name).await?;
    if present.metadata.uid.as_ref() != Some(&pod.uid) {
        return Ok(());
    }
    podstatus::write(&mut present.json, report);
    let patch = json!({
        "metadata": {"uid": pod.uid, "resourceVersion": present.metadata.resource_version},
        "status": present.json["status"],
    });
    api.patch_status(&pod.name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map(drop)
}

async fn remove(api: &Api<wire::Object>, pod: &PodName) -> kube::Result<()> {
    let how = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: Some(pod.uid.clone()),
            ..Preconditions::default()
        }),
        ..DeleteParams::default()
    };
    api.delete(&pod.name, &how).await.map(drop)
}

#[expect(clippy::disallowed_methods, reason = "the kubelet's clock")]
fn event(pod: &Value, tone: Tone, reason: &str, message: &str) -> Event {
    let now = Some(Time(Timestamp::now()));
    let tone = match tone {
        Tone::Normal => "Normal",
        Tone::Warning => "Warning",
    };
    let metadata = &pod["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let event = json!({
        "metadata": {"generateName": format!("{name}."), "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": metadata["namespace"], "name": name, "uid": metadata["uid"],
        },
        "type": tone, "reason": reason, "message": message, "count": 1,
        "firstTimestamp": now, "lastTimestamp": now, "source": {"component": "kubelet"},
    });
    serde_json::from_value(event).unwrap()
}

/// Time until an API server that did not answer is asked again.
const RETRY: Duration = Duration::from_millis(200);
