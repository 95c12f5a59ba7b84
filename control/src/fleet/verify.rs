//! What the proxies' answers amount to. Pure.
//!
//! *Acknowledged*: every proxy of the fleet serves the Split's uid at the generation asked for or a later one. *Verified*: … and with
//! effective shares equal to the desired ones. Readiness may reach a proxy after the weights, so the generation alone proves nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::report::{RuleReport, SplitReport};
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
    /// What it said last, and since when it has said that effective is as desired at this generation.
    pub said: Option<(&'a SplitReport, Option<Timestamp>)>,
}

/// Sums up what the proxies of a fleet say of the Split at `generation`.
pub fn view<'a>(generation: i64, words: impl Iterator<Item = Word<'a>>) -> View {
    let mut view = View::default();
    let mut verified_at = None;
    for word in words {
        view.proxies.push(word.proxy.to_owned());
        if let Some((report, _)) = word.said {
            add_in_flight(&mut view.in_flight, report);
        }
        match word
            .said
            .filter(|(report, _)| word.heard && report.generation >= generation)
        {
            None => view.behind.push(word.proxy.to_owned()),
            Some((_, None)) => view.short.push(word.proxy.to_owned()),
            Some((_, Some(since))) => verified_at = verified_at.max(Some(since)),
        }
    }
    if view.verifies() {
        view.verified_at = verified_at;
    }
    view
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

fn add_in_flight(sums: &mut BTreeMap<String, u64>, report: &SplitReport) {
    for version in &report.versions {
        if !version.revision.is_empty() {
            *sums.entry(version.revision.clone()).or_default() += version.in_flight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::report::VersionReport;

    fn report(generation: i64, in_flight: u64) -> SplitReport {
        SplitReport {
            generation,
            versions: vec![VersionReport {
                name: "canary".into(),
                revision: "abc".into(),
                in_flight,
                ..VersionReport::default()
            }],
            ..SplitReport::default()
        }
    }

    fn at(second: i64) -> Option<Timestamp> {
        Some(Timestamp::from_second(second).unwrap())
    }

    fn word<'a>(
        proxy: &'a str,
        heard: bool,
        said: Option<(&'a SplitReport, Option<Timestamp>)>,
    ) -> Word<'a> {
        Word { proxy, heard, said }
    }

    #[test]
    fn verified_is_every_proxy_at_the_generation_with_effective_as_desired() {
        let (old, now, later) = (report(2, 1), report(3, 2), report(4, 4));
        let none = view(3, std::iter::empty());
        assert!(!none.verifies(), "a fleet without proxies verifies nothing");

        let all = view(
            3,
            [
                word("a", true, Some((&now, at(5)))),
                word("b", true, Some((&later, at(7)))),
            ]
            .into_iter(),
        );
        assert!(all.verifies());
        assert_eq!(all.verified_at, at(7));
        assert_eq!(all.in_flight["abc"], 6);

        let mixed = [
            word("lags", true, Some((&old, at(1)))),
            word("silent", false, Some((&now, at(5)))),
            word("new", true, None),
            word("short", true, Some((&now, None))),
            word("good", true, Some((&now, at(5)))),
        ];
        let mixed = view(3, mixed.into_iter());
        assert_eq!(mixed.behind, ["lags", "silent", "new"]);
        assert_eq!(mixed.short, ["short"]);
        assert_eq!(mixed.verified_at, None);
        assert_eq!(
            mixed.in_flight["abc"],
            1 + 2 + 2 + 2,
            "a silent proxy's last word on what is in flight counts"
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
