//! Orb.
