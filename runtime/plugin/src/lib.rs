//! Orb's JavaScript engine.
//!
//! QuickJS, with the interfaces that Javy gives it, as one WebAssembly module. Hosts hold it
//! once, precompiled; a function is bytecode that is handed to a fresh instance of it.
//!
//! - [`abi`]: the exports, and how bytes cross
//! - [`engine`]: the QuickJS runtime, made before the module is snapshotted
//! - [`compile`]: source to packed bytecode
//! - [`locate`]: where a syntax error is
//! - [`run`]: one call of a compiled program
//! - [`pack`]: the form that bytecode is kept in
//! - [`globals`]: `console`, `Math.random`, `performance`
//! - [`report`]: what is told of an exception

mod abi;
mod compile;
mod engine;
mod globals;
mod locate;
mod pack;
mod report;
mod run;
