//! Sidestep: canary routing without the mesh.

mod cli;
mod settings;
mod view;

fn main() {}
