//! What the demo shows in the terminal: a pure picture of one moment.

use std::cmp::Ordering;

/// Columns of the picture.
const WIDTH: usize = 100;
/// Width of the weight bar in characters.
const BAR_WIDTH: usize = 50;
/// Lines of the story that stay in sight.
const LINES_SHOWN: usize = 8;

/// One moment of the demo.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene {
    /// Where traffic is taken, and where the page is.
    pub(crate) traffic: String,
    /// The dashboard's address.
    pub(crate) page: String,
    /// The Rollout's phase, with its icon.
    pub(crate) phase: String,
    /// Why it is in that phase.
    pub(crate) message: String,
    /// The steps, in words.
    pub(crate) steps: Vec<String>,
    /// Index of the current step; the number of steps when done.
    pub(crate) step: usize,
    /// The canary's share of traffic in percent, as its weights ask.
    pub(crate) weight: f64,
    /// What the proxy serves of it, in percent.
    pub(crate) effective: f64,
    /// One row per version.
    pub(crate) versions: Vec<Row>,
    /// Requests the clients sent and had answered.
    pub(crate) requests: u64,
    /// Failures the bad canary made on purpose.
    pub(crate) canary_failures: u64,
    /// Failures nobody made on purpose.
    pub(crate) unexpected: u64,
    /// What has happened so far, a line each.
    pub(crate) lines: Vec<String>,
}

/// One version's figures, as the proxy measured them over the last second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) rate: f64,
    /// Fraction of 1; nothing without requests.
    pub(crate) error_rate: Option<f64>,
    /// Milliseconds; nothing without requests.
    pub(crate) p99: Option<f64>,
}

/// Draws a moment: lines of at most 100 columns, with colours where `colour` is set.
pub(crate) fn draw(scene: &Scene, colour: bool) -> String {
    let paint = |code: &str, text: &str| {
        if colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    };
    let mut lines = vec![format!(
        "{}   traffic {}   page {}   Ctrl-C ends it",
        paint("1", "Sidestep demo"),
        scene.traffic,
        scene.page
    )];
    let mut part = |part: Vec<String>| {
        lines.push(String::new());
        lines.extend(part);
    };
    part(state(scene, colour));
    part(vec![format!("  {}", bar(scene, &paint))]);
    part(steps(scene, &paint));
    part(versions(scene, &paint));
    part(vec![format!(
        "  clients: {} requests, {} unexpected failures, {} made by the bad canary",
        scene.requests, scene.unexpected, scene.canary_failures
    )]);
    let earlier = scene.lines.len().saturating_sub(LINES_SHOWN);
    let told = scene.lines.iter().skip(earlier);
    part(told.map(|text| format!("  {text}")).collect());
    lines.join("\n") + "\n"
}

/// The phase, and why.
fn state(scene: &Scene, colour: bool) -> Vec<String> {
    let width = scene.phase.len();
    wrapped(&scene.message, WIDTH - width - 4)
        .iter()
        .enumerate()
        .map(|(index, text)| match index {
            0 => format!("  {}  {text}", phase(scene, colour)),
            _ => format!("  {:width$}  {text}", ""),
        })
        .collect()
}

fn steps(scene: &Scene, paint: &impl Fn(&str, &str) -> String) -> Vec<String> {
    let step = |(index, step): (usize, &String)| {
        let (mark, code) = match index.cmp(&scene.step) {
            Ordering::Less => ("✔", "32"),
            Ordering::Equal if scene.phase != "Degraded" => ("▶", "1;33"),
            Ordering::Equal | Ordering::Greater => ("·", "2"),
        };
        paint(code, &format!("  {mark} {step}"))
    };
    scene.steps.iter().enumerate().map(step).collect()
}

fn versions(scene: &Scene, paint: &impl Fn(&str, &str) -> String) -> Vec<String> {
    let head = format!(
        "  {:8} {:12} {:>10} {:>9} {:>9}",
        "version", "image", "requests/s", "errors", "p99"
    );
    let rows = scene.versions.iter().map(|row| version(row, paint));
    std::iter::once(paint("2", &head)).chain(rows).collect()
}

/// A text in lines of at most `width` characters, cut between words; at least one line.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => word.clone_into(line),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                *line += &format!(" {word}");
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

fn phase(scene: &Scene, colour: bool) -> String {
    let code = match scene.phase.as_str() {
        "Healthy" => "32",
        "Degraded" => "31",
        "Paused" => "36",
        _ => "94",
    };
    if colour {
        format!("\x1b[1;{code}m{}\x1b[0m", scene.phase)
    } else {
        scene.phase.clone()
    }
}

fn bar(scene: &Scene, paint: &impl Fn(&str, &str) -> String) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of 50 characters"
    )]
    let filled = (scene.effective.clamp(0.0, 100.0) / 100.0 * BAR_WIDTH as f64).round() as usize;
    let share = if (scene.weight - scene.effective).abs() < 0.05 {
        format!("canary {:.0} %", scene.weight)
    } else {
        format!(
            "canary {:.0} % (the proxy serves {:.0} %)",
            scene.weight, scene.effective
        )
    };
    format!(
        "stable {}{} {share}",
        paint("34", &"█".repeat(BAR_WIDTH - filled)),
        paint("33", &"█".repeat(filled))
    )
}

fn version(row: &Row, paint: &impl Fn(&str, &str) -> String) -> String {
    let errors = row.error_rate.map_or_else(
        || String::from("–"),
        |rate| format!("{:.1} %", rate * 100.0),
    );
    let p99 = row
        .p99
        .map_or_else(|| String::from("–"), |p99| format!("{p99:.0} ms"));
    let text = format!(
        "  {:8} {:12} {:>10.0} {errors:>9} {p99:>9}",
        row.name, row.image, row.rate
    );
    if row.error_rate.is_some_and(|rate| rate > 0.01) {
        paint("31", &text)
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_without_colour() {
        let scene = Scene {
            traffic: "http://127.0.0.1:8080".into(),
            page: "http://127.0.0.1:3100".into(),
            phase: "Paused".into(),
            message: "CanaryPauseStep".into(),
            steps: vec![
                "setWeight: 20".into(),
                "pause: 4s".into(),
                "setWeight: 60".into(),
            ],
            step: 1,
            weight: 20.0,
            effective: 20.0,
            versions: vec![
                Row {
                    name: "stable".into(),
                    image: "blue".into(),
                    rate: 1600.4,
                    error_rate: Some(0.0),
                    p99: Some(3.2),
                },
                Row {
                    name: "canary".into(),
                    image: "bad-red".into(),
                    rate: 399.6,
                    error_rate: Some(0.31),
                    p99: None,
                },
            ],
            requests: 24_310,
            canary_failures: 12,
            unexpected: 0,
            lines: vec!["revision 2 (yellow) begins".into()],
        };
        insta::assert_snapshot!(draw(&scene, false), @r"
        Sidestep demo   traffic http://127.0.0.1:8080   page http://127.0.0.1:3100   Ctrl-C ends it

          Paused  CanaryPauseStep

          stable ██████████████████████████████████████████████████ canary 20 %

          ✔ setWeight: 20
          ▶ pause: 4s
          · setWeight: 60

          version  image        requests/s    errors       p99
          stable   blue               1600     0.0 %      3 ms
          canary   bad-red             400    31.0 %         –

          clients: 24310 requests, 0 unexpected failures, 12 made by the bad canary

          revision 2 (yellow) begins
        ");
    }

    #[test]
    fn an_aborted_rollout_is_at_no_step_and_says_all_of_why() {
        let why = "RolloutAborted: Rollout aborted update to revision 3: Background analysis phase error/failed: Metric \"success\" assessed Failed due to failed (1) > failureLimit (0)";
        let scene = Scene {
            phase: "Degraded".into(),
            message: why.into(),
            steps: vec!["setWeight: 20".into(), "pause: 8s".into()],
            ..Scene::default()
        };
        let drawn = draw(&scene, false);
        assert!(
            !drawn.contains('▶') && drawn.contains("· setWeight: 20"),
            "{drawn}"
        );
        let words: Vec<&str> = drawn.split_whitespace().collect();
        assert!(
            words.join(" ").contains(&format!("Degraded {why}")),
            "{drawn}"
        );
        assert!(
            drawn.lines().all(|line| line.chars().count() <= WIDTH),
            "{drawn}"
        );
    }
}
