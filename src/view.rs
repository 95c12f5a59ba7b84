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

pub(crate) mod age;
pub(crate) mod info;
pub(crate) mod list;
mod measured;
pub(crate) mod paint;
pub(crate) mod phase;
pub(crate) mod pod;
pub(crate) mod rollout;
pub(crate) mod steps;
pub(crate) mod weight;

/// Cuts the blanks that alignment leaves at the ends of lines.
fn without_trailing_blanks(text: &str) -> String {
    text.lines()
        .flat_map(|line| [line.trim_end(), "\n"])
        .collect()
}
