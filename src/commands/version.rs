//! `version`.

/// The version, with the platform unless it is to be short.
pub(crate) fn text(short: bool) -> String {
    let version = format!("sidestep: v{}\n", env!("CARGO_PKG_VERSION"));
    match short {
        true => version,
        false => format!(
            "{version}  Platform: {}/{}\n",
            std::env::consts::OS,
            std::env::consts::ARCH
        ),
    }
}
