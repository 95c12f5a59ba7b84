//! Bodies on their way through: [`RequestBody`] towards the endpoint, [`ResponseBody`] towards the client.
//!
//! Frames pass as they come; backpressure is hyper's. A request body can be sent a second time as far as it was kept. A
//! response body holds the request's guard and its connection, and settles both at its end or drop.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::exchange::Exchange;
use crate::live::Outcome;
use crate::ticker::Watch;

/// Why a request body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestBodyError {
    #[error("the client sent nothing of the body for too long")]
    Idle,
    #[error("reading the request body")]
    Client(#[source] hyper::Error),
    #[error("the request was sent again on another connection")]
    Superseded,
}

/// A request body as hyper's client sends it: one attempt at an [`Upload`], or nothing.
#[derive(Debug)]
pub(crate) struct RequestBody(Option<Attempt>);

#[derive(Debug)]
struct Attempt {
    upload: Rc<Upload>,
    number: u32,
    /// How many of the kept frames this attempt has sent.
    position: usize,
}

/// The body of one request, whatever the number of attempts.
#[derive(Debug)]
pub(crate) struct Upload {
    source: RefCell<Incoming>,
    hint: SizeHint,
    watch: Watch,
    idle: Duration,
    kept: RefCell<Kept>,
    attempts: Cell<u32>,
    progress: Cell<Progress>,
}

/// How far an upload has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Frames that came from the client.
    pub(crate) frames: u64,
    /// Whether the client is who is being waited for.
    pub(crate) waits_for_client: bool,
    /// Whether all has come.
    pub(crate) complete: bool,
}

/// The frames sent so far, while they are few enough.
#[derive(Debug)]
struct Kept {
    frames: Vec<KeptFrame>,
    room_bytes: usize,
    lost: bool,
}

#[derive(Debug, Clone)]
enum KeptFrame {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl RequestBody {
    /// No body.
    pub(crate) const EMPTY: Self = Self(None);
}

impl Upload {
    /// An upload of which up to `keep_bytes` are kept; it fails when nothing comes from the client for `idle`.
    pub(crate) fn new(
        source: Incoming,
        watch: Watch,
        idle: Duration,
        keep_bytes: usize,
    ) -> Rc<Self> {
        let kept = Kept {
            frames: Vec::new(),
            room_bytes: keep_bytes,
            lost: false,
        };
        let progress = Progress {
            frames: 0,
            waits_for_client: false,
            complete: false,
        };
        Rc::new(Self {
            hint: source.size_hint(),
            source: RefCell::new(source),
            watch,
            idle,
            kept: RefCell::new(kept),
            attempts: Cell::new(0),
            progress: Cell::new(progress),
        })
    }

    /// Begins an attempt; those before it send nothing any more. `None` when what they have sent was not kept.
    pub(crate) fn attempt(self: &Rc<Self>) -> Option<RequestBody> {
        if self.kept.borrow().lost {
            return None;
        }
        let number = self.attempts.get() + 1;
        self.attempts.set(number);
        let attempt = Attempt {
            upload: Rc::clone(self),
            number,
            position: 0,
        };
        Some(RequestBody(Some(attempt)))
    }

    /// Whether something was sent that was not kept: no further attempt is possible.
    pub(crate) fn is_lost(&self) -> bool {
        self.kept.borrow().lost
    }

    /// How far it has come.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.get()
    }

    fn poll_source(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let polled = Pin::new(&mut *self.source.borrow_mut()).poll_frame(cx);
        let mut progress = self.progress.get();
        progress.waits_for_client = polled.is_pending();
        if let Poll::Ready(frame) = &polled {
            self.watch.rest();
            progress.frames += 1;
            progress.complete = frame.is_none() || self.source.borrow().is_end_stream();
        }
        self.progress.set(progress);
        match polled {
            Poll::Ready(frame) => {
                Poll::Ready(frame.map(|frame| frame.map_err(RequestBodyError::Client)))
            }
            Poll::Pending => self
                .watch
                .poll_overdue(self.idle, u64::MAX, cx)
                .map(|()| Some(Err(RequestBodyError::Idle))),
        }
    }
}

impl Kept {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let kept = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) if data.len() <= self.room_bytes => KeptFrame::Data(data.clone()),
            (_, Some(trailers)) => KeptFrame::Trailers(trailers.clone()),
            _ => return self.lose(),
        };
        if self.lost {
            return;
        }
        self.room_bytes -= frame.data_ref().map_or(0, Bytes::len);
        self.frames.push(kept);
    }

    fn lose(&mut self) {
        self.frames = Vec::new();
        self.lost = true;
    }
}

impl Attempt {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        if self.upload.attempts.get() != self.number {
            return Poll::Ready(Some(Err(RequestBodyError::Superseded)));
        }
        let again = self.upload.kept.borrow().frames.get(self.position).cloned();
        let frame = match again {
            Some(KeptFrame::Data(data)) => Some(Ok(Frame::data(data))),
            Some(KeptFrame::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            None => {
                let frame = ready!(self.upload.poll_source(cx));
                if let Some(Ok(frame)) = &frame {
                    self.upload.kept.borrow_mut().keep(frame);
                }
                frame
            }
        };
        self.position += 1;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let all_sent = self.position >= self.upload.kept.borrow().frames.len();
        all_sent && self.upload.source.borrow().is_end_stream()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        self.0
            .as_mut()
            .map_or(Poll::Ready(None), |attempt| attempt.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Attempt::is_end_stream)
    }

    /// The whole body's, as it was before anything was sent: hyper asks once, for the head.
    fn size_hint(&self) -> SizeHint {
        self.0
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), |attempt| attempt.upload.hint)
    }
}

/// Why a response body ended early. The client sees its connection (or stream) break off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResponseBodyError {
    #[error("the endpoint sent nothing of the body for too long")]
    Idle,
    #[error("the request took longer than it may in all")]
    Total,
    #[error("reading the response body")]
    Upstream(#[source] hyper::Error),
}

/// A response body as hyper's server sends it.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// An answer of our own; the guard has recorded it already.
    Own(Option<Bytes>),
    /// The endpoint's answer.
    Relay(Relay),
}

/// An endpoint's response body with what its request holds.
#[derive(Debug)]
pub(crate) struct Relay {
    source: Incoming,
    /// Settled when the response ends, and gone then.
    exchange: Option<Box<Exchange>>,
    limits: RelayLimits,
}

/// The deadlines of a response body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RelayLimits {
    /// Without a frame from the endpoint.
    pub(crate) idle: Duration,
    /// When the request has to be over, on the coarse clock; the highest number for never.
    pub(crate) total_due_ms: u64,
}

impl ResponseBody {
    /// The answer of an endpoint. One without a body is settled at once.
    pub(crate) fn relay(source: Incoming, exchange: Box<Exchange>, limits: RelayLimits) -> Self {
        let exchange = if source.is_end_stream() {
            exchange.complete();
            None
        } else {
            Some(exchange)
        };
        Self::Relay(Relay {
            source,
            exchange,
            limits,
        })
    }
}

impl Relay {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        match Pin::new(&mut self.source).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.count(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.fail(Outcome::UpstreamResetInBody);
                Poll::Ready(Some(Err(ResponseBodyError::Upstream(error))))
            }
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Pending => self.poll_overdue(cx).map(|error| {
                self.fail(Outcome::UpstreamTimeout);
                Some(Err(error))
            }),
        }
    }

    fn count(&mut self, frame: &Frame<Bytes>) {
        if let Some(exchange) = &mut self.exchange {
            exchange.passed(frame);
        }
        // hyper stops asking once the content length is reached, so the end has to be seen here.
        if self.source.is_end_stream() {
            self.complete();
        }
    }

    fn poll_overdue(&self, cx: &Context<'_>) -> Poll<ResponseBodyError> {
        let Some(exchange) = &self.exchange else {
            return Poll::Pending; // settled: there is nothing left to wait for
        };
        let RelayLimits { idle, total_due_ms } = self.limits;
        let watch = exchange.watch();
        ready!(watch.poll_overdue(idle, total_due_ms, cx));
        let total = watch.now_ms() >= total_due_ms;
        Poll::Ready(if total {
            ResponseBodyError::Total
        } else {
            ResponseBodyError::Idle
        })
    }

    fn complete(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.complete();
        }
    }

    fn fail(&mut self, outcome: Outcome) {
        if let Some(exchange) = self.exchange.take() {
            exchange.end(outcome);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        match self.get_mut() {
            Self::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Relay(relay) => relay.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(text) => text.is_none(),
            Self::Relay(relay) => relay.source.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Self::Relay(relay) => relay.source.size_hint(),
        }
    }
}
