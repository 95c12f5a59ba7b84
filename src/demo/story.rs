//! The story of the demo, told by doing it: a good canary walks its steps and is promoted; a bad one is rolled back by analysis.
//!
//! It does what a user would do, with the same commands, and believes only what its own load saw.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use sidestep_control::api::rollout::RolloutStatus;
use sidestep_proxy::TableHandle;
use sidestep_proxy::report::Share;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::load::{Load, Tally};
use crate::client::Session;
use crate::commands::live::Live;
use crate::commands::promote::Reach;
use crate::commands::rollouts::Rollouts;
use crate::commands::{promote, set_image};
use crate::settings::ContainerImage;
use crate::view::info::Objects;

/// The Rollout of `examples/demo.yaml`.
pub(super) const NAME: &str = "demo";
/// The version that the bad canary's answers name.
const BAD: &str = "red";
/// Requests counted at each step: enough that one percentage point is far outside of chance.
const REQUESTS_PER_STEP: u64 = 5_000;
/// Longest count; the pauses of the manifests are longer, so that it ends before the weight moves on.
const COUNT_MAX: Duration = Duration::from_secs(25);
/// No chapter takes longer, on any machine.
const CHAPTER_MAX: Duration = Duration::from_secs(60);
/// How long the load goes on after the verdict, to see whether anything still reaches the bad canary.
const AFTERMATH: Duration = Duration::from_secs(3);
/// How often a window's count is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the load saw, for `--report`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// Requests sent and answered, or broken.
    requests: u64,
    failures: Failures,
    steps: Vec<Step>,
    promoted: bool,
    rolled_back: bool,
    /// From the run's verdict to the last answer of the bad canary; 0 if that came before the verdict.
    verdict_to_last_canary_request_ms: Option<u64>,
}

/// Failed requests by who made them fail.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Failures {
    /// Nobody on purpose. The bar is 0.
    pub(super) unexpected: u64,
    /// The bad canary, on purpose.
    pub(super) canary: u64,
}

/// One step of the good canary.
#[derive(Clone, Copy, Debug, Serialize)]
struct Step {
    /// The weight of the step.
    weight: i32,
    /// The share it asks for, as a fraction of 1.
    expected: f64,
    /// The share that the load saw.
    measured: f64,
    /// Requests counted.
    requests: u64,
}

impl Report {
    /// Everything went as promised, or what did not.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        let mut complaints = Vec::new();
        if self.failures.unexpected > 0 {
            complaints.push(format!(
                "{} requests failed that no bad canary made fail",
                self.failures.unexpected
            ));
        }
        for step in self
            .steps
            .iter()
            .filter(|step| (step.measured - step.expected).abs() > 0.01)
        {
            complaints.push(format!(
                "at weight {} the share was {:.4}",
                step.weight, step.measured
            ));
        }
        if !self.promoted {
            complaints.push("the good canary was not promoted".to_owned());
        }
        if !self.rolled_back {
            complaints.push("the bad canary was not rolled back".to_owned());
        }
        if complaints.is_empty() {
            Ok(())
        } else {
            bail!("{}", complaints.join("; "))
        }
    }
}

/// Failures seen so far.
pub(super) fn failures(total: &Tally) -> Failures {
    let canary = total.of(BAD).errors;
    let errors: u64 = total.versions.values().map(|seen| seen.errors).sum();
    Failures {
        unexpected: total.broken + errors - canary,
        canary,
    }
}

/// The teller: what it watches, what it does it with, and whom it tells.
pub(super) struct Story<'a> {
    pub(super) session: &'a Session,
    pub(super) live: Live,
    pub(super) load: &'a Load,
    /// Everything known of the rollout, for the picture.
    pub(super) seen: watch::Sender<Objects>,
    /// The lines told so far.
    pub(super) lines: watch::Sender<Vec<String>>,
}

impl Story<'_> {
    /// Tells the whole story.
    ///
    /// # Errors
    /// When a chapter does not end as it should within its time.
    pub(super) async fn tell(&mut self) -> anyhow::Result<Report> {
        let mut report = Report::default();
        self.say(
            "five pods of blue behind one Service; clients send to it through the proxy".to_owned(),
        );
        self.good_canary(&mut report)
            .await
            .context("the good canary")?;
        self.bad_canary(&mut report)
            .await
            .context("the bad canary")?;
        let total = self.load.total();
        report.requests = total.requests() + total.broken;
        report.failures = failures(&total);
        for message in total.messages {
            self.say(format!("a request broke: {message}"));
        }
        Ok(report)
    }

    async fn good_canary(&mut self, report: &mut Report) -> anyhow::Result<()> {
        self.set_image("yellow").await?;
        self.say("a new version, yellow: its weight moves step by step".to_owned());
        for (index, weight) in steps(&self.live.objects()?) {
            self.until(
                "the weight to be verified and the pause to begin",
                |status| is_paused_at(status, index, weight),
            )
            .await?;
            let step = self.measure(weight).await?;
            self.say(format!(
                "weight {weight}: {} requests, {:.2} % of them answered by yellow; on to the next step",
                step.requests,
                step.measured * 100.0
            ));
            report.steps.push(step);
            promote::promote(&Rollouts::of(self.session), NAME, Reach::Next).await?;
        }
        self.until("the promotion", is_promoted).await?;
        report.promoted = true;
        self.say("every step passed its analysis: yellow is promoted, it is stable now".to_owned());
        Ok(())
    }

    async fn bad_canary(&mut self, report: &mut Report) -> anyhow::Result<()> {
        self.set_image("bad-red").await?;
        self.say(
            "a new version, red, that fails for 15 % of its requests: watch the analysis"
                .to_owned(),
        );
        self.until("the analysis to fail", |status| {
            status.abort || background_phase(status) == "Failed"
        })
        .await?;
        let verdict = Instant::now();
        self.say(
            "the analysis failed: the rollout is aborted, all traffic goes back to yellow"
                .to_owned(),
        );
        self.until("the roll-back", is_rolled_back).await?;
        sleep(AFTERMATH).await;
        self.until("the roll-back to last", is_rolled_back).await?;
        report.rolled_back = true;
        let last = self
            .load
            .last_answer(BAD)
            .context("the bad canary never answered")?;
        let after = last.saturating_duration_since(verdict);
        report.verdict_to_last_canary_request_ms = u64::try_from(after.as_millis()).ok();
        self.say(format!(
            "the last request on red was answered {} ms after the verdict",
            after.as_millis()
        ));
        Ok(())
    }

    /// Counts the requests of one step: those sent after the weight was verified and before the pause ends.
    async fn measure(&self, weight: i32) -> anyhow::Result<Step> {
        let window = self.load.open_window();
        timeout(COUNT_MAX, self.enough(window))
            .await
            .with_context(|| format!("{REQUESTS_PER_STEP} requests at weight {weight}"))?;
        self.load.open_window();
        let tally = self.load.window(window);
        Ok(Step {
            weight,
            expected: f64::from(weight) / 100.0,
            measured: ratio(tally.of("yellow").requests, tally.requests()),
            requests: tally.requests(),
        })
    }

    /// Returns once a window has enough requests.
    async fn enough(&self, window: usize) {
        while self.load.window(window).requests() < REQUESTS_PER_STEP {
            sleep(LOOK_EVERY).await;
        }
    }

    async fn set_image(&self, tag: &str) -> anyhow::Result<()> {
        let image = ContainerImage {
            container: "app".to_owned(),
            image: format!("rollouts-demo:{tag}"),
        };
        set_image::set_image(&Rollouts::of(self.session), NAME, &image).await?;
        Ok(())
    }

    /// Waits until the rollout's status is as wanted.
    pub(super) async fn until(
        &mut self,
        what: &str,
        is_so: impl Fn(&RolloutStatus) -> bool,
    ) -> anyhow::Result<()> {
        let wait = timeout(CHAPTER_MAX, async {
            loop {
                let objects = self.live.objects()?;
                let done = objects.rollout.status.as_ref().is_some_and(&is_so);
                self.seen.send_replace(objects);
                if done {
                    return anyhow::Ok(());
                }
                self.live.changed().await;
            }
        });
        match wait.await {
            Ok(done) => done,
            Err(_) => bail!("waited {CHAPTER_MAX:?} for {what}"),
        }
    }

    /// Goes on watching, for the picture; never ends by itself.
    pub(super) async fn follow(&mut self) -> anyhow::Result<()> {
        loop {
            self.seen.send_replace(self.live.objects()?);
            self.live.changed().await;
        }
    }

    /// Adds a line to the story.
    pub(super) fn say(&self, line: String) {
        self.lines.send_modify(|lines| lines.push(line));
    }
}

/// Waits until the first version is Healthy and the proxy serves it whole.
///
/// # Errors
/// When that takes too long.
pub(super) async fn first_version(live: &mut Live, tables: &TableHandle) -> anyhow::Result<()> {
    let up = timeout(CHAPTER_MAX, async {
        live.ready().await?;
        while !live
            .objects()?
            .rollout
            .status
            .as_ref()
            .is_some_and(is_promoted)
        {
            live.changed().await;
        }
        let mut changes = tables.changes();
        while !is_served_whole(tables) {
            changes.changed().await?;
        }
        anyhow::Ok(())
    });
    up.await
        .context("the first version did not become Healthy in time")?
}

fn is_served_whole(tables: &TableHandle) -> bool {
    let splits = tables.report(Instant::now()).splits;
    let mut shares = splits
        .iter()
        .filter(|split| split.name == NAME)
        .flat_map(|split| &split.rules)
        .flat_map(|rule| &rule.shares)
        .peekable();
    #[expect(
        clippy::float_cmp,
        reason = "the two are the very same number where nothing is missing"
    )]
    let whole = |share: &Share| share.effective == share.desired;
    shares.peek().is_some() && shares.all(whole)
}

/// The weights that a pause follows: index of the pause, weight before it.
fn steps(objects: &Objects) -> Vec<(i32, i32)> {
    let canary = objects.rollout.spec.strategy.canary.as_ref();
    let steps = canary
        .and_then(|canary| canary.steps.as_deref())
        .unwrap_or_default();
    let pairs = steps.windows(2).zip(1..);
    pairs
        .filter_map(|(pair, index)| {
            Some((
                index,
                pair[0].set_weight.filter(|_| pair[1].pause.is_some())?,
            ))
        })
        .collect()
}

fn is_paused_at(status: &RolloutStatus, index: i32, weight: i32) -> bool {
    let set = status.canary.weights.as_ref();
    let verified = set
        .is_some_and(|weights| weights.canary.weight == weight && weights.verified == Some(true));
    status.current_step_index == Some(index) && !status.pause_conditions.is_empty() && verified
}

fn is_promoted(status: &RolloutStatus) -> bool {
    status.phase.as_deref() == Some("Healthy") && status.stable_rs == status.current_pod_hash
}

fn is_rolled_back(status: &RolloutStatus) -> bool {
    let back = status
        .canary
        .weights
        .as_ref()
        .is_some_and(|weights| weights.canary.weight == 0);
    status.abort && back && status.phase.as_deref() == Some("Degraded")
}

fn background_phase(status: &RolloutStatus) -> &str {
    status
        .canary
        .current_background_analysis_run_status
        .as_ref()
        .map_or("", |run| &run.status)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a few seconds fit a double exactly"
)]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}
