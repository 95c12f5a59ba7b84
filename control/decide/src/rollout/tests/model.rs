//! A cluster that does what it is told, and only then: ReplicaSets that keep their pods, proxies that acknowledge, a clock.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::labels;
use crate::api::rollout::{Rollout, RolloutStatus};
use crate::api::split::Memory;
use crate::rollout::decision::{Action, Decision, Event};
use crate::rollout::observed::{
    Experimental, Fleet, Metadata, Observed, Pod, Revision, Run, RunPhase, Service, WrittenSplit,
};
use crate::rollout::plan::{self, References, Workload, plan};
use crate::rollout::{Plan, State, decide};

/// A pod of the ReplicaSet that is not about to go.
fn is_living(pod: &Pod, set: &Revision) -> bool {
    pod.replica_set == set.uid && !pod.terminating
}

/// A rollout and all that it touches.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) rollout: Rollout,
    pub(crate) metadata: Metadata,
    pub(crate) status: RolloutStatus,
    pub(crate) memory: Memory,
    pub(crate) sets: Vec<Revision>,
    /// Pods of the ReplicaSets; which of them are ready follows from the counts.
    pub(crate) pods: Vec<Pod>,
    pub(crate) services: Vec<Service>,
    pub(crate) runs: Vec<Run>,
    pub(crate) split: Option<WrittenSplit>,
    pub(crate) experiment: Vec<Experimental>,
    pub(crate) templates: crate::analysis::template::Templates,
    /// Proxies serve header and mirror routes.
    pub(crate) serves_routes: bool,
    /// What `workloadRef` leads to.
    pub(crate) workload: Option<Workload>,
    /// Objects of other routers that are live.
    pub(crate) live_routers: Vec<plan::RouterObject>,
    /// Names of the proxies.
    pub(crate) proxies: Vec<String>,
    /// Generation of the Split that each proxy serves, and that generation's content.
    pub(crate) serving: BTreeMap<String, WrittenSplit>,
    pub(crate) in_flight: BTreeMap<String, u64>,
    pub(crate) now: Timestamp,
    /// Proxies acknowledge whatever is written.
    pub(crate) prompt: bool,
    /// Pods made so far.
    made: usize,
    /// Events since they were last taken.
    pub(crate) events: Vec<String>,
}

impl Model {
    /// A canary of `replicas` pods of image 1.
    pub(crate) fn new(replicas: i32, strategy: &Value) -> Self {
        Self::with(replicas, &json!({"canary": strategy}))
    }

    /// A blue-green rollout with an active and a preview Service.
    pub(crate) fn blue_green(replicas: i32, strategy: &Value) -> Self {
        let mut whole = json!({"activeService": "web-active", "previewService": "web-preview"});
        let strategy = strategy.as_object().unwrap().clone();
        whole.as_object_mut().unwrap().extend(strategy);
        Self::with(replicas, &json!({"blueGreen": whole}))
    }

    /// … with routing by our proxies.
    pub(crate) fn blue_green_routed(replicas: i32, strategy: &Value) -> Self {
        let mut model = Self::blue_green(replicas, strategy);
        let annotations = model.rollout.metadata.annotations.get_or_insert_default();
        annotations.insert(labels::PROXY.to_owned(), "{}".to_owned());
        model
    }

    fn with(replicas: i32, strategy: &Value) -> Self {
        let rollout = json!({
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Rollout",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u-rollout"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "web", "image": "nginx:1"}]},
                },
                "strategy": strategy,
            },
        });
        let service = |name: &str| Service {
            name: name.to_owned(),
            selector: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
            managed_by: None,
            apex: false,
        };
        Self {
            rollout: serde_json::from_value(rollout).unwrap(),
            metadata: Metadata {
                name: "web".to_owned(),
                namespace: "shop".to_owned(),
                uid: "u-rollout".to_owned(),
                generation: 1,
                annotations: BTreeMap::new(),
            },
            status: RolloutStatus::default(),
            memory: Memory::default(),
            sets: Vec::new(),
            pods: Vec::new(),
            services: ["web-stable", "web-canary", "web-active", "web-preview"]
                .map(service)
                .to_vec(),
            runs: Vec::new(),
            split: None,
            experiment: Vec::new(),
            templates: crate::analysis::template::Templates::default(),
            serves_routes: false,
            workload: None,
            live_routers: Vec::new(),
            proxies: vec!["proxy-1".to_owned(), "proxy-2".to_owned()],
            serving: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            now: "2026-01-01T00:00:00.5Z".parse().unwrap(),
            prompt: true,
            made: 0,
            events: Vec::new(),
        }
    }

    /// … with routing by our proxies.
    pub(crate) fn routed(replicas: i32, steps: &Value) -> Self {
        let routing = json!({"plugins": {"sidestep/proxy": {}}});
        Self::new(
            replicas,
            &json!({"steps": steps, "trafficRouting": routing, "stableService": "web-stable", "canaryService": "web-canary"}),
        )
    }

    /// … with sizes that follow the weights.
    pub(crate) fn dynamic(replicas: i32, steps: &Value) -> Self {
        let mut model = Self::routed(replicas, steps);
        model.edit(|spec| spec["strategy"]["canary"]["dynamicStableScale"] = json!(true));
        model
    }

    /// … without.
    pub(crate) fn basic(replicas: i32, steps: &Value) -> Self {
        Self::new(replicas, &json!({"steps": steps}))
    }

    /// … deployed and healthy.
    pub(crate) fn deployed(mut self) -> Self {
        self.run();
        self.all_ready();
        self.run();
        assert_eq!(self.phase(), "Healthy", "{:#?}", self.status);
        self.events.clear();
        self
    }

    pub(crate) fn plan(&self) -> Result<Plan, Vec<plan::Invalid>> {
        let mut rollout = self.rollout.clone();
        rollout.status = Some(self.status.clone());
        let references = References {
            services: self.services.clone(),
            templates: self.templates.clone(),
            serves_routes: self.serves_routes,
            workload: self.workload.clone(),
            live_routers: self.live_routers.clone(),
            ..References::default()
        };
        plan(&rollout, &references)
    }

    pub(crate) fn observed(&self) -> Observed {
        Observed {
            rollout: self.metadata.clone(),
            revisions: self.sets.clone(),
            services: self.services.clone(),
            runs: self.runs.clone(),
            pods: Some(self.pods_seen()),
            split: self.split.clone(),
            fleet: self.fleet(),
            apexes: Vec::new(),
            taken: Vec::new(),
            experiment: self.experiment.clone(),
        }
    }

    /// The pods, the oldest of each ReplicaSet ready, as many as it counts.
    fn pods_seen(&self) -> Vec<Pod> {
        let mut pods = self.pods.clone();
        for set in &self.sets {
            let count = usize::try_from(set.available).unwrap();
            let living = pods.iter_mut().filter(|pod| is_living(pod, set));
            for pod in living.take(count) {
                pod.ready_since = Some(Timestamp::UNIX_EPOCH);
            }
        }
        pods
    }

    fn fleet(&self) -> Fleet {
        let live = |proxy: &&String| {
            self.split.is_some() && self.serving.get(*proxy) == self.split.as_ref()
        };
        let behind: Vec<String> = self
            .proxies
            .iter()
            .filter(|proxy| !live(proxy))
            .cloned()
            .collect();
        let lacking = |split: &WrittenSplit| {
            split.split.revisions().any(|version| {
                let ready = self
                    .sets
                    .iter()
                    .find(|set| set.hash == version.revision)
                    .map_or(0, |set| set.ready);
                let weights = split.split.rules.first().map(|rule| &rule.weights);
                let weight = weights
                    .and_then(|weights| weights.get(&version.name))
                    .copied()
                    .unwrap_or(0);
                // One version alone has all of it as soon as it has a pod.
                let needed = match split.split.versions.len() {
                    1 => 1,
                    _ => version.needed,
                };
                weight > 0 && u32::try_from(ready).unwrap() < needed
            })
        };
        let short = self.split.as_ref().is_some_and(lacking);
        let leftover = self.serving.keys().filter(|_| self.split.is_none());
        Fleet {
            listed: true,
            leftover: leftover.cloned().collect(),
            proxies: self.proxies.clone(),
            short: if short {
                self.proxies.clone()
            } else {
                Vec::new()
            },
            verified_at: (behind.is_empty() && !short).then_some(self.now),
            behind,
            in_flight: self.in_flight.clone(),
        }
    }

    pub(crate) fn state(&self) -> State {
        State::from_status(&self.status, &self.memory)
    }

    pub(crate) fn decide(&self) -> Decision {
        match self.plan() {
            Ok(plan) => decide(&plan, &self.state(), &self.observed(), self.now),
            Err(complaints) => plan::refuse(&self.metadata, &self.state(), &complaints, self.now),
        }
    }

    /// One turn: decide, write, and let the ReplicaSets and proxies follow. Returns whether anything was written.
    pub(crate) fn turn(&mut self) -> bool {
        let decision = self.decide();
        let before = (self.status.clone(), self.memory.clone());
        let count = decision.actions.len();
        self.apply(&decision, count);
        self.write_status(&decision);
        self.follow();
        count > 0 || before != (self.status.clone(), self.memory.clone())
    }

    /// Writes only the first actions of a decision, as a controller does that dies.
    pub(crate) fn apply(&mut self, decision: &Decision, count: usize) {
        self.tell(decision, Some(0));
        for (done, action) in (1..).zip(decision.actions.iter().take(count)) {
            self.act(action.clone());
            self.tell(decision, Some(done));
        }
    }

    fn write_status(&mut self, decision: &Decision) {
        // As the API does: a status comes back as it was written, in whole seconds.
        let status = serde_json::to_value(&decision.status).unwrap();
        self.status = serde_json::from_value(status).unwrap();
        let memory = serde_json::to_value(&decision.memory).unwrap();
        self.memory = serde_json::from_value(memory).unwrap();
        self.tell(decision, None);
    }

    fn tell(&mut self, decision: &Decision, done: Option<usize>) {
        let print =
            |event: &Event| format!("{} {}: {}", event.kind.word(), event.reason, event.message);
        self.events.extend(decision.told(done).map(print));
    }

    /// ReplicaSets create and delete pods; proxies take up what is written, if they are prompt.
    pub(crate) fn follow(&mut self) {
        for set in &mut self.sets {
            set.pods = set.wanted;
            set.ready = set.ready.min(set.wanted);
            set.available = set.available.min(set.wanted);
        }
        self.create_and_delete_pods();
        if self.prompt {
            self.acknowledge();
        }
    }

    /// As many living pods as each ReplicaSet wants; the youngest go first, and at once.
    fn create_and_delete_pods(&mut self) {
        let second = self.now.as_second();
        for set in &self.sets {
            let wanted = usize::try_from(set.wanted).unwrap();
            let living = |pods: &[Pod]| pods.iter().filter(|pod| is_living(pod, set)).count();
            for _ in living(&self.pods)..wanted {
                self.made += 1;
                self.pods.push(Pod {
                    name: format!("pod-{}", self.made),
                    uid: format!("u-pod-{}", self.made),
                    replica_set: set.uid.clone(),
                    created_at: Timestamp::from_second(second).unwrap(),
                    ..Pod::default()
                });
            }
            for _ in wanted..living(&self.pods) {
                let last = self.pods.iter().rposition(|pod| is_living(pod, set));
                self.pods.remove(last.unwrap());
            }
        }
    }

    /// Every proxy serves the Split as written.
    pub(crate) fn acknowledge(&mut self) {
        for proxy in &self.proxies {
            if let Some(split) = &self.split {
                self.serving.insert(proxy.clone(), split.clone());
            }
        }
    }

    /// Turns until nothing is written any more, and then once more.
    pub(crate) fn run(&mut self) {
        for _ in 0..60 {
            if !self.turn() {
                return self.assert_still();
            }
        }
        panic!("never comes to rest: {:#?}", self.decide());
    }

    /// Deciding again writes nothing (R12.5).
    pub(crate) fn assert_still(&self) {
        let decision = self.decide();
        assert_eq!(decision.actions, [], "{:#?}", self.status);
        assert_eq!(decision.status, self.status);
        assert_eq!(decision.memory, self.memory);
        assert!(decision.events.is_empty(), "{:?}", decision.events);
        self.assert_waits();
    }

    /// What is not where it is to be says what it waits for.
    fn assert_waits(&self) {
        let valid = !self.message().starts_with("InvalidSpec");
        let waits = self.memory.waiting.is_some();
        assert!(
            waits || self.phase() == "Healthy" || !valid,
            "{:#?}",
            self.status
        );
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::SetReplicas { replicas } => {
                self.edit(|spec| spec["replicas"] = json!(replicas))
            }
            Action::AnnotateRollout { revision } => {
                self.metadata
                    .annotations
                    .insert(labels::REVISION.to_owned(), revision.to_string());
            }
            Action::CreateReplicaSet(new) => {
                let count = self.sets.len();
                let uid = format!("u-{}", new.name);
                if self.sets.iter().any(|set| set.name == new.name) {
                    return;
                }
                self.sets.push(Revision {
                    name: new.name,
                    uid,
                    hash: new.hash,
                    created_at: self.now
                        + SignedDuration::from_millis(i64::try_from(count).unwrap()),
                    annotations: new.annotations,
                    template: new.template,
                    min_ready_seconds: new.min_ready_seconds,
                    settled: true,
                    ..Revision::default()
                });
            }
            Action::AnnotateReplicaSet {
                name,
                set,
                remove,
                min_ready_seconds,
            } => {
                let revision = self.set_named(&name);
                revision.annotations.extend(set);
                revision.annotations.retain(|key, _| !remove.contains(key));
                revision.min_ready_seconds =
                    min_ready_seconds.unwrap_or(revision.min_ready_seconds);
            }
            Action::ScaleReplicaSet {
                name,
                from,
                to,
                set,
                remove,
            } => {
                let revision = self.set_named(&name);
                assert_eq!(revision.wanted, from, "{name}");
                revision.wanted = to;
                revision.annotations.extend(set);
                revision.annotations.retain(|key, _| !remove.contains(key));
            }
            Action::EnsureRevisionService { replica_set, .. } => {
                let set = self.set_named(&replica_set);
                (set.has_service, set.service_stands) = (true, true);
            }
            Action::DeleteRevisionService { replica_set } => {
                assert!(self.split.is_none(), "{replica_set} is listed");
                let set = self.set_named(&replica_set);
                (set.has_service, set.service_stands) = (false, false);
            }
            Action::SwitchService { name, hash } => {
                let service = self
                    .services
                    .iter_mut()
                    .find(|service| service.name == name)
                    .unwrap();
                service
                    .selector
                    .insert(labels::POD_TEMPLATE_HASH.to_owned(), hash);
                service.managed_by = Some("web".to_owned());
            }
            Action::WriteSplit(split) => {
                let generation = self
                    .split
                    .as_ref()
                    .map_or(1, |written| written.generation + 1);
                for version in split.revisions() {
                    let set = self.sets.iter().find(|set| set.hash == version.revision);
                    assert!(
                        set.is_some_and(|set| set.has_service),
                        "{version:?} has a Service"
                    );
                }
                self.split = Some(WrittenSplit {
                    uid: "u-split".to_owned(),
                    generation,
                    split,
                });
            }
            Action::DeleteSplit => {
                self.split = None;
                if self.prompt {
                    self.serving.clear();
                }
            }
            Action::CreateAnalysisRun(run) => {
                let labels = run.metadata.labels.clone().unwrap();
                let role = match labels[labels::ROLLOUT_TYPE].as_str() {
                    "Step" => crate::analysis::build::Role::Step(
                        labels[labels::STEP_INDEX].parse().unwrap(),
                    ),
                    "PrePromotion" => crate::analysis::build::Role::PrePromotion,
                    "PostPromotion" => crate::analysis::build::Role::PostPromotion,
                    _ => crate::analysis::build::Role::Background,
                };
                self.runs.push(Run {
                    name: run.metadata.name.clone().unwrap(),
                    role: Some(role),
                    hash: labels[labels::POD_TEMPLATE_HASH].clone(),
                    created_at: self.now,
                    phase: RunPhase::Running,
                    message: String::new(),
                    terminating: false,
                    failure: None,
                });
            }
            Action::TerminateAnalysisRun { name } => {
                let run = self.runs.iter_mut().find(|run| run.name == name).unwrap();
                run.terminating = true;
                run.phase = RunPhase::Successful;
            }
            Action::EvictPod { name, uid } => {
                let pod = self.pods.iter_mut().find(|pod| pod.uid == uid).unwrap();
                assert_eq!(pod.name, name);
                pod.terminating = true;
                let uid = pod.replica_set.clone();
                let mut sets = self.sets.iter_mut();
                let set = sets.find(|set| set.uid == uid).unwrap();
                set.pods -= 1;
                set.ready = (set.ready - 1).max(0);
                set.available = (set.available - 1).max(0);
            }
            Action::MarkPods {
                replica_set,
                labels,
                annotations,
                note,
            } => {
                let set = self.set_named(&replica_set);
                for (field, changes) in [("labels", labels), ("annotations", annotations)] {
                    for (key, value) in changes {
                        set.template["metadata"][field][key] = json!(value);
                    }
                    if let Some(map) = set.template["metadata"][field].as_object_mut() {
                        map.retain(|_, value| !value.is_null());
                    }
                }
                set.annotations.remove(labels::EPHEMERAL_METADATA);
                let key = labels::EPHEMERAL_METADATA.to_owned();
                set.annotations.extend(note.map(|note| (key, note)));
            }
            Action::KeepApart {
                replica_set,
                required,
                preferred,
            } => {
                let affinity = json!({
                    "requiredDuringSchedulingIgnoredDuringExecution": required,
                    "preferredDuringSchedulingIgnoredDuringExecution": preferred,
                });
                let template = &mut self.set_named(&replica_set).template;
                template["spec"]["affinity"]["podAntiAffinity"] = affinity;
            }
            Action::NoteWorkload { generation } => {
                let key = labels::WORKLOAD_GENERATION.to_owned();
                self.metadata.annotations.insert(key, generation);
            }
            Action::ScaleWorkload { name: _, to } => {
                let Some(Workload::Found {
                    generation,
                    replicas,
                    ..
                }) = &mut self.workload
                else {
                    panic!("no Deployment");
                };
                (*generation, *replicas) = (*generation + 1, Some(to));
            }
            Action::DeleteReplicaSet { name } => self.sets.retain(|set| set.name != name),
            Action::DeleteAnalysisRun { name } => self.runs.retain(|run| run.name != name),
        }
    }

    fn set_named(&mut self, name: &str) -> &mut Revision {
        self.sets.iter_mut().find(|set| set.name == name).unwrap()
    }

    /// Changes the spec, as a user does.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let mut spec = serde_json::to_value(&self.rollout.spec).unwrap();
        change(&mut spec);
        self.rollout.spec = serde_json::from_value(spec).unwrap();
        self.metadata.generation += 1;
    }

    /// `set image`.
    pub(crate) fn image(&mut self, tag: &str) {
        let image = format!("nginx:{tag}");
        self.edit(|spec| spec["template"]["spec"]["containers"][0]["image"] = json!(image));
    }

    /// `restart`.
    pub(crate) fn restart(&mut self) {
        let at = Timestamp::from_second(self.now.as_second()).unwrap();
        self.edit(|spec| spec["restartAt"] = json!(at.to_string()));
    }

    /// `promote` (R2.11).
    pub(crate) fn promote(&mut self) {
        assert!(!self.status.pause_conditions.is_empty());
        self.status.pause_conditions.clear();
    }

    /// The ReplicaSet of an image.
    pub(crate) fn set(&self, tag: &str) -> &Revision {
        let image = format!("nginx:{tag}");
        let of_image =
            |set: &&Revision| set.template["spec"]["containers"][0]["image"] == json!(image);
        self.sets
            .iter()
            .find(of_image)
            .unwrap_or_else(|| panic!("no ReplicaSet of {image}"))
    }

    /// Lets pods of an image become ready and available, up to a number.
    pub(crate) fn ready(&mut self, tag: &str, pods: i32) {
        let name = self.set(tag).name.clone();
        let set = self.set_named(&name);
        set.ready = pods.min(set.pods);
        set.available = pods.min(set.pods);
    }

    /// Pods that are to go are gone.
    pub(crate) fn bury(&mut self) {
        self.pods.retain(|pod| !pod.terminating);
    }

    /// All pods of all revisions; those that are to go are gone.
    pub(crate) fn all_ready(&mut self) {
        self.bury();
        for set in &mut self.sets {
            set.ready = set.pods;
            set.available = set.pods;
        }
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// Turns, with pods that become ready at once, until nothing is written any more.
    pub(crate) fn run_ready(&mut self) {
        for _ in 0..60 {
            let wrote = self.turn();
            let before = self.sets.clone();
            self.all_ready();
            if !wrote && before == self.sets {
                return self.assert_still();
            }
        }
        panic!("never comes to rest: {:#?}", self.decide());
    }

    pub(crate) fn phase(&self) -> &str {
        self.status.phase.as_deref().unwrap_or_default()
    }

    pub(crate) fn message(&self) -> &str {
        self.status.message.as_deref().unwrap_or_default()
    }

    /// The weights in the status: canary, stable.
    pub(crate) fn weights(&self) -> Option<(i32, i32)> {
        let weights = self.status.canary.weights.as_ref()?;
        Some((weights.canary.weight, weights.stable.weight))
    }

    /// What a Service's selector names: an image's revision, or nothing.
    pub(crate) fn selects(&self, service: &str, tag: &str) -> bool {
        let service = self
            .services
            .iter()
            .find(|one| one.name == service)
            .unwrap();
        service.hash() == Some(self.set(tag).hash.as_str())
    }

    /// Events since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }
}
