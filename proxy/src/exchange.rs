//! The guard of one request, from its first look to the last byte of its answer.
//!
//! Whatever becomes of the request, it is counted once: by [`Exchange::end`], or as gone with the client when it is dropped.

use std::rc::Rc;

use bytes::Bytes;
use http::{StatusCode, request};
use http_body::Frame;
use tokio::time::Instant;

use crate::access::{Answer, Line};
use crate::connection::{Busy, Client};
use crate::error::Error;
use crate::live::{Chosen, EndpointInFlight, InFlight, Outcome, WorkerVersion};
use crate::ticker::Watch;
use crate::upstream::Lease;
use crate::worker::Local;

/// One request between its begin and its end. Boxed, because it goes from hand to hand.
#[derive(Debug)]
pub(crate) struct Exchange {
    local: Rc<Local>,
    /// `None` until a version was chosen for it.
    in_flight: Option<InFlight>,
    endpoint: Option<EndpointInFlight>,
    /// What the answer comes over.
    lease: Option<Lease>,
    start: Instant,
    /// The deadline of its head, then of its body.
    watch: Rc<Watch>,
    /// Whether trailers that the head did not announce get lost (towards HTTP/1 clients).
    loses_trailers: bool,
    log: Option<Box<Line>>,
    answer: Answer,
    ended: bool,
    _busy: Busy,
}

impl Exchange {
    /// A request that has just been read.
    pub(crate) fn begin(
        local: &Rc<Local>,
        client: &Rc<Client>,
        head: &request::Parts,
        start: Instant,
    ) -> Box<Self> {
        let log = local
            .access
            .as_ref()
            .map(|access| access.line(client, head, start));
        Box::new(Self {
            local: Rc::clone(local),
            in_flight: None,
            endpoint: None,
            lease: None,
            start,
            watch: client.deadline(local),
            loses_trailers: false,
            log,
            answer: Answer::default(),
            ended: false,
            _busy: client.busy(),
        })
    }

    /// When the request was read.
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// The deadline of the answer's head, then of its body.
    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Counts the request in a version. No `.await` between taking the table and this.
    pub(crate) fn chosen(&mut self, chosen: &Chosen<'_>) {
        self.in_flight = Some(chosen.begin(self.start));
        if let Some(log) = &mut self.log {
            log.chosen(chosen);
        }
    }

    /// The version, to count its connections and retries.
    pub(crate) fn version(&self) -> Option<&WorkerVersion> {
        self.in_flight.as_ref().map(InFlight::version)
    }

    /// Counts an attempt at an endpoint, instead of the one before.
    pub(crate) fn attempts(&mut self, endpoint: EndpointInFlight) {
        self.answer.attempts += 1;
        if let Some(log) = &mut self.log {
            log.endpoint(endpoint.endpoint());
        }
        self.endpoint = Some(endpoint);
    }

    /// Keeps the connection that the endpoint's answer comes over.
    pub(crate) fn comes_over(&mut self, lease: Lease) {
        self.lease = Some(lease);
    }

    /// The endpoint's answer begins.
    pub(crate) fn answered(&mut self, status: StatusCode, loses_trailers: bool) {
        self.loses_trailers = loses_trailers;
        self.note_status(status);
        if self.log.is_some() {
            self.answer.head = Some(self.start.elapsed());
        }
    }

    /// A frame of the answer passes.
    pub(crate) fn passed(&mut self, frame: &Frame<Bytes>) {
        self.watch.rest();
        self.answer.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        if frame.is_trailers() && self.loses_trailers {
            self.local
                .live
                .front()
                .downstream_error("undeclared-trailers");
        }
    }

    /// The request ends with an answer of the proxy's own.
    pub(crate) fn refuse(mut self: Box<Self>, error: &Error) {
        self.note_status(error.status());
        if self.in_flight.is_none() {
            self.local.live.front().downstream_error(error.reason());
        }
        if let Some(log) = &mut self.log {
            log.reason(error.reason());
        }
        self.end(error.outcome());
    }

    /// The request ends with the last byte of the endpoint's answer, which leaves the connection free for the next.
    pub(crate) fn complete(mut self: Box<Self>) {
        let lease = self.lease.take();
        self.end(Outcome::Ok);
        if let Some(lease) = lease {
            lease.give_back();
        }
    }

    /// The request ends, and its connection with it.
    #[expect(
        clippy::boxed_local,
        reason = "it comes in its box and goes with it: nothing is moved"
    )]
    pub(crate) fn end(mut self: Box<Self>, outcome: Outcome) {
        self.ended = true;
        let now = Instant::now();
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.finish(outcome, now);
        }
        self.write_log(outcome, now);
    }

    fn note_status(&mut self, status: StatusCode) {
        self.answer.status = status.as_u16();
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.answered(status.as_u16());
        }
    }

    fn write_log(&mut self, outcome: Outcome, now: Instant) {
        if let (Some(line), Some(access)) = (self.log.take(), &self.local.access) {
            self.answer.total = now.saturating_duration_since(self.start);
            access.write(line, outcome, self.answer);
        }
    }
}

impl Drop for Exchange {
    /// Without [`Exchange::end`] the client has gone, and `in_flight` counts it so when it is dropped.
    fn drop(&mut self) {
        self.watch.stop();
        if !self.ended && self.log.is_some() {
            self.write_log(Outcome::ClientAbort, Instant::now());
        }
    }
}
