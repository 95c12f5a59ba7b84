//! What the proxy is told at start: addresses, limits and deadlines, already valid.
//!
//! Words from the command line or the environment become these types in the binary; nothing here is checked a second time.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::table::Pick;

/// How a proxy runs. [`Config::new`] gives every field but the addresses its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Addresses to listen at; port 0 lets the system choose.
    pub listen: Vec<SocketAddr>,
    /// Addresses to listen at with TLS. Default: none.
    pub listen_tls: Vec<SocketAddr>,
    /// Ports that each stand for one port of one Service. Default: none.
    pub apexes: Option<Apexes>,
    /// Worker threads. Default: what the CPU quota allows, as `std::thread::available_parallelism` sees it.
    pub workers: NonZeroUsize,
    /// What is bounded.
    pub limits: Limits,
    /// What is waited for, and how long.
    pub deadlines: Deadlines,
    /// HTTP/2 towards clients and endpoints.
    pub h2: H2,
    /// Second attempts.
    pub retry: Retry,
    /// How long an endpoint that refuses connections is skipped.
    pub ejection: Ejection,
    /// How the proxy ends.
    pub drain: Drain,
    /// Peers whose `X-Forwarded-*` headers are kept and added to; those of all others are overwritten. Default: none.
    pub trusted: Vec<IpNet>,
    /// Where the points of weighted picks come from, for all Splits. Default: `None`, as each Split says.
    pub pick: Option<Pick>,
    /// Where the access log goes. Default: nowhere.
    pub access_log: AccessLog,
    /// Whether answers from a Split name the version and revision that gave them, as `x-sidestep-version` and
    /// `x-sidestep-revision`. Default: no, since that is nobody's business outside; on one machine it shows the split at work.
    pub names_versions: bool,
}

impl Config {
    /// The defaults, listening at `listen`.
    #[must_use]
    pub fn new(listen: Vec<SocketAddr>) -> Self {
        Self {
            listen,
            ..Self::default()
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            listen_tls: Vec::new(),
            apexes: None,
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            limits: Limits::default(),
            deadlines: Deadlines::default(),
            h2: H2::default(),
            retry: Retry::default(),
            ejection: Ejection::default(),
            drain: Drain::default(),
            trusted: Vec::new(),
            pick: None,
            access_log: AccessLog::Off,
            names_versions: false,
        }
    }
}

/// Where apexes are: the proxy listens at all of these ports, so that one that is given to a Service is there at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apexes {
    /// The address to listen at.
    pub address: IpAddr,
    /// The ports.
    pub ports: RangeInclusive<u16>,
}

impl Apexes {
    /// Every address there is to listen at.
    pub fn listen(&self) -> impl Iterator<Item = SocketAddr> {
        let address = self.address;
        self.ports
            .clone()
            .map(move |port| SocketAddr::new(address, port))
    }
}

/// What is bounded. Counts unless a unit is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Headers in a request or response head. Default 100: hyper's own, which it keeps on the stack.
    pub headers: NonZeroUsize,
    /// Bytes of a request or response head, and of hyper's read buffer. Default 64 KiB (hyper's 400 KiB is memory risk).
    pub head_bytes: NonZeroUsize,
    /// Bytes of a request's URI; more is answered with 414. Default 8 KiB, as nginx' `large_client_header_buffers`.
    pub uri_bytes: NonZeroUsize,
    /// Open connections from clients, per worker; more wait in the accept queue. Default 10,000.
    pub connections_per_worker: NonZeroUsize,
    /// Requests that wait for an upstream connection or response head, per worker; more get 503. Default 1,024, as Envoy's
    /// `max_pending_requests`.
    pub pending_per_worker: NonZeroUsize,
    /// Idle connections kept to one endpoint by one worker. Default 256: a burst of a few hundred answers at once closes nothing
    /// that the next moment needs; what stays idle is closed after [`Deadlines::upstream_idle`].
    pub idle_per_endpoint: NonZeroUsize,
    /// Idle connections kept to all endpoints by the whole process, the same part by each worker. Default 4,096: far below usual file
    /// limits.
    pub idle_per_process: NonZeroUsize,
    /// Bytes of a request body that are kept so that it can be sent again. Default 64 KiB (data-plane rules, section 5).
    pub replay_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            headers: count(100),
            head_bytes: count(64 * 1024),
            uri_bytes: count(8 * 1024),
            connections_per_worker: count(10_000),
            pending_per_worker: count(1_024),
            idle_per_endpoint: count(256),
            idle_per_process: count(4_096),
            replay_bytes: 64 * 1024,
        }
    }
}

/// What is waited for, and how long. Sources: data-plane rules, section 5, unless another is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From the first byte of a request head to its last; also for the bytes that tell HTTP/1 from HTTP/2. Default 10 s.
    pub head: Duration,
    /// To connect to an endpoint. Default 5 s, as Envoy's `connect_timeout`.
    pub connect: Duration,
    /// From the request being sent to the response head. Default 60 s, as nginx' `proxy_read_timeout`.
    pub response_head: Duration,
    /// For a request as a whole, body included; upgrades are exempt. Default: none, since streams are legitimate.
    pub total: Option<Duration>,
    /// Without a byte of a body, in either direction; upgrades are exempt. Default 60 s.
    pub body_idle: Duration,
    /// Without a request on a client's connection. Default 75 s: above the 60 s of common load balancers.
    pub keep_alive_idle: Duration,
    /// Without a request on a connection to an endpoint. Default 4 s: common servers close at 5 s.
    pub upstream_idle: Duration,
    /// How often a worker looks at its deadlines; the accuracy of all but `connect`. Default 500 ms.
    pub tick: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            connect: Duration::from_secs(5),
            response_head: Duration::from_secs(60),
            total: None,
            body_idle: Duration::from_secs(60),
            keep_alive_idle: Duration::from_secs(75),
            upstream_idle: Duration::from_secs(4),
            tick: Duration::from_millis(500),
        }
    }
}

/// HTTP/2, on both sides. Larger windows are memory risk at many streams; hyper's defaults are 1 to 5 MiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct H2 {
    /// Streams a client may have open on one connection. Default 128; RFC 9113 section 6.5.2 advises at least 100.
    pub streams: NonZeroU32,
    /// Flow-control window of one stream, in bytes. Default 256 KiB.
    pub stream_window_bytes: NonZeroU32,
    /// Flow-control window of one connection, in bytes. Default 1 MiB.
    pub connection_window_bytes: NonZeroU32,
    /// Bytes of a header list. Default 32 KiB.
    pub header_list_bytes: NonZeroU32,
}

impl Default for H2 {
    fn default() -> Self {
        Self {
            streams: count_u32(128),
            stream_window_bytes: count_u32(256 * 1024),
            connection_window_bytes: count_u32(1024 * 1024),
            header_list_bytes: count_u32(32 * 1024),
        }
    }
}

/// Second attempts. The budget is per version and shared by all workers (data-plane rules, section 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Connect failures of one request that are retried whatever the budget says. Default 2.
    pub connects: u32,
    /// Retries allowed per hundred requests of the last [`Retry::window`]. Default 20, as Linkerd.
    pub percent: u32,
    /// Retries allowed per second beside that. Default 10, as Linkerd.
    pub per_second: u32,
    /// How long a request counts for the budget. Default 10 s, as Linkerd.
    pub window: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            connects: 2,
            percent: 20,
            per_second: 10,
            window: Duration::from_secs(10),
        }
    }
}

/// How long an endpoint that refuses connections is skipped; doubled by each further failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// After the first failure. Default 1 s, as Linkerd's failure accrual.
    pub first: Duration,
    /// At most. Default 60 s, as Linkerd's failure accrual.
    pub longest: Duration,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
        }
    }
}

/// How the proxy ends (data-plane rules, section 8). Together the defaults stay within Kubernetes' 30 s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Not ready, but still accepting: the time others need to stop sending. Default 5 s.
    pub grace: Duration,
    /// From the listeners' closing until what is still open is cut. Default 20 s.
    pub deadline: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(5),
            deadline: Duration::from_secs(20),
        }
    }
}

/// Where the access log goes, as JSON lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// The end of this file, made if it is not there.
    File(PathBuf),
}

/// Whole milliseconds, at most as many as fit.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}

fn count(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("defaults are above 0")
}

fn count_u32(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("defaults are above 0")
}
