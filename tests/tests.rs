//! The integration tests: one binary, a module per subject.

#[cfg(test)]
mod commands;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod tidy;
