//! What happens to the world from outside: the verbs of users, and the troubles of clusters.

use serde_json::{Value, json};

use super::happening::What;
use super::spec;
use super::world::{Due, Kind, World};
use crate::rollout::observed::Revision;

impl World {
    /// Something happens.
    pub(super) fn happen(&mut self, what: &What) {
        self.note(|_| format!("** {what:?}"));
        match what {
            What::Image(tag) => self.set_image(*tag),
            What::ImageAndReplicas(tag, replicas) => self.set_image_and_replicas(*tag, *replicas),
            What::Replicas(replicas) => self.edit(|spec| spec["replicas"] = json!(replicas)),
            What::Steps(steps) => {
                self.edit(|spec| spec["strategy"]["canary"]["steps"] = steps.clone())
            }
            What::Promotion(change) => {
                self.consent = true; // whoever changes how it is promoted wants it to be
                self.edit(|spec| spec::merge(&mut spec["strategy"]["blueGreen"], change));
            }
            What::Window(revisions) => {
                self.edit(|spec| spec["rollbackWindow"] = json!({"revisions": revisions}));
            }
            What::ScaleWorkload(pods) => self.scale_workload(*pods),
            What::Paused(paused) => self.edit(|spec| spec["paused"] = json!(paused)),
            What::Restart => self.restart(),
            What::Promote => self.promote(),
            What::PromoteFull => self.promote_full(),
            What::Abort => self.abort(),
            What::Retry => self.retry(),
            What::Undo => self.undo(),
            What::DeletePods(mask) => {
                let pods = self.lot(*mask);
                pods.into_iter().for_each(|id| self.delete_pod(id));
            }
            What::Crash(mask) => {
                let pods = self.lot(*mask);
                pods.into_iter().for_each(|id| self.turn_pod(id, false));
            }
            What::Quota(is_full) => self.set_quota(*is_full),
            What::EditSplit => self.edit_split(),
            What::Service(is_there) => self.set_service(*is_there),
            What::Silent(index, is_silent) => self.silence(*index, *is_silent),
            What::ProxyJoins if self.proxies.len() < 4 => self.add_proxy(),
            What::ProxyLeaves if self.proxies.len() > 1 => drop(self.proxies.remove(0)),
            What::ProxyJoins | What::ProxyLeaves => {}
            What::Slow(milliseconds) => self.slowness = *milliseconds,
            What::Lag(kind, milliseconds) => self.lags[kind.index()] = *milliseconds,
            What::Trouble(trouble, writes) => self.troubles.push((*trouble, *writes)),
            What::Clock(seconds) => {
                self.skew += seconds * 1000;
                self.left_active.clear(); // delays are told by a clock that is no guide any more
            }
        }
    }

    /// Changes the spec.
    pub(super) fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let before = serde_json::to_value(&self.rollout.spec).unwrap();
        let mut spec = before.clone();
        change(&mut spec);
        if spec != before {
            self.rollout.spec = serde_json::from_value(spec).unwrap();
            self.changed_spec();
        }
    }

    /// `set image`.
    pub(super) fn set_image(&mut self, tag: u8) {
        self.edit_template(|template| image(template, tag));
    }

    /// `set image` and another size, in one edit where both stand in one object.
    pub(super) fn set_image_and_replicas(&mut self, tag: u8, replicas: i64) {
        let refers = self.workload.is_some();
        if refers {
            self.set_image(tag);
        }
        self.edit(|spec| {
            if !refers {
                image(&mut spec["template"], tag);
            }
            spec["replicas"] = json!(replicas);
        });
    }

    /// Changes the status, as the verbs do.
    fn patch_status(&mut self, change: impl FnOnce(&mut crate::api::rollout::RolloutStatus)) {
        let mut status = self.status.clone();
        change(&mut status);
        if status != self.status {
            self.status = status;
            self.rollout_stamp = self.change(Kind::Rollout);
        }
    }

    /// The user's clock is right, whatever the controller's shows.
    fn restart(&mut self) {
        let at = jiff::Timestamp::from_second(Self::time(self.now).as_second()).unwrap();
        self.edit(|spec| spec["restartAt"] = json!(at.to_string()));
    }

    /// R2.11: the user's pause and the controller's are taken away.
    pub(super) fn promote(&mut self) {
        let mut pauses = self.status.pause_conditions.iter();
        self.consent |= pauses.any(|pause| pause.reason == "BlueGreenPause");
        self.edit(|spec| {
            spec.as_object_mut().unwrap().remove("paused");
        });
        self.patch_status(|status| status.pause_conditions.clear());
    }

    /// R11.1: only where there is something to promote.
    fn promote_full(&mut self) {
        self.patch_status(|status| {
            if status.current_pod_hash != status.stable_rs {
                status.promote_full = true;
            }
        });
    }

    pub(super) fn abort(&mut self) {
        self.patch_status(|status| status.abort = true);
    }

    pub(super) fn retry(&mut self) {
        self.patch_status(|status| status.abort = false);
    }

    /// The template of the revision before.
    fn undo(&mut self) {
        let mut sets: Vec<&Revision> = self.sets.iter().map(|set| &set.revision).collect();
        sets.sort_by_key(|set| set.number());
        let before = sets
            .len()
            .checked_sub(2)
            .map(|index| sets[index].template.clone());
        let Some(mut template) = before else { return };
        let labels = template["metadata"]["labels"].as_object_mut();
        labels
            .unwrap()
            .remove(crate::api::labels::POD_TEMPLATE_HASH);
        self.edit_template(|written| *written = template);
    }

    /// No pod can be created any more, or they can again.
    pub(super) fn set_quota(&mut self, is_full: bool) {
        self.quota = is_full;
        let sets: Vec<u32> = self.sets.iter().map(|set| set.id).collect();
        sets.into_iter().for_each(|id| self.touch(id, 200));
    }

    /// Somebody gives the canary other weights by hand.
    fn edit_split(&mut self) {
        if self.split.is_none() {
            return;
        }
        let stamp = self.change(Kind::Split);
        if let Some(split) = &mut self.split {
            split.stamp = stamp;
            split.written.generation += 1;
            for weight in split
                .written
                .split
                .rules
                .iter_mut()
                .flat_map(|rule| rule.weights.values_mut())
            {
                *weight += 1;
            }
        }
        self.hear_all();
    }

    /// A Service that the spec names is gone, or is back.
    pub(super) fn set_service(&mut self, is_there: bool) {
        let all = spec::services(&serde_json::to_value(&self.rollout.spec).unwrap());
        match is_there {
            true if self.services.len() < all.len() => self.services = all,
            false => self.services.truncate(1),
            true => return,
        }
        self.services_stamp = self.change(Kind::Services);
    }

    fn silence(&mut self, index: usize, is_silent: bool) {
        let Some(proxy) = self.proxies.get_mut(index) else {
            return;
        };
        proxy.silent = is_silent;
        let id = proxy.id;
        if !is_silent {
            self.after(1, Due::Take(id));
        }
    }

    /// Everything that was in the way is out of it, and everybody does their part.
    pub(super) fn calm(&mut self) {
        self.troubles.clear();
        self.lags = [0; 6];
        self.slowness = 50;
        self.set_quota(false);
        self.set_service(true);
        for index in 0..self.proxies.len() {
            self.silence(index, false);
        }
        self.heal();
    }

    /// Seconds that a version which no proxy serves any more may go on with what it has.
    pub(super) fn drain_seconds(&self) -> i64 {
        let canary = self.rollout.spec.strategy.canary.as_ref();
        let routing = canary.and_then(|canary| canary.traffic_routing.as_ref());
        let block = routing.and_then(|routing| routing.plugins.as_ref()?.get("sidestep/proxy"));
        let annotated = self
            .annotation()
            .map(|text| serde_json::from_str(text).unwrap());
        let block: Option<Value> = block.cloned().or(annotated);
        let written = block.as_ref();
        let written = written.and_then(|block| block["drainTimeout"].as_str());
        written.map_or(300, |text| text.trim_end_matches('s').parse().unwrap())
    }
}

fn image(template: &mut Value, tag: u8) {
    template["spec"]["containers"][0]["image"] = json!(format!("web:{tag}"));
}
