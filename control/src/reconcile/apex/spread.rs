//! Which proxies an apex lists: not all of a large fleet, but some of each zone.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::fleet::members::Place;

/// Most proxies that an apex lists: more would only make every node's rules longer.
const MOST: usize = 16;

/// At most 16 of the proxies, zone by zone in turn. Those that are `listed` come first, so that nobody is moved without need; else it is
/// by a hash of the Service and the proxy, so that Services share the fleet among them.
pub(super) fn spread(service: &str, proxies: Vec<(Place, bool)>) -> Vec<Place> {
    let mut zones: BTreeMap<Option<String>, Vec<(Place, bool)>> = BTreeMap::new();
    for proxy in proxies {
        zones.entry(proxy.0.zone.clone()).or_default().push(proxy);
    }
    let mut zones: VecDeque<VecDeque<Place>> = zones
        .into_values()
        .map(|mut zone| {
            zone.sort_by_key(|(place, listed)| (!listed, rank(service, place)));
            zone.into_iter().map(|(place, _)| place).collect()
        })
        .collect();
    let mut chosen = Vec::new();
    while chosen.len() < MOST
        && let Some(mut zone) = zones.pop_front()
    {
        if let Some(place) = zone.pop_front() {
            chosen.push(place);
            zones.push_back(zone);
        }
    }
    chosen
}

fn rank(service: &str, place: &Place) -> u64 {
    let mut hasher = DefaultHasher::new();
    (service, &place.addresses).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::IpAddr;

    use super::*;

    fn proxy(zone: &str, number: u8) -> Place {
        Place {
            addresses: BTreeSet::from([IpAddr::from([10, 0, 0, number])]),
            zone: Some(zone.to_owned()),
            ..Place::default()
        }
    }

    fn of(zones: &[(&str, std::ops::Range<u8>)]) -> Vec<(Place, bool)> {
        let of_zone = |(zone, numbers): &(&str, std::ops::Range<u8>)| -> Vec<(Place, bool)> {
            numbers.clone().map(|n| (proxy(zone, n), false)).collect()
        };
        zones.iter().flat_map(of_zone).collect()
    }

    fn by_zone(chosen: &[Place]) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for place in chosen {
            *count.entry(place.zone.clone().unwrap()).or_default() += 1;
        }
        count
    }

    fn check(zones: &[(&str, std::ops::Range<u8>)], expected: &[(&str, usize)]) {
        let found = by_zone(&spread("ns/web", of(zones)));
        let expected: BTreeMap<String, usize> = expected
            .iter()
            .map(|(zone, n)| ((*zone).to_owned(), *n))
            .collect();
        assert_eq!(found, expected, "{zones:?}");
    }

    #[test]
    fn zones_take_turns_up_to_16() {
        check(&[], &[]);
        check(&[("a", 0..2), ("b", 2..3)], &[("a", 2), ("b", 1)]);
        check(&[("a", 0..100), ("b", 100..200)], &[("a", 8), ("b", 8)]);
        check(
            &[("a", 0..100), ("b", 100..101), ("c", 101..200)],
            &[("a", 8), ("b", 1), ("c", 7)],
        );
    }

    #[test]
    fn who_is_listed_stays_and_services_share_the_fleet() {
        let fleet = of(&[("a", 0..100)]);
        let chosen = spread("ns/web", fleet.clone());
        let mut listed = fleet.clone();
        for (place, listed) in &mut listed {
            *listed = place.addresses.contains(&IpAddr::from([10, 0, 0, 77]))
                || chosen[..15].contains(place);
        }
        let again = spread("ns/web", listed);
        assert!(again.iter().any(|place| *place == proxy("a", 77)));
        assert!(chosen[..15].iter().all(|place| again.contains(place)));
        assert_ne!(spread("ns/api", fleet), chosen);
    }
}
