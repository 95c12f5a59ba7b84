//! What the user typed: the command line as clap sees it. No I/O; `settings` makes it usable, `commands` does it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{
    ArgAction, ArgGroup, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
};

/// Canary routing without the mesh: an L7 proxy and Argo-compatible rollouts in one binary.
#[derive(Debug, Parser)]
#[command(
    name = "sidestep",
    version,
    propagate_version = false,
    max_term_width = 120
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Which cluster, as whom.
    #[command(flatten)]
    pub(crate) connection: Connection,
}

impl Cli {
    /// Reads a command line whose first word is the program. As `kubectl-sidestep` it is called `kubectl sidestep` in all that it says.
    ///
    /// # Errors
    /// What is wrong with it, or the help that was asked for.
    pub(crate) fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut words = words.into_iter().peekable();
        let mut command = Self::command();
        if words
            .peek()
            .is_some_and(|program| is_called(program, "kubectl-sidestep"))
        {
            command = command.bin_name("kubectl sidestep");
        }
        let mut found = command.try_get_matches_from_mut(words)?;
        Self::from_arg_matches_mut(&mut found).map_err(|error| error.format(&mut command))
    }
}

/// Whether the program has been called by this name, whatever its folder.
pub(crate) fn is_called(program: impl AsRef<Path>, name: &str) -> bool {
    program
        .as_ref()
        .file_name()
        .is_some_and(|file| file == name)
}

/// Which cluster, as whom: the flags of `kubectl`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Path to the kubeconfig file; else $KUBECONFIG, else ~/.kube/config, else the one `sidestep run` wrote
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Name of the kubeconfig context to use
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Name of the kubeconfig cluster to use
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// Name of the kubeconfig user to use
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Namespace; else the context's, else `default`
    #[arg(short = 'n', long, global = true, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Address and port of the API server
    #[arg(short = 's', long, global = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Bearer token for the API server
    #[arg(long, global = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// User to impersonate
    #[arg(long = "as", global = true, value_name = "USER")]
    pub(crate) impersonate: Option<String>,
    /// Group to impersonate; may be repeated
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub(crate) impersonate_groups: Vec<String>,
    /// Uid to impersonate
    #[arg(long = "as-uid", global = true, value_name = "UID")]
    pub(crate) impersonate_uid: Option<String>,
    /// PEM file of the authorities that the API server's certificate may be of
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) certificate_authority: Option<PathBuf>,
    /// Take any certificate of the API server: whoever is on the way can read and change everything
    #[arg(long, global = true, conflicts_with = "certificate_authority")]
    pub(crate) insecure_skip_tls_verify: bool,
    /// Name that the API server's certificate must be of; else that of the URL
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) tls_server_name: Option<String>,
    /// PEM file of the certificate to show to the API server
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) client_certificate: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) client_key: Option<PathBuf>,
    /// How long the API server may leave a request without a word, such as 30s; 0 for ever
    #[arg(
        long, global = true, value_name = "DURATION", default_value = "0",
        value_parser = crate::settings::request_timeout
    )]
    pub(crate) request_timeout: std::time::Duration,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole story on this machine: a good canary promoted, a bad one rolled back
    Demo(DemoArgs),
    /// Run proxy, controller and a one-machine cluster in this process, for your manifests
    Run(Box<RunArgs>),
    /// Run the controller of a cluster: it moves Rollouts through their steps
    Controller(Box<ControllerArgs>),
    /// Run a proxy of a cluster: it serves Ingresses and splits what goes to the Services of Rollouts
    Proxy(Box<ProxyArgs>),
    /// One read or patch.
    #[command(flatten)]
    Verb(Verb),
}

/// The everyday verbs: against a cluster, or against what `run` or `demo` started.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Get details about a rollout
    Get(GetArgs),
    /// List rollouts
    List(ListArgs),
    /// Watch a rollout until it is Healthy or Degraded
    Status(StatusArgs),
    /// Promote a rollout to its next step, or to the end
    Promote(PromoteArgs),
    /// Abort a rollout: all traffic back to stable
    Abort(NamesArgs),
    /// Retry an aborted rollout
    Retry(RetryArgs),
    /// Roll back to the previous revision, or to a chosen one
    Undo(UndoArgs),
    /// Pause a rollout
    Pause(NamesArgs),
    /// Restart the pods of a rollout
    Restart(RestartArgs),
    /// Update a rollout
    Set(SetArgs),
    /// Check manifests without applying them
    Lint(LintArgs),
    /// Tell what stands in the way of taking over from Argo Rollouts; writes nothing
    Preflight(PreflightArgs),
    /// Give the traffic of rollouts back, so that Argo Rollouts can go on with them
    ///
    /// Takes Sidestep's routing out of the Rollout and waits until its controller has given everything back: the Services select the stable
    /// revision, which has its full size and all of the traffic as every proxy has acknowledged, and the Split and the revision Services
    /// are deleted. No request fails on the way. A Rollout in the middle of an update is refused: promote or abort it first.
    Release(ReleaseArgs),
    /// Print the CustomResourceDefinitions, for `kubectl apply --server-side -f -`
    Crds(CrdsArgs),
    /// Print a script that makes a shell complete this command line
    Completion(CompletionArgs),
    /// Print the version
    Version(VersionArgs),
}

/// `sidestep demo`: show the whole story on this machine, a good canary promoted and a bad one rolled back.
#[derive(Clone, Debug, Args)]
pub(crate) struct DemoArgs {
    /// Tell the story once and exit; the exit code says whether it went as it should
    #[arg(long)]
    pub(crate) once: bool,
    /// Write what the load generator measured to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Address the proxy listens on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: String,
    /// Address of the page in the browser, or `off`
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3100")]
    pub(crate) dashboard: String,
    /// Where to write the kubeconfig of the embedded cluster [default: ~/.sidestep/kubeconfig]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig_out: Option<PathBuf>,
    /// Print lines rather than a live view
    #[arg(long)]
    pub(crate) plain: bool,
    /// Do not colour the output
    #[arg(long)]
    pub(crate) no_color: bool,
}

/// `sidestep run`: run proxy, controller and a one-machine cluster in this process, for your manifests.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// Manifests to apply: a file, a folder of .yaml, .yml and .json, or `-` for stdin; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Apply the manifests again when they change; what left them is deleted
    #[arg(long)]
    pub(crate) watch: bool,
    /// Address the proxy listens on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: String,
    /// Address of /metrics, /livez, /readyz, /table and /splits
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    pub(crate) admin: String,
    /// Address of the embedded API server; loopback only
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6440")]
    pub(crate) api: String,
    /// Address of the dashboard, or `off`
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3100")]
    pub(crate) dashboard: String,
    /// Keep all objects in this folder across restarts; without it they live in memory
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Where to write the kubeconfig of the embedded cluster [default: ~/.sidestep/kubeconfig]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig_out: Option<PathBuf>,
    /// Service that answers for hosts that name no Service
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(crate) default_service: Option<String>,
    /// Blocks of other routers in trafficRouting: `translate` never waits, `auto` waits while what they name exists, as on a cluster
    #[arg(long, value_name = "auto|translate", default_value = "translate")]
    pub(crate) foreign_routers: String,
    /// How the proxy works.
    #[command(flatten)]
    pub(crate) proxy: ProxyFlags,
}

/// How a proxy works, on one machine or on a cluster.
#[derive(Clone, Debug, Args)]
pub(crate) struct ProxyFlags {
    /// Threads of the proxy [default: the CPUs this process may use]
    #[arg(long, value_name = "N")]
    pub(crate) proxy_workers: Option<String>,
    /// Limits, deadlines and retries of the proxy, as YAML; docs/proxy.yaml shows all with their defaults
    #[arg(long, value_name = "FILE")]
    pub(crate) proxy_config: Option<PathBuf>,
    /// Write one JSON line per request to this file, or to stdout with `-`
    #[arg(long, value_name = "FILE")]
    pub(crate) access_log: Option<PathBuf>,
}

/// `sidestep controller`: run the controller of a cluster. Flags that Argo Rollouts has as well are called as there.
#[derive(Clone, Debug, Args)]
pub(crate) struct ControllerArgs {
    /// Look after one namespace only: that of -n, else of the kubeconfig or the pod
    #[arg(long)]
    pub(crate) namespaced: bool,
    /// Look after objects that carry this id in the label argo-rollouts.argoproj.io/controller-instance-id, and only those [default: objects without the label]
    #[arg(long, value_name = "ID")]
    pub(crate) instance_id: Option<String>,
    /// Write only as the holder of a Lease, as several controllers of one cluster must
    #[arg(
        long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", value_name = "BOOL"
    )]
    pub(crate) leader_elect: bool,
    /// Namespace of the Lease; all controllers of a cluster must agree on it [default: argo-rollouts, or the one namespace]
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) leader_election_namespace: Option<String>,
    /// How long a leader that falls silent is waited for
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = crate::settings::go_duration)]
    pub(crate) leader_election_lease_duration: std::time::Duration,
    /// How long a leader that cannot renew its Lease goes on
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = crate::settings::go_duration)]
    pub(crate) leader_election_renew_deadline: std::time::Duration,
    /// How often the Lease is renewed, or tried for
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = crate::settings::go_duration)]
    pub(crate) leader_election_retry_period: std::time::Duration,
    /// Namespace of the proxies' Services [default: that of -n, else of the kubeconfig or the pod]
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) fleet_namespace: Option<String>,
    /// Headless Service that lists the proxies of the default fleet
    #[arg(long, value_name = "NAME", default_value = "sidestep-proxy")]
    pub(crate) fleet_service: String,
    /// Ports of the proxies to give to Services without a selector, so that callers inside the cluster are split as well: the same as
    /// --apex-ports of the proxies; none without this flag
    #[arg(long, value_name = "FIRST-LAST")]
    pub(crate) apex_ports: Option<String>,
    /// Blocks of other routers in trafficRouting: `auto` waits while what they name exists, `translate` never waits
    #[arg(long, value_name = "auto|translate", default_value = "auto")]
    pub(crate) foreign_routers: String,
    /// Class of the Ingresses that the proxies serve: those stand in nobody's way
    #[arg(long, value_name = "CLASS", default_value = "sidestep")]
    pub(crate) ingress_class: String,
    /// Write into Ingresses where callers find the proxies: the addresses of the Service, in the proxies' namespace, that the label
    /// sidestep.dev/ingress-class gives their class to
    #[arg(long)]
    pub(crate) ingress_status: bool,
    /// Rollouts looked at side by side
    #[arg(long, value_name = "N", default_value = "10")]
    pub(crate) rollout_threads: std::num::NonZeroUsize,
    /// AnalysisRuns looked at side by side
    #[arg(long, value_name = "N", default_value = "30")]
    pub(crate) analysis_threads: std::num::NonZeroUsize,
    /// How often every Rollout is looked at although nothing has changed
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = crate::settings::go_duration)]
    pub(crate) rollout_resync: std::time::Duration,
    /// Port of /metrics
    #[arg(
        long,
        alias = "metricsPort",
        value_name = "PORT",
        default_value_t = 8090
    )]
    pub(crate) metrics_port: u16,
    /// Port of /healthz, /livez and /readyz
    #[arg(
        long,
        alias = "healthzPort",
        value_name = "PORT",
        default_value_t = 8080
    )]
    pub(crate) healthz_port: u16,
}

/// `sidestep proxy`: run a proxy of a cluster.
#[derive(Clone, Debug, Args)]
pub(crate) struct ProxyArgs {
    /// Address that serves Ingresses, once the proxy has read what it serves; all addresses but --admin refuse connections until then
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8000")]
    pub(crate) listen: String,
    /// Address of /metrics, /livez, /readyz, /table and /splits
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9901")]
    pub(crate) admin: String,
    /// Address that serves Ingresses with TLS; none without this flag
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen_tls: Option<String>,
    /// Secrets that TLS is ended with: NAMESPACE, NAMESPACE/NAME, or `*` for all namespaces; may be repeated
    #[arg(long, value_name = "SCOPE", requires = "listen_tls")]
    pub(crate) tls_secrets: Vec<String>,
    /// Ports that each stand for one port of a Service without a selector, for callers inside the cluster; none without this flag
    #[arg(long, value_name = "FIRST-LAST")]
    pub(crate) apex_ports: Option<String>,
    /// Serve one namespace only: that of -n, else of the kubeconfig or the pod
    #[arg(long)]
    pub(crate) namespaced: bool,
    /// Class of the Ingresses to serve
    #[arg(long, value_name = "CLASS", default_value = "sidestep")]
    pub(crate) ingress_class: String,
    /// Fleet this proxy belongs to: it serves the Splits of this fleet
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) fleet: String,
    /// Namespace of the proxies' Services [default: that of -n, else of the kubeconfig or the pod]
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) fleet_namespace: Option<String>,
    /// Headless Service that lists the proxies of this fleet
    #[arg(long, value_name = "NAME", default_value = "sidestep-proxy")]
    pub(crate) fleet_service: String,
    /// How the proxy works.
    #[command(flatten)]
    pub(crate) proxy: ProxyFlags,
}

/// `sidestep get`.
#[derive(Clone, Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct GetArgs {
    /// Of what kind.
    #[command(subcommand)]
    pub(crate) kind: GetKind,
}

/// What `get` can show.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum GetKind {
    /// Get details about and a picture of a rollout
    #[command(visible_aliases = ["ro", "rollouts"])]
    Rollout(GetRolloutArgs),
}

/// `sidestep get rollout`.
#[derive(Clone, Debug, Args)]
pub(crate) struct GetRolloutArgs {
    /// The rollout
    pub(crate) name: String,
    /// Watch live updates to the rollout
    #[arg(short = 'w', long)]
    pub(crate) watch: bool,
    /// Do not colour the output
    #[arg(long)]
    pub(crate) no_color: bool,
    /// Stop watching after so many seconds; 0 never
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) timeout_seconds: u64,
}

/// `sidestep list`.
#[derive(Clone, Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct ListArgs {
    /// Of what kind.
    #[command(subcommand)]
    pub(crate) kind: ListKind,
}

/// What `list` can show.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ListKind {
    /// List rollouts
    #[command(visible_aliases = ["ro", "rollout"])]
    Rollouts(ListRolloutsArgs),
}

/// `sidestep list rollouts`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ListRolloutsArgs {
    /// Only the rollout of this name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Go on and print changes
    #[arg(short = 'w', long)]
    pub(crate) watch: bool,
    /// Print when each line was printed
    #[arg(long)]
    pub(crate) timestamps: bool,
}

/// `sidestep status`.
#[derive(Clone, Debug, Args)]
pub(crate) struct StatusArgs {
    /// The rollout
    pub(crate) name: String,
    /// Watch until the rollout is Healthy or Degraded
    #[arg(
        short = 'w', long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", value_name = "BOOL"
    )]
    pub(crate) watch: bool,
    /// Give up after this time, such as 60s or 5m; 0 never
    #[arg(short = 't', long, value_name = "DURATION", default_value = "0", value_parser = crate::settings::go_duration)]
    pub(crate) timeout: std::time::Duration,
}

/// `sidestep promote`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PromoteArgs {
    /// The rollout
    pub(crate) name: String,
    /// Skip analysis, pauses and steps: to the end
    #[arg(long)]
    pub(crate) full: bool,
}

/// One or more rollouts.
#[derive(Clone, Debug, Args)]
pub(crate) struct NamesArgs {
    /// The rollouts
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

/// `sidestep retry`: `retry rollout NAME…` as Argo has it, and `retry NAME…`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(crate) struct RetryArgs {
    /// Of what kind.
    #[command(subcommand)]
    pub(crate) kind: Option<RetryKind>,
    /// The rollouts
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

impl RetryArgs {
    /// The rollouts, whichever way they were typed.
    pub(crate) fn into_names(self) -> Vec<String> {
        match self.kind {
            Some(RetryKind::Rollout(rollout)) => rollout.names,
            None => self.names,
        }
    }
}

/// What can be retried.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RetryKind {
    /// Retry aborted rollouts
    #[command(visible_aliases = ["ro", "rollouts"])]
    Rollout(NamesArgs),
}

/// `sidestep undo`.
#[derive(Clone, Debug, Args)]
pub(crate) struct UndoArgs {
    /// The rollout
    pub(crate) name: String,
    /// The revision to go back to; 0 is the previous one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) to_revision: u32,
}

/// `sidestep restart`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RestartArgs {
    /// The rollout
    pub(crate) name: String,
    /// Time before the restart, such as 30s or 5m
    #[arg(
        short = 'i',
        long = "in",
        value_name = "DURATION",
        default_value = "0s"
    )]
    pub(crate) delay: String,
}

/// `sidestep set`.
#[derive(Clone, Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct SetArgs {
    /// Which part.
    #[command(subcommand)]
    pub(crate) part: SetPart,
}

/// What can be set.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum SetPart {
    /// Update the image of a rollout
    Image(SetImageArgs),
}

/// `sidestep set image`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SetImageArgs {
    /// The rollout
    pub(crate) name: String,
    /// Container and its new image; `*` stands for all containers
    #[arg(value_name = "CONTAINER=IMAGE", value_parser = crate::settings::container_image)]
    pub(crate) image: crate::settings::ContainerImage,
}

/// `sidestep lint`.
#[derive(Clone, Debug, Args)]
pub(crate) struct LintArgs {
    /// Manifests: a file, a folder of .yaml, .yml and .json, or `-` for stdin; may be repeated
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// `sidestep preflight`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PreflightArgs {
    /// Class of the Ingresses that the proxies are to serve: those stand in nobody's way
    #[arg(long, value_name = "CLASS", default_value = "sidestep")]
    pub(crate) ingress_class: String,
    /// Print as JSON rather than as a table
    #[arg(short = 'o', long, value_name = "FORMAT")]
    pub(crate) output: Option<OutputFormat>,
}

/// How a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// One JSON document.
    Json,
}

/// `sidestep release`.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(false))]
pub(crate) struct ReleaseArgs {
    /// The rollouts
    #[arg(value_name = "NAME", group = "which")]
    pub(crate) names: Vec<String>,
    /// All rollouts of the namespace that Sidestep routes
    #[arg(long, group = "which")]
    pub(crate) all: bool,
    /// With --all: those of all namespaces
    #[arg(short = 'A', long, conflicts_with = "names")]
    pub(crate) all_namespaces: bool,
    /// Give up waiting after this time, such as 60s or 5m; 0 never
    #[arg(short = 't', long, value_name = "DURATION", default_value = "5m", value_parser = crate::settings::go_duration)]
    pub(crate) timeout: std::time::Duration,
}

/// `sidestep crds`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CrdsArgs {
    /// Only those of this API group: argoproj.io, which an Argo Rollouts may have brought already, or sidestep.dev
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
}

/// `sidestep completion`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CompletionArgs {
    /// Which shell: its start-up file reads the script, as in `source <(sidestep completion bash)`
    pub(crate) shell: clap_complete::Shell,
}

/// `sidestep version`.
#[derive(Clone, Debug, Args)]
pub(crate) struct VersionArgs {
    /// Print the number only
    #[arg(long)]
    pub(crate) short: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_structs_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn as_a_plugin_it_is_called_as_kubectl_calls_it() {
        let said = |line: &str| {
            let read = Cli::read(line.split(' ').map(OsString::from));
            read.unwrap_err().to_string()
        };
        for (program, name) in [
            ("/usr/local/bin/kubectl-sidestep", "kubectl sidestep"),
            ("./sidestep", "sidestep"),
        ] {
            let usage = format!("Usage: {name} promote ");
            let help = said(&format!("{program} promote --help"));
            assert!(help.contains(&usage), "{help}");
            let complaint = said(&format!("{program} promote"));
            assert!(complaint.contains(&usage), "{complaint}");
        }
    }

    #[test]
    fn argos_ways_of_writing_a_command_are_understood() {
        for line in [
            "sidestep get rollout demo -w --no-color --timeout-seconds 3",
            "sidestep get ro demo",
            "kubectl-sidestep get rollouts demo -n there",
            "sidestep list ro -A --timestamps",
            "sidestep list rollouts --name demo -w",
            "sidestep status demo --watch=false",
            "sidestep status --timeout 60s demo",
            "sidestep status demo -w",
            "sidestep promote demo --full",
            "sidestep abort a b",
            "sidestep retry rollout a b",
            "sidestep retry a b",
            "sidestep undo demo --to-revision=3",
            "sidestep undo demo --to-revision 3",
            "sidestep restart demo -i 10s",
            "sidestep set image demo app=repo:5000/demo:yellow",
            "sidestep set image demo *=demo:yellow",
            "sidestep -n there pause demo",
            "sidestep version --short",
            "sidestep preflight -o json",
            "sidestep release a b",
            "sidestep release --all -A -t 30s",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn what_is_not_there_is_refused() {
        for line in [
            "sidestep",
            "sidestep get experiment demo",
            "sidestep get rollout",
            "sidestep abort",
            "sidestep retry",
            "sidestep status demo -t 60",
            "sidestep status demo -t later",
            "sidestep set image demo app",
            "sidestep set image demo app=a=b",
            "sidestep set image demo =image",
            "sidestep lint",
            "sidestep preflight -o table",
            "sidestep release",
            "sidestep release a --all",
            "sidestep release a -A",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn both_ways_of_retrying_name_the_same_rollouts() {
        for line in ["sidestep retry a b", "sidestep retry ro a b"] {
            let Command::Verb(Verb::Retry(retry)) = parse(line).unwrap().command else {
                panic!("{line}")
            };
            assert_eq!(retry.into_names(), ["a", "b"], "{line}");
        }
    }
}
