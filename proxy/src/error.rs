//! What can go wrong with a request: who caused it, may it be retried, what the client is told. The one such map.

use std::io;

use http::StatusCode;

use crate::headers::HostError;
use crate::live::Refused;
use crate::live::cells::CLIENT_CLOSED;
use crate::table::Refusal;

/// How a request ended. errorRate = (5xx + `upstream_*`) ÷ (all but `client_abort`), see data-plane.md section 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The response was passed on to its end, whatever its code.
    Ok,
    /// No endpoint took a connection.
    UpstreamConnect,
    /// The endpoint broke off before the response head.
    UpstreamResetBeforeHead,
    /// The endpoint broke off in the response body.
    UpstreamResetInBody,
    /// The endpoint was too slow.
    UpstreamTimeout,
    /// The client went away, or stopped sending or reading.
    ClientAbort,
    /// The proxy answered by itself: no route, no endpoint, a malformed request, overload.
    RefusedByProxy,
}

impl Outcome {
    /// Every outcome, in the order of [`Outcome::index`].
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::UpstreamConnect,
        Self::UpstreamResetBeforeHead,
        Self::UpstreamResetInBody,
        Self::UpstreamTimeout,
        Self::ClientAbort,
        Self::RefusedByProxy,
    ];

    /// Its name in metrics, reports and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::UpstreamConnect => "upstream_connect",
            Self::UpstreamResetBeforeHead => "upstream_reset_before_head",
            Self::UpstreamResetInBody => "upstream_reset_in_body",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::ClientAbort => "client_abort",
            Self::RefusedByProxy => "refused_by_proxy",
        }
    }

    /// Its place in [`Outcome::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Why a request is answered by the proxy itself, or not at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no route for this host and path")]
    NoRoute,
    /// Nobody has the apex port that the request came in at: its Service has no Split, or none yet.
    #[error("no Split governs the Service that this port stands for")]
    NoSplit,
    #[error("the method is refused by this proxy")]
    Method,
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("the target is longer than this proxy takes")]
    TargetTooLong,
    #[error("the transfer coding is not known to this proxy")]
    Coding,
    #[error("the request has come round to this proxy again")]
    Loop,
    #[error("too many requests are waiting in this proxy")]
    Overloaded,
    #[error("{}", .0.message)]
    Route(Refusal),
    #[error("no version can take the request")]
    Version(Refused),
    #[error("no endpoint is ready")]
    NoEndpoint,
    #[error("no connection to an endpoint")]
    Connect(#[source] io::Error),
    #[error("no connection to an endpoint in time")]
    ConnectTimeout,
    #[error("no HTTP with the endpoint")]
    Handshake(#[source] hyper::Error),
    #[error("the connection was gone before the request was written")]
    Unsent(#[source] hyper::Error),
    #[error("the endpoint closed the connection instead of answering")]
    Closed(#[source] hyper::Error),
    #[error("the endpoint did not process the request")]
    NotProcessed(#[source] hyper::Error),
    #[error("the endpoint's answer is not HTTP")]
    NotHttp(#[source] hyper::Error),
    #[error("the endpoint's answer cannot be passed on")]
    Unpassable,
    #[error("the endpoint sent no response head in time")]
    HeadTimeout,
    #[error("the request took longer than it may in all")]
    TotalTimeout,
    #[error("the request body stopped coming")]
    BodyIdle,
    #[error("the client went away")]
    ClientGone,
}

/// When a request may be sent again after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// Never.
    No,
    /// The endpoint has not seen it: if the body can be had again. The first two times of a request are free.
    Unseen,
    /// The endpoint has not seen it: if the body can be had again and the budget allows it.
    UnseenAtCost,
    /// The endpoint may have seen it: once, if repeating it does no harm (no body, an idempotent method) and the budget allows it.
    MaybeSeen,
}

impl Error {
    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Host(_) => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyIdle => StatusCode::REQUEST_TIMEOUT,
            Self::ClientGone => StatusCode::from_u16(CLIENT_CLOSED).expect("three digits"),
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::NoSplit | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Version(_) | Self::NoEndpoint => StatusCode::SERVICE_UNAVAILABLE,
            Self::Route(refusal) => StatusCode::from_u16(refusal.status)
                .expect("`Table::build` takes statuses of 400 to 599 only"),
            Self::Connect(_) | Self::Handshake(_) => StatusCode::BAD_GATEWAY,
            Self::Unsent(_) | Self::Closed(_) | Self::NotProcessed(_) => StatusCode::BAD_GATEWAY,
            Self::NotHttp(_) | Self::Unpassable => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout | Self::HeadTimeout | Self::TotalTimeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
        }
    }

    /// The word of `x-sidestep-reason`.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::NoRoute => "no-route",
            Self::NoSplit => "no-split",
            Self::Method => "method-refused",
            Self::Host(HostError::Missing) => "host-missing",
            Self::Host(HostError::Duplicate) => "host-duplicate",
            Self::Host(HostError::Malformed) => "host-malformed",
            Self::Host(HostError::Mismatch) => "host-mismatch",
            Self::TargetTooLong => "uri-too-long",
            Self::Coding => "transfer-coding",
            Self::Loop => "loop",
            Self::Overloaded => "overloaded",
            Self::Route(refusal) => &refusal.reason,
            Self::Version(refused) => refused.name(),
            Self::NoEndpoint => "no-endpoint",
            Self::Connect(_) | Self::Handshake(_) => "upstream-connect",
            Self::ConnectTimeout => "upstream-connect-timeout",
            Self::Unsent(_) | Self::Closed(_) | Self::NotProcessed(_) => "upstream-reset",
            Self::NotHttp(_) | Self::Unpassable => "upstream-protocol",
            Self::HeadTimeout => "upstream-timeout",
            Self::TotalTimeout => "total-timeout",
            Self::BodyIdle => "request-body-idle",
            Self::ClientGone => "client-gone",
        }
    }

    /// How the request counts.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::NoRoute | Self::NoSplit | Self::Method | Self::Host(_) => Outcome::RefusedByProxy,
            Self::TargetTooLong | Self::Coding | Self::Loop => Outcome::RefusedByProxy,
            Self::Overloaded | Self::Route(_) | Self::Version(_) => Outcome::RefusedByProxy,
            Self::NoEndpoint => Outcome::RefusedByProxy,
            Self::Connect(_) | Self::ConnectTimeout => Outcome::UpstreamConnect,
            Self::Handshake(_) => Outcome::UpstreamConnect,
            Self::Unsent(_) | Self::Closed(_) => Outcome::UpstreamResetBeforeHead,
            Self::NotProcessed(_) => Outcome::UpstreamResetBeforeHead,
            Self::NotHttp(_) | Self::Unpassable => Outcome::UpstreamResetBeforeHead,
            Self::HeadTimeout | Self::TotalTimeout => Outcome::UpstreamTimeout,
            Self::BodyIdle | Self::ClientGone => Outcome::ClientAbort,
        }
    }

    /// Whether the request may be sent again.
    pub(crate) fn again(&self) -> Again {
        match self {
            Self::Connect(_) | Self::ConnectTimeout | Self::Handshake(_) => Again::Unseen,
            Self::Unsent(_) => Again::Unseen,
            Self::NotProcessed(_) => Again::UnseenAtCost,
            Self::Closed(_) => Again::MaybeSeen,
            Self::NoRoute | Self::NoSplit | Self::Method | Self::Host(_) => Again::No,
            Self::TargetTooLong | Self::Coding | Self::Loop | Self::Overloaded => Again::No,
            Self::Route(_) | Self::Version(_) | Self::NoEndpoint => Again::No,
            Self::NotHttp(_) | Self::Unpassable | Self::HeadTimeout => Again::No,
            Self::TotalTimeout | Self::BodyIdle | Self::ClientGone => Again::No,
        }
    }

    /// Whether the endpoint refused a connection, which its breaker wants to know.
    pub(crate) fn is_refused_connection(&self) -> bool {
        matches!(
            self,
            Self::Connect(_) | Self::ConnectTimeout | Self::Handshake(_)
        )
    }
}
