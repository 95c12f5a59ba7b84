//! The integration tests on a real control plane: one binary, a module per subject. See `docs/testing.md`.

#[cfg(test)]
mod controller;
#[cfg(test)]
mod kubelet;
#[cfg(test)]
#[path = "support"]
mod support {
    //! What these tests need: a real control plane.

    pub(crate) mod cluster;
}
