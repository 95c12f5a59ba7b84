//! `set image`: another image for a container, which is a new revision.

use anyhow::{anyhow, bail};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use serde_json::Value;

use super::print;
use super::rollouts::{Rollouts, undisputed};
use crate::cli::SetImageArgs;
use crate::settings::ContainerImage;

/// Sets the image and answers the kind (lower case) and name of what was changed: the rollout, or the Deployment it refers to.
pub(crate) async fn set_image(
    rollouts: &Rollouts,
    name: &str,
    image: &ContainerImage,
) -> anyhow::Result<(&'static str, String)> {
    undisputed(async || try_set(rollouts, name, image).await).await
}

/// Sets the image and says so.
pub(crate) async fn run(rollouts: &Rollouts, args: &SetImageArgs) -> anyhow::Result<()> {
    let (kind, name) = set_image(rollouts, &args.name, &args.image).await?;
    print(&format!("{kind} \"{name}\" image updated\n"))
}

async fn try_set(
    rollouts: &Rollouts,
    name: &str,
    image: &ContainerImage,
) -> anyhow::Result<(&'static str, String)> {
    let rollout = rollouts.get_json(name).await?;
    let Some(workload) = rollout.data.pointer("/spec/workloadRef") else {
        replace(&rollouts.json(), name, rollout, image).await?;
        return Ok(("rollout", name.to_owned()));
    };
    let text = |field: &str| workload.get(field).and_then(Value::as_str);
    let (kind, target) = (
        text("kind").unwrap_or_default(),
        text("name").unwrap_or_default(),
    );
    if kind != "Deployment" {
        bail!(
            "the template of rollout \"{name}\" is that of {kind} \"{target}\": only a Deployment's image can be set"
        );
    }
    let resource = ApiResource::erase::<Deployment>(&());
    let deployments: Api<DynamicObject> =
        Api::namespaced_with(rollouts.client.clone(), &rollouts.namespace, &resource);
    let deployment = deployments.get(target).await?;
    replace(&deployments, target, deployment, image).await?;
    Ok(("deployment", target.to_owned()))
}

async fn replace(
    api: &Api<DynamicObject>,
    name: &str,
    mut object: DynamicObject,
    image: &ContainerImage,
) -> anyhow::Result<()> {
    if !change(&mut object.data, image) {
        return Err(anyhow!(
            "unable to find container named \"{}\"",
            image.container
        ));
    }
    api.replace(name, &PostParams::default(), &object).await?;
    Ok(())
}

/// Writes the image into every container of that name; says whether there was one.
fn change(object: &mut Value, image: &ContainerImage) -> bool {
    let mut found = false;
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = object
            .pointer_mut(&format!("/spec/template/spec/{list}"))
            .and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let is_meant = image.container == "*"
                || container.get("name").and_then(Value::as_str) == Some(&image.container);
            if let (true, Some(container)) = (is_meant, container.as_object_mut()) {
                container.insert("image".to_owned(), image.image.clone().into());
                found = true;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::failure;
    use crate::commands::script::{Script, conflict};

    const ROLLOUT: &str = "/apis/argoproj.io/v1alpha1/namespaces/there/rollouts/demo";
    const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/there/deployments/web";

    fn image(container: &str) -> ContainerImage {
        ContainerImage {
            container: container.to_owned(),
            image: "new:1".to_owned(),
        }
    }

    fn object(kind: &str, name: &str, images: [&str; 3]) -> Value {
        let [init, app, sidecar] = images;
        json!({
            "apiVersion": "x/v1", "kind": kind, "metadata": {"name": name, "resourceVersion": "7"},
            "spec": {"unknownField": 1, "template": {"spec": {
                "initContainers": [{"name": "init", "image": init}],
                "containers": [{"name": "app", "image": app, "ports": []}, {"name": "sidecar", "image": sidecar}],
            }}},
        })
    }

    async fn written(container: &str) -> Value {
        let old = object("Rollout", "demo", ["old:1", "old:1", "old:1"]);
        let script = Script::default()
            .answer("GET", ROLLOUT, old.clone())
            .answer("PUT", ROLLOUT, old);
        let done = set_image(&script.rollouts(), "demo", &image(container))
            .await
            .unwrap();
        assert_eq!(done, ("rollout", "demo".to_owned()));
        let requests = script.requests();
        serde_json::from_str(
            requests
                .last()
                .unwrap()
                .strip_prefix(&format!("PUT {ROLLOUT} application/json "))
                .unwrap(),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn the_object_is_written_back_whole() {
        assert_eq!(
            written("app").await,
            object("Rollout", "demo", ["old:1", "new:1", "old:1"])
        );
        assert_eq!(
            written("init").await,
            object("Rollout", "demo", ["new:1", "old:1", "old:1"])
        );
        assert_eq!(
            written("*").await,
            object("Rollout", "demo", ["new:1", "new:1", "new:1"])
        );
    }

    #[tokio::test]
    async fn a_container_that_is_not_there_changes_nothing() {
        let script =
            Script::default().answer("GET", ROLLOUT, object("Rollout", "demo", ["a", "b", "c"]));
        let error = set_image(&script.rollouts(), "demo", &image("nosuch"))
            .await
            .unwrap_err();
        assert_eq!(
            failure::text(&error),
            "unable to find container named \"nosuch\""
        );
        script.saw(&[&format!("GET {ROLLOUT}")]);
    }

    #[tokio::test]
    async fn a_rollout_of_a_workload_changes_that() {
        let mut rollout = object("Rollout", "demo", ["a", "b", "c"]);
        rollout["spec"]["workloadRef"] =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
        let deployment = object("Deployment", "web", ["a", "b", "c"]);
        let script = Script::default()
            .answer("GET", ROLLOUT, rollout.clone())
            .answer("GET", DEPLOYMENT, deployment.clone())
            .answer("PUT", DEPLOYMENT, deployment);
        assert_eq!(
            set_image(&script.rollouts(), "demo", &image("app"))
                .await
                .unwrap(),
            ("deployment", "web".to_owned())
        );
        rollout["spec"]["workloadRef"]["kind"] = json!("PodTemplate");
        let script = Script::default().answer("GET", ROLLOUT, rollout);
        assert!(
            set_image(&script.rollouts(), "demo", &image("app"))
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn a_conflict_is_tried_again_five_times_in_all() {
        let old = object("Rollout", "demo", ["a", "b", "c"]);
        let script =
            Script::default()
                .answer("GET", ROLLOUT, old.clone())
                .fail("PUT", ROLLOUT, conflict());
        assert!(
            set_image(&script.rollouts(), "demo", &image("app"))
                .await
                .is_err()
        );
        assert_eq!(script.requests().len(), 2 * 5);
        let script = Script::default()
            .answer("GET", ROLLOUT, old.clone())
            .fail("PUT", ROLLOUT, conflict())
            .answer("PUT", ROLLOUT, old);
        set_image(&script.rollouts(), "demo", &image("app"))
            .await
            .unwrap();
        assert_eq!(script.requests().len(), 4);
    }
}
