//! The yardstick: the least that a hyper proxy can do. No split, no metrics, no deadlines, no retries, no header rules beyond Host.
//!
//! One thread, one pool per endpoint. What Sidestep costs above this is what its features cost.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

type Sender = client::SendRequest<Incoming>;
type Pool = Rc<RefCell<Vec<Sender>>>;

/// Forwards to the endpoints in turn until the process is ended; prints its address first.
pub(crate) fn serve(arguments: &[String]) -> anyhow::Result<()> {
    let endpoints: Vec<(SocketAddr, Pool)> = arguments
        .iter()
        .map(|text| Ok((text.parse()?, Pool::default())))
        .collect::<anyhow::Result<_>>()?;
    let endpoints = Rc::new(endpoints);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let mut turn = 0_usize;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            turn += 1;
            let endpoints = Rc::clone(&endpoints);
            let forward = service_fn(move |request| {
                let (address, pool) = endpoints[turn % endpoints.len()].clone();
                forward(request, address, pool)
            });
            tokio::task::spawn_local(
                server::Builder::new().serve_connection(TokioIo::new(stream), forward),
            );
        }
    })
}

async fn forward(
    request: Request<Incoming>,
    address: SocketAddr,
    pool: Pool,
) -> anyhow::Result<Response<Incoming>> {
    let kept = pool.borrow_mut().pop();
    let mut sender = match kept {
        Some(sender) if !sender.is_closed() => sender,
        _ => connect(address).await?,
    };
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    pool.borrow_mut().push(sender);
    Ok(response)
}

async fn connect(address: SocketAddr) -> anyhow::Result<Sender> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = client::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}
