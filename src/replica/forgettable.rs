//! What of a node's own rows may be forgotten, as far as these rows tell: its part in asking the other owners.

use crate::record::{Context, Key, Row};
use crate::storage::{Address, PageSize, Span, Store, StoreError};

/// Something of a row that may be forgotten if all owners agree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The key.
    pub key: Key,
    /// The context of what is to go. Empty where nothing is, and the note of it is out of date.
    pub context: Context,
    /// Whether the whole row is to go, a deleted or expired key's.
    pub is_spent: bool,
}

/// The candidates among the rows noted in one page of `span`, which is one of notes ([`Kind::Due`](crate::storage::Kind)),
/// at `now_ms`, in milliseconds since 1970; and where to go on. Reads a row of the base for each, and is for a thread that
/// may wait; `pace` is called in between. Rows that cannot be read are left to the scrub.
pub fn forgettable(
    store: &dyn Store,
    span: &Span,
    size: PageSize,
    now_ms: u64,
    pace: &mut dyn FnMut(),
) -> Result<(Vec<Candidate>, Option<Address>), StoreError> {
    let page = store.scan(span, size)?;
    let mut candidates = Vec::new();
    for (address, note) in &page.rows {
        let due_ms = <[u8; 8]>::try_from(&note[..]).map_or(0, u64::from_le_bytes);
        let Some(key) = address.key().filter(|_| due_ms <= now_ms) else { continue };
        let row = match store.read(&Address::data(&key))?.map(|row| Row::decode(&row)) {
            None => Row::default(),
            Some(Ok(row)) => row,
            Some(Err(_)) => continue,
        };
        let record = row.record;
        candidates.push(Candidate {
            context: record.forgettable(now_ms),
            is_spent: !record.is_unknown() && record.is_spent(now_ms),
            key,
        });
        pace();
    }
    Ok((candidates, page.next))
}
