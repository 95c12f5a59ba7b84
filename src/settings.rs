//! Typed → usable: what the user typed becomes addresses, paths and names, or all complaints at once.
//!
//! Nothing is opened or bound here; a port in use is found by whoever binds it.

mod controller;
mod proxy;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use self::controller::{ControllerSettings, Election};
pub(crate) use self::proxy::ProxySettings;
use crate::cli::{DemoArgs, RunArgs};
use crate::machine;
use crate::proxy_config;

/// What `sidestep run` needs to know, all of it usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunSettings {
    /// Where the manifests are, in the order they were named.
    pub(crate) manifests: Vec<Source>,
    /// Apply the manifests again when they change.
    pub(crate) watch: bool,
    /// What runs them.
    pub(crate) machine: machine::Settings,
}

/// What `sidestep demo` needs to know, all of it usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DemoSettings {
    /// Tell the story once and exit.
    pub(crate) once: bool,
    /// Where the measured report is written.
    pub(crate) report: Option<PathBuf>,
    /// Where the proxy listens.
    pub(crate) listen: SocketAddr,
    /// Where the dashboard listens; `None` is off.
    pub(crate) dashboard: Option<SocketAddr>,
    /// Where the kubeconfig of the embedded cluster is written.
    pub(crate) kubeconfig_out: PathBuf,
    /// Print lines rather than a live view.
    pub(crate) plain: bool,
    /// The user asked for no colour.
    pub(crate) no_color: bool,
}

/// Where manifests come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// One file.
    File(PathBuf),
    /// All .yaml, .yml and .json files of a folder, in the order of their names.
    Folder(PathBuf),
    /// Standard input, once.
    Stdin,
}

/// A Service by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceName {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
}

/// Which container, and its new image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerImage {
    /// The container's name; `*` stands for all.
    pub(crate) container: String,
    /// The image.
    pub(crate) image: String,
}

/// Everything that is wrong with what was typed: which flag, and what to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Complaints(Vec<String>);

impl std::error::Error for Complaints {}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Complaints {
    /// Notes what is wrong with a flag.
    fn add(&mut self, flag: &str, what: impl fmt::Display) {
        self.0.push(format!("{flag}: {what}"));
    }

    /// Keeps the value, or the complaint.
    fn take<T>(&mut self, flag: &str, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|what| self.add(flag, what)).ok()
    }

    /// The settings, if there is nothing to complain about.
    fn or<T>(self, settings: Option<T>) -> Result<T, Self> {
        match settings {
            Some(settings) if self.0.is_empty() => Ok(settings),
            Some(_) | None => Err(self),
        }
    }
}

impl RunSettings {
    /// Makes the arguments usable. `namespace` is `-n`; `home` is the user's home folder.
    ///
    /// # Errors
    /// Every complaint, not only the first.
    pub(crate) fn new(
        args: &RunArgs,
        namespace: Option<&str>,
        home: Option<&Path>,
    ) -> Result<Self, Complaints> {
        let mut complaints = Complaints::default();
        let listen = complaints.take("--listen", address(&args.listen));
        let admin = complaints.take("--admin", address(&args.admin));
        let api = complaints.take("--api", loopback(&args.api));
        let dashboard = complaints.take("--dashboard", address_or_off(&args.dashboard));
        complain_of_shared_addresses(
            &mut complaints,
            [
                ("--listen", listen),
                ("--admin", admin),
                ("--api", api),
                ("--dashboard", dashboard.flatten()),
            ],
        );
        let manifests = sources(&mut complaints, &args.files, args.watch);
        let namespace = complaints.take("--namespace", label(namespace.unwrap_or("default")));
        let state = complaints.take("--state", optional(args.state.as_deref(), writable_folder));
        let kubeconfig_out = complaints.take(
            "--kubeconfig-out",
            kubeconfig_path(args.kubeconfig_out.as_deref(), home),
        );
        let foreign_routers = complaints.take("--foreign-routers", args.foreign_routers.parse());
        let default_service = complaints.take(
            "--default-service",
            optional(args.default_service.as_deref(), service),
        );
        let proxy = proxy::config(&mut complaints, &args.proxy, proxy_config::alone(), listen);
        let settings = || {
            Some(Self {
                manifests,
                watch: args.watch,
                machine: machine::Settings {
                    namespace: namespace?,
                    proxy: proxy?,
                    admin: admin?,
                    api: api?,
                    dashboard: dashboard?,
                    state: state?,
                    kubeconfig_out: kubeconfig_out?,
                    default_service: default_service?,
                    foreign_routers: foreign_routers?,
                },
            })
        };
        complaints.or(settings())
    }
}

impl DemoSettings {
    /// Makes the arguments usable.
    ///
    /// # Errors
    /// Every complaint, not only the first.
    pub(crate) fn new(args: &DemoArgs, home: Option<&Path>) -> Result<Self, Complaints> {
        let mut complaints = Complaints::default();
        let listen = complaints.take("--listen", address(&args.listen));
        let dashboard = complaints.take("--dashboard", address_or_off(&args.dashboard));
        complain_of_shared_addresses(
            &mut complaints,
            [("--listen", listen), ("--dashboard", dashboard.flatten())],
        );
        let report = complaints.take("--report", optional(args.report.as_deref(), writable_file));
        let kubeconfig_out = complaints.take(
            "--kubeconfig-out",
            kubeconfig_path(args.kubeconfig_out.as_deref(), home),
        );
        let settings = || {
            Some(Self {
                kubeconfig_out: kubeconfig_out?,
                once: args.once,
                report: report?,
                listen: listen?,
                dashboard: dashboard?,
                plain: args.plain,
                no_color: args.no_color,
            })
        };
        complaints.or(settings())
    }
}

/// Where `sidestep run` leaves its kubeconfig unless told otherwise, and where the commands look last.
pub(crate) fn local_kubeconfig(home: &Path) -> PathBuf {
    home.join(".sidestep").join("kubeconfig")
}

/// Parses a time as Go writes it: `0`, `10s`, `1m30s`, `1h`.
///
/// # Errors
/// What is allowed, in words.
pub(crate) fn go_duration(text: &str) -> Result<Duration, String> {
    let time = sidestep_control::analysis::duration::parse(text)
        .ok()
        .and_then(|time| Duration::try_from(time).ok());
    time.ok_or_else(|| format!("`{text}` is no time such as 60s, 2m or 1h30m"))
}

/// Parses a time as `kubectl` takes it for `--request-timeout`: a number alone means seconds, and 0 means none.
///
/// # Errors
/// What is allowed, in words.
pub(crate) fn request_timeout(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => go_duration(text),
    }
}

/// Parses `CONTAINER=IMAGE`.
///
/// # Errors
/// What is allowed, in words.
pub(crate) fn container_image(text: &str) -> Result<ContainerImage, String> {
    match text.split_once('=') {
        Some((container, image))
            if !container.is_empty() && !image.is_empty() && !image.contains('=') =>
        {
            Ok(ContainerImage {
                container: container.to_owned(),
                image: image.to_owned(),
            })
        }
        Some(_) | None => Err(
            "this takes one container and its image: CONTAINER=IMAGE, such as app=repo/app:v2"
                .to_owned(),
        ),
    }
}

fn optional<'a, A: ?Sized, T>(
    given: Option<&'a A>,
    parse: impl Fn(&'a A) -> Result<T, String>,
) -> Result<Option<T>, String> {
    given.map(parse).transpose()
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let with_host = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    with_host.parse().map_err(|_| {
        format!("`{text}` is no address and port, such as 127.0.0.1:8080 or [::1]:8080")
    })
}

/// `FIRST-LAST`.
fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let complaint = || format!("`{text}` is no range of ports such as 10000-10511");
    let (first, last) = text.split_once('-').ok_or_else(complaint)?;
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = number(first).zip(number(last)).ok_or_else(complaint)?;
    match first <= last {
        true => Ok(first..=last),
        false => Err(complaint()),
    }
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address = address(text)?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => Err(format!(
            "{address} can be reached from other machines; the embedded API server listens on loopback only"
        )),
    }
}

fn address_or_off(text: &str) -> Result<Option<SocketAddr>, String> {
    match text {
        "off" => Ok(None),
        _ => address(text)
            .map(Some)
            .map_err(|what| format!("{what}, or `off`")),
    }
}

fn complain_of_shared_addresses<const N: usize>(
    complaints: &mut Complaints,
    wanted: [(&str, Option<SocketAddr>); N],
) {
    let mut taken = BTreeMap::new();
    for (flag, address) in wanted {
        let Some(address) = address.filter(|address| address.port() != 0) else {
            continue;
        };
        if let Some(first) = taken.insert(address, flag) {
            complaints.add(
                flag,
                format!("{address} is already that of {first}; give one of them another port"),
            );
        }
    }
}

fn sources(complaints: &mut Complaints, files: &[PathBuf], watch: bool) -> Vec<Source> {
    let found: Vec<Source> = files
        .iter()
        .filter_map(|file| complaints.take("--filename", source(file)))
        .collect();
    let stdins = found
        .iter()
        .filter(|source| **source == Source::Stdin)
        .count();
    if stdins > 1 {
        complaints.add(
            "--filename",
            "`-` stands for stdin, which can be read once only",
        );
    }
    if stdins > 0 && watch {
        complaints.add(
            "--watch",
            "stdin cannot be watched for changes; name files or folders",
        );
    }
    if files.is_empty() && watch {
        complaints.add(
            "--watch",
            "there is nothing to watch; name files or folders with -f",
        );
    }
    found
}

/// Tells file, folder and stdin apart.
///
/// # Errors
/// When there is no such file.
pub(crate) fn source(path: &Path) -> Result<Source, String> {
    if path == Path::new("-") {
        return Ok(Source::Stdin);
    }
    let metadata = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(if metadata.is_dir() {
        Source::Folder(path.to_owned())
    } else {
        Source::File(path.to_owned())
    })
}

fn label(text: &str) -> Result<String, String> {
    let fits = (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    match fits {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "`{text}` is no name: at most 63 lower case letters, digits and `-`, with a letter or digit at both ends"
        )),
    }
}

fn service(text: &str) -> Result<ServiceName, String> {
    let Some((namespace, name)) = text.split_once('/') else {
        return Err(format!(
            "`{text}` names no Service: write NAMESPACE/NAME, such as default/{text}"
        ));
    };
    Ok(ServiceName {
        namespace: label(namespace)?,
        name: label(name)?,
    })
}

fn kubeconfig_path(given: Option<&Path>, home: Option<&Path>) -> Result<PathBuf, String> {
    match (given, home) {
        (Some(path), _) => writable_file(path),
        (None, Some(home)) => Ok(local_kubeconfig(home)),
        (None, None) => {
            Err("$HOME is not set, so say where the kubeconfig is to be written".to_owned())
        }
    }
}

/// A file that exists, or can be made in a folder that exists.
fn writable_file(path: &Path) -> Result<PathBuf, String> {
    if path.is_dir() {
        return Err(format!("{} is a folder; name a file", path.display()));
    }
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    let writable = match path.exists() {
        true => fs::OpenOptions::new().append(true).open(path).map(drop),
        false => tempfile::tempfile_in(folder).map(drop),
    };
    writable
        .map(|()| path.to_owned())
        .map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

/// A folder that can be written, made if it does not exist.
fn writable_folder(path: &Path) -> Result<PathBuf, String> {
    fs::create_dir_all(path)
        .and_then(|()| tempfile::tempfile_in(path))
        .map(|_| path.to_owned())
        .map_err(|error| {
            format!(
                "{} is no folder that can be written: {error}",
                path.display()
            )
        })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use sidestep_proxy::config::AccessLog;

    use super::*;

    #[derive(Parser)]
    struct Run {
        #[command(flatten)]
        args: RunArgs,
    }

    #[derive(Parser)]
    struct Demo {
        #[command(flatten)]
        args: DemoArgs,
    }

    fn run(line: &str, namespace: Option<&str>) -> Result<RunSettings, Complaints> {
        let Run { args } = Run::try_parse_from(line.split(' ')).unwrap();
        RunSettings::new(&args, namespace, Some(Path::new("/home/someone")))
    }

    fn check(line: &str, complaints: &[&str]) {
        check_in(None, line, complaints);
    }

    fn check_in(namespace: Option<&str>, line: &str, complaints: &[&str]) {
        let said = run(line, namespace)
            .map(|_| String::new())
            .unwrap_or_else(|complaints| complaints.to_string());
        assert_eq!(said, complaints.join("\n"), "{line}");
    }

    #[test]
    fn defaults_listen_on_loopback_only() {
        let settings = run("run", None).unwrap().machine;
        assert_eq!(settings.proxy.listen, ["127.0.0.1:8080".parse().unwrap()]);
        assert!(
            [settings.admin, settings.api, settings.dashboard.unwrap()]
                .iter()
                .all(|address| address.ip().is_loopback())
        );
        assert_eq!(
            settings.kubeconfig_out,
            Path::new("/home/someone/.sidestep/kubeconfig")
        );
        assert_eq!(
            (
                settings.namespace.as_str(),
                settings.state,
                settings.proxy.access_log
            ),
            ("default", None, AccessLog::Off)
        );
    }

    #[test]
    fn all_complaints_come_at_once() {
        check_in(
            Some("Default"),
            "run --listen nowhere --api 0.0.0.0:6440 --default-service web --proxy-workers 0 -f no/such.yaml",
            &[
                "--listen: `nowhere` is no address and port, such as 127.0.0.1:8080 or [::1]:8080",
                "--api: 0.0.0.0:6440 can be reached from other machines; the embedded API server listens on loopback only",
                "--filename: no/such.yaml: No such file or directory (os error 2)",
                "--namespace: `Default` is no name: at most 63 lower case letters, digits and `-`, with a letter or digit at both ends",
                "--default-service: `web` names no Service: write NAMESPACE/NAME, such as default/web",
                "--proxy-workers: `0` is no number of threads: 1 or more",
            ],
        );
    }

    #[test]
    fn two_listeners_cannot_share_an_address() {
        check(
            "run --admin 127.0.0.1:8080",
            &["--admin: 127.0.0.1:8080 is already that of --listen; give one of them another port"],
        );
        check(
            "run --admin 127.0.0.1:0 --listen 127.0.0.1:0 --dashboard off",
            &[],
        );
    }

    #[test]
    fn stdin_is_read_once_and_not_watched() {
        check(
            "run -f - -f - --watch",
            &[
                "--filename: `-` stands for stdin, which can be read once only",
                "--watch: stdin cannot be watched for changes; name files or folders",
            ],
        );
        check(
            "run --watch",
            &["--watch: there is nothing to watch; name files or folders with -f"],
        );
    }

    #[test]
    fn a_state_that_is_a_file_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display();
        check(
            &format!("run --state {path}"),
            &[&format!(
                "--state: {path} is no folder that can be written: File exists (os error 17)"
            )],
        );
    }

    #[test]
    fn a_report_in_a_folder_that_does_not_exist_is_refused() {
        let Demo { args } =
            Demo::try_parse_from(["demo", "--report", "no/such/report.json"]).unwrap();
        let complaints = DemoSettings::new(&args, None).unwrap_err().to_string();
        assert!(
            complaints.starts_with("--report: no/such/report.json cannot be written: "),
            "{complaints}"
        );
    }

    #[test]
    fn times_are_those_of_go() {
        for (text, seconds) in [
            ("0", 0.0),
            ("0s", 0.0),
            ("60s", 60.0),
            ("1m30s", 90.0),
            ("1.5h", 5400.0),
            ("20ms", 0.02),
        ] {
            assert_eq!(
                go_duration(text).map(|time| time.as_secs_f64()),
                Ok(seconds),
                "{text}"
            );
        }
        for text in [
            "",
            "60",
            "-1s",
            "1s-1s",
            "s",
            "1x",
            "99999999999h",
            "9999999999h9999999999h9999999999h",
        ] {
            assert!(go_duration(text).is_err(), "{text}");
        }
        for (text, expected) in [
            ("0", Some(0)),
            ("30", Some(30)),
            ("2m", Some(120)),
            ("-1", None),
        ] {
            let expected = expected.map(Duration::from_secs);
            assert_eq!(request_timeout(text).ok(), expected, "{text}");
        }
    }
}
