//! A worker's coarse clock and the deadlines that hang on it.
//!
//! Deadlines of ten seconds and more (idle connections, unfinished heads, idle bodies, late answers) need no timer each: a [`Watch`] is a
//! slot in one list that the worker looks through at every tick. Arming one costs two stores and no allocation. The tick, at
//! most 500 ms, is also near enough that tokio need not wake its driver for its own timers (measured: without it, one more
//! write to an eventfd per request).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::millis;

/// The list of one worker.
#[derive(Debug)]
pub(crate) struct Ticker {
    start: Instant,
    coarse_ms: CoarseClock,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
}

/// Milliseconds since the worker's start as of its last tick; never 0. Readable from values that must be `Send`.
#[derive(Debug, Clone)]
pub(crate) struct CoarseClock(Arc<AtomicU64>);

impl CoarseClock {
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Slot {
    /// 0 while not armed.
    due_ms: u64,
    waker: Option<Waker>,
}

impl Ticker {
    /// A list whose time begins at `start`.
    pub(crate) fn new(start: Instant) -> Rc<Self> {
        let coarse_ms = CoarseClock(Arc::new(AtomicU64::new(1)));
        Rc::new(Self {
            start,
            coarse_ms,
            slots: RefCell::default(),
            free: RefCell::default(),
        })
    }

    /// The clock of this list.
    pub(crate) fn clock(&self) -> &CoarseClock {
        &self.coarse_ms
    }

    /// A new watch, not armed.
    pub(crate) fn watch(self: &Rc<Self>) -> Watch {
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut slots = self.slots.borrow_mut();
            slots.push(Slot::default());
            slots.len() - 1
        });
        Watch {
            ticker: Rc::clone(self),
            index,
            since_ms: Cell::new(None),
        }
    }

    /// What the clock shows at a tick at `instant`.
    pub(crate) fn ms_at(&self, instant: Instant) -> u64 {
        millis(instant.saturating_duration_since(self.start)) + 1
    }

    /// Moves the clock to `now` and wakes those whose time has come.
    pub(crate) fn tick(&self, now: Instant) {
        let now_ms = self.ms_at(now);
        self.coarse_ms.0.store(now_ms, Ordering::Relaxed);
        self.wake(|slot| slot.due_ms != 0 && slot.due_ms <= now_ms);
    }

    /// Wakes all, whatever their time: something else has changed that they look at.
    pub(crate) fn wake_all(&self) {
        self.wake(|_| true);
    }

    fn wake(&self, concerns: impl Fn(&Slot) -> bool) {
        let wakers: Vec<Waker> = {
            let mut slots = self.slots.borrow_mut();
            slots
                .iter_mut()
                .filter(|slot| concerns(slot))
                .filter_map(|slot| slot.waker.take())
                .collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// One deadline that may be moved and put off at no cost; gives its slot back when dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    ticker: Rc<Ticker>,
    index: usize,
    /// When the wait began that [`Watch::poll_overdue`] measures.
    since_ms: Cell<Option<u64>>,
}

impl Watch {
    /// Ready once `limit` has passed since the watch was first polled after [`Watch::rest`], or the coarse clock shows `latest_ms`.
    pub(crate) fn poll_overdue(
        &self,
        limit: Duration,
        latest_ms: u64,
        cx: &Context<'_>,
    ) -> Poll<()> {
        let since_ms = self.since_ms.get().unwrap_or_else(|| self.now_ms());
        self.since_ms.set(Some(since_ms));
        self.poll_until(latest_ms.min(since_ms + millis(limit)), cx)
    }

    /// The coarse clock.
    pub(crate) fn now_ms(&self) -> u64 {
        self.ticker.clock().now_ms()
    }

    /// Ready once the coarse clock shows `due_ms`; until then `cx` is woken when it does, or by [`Ticker::wake_all`].
    pub(crate) fn poll_until(&self, due_ms: u64, cx: &Context<'_>) -> Poll<()> {
        if due_ms <= self.ticker.clock().now_ms() {
            return Poll::Ready(());
        }
        let mut slots = self.ticker.slots.borrow_mut();
        let slot = &mut slots[self.index];
        slot.due_ms = due_ms;
        if !slot
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            slot.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Puts the deadline off: its time starts anew with the next poll.
    pub(crate) fn rest(&self) {
        if self.since_ms.take().is_some() {
            self.stop();
        }
    }

    /// Disarms the watch, whatever it was waiting for.
    pub(crate) fn stop(&self) {
        self.since_ms.set(None);
        self.ticker.slots.borrow_mut()[self.index].due_ms = 0;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ticker.slots.borrow_mut()[self.index] = Slot::default();
        self.ticker.free.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU64);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct World {
        start: Instant,
        ticker: Rc<Ticker>,
        wakes: Arc<Count>,
    }

    impl World {
        fn new() -> Self {
            let start = Instant::now();
            Self {
                start,
                ticker: Ticker::new(start),
                wakes: Arc::default(),
            }
        }

        fn tick(&self, second: u64) {
            self.ticker.tick(self.start + Duration::from_secs(second));
        }

        fn poll(&self, watch: &Watch) -> bool {
            let waker = Waker::from(Arc::clone(&self.wakes));
            watch
                .poll_overdue(
                    Duration::from_secs(10),
                    u64::MAX,
                    &Context::from_waker(&waker),
                )
                .is_ready()
        }

        fn wakes(&self) -> u64 {
            self.wakes.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_watch_fires_once_its_time_has_passed() {
        let world = World::new();
        let watch = world.ticker.watch();
        assert!(!world.poll(&watch));
        world.tick(9);
        assert_eq!((world.wakes(), world.poll(&watch)), (0, false));
        world.tick(10);
        assert_eq!((world.wakes(), world.poll(&watch)), (1, true));
    }

    #[test]
    fn rest_puts_it_off() {
        let world = World::new();
        let watch = world.ticker.watch();
        assert!(!world.poll(&watch));
        world.tick(9);
        watch.rest();
        world.tick(11);
        assert_eq!((world.wakes(), world.poll(&watch)), (0, false));
        world.tick(20);
        assert!(!world.poll(&watch));
        world.tick(21);
        assert!(world.poll(&watch));
    }

    #[test]
    fn slots_are_used_again_and_start_afresh() {
        let world = World::new();
        let first = world.ticker.watch();
        assert!(!world.poll(&first));
        drop(first);
        let second = world.ticker.watch();
        assert_eq!(second.index, 0);
        world.tick(20);
        assert_eq!((world.wakes(), world.poll(&second)), (0, false));
    }

    #[test]
    fn all_can_be_woken() {
        let world = World::new();
        let watches: Vec<_> = (0..3).map(|_| world.ticker.watch()).collect();
        assert!(watches.iter().all(|watch| !world.poll(watch)));
        world.ticker.wake_all();
        assert_eq!(world.wakes(), 3);
    }
}
