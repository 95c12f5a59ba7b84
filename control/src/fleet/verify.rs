//! What the proxies' answers amount to. Pure.
//!
//! *Acknowledged*: every proxy of the fleet serves the Split's uid at the generation asked for or a later one. *Verified*: … and with
//! effective shares equal to the desired ones. Readiness may reach a proxy after the weights, so the generation alone proves nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::report::{RuleReport, SCHEMA, SplitReport};
use crate::api::split::{EffectiveShares, SplitRule, SplitSpec};
use crate::rollout::observed::Fleet as View;

/// Shares that differ by less than this are the same number, rounded differently on its way.
const SAME: f64 = 1e-9;

/// One proxy's word on one Split.
#[derive(Clone, Debug)]
pub struct Word<'a> {
    /// What people call the proxy.
    pub proxy: &'a str,
    /// Its stream is up: its word is current. One that is silent may have been replaced, and counts as behind.
    pub heard: bool,
    /// The version of what it says, where that is not ours.
    pub schema: Option<&'a str>,
    /// What it said last of the Split.
    pub said: Option<Said<'a>>,
}

/// What a proxy said last of a Split.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// How it serves it; what is in flight stands beside it.
    pub report: &'a SplitReport,
    /// In flight, by version.
    pub in_flight: &'a [u64],
    /// Since when it has said that effective is as desired at this generation.
    pub as_desired_since: Option<Timestamp>,
}

/// Sums up what the proxies of a fleet say of the Split at `generation`.
pub fn view<'a>(generation: i64, words: impl Iterator<Item = Word<'a>>) -> View {
    let mut view = View::default();
    let mut verified_at = None;
    for word in words {
        view.proxies.push(word.proxy.to_owned());
        if let Some(said) = word.said {
            add_in_flight(&mut view.in_flight, said);
        }
        match word.serves(generation) {
            Err(lack) => view.behind.push(format!("{}{lack}", word.proxy)),
            Ok(None) => view.short.push(word.proxy.to_owned()),
            Ok(Some(since)) => verified_at = verified_at.max(Some(since)),
        }
    }
    if view.verifies() {
        view.verified_at = verified_at;
    }
    view
}

impl Word<'_> {
    /// Since when it serves the Split at this generation as desired, if it does; or why it does not serve it at all: what to say after its
    /// name, which is nothing where that is a matter of time.
    fn serves(&self, generation: i64) -> Result<Option<Timestamp>, String> {
        if let Some(schema) = self.schema {
            return Err(format!(" (speaks {schema}, not {SCHEMA})"));
        }
        let said = self
            .said
            .filter(|said| said.report.generation >= generation);
        let Some(said) = said.filter(|_| self.heard) else {
            return Err(String::new());
        };
        match said.report.unknown.as_slice() {
            [] => Ok(said.as_desired_since),
            fields => Err(format!(" (does not know {})", fields.join(", "))),
        }
    }
}

/// Whether every rule's effective shares are the desired ones.
pub fn is_as_desired(report: &SplitReport) -> bool {
    report.rules.iter().all(|rule| {
        let RuleReport {
            desired, effective, ..
        } = rule;
        let share = |shares: &BTreeMap<String, f64>, name: &String| {
            shares.get(name).copied().unwrap_or(0.0)
        };
        let names = desired.keys().chain(effective.keys());
        let mut differences = names.map(|name| share(desired, name) - share(effective, name));
        differences.all(|difference| difference.abs() < SAME)
    })
}

/// What the proxies serve of a Split's weighted rules: of several proxies, the one farthest from the weights.
pub fn effective<'a>(spec: &SplitSpec, reports: &[&'a SplitReport]) -> Vec<EffectiveShares> {
    let weighted = spec.rules.iter().filter(|rule| rule.weights.len() > 1);
    weighted
        .filter_map(|rule| {
            let of_rule = |report: &'a SplitReport| {
                let mut rules = report.rules.iter();
                rules.find(|served| served.services == rule.services)
            };
            let served = reports.iter().copied().filter_map(of_rule);
            let distance = |served: &&RuleReport| distance(rule, &served.effective);
            let farthest = served.max_by(|a, b| distance(a).total_cmp(&distance(b)))?;
            Some(EffectiveShares {
                services: rule.services.clone(),
                shares: farthest.effective.clone(),
            })
        })
        .collect()
}

/// How far effective shares are from a rule's weights: the sum of the differences.
fn distance(rule: &SplitRule, effective: &BTreeMap<String, f64>) -> f64 {
    let total: f64 = rule.weights.values().map(|&weight| f64::from(weight)).sum();
    let desired = |name: &String| f64::from(rule.weights.get(name).copied().unwrap_or(0)) / total;
    let names: BTreeSet<&String> = rule.weights.keys().chain(effective.keys()).collect();
    let share = |name: &String| effective.get(name).copied().unwrap_or(0.0);
    names
        .into_iter()
        .map(|name| (desired(name) - share(name)).abs())
        .sum()
}

fn add_in_flight(sums: &mut BTreeMap<String, u64>, said: Said<'_>) {
    for (version, in_flight) in said.report.versions.iter().zip(said.in_flight) {
        let revision = &version.revision;
        match sums.get_mut(revision) {
            Some(sum) => *sum += in_flight,
            None if revision.is_empty() => {}
            None => drop(sums.insert(revision.clone(), *in_flight)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::report::VersionReport;

    fn report(generation: i64) -> SplitReport {
        SplitReport {
            generation,
            versions: vec![VersionReport {
                name: "canary".into(),
                revision: "abc".into(),
                ..VersionReport::default()
            }],
            ..SplitReport::default()
        }
    }

    fn at(second: i64) -> Option<Timestamp> {
        Some(Timestamp::from_second(second).unwrap())
    }

    /// A proxy with 2 in flight.
    fn word<'a>(proxy: &'a str, report: &'a SplitReport, since: Option<i64>) -> Word<'a> {
        Word {
            proxy,
            heard: true,
            schema: None,
            said: Some(Said {
                report,
                in_flight: &[2],
                as_desired_since: since.and_then(at),
            }),
        }
    }

    #[test]
    fn verified_is_every_proxy_at_the_generation_with_effective_as_desired() {
        let (old, now, later) = (report(2), report(3), report(4));
        let none = view(3, std::iter::empty());
        assert!(!none.verifies(), "a fleet without proxies verifies nothing");

        let all = [word("a", &now, Some(5)), word("b", &later, Some(7))];
        let all = view(3, all.into_iter());
        assert!(all.verifies());
        assert_eq!(all.verified_at, at(7));
        assert_eq!(all.in_flight["abc"], 4);

        let silent = Word {
            heard: false,
            ..word("silent", &now, Some(5))
        };
        let new = Word {
            said: None,
            ..word("new", &now, None)
        };
        let mixed = [
            word("lags", &old, Some(1)),
            silent,
            new,
            word("short", &now, None),
            word("good", &now, Some(5)),
        ];
        let mixed = view(3, mixed.into_iter());
        assert_eq!(mixed.behind, ["lags", "silent", "new"]);
        assert_eq!(mixed.short, ["short"]);
        assert_eq!(mixed.verified_at, None);
        assert_eq!(
            mixed.in_flight["abc"], 8,
            "a silent proxy's last word on what is in flight counts"
        );
    }

    /// A proxy of another version serves a Split without what it does not know of it.
    #[test]
    fn what_a_proxy_does_not_know_is_never_verified_there_and_is_named() {
        let known = report(3);
        let unknown = SplitReport {
            unknown: vec!["spec.colour".into(), "spec.rules[0].shape".into()],
            ..report(3)
        };
        let stranger = Word {
            schema: Some("v9"),
            ..word("stranger", &known, Some(5))
        };
        let words = [
            word("good", &known, Some(5)),
            word("older", &unknown, Some(5)),
            stranger,
        ];
        let view = view(3, words.into_iter());
        assert!(!view.acknowledges() && !view.verifies());
        assert_eq!(view.proxies, ["good", "older", "stranger"]);
        assert_eq!(
            view.behind,
            [
                "older (does not know spec.colour, spec.rules[0].shape)",
                "stranger (speaks v9, not v1alpha1)"
            ]
        );
    }

    #[test]
    fn effective_is_compared_share_by_share() {
        let rule = |desired: f64, effective: f64| SplitReport {
            rules: vec![RuleReport {
                services: vec!["web".into()],
                desired: BTreeMap::from([("canary".into(), desired)]),
                effective: BTreeMap::from([("canary".into(), effective)]),
            }],
            ..SplitReport::default()
        };
        assert!(is_as_desired(&rule(0.1, 0.1)));
        assert!(!is_as_desired(&rule(0.1, 0.1001)));
        let mut one_sided = rule(0.0, 0.0);
        one_sided.rules[0].effective.insert("stable".into(), 0.5);
        assert!(!is_as_desired(&one_sided));
    }

    #[test]
    fn what_is_shown_as_effective_is_the_proxy_farthest_from_the_weights() {
        let shares = |stable: f64, canary: f64| {
            BTreeMap::from([("stable".to_owned(), stable), ("canary".to_owned(), canary)])
        };
        let weights = BTreeMap::from([("stable".to_owned(), 80), ("canary".to_owned(), 20)]);
        let rule = |weights| SplitRule {
            services: vec!["web".into()],
            ports: None,
            weights,
            routes: Vec::new(),
        };
        let spec = SplitSpec {
            rules: vec![
                rule(weights),
                rule(BTreeMap::from([("stable".to_owned(), 1)])),
            ],
            ..SplitSpec::default()
        };
        let report = |effective| SplitReport {
            rules: vec![RuleReport {
                services: vec!["web".into()],
                desired: shares(0.8, 0.2),
                effective,
            }],
            ..SplitReport::default()
        };
        let reports = [
            report(shares(0.8, 0.2)),
            report(shares(0.9, 0.1)),
            report(shares(0.85, 0.15)),
        ];
        let shown = effective(&spec, &reports.each_ref());
        assert_eq!(shown.len(), 1, "pinned rules are not shown");
        assert_eq!(shown[0].shares, shares(0.9, 0.1));
        assert!(effective(&spec, &[]).is_empty());
    }
}
