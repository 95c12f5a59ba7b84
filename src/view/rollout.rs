//! `get rollout`: the header and the tree, in the layout of `kubectl argo rollouts` (reference 1.8).
//!
//! Our own lines stand among Argo's without moving them: `Waiting:` and `Last abort:` below `Message:`, `  Effective:` below
//! `  ActualWeight:` when the proxies serve another share than was set. Blanks at line ends are cut.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sidestep_control::api::split::{LastAbort, Waiting};

use super::age::{age, human};
use super::info::{
    AnalysisRunInfo, Canary, Image, Info, JobInfo, PodInfo, ReplicaSetInfo, Revision, Strategy,
};
use super::measured::relevant;
use super::paint::{Icon, Paint};
use super::{aligned, without_trailing_blanks};

/// Prints a rollout.
pub(crate) fn text(info: &Info, now: Timestamp, paint: Paint) -> String {
    format!("{}\n{}", header(info, now, paint), tree(info, now, paint))
}

fn header(info: &Info, now: Timestamp, paint: Paint) -> String {
    let mut lines = Lines::default();
    lines.add("Name:", &info.name);
    lines.add("Namespace:", &info.namespace);
    lines.add(
        "Status:",
        &format!("{} {}", paint.icon(info.icon), info.status),
    );
    if !info.message.is_empty() {
        lines.add("Message:", &info.message);
    }
    if let Some(waiting) = &info.waiting {
        lines.add("Waiting:", &waiting_text(waiting, now));
    }
    if let Some(abort) = &info.last_abort {
        lines.add("Last abort:", &abort_text(abort, now));
    }
    strategy(&mut lines, &info.strategy);
    for (index, image) in info.images.iter().enumerate() {
        lines.add(
            if index == 0 { "Images:" } else { "" },
            &image_text(image, paint),
        );
    }
    lines.0.push("Replicas:".to_owned());
    lines.add("  Desired:", &info.replicas.desired.to_string());
    lines.add("  Current:", &info.replicas.current.to_string());
    lines.add("  Updated:", &info.replicas.updated.to_string());
    lines.add("  Ready:", &info.replicas.ready.to_string());
    lines.add("  Available:", &info.replicas.available.to_string());
    without_trailing_blanks(&lines.0.join("\n"))
}

fn strategy(lines: &mut Lines, strategy: &Strategy) {
    match strategy {
        Strategy::Canary(canary) => {
            lines.add("Strategy:", "Canary");
            lines.add("  Step:", &canary.step);
            lines.add("  SetWeight:", &canary.set_weight.to_string());
            lines.add("  ActualWeight:", &canary.actual_weight.to_string());
            if let Some(effective) = differing(canary) {
                lines.add("  Effective:", &effective);
            }
        }
        Strategy::BlueGreen => lines.add("Strategy:", "BlueGreen"),
        Strategy::Unknown => lines.add("Strategy:", ""),
    }
}

/// The effective weight, to a tenth, when it is not the actual one.
fn differing(canary: &Canary) -> Option<String> {
    let effective = canary.effective_weight?;
    let differs = (effective - f64::from(canary.actual_weight)).abs() >= 0.05;
    differs.then(|| format!("{effective:.1}"))
}

fn waiting_text(waiting: &Waiting, now: Timestamp) -> String {
    match waiting
        .until
        .as_ref()
        .map(|until| until.0.duration_since(now))
        .filter(|left| left.is_positive())
    {
        Some(left) => format!("{} (in {})", waiting.message, human(left)),
        None => waiting.message.clone(),
    }
}

fn abort_text(abort: &LastAbort, now: Timestamp) -> String {
    let mut text = format!("revision {}", abort.revision);
    if let Some(step) = abort.step {
        text += &format!(" at step {step}");
    }
    text += &format!(": {}", abort.reason);
    let metric = abort.metric.clone();
    let metric = metric.filter(|metric| !abort.reason.contains(metric));
    let condition = abort.condition.as_deref().unwrap_or_default();
    let value = abort.value.as_deref();
    let details = [
        ("metric", &metric),
        ("value", &value.map(|value| relevant(value, condition))),
        ("condition", &abort.condition),
    ];
    let details: Vec<String> = details
        .iter()
        .filter_map(|(name, value)| Some(format!("{name} {}", value.as_ref()?)))
        .collect();
    if !details.is_empty() {
        text += &format!(" ({})", details.join(", "));
    }
    if let Some(at) = &abort.at {
        text += &format!(", {} ago", human(now.duration_since(at.0)));
    }
    text
}

fn image_text(image: &Image, paint: Paint) -> String {
    let tags: Vec<String> = image.tags.iter().map(|tag| paint.tag(tag)).collect();
    match tags.is_empty() {
        true => image.image.clone(),
        false => format!("{} ({})", image.image, tags.join(", ")),
    }
}

/// The header's lines: label, padded to 17 characters, and value.
#[derive(Default)]
struct Lines(Vec<String>);

impl Lines {
    fn add(&mut self, label: &str, value: &str) {
        self.0.push(format!("{label:<17}{value}"));
    }
}

fn tree(info: &Info, now: Timestamp, paint: Paint) -> String {
    let mut tree = Tree {
        rows: vec!["NAME\tKIND\tSTATUS\tAGE\tINFO".to_owned()],
        now,
        paint,
    };
    let name = format!("⟳ {}", info.name);
    tree.row(
        "",
        &name,
        "Rollout",
        (info.icon, &info.status),
        info.created.as_ref(),
        "",
    );
    for (revision, branch) in branches(&info.revisions, "") {
        tree.revision(revision, &branch);
    }
    aligned(&tree.rows.join("\n"))
}

/// Rows of the tree; columns are parted by tabs until they are aligned.
struct Tree {
    rows: Vec<String>,
    now: Timestamp,
    paint: Paint,
}

/// Where an item stands among its siblings.
struct Branch {
    /// What stands before its own name.
    own: String,
    /// What stands before its children's branches.
    below: String,
}

impl Tree {
    fn revision(&mut self, revision: &Revision, branch: &Branch) {
        self.rows.push(format!(
            "{}# revision:{}\t\t\t\t",
            branch.own, revision.number
        ));
        let children: Vec<Child<'_>> = revision
            .replica_sets
            .iter()
            .map(Child::ReplicaSet)
            .chain(revision.analysis_runs.iter().map(Child::AnalysisRun))
            .collect();
        for (child, branch) in branches(&children, &branch.below) {
            match child {
                Child::ReplicaSet(replica_set) => self.replica_set(replica_set, &branch),
                Child::AnalysisRun(run) => self.analysis_run(run, &branch),
            }
        }
    }

    fn replica_set(&mut self, replica_set: &ReplicaSetInfo, branch: &Branch) {
        let name = format!(
            "⧉ {}",
            self.paint.named_for(&replica_set.name, &replica_set.tags)
        );
        let mut notes: Vec<String> = replica_set
            .tags
            .iter()
            .map(|tag| self.paint.tag(tag))
            .collect();
        notes.extend(delay(replica_set.scale_down_deadline.as_deref(), self.now));
        let status = (replica_set.icon, replica_set.status);
        self.row(
            &branch.own,
            &name,
            "ReplicaSet",
            status,
            replica_set.created.as_ref(),
            &notes.join(","),
        );
        for (pod, branch) in branches(&replica_set.pods, &branch.below) {
            self.pod(pod, &branch);
        }
    }

    fn pod(&mut self, pod: &PodInfo, branch: &Branch) {
        let mut notes = format!("ready:{}", pod.ready);
        if pod.restarts > 0 {
            notes += &format!(",restarts:{}", pod.restarts);
        }
        let name = format!("□ {}", pod.name);
        self.row(
            &branch.own,
            &name,
            "Pod",
            (pod.icon, &pod.status),
            pod.created.as_ref(),
            &notes,
        );
    }

    fn analysis_run(&mut self, run: &AnalysisRunInfo, branch: &Branch) {
        let counts = [
            (Icon::Ok, run.successful),
            (Icon::Bad, run.failed),
            (Icon::Unknown, run.inconclusive),
            (Icon::Warning, run.error),
        ];
        let counts = counts.into_iter().filter(|(_, count)| *count > 0);
        let notes: Vec<String> = counts
            .map(|(icon, count)| format!("{} {count}", self.paint.icon(icon)))
            .collect();
        let name = format!("α {}", self.paint.analysis_name(&run.name, &run.status));
        let status = (run.icon, run.status.as_str());
        self.row(
            &branch.own,
            &name,
            "AnalysisRun",
            status,
            run.created.as_ref(),
            &notes.join(","),
        );
        for (job, branch) in branches(&run.jobs, &branch.below) {
            self.job(job, &branch);
        }
    }

    fn job(&mut self, job: &JobInfo, branch: &Branch) {
        let name = format!("⊞ {}", self.paint.analysis_name(&job.name, &job.status));
        self.row(
            &branch.own,
            &name,
            "Job",
            (job.icon, &job.status),
            job.created.as_ref(),
            "",
        );
    }

    fn row(
        &mut self,
        prefix: &str,
        name: &str,
        kind: &str,
        status: (Icon, &str),
        created: Option<&Time>,
        notes: &str,
    ) {
        let (icon, status) = (self.paint.icon(status.0), status.1);
        let age = age(created, self.now);
        self.rows.push(format!(
            "{prefix}{name}\t{kind}\t{icon} {status}\t{age}\t{notes}"
        ));
    }
}

enum Child<'a> {
    ReplicaSet(&'a ReplicaSetInfo),
    AnalysisRun(&'a AnalysisRunInfo),
}

/// Gives each sibling its branch; the last one closes it.
fn branches<'a, T>(siblings: &'a [T], above: &str) -> impl Iterator<Item = (&'a T, Branch)> {
    let last = siblings.len().saturating_sub(1);
    siblings.iter().enumerate().map(move |(index, sibling)| {
        let (own, below) = if index == last {
            ("└──", "   ")
        } else {
            ("├──", "│  ")
        };
        (
            sibling,
            Branch {
                own: format!("{above}{own}"),
                below: format!("{above}{below}"),
            },
        )
    })
}

/// `delay:29s` or `delay:passed` while a ReplicaSet waits to be scaled down.
fn delay(deadline: Option<&str>, now: Timestamp) -> Option<String> {
    let deadline = deadline?;
    let left = deadline
        .parse::<Timestamp>()
        .ok()
        .map(|deadline| deadline.duration_since(now));
    Some(match left {
        Some(left) if left.is_negative() => "delay:passed".to_owned(),
        Some(left) => format!("delay:{}", human(left)),
        None => "delay:".to_owned(),
    })
}

#[cfg(test)]
mod tests;
