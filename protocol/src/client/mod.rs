//! The client: Orb's Rust SDK.
//!
//! A [`Client`] keeps a connection to one of its super nodes and connections to the hosts that it
//! called lately. A super node says which revision of a function is live and who can answer for it;
//! the client calls the hosts itself, and fails over itself.
//!
//! ```no_run
//! use orb_protocol::client::{CallOptions, Client};
//! use orb_protocol::id::FunctionId;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder().super_nodes(vec!["NODEID@203.0.113.7:4433".parse()?]).connect().await?;
//! let function = FunctionId::derive(&"OWNER".parse()?, &"hello".parse()?);
//! let input = serde_json::json!({ "name": "world" });
//! let answer = client.call_json::<_, serde_json::Value>(function, &input, CallOptions::default()).await?;
//! println!("{} from {}", answer.output, answer.report.host);
//! # Ok(())
//! # }
//! ```
//!
//! - [`builder`]: connecting. [`directory`]: what super nodes are asked. [`deploy`]: revisions.
//! - [`call`]: one call, its options, its answer. [`stream`]: the same with streamed bodies.
//! - [`error`]: how it all can fail.

pub mod builder;
pub mod call;
pub mod deploy;
pub mod directory;
pub mod error;
pub mod stream;

pub use builder::{Client, ClientBuilder, SuperAddr};
pub use call::{Answer, CallOptions, CallReport, CallTimes, JsonAnswer};
pub use deploy::{Deployed, Draft};
pub use directory::{Inspection, Listing, Resolution, Revision};
pub use error::{CallError, ClientError, FailedAttempt};
pub use stream::{CallInput, CallOutput, CallStream};

fn pending() -> ClientError {
    use crate::fault::{Fault, FaultKind};
    Fault::new(FaultKind::Internal, "the client does not connect yet").into()
}
