//! What pods have written: the last lines of each, in memory, for the API's `log` subresource.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

/// The logs of all pods. A cheap handle: every clone sees the same logs.
#[derive(Clone, Debug, Default)]
pub struct PodLogs {
    pods: Arc<Mutex<BTreeMap<(String, String), PodLog>>>,
}

/// The log of one pod: of the container that runs, and of the one before it. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct PodLog {
    containers: Arc<Mutex<Containers>>,
}

#[derive(Debug, Default)]
struct Containers {
    current: Ring,
    previous: Option<Ring>,
}

/// Which part of a log is wanted; the default is all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Part {
    /// The container before the one that runs (`kubectl logs --previous`).
    pub previous: bool,
    /// The last lines only, so many.
    pub tail_lines: Option<usize>,
    /// Lines written at or after this time only.
    pub since: Option<Timestamp>,
    /// Each line begins with its time, RFC 3339.
    pub timestamps: bool,
    /// The first bytes only, so many.
    pub limit_bytes: Option<usize>,
}

impl PodLogs {
    /// The log of a pod, to write to; an empty one is begun if there is none.
    pub fn open(&self, namespace: &str, pod: &str) -> PodLog {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.entry((namespace.to_owned(), pod.to_owned()))
            .or_default()
            .clone()
    }

    /// The log of a pod; `None` if no pod of that name has one.
    pub fn find(&self, namespace: &str, pod: &str) -> Option<PodLog> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.get(&(namespace.to_owned(), pod.to_owned())).cloned()
    }

    /// Forgets a pod that is gone.
    pub fn remove(&self, namespace: &str, pod: &str) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.remove(&(namespace.to_owned(), pod.to_owned()));
    }
}

impl PodLog {
    /// Takes a line, without its line break, written at `now`. What is over `LINE_MAX` bytes is cut.
    pub fn write(&self, now: Timestamp, line: &[u8]) {
        let kept = line.get(..LINE_MAX).unwrap_or(line);
        let line = Line {
            time: now,
            text: String::from_utf8_lossy(kept).into_owned(),
        };
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .current
            .push(line);
    }

    /// A container starts: what was written so far becomes the log of the previous one.
    pub fn restart(&self) {
        let mut containers = self
            .containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        containers.previous = Some(std::mem::take(&mut containers.current));
    }

    /// The wanted part as text, every line ended; `None` if the previous container is wanted and there was none.
    pub fn read(&self, part: Part) -> Option<String> {
        let containers = self
            .containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let ring = if part.previous {
            containers.previous.as_ref()?
        } else {
            &containers.current
        };
        Some(ring.read(part))
    }
}

/// The last lines, bounded by [`LOG_MAX`].
#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Line>,
    bytes: usize,
}

#[derive(Debug)]
struct Line {
    time: Timestamp,
    text: String,
}

impl Ring {
    fn push(&mut self, line: Line) {
        self.bytes += line.cost();
        self.lines.push_back(line);
        while self.bytes > LOG_MAX {
            let Some(oldest) = self.lines.pop_front() else {
                return;
            };
            self.bytes -= oldest.cost();
        }
    }

    fn read(&self, part: Part) -> String {
        let wanted = |line: &&Line| part.since.is_none_or(|since| line.time >= since);
        let lines: Vec<&Line> = self.lines.iter().filter(wanted).collect();
        let skipped = part
            .tail_lines
            .map_or(0, |tail| lines.len().saturating_sub(tail));
        let mut text = String::new();
        for line in lines.into_iter().skip(skipped) {
            if part.timestamps {
                text.push_str(&format!("{:.9} ", line.time));
            }
            text.push_str(&line.text);
            text.push('\n');
        }
        if let Some(limit) = part.limit_bytes {
            text.truncate(text.floor_char_boundary(limit));
        }
        text
    }
}

impl Line {
    fn cost(&self) -> usize {
        self.text.len() + size_of::<Self>()
    }
}

/// Bytes kept of each container's log. 200 pods with full logs of two containers take 100 MB at most.
const LOG_MAX: usize = 256 * 1024;
/// Bytes kept of a line: what container runtimes keep in one piece (16 KiB).
const LINE_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn log(lines: &[(i64, &str)]) -> PodLog {
        let log = PodLogs::default().open("default", "web");
        for (second, line) in lines {
            log.write(at(*second), line.as_bytes());
        }
        log
    }

    #[test]
    fn a_part_of_the_log_is_what_kubectl_asks_for() {
        let log = log(&[(1, "one"), (2, "two"), (3, "three")]);
        let check =
            |part: Part, text: &str| assert_eq!(log.read(part).as_deref(), Some(text), "{part:?}");
        check(Part::default(), "one\ntwo\nthree\n");
        check(
            Part {
                tail_lines: Some(1),
                ..Part::default()
            },
            "three\n",
        );
        check(
            Part {
                tail_lines: Some(9),
                ..Part::default()
            },
            "one\ntwo\nthree\n",
        );
        check(
            Part {
                since: Some(at(2)),
                ..Part::default()
            },
            "two\nthree\n",
        );
        check(
            Part {
                limit_bytes: Some(5),
                ..Part::default()
            },
            "one\nt",
        );
        check(
            Part {
                timestamps: true,
                tail_lines: Some(1),
                ..Part::default()
            },
            "1970-01-01T00:00:03.000000000Z three\n",
        );
    }

    #[test]
    fn a_restart_keeps_the_log_of_the_container_before() {
        let log = log(&[(1, "first life")]);
        let previous = Part {
            previous: true,
            ..Part::default()
        };
        assert_eq!(log.read(previous), None);
        log.restart();
        log.write(at(2), b"second life");
        assert_eq!(log.read(previous).as_deref(), Some("first life\n"));
        assert_eq!(log.read(Part::default()).as_deref(), Some("second life\n"));
    }

    #[test]
    fn the_oldest_lines_go_when_the_log_is_full() {
        let log = log(&[]);
        for second in 0..10_000 {
            log.write(at(second), &[b'x'; 100]);
        }
        let text = log
            .read(Part {
                timestamps: true,
                ..Part::default()
            })
            .unwrap();
        assert!(text.len() < 2 * LOG_MAX, "{}", text.len());
        assert!(
            text.contains("1970-01-01T02:46:39"),
            "the last line is kept"
        );
        assert!(
            !text.contains("1970-01-01T00:00:00"),
            "the first line is gone"
        );
    }
}
