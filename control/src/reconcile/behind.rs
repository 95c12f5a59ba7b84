//! Whether a spec is refused for what is there, and not in our caches yet.
//!
//! Each kind has a watch of its own, so a Rollout may come into view before the Service that was created ahead of it. What a spec names
//! and our caches lack is asked for once more before anybody is told that it does not exist.

use std::collections::BTreeSet;

use kube::api::ListParams;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::objects::{Instance, Name, services_of};
use super::observe::{self, Scene};
use super::{Context, Error};
use crate::cache::Cache;
use crate::rollout::plan::References;
use crate::wire::Collection;

/// Whether a Service or a template that the Rollout names is there and has yet to come into view.
///
/// # Errors
///
/// When the API server does not answer.
pub(super) async fn is_behind(
    context: &Context,
    scene: &Scene,
    references: &References,
) -> Result<bool, Error> {
    let (objects, client) = (&context.objects, &context.client);
    let namespace = scene.name.namespace.as_str();
    let known: BTreeSet<String> = scene.services.iter().map(|one| one.name_any()).collect();
    for name in services_of(&scene.rollout).difference(&known) {
        let services = Collection::within(client, namespace);
        let name = Name::new(namespace, name);
        if is_unseen(&objects.services, &services, &name, &Instance::Any).await? {
            return Ok(true);
        }
    }
    let known = &references.templates;
    let inner = known.all().flat_map(|template| &template.templates);
    let named = observe::analyses(&scene.rollout.spec);
    for template in named.iter().chain(inner).filter(|one| !known.holds(one)) {
        let (name, own) = (&template.template_name, &context.instance);
        let is_unseen = match template.cluster_scope {
            Some(true) => {
                let (all, name) = (Collection::all(client), Name::new("", name));
                is_unseen(&objects.cluster_templates, &all, &name, own).await?
            }
            _ => {
                let all = Collection::within(client, namespace);
                let name = Name::new(namespace, name);
                is_unseen(&objects.templates, &all, &name, own).await?
            }
        };
        if is_unseen {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether an object of that name, which the decision lacked, is there: in a version that the cache has not seen, or in view by now.
/// One that does not parse never comes into view. It is listed, which is the right that its watch needs anyway; what may not be read is
/// not waited for.
async fn is_unseen<K>(
    cache: &Cache<K>,
    collection: &Collection<K>,
    name: &Name,
    instance: &Instance,
) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let which = ListParams {
        label_selector: instance.selector(),
        ..ListParams::default().fields(&format!("metadata.name={}", name.name))
    };
    let is_unseen = |version: &str| !cache.has_seen(cache.mark(version));
    match collection.versions(&which).await {
        Ok(there) => Ok(there
            .iter()
            .any(|version| is_unseen(version) || cache.get(&name.namespace, &name.name).is_some())),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(false),
        Err(error) => Err(Error::api("asking for what the spec names", error)),
    }
}
