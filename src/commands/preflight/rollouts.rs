//! Each Rollout: whether Sidestep would take it as it is, and who carries its traffic.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{PodTemplate, Service};
use kube::api::ListParams;
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sidestep_control::analysis::template::Templates;
use sidestep_control::api::analysis::AnalysisTemplateSpec;
use sidestep_control::api::{AnalysisTemplate, ClusterAnalysisTemplate, Rollout, Split, labels};
use sidestep_control::measure;
use sidestep_control::reconcile::objects::{controller_of, services_of};
use sidestep_control::reconcile::routers::{Policy, Routers};
use sidestep_control::rollout::observed;
use sidestep_control::rollout::plan::{
    Foreign, Plan, References, RouterObject, Workload, named_routers, plan,
};
use sidestep_control::wire::Collection;

use super::{Finding, Verdict};

/// Looks at the Rollouts of a namespace, or of all.
pub(super) async fn look(
    client: &Client,
    namespace: Option<&str>,
    ingress_class: &str,
    now: Timestamp,
) -> Vec<Finding> {
    let routers = Routers::new(Policy::Auto, ingress_class.to_owned());
    let surroundings = match Surroundings::read(client, namespace).await {
        Ok(surroundings) => surroundings,
        Err(error) => return vec![Finding::unread("rollouts", error)],
    };
    let mut findings = Vec::new();
    for rollout in &surroundings.rollouts {
        let object = object(rollout);
        let live = match routers.live(client, rollout, now).await {
            Ok(live) => live,
            Err(error) => {
                let message = format!("whether its router is there is not known: {error}");
                findings.push(Finding::new(Verdict::Warn, object.clone(), message));
                named_routers(rollout)
            }
        };
        let workload = workload(client, rollout).await;
        let references = surroundings.references(rollout, live, workload);
        findings.extend(judge(&object, rollout, &references));
    }
    if findings.is_empty() {
        findings.push(Finding::new(Verdict::Ok, "rollouts", "there are none"));
    }
    findings
}

fn object(rollout: &Rollout) -> String {
    let namespace = rollout.namespace().unwrap_or_default();
    format!("rollout/{namespace}/{}", rollout.name_any())
}

/// All that Rollouts refer to, as it was listed.
struct Surroundings {
    rollouts: Vec<Rollout>,
    services: Vec<Service>,
    templates: Vec<AnalysisTemplate>,
    cluster_templates: Vec<ClusterAnalysisTemplate>,
    splits: Vec<Split>,
}

impl Surroundings {
    async fn read(client: &Client, namespace: Option<&str>) -> kube::Result<Self> {
        let all = ListParams::default();
        let splits = Collection::<Split>::scoped(client, namespace);
        let splits = match splits.list(&all).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(), // not installed yet
            listed => listed?,
        };
        let templates = Collection::<AnalysisTemplate>::scoped(client, namespace);
        let cluster = Collection::<ClusterAnalysisTemplate>::all(client);
        Ok(Self {
            rollouts: Collection::<Rollout>::scoped(client, namespace)
                .list(&all)
                .await?,
            services: Collection::<Service>::scoped(client, namespace)
                .list(&all)
                .await?,
            templates: templates.list(&all).await?,
            cluster_templates: cluster.list(&all).await?,
            splits,
        })
    }

    fn references(
        &self,
        rollout: &Rollout,
        live_routers: Vec<RouterObject>,
        workload: Option<Workload>,
    ) -> References {
        let namespace = rollout.namespace();
        let named = services_of(rollout);
        let services = self.services.iter().filter(|service| {
            service.namespace() == namespace && named.contains(&service.name_any())
        });
        let templates = self.templates.iter();
        let near = templates.filter(|template| template.namespace() == namespace);
        let own = |split: &&Split| {
            split.namespace() == namespace && split.name_any() == rollout.name_any()
        };
        let is_its = |split: &Split| {
            let owner = controller_of(&split.metadata).map(|owner| &owner.uid);
            owner.is_some() && owner == rollout.metadata.uid.as_ref()
        };
        References {
            services: services.map(service).collect(),
            templates: Templates {
                namespaced: near
                    .map(|template| (template.name_any(), template.spec.clone()))
                    .collect(),
                cluster: self
                    .cluster_templates
                    .iter()
                    .map(|template| (template.name_any(), template.spec.template.clone()))
                    .collect(),
            },
            workload,
            live_routers,
            serves_routes: false, // no proxy of this version does
            split_taken: self
                .splits
                .iter()
                .find(own)
                .is_some_and(|split| !is_its(split)),
        }
    }
}

fn service(service: &Service) -> observed::Service {
    let spec = service.spec.clone().unwrap_or_default();
    observed::Service {
        name: service.name_any(),
        selector: spec.selector.unwrap_or_default(),
        managed_by: service.annotations().get(labels::MANAGED_BY).cloned(),
        apex: false,
    }
}

/// What `workloadRef` leads to; one that cannot be read is missing, with the reason.
async fn workload(client: &Client, rollout: &Rollout) -> Option<Workload> {
    let reference = rollout.spec.workload_ref.as_ref()?;
    let namespace = rollout.namespace().unwrap_or_default();
    let name = reference.name.clone().unwrap_or_default();
    let found = match reference.kind.as_deref() {
        Some("Deployment") => fetched::<Deployment>(client, &namespace, &name).await,
        Some("ReplicaSet") => fetched::<ReplicaSet>(client, &namespace, &name).await,
        Some("PodTemplate") => {
            let found = fetched::<PodTemplate>(client, &namespace, &name).await;
            found.map(|found| json!({"spec": found}))
        }
        _ => return None,
    };
    Some(match found {
        Err(error) => Workload::Missing(super::super::failure::text(&error.into())),
        Ok(found) => Workload::Found {
            template: found["spec"]["template"].clone(),
            selector: serde_json::from_value(found["spec"]["selector"].clone()).unwrap_or_default(),
            generation: found["metadata"]["generation"].as_i64().unwrap_or(0),
            replicas: None,
        },
    })
}

async fn fetched<K>(client: &Client, namespace: &str, name: &str) -> kube::Result<Value>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned,
{
    let found: K = Collection::within(client, namespace).get(name).await?;
    Ok(json!(found))
}

/// What is to be said of a Rollout; that it is in order, if nothing else.
fn judge(object: &str, rollout: &Rollout, references: &References) -> Vec<Finding> {
    let finding = |verdict, message: String| Finding::new(verdict, object, message);
    let mut findings = Vec::new();
    match plan(rollout, references) {
        Err(complaints) => {
            let texts: Vec<String> = complaints.iter().map(ToString::to_string).collect();
            findings.push(finding(
                Verdict::Stop,
                format!("refused: {}", texts.join("; ")),
            ));
        }
        Ok(plan) => {
            findings.extend(about_router(&plan).map(|(verdict, text)| finding(verdict, text)))
        }
    }
    findings.extend(
        about_providers(rollout, &references.templates)
            .into_iter()
            .map(|text| finding(Verdict::Stop, text)),
    );
    if let Some(service) = references
        .services
        .iter()
        .find(|service| service.selector.is_empty())
    {
        let message = format!(
            "Service {:?} has no selector: the proxies take it over where they are given --apex-ports, and nobody does without",
            service.name
        );
        findings.push(finding(Verdict::Warn, message));
    }
    if let Some(id) = rollout.labels().get(labels::INSTANCE_ID) {
        let message = format!("only a controller with --instance-id {id} looks after it");
        findings.push(finding(Verdict::Warn, message));
    }
    if findings.is_empty() {
        let status = rollout.status.clone().unwrap_or_default();
        let phase = status.phase.unwrap_or_else(|| "new".to_owned());
        let message = status.message.map(|message| format!(": {message}"));
        let text = format!("{phase}{}", message.unwrap_or_default());
        findings.push(finding(Verdict::Ok, text));
    }
    findings
}

fn about_router(plan: &Plan) -> Option<(Verdict, String)> {
    match &plan.foreign {
        Foreign::None => None,
        Foreign::Translated(message) => Some((Verdict::Warn, message.clone())),
        Foreign::Live(message) => Some((Verdict::Stop, message.clone())),
    }
}

/// Metrics that nobody could measure, of all templates that the Rollout's analyses come to.
fn about_providers(rollout: &Rollout, templates: &Templates) -> Vec<String> {
    let used = used(rollout, templates);
    let mut complaints = Vec::new();
    for ((_, name), template) in used {
        for metric in &template.metrics {
            if let Some(refusal) = measure::refusal(metric) {
                let metric = &metric.name;
                complaints.push(format!("metric {metric:?} of template {name:?}: {refusal}"));
            }
        }
    }
    complaints
}

/// The templates that a Rollout names, and those that they name, by scope (whether that is the cluster) and name.
fn used<'a>(
    rollout: &Rollout,
    templates: &'a Templates,
) -> BTreeMap<(bool, String), &'a AnalysisTemplateSpec> {
    let mut open = sidestep_control::reconcile::observe::analyses(&rollout.spec);
    let mut used = BTreeMap::new();
    while let Some(reference) = open.pop() {
        let name = reference.template_name;
        let of_cluster = reference.cluster_scope == Some(true);
        let known = match of_cluster {
            true => &templates.cluster,
            false => &templates.namespaced,
        };
        let Some(template) = known.get(&name) else {
            continue; // the plan complains of it
        };
        if used.insert((of_cluster, name), template).is_none() {
            open.extend(template.templates.iter().cloned());
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_of_one_name_and_two_scopes_are_both_looked_at() {
        let template = |provider: &str| {
            let metric = json!({"name": "m", "provider": {provider: {}}});
            let template = json!({"metrics": [metric]});
            serde_json::from_value::<AnalysisTemplateSpec>(template).unwrap()
        };
        let named = |provider| BTreeMap::from([("check".to_owned(), template(provider))]);
        let templates = Templates {
            namespaced: named("datadog"),
            cluster: named("wavefront"),
        };
        let references =
            json!([{"templateName": "check"}, {"templateName": "check", "clusterScope": true}]);
        let rollout = json!({
            "metadata": {"name": "web"},
            "spec": {"strategy": {"canary": {"analysis": {"templates": references}}}},
        });
        let rollout: Rollout = serde_json::from_value(rollout).unwrap();
        let complaints = about_providers(&rollout, &templates).concat();
        assert!(
            complaints.contains("datadog") && complaints.contains("wavefront"),
            "{complaints}"
        );
    }
}
