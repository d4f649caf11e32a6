//! Ids, names and addresses as people write them.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use orb_protocol::client::SuperAddr;
use orb_protocol::id::{ArtifactHash, FunctionId, NodeId, OwnerId};
use orb_protocol::name::Name;

/// Any text: what is taken is written, and read again as the same.
pub(crate) fn text(bytes: &[u8]) {
    let Ok(written) = std::str::from_utf8(bytes) else {
        return;
    };
    law::<Name>(written);
    law::<NodeId>(written);
    law::<OwnerId>(written);
    law::<FunctionId>(written);
    law::<ArtifactHash>(written);
    law::<SuperAddr>(written);
}

fn law<T: FromStr + Display + PartialEq + Debug>(written: &str) {
    let Ok(read) = written.parse::<T>() else {
        return;
    };
    let again = read.to_string().parse::<T>();
    assert_eq!(again.ok().as_ref(), Some(&read), "{read} is read as another");
}
