//! `sidestep proxy` as a process of its own, with a gate between it and the API server.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use kube::config::Kubeconfig;
use tempfile::tempdir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use crate::support::session::{DEADLINE, finish, sidestep};
use crate::support::terminal::Terminal;

/// A way to the API server that leads nowhere until it is opened.
struct Gate {
    address: SocketAddr,
    opened: watch::Sender<bool>,
    /// Connections that have come so far.
    came: watch::Receiver<u32>,
}

impl Gate {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (opened, (coming, came)) = (watch::Sender::new(false), watch::channel(0));
        let open = opened.subscribe();
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                coming.send_modify(|connections| *connections += 1);
                let mut open = open.clone();
                tokio::spawn(async move {
                    if open.wait_for(|open| *open).await.is_ok() {
                        let mut server = TcpStream::connect(server).await.unwrap();
                        drop(copy_bidirectional(&mut client, &mut server).await);
                    }
                });
            }
        });
        Self {
            address,
            opened,
            came,
        }
    }

    /// Waits until somebody stands before it.
    async fn until_asked(&mut self) {
        let asked = self.came.wait_for(|connections| *connections > 0);
        drop(timeout(DEADLINE, asked).await.expect("somebody asks"));
    }
}

/// A proxy at work.
struct Proxy {
    listen: SocketAddr,
    admin: SocketAddr,
    log: Lines<BufReader<ChildStderr>>,
    _child: Child,
}

impl Proxy {
    /// Returns when its admin port is there.
    async fn start(kubeconfig: &Path) -> Self {
        let mut command = proxy();
        command.arg("--kubeconfig").arg(kubeconfig);
        command.args(["--listen=127.0.0.1:0", "--admin=127.0.0.1:0"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = logged(&mut log, " admin=").await;
        let address = |of: &str| {
            let (_, after) = line.split_once(of).unwrap();
            after.split(' ').next().unwrap().parse().unwrap()
        };
        Self {
            listen: address(" listen="),
            admin: address(" admin="),
            log,
            _child: child,
        }
    }
}

/// The command of a proxy that knows no API server but one that is named.
fn proxy() -> Command {
    let mut command = sidestep();
    command.arg("proxy");
    command.env("HOME", "/nonexistent").env("NO_COLOR", "1");
    command.env_remove("KUBECONFIG");
    command
}

/// Waits for a line that holds a text.
async fn logged(log: &mut Lines<BufReader<ChildStderr>>, text: &str) -> String {
    let find = async {
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains(text) {
                return line;
            }
        }
        panic!("it ended without {text:?}");
    };
    timeout(DEADLINE, find).await.expect("it is logged")
}

/// Status and text of an answer.
async fn ask(at: SocketAddr, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(at).await.unwrap();
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, "web");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let (head, body) = answer.into_parts();
    let text = body.collect().await.unwrap().to_bytes().to_vec();
    (head.status.as_u16(), String::from_utf8(text).unwrap())
}

/// Where `sidestep run` has its API server.
fn api_server(kubeconfig: &Path) -> SocketAddr {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let cluster = kubeconfig.clusters[0].cluster.as_ref().unwrap();
    let (_, address) = cluster.server.as_ref().unwrap().rsplit_once('@').unwrap();
    address.parse().unwrap()
}

/// `sidestep run`, a gate before its API server, and a proxy that has been sent there.
async fn stage(folder: &Path) -> (Terminal, Gate, Proxy) {
    let cluster = Terminal::run(folder, &[]).await;
    let kubeconfig = folder.join("kubeconfig");
    let server = api_server(&kubeconfig);
    let gate = Gate::before(server).await;
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    let by_gate = folder.join("by-gate");
    let text = text.replace(&server.to_string(), &gate.address.to_string());
    std::fs::write(&by_gate, text).unwrap();
    let proxy = Proxy::start(&by_gate).await;
    (cluster, gate, proxy)
}

/// The timers of the established connections to an address, as proc_net_tcp(5) has them: 2 is that of a keepalive.
fn timers(to: SocketAddr) -> Vec<String> {
    let SocketAddr::V4(to) = to else {
        panic!("an address of IPv4")
    };
    let remote = format!(
        "{:08X}:{:04X}",
        u32::from_ne_bytes(to.ip().octets()),
        to.port()
    );
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    let established = rows.filter(|row| row[2] == remote && row[3] == "01");
    let timer = |row: Vec<&str>| row[5].split(':').next().unwrap().to_owned();
    established.map(timer).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_refuses_connections_until_it_has_a_table() {
    let folder = tempdir().unwrap();
    let (_cluster, mut gate, mut proxy) = stage(folder.path()).await;
    gate.until_asked().await;
    let refused = TcpStream::connect(proxy.listen).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(ask(proxy.admin, "/livez").await.0, 200);
    let not_ready = (503, "no table yet\n".to_owned());
    assert_eq!(ask(proxy.admin, "/readyz").await, not_ready);

    gate.opened.send_replace(true);
    logged(&mut proxy.log, "proxy listens").await;
    assert_eq!(ask(proxy.listen, "/").await.0, 404);
    assert_eq!(ask(proxy.admin, "/readyz").await, (200, "ok\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_silent_is_asked_whether_it_is_there() {
    let folder = tempdir().unwrap();
    let (_cluster, gate, mut proxy) = stage(folder.path()).await;
    gate.opened.send_replace(true);
    logged(&mut proxy.log, "proxy listens").await;
    let mut looks = interval(Duration::from_millis(10));
    let all_are = async {
        while !timers(gate.address).iter().all(|timer| timer == "02") {
            looks.tick().await;
        }
    };
    let asked = timeout(DEADLINE, all_are).await;
    assert!(asked.is_ok(), "{:?}", timers(gate.address));
    // Services, EndpointSlices, Splits, Ingresses: a watch each.
    assert_eq!(timers(gate.address).len(), 4);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_before_the_api_server_answers() {
    let gate = Gate::before(([127, 0, 0, 1], 1).into()).await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = other.local_addr().unwrap();
    for (flag, free) in [("--listen", "--admin"), ("--admin", "--listen")] {
        let mut command = proxy();
        command.arg(format!("--server=http://{}", gate.address));
        command.args([format!("{flag}={taken}"), format!("{free}=127.0.0.1:0")]);
        let answer = finish(command, "").await.unwrap();
        let said = format!("{flag}: {taken} is in use by another process");
        assert!(answer.stderr.contains(&said), "{answer:?}");
        assert_eq!(answer.code, Some(1));
    }
}
