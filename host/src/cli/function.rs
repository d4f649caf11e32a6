//! How a function is named on the command line: `[OWNER/]NAME[@REVISION]`.

use std::str::FromStr;

use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::id::{FunctionId, OwnerId};
use orb_protocol::manifest::REVISION_MAX;
use orb_protocol::name::{Name, NameError};

use crate::failure::Failure;
use crate::home::Home;

/// A function as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FunctionRef {
    owner: Option<String>,
    name: Name,
    revision: Option<u64>,
}

/// Why a text names no function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FunctionRefError {
    /// An `/` without an owner before it.
    #[error("a function is written [OWNER/]NAME[@REVISION], and no owner stands before the '/'")]
    Owner,
    /// The name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The revision is none.
    #[error("{0:?} is no revision: a function is written [OWNER/]NAME[@REVISION], with a number from 1")]
    Revision(String),
}

impl FromStr for FunctionRef {
    type Err = FunctionRefError;

    fn from_str(text: &str) -> Result<Self, FunctionRefError> {
        let (owner, rest) = match text.split_once('/') {
            Some(("", _)) => return Err(FunctionRefError::Owner),
            Some((owner, rest)) => (Some(owner.to_owned()), rest),
            None => (None, text),
        };
        let (name, revision) = match rest.split_once('@') {
            Some((name, revision)) => (name, Some(parse_revision(revision)?)),
            None => (rest, None),
        };
        Ok(Self {
            owner,
            name: name.parse()?,
            revision,
        })
    }
}

fn parse_revision(text: &str) -> Result<u64, FunctionRefError> {
    match text.parse() {
        Ok(revision @ 1..=REVISION_MAX) => Ok(revision),
        _ => Err(FunctionRefError::Revision(text.chars().take(40).collect())),
    }
}

impl FunctionRef {
    /// Finds out whose function is meant.
    ///
    /// # Errors
    /// An owner that is not known here.
    pub(crate) fn locate(&self, home: &Home) -> Result<Target, Failure> {
        let owner = match &self.owner {
            Some(owner) => home.owner(owner)?,
            None => home.owner_key()?.id(),
        };
        let shown = match &self.owner {
            Some(text) if text.parse::<OwnerId>().is_ok() => format!("{}/{}", owner.short(), self.name),
            Some(alias) => format!("{alias}/{}", self.name),
            None => self.name.to_string(),
        };
        Ok(Target {
            owner,
            name: self.name.clone(),
            id: FunctionId::derive(&owner, &self.name),
            revision: self.revision,
            shown,
        })
    }

    /// The same for a command about all revisions.
    ///
    /// # Errors
    /// As [`FunctionRef::locate`], and if a revision was written.
    pub(crate) fn locate_whole(&self, home: &Home) -> Result<Target, Failure> {
        if let Some(revision) = self.revision {
            let message = format!("this command is about the whole function: leave out @{revision}");
            return Err(Failure::usage(message));
        }
        self.locate(home)
    }

    /// The same for a command that only the owner can give.
    ///
    /// # Errors
    /// As [`FunctionRef::locate_whole`], and if it is somebody else's.
    pub(crate) fn locate_own(&self, home: &Home) -> Result<Target, Failure> {
        let target = self.locate_whole(home)?;
        let own = home.owner_key()?.id();
        if target.owner == own {
            return Ok(target);
        }
        let message = format!(
            "{} belongs to the owner {}, and the key in {} is {}'s",
            target.shown,
            target.owner.short(),
            home.folder().display(),
            own.short()
        );
        Err(Failure::new("refused", message)
            .exit(7)
            .help("only its owner can change a function: use the owner's ORB_HOME"))
    }
}

/// A function, found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Whose it is.
    pub(crate) owner: OwnerId,
    /// Its name.
    pub(crate) name: Name,
    /// Its id.
    pub(crate) id: FunctionId,
    /// The revision that has to answer, if one was written.
    pub(crate) revision: Option<u64>,
    /// How to call it when speaking to this person.
    pub(crate) shown: String,
}

impl Target {
    /// A fault about this function, as a person wants to hear it: super nodes know ids, and the person
    /// wrote a name.
    pub(crate) fn failure(&self, fault: Fault) -> Failure {
        let kind = fault.kind;
        let named = fault.message.contains(self.name.as_str());
        let failure = Failure::from(fault);
        match kind {
            FaultKind::NotFound if !named => Failure {
                message: format!("there is no function {}", self.shown),
                ..failure
            },
            FaultKind::Decommissioned => Failure {
                message: format!("the function {} was decommissioned by its owner", self.shown),
                ..failure
            }
            .help("its owner can publish it again with `orb deploy --resurrect`"),
            _ => failure,
        }
    }

    /// `OWNER/NAME`, for programs.
    pub(crate) fn full(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use orb_protocol::key::OwnerKey;

    use super::*;

    #[test]
    fn every_form_is_read() {
        let parse = |text: &str| text.parse::<FunctionRef>().unwrap();
        let plain = parse("hello");
        assert_eq!(
            (plain.owner, plain.name.as_str(), plain.revision),
            (None, "hello", None)
        );
        assert_eq!(parse("hello@3").revision, Some(3));
        let all = parse("alice/hello.v2@12");
        assert_eq!(all.owner.as_deref(), Some("alice"));
        assert_eq!((all.name.as_str(), all.revision), ("hello.v2", Some(12)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, says) in [
            ("", "is not a name"),
            ("Hello", "is not a name"),
            ("/hello", "no owner stands"),
            ("a/b/c", "is not a name"),
            ("hello@", "is no revision"),
            ("hello@0", "is no revision"),
            ("hello@latest", "is no revision"),
            ("hello@99999999999999999999", "is no revision"),
        ] {
            let error = text.parse::<FunctionRef>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn whose_function_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let own = home.owner_key().unwrap().id();
        let friend = OwnerKey::from_seed([1; 32]).id();
        home.aliases()
            .unwrap()
            .set("alice".parse().unwrap(), friend)
            .unwrap();
        let locate = |text: &str| text.parse::<FunctionRef>().unwrap().locate(&home);
        assert_eq!(locate("hello").unwrap().owner, own);
        assert_eq!(locate("alice/hello").unwrap().owner, friend);
        assert_eq!(locate("alice/hello").unwrap().shown, "alice/hello");
        assert_eq!(
            locate(&format!("{friend}/hello")).unwrap().shown,
            format!("{}/hello", friend.short())
        );
        assert_eq!(locate("bob/hello").unwrap_err().exit, 2);
        let own_only = |text: &str| text.parse::<FunctionRef>().unwrap().locate_own(&home);
        assert_eq!(own_only("alice/hello").unwrap_err().exit, 7);
        assert_eq!(own_only("hello@1").unwrap_err().exit, 2);
        own_only(&format!("{own}/hello")).unwrap();
    }
}
