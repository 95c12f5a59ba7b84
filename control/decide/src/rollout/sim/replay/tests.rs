//! Every recording, and that the comparison can fail.

use super::RECORDINGS;
use super::compare::{Parting, compare};
use super::differences::{DIFFERENCES, Difference};
use super::events::{ELSEWHERE, is_told_elsewhere};
use super::facts::{Fact, Seen};
use super::play::play;
use super::recording::Recording;
use super::tracks::{Entry, Tracks, tracks};
use crate::rollout::sim::Script;

/// Where our page says that we differ.
const PAGE: &str = include_str!("../../../../../../docs/differences.md");

#[test]
fn what_we_do_differs_from_what_argo_did_only_where_we_say_so() {
    let wrong: Vec<String> = each()
        .filter_map(|scene| judge(&scene, DIFFERENCES, &scene.argo(), &scene.ours()).err())
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_difference_has_a_row_on_the_page() {
    for Difference { row, .. } in DIFFERENCES {
        let begins = format!("| {row} | ");
        let stands = PAGE.lines().any(|line| line.starts_with(&begins));
        assert!(stands, "docs/differences.md has no row {row:?}");
    }
}

#[test]
fn every_recording_named_by_a_difference_is_there() {
    for name in DIFFERENCES.iter().flat_map(|one| one.recordings) {
        assert!(RECORDINGS.iter().any(|(other, _)| other == name), "{name}");
    }
}

#[test]
fn every_event_that_is_told_elsewhere_was_told() {
    for head in ELSEWHERE {
        let told = RECORDINGS.iter().any(|(_, text)| text.contains(head));
        assert!(told, "{head}");
    }
}

#[test]
fn a_difference_that_occurs_no_more_is_told() {
    for scene in each() {
        let (argo, ours) = (scene.argo(), scene.ours());
        for index in 0..DIFFERENCES.len() {
            let mut fewer = DIFFERENCES.to_vec();
            let one = fewer.remove(index);
            let occurs = one.recordings.contains(&scene.name);
            let verdict = judge(&scene, &fewer, &argo, &ours);
            assert_eq!(verdict.is_err(), occurs, "{} without {one:?}", scene.name);
            let again = judge(&scene, &[DIFFERENCES, &[one]].concat(), &argo, &ours);
            assert_eq!(again.is_err(), occurs, "{} with two {one:?}", scene.name);
        }
    }
}

/// Every fact of every recording, told otherwise.
#[test]
fn a_fact_that_is_tampered_with_is_noticed() {
    for scene in each() {
        let ours = scene.ours();
        for index in 0..scene.recording.seen.len() {
            let mut seen = scene.recording.seen.clone();
            if !change(&mut seen[index]) {
                continue;
            }
            let argo = tracks(&seen, scene.recording.edits());
            let verdict = judge(&scene, DIFFERENCES, &argo, &ours);
            assert!(verdict.is_err(), "{}: {:?}", scene.name, seen[index]);
        }
    }
}

/// Tells something else of an object. What is told elsewhere is not compared.
fn change(seen: &mut Seen) -> bool {
    match &mut seen.fact {
        Fact::Rollout(rollout) => rollout.state.push('!'),
        Fact::Set(set) => set.size += 100,
        Fact::Service(service) => service.set.push('!'),
        Fact::Split(_) => return false,
        Fact::Event(event) if is_told_elsewhere(event) => return false,
        Fact::Event(event) => event.push('!'),
    }
    true
}

#[test]
fn an_entry_that_is_left_out_is_noticed() {
    for scene in each() {
        let (argo, ours) = (scene.argo(), scene.ours());
        for (track, index, entry) in entries(&argo) {
            let mut argo = argo.clone();
            argo.get_mut(track).unwrap().remove(index);
            let verdict = judge(&scene, DIFFERENCES, &argo, &ours);
            assert!(verdict.is_err(), "{}: {track}: {entry:?}", scene.name);
        }
    }
}

/// What only Argo did has no time to be compared with.
#[test]
fn an_entry_that_is_late_is_noticed() {
    for scene in each() {
        let (argo, ours) = (scene.argo(), scene.ours());
        for (track, index, entry) in entries(&argo) {
            let partings = compare(&argo, &ours);
            if partings.iter().any(|parting| parting.argo.contains(&entry)) {
                continue;
            }
            let mut argo = argo.clone();
            argo.get_mut(track).unwrap()[index].at += 5_000;
            let verdict = judge(&scene, DIFFERENCES, &argo, &ours);
            assert!(verdict.is_err(), "{}: {track}: {entry:?}", scene.name);
        }
    }
}

/// Entries that are compared: track, index, entry.
fn entries(tracks: &Tracks) -> Vec<(&'static str, usize, Entry)> {
    let entries = tracks.iter().flat_map(|(track, entries)| {
        let entries = entries.iter().enumerate();
        entries.map(|(index, entry)| (*track, index, entry.clone()))
    });
    entries
        .filter(|(.., entry)| !is_told_elsewhere(&entry.value))
        .collect()
}

#[test]
fn a_user_who_does_not_act_is_noticed() {
    for scene in each() {
        for index in 0..scene.recording.list.len() {
            let mut script = scene.recording.script();
            let left_out = script.list.remove(index);
            let ours = scene.play(&script);
            let verdict = judge(&scene, DIFFERENCES, &scene.argo(), &ours);
            assert!(verdict.is_err(), "{}: {left_out:?}", scene.name);
        }
    }
}

/// A recording with its name.
struct Scene {
    name: &'static str,
    recording: Recording,
}

fn each() -> impl Iterator<Item = Scene> {
    RECORDINGS.iter().map(|(name, text)| Scene {
        name,
        recording: Recording::parse(text),
    })
}

impl Scene {
    fn argo(&self) -> Tracks {
        tracks(&self.recording.seen, self.recording.edits())
    }

    fn ours(&self) -> Tracks {
        self.play(&self.recording.script())
    }

    fn play(&self, script: &Script) -> Tracks {
        let seen = play(&self.recording, script);
        let seen = seen.unwrap_or_else(|broken| panic!("{}: {broken}", self.name));
        tracks(&seen, self.recording.edits())
    }
}

/// They part where the table says it, and nowhere else.
fn judge(scene: &Scene, table: &[Difference], argo: &Tracks, ours: &Tracks) -> Result<(), String> {
    let expected = table.iter();
    let mut expected: Vec<&Difference> = expected
        .filter(|one| one.recordings.contains(&scene.name))
        .collect();
    let mut unnamed = Vec::new();
    for parting in compare(argo, ours) {
        match expected.iter().position(|one| is_named(one, &parting)) {
            Some(index) => drop(expected.remove(index)),
            None => unnamed.push(parting.to_string()),
        }
    }
    match expected.is_empty() && unnamed.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{}: nothing says that\n{}and it is said, but does not happen, that {expected:#?}",
            scene.name,
            unnamed.concat(),
        )),
    }
}

fn is_named(difference: &Difference, parting: &Parting) -> bool {
    let same = |entries: &[Entry], named: &[&str]| {
        entries
            .iter()
            .map(|entry| entry.value.as_str())
            .eq(named.iter().copied())
    };
    difference.track == parting.track
        && same(&parting.argo, difference.argo)
        && same(&parting.ours, difference.ours)
}
