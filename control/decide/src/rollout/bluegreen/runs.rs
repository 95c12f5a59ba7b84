//! The analyses before and after the switch (R14.7, R14.9, R11.4).

use super::super::observed::{Run, RunPhase};
use super::super::plan::BlueGreen;
use super::super::runs;
use super::super::turn::Turn;
use super::{gate, size, split};
use crate::analysis::build::Role;
use crate::api::rollout::{AnalysisRunSummary, RolloutAnalysis};

/// Acts on the verdict of the run that counts now: a bad one aborts, an unclear one pauses.
pub(super) fn judge(turn: &mut Turn<'_>) {
    if turn.stable.is_none() || turn.is_promoted() || turn.is_aborted() || turn.next.promote_full {
        return;
    }
    let (kind, run) = match is_active(turn) {
        false => ("Blue/green pre-promotion", before(turn)),
        true => ("Blue/green post-promotion", after(turn)),
    };
    if let Some(run) = run {
        runs::weigh(turn, kind, run);
    }
}

fn is_active(turn: &Turn<'_>) -> bool {
    turn.next.blue_green.active_selector.as_ref() == Some(&turn.new.hash)
}

fn before<'a>(turn: &Turn<'a>) -> Option<&'a Run> {
    let summary = &turn.was.blue_green.pre_promotion_analysis_run_status;
    runs::named(turn, summary.as_ref()?)
}

fn after<'a>(turn: &Turn<'a>) -> Option<&'a Run> {
    let summary = &turn.was.blue_green.post_promotion_analysis_run_status;
    runs::named(turn, summary.as_ref()?)
}

/// The analysis before the switch is good, or none is asked for.
pub(super) fn is_good_before(turn: &Turn<'_>, strategy: &BlueGreen) -> bool {
    strategy.before.is_none() || before(turn).is_some_and(|run| is_good(turn, run))
}

/// The analysis after the switch is good, or none is asked for.
pub(super) fn is_good_after(turn: &Turn<'_>, strategy: &BlueGreen) -> bool {
    let unwanted = strategy.after.is_none() || gate::is_waved_through(turn);
    unwanted || after(turn).is_some_and(|run| is_good(turn, run))
}

fn is_good(turn: &Turn<'_>, run: &Run) -> bool {
    run.phase == RunPhase::Successful && !runs::needs_another(turn, run)
}

/// Begins, follows and ends the runs of the update. What they came to stays in the status.
pub(super) fn follow(turn: &mut Turn<'_>, strategy: &BlueGreen) {
    if turn.scaling {
        return;
    }
    turn.analysed = true;
    let was = &turn.was.blue_green;
    let over = turn.is_promoted() || turn.is_aborted() || gate::is_waved_through(turn);
    let current = (before(turn), after(turn));
    let known = (
        was.pre_promotion_analysis_run_status.clone(),
        was.post_promotion_analysis_run_status.clone(),
    );
    let (pre, post) = match over {
        true => (
            current.0.map(runs::summary).or_else(|| known.0.clone()),
            current.1.map(runs::summary).or_else(|| known.1.clone()),
        ),
        false => (
            follow_before(turn, strategy, current.0),
            follow_after(turn, strategy, current.1),
        ),
    };
    turn.next
        .blue_green
        .pre_promotion_analysis_run_status
        .clone_from(&pre);
    turn.next
        .blue_green
        .post_promotion_analysis_run_status
        .clone_from(&post);
    let kept = [&pre, &post].into_iter().flatten().filter(|_| !over);
    let kept: Vec<String> = kept.map(|run| run.name.clone()).collect();
    runs::terminate(turn, &kept);
    runs::tell_of_change(turn, Role::PrePromotion.label(), known.0, pre);
    runs::tell_of_change(turn, Role::PostPromotion.label(), known.1, post);
    runs::delete_old(turn);
}

/// R14.9: begun when what is to be previewed is there; pods that come and go later begin no other.
fn follow_before(
    turn: &mut Turn<'_>,
    strategy: &BlueGreen,
    current: Option<&Run>,
) -> Option<AnalysisRunSummary> {
    let analysis = strategy.before.as_ref()?;
    if is_active(turn) || turn.next.blue_green.scale_up_preview_check_point {
        return current.map(runs::summary);
    }
    let may_begin = size::is_ready(turn, strategy) && split::is_shown(turn, strategy);
    one(turn, current, Role::PrePromotion, analysis, may_begin)
}

/// R14.7: begun when the switch is served.
fn follow_after(
    turn: &mut Turn<'_>,
    strategy: &BlueGreen,
    current: Option<&Run>,
) -> Option<AnalysisRunSummary> {
    let analysis = strategy.after.as_ref()?;
    let may_begin = is_active(turn) && super::is_verified(turn);
    one(turn, current, Role::PostPromotion, analysis, may_begin)
}

fn one(
    turn: &mut Turn<'_>,
    current: Option<&Run>,
    role: Role,
    analysis: &RolloutAnalysis,
    may_begin: bool,
) -> Option<AnalysisRunSummary> {
    let kept = current.filter(|run| turn.is_halted() || !runs::needs_another(turn, run));
    if kept.is_none() && !may_begin {
        return None;
    }
    let run = runs::keep_or_begin(turn, current, role, analysis)?;
    if !RunPhase::read(&run.status).is_finished() {
        let when = match role {
            Role::PostPromotion => "after",
            Role::PrePromotion | Role::Background | Role::Step(_) => "before",
        };
        turn.wait("analysis", format!("the analysis {when} promotion"), None);
    }
    Some(run)
}
