//! Manifests good and bad.

use super::*;
use crate::settings;

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Reads one file, and gives the objects or the complaints, without the folder.
fn read_one(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "web.yaml", text);
    said(folder.path(), &[Source::File(path)])
}

fn said(folder: &Path, sources: &[Source]) -> String {
    let said = match read(sources, "there") {
        Ok(objects) => objects.iter().map(line).collect::<Vec<_>>().join("\n"),
        Err(faults) => faults.to_string(),
    };
    said.replace(&format!("{}/", folder.display()), "")
        .replace(&folder.display().to_string(), "folder")
}

fn line(object: &Object) -> String {
    let Origin {
        file,
        document,
        line,
    } = &object.origin;
    format!("{file} {document} {line} {}", object.id)
}

const SERVICE: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n";

#[test]
fn objects_know_where_they_stand_and_get_a_namespace() {
    let text = format!(
        "# nothing yet\n---\n{SERVICE}---\n---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: other\n---\n\
         apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {{name: a, namespace: other}}\n"
    );
    insta::assert_snapshot!(read_one(&text), @r"
    web.yaml 1 3 Service there/web
    web.yaml 2 9 Namespace other
    web.yaml 3 17 ConfigMap other/a
    ");
}

#[test]
fn a_folder_gives_its_manifests_by_name() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "b.yml", &SERVICE.replace("web", "b"));
    write(
        folder.path(),
        "a.json",
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}"#,
    );
    write(folder.path(), "notes.txt", "not a manifest");
    fs::create_dir(folder.path().join("sub.yaml")).unwrap();
    insta::assert_snapshot!(said(folder.path(), &[Source::Folder(folder.path().to_owned())]), @r"
    a.json 1 1 ConfigMap there/a
    b.yml 1 1 Service there/b
    ");
}

#[test]
fn a_folder_without_manifests_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(said(folder.path(), &[Source::Folder(folder.path().to_owned())]), @r"folder: there is no .yaml, .yml or .json file in this folder");
}

#[test]
fn every_complaint_names_file_line_and_field() {
    let text = "apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata:
  name: web
spec:
  replicas: many
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: app, image: a}]
  strategy: {canary: {}}
---
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selectors: {app: web}
  ports:
  - port: 80
    targetport: http
---
apiVersion: v1
kind: Service
metadata: {}
---
apiVersion: v1
kind: Rollout
metadata: {name: a}
---
apiVersion: x/v1
kind: Widget
metadata: {name: a}
---
kind: Service
metadata: {name: a}
---
just text
";
    insta::assert_snapshot!(read_one(text), @r#"
    web.yaml:6: Rollout there/web: spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string"
    web.yaml:19: Service there/web: unknown field "spec.selectors"
    web.yaml:22: Service there/web: unknown field "spec.ports[0].targetport"
    web.yaml:26: metadata.name: Required value: a name is required: what has none cannot be applied again
    web.yaml:28: apiVersion: Unsupported value: Rollout is not of v1 here, but of argoproj.io/v1alpha1
    web.yaml:33: kind: Unsupported value: there is no kind Widget of x/v1 here; there are AnalysisRun, AnalysisTemplate, ClusterAnalysisTemplate, ConfigMap, Deployment, EndpointSlice, Event, Experiment, Ingress, Job, Lease, Namespace, Pod, ReplicaSet, Rollout, Secret, Service, ServiceAccount, Split
    web.yaml:36: apiVersion: Required value: every object needs apiVersion and kind
    web.yaml:39: this is no object: apiVersion, kind and metadata are needed
    "#);
}

#[test]
fn what_is_no_yaml_is_said_once_and_names_the_line() {
    insta::assert_snapshot!(read_one("apiVersion: v1\nkind: Service\n metadata: {}\n"), @r"web.yaml:3: mapping values are not allowed in this context at line 3, column 10");
}

#[test]
fn an_object_stands_in_the_manifests_once() {
    insta::assert_snapshot!(read_one(&format!("{SERVICE}---\n{SERVICE}")), @r"web.yaml:6: Service there/web: this object stands in web.yaml:1 already");
}

#[test]
fn one_bad_file_keeps_all_from_being_read() {
    let folder = tempfile::tempdir().unwrap();
    let good = write(folder.path(), "good.yaml", SERVICE);
    let sources = [
        Source::File(good),
        Source::File(folder.path().join("gone.yaml")),
    ];
    insta::assert_snapshot!(said(folder.path(), &sources), @r"gone.yaml: No such file or directory (os error 2)");
}

#[test]
fn the_examples_can_be_read_together() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let examples = settings::source(&folder).unwrap();
    let objects = read(&[examples], "default").unwrap_or_else(|faults| panic!("{faults}"));
    let rollouts: Vec<&str> = objects
        .iter()
        .filter(|object| object.id.kind == "Rollout")
        .map(|object| object.id.name.as_str())
        .collect();
    assert_eq!(
        rollouts,
        [
            "analysis",
            "bluegreen",
            "canary-demo-routed",
            "canary-demo",
            "demo",
            "my-app",
            "processes"
        ]
    );
}

#[test]
fn a_condition_that_does_not_parse_says_where() {
    let text = "apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: rate}
spec:
  metrics:
  - name: rate
    provider: {plugin: {sidestep/proxy: {}}}
    successCondition: result.successRate >=
    failureCondition: result.requests > {{args.least}} &&
";
    insta::assert_snapshot!(read_one(text), @r"
    web.yaml:8: AnalysisTemplate there/rate: spec.metrics[0].successCondition: unexpected end of expression (1:22)
     | result.successRate >=
     | .....................^
    ");
}

#[test]
fn a_rollout_that_the_controller_would_call_invalid_is_refused_here() {
    let text = "apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: app, image: a}
  strategy:
    canary:
      stableService: web
      canaryService: elsewhere
      trafficRouting: {plugins: {sidestep/proxy: {}}}
      steps:
      - setWeight: 20
      - setWeight: 101
      - pause:
          duration: soon
";
    insta::assert_snapshot!(read_one(text), @r"
    web.yaml:18: Rollout there/web: spec.strategy.steps[1].setWeight: Invalid value: 101: SetWeight needs to be between 0 and 100
    web.yaml:20: Rollout there/web: spec.strategy.steps[2].pause.duration: Invalid value: -1: Duration needs to be greater than 0
    ");
    let fine = text.replace("101", "100").replace("soon", "10s");
    insta::assert_snapshot!(read_one(&fine), @r"web.yaml 1 1 Rollout there/web");
    let odd = format!("{fine}---\n{SERVICE}")
        .replace("spec: {ports", "spec: {selector: {app: other}, ports");
    insta::assert_snapshot!(read_one(&odd), @r#"web.yaml:13: Rollout there/web: spec.strategy.canary.stableService: Invalid value: "web": Service "web" has unmatch label "app" in rollout"#);
}

#[test]
fn a_split_that_no_proxy_would_serve_is_refused_here() {
    let text = "apiVersion: sidestep.dev/v1alpha1
kind: Split
metadata: {name: web}
spec:
  versions:
  - {name: blue, service: web-blue}
  rules:
  - services: [web]
    weights: {blue: 0, green: 0}
";
    insta::assert_snapshot!(read_one(text), @r"
    web.yaml:9: Split there/web: spec.rules[0].weights: no version is called green
    web.yaml:9: Split there/web: spec.rules[0].weights: at least one must be above 0
    ");
}
