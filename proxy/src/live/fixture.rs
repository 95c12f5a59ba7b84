//! A small shop to test with: a Split and a plain Service, workers on the test's own thread, no I/O.

use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::{Counts, TableHandle, Worker, open};
use crate::table::{
    Backend, Endpoint, HostMatch, Parts, PathMatch, Pick, Protocol, Route, Rule, Source, Split,
    Table, Target, Version,
};

pub(crate) fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        pod: format!("pod-{port}"),
        ready: true,
        terminating: false,
    }
}

pub(crate) fn backend(service: &str, source: Source) -> Backend {
    Backend {
        namespace: "shop".to_owned(),
        service: service.to_owned(),
        port: "80".to_owned(),
        protocol: Protocol::Http1,
        source,
    }
}

/// Stable on 8001 and canary on 8002, by weight; beside it `plain` on 8003 without a Split.
pub(crate) fn parts(weights: [u32; 2]) -> Parts {
    let version = |name: &str| Version {
        name: name.to_owned(),
        revision: format!("{name}-hash"),
        needed: None,
        ready: 1,
    };
    let split = Split {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        uid: "uid-1".to_owned(),
        generation: 1,
        unknown: Vec::new(),
        versions: vec![version("stable"), version("canary")],
        rules: vec![Rule {
            services: vec!["web".to_owned()],
            weights: weights.map(Some).to_vec(),
        }],
        ..Split::default()
    };
    let endpoints = vec![vec![endpoint(8001)], vec![endpoint(8002)]];
    let route = |name: &str, index| Route {
        host: HostMatch::Exact(name.to_owned()),
        path: PathMatch::Prefix("/".to_owned()),
        target: Target::Backend(index),
    };
    Parts {
        routes: vec![route("web", 0), route("plain", 1)],
        backends: vec![
            backend(
                "web",
                Source::Split {
                    split: 0,
                    rule: 0,
                    endpoints,
                },
            ),
            backend("plain", Source::Endpoints(vec![endpoint(8003)])),
        ],
        apexes: Vec::new(),
        splits: vec![split],
        own: Vec::new(),
    }
}

pub(crate) fn table(weights: [u32; 2]) -> Table {
    Table::build(parts(weights)).unwrap()
}

/// Workers, and the handle they are published to with.
pub(crate) struct Shop {
    pub(crate) handle: TableHandle,
    pub(crate) workers: Vec<Rc<Worker>>,
    pub(crate) now: Instant,
}

/// Workers before the first table.
pub(crate) fn open_shop(workers: usize, pick: Option<Pick>) -> Shop {
    let now = Instant::now();
    let (handle, seats) = open(NonZeroUsize::new(workers).unwrap(), pick, now);
    let workers = seats
        .into_iter()
        .zip(1..)
        .map(|(seat, seed)| seat.take(seed))
        .collect();
    Shop {
        handle,
        workers,
        now,
    }
}

/// Workers that have taken up a table of these weights.
pub(crate) fn shop(workers: usize, weights: [u32; 2]) -> Shop {
    let shop = open_shop(workers, None);
    shop.publish(table(weights));
    shop
}

impl Shop {
    /// Publishes, and lets every worker take it up.
    pub(crate) fn publish(&self, table: Table) {
        let mut publish = pin!(self.handle.publish(table));
        assert!(poll(publish.as_mut()).is_pending());
        self.workers.iter().for_each(|worker| worker.take_up());
        assert_eq!(poll(publish), Poll::Ready(()));
    }

    pub(crate) fn counts(&self, name: &str) -> Counts {
        let versions = self.handle.versions(self.now);
        versions
            .iter()
            .find(|version| version.key.name == name)
            .unwrap()
            .counts()
    }
}

/// Polls once, without a runtime.
pub(crate) fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
