//! Whether the objects of other routers that a Rollout names are live. They are asked for one by one and the answers kept for a while:
//! their kinds may not be served at all, and a watch on each would cost every cluster for the few that have them.

use std::collections::HashMap;
use std::sync::Mutex;

use http::Request;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use serde_json::Value;

use super::{Error, lock};
use crate::api::Rollout;
use crate::rollout::plan::{RouterObject, named_routers};

/// What to do about `trafficRouting` blocks of other routers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Translate those whose objects do not exist; wait for those whose objects do.
    #[default]
    Auto,
    /// Translate all: whoever says so knows that the objects carry nothing.
    Translate,
}

impl std::str::FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "translate" => Ok(Self::Translate),
            other => Err(format!("{other:?} is neither \"auto\" nor \"translate\"")),
        }
    }
}

/// How long an answer is believed: a router that appears or goes is noticed within this time.
const BELIEVED: SignedDuration = SignedDuration::from_secs(10);

/// How soon a rollout with such blocks is looked at again, since nothing tells of a router that appears.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// What was answered, and when.
#[derive(Debug)]
pub struct Routers {
    policy: Policy,
    /// The class of the Ingresses that our proxies serve.
    ingress_class: String,
    answers: Mutex<HashMap<RouterObject, (Timestamp, bool)>>,
}

impl Routers {
    /// Nothing asked yet; Ingresses of this class stand in nobody's way.
    pub fn new(policy: Policy, ingress_class: String) -> Self {
        Self {
            policy,
            ingress_class,
            answers: Mutex::default(),
        }
    }

    /// The objects that a Rollout's blocks of other routers name and that are live.
    ///
    /// # Errors
    ///
    /// When the API server refuses or does not answer: then nobody knows who carries the traffic.
    pub async fn live(
        &self,
        client: &Client,
        rollout: &Rollout,
        now: Timestamp,
    ) -> Result<Vec<RouterObject>, Error> {
        let mut live = Vec::new();
        if self.policy == Policy::Translate {
            return Ok(live);
        }
        for object in named_routers(rollout) {
            if self.is_live(client, &object, now).await? {
                live.push(object);
            }
        }
        Ok(live)
    }

    /// When to look at a Rollout again although nothing has told of a change; none where it names no other router.
    pub fn look_again(&self, rollout: &Rollout, now: Timestamp) -> Option<Timestamp> {
        let names_some = self.policy == Policy::Auto && !named_routers(rollout).is_empty();
        names_some.then(|| now.saturating_add(LOOK_AGAIN).unwrap_or(now))
    }

    async fn is_live(
        &self,
        client: &Client,
        object: &RouterObject,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let known = lock(&self.answers).get(object).copied();
        if let Some((_, live)) = known.filter(|(at, _)| now.duration_since(*at) < BELIEVED) {
            return Ok(live);
        }
        let live = read(client, object)
            .await?
            .is_some_and(|object| ingress_class(&object) != Some(&self.ingress_class));
        let mut answers = lock(&self.answers);
        answers.retain(|_, (at, _)| now.duration_since(*at) < BELIEVED);
        answers.insert(object.clone(), (now, live));
        Ok(live)
    }
}

/// The class of an Ingress.
fn ingress_class(object: &Value) -> Option<&str> {
    let class = object.pointer("/spec/ingressClassName");
    let annotated = || object.pointer("/metadata/annotations/kubernetes.io~1ingress.class");
    class.or_else(annotated).and_then(Value::as_str)
}

/// The object, under whichever version its kind is served; none if it or its kind does not exist.
async fn read(client: &Client, object: &RouterObject) -> Result<Option<Value>, Error> {
    let RouterObject {
        kind,
        namespace,
        name,
        ..
    } = object;
    for version in kind.versions {
        let path = format!(
            "/apis/{version}/namespaces/{namespace}/{}/{name}",
            kind.plural
        );
        let doing = || format!("asking for {object}");
        let Ok(request) = Request::get(&path).body(Vec::new()) else {
            return Ok(None); // a name that no object can have
        };
        match client.request::<Value>(request).await {
            Ok(found) => return Ok(Some(found)),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(source) => return Err(Error::api(doing(), source)),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::local::{self, kinds};

    fn rollout(routing: &Value) -> Rollout {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"strategy": {"canary": {"trafficRouting": routing}}},
        }))
        .unwrap()
    }

    #[test]
    fn the_two_words_are_known() {
        for (text, policy) in [
            ("auto", Some(Policy::Auto)),
            ("translate", Some(Policy::Translate)),
            ("Auto", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), policy, "{text}");
        }
    }

    #[tokio::test]
    async fn auto_waits_for_what_is_there_and_translate_for_nothing() {
        let local = local::start(local::Config::default()).await.unwrap();
        let client = local.client().unwrap();
        for (name, class) in [
            ("front", "nginx"),
            ("ours", "edge"),
            ("default", "sidestep"),
        ] {
            let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
            let spec = json!({"ingressClassName": class, "defaultBackend": backend});
            let metadata = json!({"name": name, "namespace": "default"});
            let ingress = json!({"metadata": metadata, "spec": spec});
            local.store.create(&kinds::INGRESS, ingress).unwrap();
        }
        let now = Timestamp::UNIX_EPOCH;
        let half_a_minute = now + SignedDuration::from_secs(30);
        let nginx = |name: &str| json!({"nginx": {"stableIngress": name}});
        // block → what is live, and whether it is looked at again, with auto
        for (routing, live, again) in [
            (nginx("front"), vec![r#"Ingress "default/front""#], true),
            (nginx("ours"), vec![], true),
            (nginx("default"), vec![r#"Ingress "default/default""#], true),
            (nginx("none"), vec![], true),
            (
                json!({"istio": {"virtualService": {"name": "x"}}}),
                vec![],
                true,
            ),
            (json!({"plugins": {"sidestep/proxy": {}}}), vec![], false),
        ] {
            let rollout = rollout(&routing);
            for policy in [Policy::Auto, Policy::Translate] {
                let waits = policy == Policy::Auto;
                let routers = Routers::new(policy, "edge".to_owned());
                let found = routers.live(&client, &rollout, now).await.unwrap();
                let found: Vec<String> = found.iter().map(ToString::to_string).collect();
                let expected = if waits { live.as_slice() } else { &[] };
                assert_eq!(found, expected, "{policy:?} {routing}");
                let look = routers.look_again(&rollout, now);
                let expected = (waits && again).then_some(half_a_minute);
                assert_eq!(look, expected, "{policy:?} {routing}");
            }
        }
        local.stop().await;
    }
}
