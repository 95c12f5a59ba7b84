//! The CustomResourceDefinitions of `argoproj.io`: with them go all Rollouts, so whose they are is the first question.

use std::collections::BTreeSet;

use http::Request;
use kube::Client;
use serde_json::Value;
use sidestep_control::local::crds;

use super::{Finding, Verdict};

/// Looks at each definition that Sidestep needs.
pub(super) async fn look(client: &Client) -> Vec<Finding> {
    let mut findings = Vec::new();
    for ours in crds::manifests() {
        let name = ours["metadata"]["name"].as_str().unwrap_or_default();
        let object = format!("crd/{name}");
        match read(client, name).await {
            Ok(Some(theirs)) => findings.extend(judge(&object, &ours, &theirs)),
            Ok(None) => findings.push(Finding::new(
                Verdict::Ok,
                object,
                "not there: the chart makes it, or `sidestep crds`",
            )),
            Err(error) => findings.push(Finding::unread(&object, error)),
        }
    }
    findings
}

async fn read(client: &Client, name: &str) -> kube::Result<Option<Value>> {
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
    let request = Request::get(path).body(Vec::new());
    let request = request.map_err(kube::Error::HttpError)?;
    match client.request(request).await {
        Ok(found) => Ok(Some(found)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn judge(object: &str, ours: &Value, theirs: &Value) -> Vec<Finding> {
    let Some(version) = served(theirs) else {
        let message = "does not serve v1alpha1: Argo Rollouts before 0.5, or another product";
        return vec![Finding::new(Verdict::Stop, object, message)];
    };
    let mut findings: Vec<Finding> = about_owner(object, theirs).into_iter().collect();
    let missing = missing(served(ours).unwrap_or(&Value::Null), version);
    if let Some((first, others)) = missing.split_first() {
        let more = match others.len() {
            0 => String::new(),
            count => format!(" and {count} other fields"),
        };
        let message = format!(
            "older than Sidestep's: it lacks {first}{more}; what it lacks is dropped from what is written; `sidestep crds | \
             kubectl apply --server-side --force-conflicts -f -` brings it up to date",
        );
        findings.push(Finding::new(Verdict::Warn, object, message));
    }
    if findings.is_empty() {
        findings.push(Finding::new(Verdict::Ok, object, "there, and up to date"));
    }
    findings
}

fn served(definition: &Value) -> Option<&Value> {
    let mut versions = definition["spec"]["versions"].as_array()?.iter();
    versions.find(|version| version["name"] == "v1alpha1" && version["served"] == true)
}

/// Whoever made it may delete it, and every object of it at that.
fn about_owner(object: &str, definition: &Value) -> Option<Finding> {
    let metadata = &definition["metadata"];
    let annotation = |key: &str| metadata["annotations"][key].as_str();
    let labelled = |key: &str| metadata["labels"][key].as_str();
    let finding = |verdict, message| Some(Finding::new(verdict, object, message));
    if let Some(release) = annotation("meta.helm.sh/release-name") {
        let namespace = annotation("meta.helm.sh/release-namespace").unwrap_or_default();
        return match annotation("helm.sh/resource-policy") {
            Some("keep") => finding(
                Verdict::Ok,
                format!(
                    "of Helm release {namespace}/{release}, and stays when that is uninstalled"
                ),
            ),
            _ => finding(
                Verdict::Stop,
                format!(
                    "of Helm release {namespace}/{release}: uninstalling that deletes it, and every object of its kind; upgrade the \
                     release with keepCRDs=true first"
                ),
            ),
        };
    }
    let tracked = annotation("argocd.argoproj.io/tracking-id").and_then(|id| id.split(':').next());
    let instance = labelled("argocd.argoproj.io/instance");
    if let Some(application) = tracked.or(instance) {
        return finding(
            Verdict::Warn,
            format!(
                "of Argo CD application {application}: deleting or pruning that deletes it, and every object of its kind; take it out with \
                 `Prune=false` first"
            ),
        );
    }
    let manager = manager(definition)?;
    finding(
        Verdict::Warn,
        format!(
            "applied by {manager}: `kubectl delete -f` of the manifest that has it deletes it, and every object of its kind; take \
             controllers away one by one"
        ),
    )
}

/// Who applied it from a file; none where it was made otherwise.
fn manager(definition: &Value) -> Option<&str> {
    let managers = definition["metadata"]["managedFields"].as_array()?.iter();
    let mut names = managers.filter_map(|entry| entry["manager"].as_str());
    names.find(|name| name.starts_with("kubectl") || name.starts_with("kustomize"))
}

/// Paths of the fields that one version has and the other lacks; pod templates are the API server's, and differ with its version.
fn missing(ours: &Value, theirs: &Value) -> Vec<String> {
    let mut paths = BTreeSet::new();
    let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
    compare(&schema(ours), &schema(theirs), "", &mut paths);
    paths.into_iter().collect()
}

fn compare(ours: &Value, theirs: &Value, path: &str, missing: &mut BTreeSet<String>) {
    let takes_all = |schema: &Value| schema["x-kubernetes-preserve-unknown-fields"] == true;
    if takes_all(theirs) {
        return;
    }
    for (name, ours) in ours["properties"].as_object().into_iter().flatten() {
        let dot = if path.is_empty() { "" } else { "." };
        let path = format!("{path}{dot}{name}");
        let is_template = ["template", "jobTemplate"].contains(&name.as_str());
        let theirs = &theirs["properties"][name];
        if theirs.is_null() {
            missing.insert(path);
        } else if !is_template {
            compare(ours, theirs, &path, missing);
        }
    }
    for inner in ["items", "additionalProperties"] {
        if ours[inner].is_object() && theirs[inner].is_object() {
            compare(&ours[inner], &theirs[inner], path, missing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ours() -> Value {
        let mut all = crds::manifests().into_iter();
        all.find(|crd| crd["metadata"]["name"] == "rollouts.argoproj.io")
            .unwrap()
    }

    fn verdict(change: impl FnOnce(&mut Value)) -> (Verdict, String) {
        let mut theirs = ours();
        theirs["metadata"] = json!({"name": "rollouts.argoproj.io"});
        change(&mut theirs);
        let mut found = judge("crd", &ours(), &theirs);
        found.sort_by_key(|finding| finding.verdict);
        let worst = found.pop().unwrap();
        (worst.verdict, worst.message)
    }

    #[test]
    fn whose_a_definition_is_says_what_would_delete_it() {
        let helm =
            json!({"meta.helm.sh/release-name": "argo", "meta.helm.sh/release-namespace": "ops"});
        let mut kept = helm.clone();
        kept["helm.sh/resource-policy"] = json!("keep");
        let applied = json!([{"manager": "kubectl-client-side-apply"}]);
        for (field, value, expected, part) in [
            ("name", json!("x"), Verdict::Ok, "up to date"),
            ("annotations", helm, Verdict::Stop, "ops/argo"),
            ("annotations", kept, Verdict::Ok, "stays"),
            (
                "annotations",
                json!({"argocd.argoproj.io/tracking-id": "app:x/y"}),
                Verdict::Warn,
                "application app:",
            ),
            (
                "labels",
                json!({"argocd.argoproj.io/instance": "app"}),
                Verdict::Warn,
                "application app:",
            ),
            (
                "managedFields",
                applied,
                Verdict::Warn,
                "kubectl-client-side-apply",
            ),
        ] {
            let (verdict, message) = verdict(|crd| crd["metadata"][field] = value.clone());
            assert_eq!(verdict, expected, "{value}: {message}");
            assert!(message.contains(part), "{value}: {message}");
        }
    }

    #[test]
    fn fields_that_an_older_definition_lacks_are_counted() {
        let (verdict, message) = verdict(|crd| {
            let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let status = &mut schema["properties"]["status"]["properties"];
            status.as_object_mut().unwrap().remove("duration");
        });
        assert_eq!(verdict, Verdict::Warn);
        assert!(message.contains("lacks status.duration;"), "{message}");
    }

    #[test]
    fn another_version_is_no_definition_of_argo_rollouts() {
        let (verdict, _) = verdict(|crd| crd["spec"]["versions"][0]["name"] = json!("v1"));
        assert_eq!(verdict, Verdict::Stop);
    }
}
