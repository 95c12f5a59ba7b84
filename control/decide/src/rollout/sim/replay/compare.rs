//! Two rollouts side by side: where their tracks part.

use std::fmt;

use super::events;
use super::tracks::{Entry, Tracks};

/// A place where a track of Argo's and one of ours part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parting {
    pub(super) track: &'static str,
    /// What only Argo did there.
    pub(super) argo: Vec<Entry>,
    /// What only we did there.
    pub(super) ours: Vec<Entry>,
}

impl fmt::Display for Parting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {}", self.track)?;
        for (who, entries) in [("argo", &self.argo), ("ours", &self.ours)] {
            for Entry { at, value } in entries {
                writeln!(f, "    {who} at {at:>6} ms: {value}")?;
            }
        }
        Ok(())
    }
}

/// Every place where they part, track by track.
pub(super) fn compare(argo: &Tracks, ours: &Tracks) -> Vec<Parting> {
    let only_ours = ours.keys().filter(|track| !argo.contains_key(*track));
    let mut partings = Vec::new();
    for track in argo.keys().chain(only_ours) {
        let of = |tracks: &Tracks| tracks.get(track).cloned().unwrap_or_default();
        let (mut argo, mut ours) = (of(argo), of(ours));
        if *track == "events" {
            (argo, ours) = events::comparable(&argo, &ours);
        }
        partings.append(&mut part(track, &argo, &ours));
    }
    partings
}

/// Where two lists part.
fn part(track: &'static str, argo: &[Entry], ours: &[Entry]) -> Vec<Parting> {
    let mut partings = Vec::new();
    let (mut from, mut our_from) = (0, 0);
    let end = (argo.len(), ours.len());
    for (to, our_to) in common(argo, ours).into_iter().chain([end]) {
        let argo = argo[from..to].to_vec();
        let ours = ours[our_from..our_to].to_vec();
        if !argo.is_empty() || !ours.is_empty() {
            partings.push(Parting { track, argo, ours });
        }
        (from, our_from) = (to + 1, our_to + 1);
    }
    partings
}

/// Indices of the longest list that both contain, at about the same times.
fn common(argo: &[Entry], ours: &[Entry]) -> Vec<(usize, usize)> {
    let mut lengths = vec![vec![0_usize; ours.len() + 1]; argo.len() + 1];
    for i in (0..argo.len()).rev() {
        for j in (0..ours.len()).rev() {
            lengths[i][j] = match is_same(&argo[i], &ours[j]) {
                true => lengths[i + 1][j + 1] + 1,
                false => lengths[i + 1][j].max(lengths[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < argo.len() && j < ours.len() {
        if is_same(&argo[i], &ours[j]) {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[i + 1][j] >= lengths[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

/// The same value at about the same time.
pub(super) fn is_same(argo: &Entry, ours: &Entry) -> bool {
    argo.value == ours.value && (argo.at - ours.at).abs() <= CLOSE
}

/// Argo notes whole seconds, so that a pause or a delay of its ends up to a second early (observed point 10), as do ours, and nobody knows
/// where in its second a recording began; in milliseconds.
const CLOSE: i64 = 1_200;
