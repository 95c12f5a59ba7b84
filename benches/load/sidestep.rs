//! Sidestep's proxy with what its users run: a Split of 90/10, per-version metrics, every deadline. One worker.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use sidestep_proxy::table::{
    Backend, Endpoint, HostMatch, Parts, PathMatch, Protocol, Route, Rule, Source, Split, Table,
    Target, Version,
};
use sidestep_proxy::{Config, Proxy};

/// Serves the two endpoints as stable and canary until the process is ended; prints its address first.
pub(crate) fn serve(arguments: &[String]) -> anyhow::Result<()> {
    let endpoints: Vec<SocketAddr> = arguments
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut config = Config::new(vec!["127.0.0.1:0".parse()?]);
        config.workers = NonZeroUsize::MIN;
        let proxy = Proxy::start(config)?;
        proxy
            .handle()
            .publish(Table::build(parts(&endpoints))?)
            .await;
        proxy.listen().await?;
        println!("{}", proxy.local_addr());
        Err(proxy.failed().await.into())
    })
}

fn parts(endpoints: &[SocketAddr]) -> Parts {
    let version = |(index, name): (usize, &str)| Version {
        name: name.into(),
        revision: format!("r{index}"),
        needed: Some(1),
        ready: 1,
    };
    let endpoint = |address: &SocketAddr| {
        vec![Endpoint {
            address: *address,
            pod: address.to_string(),
            ready: true,
            terminating: false,
        }]
    };
    Parts {
        apexes: Vec::new(),
        routes: vec![Route {
            host: HostMatch::Exact("web".into()),
            path: PathMatch::Prefix("/".into()),
            target: Target::Backend(0),
        }],
        backends: vec![Backend {
            namespace: "default".into(),
            service: "web".into(),
            port: "http".into(),
            protocol: Protocol::Http1,
            source: Source::Split {
                split: 0,
                rule: 0,
                endpoints: endpoints.iter().map(endpoint).collect(),
            },
        }],
        splits: vec![Split {
            namespace: "default".into(),
            name: "web".into(),
            uid: "bench".into(),
            generation: 1,
            stable: Some(0),
            versions: ["stable", "canary"]
                .into_iter()
                .enumerate()
                .map(version)
                .collect(),
            rules: vec![Rule {
                services: vec!["web".into()],
                weights: vec![Some(90), Some(10)],
            }],
            ..Split::default()
        }],
        ..Parts::default()
    }
}
