//! Sidestep: canary routing without the mesh.

fn main() {}
