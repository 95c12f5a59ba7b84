//! Tables in service.
