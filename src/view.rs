//! Pure: objects → the trees, tables and colours that the commands print.
//!
//! | file | what |
//! |---|---|
//! | [`age`] | times as kubectl writes them |
//! | [`paint`] | icons and colours |
//! | [`phase`] | phase and message as a client sees them |
//! | [`weight`] | step, set and actual weight |
//! | [`steps`] | the steps in words |
//! | [`pod`] | a pod's STATUS column |
//! | [`info`] | what is worth showing of a rollout and what belongs to it |
//! | `measured` | what of a measured value its condition looked at |
//! | [`rollout`] | `get rollout`: header and tree |
//! | [`list`] | `list rollouts` |
//! | [`findings`] | `preflight` |

pub(crate) mod age;
pub(crate) mod findings;
pub(crate) mod info;
pub(crate) mod list;
mod measured;
pub(crate) mod paint;
pub(crate) mod phase;
pub(crate) mod pod;
pub(crate) mod rollout;
pub(crate) mod steps;
pub(crate) mod weight;

use std::io::Write;

use tabwriter::TabWriter;

/// Aligns columns parted by tabs.
fn aligned(rows: &str) -> String {
    let mut writer = TabWriter::new(Vec::new()).minwidth(0).padding(2).ansi(true);
    let written = writer
        .write_all(rows.as_bytes())
        .and_then(|()| writer.flush());
    let bytes = written
        .ok()
        .and_then(|()| writer.into_inner().ok())
        .unwrap_or_default();
    without_trailing_blanks(&String::from_utf8_lossy(&bytes))
}

/// Cuts the blanks that alignment leaves at the ends of lines.
fn without_trailing_blanks(text: &str) -> String {
    text.lines()
        .flat_map(|line| [line.trim_end(), "\n"])
        .collect()
}
