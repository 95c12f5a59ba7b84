//! The whole proxy over real sockets, with origins and clients in this process.

mod answers;
mod drain;
mod passing;
mod retries;
mod support;
mod swaps;
mod threads;
mod tls;
