//! Where pods have addresses: a network namespace in which loopback answers for all of 10.244.0.0/16. No real address is ever touched,
//! and any port can be bound. The process of a pod has a network of its own, joined to that one.
//!
//! Whoever needs the cluster comes here first. A test binary that was started outside becomes `tests/cluster/enter` and then itself
//! again, with the same arguments: nobody has to remember anything, and the tests that had begun begin again.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

/// Returns inside. Outside, builds the control plane (some minutes, the first time) and starts this process again inside; on a
/// machine where that cannot be done the process ends well, unless `CI` is set: then it panics.
pub(super) fn enter() {
    static ENTERED: Once = Once::new();
    ENTERED.call_once(|| {
        if env::var_os(INSIDE).is_none() {
            build();
            let arguments: Vec<_> = env::args_os().skip(1).collect();
            let error = again(&arguments).exec();
            panic!("entering a network namespace: {error}");
        }
    });
}

/// Whether this process runs one test, in a cluster that nobody else has.
pub(super) fn is_alone() -> bool {
    env::var_os(ALONE).is_some()
}

/// This test binary, to run one test in a cluster that nobody else has.
pub(super) fn alone(test: &str) -> tokio::process::Command {
    let mut command = again(&["--exact", "--nocapture", test].map(OsString::from));
    command.env(ALONE, "1");
    command.into()
}

/// A folder in memory that goes with this process.
pub(crate) fn folder() -> PathBuf {
    built().join("run")
}

/// The control plane's program.
pub(super) fn program() -> PathBuf {
    built().join("testcluster")
}

/// Helm itself.
pub(super) fn helm() -> PathBuf {
    built().join("helm")
}

/// The stock `kubectl argo rollouts`.
pub(crate) fn argo() -> PathBuf {
    built().join("kubectl-argo-rollouts")
}

/// What turns a process into that of a pod.
pub(super) fn pod() -> PathBuf {
    scripts().join("pod")
}

fn build() {
    let status = Command::new(scripts().join("build")).arg(built()).status();
    let status = status.expect("tests/cluster/build runs: it is a bash script");
    if status.code() == Some(CANNOT_RUN) && env::var_os("CI").is_none() {
        let said = "tests on a real control plane are SKIPPED (with CI set, they fail)";
        let error = Command::new("echo").arg(said).exec();
        panic!("{error}");
    }
    assert!(status.success(), "tests/cluster/build: {status}");
    // Here, since there is no network inside.
    for tool in ["helm", "argo"] {
        let script = scripts().with_file_name(tool).join("build");
        let status = Command::new(script).arg(built()).status().unwrap();
        assert!(status.success(), "tests/{tool}/build: {status}");
    }
}

fn again(arguments: &[OsString]) -> Command {
    let mut command = Command::new(scripts().join("enter"));
    command
        .arg(folder())
        .arg(env::current_exe().unwrap())
        .args(arguments)
        .env(INSIDE, "1");
    command
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster")
}

/// Beside what cargo builds.
fn built() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    target.join("cluster")
}

/// This machine, as pods see it.
pub(super) const MACHINE: &str = "10.244.255.254";
/// Says to the process that it is inside.
const INSIDE: &str = "SIDESTEP_TESTS_INSIDE";
/// Says to the process that its cluster is for one test.
const ALONE: &str = "SIDESTEP_TESTS_ALONE";
/// What `tests/cluster/build` says of a machine that lacks something.
const CANNOT_RUN: i32 = 3;
