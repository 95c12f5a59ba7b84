//! A proxy in front of a few endpoints, to be tried by hand:
//! `cargo run -p sidestep-proxy --example relay -- 127.0.0.1:8080 127.0.0.1:9001 127.0.0.1:9002`, where every address after the
//! first is an endpoint of a version of its own, all of one weight. `h2c:127.0.0.1:9001` speaks HTTP/2 to all of them. With
//! `ACCESS_LOG=1` every request is written to standard output. Drains at
//! Ctrl-C.

use std::error::Error;
use std::net::SocketAddr;
use std::num::NonZeroUsize;

use sidestep_proxy::config::AccessLog;
use sidestep_proxy::table::{
    Backend, Endpoint, HostMatch, Parts, PathMatch, Protocol, Route, Rule, Source, Split, Target,
    Version,
};
use sidestep_proxy::{Config, Proxy, Table};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().ok_or("where to listen?")?.parse()?;
    let mut config = Config::new(vec![listen]);
    config.workers = NonZeroUsize::MIN;
    if std::env::var_os("ACCESS_LOG").is_some() {
        config.access_log = AccessLog::Stdout;
    }
    let proxy = Proxy::start(config)?;
    let table = Table::build(parts(&arguments.collect::<Vec<_>>())?)?;
    proxy.handle().publish(table).await;
    proxy.listen().await?;
    tokio::signal::ctrl_c().await?;
    proxy.drain().await;
    Ok(())
}

fn parts(endpoints: &[String]) -> Result<Parts, Box<dyn Error>> {
    let h2c = endpoints
        .iter()
        .any(|endpoint| endpoint.starts_with("h2c:"));
    let addresses: Vec<SocketAddr> = endpoints
        .iter()
        .map(|endpoint| endpoint.trim_start_matches("h2c:").parse())
        .collect::<Result<_, _>>()?;
    let endpoint = |&address: &SocketAddr| {
        vec![Endpoint {
            address,
            pod: address.to_string(),
            ready: true,
            terminating: false,
        }]
    };
    let version = |address: &SocketAddr| Version {
        name: address.to_string(),
        ready: 1,
        ..Version::default()
    };
    let split = Split {
        namespace: "default".into(),
        name: "relay".into(),
        uid: "1".into(),
        versions: addresses.iter().map(version).collect(),
        rules: vec![Rule {
            services: vec!["relay".into()],
            weights: vec![Some(1); addresses.len()],
        }],
        ..Split::default()
    };
    let backend = Backend {
        namespace: "default".into(),
        service: "relay".into(),
        port: "80".into(),
        protocol: if h2c { Protocol::H2c } else { Protocol::Http1 },
        source: Source::Split {
            split: 0,
            rule: 0,
            endpoints: addresses.iter().map(endpoint).collect(),
        },
    };
    let route = Route {
        host: HostMatch::Any,
        path: PathMatch::Prefix("/".into()),
        target: Target::Backend(0),
    };
    Ok(Parts {
        apexes: Vec::new(),
        routes: vec![route],
        backends: vec![backend],
        splits: vec![split],
        own: Vec::new(),
    })
}
