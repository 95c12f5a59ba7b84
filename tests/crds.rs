//! The definitions that the chart brings are those of the program.

use std::path::Path;
use std::process::Command;

/// `UPDATE=1` rewrites them.
#[test]
fn the_chart_brings_what_the_program_prints() {
    for group in ["argoproj.io", "sidestep.dev"] {
        let mut crds = Command::new(env!("CARGO_BIN_EXE_sidestep"));
        let printed = crds.args(["crds", "--group", group]).output().unwrap();
        assert!(printed.status.success(), "{printed:?}");
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("charts/sidestep/files/crds/{group}.yaml"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, &printed.stdout).unwrap();
        }
        let is_the_same = std::fs::read(&file).unwrap() == printed.stdout;
        assert!(is_the_same, "{}: run with UPDATE=1", file.display());
    }
}
