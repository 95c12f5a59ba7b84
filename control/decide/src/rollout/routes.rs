//! Header and mirror routes in force (R27): each stands from its step until a step without matches takes it away, and all of them go
//! with the update.

use super::plan::{RouteStep, Step};
use super::turn::Turn;
use crate::api::split::SplitRoute;

/// The routes that the Split has now, in the order of `managedRoutes`; none unless the new revision is a version of the Split.
pub(super) fn in_force(turn: &Turn<'_>, is_listed: bool) -> Vec<SplitRoute> {
    let Some(routing) = turn.routing().filter(|_| is_listed) else {
        return Vec::new();
    };
    if turn.next.promote_full {
        return Vec::new();
    }
    let steps = turn.plan.steps();
    let begun = turn.step_index().map_or(0, |index| index + 1);
    let names = routing.managed_routes.iter();
    names
        .filter_map(|name| last(steps.iter().take(begun), name)?.route.clone())
        .collect()
}

/// What the last of these steps says of a route.
fn last<'a>(steps: impl DoubleEndedIterator<Item = &'a Step>, name: &str) -> Option<&'a RouteStep> {
    let route = |step: &'a Step| match step {
        Step::SetRoute(route) => Some(route.as_ref()),
        Step::SetWeight(_) | Step::SetCanaryScale(_) | Step::Pause(_) | Step::Analysis(_) => None,
    };
    steps
        .rev()
        .filter_map(route)
        .find(|route| route.name == name)
}
