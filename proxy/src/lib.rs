//! The data plane of Sidestep: an L7 proxy that splits requests over versions by weight.
//!
//! | file | what it holds |
//! |---|---|
//! | `config` | addresses, limits and deadlines, already valid |
//! | `table`, `table/matching` | the routing state as a plain value; host and path → route |
//! | `split` | shares, points, the pick of a version |

pub mod config;
pub mod split;
pub mod table;
