//! AnalysisRuns: whose verdict counts, which to begin, which to end, which to delete (R16).

use super::decision::Action;
use super::observed::{Run, RunPhase};
use super::plan::{Plan, Step};
use super::rollback;
use super::state::PauseReason;
use super::turn::Turn;
use crate::analysis::build::{self, Order, Role};
use crate::api::analysis::AnalysisRun;
use crate::api::rollout::{AnalysisRunSummary, RolloutAnalysis};

/// Acts on the verdicts of the current runs: a bad one aborts, an unclear one pauses (R11.4, R10.3).
///
/// This comes before traffic, so that a version that has failed leaves in the same turn.
pub(super) fn judge(turn: &mut Turn<'_>) {
    if turn.is_promoted() || is_over(turn) {
        return;
    }
    let step = matches!(turn.step(), Some(Step::Analysis(_)));
    let current = [
        ("Step-based", step_run(turn).filter(|_| step)),
        ("Background", background_run(turn)),
    ];
    for (kind, run) in current {
        if let Some(run) = run {
            weigh(turn, kind, run);
        }
    }
}

/// Acts on the verdict of one run.
pub(super) fn weigh(turn: &mut Turn<'_>, kind: &str, run: &Run) {
    if needs_another(turn, run) {
        return;
    }
    match run.phase {
        RunPhase::Failed | RunPhase::Error => {
            let cause = format!("{kind} analysis phase error/failed: {}", run.message);
            turn.will.abort.get_or_insert(cause);
        }
        RunPhase::Inconclusive if turn.was.pause(&PauseReason::Inconclusive).is_none() => {
            turn.will.pause = Some(PauseReason::Inconclusive);
        }
        RunPhase::Inconclusive | RunPhase::Pending | RunPhase::Running | RunPhase::Successful => {}
    }
}

fn step_run<'a>(turn: &Turn<'a>) -> Option<&'a Run> {
    named(turn, turn.was.step_run.as_ref()?)
}

fn background_run<'a>(turn: &Turn<'a>) -> Option<&'a Run> {
    named(turn, turn.was.background_run.as_ref()?)
}

pub(super) fn named<'a>(turn: &Turn<'a>, summary: &AnalysisRunSummary) -> Option<&'a Run> {
    turn.observed
        .runs
        .iter()
        .find(|run| run.name == summary.name)
}

/// What failed, for the memory of an abort.
pub(super) fn failed<'a>(turn: &Turn<'a>) -> Option<&'a Run> {
    let was = turn.was;
    let current = [
        &was.step_run,
        &was.background_run,
        &was.blue_green.pre_promotion_analysis_run_status,
        &was.blue_green.post_promotion_analysis_run_status,
    ];
    let mut current = current
        .into_iter()
        .filter_map(|summary| named(turn, summary.as_ref()?));
    current.find(|run| matches!(run.phase, RunPhase::Failed | RunPhase::Error))
}

/// An analysis of the update has failed, also one that has been deleted since.
pub(super) fn has_failed(turn: &Turn<'_>) -> bool {
    let known = [&turn.was.step_run, &turn.was.background_run];
    let noted = |summary: &AnalysisRunSummary| RunPhase::read(&summary.status) == RunPhase::Failed;
    let seen = |run: &Run| run.phase == RunPhase::Failed;
    let mut known = known.into_iter().flatten();
    known.any(|summary| noted(summary) || named(turn, summary).is_some_and(seen))
}

/// A run belongs to an earlier try: it was unclear and a person resumed, or the update is tried again (R16.5).
pub(super) fn needs_another(turn: &Turn<'_>, run: &Run) -> bool {
    let was = turn.was;
    let paused = [PauseReason::Step, PauseReason::BlueGreen]
        .iter()
        .any(|reason| was.pause(reason).is_some());
    let resumed = was.controller_pause && !paused;
    if was.pause(&PauseReason::Inconclusive).is_some() {
        return false;
    }
    match resumed {
        true => run.phase == RunPhase::Inconclusive,
        false => was.aborted_at.is_some(),
    }
}

/// Nothing is judged any more, or not at all (R16.4).
fn is_over(turn: &Turn<'_>) -> bool {
    turn.stable.is_none() || turn.is_aborted() || turn.next.promote_full || rollback::is_fast(turn)
}

/// Begins, follows and ends the runs of the update.
pub(super) fn follow(turn: &mut Turn<'_>) {
    turn.analysed = true;
    if is_over(turn) {
        turn.next.step_run = step_run(turn)
            .map(summary)
            .or_else(|| turn.was.step_run.clone());
        turn.next.background_run = background_run(turn)
            .map(summary)
            .or_else(|| turn.was.background_run.clone());
        terminate(turn, &[]);
    } else {
        turn.next.step_run = follow_step(turn);
        turn.next.background_run = follow_background(turn);
        let current = [&turn.next.step_run, &turn.next.background_run];
        let current: Vec<String> = current
            .into_iter()
            .flatten()
            .map(|run| run.name.clone())
            .collect();
        terminate(turn, &current);
    }
    tell_of_changes(turn);
    delete_old(turn);
}

fn follow_step(turn: &mut Turn<'_>) -> Option<AnalysisRunSummary> {
    let index = turn.step_index()?;
    let Some(Step::Analysis(analysis)) = turn.step().filter(|_| !turn.is_promoted()) else {
        return None;
    };
    let role = Role::Step(i32::try_from(index).unwrap_or(i32::MAX));
    let current = step_run(turn);
    if current.is_some_and(|run| !run.phase.is_finished()) {
        turn.wait("analysis", "the analysis of the step".to_owned(), None);
    }
    keep_or_begin(turn, current, role, analysis)
}

fn follow_background(turn: &mut Turn<'_>) -> Option<AnalysisRunSummary> {
    let background = turn.plan.canary()?.background.as_ref()?;
    let started = turn
        .step_index()
        .is_none_or(|index| index >= background.starting_step);
    if turn.is_promoted() || !started {
        return None;
    }
    keep_or_begin(
        turn,
        background_run(turn),
        Role::Background,
        &background.analysis,
    )
}

pub(super) fn keep_or_begin(
    turn: &mut Turn<'_>,
    current: Option<&Run>,
    role: Role,
    analysis: &RolloutAnalysis,
) -> Option<AnalysisRunSummary> {
    match current {
        Some(run) if turn.is_halted() || !needs_another(turn, run) => Some(summary(run)),
        None if turn.is_halted() => None,
        Some(_) | None => begin(turn, role, analysis),
    }
}

pub(super) fn summary(run: &Run) -> AnalysisRunSummary {
    AnalysisRunSummary {
        name: run.name.clone(),
        status: run.phase.word().to_owned(),
        message: run.message.clone(),
    }
}

/// Creates a run, or takes up the one that an earlier try of this turn created.
fn begin(
    turn: &mut Turn<'_>,
    role: Role,
    analysis: &RolloutAnalysis,
) -> Option<AnalysisRunSummary> {
    match build(turn, role, analysis) {
        Ok(Made::Exists(run)) => Some(summary(run)),
        Ok(Made::New(run)) => {
            let name = run.metadata.name.clone().unwrap_or_default();
            let status = RunPhase::Pending.word().to_owned();
            turn.act(Action::CreateAnalysisRun(run));
            Some(AnalysisRunSummary {
                name,
                status,
                message: String::new(),
            })
        }
        Err(error) => {
            turn.warn("ReconciliationError", error.to_string());
            turn.wait(
                "analysis",
                format!("an analysis that can be begun: {error}"),
                None,
            );
            None
        }
    }
}

enum Made<'a> {
    New(Box<AnalysisRun>),
    Exists(&'a Run),
}

/// R16.1: the first free name; an unfinished run of the name is the one.
fn build<'a>(
    turn: &Turn<'a>,
    role: Role,
    analysis: &RolloutAnalysis,
) -> Result<Made<'a>, crate::analysis::template::Error> {
    let Plan {
        rollout, templates, ..
    } = turn.plan;
    let latest = &turn.new.hash;
    let stable = turn.stable.map_or("", |stable| &stable.hash);
    let revision = &turn.number.to_string();
    let mut attempt = 0;
    loop {
        let order = Order {
            rollout,
            role,
            analysis,
            templates,
            latest,
            stable,
            revision,
            attempt,
        };
        let run = build::run(&order)?;
        let taken = turn
            .observed
            .runs
            .iter()
            .find(|other| Some(&other.name) == run.metadata.name.as_ref());
        match taken {
            None => return Ok(Made::New(Box::new(run))),
            Some(other) if !other.phase.is_finished() && !other.terminating => {
                return Ok(Made::Exists(other));
            }
            Some(_) => attempt += 1,
        }
    }
}

/// Ends all runs but the current ones (R16.3, R16.4).
pub(super) fn terminate(turn: &mut Turn<'_>, current: &[String]) {
    for run in &turn.observed.runs {
        let ours = run.role.is_some() && !current.contains(&run.name);
        if ours && !run.phase.is_finished() && !run.terminating {
            turn.act(Action::TerminateAnalysisRun {
                name: run.name.clone(),
            });
        }
    }
}

fn tell_of_changes(turn: &mut Turn<'_>) {
    let was = turn.was;
    let changes = [
        ("Step", was.step_run.clone(), turn.next.step_run.clone()),
        (
            "Background",
            was.background_run.clone(),
            turn.next.background_run.clone(),
        ),
    ];
    for (kind, before, after) in changes {
        tell_of_change(turn, kind, before, after);
    }
}

/// Tells that the run of one kind has another phase than before.
pub(super) fn tell_of_change(
    turn: &mut Turn<'_>,
    kind: &str,
    before: Option<AnalysisRunSummary>,
    after: Option<AnalysisRunSummary>,
) {
    let Some(AnalysisRunSummary { name, status, .. }) = after else {
        return;
    };
    let before = before.map_or_else(|| "NoPreviousStatus".to_owned(), |run| run.status);
    if before == status {
        return;
    }
    let message =
        format!("{kind} Analysis Run '{name}' Status New: '{status}' Previous: '{before}'");
    match RunPhase::read(&status) {
        RunPhase::Pending => turn.tell("AnalysisRunPending", message),
        RunPhase::Running => turn.tell("AnalysisRunRunning", message),
        RunPhase::Successful => turn.tell("AnalysisRunSuccessful", message),
        RunPhase::Inconclusive => turn.tell("AnalysisRunInconclusive", message),
        RunPhase::Failed => turn.warn("AnalysisRunFailed", message),
        RunPhase::Error => turn.warn("AnalysisRunError", message),
    }
}

/// Finished runs beyond the limits go, the oldest first; so do those of revisions that are gone (R7.12).
pub(super) fn delete_old(turn: &mut Turn<'_>) {
    let next = &turn.next;
    let current = [
        &next.step_run,
        &next.background_run,
        &next.blue_green.pre_promotion_analysis_run_status,
        &next.blue_green.post_promotion_analysis_run_status,
    ];
    let is_current = |run: &Run| {
        current
            .iter()
            .any(|summary| summary.as_ref().is_some_and(|s| s.name == run.name))
    };
    let mut finished: Vec<&Run> = turn
        .observed
        .runs
        .iter()
        .filter(|run| run.role.is_some())
        .collect();
    finished.retain(|run| run.phase.is_finished() && !is_current(run));
    finished.sort_by_key(|run| std::cmp::Reverse(run.created_at));
    let (mut successful, mut others) = (0, 0);
    let limits = turn.plan.run_history;
    for run in finished {
        let (count, limit) = match run.phase == RunPhase::Successful {
            true => (&mut successful, limits.successful),
            false => (&mut others, limits.unsuccessful),
        };
        *count += 1;
        let orphan = turn
            .observed
            .revisions
            .iter()
            .all(|set| set.hash != run.hash);
        if *count > limit || orphan {
            turn.act(Action::DeleteAnalysisRun {
                name: run.name.clone(),
            });
        }
    }
}

/// The analysis of the current step is good.
pub(super) fn step_succeeded(turn: &Turn<'_>) -> bool {
    let run = turn.next.step_run.as_ref();
    run.is_some_and(|run| RunPhase::read(&run.status) == RunPhase::Successful)
}
