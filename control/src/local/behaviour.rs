//! How a stand-in misbehaves, read from its container's image tag and environment.
//!
//! The tags are those of Argo's rollouts demo: `bad-red` fails for 15 % of its requests, `slow-blue` takes 2 s; both answer the
//! colour without the prefix. The environment says it freely and wins over the tag.

use std::time::Duration;

/// How a stand-in answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// What `/color` answers: the image's tag, without `bad-` or `slow-`.
    pub color: String,
    /// Fraction of requests that are answered with 500, from 0 to 1.
    pub errors: f64,
    /// Time before each answer.
    pub latency: Duration,
    /// Up to so much time more, evenly spread.
    pub jitter: Duration,
    /// Time from start to ready.
    pub ready_delay: Duration,
    /// The image cannot be had: the pod stays in `ImagePullBackOff`.
    pub image_pull_fails: bool,
}

impl Behaviour {
    /// Reads the behaviour of a container with this image and environment (later entries win).
    ///
    /// # Errors
    /// One sentence for each variable that does not mean anything.
    pub fn parse(image: &str, environment: &[(String, String)]) -> Result<Self, Vec<String>> {
        let mut behaviour = Self::of_tag(tag(image));
        let mut complaints = Vec::new();
        for (name, value) in environment {
            if let Err(allowed) = behaviour.set(name, value) {
                complaints.push(format!("{name}: {value:?} is not {allowed}"));
            }
        }
        if complaints.is_empty() {
            Ok(behaviour)
        } else {
            Err(complaints)
        }
    }

    fn of_tag(tag: &str) -> Self {
        let (errors, latency, color) = if let Some(color) = tag.strip_prefix("bad-") {
            (DEMO_ERRORS, Duration::ZERO, color)
        } else if let Some(color) = tag.strip_prefix("slow-") {
            (0.0, DEMO_LATENCY, color)
        } else {
            (0.0, Duration::ZERO, tag)
        };
        Self {
            color: color.to_owned(),
            errors,
            latency,
            jitter: Duration::ZERO,
            ready_delay: Duration::ZERO,
            image_pull_fails: false,
        }
    }

    /// Takes one variable; the error says what would be allowed. A variable that is not ours is the program's own business.
    fn set(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        match name {
            "ERROR_RATE" => {
                self.errors = percent(value).ok_or("a percentage from 0 to 100")? / 100.0
            }
            "LATENCY_MS" => self.latency = milliseconds(value).ok_or(MILLISECONDS)?,
            "LATENCY_JITTER_MS" => self.jitter = milliseconds(value).ok_or(MILLISECONDS)?,
            "READY_DELAY_MS" => self.ready_delay = milliseconds(value).ok_or(MILLISECONDS)?,
            "IMAGE_PULL_FAILS" => {
                self.image_pull_fails = value.parse().map_err(|_| "true or false")?
            }
            _ => {}
        }
        Ok(())
    }
}

fn percent(value: &str) -> Option<f64> {
    let percent = value.parse::<f64>().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent)
}

fn milliseconds(value: &str) -> Option<Duration> {
    let milliseconds = value.parse::<u64>().ok()?;
    (milliseconds <= MILLISECONDS_MAX).then(|| Duration::from_millis(milliseconds))
}

/// The tag of an image reference: what follows the last colon of its last part, `latest` if there is none.
pub fn tag(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').map_or("latest", |(_, tag)| tag)
}

/// What a `bad-` image of the rollouts demo does (argoproj/rollouts-demo, release.sh: ERROR_RATE=15).
const DEMO_ERRORS: f64 = 0.15;
/// What a `slow-` image of the rollouts demo does (argoproj/rollouts-demo, release.sh: LATENCY=2, seconds).
const DEMO_LATENCY: Duration = Duration::from_secs(2);
/// An hour: a delay that is longer is a mistake.
const MILLISECONDS_MAX: u64 = 3_600_000;
const MILLISECONDS: &str = "a whole number of milliseconds up to 3600000";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_of_an_image() {
        let check = |image: &str, expected: &str| assert_eq!(tag(image), expected, "{image}");
        check("argoproj/rollouts-demo:blue", "blue");
        check("localhost:5000/rollouts-demo", "latest");
        check("localhost:5000/rollouts-demo:v1.2", "v1.2");
        check("rollouts-demo:blue@sha256:0123", "blue");
        check("nginx", "latest");
    }

    fn parse(image: &str, environment: &[(&str, &str)]) -> Result<Behaviour, Vec<String>> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Behaviour::parse(image, &environment.iter().map(owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_demos_tags_and_our_variables_decide() {
        let ms = Duration::from_millis;
        let check = |image: &str, environment: &[(&str, &str)], expected: (&str, f64, Duration)| {
            let found = parse(image, environment).unwrap();
            assert_eq!(
                (found.color.as_str(), found.errors, found.latency),
                expected,
                "{image} {environment:?}"
            );
        };
        check("demo:blue", &[], ("blue", 0.0, ms(0)));
        check("demo:bad-red", &[], ("red", 0.15, ms(0)));
        check("demo:slow-blue", &[], ("blue", 0.0, ms(2000)));
        check("demo:bad-red", &[("ERROR_RATE", "0")], ("red", 0.0, ms(0)));
        check(
            "demo:blue",
            &[("ERROR_RATE", "12.5"), ("LATENCY_MS", "30")],
            ("blue", 0.125, ms(30)),
        );
        check(
            "demo:blue",
            &[("LATENCY_MS", "1"), ("LATENCY_MS", "2"), ("OTHER", "x")],
            ("blue", 0.0, ms(2)),
        );
    }

    #[test]
    fn every_bad_value_is_named_with_what_is_allowed() {
        let complaints = parse(
            "demo:blue",
            &[
                ("ERROR_RATE", "101"),
                ("LATENCY_MS", "-1"),
                ("IMAGE_PULL_FAILS", "si"),
            ],
        );
        insta::assert_snapshot!(complaints.unwrap_err().join("\n"), @r#"
        ERROR_RATE: "101" is not a percentage from 0 to 100
        LATENCY_MS: "-1" is not a whole number of milliseconds up to 3600000
        IMAGE_PULL_FAILS: "si" is not true or false
        "#);
    }
}
