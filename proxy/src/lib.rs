//! The data plane of Sidestep: an L7 proxy that splits requests over versions by weight.
