//! A table in which a few backends and Splits are others: what does not change is neither checked nor planned again, and is shared.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::check::{self, Error};
use super::{Backend, Source, Split, Table, plan_backend, plan_split};

/// What is to be replaced, by its index in the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patch {
    /// Backends of the same Service and port.
    pub backends: BTreeMap<usize, Backend>,
    /// Splits of the same name and uid. All backends of such a Split have to be replaced with it.
    pub splits: BTreeMap<usize, Split>,
}

impl Table {
    /// This table with some parts replaced; routes, apexes and the order of everything stay. `own` is that of
    /// [`super::Parts::own`].
    ///
    /// # Errors
    ///
    /// Names the first part that cannot be served or that is not the one it replaces: then the table has to be built as a whole.
    pub fn patched(&self, patch: Patch, own: &[SocketAddr]) -> Result<Self, Error> {
        check::check_patch(self, &patch, own)?;
        let mut table = self.clone();
        let mut of_split: BTreeMap<usize, Vec<&Backend>> = BTreeMap::new();
        for backend in patch.backends.values() {
            if let Source::Split { split, .. } = &backend.source {
                of_split.entry(*split).or_default().push(backend);
            }
        }
        for (index, split) in patch.splits {
            let backends = of_split.remove(&index).unwrap_or_default();
            table.splits[index] = Arc::new(plan_split(split, &backends));
        }
        for (index, backend) in patch.backends {
            table.backends[index] = plan_backend(backend, &table.splits);
        }
        Ok(table)
    }
}
