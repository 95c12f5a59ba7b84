//! Argo's recorded runs, played again by the simulation, and what we do in them compared with what Argo did.
//!
//! A recording has the spec, what users did and when, how long pods took, and every change of an object and every event that was seen
//! of Argo Rollouts (commit 9f8d111d, Kubernetes 1.35, pods that start within 1 s and stop within 0.5 s). The same spec, users and pods,
//! with our controller and two proxies that follow at once, give another list of changes and events. All rules of the simulation hold on
//! the way. What is compared is, in order and at the same times up to a second, for each track of its own:
//!
//! | track | entries |
//! |---|---|
//! | `states` | stable and current revision, abort, pauses, full promotion, active and preview selector, step index, phase and message, as one status says them |
//! | `steps` | weight, stable revision and step index in the order in which they change |
//! | `sizes` | every size of every ReplicaSet, one after the other, and what it carries at that moment: share of the traffic, Services |
//! | `losses` | available pods of a ReplicaSet that lost some without being made smaller |
//! | `traffic` | where the traffic goes, whenever it moves, and the available pods and the size of what takes it |
//! | `services` | every Service that is pointed at a revision, and what that has to answer with |
//! | `revisions`, `deadlines` | the revision numbers of ReplicaSets, their deadlines |
//! | `events` | type, reason and text |
//! | `rewrites` | every time that the spec is written and not by a user |
//! | `rest` | replicas, updated, available, and pods of every ReplicaSet, in the end |
//!
//! So the order between two tracks counts where it is a matter of safety: `sizes` says what a ReplicaSet carried when it shrank, `traffic`
//! and `services` what was there to carry it when traffic came. Otherwise two tracks may run beside each other as they like, since two
//! controllers write one after the other what they decide at once. Not compared are pods (they are given), a message that counts pods
//! and stands for less than a fifth of a second (it tells which of two counts was read first), and the events after the 25th, which no
//! cluster keeps. In place of what Istio is told of, weights and Services say where Argo's traffic went; of ours, the Split does.
//!
//! Every place where the two part stands in `differences`, with the row of docs/differences.md that argues for it.

mod compare;
mod differences;
mod events;
mod facts;
mod play;
mod recording;
mod tests;
mod tracks;

/// The recordings, by name.
const RECORDINGS: &[(&str, &str)] = &[
    (
        "abort-first-deploy",
        include_str!("replay/recordings/abort-first-deploy.txt"),
    ),
    (
        "back-to-stable",
        include_str!("replay/recordings/back-to-stable.txt"),
    ),
    (
        "basic-canary-abort",
        include_str!("replay/recordings/basic-canary-abort.txt"),
    ),
    (
        "basic-weight-down",
        include_str!("replay/recordings/basic-weight-down.txt"),
    ),
    (
        "bluegreen-auto-promotion-and-back",
        include_str!("replay/recordings/bluegreen-auto-promotion-and-back.txt"),
    ),
    (
        "bluegreen-manual-promotion",
        include_str!("replay/recordings/bluegreen-manual-promotion.txt"),
    ),
    (
        "created-paused",
        include_str!("replay/recordings/created-paused.txt"),
    ),
    (
        "dynamic-stable-abort-and-back",
        include_str!("replay/recordings/dynamic-stable-abort-and-back.txt"),
    ),
    (
        "pause-durations",
        include_str!("replay/recordings/pause-durations.txt"),
    ),
    (
        "progress-deadline-abort",
        include_str!("replay/recordings/progress-deadline-abort.txt"),
    ),
    ("restart", include_str!("replay/recordings/restart.txt")),
    (
        "routed-abort-retry",
        include_str!("replay/recordings/routed-abort-retry.txt"),
    ),
    (
        "routed-promote-full",
        include_str!("replay/recordings/routed-promote-full.txt"),
    ),
    (
        "routed-two-weights",
        include_str!("replay/recordings/routed-two-weights.txt"),
    ),
    (
        "routed-v1-v2-broken-v3",
        include_str!("replay/recordings/routed-v1-v2-broken-v3.txt"),
    ),
    (
        "routed-v1-v2-v3",
        include_str!("replay/recordings/routed-v1-v2-v3.txt"),
    ),
    (
        "routed-weight-down",
        include_str!("replay/recordings/routed-weight-down.txt"),
    ),
    (
        "scale-and-step-change-while-paused",
        include_str!("replay/recordings/scale-and-step-change-while-paused.txt"),
    ),
];
