//! Words of a configuration file → values, or what is allowed there.

use std::fmt::Display;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;
use serde::de::{Deserialize, Deserializer, Error};

/// A time above 0, such as `10s`, `500ms` or `1m30s`.
pub(super) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let allowed = "a time above 0 such as 10s, 500ms or 1m30s";
    let text = word(deserializer, allowed)?;
    let time = parse(&text).filter(|time| !time.is_zero());
    time.ok_or_else(|| not(&text, allowed))
}

/// A time that may be 0.
pub(super) fn time_or_none<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let allowed = "a time such as 10s, 500ms or 0s";
    let text = word(deserializer, allowed)?;
    parse(&text).ok_or_else(|| not(&text, allowed))
}

/// A time above 0, or `null` for none.
pub(super) fn some_time<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    struct Time(Duration);
    impl<'de> Deserialize<'de> for Time {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            time(deserializer).map(Self)
        }
    }
    Ok(Option::<Time>::deserialize(deserializer)?.map(|Time(time)| time))
}

/// Bytes of an HTTP/2 flow-control window: 1 to 2^31 - 1 (RFC 9113 section 6.9.1).
pub(super) fn window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU32, D::Error> {
    let bytes = u64::deserialize(deserializer)?;
    let fits = u32::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes < 1 << 31)
        .and_then(NonZeroU32::new);
    fits.ok_or_else(|| not(bytes, "a window of 1 to 2147483647 bytes"))
}

/// Networks such as `10.0.0.0/8`; an address alone is a network of one.
pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| network(text)).collect()
}

fn network<E: Error>(text: &str) -> Result<IpNet, E> {
    let network = text.parse::<IpNet>().ok();
    let network = network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    network.ok_or_else(|| not(text, "a network such as 10.0.0.0/8"))
}

fn word<'de, D: Deserializer<'de>>(deserializer: D, allowed: &str) -> Result<String, D::Error> {
    String::deserialize(deserializer)
        .map_err(|error| D::Error::custom(format!("{error}: write {allowed}")))
}

fn parse(text: &str) -> Option<Duration> {
    let time: SignedDuration = text.parse().ok()?;
    Duration::try_from(time).ok()
}

fn not<E: Error>(given: impl Display, allowed: &str) -> E {
    E::custom(format!("`{given}` is not {allowed}"))
}
