//! Objects as they come off the wire: JSON first, then their type, in one way for every kind.
//!
//! kube would decode an object into its type in as many ways as it reads objects: from text, from the middle of a watch event, from
//! behind a guard. Each way is machine code for every field of every Kubernetes type within reach. Here kube sees one type,
//! [`Object`], and a type sees one decoder.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use kube::api::{
    ApiResource, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams,
};
use kube::core::DynamicResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::watcher::{self, Event, ExponentialBackoff, watcher};
use kube::{Api, Client, Error, Resource};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use tracing::warn;

/// An object of any kind.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its metadata, in [`Self::json`] as well.
    pub metadata: ObjectMeta,
    /// All of it.
    pub json: Value,
}

/// The objects of one kind, in one namespace or in all.
pub struct Collection<K> {
    api: Api<Object>,
    kind: PhantomData<fn() -> K>,
}

impl Object {
    /// An object to be written.
    ///
    /// # Errors
    /// When its type cannot be told in JSON.
    pub fn of<K: Resource + Serialize>(object: &K) -> Result<Self, serde_json::Error> {
        Ok(Self {
            metadata: object.meta().clone(),
            json: serde_json::to_value(object)?,
        })
    }

    /// The object as its type.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn read<K: DeserializeOwned>(&self) -> Result<K, serde_json::Error> {
        K::deserialize(&self.json)
    }
}

impl<K: Resource<DynamicType = ()>> Collection<K> {
    /// Those of a namespace.
    pub fn within(client: &Client, namespace: &str) -> Self {
        let kind = ApiResource::erase::<K>(&());
        Self::of(Api::namespaced_with(client.clone(), namespace, &kind))
    }

    /// Those of all namespaces, or of none.
    pub fn all(client: &Client) -> Self {
        let kind = ApiResource::erase::<K>(&());
        Self::of(Api::all_with(client.clone(), &kind))
    }

    /// Those of a namespace if one is named, else all.
    pub fn scoped(client: &Client, namespace: Option<&str>) -> Self {
        match namespace {
            Some(namespace) => Self::within(client, namespace),
            None => Self::all(client),
        }
    }

    fn of(api: Api<Object>) -> Self {
        Self {
            api,
            kind: PhantomData,
        }
    }
}

/// What is read. Errors are those of the API server, of the way there, and of an object that does not fit its type.
impl<K: DeserializeOwned> Collection<K> {
    /// One that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub async fn get(&self, name: &str) -> kube::Result<K> {
        typed(&get(&self.api, name).await?)
    }

    /// One that may be there.
    ///
    /// # Errors
    /// See the block.
    pub async fn get_opt(&self, name: &str) -> kube::Result<Option<K>> {
        let found = found(&self.api, name).await?;
        found.as_ref().map(typed).transpose()
    }

    /// The metadata of one that may be there, whether or not the rest of it fits the type.
    ///
    /// # Errors
    /// See the block.
    pub async fn metadata(&self, name: &str) -> kube::Result<Option<ObjectMeta>> {
        Ok(found(&self.api, name).await?.map(|object| object.metadata))
    }

    /// Those that are selected.
    ///
    /// # Errors
    /// See the block.
    pub async fn list(&self, which: &ListParams) -> kube::Result<Vec<K>> {
        list(&self.api, which).await?.iter().map(typed).collect()
    }

    /// The resourceVersions of those that are selected, whether or not they fit the type.
    ///
    /// # Errors
    /// See the block.
    pub async fn versions(&self, which: &ListParams) -> kube::Result<Vec<String>> {
        let listed = list(&self.api, which).await?.into_iter();
        Ok(listed
            .filter_map(|one| one.metadata.resource_version)
            .collect())
    }

    /// What happens to them, for as long as it is polled. One that does not fit its type is told of and passed over.
    pub fn watch(
        self,
        config: watcher::Config,
    ) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
    where
        K: Send + 'static,
    {
        self.events(config)
            .filter_map(|event| std::future::ready(event.map(fitting).transpose()))
    }
}

/// What is written. The answer is the metadata as it stands then; errors are those of the API server and of the way there.
impl<K> Collection<K> {
    /// Makes one.
    ///
    /// # Errors
    /// See the block.
    pub async fn create(&self, object: &K) -> kube::Result<ObjectMeta>
    where
        K: Resource + Serialize,
    {
        let object = Object::of(object).map_err(Error::SerdeError)?;
        create(&self.api, &object).await
    }

    /// Writes the whole of one.
    ///
    /// # Errors
    /// See the block.
    pub async fn replace(&self, name: &str, object: &K) -> kube::Result<ObjectMeta>
    where
        K: Resource + Serialize,
    {
        let object = Object::of(object).map_err(Error::SerdeError)?;
        replace(&self.api, name, &object).await
    }

    /// Patches one.
    ///
    /// # Errors
    /// See the block.
    pub async fn patch(
        &self,
        name: &str,
        how: &PatchParams,
        patch: &Patch<&Value>,
    ) -> kube::Result<ObjectMeta> {
        self::patch(&self.api, name, how, patch).await
    }

    /// Patches the status of one.
    ///
    /// # Errors
    /// See the block.
    pub async fn patch_status(
        &self,
        name: &str,
        how: &PatchParams,
        patch: &Patch<&Value>,
    ) -> kube::Result<ObjectMeta> {
        patch_status(&self.api, name, how, patch).await
    }

    /// Deletes one.
    ///
    /// # Errors
    /// See the block.
    pub async fn delete(&self, name: &str, how: &DeleteParams) -> kube::Result<()> {
        delete(&self.api, name, how).await
    }

    /// What happens to them, for as long as it is polled, retried with back-off: after an error the stream begins anew.
    pub fn events(
        self,
        config: watcher::Config,
    ) -> BoxStream<'static, watcher::Result<Event<Object>>> {
        events(self.api, config)
    }
}

// What follows is generic no more: it is compiled here, once, which is what the boxes are for.

fn get<'a>(api: &'a Api<Object>, name: &'a str) -> BoxFuture<'a, kube::Result<Object>> {
    api.get(name).boxed()
}

async fn found(api: &Api<Object>, name: &str) -> kube::Result<Option<Object>> {
    match get(api, name).await {
        Ok(object) => Ok(Some(object)),
        Err(Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn list<'a>(
    api: &'a Api<Object>,
    which: &'a ListParams,
) -> BoxFuture<'a, kube::Result<Vec<Object>>> {
    async { Ok(api.list(which).await?.items) }.boxed()
}

fn create<'a>(api: &'a Api<Object>, object: &'a Object) -> BoxFuture<'a, kube::Result<ObjectMeta>> {
    async { Ok(api.create(&PostParams::default(), object).await?.metadata) }.boxed()
}

fn replace<'a>(
    api: &'a Api<Object>,
    name: &'a str,
    object: &'a Object,
) -> BoxFuture<'a, kube::Result<ObjectMeta>> {
    async {
        let replaced = api.replace(name, &PostParams::default(), object).await?;
        Ok(replaced.metadata)
    }
    .boxed()
}

fn patch<'a>(
    api: &'a Api<Object>,
    name: &'a str,
    how: &'a PatchParams,
    patch: &'a Patch<&'a Value>,
) -> BoxFuture<'a, kube::Result<ObjectMeta>> {
    async { Ok(api.patch(name, how, patch).await?.metadata) }.boxed()
}

fn patch_status<'a>(
    api: &'a Api<Object>,
    name: &'a str,
    how: &'a PatchParams,
    patch: &'a Patch<&'a Value>,
) -> BoxFuture<'a, kube::Result<ObjectMeta>> {
    async { Ok(api.patch_status(name, how, patch).await?.metadata) }.boxed()
}

fn delete<'a>(
    api: &'a Api<Object>,
    name: &'a str,
    how: &'a DeleteParams,
) -> BoxFuture<'a, kube::Result<()>> {
    async { api.delete(name, how).await.map(|_| ()) }.boxed()
}

fn events(
    api: Api<Object>,
    config: watcher::Config,
) -> BoxStream<'static, watcher::Result<Event<Object>>> {
    watcher(api, config).backoff(patience()).boxed()
}

/// How long a watch that broke waits before it is begun again, the longer the more often it did within [`CALM`].
fn patience() -> impl Backoff {
    let growing = ExponentialBuilder::new()
        .with_min_delay(PATIENCE_MIN)
        .with_max_delay(PATIENCE_MAX)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times();
    ResetTimerBackoff::new(ExponentialBackoff::from(growing), CALM)
}

fn typed<K: DeserializeOwned>(object: &Object) -> kube::Result<K> {
    object.read().map_err(Error::SerdeError)
}

/// The event with its object as its type, unless it does not fit.
fn fitting<K: DeserializeOwned>(event: Event<Object>) -> Option<Event<K>> {
    match event {
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
        Event::Apply(object) => told(&object).map(Event::Apply),
        Event::InitApply(object) => told(&object).map(Event::InitApply),
        Event::Delete(object) => told(&object).map(Event::Delete),
    }
}

fn told<K: DeserializeOwned>(object: &Object) -> Option<K> {
    let read = object.read();
    if let Err(error) = &read {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        warn!(kind = %object.json["kind"], namespace, name, %error, "object does not parse");
    }
    read.ok()
}

impl<K> Clone for Collection<K> {
    fn clone(&self) -> Self {
        Self {
            api: self.api.clone(),
            kind: PhantomData,
        }
    }
}

impl<K> fmt::Debug for Collection<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.api.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        let metadata = match json.get("metadata") {
            Some(metadata) => ObjectMeta::deserialize(metadata).map_err(D::Error::custom)?,
            None => ObjectMeta::default(),
        };
        Ok(Self { metadata, json })
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl Resource for Object {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        kind.kind.as_str().into()
    }

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        kind.group.as_str().into()
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        kind.version.as_str().into()
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        kind.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// First wait, as client-go's reflectors have it. Up to as much again is added to each by chance.
const PATIENCE_MIN: Duration = Duration::from_millis(800);
/// Longest wait: what proxies and controllers know is at most twice this behind an API server that is back. client-go waits 30 s.
const PATIENCE_MAX: Duration = Duration::from_secs(4);
/// Without a break for so long, a watch begins with the first wait again. client-go's is 2 min.
const CALM: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    /// `object` of a watch event stands before `type`, as it may.
    #[test]
    fn an_object_is_read_through_its_json_with_its_metadata_beside() {
        let text = r#"{"object": {"metadata": {"name": "a"}, "spec": {"containers": []}}, "type": "ADDED"}"#;
        let event: kube::core::WatchEvent<Object> = serde_json::from_str(text).unwrap();
        let kube::core::WatchEvent::Added(object) = event else {
            panic!("{event:?}");
        };
        assert_eq!(object.metadata.name.as_deref(), Some("a"));
        let pod: Pod = object.read().unwrap();
        assert_eq!((pod.metadata, pod.spec.is_some()), (object.metadata, true));
    }

    #[test]
    fn an_object_that_does_not_fit_is_passed_over_and_keeps_its_metadata() {
        let json = json!({"metadata": {"name": "a"}, "spec": {"containers": 1}});
        let object: Object = serde_json::from_value(json).unwrap();
        assert_eq!(object.metadata.name.as_deref(), Some("a"));
        assert!(fitting::<Pod>(Event::Apply(object)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_goes_on_to_break_is_begun_again_soon() {
        let waits: Vec<Duration> = patience().take(50).collect();
        assert!(waits.iter().all(|wait| *wait >= PATIENCE_MIN), "{waits:?}");
        let longest = waits.iter().max();
        assert!(longest <= Some(&(2 * PATIENCE_MAX)), "{longest:?}");
    }
}
