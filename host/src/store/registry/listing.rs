//! Pages of the functions that there are.

use redb::{ReadTransaction, ReadableTable};

use orb_protocol::id::{FunctionId, OwnerId};
use orb_protocol::manifest::SignedManifest;
use orb_protocol::wire::codec;

use super::keys::next_key;
use super::{HISTORY, LIVE, OWNED, RegistryTables, is_tombstone, live};
use crate::store::database::{StoreError, TxnError, unseal};

/// Bytes of manifests in one page of a listing: leaves room in a message for what stands around them.
const PAGE_BYTES: usize = codec::MESSAGE_LEN_MAX * 3 / 4;

impl RegistryTables {
    /// A page of live manifests, tombstones among them if asked for, in the order of function ids; and
    /// whether there are more.
    pub(crate) fn page(
        txn: &ReadTransaction,
        owner: Option<&OwnerId>,
        after: Option<&FunctionId>,
        limit: usize,
        decommissioned: bool,
    ) -> Result<(Vec<SignedManifest>, bool), TxnError> {
        let (table, history) = (txn.open_table(LIVE)?, txn.open_table(HISTORY)?);
        let mut page = Page::new(limit);
        let mut take = |function: &[u8]| -> Result<bool, TxnError> {
            let Some(record) = table.get(function)? else {
                return Ok(false);
            };
            let signed = match unseal::<SignedManifest>("live", function, record.value()) {
                Ok(signed) => Some(signed),
                Err(error) => second_copy(&table, &history, function, &error)?,
            };
            let signed = signed.filter(|signed| decommissioned || !is_tombstone(signed));
            Ok(signed.is_some_and(|signed| page.take(signed)))
        };
        match owner {
            None => {
                let start = after.map_or(Vec::new(), |after| next_key(after.as_bytes()));
                for entry in table.range(start.as_slice()..)? {
                    if take(entry?.0.value())? {
                        break;
                    }
                }
            }
            Some(owner) => {
                let owned = txn.open_table(OWNED)?;
                let after = after.map_or(Vec::new(), |after| next_key(after.as_bytes()));
                let start = [owner.as_bytes().as_slice(), &after].concat();
                for entry in owned.range(start.as_slice()..)? {
                    let (key, is_live) = entry?;
                    let Some(function) = key.value().strip_prefix(owner.as_bytes()) else {
                        break;
                    };
                    if (decommissioned || is_live.value() == [1]) && take(function)? {
                        break;
                    }
                }
            }
        }
        Ok((page.manifests, page.full))
    }
}

/// A page that is being filled.
pub(super) struct Page {
    pub(super) manifests: Vec<SignedManifest>,
    limit: usize,
    bytes: usize,
    pub(super) full: bool,
}

impl Page {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            manifests: Vec::new(),
            limit: limit.max(1),
            bytes: 0,
            full: false,
        }
    }

    /// Returns true if this one was too much.
    pub(super) fn take(&mut self, signed: SignedManifest) -> bool {
        let bytes = signed.bytes.len() + signed.signature.len();
        self.full = self.manifests.len() >= self.limit
            || (self.bytes + bytes > PAGE_BYTES && !self.manifests.is_empty());
        if !self.full {
            self.bytes += bytes;
            self.manifests.push(signed);
        }
        self.full
    }
}

/// For a listing: the live manifest of a function whose record is damaged. A function that is damaged
/// beyond repair is left out, and named in the log, so that the others can still be listed.
fn second_copy(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    history: &impl ReadableTable<&'static [u8], &'static [u8]>,
    function: &[u8],
    error: &StoreError,
) -> Result<Option<SignedManifest>, TxnError> {
    let id = function.try_into().map(FunctionId::from_bytes).ok();
    match id.map(|id| live(table, history, &id)).transpose() {
        Ok(manifest) => Ok(manifest.flatten().map(|manifest| manifest.signed().clone())),
        Err(TxnError::Store(_)) => {
            tracing::error!(%error, "a function is left out of a listing");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
