//! Where the memory is found that Argo's status has no field for.

use crate::api::split::Memory;

/// The memory, out of the two places it may stand in: the Split's status where there is a Split, else the annotation.
///
/// A Split that has just been made remembers nothing yet; should its maker have died then, the annotation still has what it knew. The
/// annotation goes only after the Split's status was written.
#[must_use]
pub fn recall(split: Option<&Memory>, annotated: Option<&Memory>) -> Memory {
    let split = split.filter(|memory| **memory != Memory::default());
    split.or(annotated).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_the_two_places() {
        let of = |generation| Memory {
            generation: Some(generation),
            ..Memory::default()
        };
        let none = Memory::default();
        // Split's, annotation's → recalled
        for (split, annotated, expected) in [
            (None, None, none.clone()),
            (None, Some(of(1)), of(1)),
            (Some(none.clone()), Some(of(1)), of(1)), // died before the status was written
            (Some(of(2)), Some(of(1)), of(2)),        // … before the annotation went
            (Some(of(2)), None, of(2)),
            (Some(none.clone()), None, none),
        ] {
            let recalled = recall(split.as_ref(), annotated.as_ref());
            assert_eq!(recalled, expected, "{split:?}, {annotated:?}");
        }
    }
}
