//! Starting a process that does not outlive us, not even when we are killed with `kill -9`.
//!
//! We start ourselves again as `sidestep internal launch PARENT -- COMMAND…`. That short life asks the kernel for a parent-death
//! signal, makes sure that its parent is still the one it was meant for, and becomes the command. Two things matter here:
//!
//! - The kernel sends that signal when the *thread* that started the child ends. A runtime's threads come and go, so one thread of
//!   ours, kept for as long as any of its processes lives, starts them all.
//! - The signal reaches the command alone, not the command's own children. The command leads a process group of its own, whoever
//!   ends a [`Process`] ends the whole group, and a guard (`guard.rs`) ends what is left of the groups when we are gone.
//!
//! What to run, and what its end means, is the business of [`super::pods`].

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use rustix::process::{Pid, Signal, getppid, kill_process_group, set_parent_process_death_signal};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};

use super::guard::{self, Guard};

/// The words behind the program's name that ask for a launch.
const LAUNCH: [&str; 2] = ["internal", "launch"];
/// The words behind the program's name that ask for a guard.
pub(super) const GUARD: [&str; 2] = ["internal", "guard"];

/// What can go wrong with starting a process.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A launch was asked for, but not with `PARENT -- COMMAND…`.
    #[error("usage: internal launch PARENT -- COMMAND…")]
    Usage,
    /// Whoever started us is gone already.
    #[error("the parent process {0} is gone")]
    Orphan(i32),
    /// The kernel refused the parent-death signal.
    #[error("asking for the parent-death signal")]
    DeathSignal(#[source] io::Error),
    /// The command could not be executed.
    #[error("executing {command:?}")]
    Exec {
        /// The program asked for.
        command: OsString,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no such program.
    #[error("{command:?}: no such program{}", where_sought(.path))]
    NotFound {
        /// The program asked for.
        command: OsString,
        /// The `PATH` that was searched; none where the command names a file.
        path: Option<OsString>,
    },
    /// The guard cannot be started, or was lost.
    #[error("guarding processes")]
    Guard(#[source] io::Error),
    /// The folder to start in is missing.
    #[error("workingDir {0:?}: no such folder")]
    NoFolder(PathBuf),
    /// The thread that starts processes has ended: the program is shutting down.
    #[error("no process is started any more: the program is shutting down")]
    Stopped,
}

fn where_sought(path: &Option<OsString>) -> String {
    path.as_ref()
        .map_or_else(String::new, |path| format!(" in PATH {path:?}"))
}

/// A call of this program by itself.
#[derive(Debug, PartialEq)]
pub enum Invocation {
    /// To become a command: parent and command are still to be read.
    Launch(Vec<OsString>),
    /// To wait for our end and end what is left.
    Guard,
}

/// What a command line asks for, if it is a call of this program by itself. The binary asks this before anything else, so that a
/// launch costs next to nothing.
pub fn invoked(args: impl IntoIterator<Item = OsString>) -> Option<Invocation> {
    let mut args = args.into_iter().skip(1);
    let words = [args.next()?, args.next()?];
    if words == LAUNCH.map(OsString::from) {
        Some(Invocation::Launch(args.collect()))
    } else if words == GUARD.map(OsString::from) {
        Some(Invocation::Guard)
    } else {
        None
    }
}

impl Invocation {
    /// Becomes the command and does not return, or is the guard until its end.
    ///
    /// # Errors
    /// Why there is no command; the caller prints it and exits with 127.
    pub fn run(self) -> Result<(), Error> {
        match self {
            Self::Launch(words) => {
                let (command, arguments) = prepare(words)?;
                let source = std::process::Command::new(&command).args(arguments).exec();
                Err(Error::Exec { command, source })
            }
            Self::Guard => guard::run(io::stdin().lock()).map_err(Error::Guard),
        }
    }
}

fn prepare(words: Vec<OsString>) -> Result<(OsString, Vec<OsString>), Error> {
    let mut words = words.into_iter();
    let parent = words
        .next()
        .and_then(|word| word.to_str()?.parse::<i32>().ok())
        .ok_or(Error::Usage)?;
    if words.next().as_deref() != Some(OsStr::new("--")) {
        return Err(Error::Usage);
    }
    let command = words.next().ok_or(Error::Usage)?;
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| Error::DeathSignal(errno.into()))?;
    // Only now: a parent that died before the line above sends no signal, but has left us to another parent.
    if getppid().map(Pid::as_raw_nonzero).map(i32::from) != Some(parent) {
        return Err(Error::Orphan(parent));
    }
    Ok((command, words.collect()))
}

/// A process to start.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// The program and its arguments; the program is sought in the `PATH` of `environment` unless it names a file.
    pub command: Vec<String>,
    /// The whole environment; later entries win.
    pub environment: Vec<(String, String)>,
    /// Where it starts; absent means where we are.
    pub directory: Option<PathBuf>,
}

/// The thread that starts processes. They are killed when it ends, so every [`Process`] holds on to it.
#[derive(Debug)]
pub struct Launcher {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<thread::JoinHandle<()>>,
    program: PathBuf,
    /// Started with the first process. Held for a write of a few bytes only.
    guard: Mutex<Option<Guard>>,
}

#[derive(Debug)]
struct Request {
    launch: Launch,
    answer: oneshot::Sender<io::Result<Child>>,
}

impl Launcher {
    /// Starts the thread. `program` is this program's own file, or one whose `main` also begins with [`invoked`]. Call it on the
    /// runtime that will wait for the processes.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(program: PathBuf) -> io::Result<Arc<Self>> {
        let (requests, mut receiver) = mpsc::channel::<Request>(WAITING_MAX);
        let runtime = tokio::runtime::Handle::current();
        let of_thread = program.clone();
        let thread = thread::Builder::new()
            .name("launcher".to_owned())
            .spawn(move || {
                let _runtime = runtime.enter();
                while let Some(Request { launch, answer }) = receiver.blocking_recv() {
                    // If nobody waits for the answer any more, dropping the child kills it.
                    drop(answer.send(spawn(&of_thread, &launch)));
                }
            })?;
        Ok(Arc::new(Self {
            requests: Some(requests),
            thread: Some(thread),
            program,
            guard: Mutex::new(None),
        }))
    }

    /// Starts a process.
    ///
    /// # Errors
    /// [`Error::NotFound`] and [`Error::NoFolder`] before anything is started; [`Error::Exec`] if the operating system refuses.
    pub async fn spawn(self: &Arc<Self>, launch: Launch) -> Result<Process, Error> {
        let program = launch
            .command
            .first()
            .map(OsString::from)
            .ok_or(Error::Usage)?;
        find(&program, &launch)?;
        let (answer, child) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or(Error::Stopped)?;
        requests
            .send(Request { launch, answer })
            .await
            .map_err(|_| Error::Stopped)?;
        let refused = |source| Error::Exec {
            command: program.clone(),
            source,
        };
        let child = child.await.map_err(|_| Error::Stopped)?.map_err(refused)?;
        let group = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let group = group.ok_or_else(|| refused(io::Error::from(io::ErrorKind::NotFound)))?;
        self.guarded(|guard| guard.watch(group))
            .map_err(Error::Guard)?;
        Ok(Process {
            child,
            group,
            ended: false,
            launcher: Arc::clone(self),
        })
    }

    fn guarded(&self, tell: impl FnOnce(&mut Guard) -> io::Result<()>) -> io::Result<()> {
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            *guard = Some(Guard::start(&self.program)?);
        }
        guard.as_mut().map_or(Ok(()), tell)
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It only waits for requests, and there will be none: this ends at once. It cannot panic, and a panic would have been told.
            drop(thread.join());
        }
    }
}

fn spawn(program: &Path, launch: &Launch) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .args(LAUNCH)
        .arg(std::process::id().to_string())
        .arg("--")
        .args(&launch.command);
    command
        .env_clear()
        .envs(launch.environment.iter().map(|(name, value)| (name, value)));
    if let Some(directory) = &launch.directory {
        command.current_dir(directory);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true).spawn()
}

/// Looks for what will be executed, so that a misspelt command is an error here and not an exit code there.
fn find(program: &OsStr, launch: &Launch) -> Result<(), Error> {
    let directory = launch.directory.clone().unwrap_or_default();
    if launch.directory.is_some() && !directory.is_dir() {
        return Err(Error::NoFolder(directory));
    }
    let (folders, path) = if program.as_encoded_bytes().contains(&b'/') {
        (vec![directory], None)
    } else {
        let path = launch
            .environment
            .iter()
            .rev()
            .find(|(name, _)| name == "PATH")
            .map(|(_, path)| OsString::from(path));
        let path = path.unwrap_or_else(|| OsString::from(DEFAULT_PATH));
        (std::env::split_paths(&path).collect(), Some(path))
    };
    let found = folders
        .iter()
        .any(|folder| executable(&folder.join(program)));
    if found {
        Ok(())
    } else {
        Err(Error::NotFound {
            command: program.to_owned(),
            path,
        })
    }
}

fn executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// A running process and its group. Dropping it kills the group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    group: Pid,
    ended: bool,
    launcher: Arc<Launcher>,
}

impl Process {
    /// The process id, which is also the id of its group.
    pub fn id(&self) -> i32 {
        self.group.as_raw_nonzero().get()
    }

    /// What it writes; `None` the second time.
    pub fn output(&mut self) -> Option<(ChildStdout, ChildStderr)> {
        self.child.stdout.take().zip(self.child.stderr.take())
    }

    /// Waits for the process to end, then kills what is left of its group. Cancel safe.
    ///
    /// # Errors
    /// When the operating system does not say how it ended.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.end();
        Ok(status)
    }

    /// Asks the whole group to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends the whole group (SIGKILL).
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        if self.ended {
            return;
        }
        if let Err(error) = kill_process_group(self.group, signal) {
            // No such process: all of them ended by themselves, which is what was wanted.
            tracing::trace!(group = self.id(), %error, "signal not delivered");
        }
    }
}

impl Process {
    /// Kills the group, once; afterwards its number may be another's.
    fn end(&mut self) {
        if self.ended {
            return;
        }
        self.signal(Signal::KILL);
        self.ended = true;
        if let Err(error) = self.launcher.guarded(|guard| guard.forget(self.group)) {
            tracing::warn!(%error, "the guard of processes is gone: children of pods may outlive a kill of this program");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Launches that may wait for the one thread. A launch takes about a millisecond; whoever is over this waits.
const WAITING_MAX: usize = 64;

/// Where programs are sought when the environment has no `PATH`: what execvp(3) does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn only_its_own_words_invoke_the_launcher() {
        let check =
            |line: &str, asked: bool| assert_eq!(invoked(words(line)).is_some(), asked, "{line}");
        check("sidestep internal launch 1 -- true", true);
        check("sidestep internal guard", true);
        check("sidestep internal", false);
        check("sidestep get rollout", false);
        check("internal launch 1 -- true", false);
    }

    #[test]
    fn a_launch_for_another_parent_is_refused() {
        let invocation = invoked(words("sidestep internal launch 1 -- true")).unwrap();
        assert!(matches!(invocation.run(), Err(Error::Orphan(1))));
    }

    #[test]
    fn a_malformed_launch_is_refused() {
        for line in [
            "sidestep internal launch",
            "sidestep internal launch x -- true",
            "sidestep internal launch 1 true",
        ] {
            assert!(
                matches!(invoked(words(line)).unwrap().run(), Err(Error::Usage)),
                "{line}"
            );
        }
    }

    #[test]
    fn a_missing_program_is_named_with_where_it_was_sought() {
        let launch = |path: &str| Launch {
            environment: vec![("PATH".to_owned(), path.to_owned())],
            ..Launch::default()
        };
        assert!(find(OsStr::new("sh"), &launch("/nowhere:/bin")).is_ok());
        let missing = find(OsStr::new("sh"), &launch("/nowhere")).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "\"sh\": no such program in PATH \"/nowhere\""
        );
        let missing = find(OsStr::new("./sh"), &launch("/bin")).unwrap_err();
        assert_eq!(missing.to_string(), "\"./sh\": no such program");
    }
}
