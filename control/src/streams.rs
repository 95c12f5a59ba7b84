//! Listeners of servers that stream.

use axum::serve::{Listener, ListenerExt};
use tokio::net::{TcpListener, TcpStream};
use tracing::debug;

/// Accepts connections on which what is written goes out at once. With Nagle's algorithm a line waits until the one before it is
/// acknowledged, which a reader with nothing to send does after 40 ms (RFC 896, RFC 1122 4.2.3.2).
pub fn prompt(listener: TcpListener) -> impl Listener<Io = TcpStream, Addr = std::net::SocketAddr> {
    listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            debug!(%error, "a connection delays what it sends");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_do_not_wait_for_one_another() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut listener = prompt(listener);
        let (accepted, caller) = tokio::join!(listener.accept(), TcpStream::connect(address));
        assert!(caller.is_ok());
        assert!(accepted.0.nodelay().unwrap());
    }
}
