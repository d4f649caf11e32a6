//! Revisions: deploy, roll back, decommission, publish again.

use super::*;
use crate::client::{ClientError, Deployed, Draft};
use crate::fault::FaultKind;
use crate::id::ArtifactHash;
use crate::manifest::Version;
use crate::name::Name;

struct Shop {
    super_node: Super,
    client: Client,
}

async fn shop() -> Shop {
    let super_node = Super::start(100);
    let client = Client::builder()
        .super_nodes(vec![super_node.addr()])
        .connect()
        .await
        .unwrap();
    Shop { super_node, client }
}

fn name() -> Name {
    "hello".parse().unwrap()
}

fn draft() -> Draft {
    let Action::Publish(publish) = publish(0) else {
        unreachable!("it publishes")
    };
    Draft {
        name: name(),
        publish,
        message: "new".to_owned(),
    }
}

fn number(deployed: &Deployed) -> (u64, u64) {
    let Version { generation, revision } = deployed.manifest.version();
    (generation, revision)
}

impl Shop {
    async fn deploy(&self, artifact: &'static str, resurrect: bool) -> Result<Deployed, ClientError> {
        self.client
            .deploy(
                &owner(),
                draft(),
                Bytes::from_static(artifact.as_bytes()),
                resurrect,
            )
            .await
    }

    async fn rollback(&self, to: Option<u64>) -> Result<Deployed, ClientError> {
        self.client.rollback(&owner(), &name(), to, |_| None).await
    }
}

fn artifact(deployed: &Deployed) -> ArtifactHash {
    deployed.manifest.publish().unwrap().artifact
}

#[tokio::test]
async fn revisions_are_numbered_and_name_their_parents() {
    let shop = shop().await;
    let first = shop.deploy("one", false).await.unwrap();
    let second = shop.deploy("two", false).await.unwrap();
    assert_eq!((number(&first), number(&second)), ((0, 1), (0, 2)));
    assert_eq!(second.manifest.manifest().parent, Some(first.manifest.hash()));
    assert_eq!(second.manifest.publish().unwrap().artifact_bytes, 3);
    assert_eq!(second.note, "test");
    assert_eq!(shop.super_node.state().artifacts.len(), 2);
}

#[tokio::test]
async fn a_rollback_is_a_new_revision_with_an_older_artifact() {
    let shop = shop().await;
    let mut deployed = Vec::new();
    for artifact in ["one", "two", "three", "three"] {
        deployed.push(shop.deploy(artifact, false).await.unwrap());
    }
    let back = shop.rollback(None).await.unwrap();
    assert_eq!((number(&back), artifact(&back)), ((0, 5), artifact(&deployed[1])));
    let back = shop.rollback(Some(1)).await.unwrap();
    assert_eq!((number(&back), artifact(&back)), ((0, 6), artifact(&deployed[0])));
    assert_eq!(
        shop.rollback(Some(77)).await.unwrap_err().kind(),
        FaultKind::NotFound
    );
}

#[tokio::test]
async fn a_rollback_to_nothing_changes_nothing() {
    let shop = shop().await;
    assert_eq!(shop.rollback(None).await.unwrap_err().kind(), FaultKind::NotFound);
    shop.deploy("one", false).await.unwrap();
    shop.deploy("one", false).await.unwrap();
    assert_eq!(shop.rollback(None).await.unwrap_err().kind(), FaultKind::NotFound);
}

#[tokio::test]
async fn a_rollback_to_what_is_live_is_refused_and_publishes_nothing() {
    let shop = shop().await;
    for artifact in ["one", "two"] {
        shop.deploy(artifact, false).await.unwrap();
    }
    assert_eq!(number(&shop.rollback(Some(1)).await.unwrap()), (0, 3));
    // The live one itself, and the one that it repeats.
    for same in [3, 1] {
        let error = shop.rollback(Some(same)).await.unwrap_err();
        assert_eq!(error.kind(), FaultKind::InputInvalid);
        assert!(error.to_string().contains("nothing to roll back"), "{error}");
    }
    assert_eq!(number(&shop.deploy("three", false).await.unwrap()), (0, 4));
}

#[tokio::test]
async fn a_rollback_brings_the_artifact_if_the_super_node_has_lost_it() {
    let shop = shop().await;
    shop.deploy("one", false).await.unwrap();
    shop.deploy("two", false).await.unwrap();
    shop.super_node.state().artifacts.clear();
    assert_eq!(shop.rollback(None).await.unwrap_err().kind(), FaultKind::NotFound);
    let kept = |hash: &ArtifactHash| {
        assert_eq!(*hash, ArtifactHash::of(b"one"));
        Some(Bytes::from_static(b"one"))
    };
    let back = shop.client.rollback(&owner(), &name(), None, kept).await.unwrap();
    assert_eq!(number(&back), (0, 3));
}

#[tokio::test]
async fn only_resurrection_publishes_after_a_decommission() {
    let shop = shop().await;
    let end = async || shop.client.decommission(&owner(), &name(), String::new()).await;
    assert_eq!(end().await.unwrap_err().kind(), FaultKind::NotFound);
    shop.deploy("one", false).await.unwrap();
    assert_eq!(number(&end().await.unwrap()), (0, 2));
    assert_eq!(end().await.unwrap_err().kind(), FaultKind::Decommissioned);
    assert_eq!(
        shop.deploy("one", false).await.unwrap_err().kind(),
        FaultKind::Decommissioned
    );
    assert_eq!(
        shop.rollback(None).await.unwrap_err().kind(),
        FaultKind::Decommissioned
    );
    assert_eq!(number(&shop.deploy("one", true).await.unwrap()), (1, 1));
}

#[tokio::test]
async fn a_number_that_another_device_takes_meanwhile_is_not_used_twice() {
    let shop = shop().await;
    shop.deploy("one", false).await.unwrap();
    let theirs = manifest(&owner(), "hello", 0, 4, publish(9));
    shop.super_node.state().races.push(theirs.clone());
    let mine = shop.deploy("two", false).await.unwrap();
    assert_eq!(number(&mine), (0, 5));
    assert_eq!(mine.manifest.manifest().parent, Some(theirs.hash()));
}

#[tokio::test]
async fn whoever_comes_second_with_a_number_is_told_and_publishes_nothing() {
    let shop = shop().await;
    shop.deploy("one", false).await.unwrap();
    for at_once in [vec![2], vec![3, 4]] {
        let theirs: Vec<Verified> = at_once
            .iter()
            .map(|number| manifest(&owner(), "hello", 0, *number, publish(9)))
            .collect();
        shop.super_node.state().races.extend(theirs.iter().rev().cloned());
        let fault = shop.deploy("two", false).await.unwrap_err().fault;
        assert_eq!(fault.kind, FaultKind::Refused);
        let winner = theirs[0].hash().short();
        let said = format!("revision {} ({winner}) meanwhile", at_once[0]);
        assert!(fault.message.contains(&said), "{fault}");
        let next = format!("make it revision {}", at_once[at_once.len() - 1] + 1);
        assert!(fault.help.contains(&next), "{fault:?}");
    }
    let live = shop
        .client
        .versions(FunctionId::derive(&owner().id(), &name()))
        .await
        .unwrap();
    assert_eq!(live[0].manifest.version().revision, 4);
}

#[tokio::test]
async fn a_field_out_of_bounds_is_the_callers_fault() {
    let shop = shop().await;
    let mut draft = draft();
    draft.message = "x".repeat(2_000);
    let result = shop
        .client
        .deploy(&owner(), draft, Bytes::from_static(b"one"), false)
        .await;
    assert_eq!(result.unwrap_err().kind(), FaultKind::InputInvalid);
}

#[tokio::test]
async fn an_invitation_is_shown_if_there_is_one() {
    let shop = shop().await;
    shop.deploy("one", false).await.unwrap();
    assert_eq!(shop.super_node.state().invite, None);
    let builder = Client::builder().super_nodes(vec![shop.super_node.addr()]);
    let client = builder.invite("welcome".to_owned()).connect().await.unwrap();
    client
        .deploy(&owner(), draft(), Bytes::from_static(b"two"), false)
        .await
        .unwrap();
    assert_eq!(
        shop.super_node.state().invite.as_deref(),
        Some(b"welcome".as_slice())
    );
}
