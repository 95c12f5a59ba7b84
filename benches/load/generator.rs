//! The load: plain sockets and a request that is always the same, so that the generator costs less than what it measures.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

const REQUEST: &[u8] =
    b"GET /bench HTTP/1.1\r\nHost: web\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
/// Longer than any answer here: a head of a few hundred bytes and a body of 128.
const ANSWER_MAX: usize = 4096;

/// Requests that were answered, and the time that took.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
}

/// Each connection sends its next request when it has its answer.
pub(crate) fn closed_loop(
    address: SocketAddr,
    connections: usize,
    length: Duration,
) -> anyhow::Result<Closed> {
    runtime()?.block_on(async {
        let begin = Instant::now();
        let clients: Vec<_> = (0..connections)
            .map(|_| {
                tokio::spawn(async move {
                    let mut client = Client::connect(address).await?;
                    let mut requests = 0_u64;
                    while begin.elapsed() < length {
                        client.ask().await?;
                        requests += 1;
                    }
                    anyhow::Ok(requests)
                })
            })
            .collect();
        let mut requests = 0;
        for client in clients {
            requests += client.await??;
        }
        Ok(Closed {
            requests,
            elapsed: begin.elapsed(),
        })
    })
}

/// Requests go out at a fixed rate, whatever the answers do; latencies are counted from the intended send time. Sorted.
pub(crate) fn open_loop(
    address: SocketAddr,
    connections: usize,
    rate: u32,
    length: Duration,
) -> anyhow::Result<Vec<Duration>> {
    runtime()?.block_on(async {
        let begin = Instant::now() + Duration::from_millis(50);
        let period = Duration::from_secs(1) * u32::try_from(connections)? / rate;
        let clients: Vec<_> = (0..connections)
            .map(|index| {
                tokio::spawn(async move {
                    let mut client = Client::connect(address).await?;
                    let mut intended =
                        begin + period * u32::try_from(index)? / u32::try_from(connections)?;
                    let mut latencies = Vec::new();
                    while intended < begin + length {
                        sleep_until(intended).await;
                        client.ask().await?;
                        latencies.push(intended.elapsed());
                        intended += period;
                    }
                    anyhow::Ok(latencies)
                })
            })
            .collect();
        let mut latencies = Vec::new();
        for client in clients {
            latencies.extend(client.await??);
        }
        latencies.sort_unstable();
        Ok(latencies)
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

struct Client {
    stream: TcpStream,
    buffer: Box<[u8; ANSWER_MAX]>,
}

impl Client {
    async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Box::new([0; ANSWER_MAX]),
        })
    }

    async fn ask(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(REQUEST).await?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                bail!("the connection was closed after {filled} bytes of an answer");
            }
            filled += read;
            if is_whole(&self.buffer[..filled])? {
                return Ok(());
            }
        }
    }
}

/// Whether a 200 with its 128 bytes is there. Every contender sends a content-length here, so counting is enough.
fn is_whole(bytes: &[u8]) -> anyhow::Result<bool> {
    if bytes.len() >= 12 && !bytes.starts_with(b"HTTP/1.1 200") {
        bail!(
            "answered with {:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(60)])
        );
    }
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    Ok(head.is_some_and(|end| bytes.len() >= end + 4 + 128))
}
