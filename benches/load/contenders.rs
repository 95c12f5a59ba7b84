//! The processes that are compared: started here, ended when dropped.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow};

/// A process under measurement, or the origin itself as the direct path.
#[derive(Debug)]
pub(crate) struct Contender {
    /// Its column in the table.
    pub(crate) name: &'static str,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The processes whose CPU time counts: nginx has a worker beside its master.
    pids: Vec<u32>,
    process: Option<Child>,
    _folder: Option<tempfile::TempDir>,
}

impl Drop for Contender {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // nginx ends its worker on SIGTERM; the others are one process.
            if let Some(pid) = i32::try_from(process.id())
                .ok()
                .and_then(rustix::process::Pid::from_raw)
            {
                let _ended = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let _status = process.wait();
        }
    }
}

impl Contender {
    /// CPU time its processes have used so far, user and system.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        self.pids.iter().map(|pid| cpu_of(*pid)).sum()
    }

    /// Resident memory of its processes in bytes.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        self.pids.iter().map(|pid| memory_of(*pid)).sum()
    }
}

/// Starts an origin.
pub(crate) fn origin(name: &'static str) -> anyhow::Result<Contender> {
    start(name, &["origin"], &[])
}

/// All contenders, in the order they are measured.
pub(crate) fn all(origins: &[Contender; 2]) -> anyhow::Result<Vec<Contender>> {
    let endpoints: Vec<String> = origins
        .iter()
        .map(|origin| origin.address.to_string())
        .collect();
    let mut contenders = vec![
        Contender {
            name: "direct",
            address: origins[0].address,
            pids: origins[0].pids.clone(),
            process: None,
            _folder: None,
        },
        start("probe", &["probe"], &endpoints)?,
        start("sidestep", &["sidestep"], &endpoints)?,
    ];
    match nginx(&endpoints)? {
        Some(nginx) => contenders.push(nginx),
        None => eprintln!("nginx is not installed: its column is missing"),
    }
    Ok(contenders)
}

fn start(name: &'static str, role: &[&str], endpoints: &[String]) -> anyhow::Result<Contender> {
    let mut process = Command::new(std::env::current_exe()?)
        .args(role)
        .args(endpoints)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    let output = process
        .stdout
        .take()
        .ok_or_else(|| anyhow!("{name} has no output"))?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    let address = line
        .trim()
        .parse()
        .with_context(|| format!("{name} said {line:?} instead of its address"))?;
    Ok(Contender {
        name,
        address,
        pids: vec![process.id()],
        process: Some(process),
        _folder: None,
    })
}

/// nginx with one worker, keep-alive both ways, the same split, no access log: what its users run for this work.
fn nginx(endpoints: &[String]) -> anyhow::Result<Option<Contender>> {
    let Some(program) = ["/usr/sbin/nginx", "/usr/bin/nginx"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
    else {
        return Ok(None);
    };
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().display();
    let configuration = format!(
        "daemon off; worker_processes 1; pid {path}/pid; error_log {path}/error.log;
        events {{ worker_connections 1024; }}
        http {{
          access_log off; keepalive_requests 100000000;
          client_body_temp_path {path}/b; proxy_temp_path {path}/p; fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;
          upstream stable {{ server {stable}; keepalive 64; keepalive_requests 100000000; }}
          upstream canary {{ server {canary}; keepalive 64; keepalive_requests 100000000; }}
          split_clients $request_id $version {{ 10% canary; * stable; }}
          server {{
            listen {address};
            location / {{
              proxy_pass http://$version; proxy_http_version 1.1;
              proxy_set_header Connection ''; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;
            }}
          }}
        }}",
        stable = endpoints[0],
        canary = endpoints[1],
    );
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, configuration)?;
    let process = Command::new(program)
        .arg("-c")
        .arg(&file)
        .arg("-p")
        .arg(folder.path())
        .spawn()
        .context("starting nginx")?;
    while std::net::TcpStream::connect(address).is_err() {
        std::thread::yield_now();
    }
    let mut pids = vec![process.id()];
    // The master listens before it has started its worker.
    while pids.len() < 2 {
        std::thread::yield_now();
        pids.extend(children(process.id())?);
    }
    Ok(Some(Contender {
        name: "nginx",
        address,
        pids,
        process: Some(process),
        _folder: Some(folder),
    }))
}

fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    text.split_whitespace()
        .map(|child| Ok(child.parse()?))
        .collect()
}

/// Fields 14 and 15 of `/proc/PID/stat`, in ticks of 10 ms (USER_HZ is 100 on every Linux).
fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = text
        .rsplit_once(')')
        .ok_or_else(|| anyhow!("/proc/{pid}/stat has no name"))?
        .1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}

fn memory_of(pid: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .ok_or_else(|| anyhow!("process {pid} has no VmRSS"))?;
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .ok_or_else(|| anyhow!("odd line {line:?}"))?
        .parse()?;
    Ok(kib * 1024)
}
