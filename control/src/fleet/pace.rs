//! How often proxies are to tell what they count. What they acknowledge they say at once, whatever the pace.

use std::time::Duration;

use tokio::sync::watch;

/// The shortest time between two rounds of counters, and the usual one: 20 proxies with 100 Splits each have it.
pub const SHORTEST: Duration = Duration::from_millis(200);

/// The longest: a window of the usual 30 s would take more than a minute and a half to fill at this pace.
pub const LONGEST: Duration = Duration::from_secs(60);

/// Lines of counters that the leader takes up in a second. One takes 15 to 40 µs of a core, and more cores help little: half of that is done
/// under the lock of the one state. What proxies acknowledge comes on top, a line of each for each change.
const LINES_PER_SECOND: usize = 10_000;

/// Splits of a proxy, before one has told: as many as have ever been spoken of at a time. With fewer the pace is too slow at first, which
/// costs nothing; with more each proxy says them all twice.
const SPLITS: usize = 300;

/// The time between two rounds, for so many proxies with so many Splits each.
pub fn every(proxies: usize, splits: Option<usize>) -> Duration {
    let lines = proxies.saturating_mul(splits.unwrap_or(SPLITS));
    let ms = lines.saturating_mul(1000) / LINES_PER_SECOND;
    Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)).clamp(SHORTEST, LONGEST)
}

/// Returns once the pace that was asked for is wrong by a factor of 2 or more, and then a part of the new pace later that nobody knows: the
/// proxies say everything anew, but not all of them at once. Cancel safe.
pub async fn is_wrong(asked: Duration, wanted: &mut watch::Receiver<Duration>) {
    let is_far = |wanted: &Duration| *wanted >= asked * 2 || asked >= *wanted * 2;
    loop {
        let Ok(every) = wanted.wait_for(is_far).await.map(|every| *every) else {
            return std::future::pending().await; // nobody is there any more to want anything
        };
        tokio::time::sleep(every.mul_f64(rand::random())).await;
        if is_far(&wanted.borrow()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_from_the_size_of_the_fleet() {
        let cases = [
            (0, None, 200),
            (3, None, 200),
            (20, Some(100), 200),
            (1_000, Some(1), 200),
            (100, Some(300), 3_000),
            (1_000, None, 30_000),
            (1_000, Some(300), 30_000),
            (10_000, Some(10_000), 60_000),
        ];
        for (proxies, splits, ms) in cases {
            let expected = Duration::from_millis(ms);
            assert_eq!(every(proxies, splits), expected, "{proxies} {splits:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pace_is_wrong_when_another_is_wanted_that_is_twice_as_long_or_half() {
        let asked = Duration::from_secs(4);
        for (seconds, expected) in [(2, true), (3, false), (4, false), (7, false), (8, true)] {
            let (_sender, mut wanted) = watch::channel(Duration::from_secs(seconds));
            let limit = Duration::from_secs(60);
            let found = tokio::time::timeout(limit, is_wrong(asked, &mut wanted)).await;
            assert_eq!(found.is_ok(), expected, "{seconds}");
        }
    }
}
