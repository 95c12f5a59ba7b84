//! Which Split has the say over which Service: the oldest of its namespace and fleet.
//!
//! Routing serves by it; the controller writes it into the conditions of the Splits that lost.

use std::collections::BTreeMap;

use super::split::ReadSplit;

/// The Services that Splits govern.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Governed<'a> {
    /// (namespace, Service) → index of the Split that has the say.
    owners: BTreeMap<(&'a str, &'a str), usize>,
    /// What younger Splits wanted too.
    pub lost: Vec<Lost<'a>>,
}

/// A Service that a Split wanted and did not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost<'a> {
    /// Index of the Split that lost.
    pub split: usize,
    /// The Service.
    pub service: &'a str,
    /// Index of the Split that has it.
    pub to: usize,
}

impl<'a> Governed<'a> {
    /// Decides for all of `splits`, which are of one fleet.
    pub fn new(splits: &'a [ReadSplit]) -> Self {
        let mut by_age: Vec<usize> = (0..splits.len()).collect();
        by_age.sort_by(|&a, &b| splits[a].age.cmp(&splits[b].age));
        let mut governed = Self::default();
        for split in by_age {
            for service in &splits[split].services {
                let key = (splits[split].namespace.as_str(), service.as_str());
                let to = *governed.owners.entry(key).or_insert(split);
                if to != split {
                    governed.lost.push(Lost { split, service, to });
                }
            }
        }
        governed
    }

    /// The Split that has the say over a Service.
    pub fn owner(&self, namespace: &str, service: &str) -> Option<usize> {
        self.owners.get(&(namespace, service)).copied()
    }

    /// All governed Services: namespace, name, and the Split's index.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str, usize)> {
        self.owners
            .iter()
            .map(|(&(namespace, service), &split)| (namespace, service, split))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(namespace: &str, name: &str, created: &str, services: &[&str]) -> ReadSplit {
        ReadSplit {
            namespace: namespace.into(),
            name: name.into(),
            uid: String::new(),
            generation: 1,
            age: (Some(created.parse().unwrap()), name.into()),
            fleet: String::new(),
            services: services.iter().map(|&s| s.into()).collect(),
            spec: Err(String::new()),
            unknown: Vec::new(),
        }
    }

    #[test]
    fn the_oldest_split_of_the_namespace_has_the_service() {
        let splits = [
            split("ns", "young", "2026-01-02T00:00:00Z", &["web", "api"]),
            split("ns", "old", "2026-01-01T00:00:00Z", &["web"]),
            split("other", "older", "2025-01-01T00:00:00Z", &["web"]),
            split("ns", "old-too", "2026-01-01T00:00:00Z", &["web"]),
        ];
        let governed = Governed::new(&splits);
        assert_eq!(governed.owner("ns", "web"), Some(1));
        assert_eq!(governed.owner("ns", "api"), Some(0));
        assert_eq!(governed.owner("other", "web"), Some(2));
        assert_eq!(governed.owner("other", "api"), None);
        let lost: Vec<_> = governed
            .lost
            .iter()
            .map(|l| (l.split, l.service, l.to))
            .collect();
        assert_eq!(lost, [(3, "web", 1), (0, "web", 1)]);
    }
}
