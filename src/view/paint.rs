//! Icons and colours, as `kubectl argo rollouts` has them.

/// Whether to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    /// ANSI SGR colours.
    Colors,
    /// Plain text.
    Plain,
}

/// How something is, in one character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) enum Icon {
    /// Well.
    Ok,
    /// Not well.
    Bad,
    /// On its way.
    Progressing,
    /// Not begun.
    Waiting,
    /// Something went wrong.
    Warning,
    /// Nobody knows.
    Unknown,
    /// Halted on purpose.
    Paused,
    /// Gone on purpose.
    Neutral,
    /// Nothing to say.
    None,
}

const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;
const HIGH_BLUE: u8 = 94;

impl Icon {
    /// Its character.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Ok => "✔",
            Self::Bad => "✖",
            Self::Progressing => "◌",
            Self::Waiting => "◷",
            Self::Warning => "⚠",
            Self::Unknown => "?",
            Self::Paused => "॥",
            Self::Neutral => "•",
            Self::None => " ",
        }
    }

    fn color(self) -> Option<u8> {
        match self {
            Self::Ok => Some(GREEN),
            Self::Bad | Self::Warning => Some(RED),
            Self::Progressing => Some(HIGH_BLUE),
            Self::Waiting | Self::Unknown => Some(YELLOW),
            Self::Paused | Self::Neutral | Self::None => None,
        }
    }

    /// The icon of a rollout's phase.
    pub(crate) fn of_phase(phase: &str) -> Self {
        match phase {
            "Healthy" => Self::Ok,
            "Degraded" => Self::Bad,
            "Progressing" => Self::Progressing,
            "Paused" => Self::Paused,
            "Error" | "InvalidSpec" => Self::Warning,
            "Unknown" => Self::Unknown,
            "ScaledDown" => Self::Neutral,
            _ => Self::None,
        }
    }

    /// The icon of a ReplicaSet's status.
    pub(crate) fn of_replica_set(status: &str) -> Self {
        match status {
            "Healthy" => Self::Ok,
            "Progressing" => Self::Progressing,
            "ReplicaFailure" => Self::Bad,
            "ScaledDown" => Self::Neutral,
            _ => Self::None,
        }
    }

    /// The icon of an analysis' phase.
    pub(crate) fn of_analysis(phase: &str) -> Self {
        match phase {
            "Successful" => Self::Ok,
            "Failed" => Self::Bad,
            "Error" => Self::Warning,
            "Inconclusive" => Self::Unknown,
            "Running" => Self::Progressing,
            "Pending" => Self::Waiting,
            _ => Self::None,
        }
    }
}

impl Paint {
    /// Colours unless the user or the terminal would rather not: `--no-color`, `NO_COLOR`, `TERM=dumb`, or no terminal.
    pub(crate) fn wanted(
        no_color_flag: bool,
        no_color: Option<&str>,
        term: Option<&str>,
        is_terminal: bool,
    ) -> Self {
        let refused = no_color_flag
            || no_color.is_some_and(|value| !value.is_empty())
            || term == Some("dumb");
        match is_terminal && !refused {
            true => Self::Colors,
            false => Self::Plain,
        }
    }

    /// An icon in its colour.
    pub(crate) fn icon(self, icon: Icon) -> String {
        self.text(icon.symbol(), icon.color())
    }

    /// What part a ReplicaSet plays (`stable`, `canary`, …) in its colour.
    pub(crate) fn tag(self, tag: &str) -> String {
        self.text(tag, tag_color(tag))
    }

    /// A ReplicaSet's name in the colour of the part it plays.
    pub(crate) fn named_for(self, name: &str, tags: &[&str]) -> String {
        self.text(name, tags.iter().rev().find_map(|tag| tag_color(tag)))
    }

    /// An analysis' name, highlighted while it runs.
    pub(crate) fn analysis_name(self, name: &str, phase: &str) -> String {
        self.text(
            name,
            matches!(phase, "Pending" | "Running").then_some(HIGH_BLUE),
        )
    }

    fn text(self, text: &str, color: Option<u8>) -> String {
        match (self, color) {
            (Self::Colors, Some(color)) => format!("\x1b[{color}m{text}\x1b[0m"),
            (Self::Colors | Self::Plain, _) => text.to_owned(),
        }
    }
}

fn tag_color(tag: &str) -> Option<u8> {
    match tag {
        "stable" | "active" => Some(GREEN),
        "canary" => Some(YELLOW),
        "preview" => Some(HIGH_BLUE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_skipped_when_refused_or_not_seen() {
        let cases = [
            (false, None, Some("xterm"), true, Paint::Colors),
            (false, None, None, true, Paint::Colors),
            (false, Some(""), Some("xterm"), true, Paint::Colors),
            (true, None, Some("xterm"), true, Paint::Plain),
            (false, Some("1"), Some("xterm"), true, Paint::Plain),
            (false, None, Some("dumb"), true, Paint::Plain),
            (false, None, Some("xterm"), false, Paint::Plain),
        ];
        for (flag, no_color, term, terminal, paint) in cases {
            assert_eq!(
                Paint::wanted(flag, no_color, term, terminal),
                paint,
                "{flag} {no_color:?} {term:?} {terminal}"
            );
        }
    }

    #[test]
    fn an_icon_without_a_colour_stays_plain() {
        assert_eq!(Paint::Colors.icon(Icon::Ok), "\x1b[32m✔\x1b[0m");
        assert_eq!(Paint::Colors.icon(Icon::Paused), "॥");
        assert_eq!(Paint::Plain.icon(Icon::Ok), "✔");
    }
}
