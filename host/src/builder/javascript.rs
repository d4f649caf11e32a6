//! JavaScript to Wasm: compiled by the very engine that hosts run it on.

use std::path::Path;

use orb_runtime::Sandbox;

use crate::failure::Failure;

/// The artifact of a source. Errors name `main`.
pub(super) async fn compile(_source: &[u8], main: &Path, _sandbox: &Sandbox) -> Result<Vec<u8>, Failure> {
    let message = format!("{}: JavaScript is not compiled yet", main.display());
    std::future::ready(Err(Failure::local(message))).await
}
