//! Orb.
pub mod javy;
