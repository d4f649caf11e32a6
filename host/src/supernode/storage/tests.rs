#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

use std::path::Path;

use orb_protocol::id::ArtifactHash;

use super::*;
use crate::store::datadir::Role;
use crate::store::testing::{end, head, manifest, owner, publish, version};

const PLENTY: OwnerLimits = OwnerLimits {
    functions: 10,
    bytes: 1 << 20,
};

fn open(folder: &tempfile::TempDir) -> (DataDir, Storage) {
    let dir = DataDir::open(folder.path(), Role::Super).unwrap();
    let storage = Storage::open(&dir).unwrap();
    (dir, storage)
}

async fn put(storage: &Storage, pin: &Pin, bytes: &[u8]) {
    let writer = storage.write(None, bytes.to_vec()).await.unwrap();
    storage.commit(pin, writer).await.unwrap();
}

async fn is_here(storage: &Storage, bytes: &[u8]) -> bool {
    storage.artifact(ArtifactHash::of(bytes)).await.is_ok()
}

async fn publish_bytes(storage: &Storage, number: u64, bytes: &'static [u8]) -> Arc<Verified> {
    let key = owner(1);
    let manifest = Arc::new(manifest(&key, "f", version(0, number), publish(bytes)));
    let pin = storage.pin(ArtifactHash::of(bytes)).await;
    put(storage, &pin, bytes).await;
    let recorded = storage
        .record(&manifest, head(&key, &manifest), PLENTY, false)
        .await
        .unwrap();
    assert!(matches!(recorded, Recorded::Stored { .. }));
    manifest
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, to) = (
            entry.as_ref().unwrap(),
            to.join(entry.as_ref().unwrap().file_name()),
        );
        if entry.path().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_recorded_is_there_after_a_kill_and_half_a_publish_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, storage) = open(&folder);
    let stored = publish_bytes(&storage, 1, b"whole").await;
    let pin = storage.pin(ArtifactHash::of(b"half")).await;
    put(&storage, &pin, b"half").await;
    // What a kill between the artifact and the manifest leaves.
    let left = tempfile::tempdir().unwrap();
    copy(folder.path(), left.path());
    drop((pin, dir, storage));
    let (dir, storage) = open(&left);
    assert!(dir.stopped_uncleanly());
    assert_eq!(storage.live(stored.function()).await.unwrap(), Some(stored));
    assert!(is_here(&storage, b"whole").await);
    assert!(!is_here(&storage, b"half").await);
}

#[tokio::test]
async fn the_newest_manifest_is_read_however_often_it_was_read_before() {
    let folder = tempfile::tempdir().unwrap();
    let (_dir, storage) = open(&folder);
    for number in 1..=3 {
        let stored = publish_bytes(&storage, number, b"bytes").await;
        for _ in 0..2 {
            assert_eq!(
                storage.live(stored.function()).await.unwrap(),
                Some(Arc::clone(&stored))
            );
        }
    }
}

#[tokio::test]
async fn a_decommission_purges_the_bytes_unless_they_are_about_to_be_needed() {
    let folder = tempfile::tempdir().unwrap();
    let (_dir, storage) = open(&folder);
    publish_bytes(&storage, 1, b"bytes").await;
    let artifact = ArtifactHash::of(b"bytes");
    let pin = storage.pin(artifact).await;
    let key = owner(1);
    let tombstone = Arc::new(manifest(&key, "f", version(0, 2), end()));
    storage
        .record(&tombstone, head(&key, &tombstone), PLENTY, false)
        .await
        .unwrap();
    assert!(is_here(&storage, b"bytes").await);
    // The publish that pinned it fails: now it goes.
    blocking(move || drop(pin)).await;
    while is_here(&storage, b"bytes").await {
        tokio::task::yield_now().await;
    }
}
