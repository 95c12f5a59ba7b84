//! Events as a cluster keeps them: client-go's correlator counts and combines, its filter lets 25 pass and then one in five minutes
//! (observed point 13).

use std::collections::{BTreeMap, BTreeSet};

use super::compare::is_same;
use super::tracks::Entry;

/// What the correlator makes of events: one that was told before raises a count; the tenth of a reason stands, with a prefix, for itself
/// and all that follow.
pub(super) fn kept(told: &[Entry]) -> Vec<Entry> {
    let mut known = BTreeSet::new();
    let mut alike: BTreeMap<&str, usize> = BTreeMap::new();
    let mut kept = Vec::new();
    for entry in told {
        let (head, text) = entry.value.split_once(": ").unwrap_or((&entry.value, ""));
        let text = text.strip_prefix(COMBINED).unwrap_or(text);
        if is_told_elsewhere(&entry.value) || !known.insert((head, text)) {
            continue;
        }
        let count = alike.entry(head).or_default();
        *count += 1;
        let value = match *count {
            ..ALIKE => format!("{head}: {text}"),
            ALIKE => format!("{head}: {COMBINED}{text}"),
            _ => continue,
        };
        kept.push(Entry {
            at: entry.at,
            value,
        });
    }
    kept
}

/// What can be compared of both: of ours without the normal ones that come when the filter has let pass what it may of Argo's.
pub(super) fn comparable(argo: &[Entry], ours: &[Entry]) -> (Vec<Entry>, Vec<Entry>) {
    let (told, mut our_told) = (kept(argo), kept(ours));
    while let Some(over) = over(&told, &our_told)
        && is_shut(argo, ours, &our_told[over])
    {
        our_told.remove(over);
    }
    (told, our_told)
}

/// Index of the first of our normal events that has no counterpart in Argo's list, be it another one, since the last that both told.
fn over(argo: &[Entry], ours: &[Entry]) -> Option<usize> {
    let is_common = |(_, entry): &(usize, &Entry)| {
        is_normal(entry) && argo.iter().any(|other| is_same(other, entry))
    };
    let is_other = |entry: &&Entry| !ours.iter().any(|other| is_same(entry, other));
    let last = ours.iter().enumerate().rfind(is_common);
    let after = last.map_or(0, |(index, _)| index + 1);
    let others = normal(argo).rev().take_while(is_other).count();
    let mut rest = (after..ours.len()).filter(|index| is_normal(&ours[*index]));
    rest.nth(others)
}

/// The filter has shut before this event of ours: so many of Argo's had passed, and the correlator had hidden so many, as of ours.
fn is_shut(argo: &[Entry], ours: &[Entry], event: &Entry) -> bool {
    let plain = event.value.replace(COMBINED, "");
    let before = ours.iter().take_while(|entry| entry.value != plain);
    let before: Vec<Entry> = before.cloned().collect();
    let hidden = normal(&before).count() - normal(&kept(&before)).count();
    normal(argo).count() + hidden >= BUCKET
}

/// Those that the filter counts together: warnings have one of their own, and the end of a rollout comes minutes later.
fn normal(entries: &[Entry]) -> impl DoubleEndedIterator<Item = &Entry> {
    entries.iter().filter(|entry| is_normal(entry))
}

fn is_normal(entry: &Entry) -> bool {
    let value = &entry.value;
    value.starts_with("Normal ") && !value.starts_with("Normal RolloutDeleted: ")
}

/// No decision tells of it: the driver around it does, or it is about a VirtualService, in place of which weights are written.
pub(super) fn is_told_elsewhere(event: &str) -> bool {
    ELSEWHERE.iter().any(|head| event.starts_with(head))
}

/// Events that are told elsewhere.
pub(super) const ELSEWHERE: &[&str] = &[
    "Normal RolloutAddedToInformer: ",
    "Normal RolloutDeleted: ",
    "Normal Updated VirtualService: ",
    "Warning TrafficRoutingError: Operation cannot be fulfilled on virtualservices",
];

/// What begins the text of an event that stands for many.
const COMBINED: &str = "(combined from similar events): ";

/// Events of one reason, from which on one stands for all.
const ALIKE: usize = 10;

/// Events that pass at once.
const BUCKET: usize = 25;
