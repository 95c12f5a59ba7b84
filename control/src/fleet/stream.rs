//! One proxy's stream: `GET /splits?watch=1&every=MS`, line by line, until it breaks.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use super::report::Line;

/// A proxy in the same cluster answers a SYN in a round trip; this leaves room for one lost packet.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// The head comes as soon as the proxy has taken the request up.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// Silence: a proxy with nothing to say pings every 5 s, so that three are missing.
const SILENCE_LIMIT: Duration = Duration::from_secs(15);
/// Of each connection: a proxy says some hundred lines of a kilobyte at once, and there may be a thousand proxies.
const BUFFER_BYTES: usize = 32 << 10;
/// Longest line taken: a Split of 20 versions with full histograms and codes is below 100 KiB.
const LINE_MAX_BYTES: usize = 4 << 20;

/// Why a stream broke.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers there.
    #[error("connecting")]
    Connect(#[source] std::io::Error),
    /// The proxy took too long.
    #[error("{what} within {limit:?}")]
    Timeout {
        /// What did not come.
        what: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// HTTP failed.
    #[error("reading the stream")]
    Http(#[from] hyper::Error),
    /// It answered something else.
    #[error("answered with status {0}")]
    Status(http::StatusCode),
    /// A line is no report.
    #[error("a line that is no report: {0}")]
    Line(#[from] serde_json::Error),
    /// A line has no end.
    #[error("a line of more than {LINE_MAX_BYTES} bytes")]
    Long,
    /// The proxy closed it.
    #[error("closed by the proxy")]
    Closed,
}

/// Hears a proxy, which is to tell its counters that often, until its stream breaks, which it always does at last. Dropping the future
/// closes the connection.
pub async fn listen(address: SocketAddr, every: Duration, mut heard: impl FnMut(Line)) -> Error {
    match open(address, every).await {
        Ok((body, connection)) => {
            tokio::select! {
                error = read(body, &mut heard) => error,
                // The body tells the rest: a connection that ends well before it does has nothing to add.
                Err(error) = connection => error.into(),
            }
        }
        Err(error) => error,
    }
}

type Connection = http1::Connection<TokioIo<TcpStream>, Empty<Bytes>>;

async fn open(address: SocketAddr, every: Duration) -> Result<(Incoming, Connection), Error> {
    let limited = |what, limit| move |_| Error::Timeout { what, limit };
    let tcp = timeout(CONNECT_LIMIT, TcpStream::connect(address))
        .await
        .map_err(limited("no connection", CONNECT_LIMIT))?
        .map_err(Error::Connect)?;
    let mut builder = http1::Builder::new();
    let handshake = builder.max_buf_size(BUFFER_BYTES);
    let (mut sender, mut connection) = handshake.handshake(TokioIo::new(tcp)).await?;
    let mut request = Request::new(Empty::new());
    let path = format!("/splits?watch=1&every={}", every.as_millis());
    if let Ok(path) = path.parse() {
        *request.uri_mut() = path;
    }
    if let Ok(host) = address.to_string().parse() {
        request.headers_mut().insert(header::HOST, host);
    }
    let response = async {
        tokio::select! {
            response = sender.send_request(request) => Ok(response?),
            ended = &mut connection => { ended?; Err(Error::Closed) }
        }
    };
    let response = timeout(HEAD_LIMIT, response)
        .await
        .map_err(limited("no answer", HEAD_LIMIT))??;
    if !response.status().is_success() {
        return Err(Error::Status(response.status()));
    }
    Ok((response.into_body(), connection))
}

async fn read(mut body: Incoming, heard: &mut impl FnMut(Line)) -> Error {
    let mut begun = Vec::new();
    loop {
        let frame = match timeout(SILENCE_LIMIT, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return error.into(),
            Ok(None) => return Error::Closed,
            Err(_) => {
                return Error::Timeout {
                    what: "nothing heard",
                    limit: SILENCE_LIMIT,
                };
            }
        };
        if let Some(chunk) = frame.data_ref()
            && let Err(error) = take_lines(&mut begun, chunk, heard)
        {
            return error;
        }
    }
}

/// Takes all whole lines out of a chunk; what is left is the beginning of the next.
fn take_lines(
    begun: &mut Vec<u8>,
    chunk: &[u8],
    heard: &mut impl FnMut(Line),
) -> Result<(), Error> {
    for line in chunk.split_inclusive(|&byte| byte == b'\n') {
        if !line.ends_with(b"\n") {
            begun.extend_from_slice(line);
        } else if begun.is_empty() {
            parse(line)?.into_iter().for_each(&mut *heard);
        } else {
            let mut whole = std::mem::take(begun); // which may be long, and is not kept
            whole.extend_from_slice(line);
            parse(&whole)?.into_iter().for_each(&mut *heard);
        }
    }
    if begun.len() > LINE_MAX_BYTES {
        return Err(Error::Long);
    }
    Ok(())
}

/// One line; none where it is blank or of a kind that a newer proxy may send.
fn parse(line: &[u8]) -> Result<Option<Line>, serde_json::Error> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let error = match serde_json::from_slice(line) {
        Ok(line) => return Ok(Some(line)),
        Err(error) => error,
    };
    let object: Map<String, Value> = serde_json::from_slice(line)?;
    let known = |key: &String| {
        ["hello", "split", "gone", "draining", "ping", "told"].contains(&key.as_str())
    };
    if object.keys().any(known) {
        return Err(error);
    }
    debug!(?object, "a line of a kind we do not know");
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&str]) -> Result<Vec<Line>, Error> {
        let mut begun = Vec::new();
        let mut found = Vec::new();
        for chunk in chunks {
            take_lines(&mut begun, chunk.as_bytes(), &mut |line| found.push(line))?;
        }
        Ok(found)
    }

    #[test]
    fn lines_are_taken_whole_however_they_come() {
        let found = lines(&[
            "{\"ping\":",
            "{}}\n{\"draining\":true}\n\n{\"pi",
            "ng\":{}}\n{\"pi",
        ])
        .unwrap();
        assert!(
            matches!(
                found[..],
                [Line::Ping(_), Line::Draining(true), Line::Ping(_)]
            ),
            "{found:?}"
        );
    }

    #[test]
    fn what_a_newer_proxy_says_is_passed_over_and_nonsense_is_an_error() {
        assert!(
            lines(&["{\"weather\":{\"sunny\":true}}\n"])
                .unwrap()
                .is_empty()
        );
        assert!(matches!(
            lines(&["{\"split\":{\"uid\":7}}\n"]),
            Err(Error::Line(_))
        ));
        assert!(matches!(lines(&["not json\n"]), Err(Error::Line(_))));
        let endless = "x".repeat(LINE_MAX_BYTES + 1);
        assert!(matches!(lines(&[&endless]), Err(Error::Long)));
    }
}
