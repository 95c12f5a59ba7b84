//! Whole rollouts against a small model of a cluster: Argo's traces, and what must hold on every way.

mod bluegreen;
mod deadline;
mod duration;
mod dynamic;
mod experiment;
mod found;
mod golden;
mod history;
mod model;
mod pingpong;
mod release;
mod restart;
mod roles;
mod rollback;
mod routers;
mod routes;
mod sizes;
mod steps;
mod switch;
mod takeover;
mod traces;
mod trouble;
mod waits;
mod weights;

pub(super) use model::Model;
