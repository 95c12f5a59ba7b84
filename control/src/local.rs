//! One machine as a cluster: an API server of our own inside the process.
//!
//! | file | what |
//! |---|---|
//! | [`store`] | the objects, their versions, and what lately happened to them |
//! | [`kinds`] | what kinds there are: one row each |
//! | `strict` | is an object what its kind says? |
//! | `defaults` | what the server fills in |
//! | `selector` | label and field selectors |
//! | [`logs`] | what pods have written |
//! | [`launcher`] | starts processes that die with us |

mod defaults;
pub mod kinds;
pub mod launcher;
pub mod logs;
mod selector;
pub mod store;
mod strict;

pub use strict::{FieldError, Problem};
