//! What is seen of a rollout from outside, one fact after another: of Argo's by its record, of ours by the simulation.

use std::collections::BTreeMap;
use std::str::SplitWhitespace;

/// Something seen, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Milliseconds since the rollout was created.
    pub(super) at: i64,
    pub(super) fact: Fact,
}

/// An object as it stands from now on, or an event. ReplicaSets and their hashes are called V1, V2, ... in the order of their creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Rollout(RolloutSeen),
    Set(SetSeen),
    Service(ServiceSeen),
    /// Shares of the traffic in percent, where a Split says so.
    Split(BTreeMap<String, i32>),
    /// `Normal RolloutPaused: Rollout is paused (CanaryPauseStep)`
    Event(String),
}

/// A Rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RolloutSeen {
    /// `metadata.generation`: how often the spec was written.
    pub(super) generation: i64,
    /// Replicas, updated and available ones.
    pub(super) counts: [i32; 3],
    /// `status.canary.weights.canary.weight`
    pub(super) weight: Option<i32>,
    /// Everything else in a line: `stable V1 current V2 flags abort step 0 Degraded RolloutAborted: ...`.
    pub(super) state: String,
}

/// A ReplicaSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SetSeen {
    pub(super) name: String,
    pub(super) revision: i64,
    /// `spec.replicas`
    pub(super) size: i32,
    /// `status.replicas`
    pub(super) pods: i32,
    pub(super) available: i32,
    /// It has the annotation `scale-down-deadline`.
    pub(super) has_deadline: bool,
}

/// A Service and the ReplicaSet that it selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceSeen {
    pub(super) name: String,
    pub(super) set: String,
}

impl Fact {
    /// Reads a line of a recording, its time left out.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "rollout" => RolloutSeen::parse(rest).map(Self::Rollout),
            "set" => SetSeen::parse(rest).map(Self::Set),
            "service" => {
                let (name, set) = rest.split_once(' ')?;
                let (name, set) = (name.to_owned(), set.to_owned());
                Some(Self::Service(ServiceSeen { name, set }))
            }
            "event" => Some(Self::Event(rest.to_owned())),
            _ => None,
        }
    }
}

impl RolloutSeen {
    /// The word that follows another in the state, if it is not `-`.
    pub(super) fn value(&self, word: &str) -> Option<&str> {
        let mut words = self.state.split(' ').skip_while(|other| *other != word);
        words.nth(1).filter(|value| *value != "-")
    }

    /// `generation 4/4 counts 10 2 12 weight 20 stable V1 ...`
    fn parse(line: &str) -> Option<Self> {
        let (head, state) = line.split_once(" stable ")?;
        let words = &mut head.split_whitespace();
        let generation = after(words, "generation")?.split_once('/')?.0;
        let counts = [after(words, "counts")?, words.next()?, words.next()?];
        let weight = after(words, "weight")?;
        Some(Self {
            generation: generation.parse().ok()?,
            counts: [
                counts[0].parse().ok()?,
                counts[1].parse().ok()?,
                counts[2].parse().ok()?,
            ],
            weight: weight.parse().ok(),
            state: format!("stable {state}"),
        })
    }
}

impl SetSeen {
    /// `V2 revision 2 size 5 pods 1 available 1 deadline`
    fn parse(line: &str) -> Option<Self> {
        let words = &mut line.split_whitespace();
        Some(Self {
            name: words.next()?.to_owned(),
            revision: after(words, "revision")?.parse().ok()?,
            size: after(words, "size")?.parse().ok()?,
            pods: after(words, "pods")?.parse().ok()?,
            available: after(words, "available")?.parse().ok()?,
            has_deadline: words.next() == Some("deadline"),
        })
    }
}

/// The word after the one that must come next.
fn after<'a>(words: &mut SplitWhitespace<'a>, word: &str) -> Option<&'a str> {
    (words.next()? == word).then(|| words.next())?
}
