//! What `sidestep controller` needs to know.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use sidestep_control::lease;
use sidestep_control::reconcile::objects::Instance;
use sidestep_control::reconcile::routers::Policy;

use super::{Complaints, label, optional, port_range};
use crate::cli::ControllerArgs;

/// Where Argo's controller keeps its Lease when it is installed as its own guide says.
const LEASE_NAMESPACE: &str = "argo-rollouts";

/// Usable, but for the names that only the cluster knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControllerSettings {
    /// Look after the namespace of the session only.
    pub(crate) namespaced: bool,
    /// Which objects are this controller's own.
    pub(crate) instance: Instance,
    /// How to become the one that writes; none means that nobody else is there.
    pub(crate) election: Option<Election>,
    /// The namespace of the proxies' Services; none means that of the session.
    pub(crate) fleet_namespace: Option<String>,
    /// The Service that lists the proxies of the default fleet.
    pub(crate) fleet_service: String,
    /// Ports of the proxies that are given to Services without a selector.
    pub(crate) apex_ports: Option<RangeInclusive<u16>>,
    /// What to do about `trafficRouting` blocks of other routers.
    pub(crate) foreign_routers: Policy,
    /// The class of the Ingresses that the proxies serve.
    pub(crate) ingress_class: String,
    /// Write into Ingresses where callers find the proxies.
    pub(crate) ingress_status: bool,
    /// Rollouts looked at side by side.
    pub(crate) workers: NonZeroUsize,
    /// AnalysisRuns looked at side by side.
    pub(crate) run_workers: NonZeroUsize,
    /// How often all is looked at.
    pub(crate) resync: Duration,
    /// Where metrics are served.
    pub(crate) metrics: SocketAddr,
    /// Where probes are answered.
    pub(crate) health: SocketAddr,
}

/// How the one controller that writes is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Election {
    /// The Lease's namespace; none means that of the session.
    pub(crate) namespace: Option<String>,
    /// The Lease's name.
    pub(crate) lease: String,
    /// How long a leader that falls silent is waited for.
    pub(crate) duration: Duration,
    /// How long a leader goes on without a renewal.
    pub(crate) renew: Duration,
    /// How often the Lease is tried for.
    pub(crate) retry: Duration,
}

impl ControllerSettings {
    /// Makes the arguments usable.
    ///
    /// # Errors
    /// Every complaint, not only the first.
    pub(crate) fn new(args: &ControllerArgs) -> Result<Self, Complaints> {
        let mut complaints = Complaints::default();
        let mut name = |flag: &str, given: &Option<String>| {
            let given = given.as_deref().map(label).transpose();
            complaints.take(flag, given)
        };
        let instance_id = name("--instance-id", &args.instance_id);
        let fleet_namespace = name("--fleet-namespace", &args.fleet_namespace);
        let lease_namespace = name(
            "--leader-election-namespace",
            &args.leader_election_namespace,
        );
        let fleet_service = complaints.take("--fleet-service", label(&args.fleet_service));
        let foreign_routers = complaints.take("--foreign-routers", args.foreign_routers.parse());
        let apex_ports = optional(args.apex_ports.as_deref(), port_range);
        let apex_ports = complaints.take("--apex-ports", apex_ports);
        let ingress_class = complaints.take("--ingress-class", label(&args.ingress_class));
        complain_of_times(&mut complaints, args);
        if args.metrics_port == args.healthz_port && args.metrics_port != 0 {
            complaints.add(
                "--healthz-port",
                format!("{} is already that of --metrics-port", args.healthz_port),
            );
        }
        let settings = || {
            let instance_id = instance_id?;
            Some(Self {
                namespaced: args.namespaced,
                election: election(args, instance_id.as_deref(), lease_namespace?),
                instance: instance_id.map_or(Instance::Unlabelled, Instance::Named),
                fleet_namespace: fleet_namespace?,
                fleet_service: fleet_service?,
                apex_ports: apex_ports?,
                foreign_routers: foreign_routers?,
                ingress_class: ingress_class?,
                ingress_status: args.ingress_status,
                workers: args.rollout_threads,
                run_workers: args.analysis_threads,
                resync: args.rollout_resync,
                metrics: everywhere(args.metrics_port),
                health: everywhere(args.healthz_port),
            })
        };
        complaints.or(settings())
    }
}

fn election(
    args: &ControllerArgs,
    instance_id: Option<&str>,
    namespace: Option<String>,
) -> Option<Election> {
    let by_default = || (!args.namespaced).then(|| LEASE_NAMESPACE.to_owned());
    args.leader_elect.then(|| Election {
        namespace: namespace.or_else(by_default),
        lease: match instance_id {
            Some(id) => format!("{}-{id}", lease::LOCK),
            None => lease::LOCK.to_owned(),
        },
        duration: args.leader_election_lease_duration,
        renew: args.leader_election_renew_deadline,
        retry: args.leader_election_retry_period,
    })
}

/// A leader must have given up before another takes over, and must have had more than one attempt.
fn complain_of_times(complaints: &mut Complaints, args: &ControllerArgs) {
    let (duration, renew, retry) = (
        args.leader_election_lease_duration,
        args.leader_election_renew_deadline,
        args.leader_election_retry_period,
    );
    if duration.subsec_nanos() != 0 || duration.is_zero() {
        complaints.add(
            "--leader-election-lease-duration",
            "a Lease counts whole seconds, at least 1",
        );
    }
    if renew >= duration {
        complaints.add(
            "--leader-election-renew-deadline",
            format!("{renew:?} is not shorter than --leader-election-lease-duration, {duration:?}"),
        );
    }
    if retry.is_zero() || retry >= renew {
        complaints.add(
            "--leader-election-retry-period",
            format!("{retry:?} is not between 0 and --leader-election-renew-deadline, {renew:?}"),
        );
    }
    if args.rollout_resync.is_zero() {
        complaints.add(
            "--rollout-resync",
            "all Rollouts without end: give a time above 0",
        );
    }
}

/// All addresses of the pod.
fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ControllerArgs,
    }

    fn settings(line: &str) -> Result<ControllerSettings, Complaints> {
        let words = std::iter::once("controller").chain(line.split_whitespace());
        ControllerSettings::new(&Line::try_parse_from(words).unwrap().args)
    }

    fn said(line: &str) -> String {
        settings(line).unwrap_err().to_string()
    }

    /// Reference 1.12: the defaults are Argo's.
    #[test]
    fn without_flags_it_is_what_argos_is() {
        let found = settings("").unwrap();
        assert_eq!(found.instance, Instance::Unlabelled);
        assert_eq!(found.metrics.port(), 8090);
        assert_eq!(found.health.port(), 8080);
        assert_eq!(found.apex_ports, None);
        assert_eq!(found.resync, Duration::from_secs(900));
        let election = found.election.unwrap();
        assert_eq!(election.namespace.as_deref(), Some("argo-rollouts"));
        assert_eq!(election.lease, "argo-rollouts-controller-lock");
        let times = [election.duration, election.renew, election.retry];
        assert_eq!(times, [15, 10, 2].map(Duration::from_secs));
    }

    #[test]
    fn an_instance_has_a_lock_of_its_own_and_a_namespace_as_well() {
        let found = settings("--namespaced --instance-id blue").unwrap();
        assert_eq!(found.instance, Instance::Named("blue".to_owned()));
        let election = found.election.unwrap();
        assert_eq!(election.lease, "argo-rollouts-controller-lock-blue");
        assert_eq!(election.namespace, None);
        assert_eq!(settings("--leader-elect=false").unwrap().election, None);
    }

    #[test]
    fn ports_for_apexes_are_a_range() {
        let found = |line: &str| settings(line).map(|found| found.apex_ports);
        assert_eq!(found("--apex-ports 10000-10511"), Ok(Some(10000..=10511)));
        for odd in ["10000", "0-1", "2-1", "1-65536"] {
            let complaint =
                format!("--apex-ports: `{odd}` is no range of ports such as 10000-10511");
            assert_eq!(said(&format!("--apex-ports {odd}")), complaint);
        }
    }

    #[test]
    fn what_cannot_be_is_complained_of_by_flag_all_at_once() {
        assert_eq!(
            said("--leader-election-lease-duration 5s --healthz-port 8090 --foreign-routers never"),
            "--foreign-routers: \"never\" is neither \"auto\" nor \"translate\"\n\
             --leader-election-renew-deadline: 10s is not shorter than --leader-election-lease-duration, 5s\n\
             --healthz-port: 8090 is already that of --metrics-port"
        );
        assert_eq!(
            said(
                "--leader-election-retry-period 0 --leader-election-lease-duration 1500ms --leader-election-renew-deadline 1s"
            ),
            "--leader-election-lease-duration: a Lease counts whole seconds, at least 1\n\
             --leader-election-retry-period: 0ns is not between 0 and --leader-election-renew-deadline, 1s"
        );
        assert!(said("--instance-id Blue").starts_with("--instance-id: `Blue` is no name"));
    }
}
