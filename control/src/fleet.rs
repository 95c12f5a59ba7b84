//! The proxies as the controller sees them: who is there, what each serves, and what each has counted.

pub mod report;
