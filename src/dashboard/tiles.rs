//! Requests that the page asks for: sent through the proxy like any client's, one tile each.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use reqwest::Client;
use serde::Serialize;

/// Most requests for one turn of the page.
const TILES_MAX: usize = 64;
/// A request that takes longer is a failed tile.
const PATIENCE: Duration = Duration::from_secs(5);
/// A body longer than this names no colour.
const COLOUR_BYTES_MAX: usize = 32;

/// One request, as its sender saw it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Tile {
    /// The version that answered, as the proxy says; nothing where none did.
    version: Option<String>,
    /// The body, where it may be the name of a colour.
    colour: Option<String>,
    /// What stands in the legend.
    label: String,
    /// No answer, or one of 500 and above.
    failed: bool,
}

/// Sends `count` requests at once.
pub(super) async fn ask(client: &Client, proxy: SocketAddr, host: &str, count: usize) -> Vec<Tile> {
    join_all((0..count.min(TILES_MAX)).map(|_| one(client, proxy, host))).await
}

async fn one(client: &Client, proxy: SocketAddr, host: &str) -> Tile {
    let sent = client
        .get(format!("http://{proxy}/color"))
        .header(http::header::HOST, host)
        .timeout(PATIENCE)
        .send()
        .await;
    let Ok(answer) = sent else {
        return Tile {
            version: None,
            colour: None,
            label: "no answer".to_owned(),
            failed: true,
        };
    };
    let failed = answer.status().is_server_error();
    let version = answer
        .headers()
        .get("x-sidestep-version")
        .and_then(|name| name.to_str().ok())
        .map(str::to_owned);
    let body = answer.text().await.unwrap_or_default();
    let colour = Some(body.trim().trim_matches('"').to_owned()).filter(|text| is_word(text));
    let label = match (&version, &colour) {
        (Some(version), Some(colour)) => format!("{version} ({colour})"),
        (Some(name), None) | (None, Some(name)) => name.clone(),
        (None, None) => "unnamed".to_owned(),
    };
    Tile {
        version,
        colour,
        label,
        failed,
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= COLOUR_BYTES_MAX
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
