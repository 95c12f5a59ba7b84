//! A connection that has changed its protocol (WebSocket and the like): bytes both ways until one side ends.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tracing::debug;

use crate::exchange::Exchange;
use crate::live::Outcome;

/// Joins the two sides once both have upgraded. No deadline but the drain's: silence is legitimate here.
pub(crate) async fn join(client: OnUpgrade, endpoint: OnUpgrade, exchange: Box<Exchange>) {
    let upgraded = tokio::try_join!(client, endpoint);
    let (client, endpoint) = match upgraded {
        Ok(both) => both,
        Err(error) => {
            debug!(%error, "one side did not upgrade");
            return exchange.end(Outcome::UpstreamResetInBody);
        }
    };
    let copied = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(endpoint)).await;
    if let Err(error) = copied {
        debug!(%error, "a tunnel broke off");
    }
    exchange.end(Outcome::Ok);
}
