//! Ends whole process groups when we have died: what the parent-death signal cannot do.
//!
//! That signal reaches the one process that we started; a shell that starts a server leaves the server behind. So beside the first
//! process a guard is started: this program again, as `sidestep internal guard`. It is told which groups run and waits for the end of
//! its input, which comes when we die, however we die. Then it kills the groups that still run, and ends.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

/// The guard, as we see it. Dropping it ends its input, and waits for it.
#[derive(Debug)]
pub(super) struct Guard {
    process: Child,
    input: Option<ChildStdin>,
}

impl Guard {
    /// Starts the guard.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn start(program: &Path) -> io::Result<Self> {
        let mut command = Command::new(program);
        // In a group of its own: Ctrl-C is for us, and we tell the guard by going.
        command
            .args(super::launcher::GUARD)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0);
        let mut process = command.spawn()?;
        let input = process.stdin.take();
        Ok(Self { process, input })
    }

    /// A group runs from now on.
    ///
    /// # Errors
    /// When the guard is gone.
    pub(super) fn watch(&mut self, group: Pid) -> io::Result<()> {
        self.tell('+', group)
    }

    /// A group has ended; its number may become another's.
    ///
    /// # Errors
    /// When the guard is gone.
    pub(super) fn forget(&mut self, group: Pid) -> io::Result<()> {
        self.tell('-', group)
    }

    fn tell(&mut self, sign: char, group: Pid) -> io::Result<()> {
        let Some(input) = &mut self.input else {
            return Ok(());
        };
        // In one piece: half a line would name another group if we died in its middle.
        input.write_all(format!("{sign}{group}\n").as_bytes())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.input = None;
        if let Err(error) = self.process.wait() {
            tracing::debug!(%error, "the guard was not waited for");
        }
    }
}

/// Does the guard's work: hears of groups on `input`, and when that ends kills those that still run.
///
/// # Errors
/// When the input cannot be read; the groups are killed then, too.
pub(super) fn run(input: impl BufRead) -> io::Result<()> {
    let mut groups = BTreeSet::new();
    let heard = hear(input, &mut groups);
    for group in groups.into_iter().filter_map(Pid::from_raw) {
        let (Ok(()) | Err(_)) = kill_process_group(group, Signal::KILL); // One that has ended by itself is what was wanted.
    }
    heard
}

fn hear(input: impl BufRead, groups: &mut BTreeSet<i32>) -> io::Result<()> {
    for line in input.lines() {
        let line = line?;
        if let Some(group) = line.strip_prefix('+').and_then(|group| group.parse().ok()) {
            groups.insert(group);
        } else if let Some(group) = line.strip_prefix('-').and_then(|group| group.parse().ok()) {
            groups.remove(&group);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_watched_until_it_is_forgotten() {
        let check = |input: &str, expected: &[i32]| {
            let mut groups = BTreeSet::new();
            hear(input.as_bytes(), &mut groups).unwrap();
            assert_eq!(
                groups.into_iter().collect::<Vec<_>>(),
                expected,
                "{input:?}"
            );
        };
        check("", &[]);
        check("+7\n+8\n", &[7, 8]);
        check("+7\n+8\n-7\n", &[8]);
        check("+7\n?\n-9\n", &[7]);
    }
}
