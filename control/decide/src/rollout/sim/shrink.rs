//! A shorter list of things that happen which breaks the same rule.

use super::{Broken, Script, Tamper};

/// Leaves out of a script's list what is not needed to break the rule.
pub(super) fn shrink(
    script: &Script,
    broken: &Broken,
    happened: usize,
    tamper: Option<Tamper>,
) -> Script {
    let mut best = script.clone();
    best.list.truncate(happened);
    if !breaks(&best, broken, tamper) {
        return script.clone();
    }
    let mut size = best.list.len().div_ceil(2);
    let mut tries = 0;
    while size > 0 && tries < TRIES {
        let mut at = 0;
        while at < best.list.len() && tries < TRIES {
            tries += 1;
            let mut shorter = best.clone();
            let end = (at + size).min(shorter.list.len());
            shorter.list.drain(at..end);
            match breaks(&shorter, broken, tamper) {
                true => best = shorter,
                false => at += size,
            }
        }
        size /= 2;
    }
    best
}

fn breaks(script: &Script, broken: &Broken, tamper: Option<Tamper>) -> bool {
    let result = script.walk(tamper);
    result.is_err_and(|(other, _)| other.rule == broken.rule)
}

/// Enough for every list that was met; a walk takes milliseconds.
const TRIES: usize = 600;
