//! Two workers without sockets: they take up every table, as those of a proxy do.

use std::num::NonZeroUsize;
use std::thread::JoinHandle;

use anyhow::{Context, anyhow};
use sidestep_proxy::TableHandle;
use sidestep_proxy::live::{self, Seat};
use tokio::runtime::Builder;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Workers, each on its thread.
#[derive(Debug)]
pub(crate) struct Workers {
    /// Where tables are published.
    pub(crate) tables: TableHandle,
    stop: CancellationToken,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Workers {
    pub(crate) fn start(count: usize) -> anyhow::Result<Self> {
        let count = NonZeroUsize::new(count).context("no workers")?;
        let (tables, seats) = live::open(count, None, Instant::now());
        let stop = CancellationToken::new();
        let threads = seats.into_iter().map(|seat| {
            let stop = stop.clone();
            std::thread::spawn(move || work(seat, &stop))
        });
        let threads = threads.collect();
        Ok(Self {
            tables,
            stop,
            threads,
        })
    }

    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a worker panicked"))??;
        }
        Ok(())
    }
}

fn work(seat: Seat, stop: &CancellationToken) -> std::io::Result<()> {
    let worker = seat.take(1);
    let taking = async {
        loop {
            worker.changed().await;
            worker.take_up();
        }
    };
    let runtime = Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        tokio::select! {
            () = taking => {}
            () = stop.cancelled() => {}
        }
    });
    Ok(())
}
