//! How long a request waits for its response head.
//!
//! The deadline runs from the last sign of the client's sending, so that a slow upload is not taken for a slow endpoint. It hangs on
//! the worker's ticker: a timer of its own would cost every request its place in tokio's wheel, and it is almost never needed.

use std::task::{Context, Poll, ready};

use crate::body::{Progress, Upload};
use crate::config::millis;
use crate::error::Error;
use crate::exchange::Exchange;
use crate::worker::Local;

/// The wait of one attempt. Its times are those of the coarse clock.
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    exchange: &'a Exchange,
    upload: Option<&'a Upload>,
    /// What of the upload had passed when the deadline was last moved.
    seen: Option<Progress>,
    limit_ms: u64,
    due_ms: u64,
    total_due_ms: u64,
}

/// When a request has to be over, on the coarse clock; the highest number for never.
pub(crate) fn total_due_ms(local: &Local, exchange: &Exchange) -> u64 {
    let total = local.config.deadlines.total;
    total.map_or(u64::MAX, |total| {
        local.ticker.ms_at(exchange.start() + total)
    })
}

impl<'a> Patience<'a> {
    /// For an attempt that begins now. The deadline of the first counts from the request's begin.
    pub(crate) fn new(local: &Local, upload: Option<&'a Upload>, exchange: &'a Exchange) -> Self {
        let limit = local.config.deadlines.response_head;
        Self {
            exchange,
            upload,
            seen: None,
            limit_ms: millis(limit),
            due_ms: local.ticker.ms_at(exchange.start() + limit),
            total_due_ms: total_due_ms(local, exchange),
        }
    }

    /// Ready with the reason once the wait has been too long; never early, and late by a tick at most.
    pub(crate) fn poll_over(&mut self, cx: &Context<'_>) -> Poll<Error> {
        let watch = self.exchange.watch();
        loop {
            ready!(watch.poll_until(self.due_ms.min(self.total_due_ms), cx));
            if watch.now_ms() >= self.total_due_ms {
                return Poll::Ready(Error::TotalTimeout);
            }
            if !self.is_sending() {
                return Poll::Ready(Error::HeadTimeout);
            }
            self.due_ms = watch.now_ms() + self.limit_ms;
        }
    }

    /// Whether the client is still sending, or has finished since the last look.
    fn is_sending(&mut self) -> bool {
        let Some(now) = self.upload.map(Upload::progress) else {
            return false;
        };
        let moved = self.seen.replace(now) != Some(now);
        moved || (!now.complete && now.waits_for_client)
    }
}
