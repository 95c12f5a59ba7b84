//! Sidestep: canary routing without the mesh.

mod cli;
mod settings;

fn main() {}
