//! The phases of runs, metrics and measurements.

use std::fmt;

/// How far a run, a metric or a measurement is. The order is from best to worst, as Argo ranks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Ended well.
    Successful,
    /// Under way.
    Running,
    /// Not begun.
    Pending,
    /// Ended without an answer: a person decides.
    Inconclusive,
    /// Ended because it could not be measured.
    Error,
    /// Ended badly.
    Failed,
}

impl Phase {
    /// As it stands in a status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Successful => "Successful",
            Self::Running => "Running",
            Self::Pending => "Pending",
            Self::Inconclusive => "Inconclusive",
            Self::Error => "Error",
            Self::Failed => "Failed",
        }
    }

    /// Reads a status; what is empty or unknown has not begun.
    #[must_use]
    pub fn read(text: &str) -> Self {
        match text {
            "Successful" => Self::Successful,
            "Running" => Self::Running,
            "Inconclusive" => Self::Inconclusive,
            "Error" => Self::Error,
            "Failed" => Self::Failed,
            _ => Self::Pending,
        }
    }

    /// Nothing follows.
    #[must_use]
    pub const fn is_completed(self) -> bool {
        match self {
            Self::Successful | Self::Inconclusive | Self::Error | Self::Failed => true,
            Self::Running | Self::Pending => false,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
