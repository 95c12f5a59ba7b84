//! What each key has written, and must have in view before it is decided again: no decision rests on a world without its own writes.
//!
//! A write that was answered is in view once the cache of its kind has seen the version that came back. One whose answer is missing
//! (the connection broke, the server gave up, the look was given up) is in doubt: it may have been done all the same, and the cache
//! may not show it yet. Its object is read past the cache, and what stands there is what the cache must have seen. Should it be done
//! later still, it meets a resourceVersion or a name that is taken, or is seen as anybody's edit is.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ObjectMeta;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::objects::{Deployment, Key, Name, Objects};
use super::{Error, lock};
use crate::api::{AnalysisRun, ReplicaSet, Rollout, Split, labels};
use crate::cache::Cache;
use crate::wire::Collection;

/// How long a key waits for its own write to come into view before it looks whether it has. The write's event wakes it earlier.
const CATCH_UP: Duration = Duration::from_secs(1);

/// A kind that is written.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + fmt::Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Where it is cached.
    fn cache(objects: &Objects) -> &Cache<Self>;

    /// Whether the cache's watch tells of an object.
    fn is_watched(_: &ObjectMeta) -> bool {
        true
    }
}

/// An object that is written: where it is read, and where it comes into view.
#[derive(Debug)]
pub struct Place<K> {
    /// The API server's objects.
    pub collection: Collection<K>,
    /// Ours.
    pub cache: Cache<K>,
    /// Which of them.
    pub name: Name,
}

/// Writes that keys wait for.
#[derive(Default)]
pub struct Writes(Mutex<HashMap<Key, Open>>);

/// What one key waits for.
#[derive(Default)]
struct Open {
    /// Writes without an answer, by kind and name of their objects.
    doubts: BTreeMap<Object, Doubt>,
    unseen: Vec<Unseen>,
}

type Object = (String, String);

/// Reads the object of a write that is in doubt.
type Doubt = Arc<dyn Fn() -> BoxFuture<'static, kube::Result<Unseen>> + Send + Sync>;

/// Whether a cache has seen a write.
type Unseen = Box<dyn Fn() -> bool + Send + Sync>;

impl Writes {
    /// Sends a write for a key, which waits for it: the write is in doubt until there is an answer, and stays so if this future is
    /// dropped. Returns the object's metadata, without a version if it is deleted.
    ///
    /// # Errors
    ///
    /// Those of `request`.
    pub async fn send<K: Kind>(
        &self,
        key: &Key,
        place: Place<K>,
        request: impl Future<Output = kube::Result<ObjectMeta>>,
    ) -> kube::Result<ObjectMeta> {
        let (object, held) = (place.object(), place.held());
        self.doubt(key, place.clone());
        let answer = request.await;
        match &answer {
            Ok(written) => self.settle(key, &object, Some(place.unseen(Some(written), held))),
            Err(error) if is_refusal(error) => self.settle(key, &object, None),
            Err(_) => {}
        }
        answer
    }

    /// How long to wait before a key may be decided: none once its caches have seen all it has written.
    ///
    /// # Errors
    ///
    /// When an object whose write is in doubt cannot be read. The key may not be decided then.
    pub async fn catch_up(&self, key: &Key) -> Result<Option<Duration>, Error> {
        for (object, doubt) in self.doubts(key) {
            let unseen = doubt().await;
            let unseen = unseen.map_err(|source| {
                Error::api(format!("reading {} {}", object.0, object.1), source)
            })?;
            self.settle(key, &object, Some(unseen));
        }
        let mut all = lock(&self.0);
        let Some(open) = all.get_mut(key) else {
            return Ok(None);
        };
        open.unseen.retain(|is_seen| !is_seen());
        if open.unseen.is_empty() {
            all.remove(key);
            return Ok(None);
        }
        Ok(Some(CATCH_UP))
    }

    /// Forgets what a key has written.
    pub fn forget(&self, key: &Key) {
        lock(&self.0).remove(key);
    }

    fn doubt<K: Kind>(&self, key: &Key, place: Place<K>) {
        let object = place.object();
        let doubt = move || place.clone().read().boxed();
        let mut all = lock(&self.0);
        let open = all.entry(key.clone()).or_default();
        open.doubts.insert(object, Arc::new(doubt));
    }

    fn doubts(&self, key: &Key) -> BTreeMap<Object, Doubt> {
        lock(&self.0)
            .get(key)
            .map(|open| open.doubts.clone())
            .unwrap_or_default()
    }

    /// A doubt is over.
    fn settle(&self, key: &Key, object: &Object, unseen: Option<Unseen>) {
        if let Some(open) = lock(&self.0).get_mut(key) {
            open.doubts.remove(object);
            open.unseen.extend(unseen);
        }
    }
}

impl<K: Kind> Place<K> {
    /// The object of that name.
    pub fn new(client: &Client, objects: &Objects, name: Name) -> Self {
        Self {
            collection: Collection::within(client, &name.namespace),
            cache: K::cache(objects).clone(),
            name,
        }
    }

    fn object(&self) -> Object {
        (K::kind(&()).into_owned(), self.name.name.clone())
    }

    /// The object as the cache has it.
    fn held(&self) -> Option<Arc<K>> {
        self.cache.get(&self.name.namespace, &self.name.name)
    }

    /// Reads past the cache what stands there now.
    async fn read(self) -> kube::Result<Unseen> {
        let held = self.held();
        let found = self.collection.metadata(&self.name.name).await?;
        Ok(self.unseen(found.as_ref(), held))
    }

    /// Whether the cache has seen this version; or, where nothing is there that its watch tells of, holds no more what it held before.
    fn unseen(self, found: Option<&ObjectMeta>, held: Option<Arc<K>>) -> Unseen {
        let found = found.filter(|metadata| K::is_watched(metadata));
        if let Some(version) = found.and_then(|metadata| metadata.resource_version.as_ref()) {
            let mark = self.cache.mark(version);
            return Box::new(move || self.cache.has_seen(mark));
        }
        let held = held.and_then(|held| held.uid());
        let is_gone =
            move |now: Arc<K>| now.uid() != held || now.meta().deletion_timestamp.is_some();
        Box::new(move || self.held().is_none_or(&is_gone))
    }
}

/// The API server says that a write is not done. Whoever sends 408 has not waited for the end of it.
fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 408)
}

impl<K> Clone for Place<K> {
    fn clone(&self) -> Self {
        Self {
            collection: self.collection.clone(),
            cache: self.cache.clone(),
            name: self.name.clone(),
        }
    }
}

impl fmt::Debug for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = lock(&self.0);
        f.debug_set().entries(all.keys()).finish()
    }
}

impl Kind for Rollout {
    fn cache(objects: &Objects) -> &Cache<Self> {
        &objects.rollouts
    }
}

impl Kind for ReplicaSet {
    fn cache(objects: &Objects) -> &Cache<Self> {
        &objects.replica_sets
    }

    fn is_watched(metadata: &ObjectMeta) -> bool {
        let labels = metadata.labels.as_ref();
        labels.is_some_and(|labels| labels.contains_key(labels::POD_TEMPLATE_HASH))
    }
}

impl Kind for Service {
    fn cache(objects: &Objects) -> &Cache<Self> {
        &objects.services
    }
}

impl Kind for EndpointSlice {
    fn cache(objects: &Objects) -> &Cache<Self> {
        &objects.slices
    }
}

impl Kind for Split {
    fn cache(objects: &Objects) -> &Cache<Self> {
        &objects.splits
    }
}

impl Kind for AnalysisRun {
    fn cache(objects: &Objects) -> &Cache<Self> {
        &objects.runs
    }
}

impl Kind for Deployment {
    fn cache(objects: &Objects) -> &Cache<Self> {
        &objects.deployments
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use axum::body::Body;
    use http::{Request, Response};
    use kube::core::Status;
    use kube::runtime::watcher::Event;
    use serde_json::{Value, json};

    use super::*;
    use crate::cache::Manner;
    use crate::wire;

    /// Answers of the API server to those who read.
    type Answers = Arc<Mutex<VecDeque<(u16, Value)>>>;

    /// One object, its cache, and who waits for its writes.
    struct Scene<K> {
        writes: Writes,
        place: Place<K>,
        key: Key,
        answers: Answers,
    }

    impl<K: Kind> Scene<K> {
        fn new() -> Self {
            let answers = Answers::default();
            let script = Arc::clone(&answers);
            let service = tower::service_fn(move |_: Request<kube::client::Body>| {
                let (status, body) = lock(&script).pop_front().expect("nobody was to read");
                let response = Response::builder().status(status);
                let response = response.body(Body::from(body.to_string())).unwrap();
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let name = Name::of(&metadata("1"));
            Self {
                writes: Writes::default(),
                place: Place {
                    collection: Collection::within(&Client::new(service, "ns"), "ns"),
                    cache: Cache::new(Manner::typed(), Vec::new()),
                    name: name.clone(),
                },
                key: Key::Rollout(name),
                answers,
            }
        }

        /// The cache hears of a version.
        fn hear(&self, version: &str, event: fn(wire::Object) -> Event<wire::Object>) {
            let metadata = metadata(version);
            let json = json!({"metadata": metadata});
            self.place
                .cache
                .take_up(event(wire::Object { metadata, json }));
        }

        async fn send(&self, answer: kube::Result<ObjectMeta>) {
            let request = std::future::ready(answer);
            let sent = self.writes.send(&self.key, self.place.clone(), request);
            drop(sent.await);
        }

        /// Whether the key may be decided, or why that is not known; the API server answers those who read.
        async fn is_free(&self, answers: &[(u16, Value)]) -> Result<bool, Error> {
            lock(&self.answers).extend(answers.iter().cloned());
            let wait = self.writes.catch_up(&self.key).await;
            assert!(lock(&self.answers).is_empty(), "nobody has read");
            wait.map(|wait| wait.is_none())
        }
    }

    fn metadata(version: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some("web".to_owned()),
            namespace: Some("ns".to_owned()),
            uid: Some("u".to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        }
    }

    fn error(code: u16) -> kube::Error {
        kube::Error::Api(Status::failure("no", "No").with_code(code).boxed())
    }

    fn lost() -> kube::Error {
        kube::Error::Service("the connection broke".into())
    }

    fn there(version: &str) -> (u16, Value) {
        (200, json!({"metadata": metadata(version)}))
    }

    fn not_there() -> (u16, Value) {
        (404, json!(Status::failure("no", "NotFound").with_code(404)))
    }

    #[tokio::test]
    async fn only_the_end_of_a_write_that_nobody_told_of_is_in_doubt() {
        let check = async |error: kube::Error, reads: &[(u16, Value)]| {
            let scene = Scene::<Service>::new();
            let said = error.to_string();
            scene.send(Err(error)).await;
            assert!(scene.is_free(reads).await.unwrap(), "{said}");
        };
        for code in [400, 403, 404, 409, 422, 429] {
            check(error(code), &[]).await;
        }
        for code in [408, 500, 503, 504] {
            check(error(code), &[not_there()]).await;
        }
        check(lost(), &[not_there()]).await;
    }

    #[tokio::test]
    async fn a_write_in_doubt_that_was_done_must_be_in_view() {
        let scene = Scene::<Service>::new();
        scene.hear("3", Event::Apply);
        scene.send(Err(lost())).await;
        assert!(!scene.is_free(&[there("7")]).await.unwrap());
        scene.hear("6", Event::Apply);
        assert!(
            !scene.is_free(&[]).await.unwrap(),
            "and is in doubt no more"
        );
        scene.hear("7", Event::Apply);
        assert!(scene.is_free(&[]).await.unwrap());
    }

    #[tokio::test]
    async fn a_write_in_doubt_that_was_not_done_is_not_waited_for() {
        let scene = Scene::<Service>::new();
        scene.hear("3", Event::Apply);
        scene.send(Err(lost())).await;
        assert!(scene.is_free(&[there("3")]).await.unwrap());
    }

    #[tokio::test]
    async fn a_deletion_in_doubt_that_was_done_must_be_in_view() {
        let scene = Scene::<Service>::new();
        scene.hear("3", Event::Apply);
        scene.send(Err(lost())).await;
        assert!(!scene.is_free(&[not_there()]).await.unwrap());
        scene.hear("8", Event::Delete);
        assert!(scene.is_free(&[]).await.unwrap());
    }

    #[tokio::test]
    async fn nothing_is_decided_while_a_write_in_doubt_cannot_be_read() {
        let scene = Scene::<Service>::new();
        scene.send(Err(lost())).await;
        for _ in 0..2 {
            let read = scene.is_free(&[(503, json!({}))]).await;
            assert!(matches!(read, Err(Error::Api { .. })), "{read:?}");
        }
        assert!(scene.is_free(&[not_there()]).await.unwrap());
    }

    #[tokio::test]
    async fn a_write_that_is_given_up_is_in_doubt() {
        let scene = Scene::<Service>::new();
        let never = std::future::pending();
        let sent = scene
            .writes
            .send(&scene.key, scene.place.clone(), never)
            .now_or_never();
        assert!(sent.is_none());
        assert!(!scene.is_free(&[there("7")]).await.unwrap());
    }

    #[tokio::test]
    async fn what_the_watch_does_not_tell_of_is_not_waited_for() {
        let scene = Scene::<ReplicaSet>::new();
        scene.send(Err(lost())).await;
        assert!(scene.is_free(&[there("7")]).await.unwrap(), "no hash");
    }
}
