//! Host and path → route, with the precedence of the Gateway API.
//!
//! Among the routes that match both host and path: an exact host with the request's port before one without, before a domain
//! with one label more, before the longest suffix, before any host; then an exact path before the longest prefix; then the earlier in the list. Everything is a hash
//! lookup; nothing is allocated.

use foldhash::HashMap;

use super::{HostMatch, PathMatch, Route};

/// Longest host that can match, with its port: 253 characters by RFC 1035, a final dot, a colon and 5 digits.
pub(super) const HOST_MAX: usize = 260;

/// The routes of a table, ready to be asked.
#[derive(Debug, Default)]
pub struct Routes {
    list: Vec<Route>,
    exact: HashMap<Box<str>, Paths>,
    label: HashMap<Box<str>, Paths>,
    suffix: HashMap<Box<str>, Paths>,
    any: Paths,
    /// Whether a host names a port: only then is a request's host looked up with its port.
    ported: bool,
}

/// The routes of one host, as indices into the list.
#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Box<str>, usize>,
    /// Without a slash at the end; the prefix `/` is the root.
    prefix: HashMap<Box<str>, usize>,
    root: Option<usize>,
    /// Length of the longest prefix: nothing longer is looked up.
    longest: usize,
}

impl Routes {
    /// Routes out of a list that was checked.
    #[must_use]
    pub(super) fn new(list: Vec<Route>) -> Self {
        let mut routes = Self::default();
        for (index, route) in list.iter().enumerate() {
            let paths = match &route.host {
                HostMatch::Any => &mut routes.any,
                HostMatch::Exact(host) => {
                    routes.ported |= split_port(host).1.is_some();
                    routes.exact.entry(lower(host)).or_default()
                }
                HostMatch::Label(host) => routes.label.entry(lower(host)).or_default(),
                HostMatch::Suffix(host) => routes.suffix.entry(lower(host)).or_default(),
            };
            paths.add(&route.path, index);
        }
        routes.list = list;
        routes
    }

    /// The routes, in the order given.
    #[must_use]
    pub fn list(&self) -> &[Route] {
        &self.list
    }

    /// The route for a request.
    ///
    /// `host` as in the `Host` header or the authority, with or without a port, empty if there is none; `path` without its query.
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<&Route> {
        if host.len() > HOST_MAX {
            return self.find_lowered("", path);
        }
        if !host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.find_lowered(host, path);
        }
        let mut buffer = [0; HOST_MAX];
        let copy = &mut buffer[..host.len()];
        copy.copy_from_slice(host.as_bytes());
        copy.make_ascii_lowercase();
        self.find_lowered(std::str::from_utf8(copy).unwrap_or_default(), path)
    }

    /// As [`Routes::find`], for a host in lower case.
    fn find_lowered(&self, host: &str, path: &str) -> Option<&Route> {
        let (name, port) = split_port(host);
        let named = if self.ported && port.is_some() {
            self.exact.get(host).and_then(|paths| paths.find(path))
        } else {
            None
        };
        let bare = name.strip_suffix('.').unwrap_or(name);
        named
            .or_else(|| self.find_named(bare, path))
            .or_else(|| self.any.find(path))
            .map(|index| &self.list[index])
    }

    fn find_named(&self, host: &str, path: &str) -> Option<usize> {
        let exact = self.exact.get(host).and_then(|paths| paths.find(path));
        exact
            .or_else(|| self.find_label(host, path))
            .or_else(|| self.find_suffix(host, path))
    }

    fn find_label(&self, host: &str, path: &str) -> Option<usize> {
        if self.label.is_empty() {
            return None;
        }
        let (_, domain) = host.split_once('.')?;
        self.label.get(domain).and_then(|paths| paths.find(path))
    }

    fn find_suffix(&self, host: &str, path: &str) -> Option<usize> {
        if self.suffix.is_empty() {
            return None;
        }
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(index) = self.suffix.get(parent).and_then(|paths| paths.find(path)) {
                return Some(index);
            }
            rest = parent;
        }
        None
    }
}

impl Paths {
    /// The first of two equal matches stays.
    fn add(&mut self, path: &PathMatch, index: usize) {
        match path {
            PathMatch::Exact(path) => {
                self.exact.entry(path.as_str().into()).or_insert(index);
            }
            PathMatch::Prefix(path) => {
                let path = path.trim_end_matches('/');
                if path.is_empty() {
                    self.root.get_or_insert(index);
                    return;
                }
                self.longest = self.longest.max(path.len());
                self.prefix.entry(path.into()).or_insert(index);
            }
        }
    }

    fn find(&self, path: &str) -> Option<usize> {
        let exact = if self.exact.is_empty() {
            None
        } else {
            self.exact.get(path).copied()
        };
        exact.or_else(|| self.find_prefix(path)).or(self.root)
    }

    /// Looks up the path, then its parents, from the longest that could be there. `*` (of `OPTIONS *`) has no parent but the root.
    fn find_prefix(&self, path: &str) -> Option<usize> {
        if self.prefix.is_empty() {
            return None;
        }
        let mut rest = self.within_longest(path);
        while !rest.is_empty() {
            if let Some(index) = self.prefix.get(rest) {
                return Some(*index);
            }
            rest = parent(rest);
        }
        None
    }

    /// The longest run of whole elements of `path` that is no longer than any prefix here.
    fn within_longest<'a>(&self, path: &'a str) -> &'a str {
        if path.len() <= self.longest {
            return path;
        }
        match path.as_bytes()[..=self.longest]
            .iter()
            .rposition(|&byte| byte == b'/')
        {
            Some(slash) => path.get(..slash).unwrap_or(""),
            None => "",
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn lower(host: &str) -> Box<str> {
    host.to_ascii_lowercase().into()
}

/// The host and its port, if it names one.
pub(super) fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && is_whole(name) => {
            (name, Some(port))
        }
        Some(_) | None => (host, None),
    }
}

/// Whether the colon after `name` ends it: always, except within an IPv6 address.
fn is_whole(name: &str) -> bool {
    !name.starts_with('[') || name.ends_with(']')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::table::Target;

    /// `*.domain` stands for one label, `**.domain` for any number.
    fn host(text: &str) -> HostMatch {
        match text.split_once("*.") {
            Some(("*", domain)) => HostMatch::Suffix(domain.to_owned()),
            Some((_, domain)) => HostMatch::Label(domain.to_owned()),
            None if text == "*" => HostMatch::Any,
            None => HostMatch::Exact(text.to_owned()),
        }
    }

    /// `host/path` or, with `=` before it, an exact path.
    fn routes(texts: &[&str]) -> Routes {
        let route = |(index, text): (usize, &&str)| {
            let (exact, text) = text
                .strip_prefix('=')
                .map_or((false, *text), |text| (true, text));
            let (name, path) = text.split_once('/').unwrap();
            let path = format!("/{path}");
            Route {
                host: host(name),
                path: if exact {
                    PathMatch::Exact(path)
                } else {
                    PathMatch::Prefix(path)
                },
                target: Target::Backend(index),
            }
        };
        Routes::new(texts.iter().enumerate().map(route).collect())
    }

    #[track_caller]
    fn check(texts: &[&str], asked: (&str, &str), expected: Option<usize>) {
        let routes = routes(texts);
        let found = routes
            .find(asked.0, asked.1)
            .map(|route| route.target.clone());
        assert_eq!(
            found,
            expected.map(Target::Backend),
            "{asked:?} of {texts:?}"
        );
    }

    #[test]
    fn a_host_with_a_port_comes_before_the_same_without() {
        let all = ["web:81/a", "web/", "*/"];
        check(&all, ("web:81", "/a"), Some(0));
        check(&all, ("WEB:81", "/a"), Some(0));
        check(&all, ("web:81", "/b"), Some(1));
        check(&all, ("web:80", "/a"), Some(1));
        check(&all, ("web", "/a"), Some(1));
        check(&all, ("other:81", "/a"), Some(2));
    }

    #[test]
    fn hosts_by_precedence() {
        let all = ["*/", "**.com/", "**.shop.com/", "a.shop.com/"];
        check(&all, ("a.shop.com", "/"), Some(3));
        check(&all, ("b.shop.com", "/"), Some(2));
        check(&all, ("b.c.shop.com", "/"), Some(2));
        check(&all, ("shop.com", "/"), Some(1));
        check(&all, ("com", "/"), Some(0));
        check(&all, ("", "/"), Some(0));
        check(&["a.shop.com/"], ("b.shop.com", "/"), None);
    }

    #[test]
    fn case_port_and_final_dot_play_no_part() {
        for asked in [
            "Web.NS.svc",
            "web.ns.svc:8080",
            "WEB.ns.svc.:80",
            "web.ns.svc:",
        ] {
            check(&["web.ns.SVC/"], (asked, "/"), Some(0));
        }
        check(&["[::1]/"], ("[::1]:80", "/"), Some(0));
        check(&["[::1]/"], ("[::1]", "/"), Some(0));
    }

    #[test]
    fn paths_by_precedence() {
        let all = ["h/", "h/a", "h/a/b/", "=h/a/b", "=h/a/b/c/d"];
        check(&all, ("h", "/"), Some(0));
        check(&all, ("h", "/ab"), Some(0));
        check(&all, ("h", "/a"), Some(1));
        check(&all, ("h", "/a/"), Some(1));
        check(&all, ("h", "/a/bc/d"), Some(1));
        check(&all, ("h", "/a/b"), Some(3));
        check(&all, ("h", "/a/b/"), Some(2));
        check(&all, ("h", "/a/b/c"), Some(2));
        check(&all, ("h", "*"), Some(0));
    }

    #[test]
    fn a_path_that_only_a_less_specific_host_serves_falls_to_it() {
        check(&["*/", "h/a"], ("h", "/b"), Some(0));
    }

    #[test]
    fn the_first_of_two_equal_routes_wins() {
        check(&["h/a", "h/a/", "H/a"], ("h", "/a"), Some(0));
    }

    #[test]
    fn a_path_may_hold_any_characters() {
        check(&["h/a", "h/ä"], ("h", "/ä/b"), Some(1));
        check(&["h/a"], ("h", "/ééé"), None);
    }

    #[test]
    fn ten_thousand_hosts_are_all_found() {
        let names: Vec<String> = (0..10_000)
            .map(|i| format!("s{i}.ns{}.svc/", i % 7))
            .collect();
        let texts: Vec<&str> = names.iter().map(String::as_str).collect();
        let routes = routes(&texts);
        for (index, name) in names.iter().enumerate() {
            let found = routes.find(name.trim_end_matches('/'), "/x").unwrap();
            assert_eq!(found.target, Target::Backend(index), "{name}");
        }
    }

    /// The same by looking at every route: how closely one matches, `None` if it does not.
    fn closeness(route: &Route, asked: (&str, &str)) -> Option<(usize, usize, usize)> {
        let (name, port) = asked.0.split_once(':').unwrap_or((asked.0, ""));
        let (host, length) = match &route.host {
            HostMatch::Any => (0, 0),
            HostMatch::Suffix(domain) => {
                let below = name
                    .strip_suffix(domain.as_str())
                    .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'));
                below.then_some((1, domain.len()))?
            }
            HostMatch::Label(domain) => {
                let (_, rest) = name.split_once('.')?;
                (rest == domain).then_some((2, 0))?
            }
            HostMatch::Exact(host) if host == name => (3, 0),
            HostMatch::Exact(host) => (!port.is_empty() && host == asked.0).then_some((4, 0))?,
        };
        let path = match &route.path {
            PathMatch::Exact(path) => (path == asked.1).then_some(usize::MAX)?,
            PathMatch::Prefix(path) => {
                let path = path.trim_end_matches('/');
                let rest = asked.1.strip_prefix(path)?;
                (rest.is_empty() || rest.starts_with('/')).then_some(path.len())?
            }
        };
        Some((host, length, path))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))] // making strings from patterns is slow
        #[test]
        fn the_maps_find_what_a_look_at_every_route_finds(
            texts in prop::collection::vec("=?(\\*|(\\*{1,2}\\.)?[ab](\\.[ab]){0,2}|[ab](\\.[ab])?:[12])(/[xy]?){1,3}", 0..12),
            asked in prop::collection::vec(("[ab](\\.[ab]){0,3}(:[12])?", "(/[xy]{0,2}){1,4}"), 20),
        ) {
            let routes = routes(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            for (host, path) in &asked {
                let close = |(index, route)| Some((closeness(route, (host, path))?, std::cmp::Reverse(index)));
                let closest = routes.list().iter().enumerate().filter_map(close).max();
                let expected = closest.map(|(_, std::cmp::Reverse(index))| index);
                let found = routes.find(host, path).map(|route| route.target.clone());
                prop_assert_eq!(found, expected.map(Target::Backend), "{}{} of {:?}", host, path, &texts);
            }
        }
    }
}
