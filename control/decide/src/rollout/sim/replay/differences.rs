//! Where we part from Argo on purpose: every place where a recording played again differs, and the row of docs/differences.md that says so.

/// A place where recordings and what we do part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Difference {
    /// The recordings in which it occurs, once each.
    pub(super) recordings: &'static [&'static str],
    pub(super) track: &'static str,
    /// What only Argo does there.
    pub(super) argo: &'static [&'static str],
    /// What only we do there.
    pub(super) ours: &'static [&'static str],
    /// The first cell of the row.
    pub(super) row: &'static str,
}

const HEALTHY: &str = "Healthy (R5.2, R8.7)";
const LOWERED: &str = "A lowered `setWeight` with routing (R8.1 f, R8.6)";
const FULL: &str = "`promote --full` with routing (R8.1 e, R8.7)";
const REVISION: &str = "The revision annotation (R1.3)";
const REWRITES: &str = "the controller writes the spec";

/// Recordings with routing.
const ROUTED: &[&str] = &[
    "dynamic-stable-abort-and-back",
    "routed-abort-retry",
    "routed-promote-full",
    "routed-two-weights",
    "routed-v1-v2-broken-v3",
    "routed-v1-v2-v3",
    "routed-weight-down",
];

/// All of them.
pub(super) const DIFFERENCES: &[Difference] = &[
    Difference {
        recordings: &["abort-first-deploy", "created-paused", "restart"],
        track: "rewrites",
        argo: &[REWRITES],
        ours: &[],
        row: REVISION,
    },
    Difference {
        recordings: &[
            "basic-canary-abort",
            "basic-weight-down",
            "bluegreen-manual-promotion",
            "pause-durations",
            "progress-deadline-abort",
            "routed-abort-retry",
            "routed-promote-full",
            "routed-two-weights",
            "routed-weight-down",
            "scale-and-step-change-while-paused",
        ],
        track: "rewrites",
        argo: &[REWRITES, REWRITES],
        ours: &[],
        row: REVISION,
    },
    Difference {
        recordings: &[
            "back-to-stable",
            "bluegreen-auto-promotion-and-back",
            "dynamic-stable-abort-and-back",
            "routed-v1-v2-broken-v3",
            "routed-v1-v2-v3",
        ],
        track: "rewrites",
        argo: &[REWRITES, REWRITES, REWRITES],
        ours: &[],
        row: REVISION,
    },
    Difference {
        recordings: ROUTED,
        track: "events",
        argo: &[],
        ours: &[
            "Normal ForeignRouterTranslated: spec.strategy.canary.trafficRouting.istio is carried out by Sidestep's proxies: nothing that it names exists",
        ],
        row: "`trafficRouting` blocks of routers that are not there (R2.22, `vs-missing`)",
    },
    // Promotions.
    Difference {
        recordings: &["routed-two-weights"],
        track: "states",
        argo: &[],
        ours: &["stable V2 current V2 flags - step 3 Progressing service cutover pending"],
        row: HEALTHY,
    },
    Difference {
        recordings: &["routed-promote-full"],
        track: "states",
        argo: &[],
        ours: &["stable V2 current V2 flags - step 4 Progressing service cutover pending"],
        row: HEALTHY,
    },
    Difference {
        recordings: &["routed-promote-full"],
        track: "steps",
        argo: &[],
        ours: &["weight 100"],
        row: FULL,
    },
    Difference {
        recordings: &["routed-promote-full"],
        track: "events",
        argo: &[],
        ours: &["Normal TrafficWeightUpdated: Traffic weight updated from 20 to 100"],
        row: FULL,
    },
    Difference {
        recordings: &["routed-promote-full"],
        track: "events",
        argo: &["Normal TrafficWeightUpdated: Traffic weight updated from 20 to 0"],
        ours: &["Normal TrafficWeightUpdated: Traffic weight updated from 100 to 0"],
        row: FULL,
    },
    // An abort.
    Difference {
        recordings: &["routed-abort-retry"],
        track: "services",
        argo: &[
            "web-canary to V2, which has pods",
            "web-canary to V1, which has pods",
            "web-canary to V2, which has pods",
            "web-canary to V1, which has pods",
            "web-canary to V2, which has pods",
            "web-canary to V1, which has pods",
        ],
        ours: &[],
        row: "The canary Service after an abort with routing (R11.2)",
    },
    // A weight that is lowered.
    Difference {
        recordings: &["routed-weight-down"],
        track: "sizes",
        argo: &["V2 4-0, carries 100 %, web-canary"],
        ours: &["V2 4-0, carries web-canary"],
        row: LOWERED,
    },
    Difference {
        recordings: &["routed-weight-down"],
        track: "events",
        argo: &["Normal ScalingReplicaSet: Scaled down ReplicaSet V2 (revision 2) from 4 to 0"],
        ours: &[],
        row: LOWERED,
    },
    Difference {
        recordings: &["routed-weight-down"],
        track: "events",
        argo: &[],
        ours: &["Normal ScalingReplicaSet: Scaled down ReplicaSet V2 (revision 2) from 4 to 0"],
        row: LOWERED,
    },
    // A step that has to be acknowledged.
    Difference {
        recordings: &["dynamic-stable-abort-and-back"],
        track: "events",
        argo: &["Normal RolloutStepCompleted: Rollout step 1/2 completed (setWeight: 20)"],
        ours: &[],
        row: STEP,
    },
    Difference {
        recordings: &["dynamic-stable-abort-and-back"],
        track: "events",
        argo: &[],
        ours: &["Normal RolloutStepCompleted: Rollout step 1/2 completed (setWeight: 20)"],
        row: STEP,
    },
];

const STEP: &str = "A `setWeight` step with routing (R7.7, R8.5)";
