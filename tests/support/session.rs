//! A cluster as a person at a terminal has it: commands that end, `kubectl` and `curl`. Which cluster it is makes no difference.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

/// Everything that is waited for comes long before, also on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its exit code.
    pub(crate) code: Option<i32>,
    /// What it printed.
    pub(crate) stdout: String,
    /// What it complained of.
    pub(crate) stderr: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The way to a cluster, and to a proxy of it.
#[derive(Debug)]
pub(crate) struct Session {
    /// Where the proxy listens.
    pub(crate) proxy: SocketAddr,
    /// How commands find the cluster, and the namespace.
    pub(crate) kubeconfig: PathBuf,
    /// The namespace.
    pub(crate) namespace: String,
}

impl Session {
    /// Runs a command of ours against it.
    pub(crate) async fn sidestep(&self, line: &str) -> Answer {
        let mut command = sidestep();
        command
            .args(line.split(' '))
            .arg("--kubeconfig")
            .arg(&self.kubeconfig);
        finish(command, "").await.unwrap()
    }

    /// Runs a command of ours, which must print exactly this and succeed.
    pub(crate) async fn says(&self, line: &str, stdout: &str) {
        let answer = self.sidestep(line).await;
        assert_eq!(
            (answer.stdout.as_str(), answer.code),
            (stdout, Some(0)),
            "{line}: {answer:?}"
        );
    }

    /// Waits until `get rollout -w` shows all of these lines in its header; returns the header.
    pub(crate) async fn until_shown(&self, rollout: &str, lines: &[&str]) -> String {
        let mut command = sidestep();
        command
            .args(["get", "rollout", rollout, "-w", "--kubeconfig"])
            .arg(&self.kubeconfig);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut shown = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut last = String::new();
        let look = async {
            let mut picture: Vec<String> = Vec::new();
            while let Some(line) = shown.next_line().await.unwrap() {
                if line.contains("Name:            ") {
                    picture.clear();
                }
                last = picture.join("\n");
                picture.push(line);
                // The tree begins where the header ends, so the header is whole there.
                let is_whole = picture.last().is_some_and(|line| line.starts_with("NAME "));
                if is_whole
                    && lines
                        .iter()
                        .all(|line| picture.iter().any(|shown| shown == line))
                {
                    return;
                }
            }
        };
        let looked = timeout(DEADLINE, look).await;
        child.kill().await.unwrap();
        assert!(looked.is_ok(), "{lines:?} were not shown:\n{last}");
        last
    }

    /// Runs `kubectl` against it; `None` where there is none.
    pub(crate) async fn kubectl(&self, arguments: &[&str], input: &str) -> Option<Answer> {
        let mut command = Command::new("kubectl");
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig);
        command.env("KUBECACHEDIR", self.kubeconfig.with_extension("cache"));
        finish(command, input).await
    }

    /// What so many requests for `/color` are answered, one after another over one connection.
    pub(crate) async fn colours(&self, host: &str, requests: u32) -> BTreeMap<String, u32> {
        let stream = TcpStream::connect(self.proxy).await.unwrap();
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        let ask = async move {
            let mut seen = BTreeMap::new();
            for _ in 0..requests {
                let request = Request::get("/color").header(header::HOST, host);
                let request = request.body(Empty::<Bytes>::new()).unwrap();
                sender.ready().await.unwrap();
                let answer = sender.send_request(request).await.unwrap();
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                let colour = String::from_utf8(body.to_vec()).unwrap();
                *seen
                    .entry(colour.trim_matches(['"', '\n']).to_owned())
                    .or_default() += 1;
            }
            seen
        };
        let (seen, connected) = tokio::join!(ask, connection);
        connected.unwrap();
        seen
    }

    /// The percentage of requests that are answered with a colour.
    pub(crate) async fn percent(&self, host: &str, colour: &str, requests: u32) -> f64 {
        let seen = self.colours(host, requests).await;
        f64::from(seen.get(colour).copied().unwrap_or_default()) * 100.0 / f64::from(requests)
    }

    /// Fifty requests in a row are answered with one colour.
    pub(crate) async fn answers_only(&self, host: &str, colour: &str) {
        let seen = self.colours(host, 50).await;
        assert_eq!(seen, BTreeMap::from([(colour.to_owned(), 50)]), "{host}");
    }

    /// Asks until a colour has this share, to one percentage point: the proxy takes up a table soon after an object is written.
    pub(crate) async fn until_percent(&self, host: &str, colour: &str, percent: f64) {
        let ask = async { while (self.percent(host, colour, 200).await - percent).abs() > 1.0 {} };
        let asked = timeout(DEADLINE, ask).await;
        assert!(asked.is_ok(), "{host}: not {percent} % {colour}");
    }
}

/// The binary.
pub(crate) fn sidestep() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a command to its end; `None` where there is no such program.
pub(crate) async fn finish(mut command: Command, input: &str) -> Option<Answer> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.kill_on_drop(true).spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => panic!("{error}"),
    };
    let mut stdin = child.stdin.take().unwrap();
    match stdin.write_all(input.as_bytes()).await {
        Ok(()) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}"),
    }
    drop(stdin);
    let ended = timeout(DEADLINE, child.wait_with_output()).await;
    Some(ended.expect("it ends").unwrap().into())
}

/// An example with some of its text replaced, written to `folder`; each replacement must be found.
pub(crate) fn example(folder: &Path, name: &str, replacements: &[(&str, &str)]) -> PathBuf {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut text = std::fs::read_to_string(examples.join(name)).unwrap();
    for (from, to) in replacements {
        assert!(text.contains(from), "{name} has no {from:?}");
        text = text.replacen(from, to, 1);
    }
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}
