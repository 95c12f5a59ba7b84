//! What one evaluation may use. A condition is a template author's text and runs in the controller: it must not stall it.

/// Steps: a node worked out, an element visited. Conditions of people take under a hundred per element.
const STEPS: u64 = 2_000_000;

/// Memory: elements and bytes made on the way, as in expr-lang (`MemoryBudget`, 1e6).
const MEMORY: u64 = 1_000_000;

/// What is left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    steps: u64,
    memory: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            steps: STEPS,
            memory: MEMORY,
        }
    }
}

impl Budget {
    /// Takes steps.
    pub(super) fn step(&mut self, steps: usize) -> Result<(), String> {
        take(&mut self.steps, steps).ok_or_else(|| "step budget exceeded".to_owned())
    }

    /// Takes memory, before it is used.
    pub(super) fn hold(&mut self, units: usize) -> Result<(), String> {
        take(&mut self.memory, units).ok_or_else(|| "memory budget exceeded".to_owned())
    }
}

fn take(left: &mut u64, units: usize) -> Option<()> {
    *left = left.checked_sub(u64::try_from(units).ok()?)?;
    Some(())
}
