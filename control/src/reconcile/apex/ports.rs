//! Who has which port of the proxies. Pure: whoever asks says what is known.
//!
//! The Splits are the record of it. What is kept here beside them is short-lived: ports that are given and not yet in view, those that
//! are still served for callers of before, and those that were freed a moment ago, at which callers may still arrive.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use jiff::{SignedDuration, Timestamp};

use super::super::objects::Name;
use crate::api::split::Apex;

/// How long a port is served on after its Service is no apex any more: connections that callers hold lead there until they end.
pub(super) const LINGER: SignedDuration = SignedDuration::from_mins(2);
/// How long a port that was freed is not given to another Service while there are others: a node that is late still sends there.
const REST: SignedDuration = SignedDuration::from_mins(5);

/// Ports given, left and freed, over all fleets.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// By fleet and port: to whom it was given who does not show it yet.
    given: BTreeMap<(String, u16), Given>,
    /// By Split and port: since when it is not wanted any more.
    left: BTreeMap<(Name, u16), Timestamp>,
    /// By fleet: what was in use when last somebody asked.
    used: BTreeMap<String, BTreeSet<u16>>,
    /// By fleet and port: when it was found to be free again.
    freed: BTreeMap<(String, u16), Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    split: Name,
    to: Port,
}

/// A Service and the number of its port, which stays when the port is given another name.
pub(super) type Port = (String, String);

/// What a Split asks for, and what is known.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) split: &'a Name,
    pub(super) fleet: &'a str,
    /// What ports are to be had for, in order.
    pub(super) wanted: &'a [Port],
    /// What the Split has.
    pub(super) standing: &'a [Apex],
    /// Ports of older Splits of the fleet: they have the say.
    pub(super) older: BTreeSet<u16>,
    /// Ports of younger ones.
    pub(super) younger: BTreeSet<u16>,
    /// Ports that EndpointSlices of ours still lead to, but for those of the Services asked for.
    pub(super) listed: BTreeSet<u16>,
}

/// What a Split gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reserved {
    pub(super) apexes: Vec<Apex>,
    /// What there was no port for.
    pub(super) missing: Vec<Port>,
    /// When one of its ports is left for good.
    pub(super) again: Option<Timestamp>,
}

impl Book {
    /// Gives a Split its ports: those it has, and for what else it wants the lowest that are free.
    pub(super) fn reserve(
        &mut self,
        range: &RangeInclusive<u16>,
        asked: &Asked<'_>,
        now: Timestamp,
    ) -> Reserved {
        self.note_what_is_free(asked, now);
        let mut reserved = self.keep(range, asked, now);
        for port in asked.wanted {
            let has = |apex: &Apex| is_for(apex, port) && range.contains(&apex.listen);
            if reserved.apexes.iter().any(has) {
                continue;
            }
            let free = self.given_before(range, asked, port);
            match free.or_else(|| self.lowest(range, asked, &reserved.apexes)) {
                Some(listen) => {
                    let given = Given {
                        split: asked.split.clone(),
                        to: port.clone(),
                    };
                    self.given.insert((asked.fleet.to_owned(), listen), given);
                    reserved.apexes.push(Apex {
                        service: port.0.clone(),
                        port: port.1.clone(),
                        listen,
                    });
                }
                None => reserved.missing.push(port.clone()),
            }
        }
        reserved.apexes.sort();
        reserved
    }

    /// Nothing is given to a Split, or left by it, any more.
    pub(super) fn forget(&mut self, split: &Name) {
        self.given.retain(|_, given| given.split != *split);
        self.left.retain(|(of, _), _| of != split);
    }

    fn note_what_is_free(&mut self, asked: &Asked<'_>, now: Timestamp) {
        let standing = asked.standing.iter().map(|apex| apex.listen);
        let used: BTreeSet<u16> = standing
            .chain(asked.older.iter().copied())
            .chain(asked.younger.iter().copied())
            .chain(asked.listed.iter().copied())
            .collect();
        let wants = |given: &Given| given.split != *asked.split || asked.wanted.contains(&given.to);
        self.given.retain(|(fleet, port), given| {
            fleet != asked.fleet || wants(given) && !used.contains(port)
        });
        let before = self.used.insert(asked.fleet.to_owned(), used.clone());
        let freed = before.unwrap_or_default().into_iter();
        let freed = freed.filter(|port| !used.contains(port));
        let freed = freed.map(|port| ((asked.fleet.to_owned(), port), now));
        self.freed.extend(freed);
        self.freed
            .retain(|_, since| now.duration_since(*since) < REST);
    }

    /// What stands, as far as it may: what an older Split has is lost, what is not wanted any more is left after a while.
    fn keep(&mut self, range: &RangeInclusive<u16>, asked: &Asked<'_>, now: Timestamp) -> Reserved {
        let mut reserved = Reserved::default();
        for apex in asked.standing {
            let key = (asked.split.clone(), apex.listen);
            let is_wanted = asked.wanted.iter().any(|port| is_for(apex, port));
            if asked.older.contains(&apex.listen) {
                self.left.remove(&key);
            } else if is_wanted && range.contains(&apex.listen) {
                self.left.remove(&key);
                reserved.apexes.push(apex.clone());
            } else {
                let since = *self.left.entry(key.clone()).or_insert(now);
                let end = since.saturating_add(LINGER).unwrap_or(now);
                if end <= now {
                    self.left.remove(&key);
                    continue;
                }
                reserved.apexes.push(apex.clone());
                reserved.again = reserved.again.into_iter().chain([end]).min();
            }
        }
        reserved
    }

    fn given_before(
        &self,
        range: &RangeInclusive<u16>,
        asked: &Asked<'_>,
        port: &Port,
    ) -> Option<u16> {
        let is_it = |given: &Given| given.split == *asked.split && given.to == *port;
        let mut given = self.given.iter();
        let found = given.find(|((fleet, listen), given)| {
            fleet == asked.fleet && is_it(given) && range.contains(listen)
        });
        found.map(|((_, listen), _)| *listen)
    }

    /// The lowest port that nobody has; where all others are taken, the one that has rested longest.
    fn lowest(&self, range: &RangeInclusive<u16>, asked: &Asked<'_>, kept: &[Apex]) -> Option<u16> {
        let key = |port: u16| (asked.fleet.to_owned(), port);
        let is_free = |port: &u16| {
            !asked.older.contains(port)
                && !asked.younger.contains(port)
                && !asked.listed.contains(port)
                && !self.given.contains_key(&key(*port))
                && !kept
                    .iter()
                    .chain(asked.standing)
                    .any(|apex| apex.listen == *port)
        };
        let free = || range.clone().filter(is_free);
        let rested = free().find(|port| !self.freed.contains_key(&key(*port)));
        rested.or_else(|| free().min_by_key(|port| self.freed.get(&key(*port))))
    }
}

fn is_for(apex: &Apex, port: &Port) -> bool {
    (&apex.service, &apex.port) == (&port.0, &port.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: RangeInclusive<u16> = 10_001..=10_003;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).unwrap()
    }

    fn split(name: &str) -> Name {
        Name {
            namespace: "ns".into(),
            name: name.into(),
        }
    }

    fn port(service: &str) -> Port {
        (service.into(), "80".into())
    }

    fn apex(service: &str, listen: u16) -> Apex {
        Apex {
            service: service.into(),
            port: "80".into(),
            listen,
        }
    }

    /// What is known beside the Split that asks.
    #[derive(Default)]
    struct Others<'a> {
        older: &'a [u16],
        younger: &'a [u16],
        listed: &'a [u16],
    }

    /// A Split of one Service by its name asks at that minute: what it gets, `-` for what is missing.
    fn ask(
        book: &mut Book,
        name: &str,
        standing: &[Apex],
        others: &Others<'_>,
        minute: i64,
    ) -> String {
        asks(book, name, &[port(name)], standing, others, minute)
    }

    fn asks(
        book: &mut Book,
        name: &str,
        wanted: &[Port],
        standing: &[Apex],
        others: &Others<'_>,
        minute: i64,
    ) -> String {
        let set = |ports: &[u16]| ports.iter().copied().collect();
        let asked = Asked {
            split: &split(name),
            fleet: "default",
            wanted,
            standing,
            older: set(others.older),
            younger: set(others.younger),
            listed: set(others.listed),
        };
        let reserved = book.reserve(&RANGE, &asked, at(minute));
        let got = reserved
            .apexes
            .iter()
            .map(|apex| format!("{}:{}", apex.service, apex.listen));
        let missing = reserved
            .missing
            .iter()
            .map(|(service, _)| format!("{service}:-"));
        got.chain(missing).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_lowest_free_port_is_given_and_kept() {
        let none = Others::default();
        let book = &mut Book::default();
        assert_eq!(ask(book, "a", &[], &none, 0), "a:10001");
        assert_eq!(ask(book, "a", &[], &none, 0), "a:10001", "not in view yet");
        assert_eq!(
            ask(book, "b", &[], &none, 0),
            "b:10002",
            "nor to the other workers"
        );
        let others = Others {
            older: &[10_001],
            younger: &[10_002],
            listed: &[],
        };
        assert_eq!(ask(book, "c", &[], &others, 0), "c:10003");
        assert_eq!(ask(book, "d", &[], &others, 0), "d:-");
        let standing = [apex("e", 10_002)];
        assert_eq!(
            ask(&mut Book::default(), "e", &standing, &none, 0),
            "e:10002"
        );
    }

    #[test]
    fn of_two_that_have_one_port_the_younger_takes_another() {
        let standing = [apex("a", 10_001)];
        let older = Others {
            older: &[10_001],
            ..Others::default()
        };
        assert_eq!(
            ask(&mut Book::default(), "a", &standing, &older, 0),
            "a:10002"
        );
        let younger = Others {
            younger: &[10_001],
            ..Others::default()
        };
        assert_eq!(
            ask(&mut Book::default(), "a", &standing, &younger, 0),
            "a:10001"
        );
    }

    #[test]
    fn what_is_not_wanted_any_more_is_served_for_a_while() {
        let (none, standing) = (Others::default(), [apex("a", 10_001)]);
        let book = &mut Book::default();
        let mut unwanted = |minute| asks(book, "a", &[], &standing, &none, minute);
        assert_eq!(unwanted(0), "a:10001");
        assert_eq!(unwanted(1), "a:10001");
        assert_eq!(unwanted(2), "");
        assert_eq!(
            unwanted(3),
            "a:10001",
            "which begins anew where the write was refused"
        );
    }

    #[test]
    fn a_port_outside_the_range_is_served_on_beside_a_new_one() {
        let standing = [apex("a", 9_000)];
        let found = ask(&mut Book::default(), "a", &standing, &Others::default(), 0);
        assert_eq!(found, "a:9000 a:10001");
    }

    #[test]
    fn what_was_free_a_moment_ago_or_is_still_led_to_goes_to_nobody() {
        let book = &mut Book::default();
        let used = Others {
            younger: &[10_001],
            ..Others::default()
        };
        assert_eq!(ask(book, "a", &[], &used, 0), "a:10002");
        let listed = Others {
            listed: &[10_001],
            ..Others::default()
        };
        let standing = [apex("a", 10_002)];
        assert_eq!(
            asks(book, "a", &[port("a"), port("b")], &standing, &listed, 0),
            "a:10002 b:10003"
        );
        book.forget(&split("a"));
        // Nobody leads to it any more since the first minute.
        let none = Others::default();
        assert_eq!(
            asks(book, "a", &[port("a"), port("b")], &standing, &none, 1),
            "a:10002 b:10003"
        );
        book.forget(&split("a"));
        assert_eq!(
            asks(book, "a", &[port("a"), port("b")], &standing, &none, 6),
            "a:10002 b:10001"
        );
        // With no other left it is given all the same.
        let book = &mut Book::default();
        let taken = Others {
            older: &[10_001, 10_002],
            younger: &[10_003],
            listed: &[],
        };
        assert_eq!(ask(book, "a", &[], &taken, 0), "a:-");
        let taken = Others {
            older: &[10_001, 10_002],
            ..Others::default()
        };
        assert_eq!(ask(book, "a", &[], &taken, 0), "a:10003");
    }
}
