//! The data plane of Sidestep: an L7 proxy that splits requests over versions by weight.
//!
//! | file | what it holds |
//! |---|---|
//! | `config` | addresses, limits and deadlines, already valid |
//! | `table`, `table/` | the routing state as a plain value; what of it cannot be served; host and path → route |
//! | `split` | shares, points, the pick of a version |
//! | `balance`, `breaker`, `budget` | which endpoint; which to pass over; how many retries |
//! | `headers` | what changes in a head on its way through |
//! | `error` | what can go wrong, who caused it, may it be retried, what the client is told |
//! | `tls` | certificates, which of them a client is shown, the handshake |
//! | `sniff`, `ticker` | HTTP/1 or HTTP/2 on one port; a worker's coarse clock and deadlines |
//! | `live`, `live/` | the table in service: publication, what outlives a table, one worker's view, the counting |
//! | `report`, `metrics` | what the proxy says of itself: to the controller and to people; to Prometheus |
//! | `proxy`, `worker`, `listener` | start and drain; one thread and its runtime; bind, accept, hand over |
//! | `connection` | one client connection: protocol, deadlines, drain |
//! | `forward` | **one request, top to bottom** |
//! | `parcel` | a request between attempts, and the copy that is sent again |
//! | `exchange`, `access` | the guard that counts a request once; the access log |
//! | `upstream`, `body`, `tunnel` | connections to endpoints; bodies on their way; upgraded connections |

pub mod config;
pub mod live;
pub mod metrics;
pub mod proxy;
pub mod report;
pub mod split;
pub mod table;
pub mod tls;

mod access;
mod balance;
mod body;
mod breaker;
mod budget;
mod connection;
mod error;
mod exchange;
mod forward;
mod headers;
mod listener;
mod parcel;
mod patience;
mod sniff;
mod ticker;
mod tunnel;
mod upstream;
mod worker;

pub use config::Config;
pub use live::TableHandle;
pub use proxy::Proxy;
pub use report::Report;
pub use table::Table;
