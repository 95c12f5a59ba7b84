//! `release`: hand-back. Takes our routing out of a Rollout, and waits until the controller has given everything back.

use std::collections::BTreeSet;
use std::io::{Write, stderr};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams};
use sidestep_control::api::{ReplicaSet, Rollout, Split, labels};
use sidestep_control::reconcile::objects::services_of;
use sidestep_control::reconcile::routers::{Policy, Routers};
use sidestep_control::wire::Collection;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::rollouts::{Rollouts, undisputed};
use super::{failure, now, print};
use crate::cli::ReleaseArgs;
use crate::client::Session;

mod routing;

/// How often it is looked at what is still there.
const LOOK: Duration = Duration::from_millis(500);

/// Releases the rollouts that are named, or all that are routed.
///
/// # Errors
/// When one of them cannot be released, or is not in time; the others are released all the same.
pub(crate) async fn run(session: &Session, args: &ReleaseArgs) -> anyhow::Result<()> {
    let chosen = match args.all {
        true => all(session, args.all_namespaces).await?,
        false => named(session, &args.names),
    };
    let mut failed = 0;
    let mut begun = Vec::new();
    for (rollouts, name) in chosen {
        match begin(&rollouts, &name).await {
            Ok(()) => begun.push((rollouts, name)),
            Err(error) => failed += complain(&name, &error)?,
        }
    }
    let deadline = (!args.timeout.is_zero()).then(|| Instant::now() + args.timeout);
    for (rollouts, name) in begun {
        match finish(&rollouts, &name, deadline).await {
            Ok(()) => print(&format!("rollout '{name}' released\n"))?,
            Err(error) => failed += complain(&name, &error)?,
        }
    }
    match failed {
        0 => Ok(()),
        1 => bail!("a rollout is not released"),
        count => bail!("{count} rollouts are not released"),
    }
}

fn complain(name: &str, error: &anyhow::Error) -> anyhow::Result<usize> {
    writeln!(stderr(), "rollout '{name}': {}", failure::text(error))?;
    Ok(1)
}

fn named(session: &Session, names: &[String]) -> Vec<(Rollouts, String)> {
    let one = |name: &String| (Rollouts::of(session), name.clone());
    names.iter().map(one).collect()
}

/// Those that our proxies route, or have routed and not been let go by yet.
async fn all(session: &Session, everywhere: bool) -> anyhow::Result<Vec<(Rollouts, String)>> {
    let namespace = (!everywhere).then_some(session.namespace.as_str());
    let everything = ListParams::default();
    let splits = Collection::<Split>::scoped(&session.client, namespace);
    let splits = splits.list(&everything).await?;
    let split: BTreeSet<_> = splits
        .iter()
        .map(|split| (split.namespace(), split.name_any()))
        .collect();
    let rollouts = Collection::<Rollout>::scoped(&session.client, namespace);
    let mut rollouts = rollouts.list(&everything).await?;
    rollouts.retain(|rollout| {
        let name = (rollout.namespace(), rollout.name_any());
        routing::is_ours(rollout) || split.contains(&name)
    });
    let one = |rollout: &Rollout| {
        let namespace = rollout.namespace().unwrap_or_default();
        let client = session.client.clone();
        (Rollouts { client, namespace }, rollout.name_any())
    };
    Ok(rollouts.iter().map(one).collect())
}

/// Takes our routing out of the Rollout, unless something would go wrong then.
async fn begin(rollouts: &Rollouts, name: &str) -> anyhow::Result<()> {
    undisputed(async || try_begin(rollouts, name).await).await
}

async fn try_begin(rollouts: &Rollouts, name: &str) -> anyhow::Result<()> {
    let json = rollouts.get_json(name).await?;
    let rollout = typed(&json)?;
    let split = split(rollouts, name).await?;
    let patch = routing::patch(&rollout);
    if patch.is_none() && split.is_none() {
        return Ok(()); // there is nothing to give back
    }
    let services = governed(rollouts, &rollout, split.as_ref()).await?;
    let routers = Routers::new(Policy::Auto, String::new());
    let after = routing::without(&rollout);
    let live = routers.live(&rollouts.client, &after, now()).await?;
    if let Some(refusal) = routing::refusal(&rollout, &services, &live) {
        bail!(refusal);
    }
    if let Some(mut patch) = patch {
        patch["metadata"]["resourceVersion"] = json.metadata.resource_version.into();
        rollouts.patch(name, &patch).await?;
    }
    Ok(())
}

fn typed(json: &DynamicObject) -> anyhow::Result<Rollout> {
    let value = serde_json::to_value(json)?;
    serde_json::from_value(value).context("reading the Rollout")
}

async fn split(rollouts: &Rollouts, name: &str) -> kube::Result<Option<Split>> {
    let splits = Collection::<Split>::within(&rollouts.client, &rollouts.namespace);
    splits.get_opt(name).await
}

/// The Services that the proxies split for the Rollout, as far as they exist.
async fn governed(
    rollouts: &Rollouts,
    rollout: &Rollout,
    split: Option<&Split>,
) -> kube::Result<Vec<Service>> {
    let rules = split.iter().flat_map(|split| &split.spec.rules);
    let mut names: BTreeSet<String> = rules.flat_map(|rule| rule.services.clone()).collect();
    names.extend(services_of(rollout));
    let api = Collection::<Service>::within(&rollouts.client, &rollouts.namespace);
    let mut found = Vec::new();
    for name in names {
        found.extend(api.get_opt(&name).await?);
    }
    Ok(found)
}

/// Waits until nothing of ours is left, and says what is waited for.
async fn finish(rollouts: &Rollouts, name: &str, deadline: Option<Instant>) -> anyhow::Result<()> {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = String::new();
    loop {
        look.tick().await;
        let Some(left) = left(rollouts, name).await? else {
            return Ok(());
        };
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(anyhow!("not released in time: waiting for {left}"));
        }
        if left != said {
            writeln!(stderr(), "rollout '{name}': waiting for {left}")?;
            said = left;
        }
    }
}

/// What is left of the routing, as what is waited for; none if nothing is.
async fn left(rollouts: &Rollouts, name: &str) -> anyhow::Result<Option<String>> {
    let rollout = rollouts.get(name).await?;
    let observed = rollout.status.as_ref();
    let observed = observed.and_then(|status| status.observed_generation.clone());
    if observed != rollout.metadata.generation.map(|number| number.to_string()) {
        return Ok(Some("a controller to look at the change".to_owned()));
    }
    if let Some(split) = split(rollouts, name).await? {
        let waiting = split.status.unwrap_or_default().memory.waiting;
        let message = waiting.map(|waiting| waiting.message);
        return Ok(Some(
            message.unwrap_or_else(|| "the Split to go".to_owned()),
        ));
    }
    let services = revision_services(rollouts, &rollout).await?;
    let first = services.first();
    Ok(first.map(|service| format!("the revision Service \"{service}\" to go")))
}

async fn revision_services(rollouts: &Rollouts, rollout: &Rollout) -> kube::Result<Vec<String>> {
    let sets = Collection::<ReplicaSet>::within(&rollouts.client, &rollouts.namespace);
    let sets = sets.list(&ListParams::default()).await?;
    let owns = |uid: &str, owners: &[OwnerReference]| owners.iter().any(|owner| owner.uid == uid);
    let uid = rollout.uid().unwrap_or_default();
    let own = sets.iter().filter(|set| owns(&uid, set.owner_references()));
    let own: BTreeSet<String> = own.filter_map(ResourceExt::uid).collect();
    let services = Collection::<Service>::within(&rollouts.client, &rollouts.namespace);
    let labelled = ListParams::default().labels(labels::REVISION_OF);
    let services = services.list(&labelled).await?;
    let is_its = |service: &&Service| own.iter().any(|set| owns(set, service.owner_references()));
    Ok(services
        .iter()
        .filter(is_its)
        .map(ResourceExt::name_any)
        .collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::commands::script::{Script, conflict};

    const ROLLOUT: &str = "/apis/argoproj.io/v1alpha1/namespaces/there/rollouts/web";

    fn rollout(version: &str) -> Value {
        json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
            "metadata": {"name": "web", "namespace": "there", "generation": 1, "resourceVersion": version},
            "spec": {"strategy": {"canary": {"trafficRouting": {"plugins": {"sidestep/proxy": {}}}}}},
            "status": {"observedGeneration": "1", "stableRS": "a", "currentPodHash": "a"},
        })
    }

    #[tokio::test]
    async fn a_change_in_between_is_read_and_judged_again() {
        let script = Script::default()
            .answer("GET", ROLLOUT, rollout("1"))
            .answer("GET", ROLLOUT, rollout("2"))
            .fail("PATCH", ROLLOUT, conflict())
            .answer("PATCH", ROLLOUT, rollout("3"));
        begin(&script.rollouts(), "web").await.unwrap();
        let mut written = script.requests();
        written.retain(|request| request.starts_with("PATCH"));
        let version =
            |request: &String| request.split_once("resourceVersion").unwrap().1.to_owned();
        let versions: Vec<_> = written.iter().map(version).collect();
        assert!(
            versions[0].starts_with(r#"":"1""#) && versions[1].starts_with(r#"":"2""#),
            "{versions:?}"
        );
    }
}
