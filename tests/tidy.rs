//! Who may know what (ARCHITECTURE.md): read off the source, so that a wall that is climbed is seen at once.

use std::path::{Path, PathBuf};

/// Files below a folder (or one file, or its module folder) and what must not stand in their code.
struct Wall {
    inside: &'static [&'static str],
    forbidden: &'static [&'static str],
    why: &'static str,
}

const WALLS: &[Wall] = &[
    Wall {
        inside: &["proxy/src"],
        forbidden: &[
            "kube::",
            "k8s_openapi",
            "serde",
            "clap::",
            "sidestep_control",
        ],
        why: "the data plane knows no Kubernetes, no wire format and no command line",
    },
    Wall {
        inside: &[
            "proxy/src/table",
            "proxy/src/split",
            "proxy/src/balance",
            "proxy/src/ewma",
            "proxy/src/breaker",
            "proxy/src/budget",
            "proxy/src/headers",
        ],
        forbidden: &["async fn", ".await", "TcpStream", "std::fs", "Instant::now"],
        why: "arithmetic of the data plane: no I/O, no clock of its own",
    },
    Wall {
        inside: &["control/decide/src"],
        forbidden: &[
            "kube::Client",
            "kube::Api",
            "kube::client",
            "kube::runtime",
            "async fn",
            ".await",
            "Timestamp::now",
            "Zoned::now",
            "std::env",
            "std::fs",
            "std::io",
            "std::net",
            "std::process",
            "thread::spawn",
            "std::time",
        ],
        why: "decisions are synchronous functions of values",
    },
    Wall {
        inside: &["control/src/local"],
        forbidden: &[
            "crate::rollout",
            "crate::analysis",
            "crate::reconcile",
            "crate::routing",
            "crate::fleet",
            "sidestep_decide",
            "sidestep_proxy",
        ],
        why: "the embedded cluster knows nothing of rollouts",
    },
    Wall {
        inside: &["control/src"],
        forbidden: &[
            "sidestep_proxy::live",
            "sidestep_proxy::forward",
            "sidestep_proxy::Proxy",
            "sidestep_proxy::report",
            "clap::",
        ],
        why: "of the proxy, the control plane knows the table and what certificates are",
    },
    Wall {
        inside: &["src/view"],
        forbidden: &["kube::Client", "kube::Api", "async fn", ".await"],
        why: "pages are made from objects, not from the world",
    },
];

#[test]
fn nobody_knows_more_than_the_architecture_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut broken = Vec::new();
    for wall in WALLS {
        for file in wall.inside.iter().flat_map(|place| sources(root, place)) {
            let text = std::fs::read_to_string(&file).expect("a source file can be read");
            broken.extend(code(&text).flat_map(|(number, line)| {
                let file = file
                    .strip_prefix(root)
                    .unwrap_or(&file)
                    .display()
                    .to_string();
                wall.forbidden
                    .iter()
                    .filter(move |word| line.contains(**word))
                    .map(move |word| format!("{file}:{number}: {word}: {}", wall.why))
            }));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Lines of code with their numbers: comments and what follows `#[cfg(test)]` at the end of a file are left out.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]"))
        .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
        .filter(|(_, line)| !line.trim().is_empty())
}

/// The `.rs` files of a folder, or of a module: `x.rs` and what is below `x/`; test files are left out.
fn sources(root: &Path, place: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let file = root.join(format!("{place}.rs"));
    if file.is_file() {
        found.push(file);
    }
    let mut folders = vec![root.join(place)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs")
                && path.file_name().is_none_or(|name| name != "tests.rs")
            {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn every_wall_stands_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for wall in WALLS.iter().filter(|wall| wall.inside.len() == 1) {
        assert!(
            wall.inside
                .iter()
                .any(|place| !sources(root, place).is_empty()),
            "no files in {:?}",
            wall.inside
        );
    }
}
